// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"google.golang.org/protobuf/types/known/durationpb"

	checkv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/check/v1"
	"github.com/sluice-project/sluice/internal/flow"
)

// decision is the answer of one limiter. The token is that of the flow; "": it holds nothing.
func decision(v *flow.Verdict, d *flow.Decision, token string) *checkv1.LimiterDecision {
	l := d.Limiter
	out := &checkv1.LimiterDecision{
		PolicyName: l.Policy, PolicyHash: l.Hash, ComponentId: l.Component, Dropped: !d.Admitted,
	}
	if d.Note == "label_missing" {
		out.Reason = checkv1.LimiterDecision_LIMITER_REASON_KEY_NOT_FOUND
	}
	if !d.Admitted {
		out.DeniedResponseStatusCode = checkv1.StatusCode(v.HTTPStatus())
		if v.RetryAfter > 0 {
			out.WaitTime = durationpb.New(v.RetryAfter)
		}
	}
	id := ""
	if token != "" && d.Charged && d.Admitted {
		id = requestID(token, limiterSum(l.Policy, l.Hash, l.Component))
	}
	details(out, d, id)
	return out
}

// details are what a limiter of a kind tells besides.
func details(out *checkv1.LimiterDecision, d *flow.Decision, id string) {
	label, workload := account(d), text(d.Workload)
	switch d.Limiter.Kind {
	case flow.LoadRamp, flow.Sampler:
		out.Details = &checkv1.LimiterDecision_SamplerInfo_{
			SamplerInfo: &checkv1.LimiterDecision_SamplerInfo{Label: text(d.Limiter.LimitBy + ":" + d.Key)},
		}
	case flow.RateLimiter:
		out.Details = &checkv1.LimiterDecision_RateLimiterInfo_{
			RateLimiterInfo: &checkv1.LimiterDecision_RateLimiterInfo{Label: label, TokensInfo: tokensInfo(d)},
		}
	case flow.ConcurrencyLimiter:
		out.Details = &checkv1.LimiterDecision_ConcurrencyLimiterInfo_{
			ConcurrencyLimiterInfo: &checkv1.LimiterDecision_ConcurrencyLimiterInfo{
				Label: label, TokensInfo: tokensInfo(d), RequestId: id,
			},
		}
	case flow.ConcurrencyScheduler, flow.AdaptiveConcurrencyScheduler:
		out.Details = &checkv1.LimiterDecision_ConcurrencySchedulerInfo_{
			ConcurrencySchedulerInfo: &checkv1.LimiterDecision_ConcurrencySchedulerInfo{
				Label: label, WorkloadIndex: workload, TokensInfo: tokensInfo(d), Priority: d.Priority, RequestId: id,
			},
		}
	case flow.QuotaScheduler:
		out.Details = &checkv1.LimiterDecision_QuotaSchedulerInfo_{
			QuotaSchedulerInfo: &checkv1.LimiterDecision_QuotaSchedulerInfo{
				Label: label, WorkloadIndex: workload, TokensInfo: tokensInfo(d), Priority: d.Priority,
			},
		}
	case flow.LoadScheduler:
		out.Details = &checkv1.LimiterDecision_LoadSchedulerInfo{
			LoadSchedulerInfo: &checkv1.LimiterDecision_SchedulerInfo{
				WorkloadIndex: workload, TokensInfo: tokensInfo(d), Priority: d.Priority,
			},
		}
	}
}

// account names the account as Aperture does.
func account(d *flow.Decision) string {
	if d.Limiter.LimitBy == "" {
		return "default"
	}
	return text(d.Limiter.LimitBy + ":" + d.Key)
}

// tokensInfo is the state of the account; nil when none was asked.
func tokensInfo(d *flow.Decision) *checkv1.LimiterDecision_TokensInfo {
	if !d.Charged {
		return nil
	}
	out := &checkv1.LimiterDecision_TokensInfo{Remaining: d.Remaining, Current: max(0, d.Limit-d.Remaining)}
	if d.Admitted {
		out.Consumed = d.Tokens
	}
	return out
}
