// SPDX-License-Identifier: Apache-2.0

// Package policy is the language of policy documents: the Go types of this package are the language. It
// parses documents, refuses every mistake at once with its place, fills defaults in, checks how signals
// are wired, and gives the document a hash and its components their ids.
//
// Documents are YAML or JSON, in one of two forms: a policy (circuit, resources and optionally
// policy_name) or a Kubernetes object of kind Policy. A third form, the values of a blueprint, is read by
// package blueprint, whose Parse takes all three.
//
// Types are plain values: read them from as many goroutines as you like, change them from one.
package policy

import (
	"reflect"
	"strings"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

//go:generate go run ./gen

// Policy is what a document asks for: a circuit, resources that circuits use, or both.
type Policy struct {
	// Components and how they are wired.
	Circuit Circuit `json:"circuit"`
	// What components and other policies refer to by name.
	Resources Resources `json:"resources,omitzero"`
}

var _ strict.Checker = (*Policy)(nil)

// Check refuses a policy that asks for nothing.
func (p *Policy) Check(at strict.Place) {
	if !at.Present("circuit") && !at.Present("resources") && at.Clean() { // else one of them is misspelt
		at.RefuseAbsence("circuit", fielderr.Error{Message: "missing", Want: "circuit, resources or both"})
	}
}

// Circuit is a set of components that read and produce signals, evaluated together on each tick.
type Circuit struct {
	// Time from one tick to the next. Overload is answered within two ticks.
	EvaluationInterval Duration `json:"evaluation_interval" default:"1s" check:"gte=100ms,lte=1h"`
	// The components. Their order is their id: the first one is root.0.
	Components []Component `json:"components,omitempty"`
}

// Component is one step of a circuit; exactly one kind is given.
type Component struct {
	// Moves a control variable so that a signal approaches its setpoint.
	GradientController *GradientController `json:"gradient_controller,omitempty" union:"component,required"`
	// Exponential moving average.
	EMA *EMA `json:"ema,omitempty" union:"component"`
	// Arithmetic on two numbers.
	ArithmeticCombinator *ArithmeticCombinator `json:"arithmetic_combinator,omitempty" union:"component"`
	// Compares two numbers.
	Decider *Decider `json:"decider,omitempty" union:"component"`
	// Chooses between two numbers.
	Switcher *Switcher `json:"switcher,omitempty" union:"component"`
	// Simple moving average.
	SMA *SMA `json:"sma,omitempty" union:"component"`
	// A number that dynamic configuration can change.
	Variable *Variable `json:"variable,omitempty" union:"component"`
	// A function of one number.
	UnaryOperator *UnaryOperator `json:"unary_operator,omitempty" union:"component"`
	// Repeats the last valid number for a while.
	Extrapolator *Extrapolator `json:"extrapolator,omitempty" union:"component"`
	// The largest of its inputs.
	Max *Max `json:"max,omitempty" union:"component"`
	// The smallest of its inputs.
	Min *Min `json:"min,omitempty" union:"component"`
	// The first of its inputs that is valid.
	FirstValid *FirstValid `json:"first_valid,omitempty" union:"component"`
	// Raises an alert while a signal is true.
	Alerter *Alerter `json:"alerter,omitempty" union:"component"`
	// Sums its input over time.
	Integrator *Integrator `json:"integrator,omitempty" union:"component"`
	// Rate of change of its input.
	Differentiator *Differentiator `json:"differentiator,omitempty" union:"component" deprecated:"there is no replacement; smooth the input with ema or sma instead"`
	// True when all inputs are.
	And *And `json:"and,omitempty" union:"component"`
	// True when some input is.
	Or *Or `json:"or,omitempty" union:"component"`
	// True when its input is false.
	Inverter *Inverter `json:"inverter,omitempty" union:"component"`
	// Alternates between 1 and 0.
	PulseGenerator *PulseGenerator `json:"pulse_generator,omitempty" union:"component"`
	// Holds a number for a while.
	Holder *Holder `json:"holder,omitempty" union:"component"`
	// A circuit whose signals are private, with named ports.
	NestedCircuit *NestedCircuit `json:"nested_circuit,omitempty" union:"component"`
	// Brings an in port of a nested circuit inside it.
	NestedSignalIngress *NestedSignalIngress `json:"nested_signal_ingress,omitempty" union:"component"`
	// Takes a signal out of a nested circuit.
	NestedSignalEgress *NestedSignalEgress `json:"nested_signal_egress,omitempty" union:"component"`
	// Runs through a list of numbers.
	SignalGenerator *SignalGenerator `json:"signal_generator,omitempty" union:"component"`
	// True or false, which dynamic configuration can change.
	BoolVariable *BoolVariable `json:"bool_variable,omitempty" union:"component"`
	// Proportional-integral-derivative controller.
	PIDController *PIDController `json:"pid_controller,omitempty" union:"component"`
	// Maps a range of numbers onto another along a curve.
	PolynomialRangeFunction *PolynomialRangeFunction `json:"polynomial_range_function,omitempty" union:"component"`
	// Reads metrics.
	Query *Query `json:"query,omitempty" union:"component"`
	// Acts on flows.
	FlowControl *FlowControl `json:"flow_control,omitempty" union:"component"`
	// Changes how many replicas run.
	AutoScale *AutoScale `json:"auto_scale,omitempty" union:"component"`
}

// Kind is the kind of the component, such as decider. For the groups query, flow_control and auto_scale it
// is the kind inside, such as rate_limiter. "" when none is given, which a parsed policy never has.
func (c *Component) Kind() string {
	kind, inner := alternative(reflect.ValueOf(c).Elem())
	switch kind {
	case "query", "flow_control", "auto_scale":
		kind, _ = alternative(inner)
	}
	return kind
}

// alternative finds the first field of a struct of pointers that is set.
func alternative(v reflect.Value) (name string, value reflect.Value) {
	for i := range v.NumField() {
		if f := v.Field(i); !f.IsNil() {
			name, _, _ = strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			return name, f.Elem()
		}
	}
	return "", reflect.Value{}
}

// NestedCircuit is a circuit inside a component. Its signals are private: the maps are the only way in and
// out.
type NestedCircuit struct {
	// What the nested_signal_ingress components inside read, by their port_name.
	InPortsMap map[string]InPort `json:"in_ports_map,omitempty"`
	// Signals that the nested_signal_egress components inside produce, by their port_name.
	OutPortsMap map[string]OutPort `json:"out_ports_map,omitempty"`
	// The components. Those of the component root.3 are root.3.0, root.3.1 and so on.
	Components []Component `json:"components,omitempty"`
}

// NestedSignalIngress brings an in port of the nested circuit around it inside.
type NestedSignalIngress struct {
	// The signal inside.
	OutPorts SignalOuts `json:"out_ports,omitzero"`
	// Name of the port in in_ports_map. The signal is invalid when the map does not have it.
	PortName string `json:"port_name" check:"required"`
}

// SignalOuts is one out port.
type SignalOuts struct {
	// The signal to produce.
	Signal *OutPort `json:"signal,omitempty"`
}

// NestedSignalEgress takes a signal out of the nested circuit around it.
type NestedSignalEgress struct {
	// The signal inside.
	InPorts SignalIns `json:"in_ports,omitzero"`
	// Name of the port in out_ports_map.
	PortName string `json:"port_name" check:"required"`
}

// SignalIns is one in port.
type SignalIns struct {
	// The number to read.
	Signal *InPort `json:"signal,omitempty"`
}

// Query is a component that reads metrics.
type Query struct {
	// Evaluates a PromQL expression.
	PromQL *PromQL `json:"promql,omitempty" union:"component,required"`
}

// PromQL evaluates an expression now and then and repeats its value in between. It is invalid before the
// first result and when the result is empty or not one number.
type PromQL struct {
	// The value.
	OutPorts OutputPort `json:"out_ports,omitzero"`
	// The expression; its result has to be a scalar or a vector of one element.
	QueryString string `json:"query_string" check:"required"`
	// Time from one evaluation to the next.
	EvaluationInterval Duration `json:"evaluation_interval" default:"10s" check:"gt=0s"`
}
