// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"math"
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/circuit/component"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/signal"
)

// pace is the time that documents give steps of load multipliers for. Circuits make a part of the step on
// every tick instead, so that a ramp takes as long and an overload is answered at once.
const pace = 10 * time.Second

// perTick is the part of a step that is made on each tick.
func (e *expansion) perTick(step float64) float64 {
	return step * e.interval.Seconds() / pace.Seconds()
}

func (e *expansion) loadControl(fc *policy.FlowControl, begin func([]policy.Selector, ...string) *composite) {
	switch {
	case fc.LoadScheduler != nil:
		p := fc.LoadScheduler
		begin(p.Parameters.Selectors).loadScheduler(p)
	case fc.AIMDLoadScheduler != nil:
		p := fc.AIMDLoadScheduler
		begin(p.Parameters.LoadScheduler.Selectors, "slope "+number(p.Parameters.Gradient.Slope)).aimd(p)
	case fc.AdaptiveLoadScheduler != nil:
		p := fc.AdaptiveLoadScheduler
		begin(p.Parameters.LoadScheduler.Selectors, "slope "+number(p.Parameters.Gradient.Slope)).aimd(&policy.AIMDLoadScheduler{
			InPorts: p.InPorts, OutPorts: p.OutPorts, Parameters: policy.AIMDParameters(p.Parameters),
			DryRun: p.DryRun, DryRunConfigKey: p.DryRunConfigKey,
		})
	case fc.AIADLoadScheduler != nil:
		p := fc.AIADLoadScheduler
		begin(p.Parameters.LoadScheduler.Selectors, "overload: "+p.OverloadCondition).aiad(p)
	case fc.RangeDrivenLoadScheduler != nil:
		p := fc.RangeDrivenLoadScheduler
		low, high := p.Parameters.LowThrottleThreshold, p.Parameters.HighThrottleThreshold
		begin(p.Parameters.LoadScheduler.Selectors, fmt.Sprintf("%s→%s to %s→%s", number(low.SignalValue), number(low.LoadMultiplier),
			number(high.SignalValue), number(high.LoadMultiplier))).rangeDriven(p)
	}
}

// loadScheduler makes the parts of a load scheduler without a strategy.
func (x *composite) loadScheduler(p *policy.LoadScheduler) {
	multiplier := x.in("load_multiplier", p.InPorts.LoadMultiplier)
	observed := x.out("observed_load_multiplier", p.OutPorts.ObservedLoadMultiplier, "OBSERVED_LOAD_MULTIPLIER")
	var o observerNode
	x.observeLoad(&o, observed)
	x.observe(o)
	x.throttle(multiplier, p.DryRun, p.DryRunConfigKey, &p.Parameters)
}

// throttle adds the dry run and the actuator.
func (x *composite) throttle(desired circuit.In, dry bool, key string, p *policy.LoadSchedulerParameters) {
	acted := x.dryRun(dry, key, desired, "ACTUATED_LOAD_MULTIPLIER")
	a := actuatorNode{act: actLoad, driven: true, expires: true}
	if p.WorkloadLatencyBasedTokens {
		a.tokens = x.latencies()
	}
	x.actuate(a, nil, as("load_multiplier", read(acted)))
}

// latencies asks for the mean latency of each workload over half an hour, in milliseconds.
func (x *composite) latencies() signal.Query {
	series := func(name string) string {
		return fmt.Sprintf(`sum by (workload_index) (increase(%s{policy_name=%q,component_id=%q}[30m]))`, name, x.e.policy, x.id)
	}
	return signal.Query{
		Expr: series("workload_latency_ms_sum") + " / " + series("workload_latency_ms_count"), ByLabel: "workload_index",
		Interval: 5 * x.e.interval, Policy: x.e.policy, Component: x.id,
	}
}

// strategy is the part that all load schedulers with a strategy have in common.
type strategy struct {
	*composite
	kind         string
	confirmation circuit.In
	observed     circuit.Signal
	isOverload   circuit.Signal
	desired      circuit.Signal
}

// strategy adds the confirmation and what the data plane observes. The caller has registered the in ports.
func (x *composite) strategy(kind string, confirmation circuit.In, out *policy.OverloadOuts) strategy {
	s := strategy{composite: x, kind: kind}
	s.isOverload = x.out("is_overload", out.IsOverload, "IS_OVERLOAD")
	s.desired = x.out("desired_load_multiplier", out.DesiredLoadMultiplier, "DESIRED_LOAD_MULTIPLIER")
	s.observed = x.out("observed_load_multiplier", out.ObservedLoadMultiplier, "OBSERVED_LOAD_MULTIPLIER")
	s.confirmation = read(x.list("first_valid", component.FirstValid{}, x.private("OVERLOAD_CONFIRMATION_WITH_DEFAULT"),
		confirmation, constant(1)))
	var o observerNode
	x.observeLoad(&o, s.observed)
	x.observe(o)
	return s
}

// overload adds the decision whether there is an overload.
func (s *strategy) overload(fromStrategy circuit.Signal) {
	s.list("and", component.And{}, s.isOverload, read(fromStrategy), s.confirmation)
}

// apply adds what happens with the multiplier that a strategy wants: nothing while pass is true.
func (s *strategy) apply(multiplier, pass circuit.Signal, alerter *policy.AlerterParameters) {
	s.choose(pass, constant(math.NaN()), read(multiplier), s.desired)
	s.alert(s.decide(read(s.desired), "lt", constant(1), s.private("IS_THROTTLING")), alerter, s.kind)
}

// aimd makes the parts of an AIMD load scheduler.
func (x *composite) aimd(p *policy.AIMDLoadScheduler) {
	signal, set := x.in("signal", p.InPorts.Signal), x.in("setpoint", p.InPorts.Setpoint)
	s := x.strategy("aimd_load_scheduler", x.in("overload_confirmation", p.InPorts.OverloadConfirmation), &p.OutPorts)
	params := &p.Parameters
	condition := "gt"
	if params.Gradient.Slope > 0 {
		condition = "lt"
	}
	s.overload(x.decide(signal, condition, set, x.private("OVERLOAD_FROM_STRATEGY")))
	decreased := x.gradient(component.GradientConfig{
		Slope: params.Gradient.Slope, MinGradient: params.Gradient.MinGradient, MaxGradient: params.Gradient.MaxGradient,
	}, signal, set, read(s.observed), x.private("DECREASED_LOAD_MULTIPLIER"))
	highest := params.MaxLoadMultiplier
	growth := x.integrate(highest, constant(x.e.perTick(params.LoadMultiplierLinearIncrement)), read(s.isOverload),
		[2]circuit.In{constant(highest), constant(math.NaN())}, x.private("LOAD_MULTIPLIER_GROWTH"))
	increased := x.arithmetic(read(s.observed), "add", read(growth), x.private("INCREASED_LOAD_MULTIPLIER"))
	multiplier := x.choose(s.isOverload, read(decreased), read(increased), x.private("LOAD_MULTIPLIER_FROM_STRATEGY"))
	s.apply(multiplier, x.passes(multiplier, highest), &params.Alerter)
	x.throttle(read(s.desired), p.DryRun, p.DryRunConfigKey, &params.LoadScheduler)
}

// passes adds the decision that everything passes: the multiplier is at its highest.
func (x *composite) passes(multiplier circuit.Signal, highest float64) circuit.Signal {
	return x.decide(read(multiplier), "gte", constant(highest), x.private("PASS_THROUGH_FROM_STRATEGY"))
}

// integrate adds an integrator. bounds are max and min.
func (x *composite) integrate(initial float64, in, reset circuit.In, bounds [2]circuit.In, to circuit.Signal) circuit.Signal {
	x.part("integrator", "from "+number(initial), component.NewIntegrator(component.IntegratorConfig{Initial: initial}, x.e.interval),
		[]circuit.In{as("input", in), as("reset", reset), as("max", bounds[0]), as("min", bounds[1])}, output(to))
	return to
}

// aiad makes the parts of an AIAD load scheduler.
func (x *composite) aiad(p *policy.AIADLoadScheduler) {
	signal, set := x.in("signal", p.InPorts.Signal), x.in("setpoint", p.InPorts.Setpoint)
	s := x.strategy("aiad_load_scheduler", x.in("overload_confirmation", p.InPorts.OverloadConfirmation), &p.OutPorts)
	params := &p.Parameters
	s.overload(x.decide(signal, p.OverloadCondition, set, x.private("OVERLOAD_FROM_STRATEGY")))
	highest, down := params.MaxLoadMultiplier, params.LoadMultiplierLinearDecrement
	step := x.choose(s.isOverload, constant(-x.e.perTick(down)), constant(x.e.perTick(params.LoadMultiplierLinearIncrement)),
		x.private("LOAD_MULTIPLIER_STEP"))
	// The first tick of an overload goes down to where there is something to see.
	bound := x.choose(s.isOverload, constant(min(highest, 1-down)), constant(highest), x.private("LOAD_MULTIPLIER_BOUND"))
	multiplier := x.integrate(highest, read(step), constant(math.NaN()),
		[2]circuit.In{read(bound), constant(params.MinLoadMultiplier)}, x.private("LOAD_MULTIPLIER_FROM_STRATEGY"))
	s.apply(multiplier, x.passes(multiplier, highest), &params.Alerter)
	x.throttle(read(s.desired), p.DryRun, p.DryRunConfigKey, &params.LoadScheduler)
}

// rangeDriven makes the parts of a range driven load scheduler.
func (x *composite) rangeDriven(p *policy.RangeDrivenLoadScheduler) {
	signal := x.in("signal", p.InPorts.Signal)
	s := x.strategy("range_driven_load_scheduler", x.in("overload_confirmation", p.InPorts.OverloadConfirmation), &p.OutPorts)
	low, high := p.Parameters.LowThrottleThreshold, p.Parameters.HighThrottleThreshold
	curve := component.PolynomialConfig{
		Start:  component.Datapoint{Input: low.SignalValue, Output: low.LoadMultiplier},
		End:    component.Datapoint{Input: high.SignalValue, Output: high.LoadMultiplier},
		Degree: p.Parameters.Degree, Clamp: true, Before: 1, After: high.LoadMultiplier,
	}
	if low.LoadMultiplier < high.LoadMultiplier {
		curve.Before, curve.After = low.LoadMultiplier, 1
	}
	multiplier := x.private("LOAD_MULTIPLIER_FROM_STRATEGY")
	x.part("polynomial_range_function", fmt.Sprintf("%s before, %s after", number(curve.Before), number(curve.After)),
		component.NewPolynomial(curve), []circuit.In{as("input", signal)}, output(multiplier))
	s.overload(x.decide(read(multiplier), "lt", constant(1), x.private("OVERLOAD_FROM_STRATEGY")))
	none := x.private("NO_OVERLOAD")
	x.part("inverter", "", component.Inverter{}, []circuit.In{as("input", read(s.isOverload))}, output(none))
	full := x.decide(read(multiplier), "gte", constant(1), x.private("FULL_LOAD"))
	pass := x.list("or", component.Or{}, x.private("PASS_THROUGH_FROM_STRATEGY"), read(full), read(none))
	s.apply(multiplier, pass, &p.Parameters.Alerter)
	x.throttle(read(s.desired), p.DryRun, p.DryRunConfigKey, &p.Parameters.LoadScheduler)
}
