// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/circuit/component"
	"github.com/sluice-project/sluice/internal/policy"
)

// primitive makes the node of a component that is nothing but arithmetic: no composite, query, actuator or
// alerter, for which ok is false. It also makes those of nested_signal_ingress and nested_signal_egress with
// the port they have inside only; the port on the other side is left to the caller, as In[0] or Out[0] with
// nothing connected. scope is the id of the circuit that the signals belong to. The ID of the node is left
// to the caller. description says what is configured, for people: "gt, true for 5s".
//
// Ports come in a fixed order and have the names that they have in documents; those of a list are inputs[0],
// inputs[1] and so on.
func primitive(c *policy.Component, scope string, interval time.Duration) (node circuit.Node, description string, ok bool) {
	w := wiring{scope: scope, interval: interval}
	description = w.calculator(c)
	if w.node.Component == nil {
		description = w.timer(c)
	}
	if w.node.Component == nil {
		description = w.chooser(c)
	}
	if w.node.Component == nil {
		return circuit.Node{}, "", false
	}
	w.node.Kind = c.Kind()
	return w.node, description, true
}

// inPort is an in port of a document as circuits have it.
func inPort(scope, name string, p *policy.InPort) circuit.In {
	value, _, isConst := p.Constant()
	if isConst {
		return circuit.In{Port: name, Constant: value}
	}
	return circuit.In{Port: name, Signal: circuit.Signal{Circuit: scope, Name: p.SignalName}, Constant: math.NaN()}
}

// outPort is an out port of a document as circuits have it.
func outPort(scope, name string, p *policy.OutPort) circuit.Out {
	if p == nil {
		return circuit.Out{Port: name}
	}
	return circuit.Out{Port: name, Signal: circuit.Signal{Circuit: scope, Name: p.SignalName}}
}

// wiring makes the node of one component.
type wiring struct {
	scope    string
	interval time.Duration
	node     circuit.Node
}

func (w *wiring) in(name string, p *policy.InPort) {
	w.node.In = append(w.node.In, inPort(w.scope, name, p))
}

func (w *wiring) inputs(p policy.InputsPort) {
	for i := range p.Inputs {
		w.in(fmt.Sprintf("inputs[%d]", i), &p.Inputs[i])
	}
}

func (w *wiring) out(name string, p *policy.OutPort) {
	w.node.Out = append(w.node.Out, outPort(w.scope, name, p))
}

// known sets the component unless its operator is unknown, which a parsed policy never has.
func (w *wiring) known(c circuit.Component, ok bool) {
	if ok {
		w.node.Component = c
	}
}

// calculator makes components whose output depends on the inputs of the same tick only.
func (w *wiring) calculator(c *policy.Component) string {
	switch {
	case c.GradientController != nil:
		return w.gradient(c.GradientController)
	case c.ArithmeticCombinator != nil:
		p := c.ArithmeticCombinator
		w.compared(p.InPorts)
		w.out("output", p.OutPorts.Output)
		w.known(component.NewArithmetic(p.Operator))
		return p.Operator
	case c.UnaryOperator != nil:
		p := c.UnaryOperator
		w.through(p.InPorts, p.OutPorts)
		w.known(component.NewUnary(p.Operator))
		return p.Operator
	case c.Variable != nil:
		p, constant := c.Variable, c.Variable.ConstantOutput.Number()
		w.out("output", p.OutPorts.Output)
		w.node.Component = component.NewVariable(constant, p.ConfigKey)
		return describe(number(constant), keyed(p.ConfigKey))
	case c.BoolVariable != nil:
		p := c.BoolVariable
		w.out("output", p.OutPorts.Output)
		w.node.Component = component.NewBoolVariable(p.ConstantOutput, p.ConfigKey)
		return describe(strconv.FormatBool(p.ConstantOutput), keyed(p.ConfigKey))
	case c.PolynomialRangeFunction != nil:
		return w.polynomial(c.PolynomialRangeFunction)
	}
	return ""
}

// chooser makes components whose output is one of their inputs, or a truth value about them.
func (w *wiring) chooser(c *policy.Component) string {
	switch {
	case c.Switcher != nil:
		p := c.Switcher
		w.in("on_signal", p.InPorts.OnSignal)
		w.in("off_signal", p.InPorts.OffSignal)
		w.in("switch", p.InPorts.Switch)
		w.out("output", p.OutPorts.Output)
		w.node.Component = component.Switcher{}
	case c.Max != nil:
		w.list(c.Max.InPorts, c.Max.OutPorts, component.Max{})
	case c.Min != nil:
		w.list(c.Min.InPorts, c.Min.OutPorts, component.Min{})
	case c.FirstValid != nil:
		w.list(c.FirstValid.InPorts, c.FirstValid.OutPorts, component.FirstValid{})
	case c.And != nil:
		w.list(c.And.InPorts, c.And.OutPorts, component.And{})
	case c.Or != nil:
		w.list(c.Or.InPorts, c.Or.OutPorts, component.Or{})
	case c.Inverter != nil:
		w.through(c.Inverter.InPorts, c.Inverter.OutPorts)
		w.node.Component = component.Inverter{}
	case c.NestedSignalIngress != nil:
		w.in(c.NestedSignalIngress.PortName, nil)
		w.out("signal", c.NestedSignalIngress.OutPorts.Signal)
		w.node.Component = component.Copy{}
		return c.NestedSignalIngress.PortName
	case c.NestedSignalEgress != nil:
		w.in("signal", c.NestedSignalEgress.InPorts.Signal)
		w.out(c.NestedSignalEgress.PortName, nil)
		w.node.Component = component.Copy{}
		return c.NestedSignalEgress.PortName
	}
	return ""
}

// timer makes components whose output depends on what was before.
func (w *wiring) timer(c *policy.Component) string {
	switch {
	case c.PIDController != nil:
		return w.pid(c.PIDController)
	case c.EMA != nil:
		return w.ema(c.EMA)
	case c.SMA != nil:
		p := c.SMA
		w.through(p.InPorts, p.OutPorts)
		w.node.Component = component.NewSMA(component.SMAConfig{
			Window: p.Parameters.SMAWindow.Std(), ValidDuringWarmup: p.Parameters.ValidDuringWarmup,
		}, w.interval)
		return "over " + p.Parameters.SMAWindow.String()
	case c.Decider != nil:
		return w.decider(c.Decider)
	case c.Extrapolator != nil:
		p := c.Extrapolator
		w.through(p.InPorts, p.OutPorts)
		w.node.Component = component.NewExtrapolator(p.Parameters.MaxExtrapolationInterval.Std())
		return "for at most " + p.Parameters.MaxExtrapolationInterval.String()
	case c.Integrator != nil:
		return w.integrator(c.Integrator)
	case c.Differentiator != nil:
		p := c.Differentiator
		w.through(p.InPorts, p.OutPorts)
		w.node.Component = component.NewDifferentiator(p.Window.Std(), w.interval)
		return "over " + p.Window.String()
	case c.PulseGenerator != nil:
		p := c.PulseGenerator
		w.out("output", p.OutPorts.Output)
		w.node.Component = component.NewPulse(p.TrueFor.Std(), p.FalseFor.Std(), w.interval)
		return describe("true for "+p.TrueFor.String(), "false for "+p.FalseFor.String())
	case c.Holder != nil:
		p := c.Holder
		w.in("input", p.InPorts.Input)
		w.in("reset", p.InPorts.Reset)
		w.out("output", p.OutPorts.Output)
		w.node.Component = component.NewHolder(p.HoldFor.Std(), w.interval)
		return "for " + p.HoldFor.String()
	case c.SignalGenerator != nil:
		return w.generator(c.SignalGenerator)
	}
	return ""
}

func (w *wiring) through(in policy.InputPort, out policy.OutputPort) {
	w.in("input", in.Input)
	w.out("output", out.Output)
}

func (w *wiring) compared(in policy.ComparedPorts) {
	w.in("lhs", in.LHS)
	w.in("rhs", in.RHS)
}

func (w *wiring) list(in policy.InputsPort, out policy.OutputPort, c circuit.Component) {
	w.inputs(in)
	w.out("output", out.Output)
	w.node.Component = c
}

func (w *wiring) gradient(p *policy.GradientController) string {
	w.in("signal", p.InPorts.Signal)
	w.in("setpoint", p.InPorts.Setpoint)
	w.in("control_variable", p.InPorts.ControlVariable)
	w.in("max", p.InPorts.Max)
	w.in("min", p.InPorts.Min)
	w.out("output", p.OutPorts.Output)
	w.node.Component = component.NewGradient(component.GradientConfig{
		Slope:       p.Parameters.Slope,
		MinGradient: p.Parameters.MinGradient, MaxGradient: p.Parameters.MaxGradient,
		Manual: p.ManualMode, ManualKey: p.ManualModeConfigKey,
	})
	parts := []string{"slope " + number(p.Parameters.Slope)}
	if p.Parameters.MinGradient > -math.MaxFloat64 {
		parts = append(parts, "gradient at least "+number(p.Parameters.MinGradient))
	}
	if p.Parameters.MaxGradient < math.MaxFloat64 {
		parts = append(parts, "gradient at most "+number(p.Parameters.MaxGradient))
	}
	if p.ManualMode {
		parts = append(parts, "manual")
	}
	if p.ManualModeConfigKey != "" {
		parts = append(parts, "manual mode from key "+p.ManualModeConfigKey)
	}
	return describe(parts...)
}

func (w *wiring) pid(p *policy.PIDController) string {
	w.in("signal", p.InPorts.Signal)
	w.in("setpoint", p.InPorts.Setpoint)
	w.in("max", p.InPorts.Max)
	w.in("min", p.InPorts.Min)
	w.out("output", p.OutPorts.Output)
	params := &p.Parameters
	w.node.Component = component.NewPID(component.PIDConfig{
		KP: params.KP, KI: params.KI, KD: params.KD, Every: optional(params.EvaluationInterval),
		ResetAfterInvalid: int(params.ResetAfterInvalidSamples),
	}, w.interval)
	return describe("kp "+number(params.KP), "ki "+number(params.KI), "kd "+number(params.KD), every(params.EvaluationInterval))
}

func (w *wiring) ema(p *policy.EMA) string {
	w.in("input", p.InPorts.Input)
	w.in("max_envelope", p.InPorts.MaxEnvelope)
	w.in("min_envelope", p.InPorts.MinEnvelope)
	w.out("output", p.OutPorts.Output)
	params := &p.Parameters
	w.node.Component = component.NewEMA(component.EMAConfig{
		Window: params.EMAWindow.Std(), Warmup: params.WarmupWindow.Std(),
		MinEnvelopeFactor: params.CorrectionFactorOnMinEnvelopeViolation,
		MaxEnvelopeFactor: params.CorrectionFactorOnMaxEnvelopeViolation,
		ValidDuringWarmup: params.ValidDuringWarmup,
	}, w.interval)
	return describe("over "+params.EMAWindow.String(), "warm-up "+params.WarmupWindow.String())
}

func (w *wiring) decider(p *policy.Decider) string {
	w.compared(p.InPorts)
	w.out("output", p.OutPorts.Output)
	w.known(component.NewDecider(component.DeciderConfig{
		Operator: p.Operator, TrueFor: p.TrueFor.Std(), FalseFor: p.FalseFor.Std(),
	}))
	parts := []string{p.Operator}
	if p.TrueFor > 0 {
		parts = append(parts, "true for "+p.TrueFor.String())
	}
	if p.FalseFor > 0 {
		parts = append(parts, "false for "+p.FalseFor.String())
	}
	return describe(parts...)
}

func (w *wiring) integrator(p *policy.Integrator) string {
	w.in("input", p.InPorts.Input)
	w.in("reset", p.InPorts.Reset)
	w.in("max", p.InPorts.Max)
	w.in("min", p.InPorts.Min)
	w.out("output", p.OutPorts.Output)
	w.node.Component = component.NewIntegrator(component.IntegratorConfig{
		Initial: p.InitialValue, Every: optional(p.EvaluationInterval),
	}, w.interval)
	return describe("from "+number(p.InitialValue), every(p.EvaluationInterval))
}

func (w *wiring) generator(p *policy.SignalGenerator) string {
	w.in("forward", p.InPorts.Forward)
	w.in("backward", p.InPorts.Backward)
	w.in("reset", p.InPorts.Reset)
	w.out("output", p.OutPorts.Output)
	w.out("at_start", p.OutPorts.AtStart)
	w.out("at_end", p.OutPorts.AtEnd)
	steps := make([]component.GeneratorStep, len(p.Parameters.Steps))
	for i, s := range p.Parameters.Steps {
		steps[i] = component.GeneratorStep{Target: s.TargetOutput.Number(), Length: s.Duration.Std()}
	}
	w.node.Component = component.NewGenerator(steps, w.interval)
	return describeSteps(steps)
}

func (w *wiring) polynomial(p *policy.PolynomialRangeFunction) string {
	w.through(p.InPorts, p.OutPorts)
	params := &p.Parameters
	config := component.PolynomialConfig{
		Start: component.Datapoint(params.Start), End: component.Datapoint(params.End), Degree: params.Degree,
	}
	outside := ""
	switch {
	case params.ClampToDatapoint:
		config.Clamp, config.Before, config.After = true, params.Start.Output, params.End.Output
		outside = "clamped"
	case params.ClampToCustomValues != nil:
		config.Clamp = true
		config.Before, config.After = params.ClampToCustomValues.PreStart, params.ClampToCustomValues.PostEnd
		outside = fmt.Sprintf("%s before, %s after", number(config.Before), number(config.After))
	}
	w.node.Component = component.NewPolynomial(config)
	point := func(d policy.RangeDatapoint) string { return number(d.Input) + "→" + number(d.Output) }
	return describe(point(params.Start)+" to "+point(params.End), "degree "+number(params.Degree), outside)
}

// describe joins what there is to say.
func describe(parts ...string) string {
	said := parts[:0]
	for _, part := range parts {
		if part != "" {
			said = append(said, part)
		}
	}
	return strings.Join(said, ", ")
}

// describeSteps says where a ramp goes: "1 in 0s, 100 in 300s". Of many steps it says the first and last.
func describeSteps(steps []component.GeneratorStep) string {
	const most = 4
	var parts []string
	for i, s := range steps {
		switch {
		case len(steps) <= most || i < most-1 || i == len(steps)-1:
			parts = append(parts, number(s.Target)+" in "+policy.Duration(s.Length).String())
		case i == most-1:
			parts = append(parts, "…")
		}
	}
	return describe(parts...)
}

func number(v float64) string {
	if math.IsInf(v, 0) {
		return fmt.Sprintf("%+v", v)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

func keyed(key string) string {
	if key == "" {
		return ""
	}
	return "or what dynamic configuration has under " + key
}

func optional(d *policy.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return d.Std()
}

func every(d *policy.Duration) string {
	if d == nil {
		return ""
	}
	return "every " + d.String()
}
