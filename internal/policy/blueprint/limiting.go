// SPDX-License-Identifier: Apache-2.0

package blueprint

import (
	"time"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy"
)

// alertAtMost is the percentage of admitted flows at or below which the alert is raised: more than 90% of
// them are denied. Aperture compared the wrong way round and alerted while all was well.
const alertAtMost = 10

// alertAfter is how long it has to stay that low. The percentage is that of the last 30 seconds, so that a
// single denied flow makes it 0 for 30 seconds when no other comes: that alone is no reason for an alert.
const alertAfter = policy.Duration(35 * time.Second)

// limiter adds a limiter of the kind that field names and its alert.
func (c *circuit) limiter(field string, component policy.FlowControl, alerter policy.AlerterParameters) {
	values := fielderr.Path(field)
	c.actuator(values, "flow_control."+field, policy.Component{FlowControl: &component})
	c.decideFor(values.Field("alerter"), compared{acceptPercentage, "lte", alertAtMost}, alertAfter, acceptPercentageAlert)
	c.alert(values.Field("alerter"), acceptPercentageAlert, alerter)
}

func acceptPercentageOut() policy.LimiterOuts {
	return policy.LimiterOuts{AcceptPercentage: out(acceptPercentage)}
}

// RateLimiting are the values of rate-limiting/base.
type RateLimiting struct {
	Common
	// The limit.
	RateLimiter RateLimiterValues `json:"rate_limiter" check:"required"`
}

// RateLimiterValues describe a rate limiter and its alert.
type RateLimiterValues struct {
	// Tokens a bucket holds at most, which is the largest burst.
	BucketCapacity float64 `json:"bucket_capacity" check:"required,gte=0,lte=9007199254740992"`
	// Tokens added to a bucket per interval. 0 never refills.
	FillAmount float64 `json:"fill_amount" check:"required,gte=0,lte=9007199254740992"`
	// Flows the limit applies to.
	Selectors []policy.Selector `json:"selectors" check:"required"`
	// How the buckets are kept and filled.
	Parameters policy.RateLimiterParameters `json:"parameters" check:"required"`
	// How single flows are counted and answered.
	RequestParameters policy.LimiterRequestParameters `json:"request_parameters"`
	// Alert raised when at most 10% of the flows were admitted for 35 seconds.
	Alerter policy.AlerterParameters `json:"alerter" default:"{alert_name: 'More than 90% of requests are being rate limited'}"`
}

func (v *RateLimiting) build(c *circuit) {
	c.limiter("rate_limiter", policy.FlowControl{RateLimiter: &policy.RateLimiter{
		InPorts: policy.RateLimiterIns{
			BucketCapacity: constant(v.RateLimiter.BucketCapacity),
			FillAmount:     constant(v.RateLimiter.FillAmount),
		},
		Parameters:        v.RateLimiter.Parameters,
		Selectors:         v.RateLimiter.Selectors,
		RequestParameters: v.RateLimiter.RequestParameters,
		OutPorts:          acceptPercentageOut(),
	}}, v.RateLimiter.Alerter)
}

// QuotaScheduling are the values of quota-scheduling/base.
type QuotaScheduling struct {
	Common
	// The quota and who waits for it.
	QuotaScheduler QuotaSchedulerValues `json:"quota_scheduler" check:"required"`
}

// QuotaSchedulerValues describe a quota scheduler and its alert.
type QuotaSchedulerValues struct {
	// Tokens a bucket holds at most, which is the largest burst.
	BucketCapacity float64 `json:"bucket_capacity" check:"required,gte=0,lte=9007199254740992"`
	// Tokens added to a bucket per interval. 0 never refills.
	FillAmount float64 `json:"fill_amount" check:"required,gte=0,lte=9007199254740992"`
	// Flows the quota applies to.
	Selectors []policy.Selector `json:"selectors" check:"required"`
	// How the buckets are kept and filled.
	RateLimiter policy.RateLimiterParameters `json:"rate_limiter" check:"required"`
	// Who waits for whom.
	Scheduler policy.Scheduler `json:"scheduler"`
	// Alert raised when at most 10% of the flows were admitted for 35 seconds.
	Alerter policy.AlerterParameters `json:"alerter" default:"{alert_name: 'More than 90% of requests are being rate limited'}"`
}

func (v *QuotaScheduling) build(c *circuit) {
	c.limiter("quota_scheduler", policy.FlowControl{QuotaScheduler: &policy.QuotaScheduler{
		InPorts: policy.RateLimiterIns{
			BucketCapacity: constant(v.QuotaScheduler.BucketCapacity),
			FillAmount:     constant(v.QuotaScheduler.FillAmount),
		},
		Selectors:   v.QuotaScheduler.Selectors,
		RateLimiter: v.QuotaScheduler.RateLimiter,
		Scheduler:   v.QuotaScheduler.Scheduler,
		OutPorts:    acceptPercentageOut(),
	}}, v.QuotaScheduler.Alerter)
}

// ConcurrencyLimiting are the values of concurrency-limiting/base.
type ConcurrencyLimiting struct {
	Common
	// The limit.
	ConcurrencyLimiter ConcurrencyLimiterValues `json:"concurrency_limiter" check:"required"`
}

// ConcurrencyLimiterValues describe a concurrency limiter and its alert.
type ConcurrencyLimiterValues struct {
	// Slots that may be taken at once. 0 admits nothing.
	MaxConcurrency float64 `json:"max_concurrency" check:"required,gte=0,lte=9007199254740992"`
	// Flows the limit applies to.
	Selectors []policy.Selector `json:"selectors" check:"required"`
	// How the slots are kept.
	Parameters policy.ConcurrencyLimiterParameters `json:"parameters" check:"required"`
	// How single flows are counted and answered.
	RequestParameters policy.LimiterRequestParameters `json:"request_parameters"`
	// Alert raised when at most 10% of the flows were admitted for 35 seconds.
	Alerter policy.AlerterParameters `json:"alerter" default:"{alert_name: Too many inflight requests}"`
}

func (v *ConcurrencyLimiting) build(c *circuit) {
	c.limiter("concurrency_limiter", policy.FlowControl{ConcurrencyLimiter: &policy.ConcurrencyLimiter{
		InPorts:           policy.ConcurrencyLimiterIns{MaxConcurrency: constant(v.ConcurrencyLimiter.MaxConcurrency)},
		Parameters:        v.ConcurrencyLimiter.Parameters,
		Selectors:         v.ConcurrencyLimiter.Selectors,
		RequestParameters: v.ConcurrencyLimiter.RequestParameters,
		OutPorts:          acceptPercentageOut(),
	}}, v.ConcurrencyLimiter.Alerter)
}

// ConcurrencyScheduling are the values of concurrency-scheduling/base.
type ConcurrencyScheduling struct {
	Common
	// The limit and who waits for it.
	ConcurrencyScheduler ConcurrencySchedulerValues `json:"concurrency_scheduler" check:"required"`
}

// ConcurrencySchedulerValues describe a concurrency scheduler and its alert.
type ConcurrencySchedulerValues struct {
	// Slots that may be taken at once. 0 admits nothing.
	MaxConcurrency float64 `json:"max_concurrency" check:"required,gte=0,lte=9007199254740992"`
	// Flows the limit applies to.
	Selectors []policy.Selector `json:"selectors" check:"required"`
	// How the slots are kept.
	ConcurrencyLimiter policy.ConcurrencyLimiterParameters `json:"concurrency_limiter" check:"required"`
	// Who waits for whom.
	Scheduler policy.Scheduler `json:"scheduler"`
	// Alert raised when at most 10% of the flows were admitted for 35 seconds.
	Alerter policy.AlerterParameters `json:"alerter" default:"{alert_name: Too many inflight requests}"`
}

func (v *ConcurrencyScheduling) build(c *circuit) {
	c.limiter("concurrency_scheduler", policy.FlowControl{ConcurrencyScheduler: &policy.ConcurrencyScheduler{
		InPorts:            policy.ConcurrencyLimiterIns{MaxConcurrency: constant(v.ConcurrencyScheduler.MaxConcurrency)},
		Selectors:          v.ConcurrencyScheduler.Selectors,
		ConcurrencyLimiter: v.ConcurrencyScheduler.ConcurrencyLimiter,
		Scheduler:          v.ConcurrencyScheduler.Scheduler,
		OutPorts:           acceptPercentageOut(),
	}}, v.ConcurrencyScheduler.Alerter)
}
