// SPDX-License-Identifier: Apache-2.0

package control

import (
	"math"
	"strconv"
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/circuit/component"
	"github.com/sluice-project/sluice/internal/policy"
)

// composite is a component that becomes several nodes, its parts: those of root.3 are root.3.0, root.3.1 and
// so on. Parts read and write the signals that the composite is connected to, and private ones, whose
// circuit is the id of the composite.
type composite struct {
	e         *expansion
	id, scope string
	view      int
	parts     int
}

// composite begins a composite whose ports belong to the circuit scope.
func (e *expansion) composite(id, kind, scope, description string) *composite {
	parent := scope
	if parent == circuit.Root {
		parent = ""
	}
	e.views = append(e.views, ComponentView{ID: id, Kind: kind, Parent: parent, Description: description})
	return &composite{e: e, id: id, scope: scope, view: len(e.views) - 1}
}

// in is an in port of the composite, for its parts to read.
func (x *composite) in(name string, p *policy.InPort) circuit.In {
	in := inPort(x.scope, name, p)
	v := &x.e.views[x.view]
	v.In = append(v.In, viewIn(in))
	return in
}

// out is an out port of the composite: the signal that a part has to produce. It is the private one while
// the document connects none; with "" there is none.
func (x *composite) out(name string, p *policy.OutPort, private string) circuit.Signal {
	out := outPort(x.scope, name, p)
	v := &x.e.views[x.view]
	v.Out = append(v.Out, PortView{Name: name, Signal: out.Signal.Name, Circuit: out.Signal.Circuit})
	if out.Signal.Name == "" && private != "" {
		return x.private(private)
	}
	return out.Signal
}

// private names a signal inside the composite.
func (x *composite) private(name string) circuit.Signal {
	return circuit.Signal{Circuit: x.id, Name: name}
}

// part adds a node.
func (x *composite) part(kind, description string, c circuit.Component, in []circuit.In, out ...circuit.Out) int {
	id := x.id + "." + strconv.Itoa(x.parts)
	x.parts++
	return x.e.add(circuit.Node{ID: id, Kind: kind, In: in, Out: out, Component: c}, x.id, description)
}

// read is an in port that reads a signal.
func read(s circuit.Signal) circuit.In { return circuit.In{Signal: s, Constant: math.NaN()} }

// constant is an in port that always reads the same.
func constant(v float64) circuit.In { return circuit.In{Constant: v} }

// as gives an in port another name.
func as(name string, in circuit.In) circuit.In {
	in.Port = name
	return in
}

func output(s circuit.Signal) circuit.Out { return circuit.Out{Port: "output", Signal: s} }

// decide adds a decider. operator is one that NewDecider knows.
func (x *composite) decide(lhs circuit.In, operator string, rhs circuit.In, to circuit.Signal) circuit.Signal {
	d, _ := component.NewDecider(component.DeciderConfig{Operator: operator})
	x.part("decider", operator, d, []circuit.In{as("lhs", lhs), as("rhs", rhs)}, output(to))
	return to
}

// choose adds a switcher: on while by is true, else off.
func (x *composite) choose(by circuit.Signal, on, off circuit.In, to circuit.Signal) circuit.Signal {
	x.part("switcher", "", component.Switcher{},
		[]circuit.In{as("on_signal", on), as("off_signal", off), as("switch", read(by))}, output(to))
	return to
}

// arithmetic adds an arithmetic combinator. operator is one that NewArithmetic knows.
func (x *composite) arithmetic(lhs circuit.In, operator string, rhs circuit.In, to circuit.Signal) circuit.Signal {
	a, _ := component.NewArithmetic(operator)
	x.part("arithmetic_combinator", operator, a, []circuit.In{as("lhs", lhs), as("rhs", rhs)}, output(to))
	return to
}

// unary adds a unary operator. operator is one that NewUnary knows.
func (x *composite) unary(operator string, in circuit.In, to circuit.Signal) circuit.Signal {
	u, _ := component.NewUnary(operator)
	x.part("unary_operator", operator, u, []circuit.In{as("input", in)}, output(to))
	return to
}

// list adds a component that reads a list.
func (x *composite) list(kind string, c circuit.Component, to circuit.Signal, in ...circuit.In) circuit.Signal {
	for i := range in {
		in[i].Port = "inputs[" + strconv.Itoa(i) + "]"
	}
	x.part(kind, "", c, in, output(to))
	return to
}

// gradient adds a gradient controller without bounds for its output.
func (x *composite) gradient(c component.GradientConfig, signal, setpoint, variable circuit.In, to circuit.Signal) circuit.Signal {
	x.part("gradient_controller", "slope "+number(c.Slope), component.NewGradient(c), []circuit.In{
		as("signal", signal), as("setpoint", setpoint), as("control_variable", variable),
		as("max", constant(math.NaN())), as("min", constant(math.NaN())),
	}, output(to))
	return to
}

// hold adds a holder.
func (x *composite) hold(length time.Duration, in, reset circuit.In, to circuit.Signal) circuit.Signal {
	x.part("holder", "for "+policy.Duration(length).String(), component.NewHolder(length, x.e.interval),
		[]circuit.In{as("input", in), as("reset", reset)}, output(to))
	return to
}

// dryRun adds a switch that lets a signal through, except in a dry run. It returns what is left of it.
func (x *composite) dryRun(dry bool, key string, in circuit.In, to string) circuit.Signal {
	x.e.key(key, x.id, Boolean, "compute everything and change nothing, instead of dry_run: "+strconv.FormatBool(dry))
	isDry := x.private("DRY_RUN")
	x.part("bool_variable", describe(strconv.FormatBool(dry), keyed(key)), component.NewBoolVariable(dry, key), nil, output(isDry))
	return x.choose(isDry, constant(math.NaN()), in, x.private(to))
}

// alert adds an alerter that raises an alert of the composite while a signal is true.
func (x *composite) alert(s circuit.Signal, p *policy.AlerterParameters, kind string) {
	node := x.part("alerter", p.AlertName, nil, []circuit.In{as("signal", read(s))})
	x.e.alert(node, x.id, p, kind)
}

// input adds an input that produces a signal.
func (x *composite) input(kind, description string, to circuit.Signal) (*circuit.Input, int) {
	input := &circuit.Input{Value: circuit.Invalid()}
	return input, x.part(kind, description, input, nil, output(to))
}

// Windows of what is computed of observations.
//
// An AIMD load scheduler cuts what it has observed, on every tick of an overload. The window is what keeps
// it from cutting again and again before the first cut shows in the signal: in a simulation of a three-fold
// overload with a signal averaged over 5 seconds, 61 % of the capacity was used with a window of 10 seconds
// and 84 % with 30, for the same backlog. A minute is slow to find the way back.
const (
	acceptWindow = 30 * time.Second
	loadWindow   = 30 * time.Second
)

// observeAccept adds the percentage of the flows that were admitted lately.
func (x *composite) observeAccept(o *observerNode, to circuit.Signal) {
	var node int
	o.accept, node = x.input("accept_percentage", "flows admitted in the last "+policy.Duration(acceptWindow).String(), to)
	o.nodes = append(o.nodes, node)
}

// observeLoad adds the part of the tokens that was admitted lately.
func (x *composite) observeLoad(o *observerNode, to circuit.Signal) {
	var node int
	o.load, node = x.input("observed_load_multiplier", "tokens admitted in the last "+policy.Duration(loadWindow).String(), to)
	o.nodes = append(o.nodes, node)
}

// observe makes the control plane look at what the actuator of the composite sees.
func (x *composite) observe(o observerNode) {
	o.component = x.id
	x.e.observers = append(x.e.observers, o)
}
