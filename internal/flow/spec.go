// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"slices"
	"time"

	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
)

// Kind is the kind of a limiter. Kinds are decided in this order: cheap and local first, waiting last. A
// Sampler in ramp mode is decided with the load ramps.
type Kind uint8

// The kinds.
const (
	KindUnspecified Kind = iota
	LoadRamp
	Sampler
	RateLimiter
	ConcurrencyLimiter
	ConcurrencyScheduler
	AdaptiveConcurrencyScheduler
	QuotaScheduler
	LoadScheduler
)

var kindNames = [...]string{
	"unspecified", "load_ramp", "sampler", "rate_limiter", "concurrency_limiter", "concurrency_scheduler",
	"adaptive_concurrency_scheduler", "quota_scheduler", "load_scheduler",
}

// String is the name that policies use.
func (k Kind) String() string { return kindNames[k] }

// KindByName is the inverse of String; KindUnspecified for other names.
func KindByName(name string) Kind {
	for k, n := range kindNames {
		if n == name {
			return Kind(k)
		}
	}
	return KindUnspecified
}

func (k Kind) samples() bool   { return k == LoadRamp || k == Sampler }
func (k Kind) schedules() bool { return k >= ConcurrencyScheduler }
func (k Kind) holdsSlots() bool {
	return k >= ConcurrencyLimiter && k <= AdaptiveConcurrencyScheduler
}

// hasBucket tells that Spec.Bucket is the rule of accounts in the ledger.
func (k Kind) hasBucket() bool { return k == RateLimiter || k == QuotaScheduler }

// Set is everything that Publish puts into force. The zero Set lets everything pass.
type Set struct {
	Limiters    []*LimiterSpec
	Meters      []*MeterSpec
	Classifiers []*ClassifierSpec
}

// LimiterSpec is one limiter of one policy, compiled. It does not change after it was published.
type LimiterSpec struct {
	// ID finds the accounts; it stays the same across edits that keep the limiter.
	ID ledger.LimiterID
	// Policy, Hash and Component name the limiter for people.
	Policy, Hash, Component string
	Kind                    Kind
	// Selectors say which flows are limited: those that match any of them.
	Selectors []Selector
	// LimitBy is the label whose value is the account; "": one account for all. A flow without the label
	// is not limited.
	LimitBy string
	// TokensKey is the label that carries the cost; "" or absent: 1, or what the workload says.
	TokensKey string
	// DeniedStatus is the HTTP status that suits a denial.
	DeniedStatus int
	// PassThrough admits everything without charging it. It does not count where Driven is set.
	PassThrough bool
	// Driven tells that setpoints move the numbers below; everything passes until the first one comes. A
	// LoadScheduler and an AdaptiveConcurrencyScheduler are always driven.
	Driven bool
	// Bucket is the rule of rate limiters and quota schedulers. In the spec in force of a LoadScheduler, as
	// in a Verdict, it is the rate that is admitted now.
	Bucket limit.BucketRule
	// Slots is the rule of concurrency limiters and schedulers.
	Slots ledger.SlotRule
	// Scheduler is set for the kinds that schedule.
	Scheduler *SchedulerSpec
	// Sample is set for Sampler and LoadRamp; LimitBy is then the label that makes the choice stick.
	Sample *SampleSpec
}

// SampleSpec says which flows a sampler admits.
type SampleSpec struct {
	// Percentage of the flows that are admitted, 0..100. 0 is none and 100 is all.
	Percentage float64
	// Ramp tells that the sampler admits flows in ramp mode, and nobody while its percentage is unknown.
	Ramp bool
	// PassValues are values of the label that are always admitted. An empty one does not count.
	PassValues []string

	threshold uint64          // of hashes that are admitted, 0..1<<32
	pass      map[string]bool // PassValues
}

// Selector selects flows.
type Selector struct {
	// ControlPoint is compared exactly.
	ControlPoint string
	// AgentGroup is the group of servers that the selector is for; "": every one.
	AgentGroup string
	// Service is compared with each service of the flow; "": any, none included.
	Service string
	// Match is further narrowed by labels.
	Match label.Expr
}

// SchedulerSpec says how flows wait.
type SchedulerSpec struct {
	// Workloads are tried in order; the first that matches is taken.
	Workloads []WorkloadSpec
	// Default is for flows that match none.
	Default WorkloadSpec
	// Margin is how long before the caller's deadline waiting ends, so that the answer arrives in time.
	Margin time.Duration
	// PriorityKey, WorkloadKey and FairnessKey are labels that override the priority and the name of the
	// workload, and that split a workload into equal parts; "": none.
	PriorityKey, WorkloadKey, FairnessKey string
}

// WorkloadSpec is a class of flows within a scheduler.
type WorkloadSpec struct {
	Name  string
	Match label.Expr
	// Priority is the weight; finite, more than 0.
	Priority float64
	// Tokens is the cost of a flow that carries none.
	Tokens float64
	// QueueTimeout bounds the wait; 0: only the caller's deadline does.
	QueueTimeout time.Duration
	// NoWait denies at once what cannot be admitted at once.
	NoWait bool
}

// ControlPoints lists the control points that the limiter selects, each once, in the order given.
func (s *LimiterSpec) ControlPoints() []string {
	var out []string
	for _, sel := range s.Selectors {
		if !slices.Contains(out, sel.ControlPoint) {
			out = append(out, sel.ControlPoint)
		}
	}
	return out
}

// ramp tells that the limiter is what admits flows in ramp mode.
func (s *LimiterSpec) ramp() bool {
	return s.Kind == LoadRamp || s.Kind == Sampler && s.Sample.Ramp
}

// rank orders stages.
func (s *LimiterSpec) rank() Kind {
	if s.ramp() {
		return LoadRamp
	}
	return s.Kind
}

// Capacity is what a full account holds; 0 for kinds without accounts.
func (s *LimiterSpec) Capacity() float64 {
	if s.Kind.holdsSlots() {
		return s.Slots.Max
	}
	return s.Bucket.Capacity
}
