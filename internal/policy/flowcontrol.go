// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// FlowControl is a component that acts on flows: it admits, delays or denies them.
type FlowControl struct {
	// Rate limit in front of which flows wait in order of priority.
	QuotaScheduler *QuotaScheduler `json:"quota_scheduler,omitempty" union:"component,required"`
	// Limit on tokens per time, by label.
	RateLimiter *RateLimiter `json:"rate_limiter,omitempty" union:"component"`
	// Throttles flows to a multiple of the load that was admitted recently, by priority.
	LoadScheduler *LoadScheduler `json:"load_scheduler,omitempty" union:"component"`
	// Old form of aimd_load_scheduler.
	AdaptiveLoadScheduler *AdaptiveLoadScheduler `json:"adaptive_load_scheduler,omitempty" union:"component" deprecated:"use aimd_load_scheduler"`
	// Admits a percentage of the flows.
	Sampler *Sampler `json:"sampler,omitempty" union:"component"`
	// Raises the percentage of admitted flows step by step.
	LoadRamp *LoadRamp `json:"load_ramp,omitempty" union:"component"`
	// Load scheduler that cuts load in proportion to an overload and raises it linearly afterwards.
	AIMDLoadScheduler *AIMDLoadScheduler `json:"aimd_load_scheduler,omitempty" union:"component"`
	// Load scheduler whose throttling follows the position of a signal between two thresholds.
	RangeDrivenLoadScheduler *RangeDrivenLoadScheduler `json:"range_driven_load_scheduler,omitempty" union:"component"`
	// Load scheduler that cuts and raises load linearly.
	AIADLoadScheduler *AIADLoadScheduler `json:"aiad_load_scheduler,omitempty" union:"component"`
	// Limit on flows in progress, by label.
	ConcurrencyLimiter *ConcurrencyLimiter `json:"concurrency_limiter,omitempty" union:"component"`
	// Concurrency limit in front of which flows wait in order of priority.
	ConcurrencyScheduler *ConcurrencyScheduler `json:"concurrency_scheduler,omitempty" union:"component"`
	// Concurrency scheduler that finds its limit by itself.
	AdaptiveConcurrencyScheduler *AdaptiveConcurrencyScheduler `json:"adaptive_concurrency_scheduler,omitempty" union:"component"`
}

// RateLimiter admits flows while their tokens fit into a token bucket, one bucket per value of a label,
// and denies the others at once.
type RateLimiter struct {
	// Numbers that set the limit.
	InPorts RateLimiterIns `json:"in_ports" check:"required"`
	// How the buckets are kept and filled.
	Parameters RateLimiterParameters `json:"parameters" check:"required"`
	// Flows the limit applies to.
	Selectors []Selector `json:"selectors" check:"required"`
	// How single flows are counted and answered.
	RequestParameters LimiterRequestParameters `json:"request_parameters"`
	// Numbers the limiter produces.
	OutPorts LimiterOuts `json:"out_ports,omitzero"`
}

// RateLimiterIns are the in ports of a rate limiter or quota scheduler. When bucket_capacity or
// fill_amount is invalid, every flow passes.
type RateLimiterIns struct {
	// Tokens a bucket holds at most, which is the largest burst. 0..2⁵³.
	BucketCapacity *InPort `json:"bucket_capacity" check:"required"`
	// Tokens added to a bucket per interval. 0..2⁵³; 0 never refills.
	FillAmount *InPort `json:"fill_amount" check:"required"`
	// While valid and not 0, every flow passes.
	PassThrough *InPort `json:"pass_through,omitempty"`
}

var _ strict.Checker = (*RateLimiterIns)(nil)

// Check refuses constants that cannot be a number of tokens.
func (i *RateLimiterIns) Check(at strict.Place) {
	checkAmount(at.Field("bucket_capacity"), i.BucketCapacity)
	checkAmount(at.Field("fill_amount"), i.FillAmount)
}

// RateLimiterParameters say how token buckets are kept and filled.
type RateLimiterParameters struct {
	// Old name of limit_by_label_key, used only when that is empty.
	LabelKey string `json:"label_key,omitempty" deprecated:"use limit_by_label_key"`
	// Label that tells flows apart: each value has a bucket of its own. Empty: one bucket for all flows. A
	// flow without the label passes.
	LimitByLabelKey string `json:"limit_by_label_key,omitempty"`
	// Time in which fill_amount tokens are added.
	Interval Duration `json:"interval" check:"required,gt=0s"`
	// Add tokens steadily over the interval; false adds them all when it ends.
	ContinuousFill bool `json:"continuous_fill" default:"true"`
	// Accepted for compatibility, without effect: a bucket is forgotten when it is full again, so that
	// forgetting it gives nothing away.
	MaxIdleTime Duration `json:"max_idle_time" default:"7200s" check:"gt=0s"`
	// How agents share a bucket.
	LazySync LazySync `json:"lazy_sync"`
	// Do not add tokens to a bucket that was full before the time has passed that filling it would take.
	DelayInitialFill bool `json:"delay_initial_fill" default:"false"`
	// Count in fixed windows: a bucket is full at the start of every interval, counted from 1970 in UTC, so
	// that 24h begins at midnight. fill_amount, continuous_fill and delay_initial_fill then have no effect.
	FixedWindow bool `json:"fixed_window,omitempty"`
	// Count the tokens of denied flows as well, so that a flow that is too large spoils the rest of the window.
	// Only in a rate_limiter, and with fixed_window.
	CountDenied bool `json:"count_denied,omitempty"`
}

var _ strict.Checker = (*RateLimiterParameters)(nil)

// Check refuses to count denied flows where that would make a debt for ever.
func (p *RateLimiterParameters) Check(at strict.Place) {
	if p.CountDenied && !p.FixedWindow {
		at.Field("count_denied").Refuse(fielderr.Error{Got: "true without fixed_window", Want: "fixed_window: true beside it"})
	}
}

// LimitBy is the label that tells flows apart, under its new or its old name; "" when there is none.
func (p RateLimiterParameters) LimitBy() string {
	if p.LimitByLabelKey != "" {
		return p.LimitByLabelKey
	}
	return p.LabelKey
}

// LazySync lets agents count on their own and compare now and then, which is faster and less exact.
type LazySync struct {
	// Count locally between comparisons.
	Enabled bool `json:"enabled" default:"false"`
	// Comparisons per interval.
	NumSync uint32 `json:"num_sync" default:"4" check:"gt=0"`
}

// LimiterRequestParameters say how a limiter counts and answers single flows.
type LimiterRequestParameters struct {
	// Label whose value is the tokens a flow costs. A flow costs 1 when it is empty, absent or no number.
	TokensLabelKey string `json:"tokens_label_key,omitempty"`
	// Status that denied callers should see.
	DeniedResponseStatusCode StatusCode `json:"denied_response_status_code" default:"TooManyRequests"`
}

// LimiterOuts are the out ports of limiters and schedulers.
type LimiterOuts struct {
	// Percentage of flows that were admitted lately, 0..100.
	AcceptPercentage *OutPort `json:"accept_percentage,omitempty"`
}

// QuotaScheduler makes flows wait for a token bucket, in order of priority, until their deadline.
type QuotaScheduler struct {
	// Numbers that set the limit.
	InPorts RateLimiterIns `json:"in_ports" check:"required"`
	// Flows the limit applies to.
	Selectors []Selector `json:"selectors" check:"required"`
	// How the buckets are kept and filled.
	RateLimiter RateLimiterParameters `json:"rate_limiter" check:"required"`
	// Who waits for whom.
	Scheduler Scheduler `json:"scheduler"`
	// Numbers the scheduler produces.
	OutPorts LimiterOuts `json:"out_ports,omitzero"`
}

var _ strict.Checker = (*QuotaScheduler)(nil)

// Check refuses to count denied flows: a flow that waits is not denied, and would be counted again and again.
func (q *QuotaScheduler) Check(at strict.Place) {
	if q.RateLimiter.CountDenied {
		at.Field("rate_limiter").Field("count_denied").Refuse(fielderr.Error{
			Got: "true in a quota_scheduler", Want: "false, or a rate_limiter",
		})
	}
}

// ConcurrencyLimiter admits flows while slots are free, one set of slots per value of a label, and denies
// the others at once. A flow holds its slots until it ends.
type ConcurrencyLimiter struct {
	// Numbers that set the limit.
	InPorts ConcurrencyLimiterIns `json:"in_ports" check:"required"`
	// How the slots are kept.
	Parameters ConcurrencyLimiterParameters `json:"parameters" check:"required"`
	// Flows the limit applies to.
	Selectors []Selector `json:"selectors" check:"required"`
	// How single flows are counted and answered.
	RequestParameters LimiterRequestParameters `json:"request_parameters"`
	// Numbers the limiter produces.
	OutPorts LimiterOuts `json:"out_ports,omitzero"`
}

// ConcurrencyLimiterIns are the in ports of a concurrency limiter or scheduler. When max_concurrency is
// invalid, every flow passes.
type ConcurrencyLimiterIns struct {
	// Slots that may be taken at once. 0..2⁵³; 0 admits nothing.
	MaxConcurrency *InPort `json:"max_concurrency" check:"required"`
	// While valid and not 0, every flow passes.
	PassThrough *InPort `json:"pass_through,omitempty"`
}

var _ strict.Checker = (*ConcurrencyLimiterIns)(nil)

// Check refuses a constant that cannot be a number of slots.
func (i *ConcurrencyLimiterIns) Check(at strict.Place) {
	checkAmount(at.Field("max_concurrency"), i.MaxConcurrency)
}

// ConcurrencyLimiterParameters say how slots are kept.
type ConcurrencyLimiterParameters struct {
	// Label that tells flows apart: each value has slots of its own. Empty: all flows share them. A flow
	// without the label passes.
	LimitByLabelKey string `json:"limit_by_label_key,omitempty"`
	// A flow that did not end within this time gives its slots back, so that a lost end cannot hold them
	// for ever. Make it longer than the longest flow.
	MaxInflightDuration Duration `json:"max_inflight_duration" check:"required,gt=0s"`
	// Accepted for compatibility, without effect: an account is forgotten when none of its slots is held.
	MaxIdleTime Duration `json:"max_idle_time" default:"7200s" check:"gt=0s"`
}

// ConcurrencyScheduler makes flows wait for free slots, in order of priority, until their deadline.
type ConcurrencyScheduler struct {
	// Numbers that set the limit.
	InPorts ConcurrencyLimiterIns `json:"in_ports" check:"required"`
	// Flows the limit applies to.
	Selectors []Selector `json:"selectors" check:"required"`
	// How the slots are kept.
	ConcurrencyLimiter ConcurrencyLimiterParameters `json:"concurrency_limiter" check:"required"`
	// Who waits for whom.
	Scheduler Scheduler `json:"scheduler"`
	// Numbers the scheduler produces.
	OutPorts LimiterOuts `json:"out_ports,omitzero"`
}

// Scheduler orders the flows that wait for capacity. While several workloads wait, each gets capacity in
// proportion to its priority; a workload that waits alone gets all of it.
type Scheduler struct {
	// Kinds of flows. A flow belongs to the first whose matcher matches it, else to the default workload.
	Workloads []Workload `json:"workloads,omitempty"`
	// Parameters of flows that match no workload.
	DefaultWorkloadParameters WorkloadParameters `json:"default_workload_parameters"`
	// A flow stops waiting this long before its deadline, so that the answer arrives in time.
	DecisionDeadlineMargin Duration `json:"decision_deadline_margin" default:"0.01s"`
	// Label whose value is the tokens a flow costs, instead of those of its workload. Ignored when it is
	// absent or no number.
	TokensLabelKey string `json:"tokens_label_key,omitempty"`
	// Label whose value is the priority of a flow, instead of that of its workload. Ignored when it is
	// absent or not more than 0.
	PriorityLabelKey string `json:"priority_label_key,omitempty"`
	// Status that denied callers should see.
	DeniedResponseStatusCode StatusCode `json:"denied_response_status_code" default:"ServiceUnavailable"`
	// Label whose value names the workload of a flow in metrics and queues, instead of the name here.
	WorkloadLabelKey string `json:"workload_label_key,omitempty"`
	// Label whose values share the capacity of a workload fairly, such as a user.
	FairnessLabelKey string `json:"fairness_label_key,omitempty"`
}

var _ strict.Checker = (*Scheduler)(nil)

// Check refuses two workloads of one name: their flows could not be told apart.
func (s *Scheduler) Check(at strict.Place) {
	first := map[string]int{}
	for i, w := range s.Workloads {
		if w.Name == "" {
			continue
		}
		if j, ok := first[w.Name]; ok {
			at.Field("workloads").Index(i).Field("name").Refuse(fielderr.Error{
				Message: fmt.Sprintf("duplicate workload name %q, first used by workloads[%d]", w.Name, j),
			})
			continue
		}
		first[w.Name] = i
	}
}

// Workload is a kind of flows with parameters of its own.
type Workload struct {
	// What its flows are worth and cost.
	Parameters WorkloadParameters `json:"parameters"`
	// Flows that belong to the workload.
	LabelMatcher LabelMatcher `json:"label_matcher" check:"required"`
	// Name in metrics and queues; the index in the list when it is empty.
	Name string `json:"name,omitempty"`
}

// WorkloadParameters say what the flows of a workload are worth and cost.
type WorkloadParameters struct {
	// Share of capacity relative to other workloads that wait: 4 gets twice what 2 gets.
	Priority float64 `json:"priority" default:"1" check:"gt=0,gte=0.000001,lte=1000000000"`
	// Tokens a flow costs. 0 counts as 1.
	Tokens float64 `json:"tokens" default:"1" check:"gte=0,lte=9007199254740992"`
	// A flow waits no longer than this, also when its deadline is later. Absent: until its deadline. 0s: it
	// does not wait.
	QueueTimeout *Duration `json:"queue_timeout,omitempty"`
}
