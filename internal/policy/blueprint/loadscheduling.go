// SPDX-License-Identifier: Apache-2.0

package blueprint

import (
	"fmt"
	"strconv"
	"time"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

const (
	// dryRunKey is the key of the dynamic configuration of all blueprints that can run dry.
	dryRunKey = "dry_run"
	// coreField holds what all blueprints of load scheduling have.
	coreField = "load_scheduling_core"
)

// LoadSchedulingCommon are the values of all load scheduling.
type LoadSchedulingCommon struct {
	// Compute everything and throttle nothing. The dynamic configuration dry_run replaces it.
	DryRun bool `json:"dry_run" default:"false"`
	// Queries that all have to confirm an overload before load is cut.
	OverloadConfirmations []OverloadConfirmation `json:"overload_confirmations,omitempty"`
	// Use of CPU and memory, as Kubernetes knows it, that has to confirm an overload as well.
	KubeletOverloadConfirmations *KubeletOverloadConfirmations `json:"kubelet_overload_confirmations,omitempty"`
}

// OverloadConfirmation is a query whose result confirms an overload.
type OverloadConfirmation struct {
	// PromQL expression with one number as its result.
	QueryString string `json:"query_string" check:"required"`
	// What the result is compared with.
	Threshold float64 `json:"threshold" check:"required"`
	// How the result has to compare with the threshold to confirm an overload. No result confirms nothing.
	Operator string `json:"operator" default:"gt" check:"oneof=gt lt gte lte eq neq"`
}

// confirm adds the confirmations and returns the port that reads whether all of them hold.
func (c *circuit) confirm(v *LoadSchedulingCommon) *policy.InPort {
	list := fielderr.Path(coreField).Field("overload_confirmations")
	var confirmed []string
	for i, confirmation := range v.OverloadConfirmations {
		query, result := fmt.Sprintf("PROMQL_%d", i), fmt.Sprintf("OVERLOAD_CONFIRMED_%d", i)
		c.query(list.Index(i), confirmation.QueryString, c.tick, query)
		c.decide(list.Index(i), query, confirmation.Operator, confirmation.Threshold, result)
		confirmed = append(confirmed, result)
	}
	if v.KubeletOverloadConfirmations != nil {
		confirmed = append(confirmed, c.confirmKubelet(v.KubeletOverloadConfirmations)...)
	}
	if len(confirmed) == 0 {
		return constant(1)
	}
	const result = "OVERLOAD_CONFIRMATION"
	c.and(coreField, confirmed, result)
	return from(result)
}

func overloadOuts() policy.OverloadOuts {
	return policy.OverloadOuts{
		IsOverload: out(isOverload), DesiredLoadMultiplier: out(desiredLoadMultiplier),
		ObservedLoadMultiplier: out(observedLoadMultiplier),
	}
}

// AIMDCore says how an overload is answered: load is cut in proportion to it.
type AIMDCore struct {
	LoadSchedulingCommon
	// How load is cut and raised.
	AIMDLoadScheduler AIMDValues `json:"aimd_load_scheduler" check:"required"`
}

// AIMDValues say how an AIMD load scheduler cuts and raises load.
type AIMDValues struct {
	// Flows and how they wait.
	LoadScheduler policy.LoadSchedulerParameters `json:"load_scheduler" check:"required"`
	// How far an overload cuts the load: the multiplier becomes observed · (signal / setpoint)^slope.
	Gradient AIMDGradient `json:"gradient"`
	// Multiplier at which everything passes again.
	MaxLoadMultiplier float64 `json:"max_load_multiplier" default:"2" check:"gt=0"`
	// Added to the multiplier every 10 seconds without overload.
	LoadMultiplierLinearIncrement float64 `json:"load_multiplier_linear_increment" default:"0.025" check:"gte=0"`
	// Alert raised while load is cut.
	Alerter policy.AlerterParameters `json:"alerter" default:"{alert_name: AIMD Load Throttling Event}"`
}

// AIMDGradient is the exponent of the cut and its bounds.
type AIMDGradient struct {
	// Exponent: negative, because load has to fall while the signal is high.
	Slope float64 `json:"slope" default:"-1"`
	// Never cut to less than this part of the observed load at once.
	MinGradient float64 `json:"min_gradient" default:"0.1"`
	// Never raise the load to more than this part of the observed load because of an overload.
	MaxGradient float64 `json:"max_gradient" default:"1"`
}

var _ strict.Checker = (*AIMDGradient)(nil)

// Check refuses an empty range.
func (g *AIMDGradient) Check(at strict.Place) {
	if g.MinGradient > g.MaxGradient {
		at.Field("min_gradient").Refuse(fielderr.Error{Want: fmt.Sprintf("at most max_gradient, which is %g", g.MaxGradient)})
	}
}

// aimd adds the load scheduler. Its in ports are SIGNAL and SETPOINT.
func (c *circuit) aimd(core *AIMDCore) {
	v := core.AIMDLoadScheduler
	confirmation := &policy.InPort{}
	c.actuator(fielderr.Path(coreField).Field("aimd_load_scheduler"), "flow_control.aimd_load_scheduler.parameters",
		policy.Component{FlowControl: &policy.FlowControl{AIMDLoadScheduler: &policy.AIMDLoadScheduler{
			InPorts:  policy.OverloadIns{Signal: from(signal), Setpoint: from(setpoint), OverloadConfirmation: confirmation},
			OutPorts: overloadOuts(),
			Parameters: policy.AIMDParameters{
				LoadScheduler:                 v.LoadScheduler,
				Gradient:                      policy.GradientParameters{Slope: v.Gradient.Slope, MinGradient: v.Gradient.MinGradient, MaxGradient: v.Gradient.MaxGradient},
				MaxLoadMultiplier:             v.MaxLoadMultiplier,
				LoadMultiplierLinearIncrement: v.LoadMultiplierLinearIncrement,
				Alerter:                       v.Alerter,
			},
			DryRun: core.DryRun, DryRunConfigKey: dryRunKey,
		}}})
	*confirmation = *c.confirm(&core.LoadSchedulingCommon)
}

// AIADCore says how an overload is answered: load is cut step by step.
type AIADCore struct {
	LoadSchedulingCommon
	// How load is cut and raised.
	AIADLoadScheduler AIADValues `json:"aiad_load_scheduler" check:"required"`
}

// AIADValues say how an AIAD load scheduler cuts and raises load.
type AIADValues struct {
	// Flows and how they wait.
	LoadScheduler policy.LoadSchedulerParameters `json:"load_scheduler" check:"required"`
	// The multiplier is never lower.
	MinLoadMultiplier float64 `json:"min_load_multiplier" default:"0" check:"gte=0"`
	// Taken from the multiplier every 10 seconds of overload; at once when the overload begins.
	LoadMultiplierLinearDecrement float64 `json:"load_multiplier_linear_decrement" default:"0.05" check:"gte=0"`
	// Multiplier at which everything passes again.
	MaxLoadMultiplier float64 `json:"max_load_multiplier" default:"2" check:"gte=0"`
	// Added to the multiplier every 10 seconds without overload.
	LoadMultiplierLinearIncrement float64 `json:"load_multiplier_linear_increment" default:"0.025" check:"gte=0"`
	// Alert raised while load is cut.
	Alerter policy.AlerterParameters `json:"alerter" default:"{alert_name: AIAD Load Throttling Event}"`
}

var _ strict.Checker = (*AIADValues)(nil)

// Check refuses an empty range.
func (v *AIADValues) Check(at strict.Place) {
	if v.MinLoadMultiplier > v.MaxLoadMultiplier && v.MaxLoadMultiplier >= 0 {
		at.Field("min_load_multiplier").Refuse(fielderr.Error{Want: fmt.Sprintf("at most max_load_multiplier, which is %g", v.MaxLoadMultiplier)})
	}
}

// overload is what an AIAD load scheduler takes for an overload: a query whose result compares with a
// number.
type overload struct {
	query     string
	values    fielderr.Path // of the query
	condition string
	setpoint  float64
	setBy     fielderr.Path // the value that setpoint is
}

// aiad adds the load scheduler and what it reads.
func (c *circuit) aiad(core *AIADCore, o overload) {
	v := core.AIADLoadScheduler
	confirmation := &policy.InPort{}
	c.actuator(fielderr.Path(coreField).Field("aiad_load_scheduler"), "flow_control.aiad_load_scheduler.parameters",
		policy.Component{FlowControl: &policy.FlowControl{AIADLoadScheduler: &policy.AIADLoadScheduler{
			InPorts:  policy.OverloadIns{Signal: from(signal), Setpoint: from(setpoint), OverloadConfirmation: confirmation},
			OutPorts: overloadOuts(),
			Parameters: policy.AIADParameters{
				LoadScheduler:                 v.LoadScheduler,
				MinLoadMultiplier:             v.MinLoadMultiplier,
				LoadMultiplierLinearDecrement: v.LoadMultiplierLinearDecrement,
				MaxLoadMultiplier:             v.MaxLoadMultiplier,
				LoadMultiplierLinearIncrement: v.LoadMultiplierLinearIncrement,
				Alerter:                       v.Alerter,
			},
			DryRun: core.DryRun, DryRunConfigKey: dryRunKey, OverloadCondition: o.condition,
		}}})
	c.query(o.values, o.query, c.tick, signal)
	c.add(o.setBy, policy.Component{Variable: &policy.Variable{OutPorts: to(setpoint), ConstantOutput: policy.ConstantSignal{Value: &o.setpoint}}})
	*confirmation = *c.confirm(&core.LoadSchedulingCommon)
}

// PromQLLoadScheduling are the values of load-scheduling/promql.
type PromQLLoadScheduling struct {
	Common
	// How an overload is answered.
	LoadSchedulingCore AIADCore `json:"load_scheduling_core" check:"required"`
	// PromQL expression with one number as its result: the signal that shows an overload.
	PromQLQuery string `json:"promql_query" check:"required"`
	// What the signal is compared with.
	Setpoint float64 `json:"setpoint" check:"required"`
	// How the signal compares with the setpoint during an overload.
	OverloadCondition string `json:"overload_condition" check:"required,oneof=gt lt gte lte"`
}

func (v *PromQLLoadScheduling) build(c *circuit) {
	c.aiad(&v.LoadSchedulingCore, overload{v.PromQLQuery, "promql_query", v.OverloadCondition, v.Setpoint, "setpoint"})
}

// AverageLatencyLoadScheduling are the values of load-scheduling/average-latency.
type AverageLatencyLoadScheduling struct {
	Common
	// How an overload is answered.
	LoadSchedulingCore AIMDCore `json:"load_scheduling_core" check:"required"`
	// What is an overload: a latency above what is usual.
	LatencyBaseliner LatencyBaseliner `json:"latency_baseliner" check:"required"`
}

// LatencyBaseliner compares the latency of now with the usual one.
type LatencyBaseliner struct {
	// Flows whose latency is measured. Only flows that ended well count.
	FluxMeter policy.FluxMeter `json:"flux_meter" check:"required"`
	// An overload begins at this many times the usual latency.
	LatencyToleranceMultiplier float64 `json:"latency_tolerance_multiplier" default:"1.25" check:"gt=0"`
	// Length of the average that is the latency of now. Absent: five ticks, which is 5s at one tick a
	// second. While fewer than 20 flows end in it, the average is that of a longer time, at most the last 30
	// seconds.
	ShortTermQueryInterval *policy.Duration `json:"short_term_query_interval,omitempty" check:"lte=1h"`
	// Length of the average that is the usual latency.
	LongTermQueryInterval policy.Duration `json:"long_term_query_interval" default:"1800s" check:"lte=720h"`
	// Time from one measurement of the usual latency to the next.
	LongTermQueryPeriodicInterval policy.Duration `json:"long_term_query_periodic_interval" default:"30s" check:"gt=0s"`
}

const (
	// shortTermTicks is the length of the short average, in ticks, without a wish. Three samples are the least
	// from which an increase is more than noise, five the most with which a doubled latency shows within two
	// ticks.
	shortTermTicks    = 5
	minShortTermTicks = 3
	// quietFlows is how many flows the short average needs; fewer are averaged over quietWindow instead, so
	// that a single slow flow of a quiet service is no overload.
	quietFlows  = 20
	quietWindow = policy.Duration(30 * time.Second)
)

var _ strict.Checker = (*AverageLatencyLoadScheduling)(nil)

// Check refuses averages over too few ticks.
func (v *AverageLatencyLoadScheduling) Check(at strict.Place) {
	least := minShortTermTicks * v.EvaluationInterval
	refuse := func(name string, length policy.Duration) {
		if length < least {
			at.Field("latency_baseliner").Field(name).Refuse(fielderr.Error{
				Want: fmt.Sprintf("at least %d ticks, %s at the evaluation_interval of %s", minShortTermTicks, least, v.EvaluationInterval),
			})
		}
	}
	refuse("long_term_query_interval", v.LatencyBaseliner.LongTermQueryInterval)
	if short := v.LatencyBaseliner.ShortTermQueryInterval; short != nil {
		refuse("short_term_query_interval", *short)
	}
}

func (v *AverageLatencyLoadScheduling) build(c *circuit) {
	const (
		longTerm   = "SIGNAL_LONG_TERM"
		throttling = "IS_THROTTLING"
		learned    = "LEARNED_LATENCY"
		held       = "HELD_LATENCY"
		usual      = "USUAL_LATENCY"
	)
	b, values := &v.LatencyBaseliner, fielderr.Path("latency_baseliner")
	c.fluxMeters[c.name] = b.FluxMeter
	short := shortTermTicks * c.tick
	if b.ShortTermQueryInterval != nil {
		short = *b.ShortTermQueryInterval
	}
	meter := flowsOK(c.name, c.name)
	c.aimd(&v.LoadSchedulingCore)
	c.query(values, recentLatency(meter, short), c.tick, signal)
	c.query(values, averageLatency(meter, b.LongTermQueryInterval), b.LongTermQueryPeriodicInterval, longTerm)
	// While load is cut, latency is that of an overload: the usual one stays what it was before. Not longer
	// than its average is long, because a service may have become slower for good.
	c.decide(values, desiredLoadMultiplier, "lt", 1, throttling)
	c.add(values, policy.Component{Switcher: &policy.Switcher{
		InPorts:  policy.SwitcherIns{Switch: from(throttling), OnSignal: invalid(), OffSignal: from(longTerm)},
		OutPorts: to(learned),
	}})
	c.add(values, policy.Component{Extrapolator: &policy.Extrapolator{
		InPorts: policy.InputPort{Input: from(learned)}, OutPorts: to(held),
		Parameters: policy.ExtrapolatorParameters{MaxExtrapolationInterval: b.LongTermQueryInterval},
	}})
	c.add(values, policy.Component{FirstValid: &policy.FirstValid{InPorts: fromAll([]string{held, longTerm}), OutPorts: to(usual)}})
	c.add(values, policy.Component{ArithmeticCombinator: &policy.ArithmeticCombinator{
		InPorts:  policy.ComparedPorts{LHS: from(usual), RHS: constant(b.LatencyToleranceMultiplier)},
		OutPorts: to(setpoint), Operator: "mul",
	}})
}

// flowsOK matches the flows of a flux meter that ended well.
func flowsOK(meter, policyName string) string {
	return fmt.Sprintf(`flow_status="OK",flux_meter_name=%s,policy_name=%s`, quoted(meter), quoted(policyName))
}

// averageLatency is the query of the average of a flux meter.
func averageLatency(meter string, window policy.Duration) string {
	return fmt.Sprintf("sum(increase(flux_meter_sum{%[1]s}[%[2]s]))/sum(increase(flux_meter_count{%[1]s}[%[2]s]))", meter, promDuration(window))
}

// recentLatency is averageLatency over a short window or, while that has too few flows, over a longer one.
// Where the short one is very short there is a third between them: a service that hangs for longer than the
// short window ends too few flows in it, and in the long one they drown among those that were quick before.
func recentLatency(meter string, window policy.Duration) string {
	if window >= quietWindow {
		return averageLatency(meter, window)
	}
	enough := func(window policy.Duration) string {
		return fmt.Sprintf("(%s and sum(increase(flux_meter_count{%s}[%s])) >= %d) or ",
			averageLatency(meter, window), meter, promDuration(window), quietFlows)
	}
	query := enough(window)
	if between := 5 * window; between <= quietWindow/2 {
		query += enough(between)
	}
	return query + averageLatency(meter, quietWindow)
}

// promDuration writes a duration as PromQL has it: in seconds when they are whole, else in milliseconds.
func promDuration(d policy.Duration) string {
	if d%policy.Duration(time.Second) == 0 {
		return strconv.FormatInt(int64(d.Std()/time.Second), 10) + "s"
	}
	return strconv.FormatInt(max(1, d.Std().Milliseconds()), 10) + "ms"
}

// quoted writes text as PromQL has it.
func quoted(text string) string { return strconv.Quote(text) }

// AdaptiveLoadScheduling are the values of load-scheduling/adaptive.
type AdaptiveLoadScheduling struct {
	Common
	// Flows and how they wait.
	LoadSchedulingCore AdaptiveCore `json:"load_scheduling_core" check:"required"`
}

// AdaptiveCore says which flows are protected and how they wait.
type AdaptiveCore struct {
	LoadSchedulingCommon
	// Finds how many flows the service can work on at once, and lets that many in.
	AdaptiveConcurrencyScheduler AdaptiveConcurrencyValues `json:"adaptive_concurrency_scheduler" check:"required"`
}

// AdaptiveConcurrencyValues describe an adaptive concurrency scheduler.
type AdaptiveConcurrencyValues struct {
	// Flows the limit applies to: those of one service.
	Selectors []policy.Selector `json:"selectors" check:"required"`
	// How the slots are kept.
	ConcurrencyLimiter AdaptiveSlotValues `json:"concurrency_limiter"`
	// Who waits for whom.
	Scheduler policy.Scheduler `json:"scheduler"`
	// The range of the limit.
	Parameters policy.AdaptiveConcurrencyParameters `json:"parameters"`
	// Alert raised while there is an overload.
	Alerter policy.AlerterParameters `json:"alerter" default:"{alert_name: Adaptive Load Throttling Event}"`
}

// AdaptiveSlotValues say how slots are kept.
type AdaptiveSlotValues struct {
	// A flow that did not end within this time gives its slots back, so that a lost end cannot hold them
	// for ever. Make it longer than the longest flow.
	MaxInflightDuration policy.Duration `json:"max_inflight_duration" default:"60s" check:"gt=0s"`
}

func (v *AdaptiveLoadScheduling) build(c *circuit) {
	core, confirmation := &v.LoadSchedulingCore, &policy.InPort{}
	a := &core.AdaptiveConcurrencyScheduler
	limiter := strict.Default[policy.ConcurrencyLimiterParameters]()
	limiter.MaxInflightDuration = a.ConcurrencyLimiter.MaxInflightDuration
	c.actuator(fielderr.Path(coreField).Field("adaptive_concurrency_scheduler"), "flow_control.adaptive_concurrency_scheduler",
		policy.Component{FlowControl: &policy.FlowControl{AdaptiveConcurrencyScheduler: &policy.AdaptiveConcurrencyScheduler{
			InPorts:            policy.AdaptiveConcurrencyIns{OverloadConfirmation: confirmation},
			OutPorts:           policy.AdaptiveConcurrencyOuts{MaxConcurrency: out("MAX_CONCURRENCY"), IsOverload: out(isOverload), AcceptPercentage: out(acceptPercentage)},
			Selectors:          a.Selectors,
			ConcurrencyLimiter: limiter,
			Scheduler:          a.Scheduler,
			Parameters:         a.Parameters,
			Alerter:            a.Alerter,
			DryRun:             core.DryRun, DryRunConfigKey: dryRunKey,
		}}})
	*confirmation = *c.confirm(&core.LoadSchedulingCommon)
}
