// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"math"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// LoadScheduler admits a multiple of the token rate that arrived lately, in order of priority.
type LoadScheduler struct {
	// Numbers that set the load.
	InPorts LoadSchedulerIns `json:"in_ports" check:"required"`
	// Numbers the scheduler produces.
	OutPorts LoadSchedulerOuts `json:"out_ports,omitzero"`
	// Flows and how they wait.
	Parameters LoadSchedulerParameters `json:"parameters" check:"required"`
	// Compute everything and throttle nothing.
	DryRun bool `json:"dry_run"`
	// Key of the dynamic configuration that replaces dry_run.
	DryRunConfigKey string `json:"dry_run_config_key,omitempty"`
}

// LoadSchedulerIns are the in ports of a load scheduler.
type LoadSchedulerIns struct {
	// Admitted load relative to arriving load: 0.8 denies a fifth. Everything passes while it is invalid.
	LoadMultiplier *InPort `json:"load_multiplier,omitempty"`
}

var _ strict.Checker = (*LoadSchedulerIns)(nil)

// Check refuses a constant that is no multiplier.
func (i *LoadSchedulerIns) Check(at strict.Place) {
	checkConstant(at.Field("load_multiplier"), i.LoadMultiplier, constantRange{most: math.MaxFloat64, nan: "to let everything pass"})
}

// LoadSchedulerOuts are the out ports of a load scheduler.
type LoadSchedulerOuts struct {
	// Part of the arriving tokens that was admitted lately, 0..1.
	ObservedLoadMultiplier *OutPort `json:"observed_load_multiplier,omitempty"`
}

// LoadSchedulerParameters say which flows a load scheduler orders and how.
type LoadSchedulerParameters struct {
	// Use the average latency of each workload, in milliseconds, as the tokens of its flows.
	WorkloadLatencyBasedTokens bool `json:"workload_latency_based_tokens" default:"false"`
	// Who waits for whom.
	Scheduler Scheduler `json:"scheduler"`
	// Flows to schedule.
	Selectors []Selector `json:"selectors" check:"required"`
}

// OverloadIns are the in ports of load schedulers that compare a signal with a setpoint.
type OverloadIns struct {
	// The measured signal, such as a latency.
	Signal *InPort `json:"signal" check:"required"`
	// The value the signal should not pass.
	Setpoint *InPort `json:"setpoint" check:"required"`
	// While valid and 0, nothing is an overload.
	OverloadConfirmation *InPort `json:"overload_confirmation,omitempty"`
}

var _ strict.Checker = (*OverloadIns)(nil)

// Check refuses constants that cannot be compared: there would never be an overload.
func (i *OverloadIns) Check(at strict.Place) {
	checkConstant(at.Field("signal"), i.Signal, anyFinite)
	checkConstant(at.Field("setpoint"), i.Setpoint, anyFinite)
}

// OverloadOuts are the out ports of load schedulers that detect overload.
type OverloadOuts struct {
	// 1 during an overload, else 0.
	IsOverload *OutPort `json:"is_overload,omitempty"`
	// The load multiplier that is aimed at; invalid while everything passes.
	DesiredLoadMultiplier *OutPort `json:"desired_load_multiplier,omitempty"`
	// Part of the arriving tokens that was admitted lately, 0..1.
	ObservedLoadMultiplier *OutPort `json:"observed_load_multiplier,omitempty"`
}

// AIMDLoadScheduler cuts load in proportion to an overload (multiplicative decrease) and raises it
// linearly afterwards (additive increase).
type AIMDLoadScheduler struct {
	// Signal and setpoint.
	InPorts OverloadIns `json:"in_ports" check:"required"`
	// Numbers the scheduler produces.
	OutPorts OverloadOuts `json:"out_ports,omitzero"`
	// How load is cut and raised.
	Parameters AIMDParameters `json:"parameters" check:"required"`
	// Compute everything and throttle nothing.
	DryRun bool `json:"dry_run"`
	// Key of the dynamic configuration that replaces dry_run.
	DryRunConfigKey string `json:"dry_run_config_key,omitempty"`
}

// AIMDParameters say how an AIMD load scheduler cuts and raises load.
type AIMDParameters struct {
	// Flows and how they wait.
	LoadScheduler LoadSchedulerParameters `json:"load_scheduler" check:"required"`
	// How far an overload cuts the load.
	Gradient GradientParameters `json:"gradient" check:"required"`
	// Multiplier at which everything passes again.
	MaxLoadMultiplier float64 `json:"max_load_multiplier" default:"2" check:"gt=0"`
	// Added to the multiplier every 10 seconds without overload.
	LoadMultiplierLinearIncrement float64 `json:"load_multiplier_linear_increment" default:"0.025" check:"gte=0"`
	// Alert raised while load is cut.
	Alerter AlerterParameters `json:"alerter" check:"required"`
}

// AdaptiveLoadScheduler is the old form of AIMDLoadScheduler, with a slower increase.
type AdaptiveLoadScheduler struct {
	// Signal and setpoint.
	InPorts OverloadIns `json:"in_ports" check:"required"`
	// Numbers the scheduler produces.
	OutPorts OverloadOuts `json:"out_ports,omitzero"`
	// How load is cut and raised.
	Parameters AdaptiveLoadSchedulerParameters `json:"parameters" check:"required"`
	// Compute everything and throttle nothing.
	DryRun bool `json:"dry_run"`
	// Key of the dynamic configuration that replaces dry_run.
	DryRunConfigKey string `json:"dry_run_config_key,omitempty"`
}

// AdaptiveLoadSchedulerParameters say how an adaptive load scheduler cuts and raises load.
type AdaptiveLoadSchedulerParameters struct {
	// Flows and how they wait.
	LoadScheduler LoadSchedulerParameters `json:"load_scheduler" check:"required"`
	// How far an overload cuts the load.
	Gradient GradientParameters `json:"gradient" check:"required"`
	// Multiplier at which everything passes again.
	MaxLoadMultiplier float64 `json:"max_load_multiplier" default:"2" check:"gt=0"`
	// Added to the multiplier every 10 seconds without overload.
	LoadMultiplierLinearIncrement float64 `json:"load_multiplier_linear_increment" default:"0.0025" check:"gte=0"`
	// Alert raised while load is cut.
	Alerter AlerterParameters `json:"alerter" check:"required"`
}

// AIADLoadScheduler cuts and raises load linearly (additive increase, additive decrease).
type AIADLoadScheduler struct {
	// Signal and setpoint.
	InPorts OverloadIns `json:"in_ports" check:"required"`
	// Numbers the scheduler produces.
	OutPorts OverloadOuts `json:"out_ports,omitzero"`
	// How load is cut and raised.
	Parameters AIADParameters `json:"parameters" check:"required"`
	// Compute everything and throttle nothing.
	DryRun bool `json:"dry_run"`
	// Key of the dynamic configuration that replaces dry_run.
	DryRunConfigKey string `json:"dry_run_config_key,omitempty"`
	// How the signal compares with the setpoint during an overload.
	OverloadCondition string `json:"overload_condition" default:"gt" check:"oneof=gt lt gte lte"`
}

// AIADParameters say how an AIAD load scheduler cuts and raises load.
type AIADParameters struct {
	// Flows and how they wait.
	LoadScheduler LoadSchedulerParameters `json:"load_scheduler" check:"required"`
	// The multiplier is never lower.
	MinLoadMultiplier float64 `json:"min_load_multiplier" default:"0" check:"gte=0"`
	// Taken from the multiplier every 10 seconds of overload.
	LoadMultiplierLinearDecrement float64 `json:"load_multiplier_linear_decrement" default:"0.05" check:"gte=0"`
	// Multiplier at which everything passes again.
	MaxLoadMultiplier float64 `json:"max_load_multiplier" default:"2" check:"gte=0"`
	// Added to the multiplier every 10 seconds without overload.
	LoadMultiplierLinearIncrement float64 `json:"load_multiplier_linear_increment" default:"0.025" check:"gte=0"`
	// Alert raised while load is cut.
	Alerter AlerterParameters `json:"alerter" check:"required"`
}

var _ strict.Checker = (*AIADParameters)(nil)

// Check refuses an empty range.
func (p *AIADParameters) Check(at strict.Place) {
	if p.MinLoadMultiplier > p.MaxLoadMultiplier && p.MaxLoadMultiplier >= 0 {
		at.Field("min_load_multiplier").Refuse(fielderr.Error{Want: fmt.Sprintf("at most max_load_multiplier, which is %g", p.MaxLoadMultiplier)})
	}
}

// RangeDrivenLoadScheduler throttles by where a signal is between two thresholds.
type RangeDrivenLoadScheduler struct {
	// The signal.
	InPorts RangeDrivenIns `json:"in_ports" check:"required"`
	// Numbers the scheduler produces.
	OutPorts OverloadOuts `json:"out_ports,omitzero"`
	// The thresholds.
	Parameters RangeDrivenParameters `json:"parameters" check:"required"`
	// Compute everything and throttle nothing.
	DryRun bool `json:"dry_run"`
	// Key of the dynamic configuration that replaces dry_run.
	DryRunConfigKey string `json:"dry_run_config_key,omitempty"`
}

// RangeDrivenIns are the in ports of a range driven load scheduler.
type RangeDrivenIns struct {
	// The measured signal.
	Signal *InPort `json:"signal" check:"required"`
	// While valid and 0, nothing is an overload.
	OverloadConfirmation *InPort `json:"overload_confirmation,omitempty"`
}

var _ strict.Checker = (*RangeDrivenIns)(nil)

// Check refuses a constant that has no place on the curve.
func (i *RangeDrivenIns) Check(at strict.Place) {
	checkConstant(at.Field("signal"), i.Signal, anyFinite)
}

// RangeDrivenParameters are the thresholds of a range driven load scheduler.
type RangeDrivenParameters struct {
	// Flows and how they wait.
	LoadScheduler LoadSchedulerParameters `json:"load_scheduler" check:"required"`
	// Where throttling begins.
	LowThrottleThreshold LoadDatapoint `json:"low_throttle_threshold" check:"required"`
	// Where throttling is strongest.
	HighThrottleThreshold LoadDatapoint `json:"high_throttle_threshold" check:"required"`
	// Degree of the curve between the thresholds; 1 is a straight line.
	Degree float64 `json:"degree" check:"required"`
	// Alert raised while load is cut.
	Alerter AlerterParameters `json:"alerter" check:"required"`
}

var _ strict.Checker = (*RangeDrivenParameters)(nil)

// Check refuses thresholds at one signal value: there is no curve between them.
func (p *RangeDrivenParameters) Check(at strict.Place) {
	if at.Present("high_throttle_threshold") && p.LowThrottleThreshold.SignalValue == p.HighThrottleThreshold.SignalValue {
		at.Field("high_throttle_threshold").Field("signal_value").Refuse(fielderr.Error{
			Want: "another value than low_throttle_threshold has",
		})
	}
}

// LoadDatapoint is a load multiplier at a value of a signal.
type LoadDatapoint struct {
	// Value of the signal.
	SignalValue float64 `json:"signal_value"`
	// Load multiplier at that value.
	LoadMultiplier float64 `json:"load_multiplier" check:"gte=0,lte=1"`
}

// Sampler admits a percentage of the flows: the same ones every time when it knows their session.
type Sampler struct {
	// Numbers that set the percentage.
	InPorts SamplerIns `json:"in_ports,omitzero"`
	// Flows and how they are chosen.
	Parameters SamplerParameters `json:"parameters" check:"required"`
	// Values of the session label that always pass.
	PassThroughLabelValues []string `json:"pass_through_label_values,omitempty"`
	// Key of the dynamic configuration that replaces pass_through_label_values.
	PassThroughLabelValuesConfigKey string `json:"pass_through_label_values_config_key,omitempty"`
}

// SamplerIns are the in ports of a sampler.
type SamplerIns struct {
	// Percentage of flows to admit, 0..100. While invalid: 0 in ramp mode, else 100.
	AcceptPercentage *InPort `json:"accept_percentage,omitempty"`
}

var _ strict.Checker = (*SamplerIns)(nil)

// Check refuses a constant that is no percentage.
func (i *SamplerIns) Check(at strict.Place) {
	checkConstant(at.Field("accept_percentage"), i.AcceptPercentage, constantRange{most: 100, nan: "for an unknown percentage"})
}

// SamplerParameters say which flows a sampler chooses from and how.
type SamplerParameters struct {
	// Label that makes the choice stick: flows with one value are admitted or denied together. Flows without
	// it are chosen at random.
	SessionLabelKey string `json:"session_label_key,omitempty"`
	// Flows to choose from.
	Selectors []Selector `json:"selectors" check:"required"`
	// Status that denied callers should see.
	DeniedResponseStatusCode StatusCode `json:"denied_response_status_code" default:"Forbidden"`
	// Be what flows that ask for ramp mode need to pass, and deny, instead of admit, while the percentage is
	// unknown.
	RampMode bool `json:"ramp_mode" default:"false"`
}

// LoadRamp raises and lowers the percentage of admitted flows along a list of steps.
type LoadRamp struct {
	// Signals that move it.
	InPorts RampIns `json:"in_ports,omitzero"`
	// Numbers it produces.
	OutPorts LoadRampOuts `json:"out_ports,omitzero"`
	// Flows and steps.
	Parameters LoadRampParameters `json:"parameters" check:"required"`
	// Values of the session label that always pass.
	PassThroughLabelValues []string `json:"pass_through_label_values,omitempty"`
	// Key of the dynamic configuration that replaces pass_through_label_values.
	PassThroughLabelValuesConfigKey string `json:"pass_through_label_values_config_key,omitempty"`
}

// RampIns are the in ports of components that move along steps.
type RampIns struct {
	// Move forward while true and backward is not.
	Forward *InPort `json:"forward,omitempty"`
	// Move backward while true and forward is not.
	Backward *InPort `json:"backward,omitempty"`
	// Go back to the first step while true.
	Reset *InPort `json:"reset,omitempty"`
}

// LoadRampOuts are the out ports of a load ramp.
type LoadRampOuts struct {
	// Percentage of flows to admit, 0..100.
	AcceptPercentage *OutPort `json:"accept_percentage,omitempty"`
	// 1 at the beginning of the first step, else 0.
	AtStart *OutPort `json:"at_start,omitempty"`
	// 1 at the end of the last step, else 0.
	AtEnd *OutPort `json:"at_end,omitempty"`
}

// LoadRampParameters are the flows and steps of a load ramp.
type LoadRampParameters struct {
	// Flows to choose from.
	Sampler SamplerParameters `json:"sampler" check:"required"`
	// The steps, in order.
	Steps []LoadRampStep `json:"steps" check:"required"`
}

// LoadRampStep is a percentage and the time it takes to get there from the step before.
type LoadRampStep struct {
	// Percentage of flows to admit at the end of the step.
	TargetAcceptPercentage float64 `json:"target_accept_percentage" check:"gte=0,lte=100"`
	// Length of the step.
	Duration Duration `json:"duration" check:"required"`
}
