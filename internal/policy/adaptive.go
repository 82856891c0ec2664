// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// AdaptiveConcurrencyScheduler makes flows wait for free slots, in order of priority, and finds by itself
// how many slots there should be: as many as the service needs for its full throughput, and no more. It
// needs no setpoint.
type AdaptiveConcurrencyScheduler struct {
	// Numbers it reads.
	InPorts AdaptiveConcurrencyIns `json:"in_ports,omitzero"`
	// Numbers it produces.
	OutPorts AdaptiveConcurrencyOuts `json:"out_ports,omitzero"`
	// Flows the limit applies to.
	Selectors []Selector `json:"selectors" check:"required"`
	// How the slots are kept. There is one limit for all flows, so limit_by_label_key has to stay empty.
	ConcurrencyLimiter ConcurrencyLimiterParameters `json:"concurrency_limiter" check:"required"`
	// Who waits for whom.
	Scheduler Scheduler `json:"scheduler"`
	// The range of the limit.
	Parameters AdaptiveConcurrencyParameters `json:"parameters"`
	// Alert raised while there is an overload.
	Alerter AlerterParameters `json:"alerter" check:"required"`
	// Compute everything and limit nothing.
	DryRun bool `json:"dry_run"`
	// Key of the dynamic configuration that replaces dry_run.
	DryRunConfigKey string `json:"dry_run_config_key,omitempty"`
}

var _ strict.Checker = (*AdaptiveConcurrencyScheduler)(nil)

// Check refuses one limit per label value: there is one service, whose limit is to be found.
func (s *AdaptiveConcurrencyScheduler) Check(at strict.Place) {
	if s.ConcurrencyLimiter.LimitByLabelKey != "" {
		at.Field("concurrency_limiter").Field("limit_by_label_key").Refuse(fielderr.Error{
			Want: "nothing",
			Hint: "the limit found is that of the service; to share it fairly among users, name the label in scheduler.fairness_label_key",
		})
	}
}

// AdaptiveConcurrencyIns are the in ports of an adaptive concurrency scheduler.
type AdaptiveConcurrencyIns struct {
	// While valid and 0, nothing is an overload: the limit does not fall below what is in use.
	OverloadConfirmation *InPort `json:"overload_confirmation,omitempty"`
}

// AdaptiveConcurrencyOuts are the out ports of an adaptive concurrency scheduler.
type AdaptiveConcurrencyOuts struct {
	// The limit found, in slots.
	MaxConcurrency *OutPort `json:"max_concurrency,omitempty"`
	// 1 during an overload, else 0.
	IsOverload *OutPort `json:"is_overload,omitempty"`
	// Percentage of flows that were admitted lately, 0..100.
	AcceptPercentage *OutPort `json:"accept_percentage,omitempty"`
}

// AdaptiveConcurrencyParameters are the range in which an adaptive concurrency scheduler moves its limit.
type AdaptiveConcurrencyParameters struct {
	// The limit is never lower, in slots.
	MinConcurrency float64 `json:"min_concurrency" default:"1" check:"gte=1,lte=1000000"`
	// The limit is never higher, in slots.
	MaxConcurrency float64 `json:"max_concurrency" default:"10000" check:"gte=1,lte=1000000"`
	// The limit to begin with, in slots; brought into the range of the other two. It doubles quickly when
	// it is too low.
	InitialConcurrency float64 `json:"initial_concurrency" default:"20" check:"gte=1,lte=1000000"`
}

var _ strict.Checker = (*AdaptiveConcurrencyParameters)(nil)

// Check refuses an empty range.
func (p *AdaptiveConcurrencyParameters) Check(at strict.Place) {
	if p.MinConcurrency > p.MaxConcurrency && p.MaxConcurrency >= 1 {
		at.Field("min_concurrency").Refuse(fielderr.Error{Want: fmt.Sprintf("at most max_concurrency, which is %g", p.MaxConcurrency)})
	}
}

// Initial is initial_concurrency, brought into the range.
func (p AdaptiveConcurrencyParameters) Initial() float64 {
	return min(max(p.InitialConcurrency, p.MinConcurrency), p.MaxConcurrency)
}
