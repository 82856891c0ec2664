// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-project/sluice/internal/alert"
	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/setpoint"
	"github.com/sluice-project/sluice/internal/signal"
)

// expansion is a document turned into nodes, with fresh state, and what connects them to the outside.
type expansion struct {
	policy, hash string
	interval     time.Duration

	nodes     []circuit.Node
	queries   []queryNode
	observers []observerNode
	actuators []actuatorNode
	alerters  []alerterNode
	replicas  []int // nodes

	views    []ComponentView
	viewOf   map[int]int // view of a node
	keys     []ConfigKey
	waiting  []Notice
	problems []error
}

// queryNode is an input that a query sets; with an actuator instead of a node, a query whose result is one
// number per workload.
type queryNode struct {
	node  int
	input *circuit.Input
	query signal.Query
}

// observerNode is what is computed of the observations of one actuator. Fields that are nil are not wanted.
type observerNode struct {
	component string
	accept    *circuit.Input // percentage of the flows that were admitted
	load      *circuit.Input // part of the tokens that was admitted
	feed      fed
	nodes     []int
}

// fed is a component that learns from observations itself. Feed is called before each Step for which there
// is one; the observation is valid during the call.
type fed interface{ Feed(*setpoint.Observation) }

// alerterNode raises an event while its port is true.
type alerterNode struct {
	node  int
	event alert.Event
}

// plan expands a document. Problems are left in the plan.
func plan(doc *policy.Document) *expansion {
	e := &expansion{
		policy: doc.Name, hash: doc.Hash, interval: doc.Policy.Circuit.EvaluationInterval.Std(), viewOf: map[int]int{},
	}
	if e.interval <= 0 {
		e.interval = time.Second // resources only
	}
	e.components(doc.Policy.Circuit.Components, place{scope: circuit.Root})
	return e
}

// place is where a list of components is: in the outermost circuit, or in a nested one.
type place struct {
	scope  string // id of the circuit
	nested *policy.NestedCircuit
	outer  string // scope of the circuit around it
}

func (e *expansion) components(list []policy.Component, at place) {
	for i := range list {
		e.component(&list[i], at.scope+"."+strconv.Itoa(i), at)
	}
}

func (e *expansion) component(c *policy.Component, id string, at place) {
	switch {
	case c.NestedCircuit != nil:
		e.nestedCircuit(c.NestedCircuit, id, at.scope)
	case c.NestedSignalIngress != nil || c.NestedSignalEgress != nil:
		e.crossing(c, id, at)
	case c.Alerter != nil:
		node := e.add(circuit.Node{ID: id, Kind: c.Kind(), In: []circuit.In{inPort(at.scope, "signal", c.Alerter.InPorts.Signal)}},
			at.scope, c.Alerter.Parameters.AlertName)
		e.alert(node, id, &c.Alerter.Parameters, "")
	case c.Query != nil:
		e.promQL(c.Query.PromQL, id, at.scope)
	case c.FlowControl != nil:
		e.flowControl(c, id, at.scope)
	case c.AutoScale != nil:
		e.autoScale(c, id, at.scope)
	default:
		node, description, ok := primitive(c, at.scope, e.interval)
		if !ok {
			e.problems = append(e.problems, fmt.Errorf("%s: component of an unknown kind", id))
			return
		}
		node.ID = id
		e.add(node, at.scope, description)
		e.primitiveKeys(c, id)
	}
}

// add adds a node and its view, and returns the position of the node.
func (e *expansion) add(n circuit.Node, parent, description string) int {
	if parent == circuit.Root {
		parent = ""
	}
	v := ComponentView{ID: n.ID, Kind: n.Kind, Parent: parent, Description: description}
	for _, in := range n.In {
		v.In = append(v.In, viewIn(in))
	}
	for _, out := range n.Out {
		v.Out = append(v.Out, PortView{Name: out.Port, Signal: out.Signal.Name, Circuit: out.Signal.Circuit})
	}
	e.viewOf[len(e.nodes)] = len(e.views)
	e.views = append(e.views, v)
	e.nodes = append(e.nodes, n)
	return len(e.nodes) - 1
}

func viewIn(in circuit.In) PortView {
	v := PortView{Name: in.Port, Signal: in.Signal.Name, Circuit: in.Signal.Circuit}
	if in.Signal.Name == "" {
		v.Circuit = ""
		if constant := in.Constant; !math.IsNaN(constant) {
			v.Constant = &constant
		}
	}
	return v
}

// nestedCircuit adds the view of a nested circuit and its components.
func (e *expansion) nestedCircuit(n *policy.NestedCircuit, id, scope string) {
	x := e.composite(id, "nested_circuit", scope, "")
	for _, name := range slices.Sorted(maps.Keys(n.InPortsMap)) {
		p := n.InPortsMap[name]
		x.in(name, &p)
	}
	for _, name := range slices.Sorted(maps.Keys(n.OutPortsMap)) {
		p := n.OutPortsMap[name]
		x.out(name, &p, "")
	}
	e.components(n.Components, place{scope: id, nested: n, outer: scope})
}

// crossing adds the copy of a signal into a nested circuit or out of it.
func (e *expansion) crossing(c *policy.Component, id string, at place) {
	node, description, ok := primitive(c, at.scope, e.interval)
	if !ok || at.nested == nil {
		e.problems = append(e.problems, fmt.Errorf("%s (%s): allowed inside a nested_circuit only", id, c.Kind()))
		return
	}
	node.ID = id
	if in := c.NestedSignalIngress; in != nil {
		if p, mapped := at.nested.InPortsMap[in.PortName]; mapped {
			node.In[0] = inPort(at.outer, in.PortName, &p)
		}
	}
	if out := c.NestedSignalEgress; out != nil {
		if p, mapped := at.nested.OutPortsMap[out.PortName]; mapped {
			node.Out[0] = outPort(at.outer, out.PortName, &p)
		}
	}
	e.add(node, at.scope, description)
}

// promQL makes an input of a query. A query that cannot be evaluated is not refused: its reading is invalid,
// and the status of the component says why. Parsing has warned of it.
func (e *expansion) promQL(q *policy.PromQL, id, scope string) {
	input := &circuit.Input{Value: circuit.Invalid()}
	node := e.add(circuit.Node{
		ID: id, Kind: "promql", Out: []circuit.Out{outPort(scope, "output", q.OutPorts.Output)}, Component: input,
	}, scope, describe(shorten(q.QueryString), "every "+q.EvaluationInterval.String()))
	e.queries = append(e.queries, queryNode{node: node, input: input, query: signal.Query{
		Expr: q.QueryString, Interval: max(q.EvaluationInterval.Std(), e.interval), Policy: e.policy, Component: id,
	}})
}

// shorten makes one line of a text, of a length that fits a description.
func shorten(text string) string {
	const longest = 120
	r := []rune(strings.Join(strings.Fields(text), " "))
	if len(r) > longest {
		return string(r[:longest-1]) + "…"
	}
	return string(r)
}

// alert makes a node raise an alert. kind is the label type of the alert; "": an alerter.
func (e *expansion) alert(node int, component string, p *policy.AlerterParameters, kind string) {
	labels := maps.Clone(p.Labels)
	if kind != "" {
		if labels == nil {
			labels = map[string]string{}
		}
		if _, own := labels["type"]; !own {
			labels["type"] = kind
		}
	}
	e.alerters = append(e.alerters, alerterNode{node: node, event: alert.Event{
		Name: p.AlertName, Severity: p.Severity, Policy: e.policy, Component: component, Channels: p.AlertChannels,
		Labels: labels,
		// Ticks further apart than that must not make the alert flap.
		ResolveTimeout: max(p.ResolveTimeout.Std(), 2*e.interval),
	}})
}

func (e *expansion) key(key, component, kind, description string) {
	if key != "" {
		e.keys = append(e.keys, ConfigKey{Key: key, Component: component, Type: kind, Description: description})
	}
}

func (e *expansion) primitiveKeys(c *policy.Component, id string) {
	switch {
	case c.GradientController != nil:
		e.key(c.GradientController.ManualModeConfigKey, id, Boolean, "repeat the control variable instead of computing")
	case c.Variable != nil:
		e.key(c.Variable.ConfigKey, id, Number, outOf(c.Variable.OutPorts.Output)+", instead of "+number(c.Variable.ConstantOutput.Number()))
	case c.BoolVariable != nil:
		e.key(c.BoolVariable.ConfigKey, id, Boolean, outOf(c.BoolVariable.OutPorts.Output)+", instead of "+strconv.FormatBool(c.BoolVariable.ConstantOutput))
	}
}

// outOf says what a setting of a variable replaces.
func outOf(out *policy.OutPort) string {
	if out == nil {
		return "the value given out"
	}
	return "the signal " + out.SignalName
}

// markLoops notes in the views which ports read the tick before.
func (e *expansion) markLoops(c *circuit.Circuit) {
	looped := map[circuit.Signal][]string{} // ids of the nodes that read it so
	for i, n := range e.nodes {
		for port, in := range n.In {
			if c.Looped(i, port) {
				e.views[e.viewOf[i]].In[port].Looped = true
				looped[in.Signal] = append(looped[in.Signal], n.ID)
			}
		}
	}
	for i := range e.views {
		v := &e.views[i]
		for j := range v.In {
			p := &v.In[j]
			for _, id := range looped[circuit.Signal{Circuit: p.Circuit, Name: p.Signal}] {
				p.Looped = p.Looped || strings.HasPrefix(id, v.ID+".")
			}
		}
	}
}

func (e *expansion) inputViews() (views []InputView) {
	add := func(component string, node int) {
		n := &e.nodes[node]
		if s := n.Out[0].Signal; s.Name != "" {
			views = append(views, InputView{Signal: s, Component: component, Kind: n.Kind})
		}
	}
	for i := range e.queries {
		if q := &e.queries[i]; q.input != nil {
			add(q.query.Component, q.node)
		}
	}
	for i := range e.observers {
		for _, node := range e.observers[i].nodes {
			add(e.observers[i].component, node)
		}
	}
	for _, node := range e.replicas {
		id := e.nodes[node].ID
		add(id[:strings.LastIndexByte(id, '.')], node)
	}
	return views
}
