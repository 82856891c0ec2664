// SPDX-License-Identifier: Apache-2.0

package blueprint

import (
	"strconv"
	"strings"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// circuit collects the components and resources that a blueprint makes of its values.
type circuit struct {
	name        string          // of the policy; "" when the document does not give it, which was reported
	tick        policy.Duration // time from one tick to the next
	parts       []part
	fluxMeters  map[string]policy.FluxMeter
	infraMeters map[string]policy.InfraMeter
}

// part is one component and where in the values it comes from.
type part struct {
	component policy.Component
	values    fielderr.Path // the values it was made of, below policy
	inside    string        // the field of the component that has the same members as values; "": none
}

func newCircuit(common *Common) *circuit {
	return &circuit{
		name: common.PolicyName, tick: common.EvaluationInterval,
		fluxMeters: map[string]policy.FluxMeter{}, infraMeters: map[string]policy.InfraMeter{},
	}
}

// actuator adds a component whose field inside has the same members as the values.
func (c *circuit) actuator(values fielderr.Path, inside string, component policy.Component) {
	c.parts = append(c.parts, part{component, values, inside})
}

// add adds a component made of the values.
func (c *circuit) add(values fielderr.Path, component policy.Component) {
	c.actuator(values, "", component)
}

// query adds a PromQL query.
func (c *circuit) query(values fielderr.Path, text string, every policy.Duration, signal string) {
	c.add(values, policy.Component{Query: &policy.Query{PromQL: &policy.PromQL{
		QueryString: text, EvaluationInterval: every, OutPorts: to(signal),
	}}})
}

// decide adds a decider that compares a signal with a number.
func (c *circuit) decide(values fielderr.Path, signal, operator string, number float64, result string) {
	c.decideFor(values, compared{signal, operator, number}, 0, result)
}

// compared is a signal compared with a number.
type compared struct {
	signal, operator string
	number           float64
}

// decideFor adds a decider whose comparison has to hold for a while.
func (c *circuit) decideFor(values fielderr.Path, what compared, trueFor policy.Duration, result string) {
	decider := strict.Default[policy.Decider]()
	decider.InPorts = policy.ComparedPorts{LHS: from(what.signal), RHS: constant(what.number)}
	decider.Operator, decider.TrueFor = what.operator, trueFor
	decider.OutPorts = to(result)
	c.add(values, policy.Component{Decider: &decider})
}

// alert adds an alerter.
func (c *circuit) alert(values fielderr.Path, signal string, parameters policy.AlerterParameters) {
	c.actuator(values, "alerter.parameters", policy.Component{Alerter: &policy.Alerter{
		InPorts: policy.SignalIns{Signal: from(signal)}, Parameters: parameters,
	}})
}

// and adds a conjunction.
func (c *circuit) and(values fielderr.Path, signals []string, result string) {
	c.add(values, policy.Component{And: &policy.And{InPorts: fromAll(signals), OutPorts: to(result)}})
}

// or adds a disjunction.
func (c *circuit) or(values fielderr.Path, signals []string, result string) {
	c.add(values, policy.Component{Or: &policy.Or{InPorts: fromAll(signals), OutPorts: to(result)}})
}

// not adds a negation.
func (c *circuit) not(values fielderr.Path, signal, result string) {
	c.add(values, policy.Component{Inverter: &policy.Inverter{InPorts: policy.InputPort{Input: from(signal)}, OutPorts: to(result)}})
}

func (c *circuit) components() []policy.Component {
	components := make([]policy.Component, len(c.parts))
	for i, p := range c.parts {
		components[i] = p.component
	}
	return components
}

// locate returns where in the values file a field of the policy comes from. Fields of generated components
// lead to the values they were generated from.
func (c *circuit) locate(path fielderr.Path) fielderr.Path {
	rest, ok := strings.CutPrefix(string(path), "circuit.components[")
	if !ok {
		return "policy." + path
	}
	number, rest, _ := strings.Cut(rest, "]")
	i, err := strconv.Atoi(number)
	if err != nil || i < 0 {
		return "policy"
	}
	if i >= len(c.parts) {
		return fielderr.Path("policy").Field("components").Index(i-len(c.parts)) + fielderr.Path(rest)
	}
	p := c.parts[i]
	at := "policy." + p.values
	if same, ok := strings.CutPrefix(rest, "."+p.inside); ok && p.inside != "" {
		return at + fielderr.Path(same)
	}
	return at
}

func from(signal string) *policy.InPort { return &policy.InPort{SignalName: signal} }

func fromAll(signals []string) policy.InputsPort {
	var inputs []policy.InPort
	for _, s := range signals {
		inputs = append(inputs, policy.InPort{SignalName: s})
	}
	return policy.InputsPort{Inputs: inputs}
}

func to(signal string) policy.OutputPort { return policy.OutputPort{Output: out(signal)} }

func out(signal string) *policy.OutPort { return &policy.OutPort{SignalName: signal} }

func constant(value float64) *policy.InPort {
	return &policy.InPort{ConstantSignal: &policy.ConstantSignal{Value: &value}}
}

func invalid() *policy.InPort {
	return &policy.InPort{ConstantSignal: &policy.ConstantSignal{SpecialValue: "NaN"}}
}

// Signals that blueprints produce. Components in the values may read them.
const (
	acceptPercentage       = "ACCEPT_PERCENTAGE"
	acceptPercentageAlert  = "ACCEPT_PERCENTAGE_ALERT"
	signal                 = "SIGNAL"
	setpoint               = "SETPOINT"
	isOverload             = "IS_OVERLOAD"
	desiredLoadMultiplier  = "DESIRED_LOAD_MULTIPLIER"
	observedLoadMultiplier = "OBSERVED_LOAD_MULTIPLIER"
)
