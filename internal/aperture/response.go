// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	checkv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/check/v1"
	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/flow"
)

// Details are what a CheckResponse says besides what the flow and its request tell.
type Details struct {
	// Started is when the request arrived.
	Started time.Time
	// Token of the flow, sealed. nil: Respond seals one, if the flow will be ended; empty: there is none. A flow has
	// one token only, so pass it if it was sealed already.
	Token []byte
	// ExpectEnd tells that the client will call FlowEnd.
	ExpectEnd bool
}

// controlPointType is the telemetry label that tells features from HTTP requests.
const controlPointType = "aperture.control_point_type"

// The types of control points, and the service that stands for every one and for none.
const (
	kindFeature = "feature"
	kindHTTP    = "http"
	anyService  = "any"
)

// Respond makes Aperture's answer for a flow that was decided with Request.Explain set. It refers to nothing of
// the flow, which may be freed.
func Respond(f *flow.Flow, r *flow.Request, d Details) *checkv1.CheckResponse {
	v := &f.Verdict
	out := &checkv1.CheckResponse{
		Start: timestamppb.New(d.Started), Services: valid(r.Services), ControlPoint: text(r.ControlPoint), ExpectEnd: d.ExpectEnd,
	}
	labels(out, f, r)
	token := ""
	if v.Admitted && !f.NoEnd() {
		if d.Token == nil {
			d.Token = f.Seal(nil)
		}
		if token = tokenEncoding.EncodeToString(d.Token); token != "" {
			out.TelemetryFlowLabels[TokenLabel] = token
		}
	}
	if !v.Admitted {
		out.DecisionType = checkv1.CheckResponse_DECISION_TYPE_REJECTED
		out.RejectReason = rejectReason(v)
		out.DeniedResponseStatusCode = checkv1.StatusCode(v.HTTPStatus())
		if v.RetryAfter > 0 {
			out.WaitTime = durationpb.New(v.RetryAfter)
		}
	}
	for i := range v.Decisions {
		out.LimiterDecisions = append(out.LimiterDecisions, decision(v, &v.Decisions[i], token))
	}
	for _, c := range f.Classifiers() {
		out.ClassifierInfos = append(out.ClassifierInfos, classifierInfo(&c))
	}
	for _, name := range f.MeterNames() {
		out.FluxMeterInfos = append(out.FluxMeterInfos, &checkv1.FluxMeterInfo{FluxMeterName: text(name)})
	}
	if cached := f.Cached(); cached != nil {
		out.CacheLookupResponse = cacheAnswer(cached)
	}
	out.End = timestamppb.Now()
	return out
}

// labels tells the keys of all labels, and the labels that may be shown.
func labels(out *checkv1.CheckResponse, f *flow.Flow, r *flow.Request) {
	keys := make(map[string]bool, len(r.Labels)+8)
	shown := make(map[string]string, len(r.Labels)+8)
	kind := kindFeature
	if r.HTTP != nil {
		kind = kindHTTP
		r.HTTP.EachLabel(func(key, value string, telemetry bool) {
			keys[text(key)] = true
			if telemetry {
				shown[text(key)] = text(value)
			}
		})
	}
	for key, value := range r.Labels {
		keys[text(key)], shown[text(key)] = true, text(value)
	}
	for _, l := range f.Derived() {
		key := text(l.Key)
		keys[key] = true
		delete(shown, key)
		if l.Telemetry {
			shown[key] = text(l.Value)
		}
	}
	out.FlowLabelKeys = slices.Sorted(maps.Keys(keys))
	shown[controlPointType] = kind
	delete(shown, TokenLabel) // a client cannot bring a token of its own
	out.TelemetryFlowLabels = shown
}

// text makes a string fit for protobuf, which refuses what is not UTF-8: baggage may carry any bytes.
func text(s string) string { return strings.ToValidUTF8(s, "�") }

func valid(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = text(s)
	}
	return out
}

func classifierInfo(c *flow.ClassifierResult) *checkv1.ClassifierInfo {
	out := &checkv1.ClassifierInfo{
		PolicyName: c.Classifier.Policy, PolicyHash: c.Classifier.Hash, ClassifierIndex: int64(c.Classifier.Index),
	}
	switch {
	case c.Err == nil:
	case c.Err.Code == classify.CodeBounds:
		out.Error = checkv1.ClassifierInfo_ERROR_EVAL_FAILED
	default:
		out.Error = checkv1.ClassifierInfo_Error(c.Err.Code) // the numbers are the same
	}
	return out
}

// rejectReason is why a flow was denied, in Aperture's words.
func rejectReason(v *flow.Verdict) checkv1.CheckResponse_RejectReason {
	switch v.Reason {
	case flow.RateLimited, flow.ConcurrencyLimited:
		return checkv1.CheckResponse_REJECT_REASON_RATE_LIMITED
	case flow.NotSampled:
		if v.Limiter == nil || v.Limiter.Sample.Ramp {
			return checkv1.CheckResponse_REJECT_REASON_NO_MATCHING_RAMP
		}
		return checkv1.CheckResponse_REJECT_REASON_NOT_SAMPLED
	case flow.TooLarge, flow.InvalidRequest:
		if v.Limiter == nil {
			return checkv1.CheckResponse_REJECT_REASON_NONE // there is no word for it
		}
		if v.Limiter.Kind == flow.RateLimiter || v.Limiter.Kind == flow.ConcurrencyLimiter {
			return checkv1.CheckResponse_REJECT_REASON_RATE_LIMITED
		}
	}
	return checkv1.CheckResponse_REJECT_REASON_NO_TOKENS
}
