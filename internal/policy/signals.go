// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// walk calls visit for every struct inside v, v included, except for components nested in it, which have
// signals and selectors of their own. Paths are relative to the policy.
func walk(v reflect.Value, path fielderr.Path, visit func(v reflect.Value, path fielderr.Path)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			walk(v.Elem(), path, visit)
		}
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[[]Component]() {
			return
		}
		for i := range v.Len() {
			walk(v.Index(i), path.Index(i), visit)
		}
	case reflect.Map:
		for _, key := range slices.Sorted(mapKeys(v)) { // sorted: the first producer of a signal is always the same
			walk(v.MapIndex(reflect.ValueOf(key)), path.Field(key), visit)
		}
	case reflect.Struct:
		visit(v, path)
		for _, f := range strict.Fields(v.Type()) {
			walk(v.FieldByIndex(f.Index), path.Field(f.Name), visit)
		}
	}
}

func mapKeys(v reflect.Value) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range v.Seq() {
			if !yield(k.String()) {
				return
			}
		}
	}
}

// wiring is where problems of signals go: all paths here are relative to the policy, locate turns them into
// those of the document.
type wiring struct {
	doc       *strict.Document
	locate    func(fielderr.Path) fielderr.Path
	generated int // components of the outermost circuit that nobody is warned of
}

func (w wiring) report(path fielderr.Path, e fielderr.Error) { w.doc.Report(w.locate(path), e) }

// checkSignals refuses signals that have no producer or several, in the circuit and every circuit nested
// in it, and ports of nested circuits that lead nowhere. It warns of components nobody reads.
func (w wiring) checkSignals(c *Circuit) {
	path := fielderr.Path("circuit").Field("components")
	for i := range c.Components {
		inside := path.Index(i)
		const outside = "allowed inside a nested_circuit only"
		if c.Components[i].NestedSignalIngress != nil {
			w.report(inside.Field("nested_signal_ingress"), fielderr.Error{Message: outside})
		}
		if c.Components[i].NestedSignalEgress != nil {
			w.report(inside.Field("nested_signal_egress"), fielderr.Error{Message: outside})
		}
	}
	w.checkScope(c.Components, path, w.generated)
}

func (w wiring) checkScope(components []Component, path fielderr.Path, generated int) {
	producers := map[string]fielderr.Path{}
	for i := range components {
		walk(reflect.ValueOf(components[i]), path.Index(i), func(v reflect.Value, at fielderr.Path) {
			out, ok := v.Interface().(OutPort)
			if !ok || out.SignalName == "" {
				return
			}
			if first, taken := producers[out.SignalName]; taken {
				w.report(at.Field("signal_name"), fielderr.Error{
					Message: fmt.Sprintf("signal %q has a producer already, %s", out.SignalName, w.locate(first)), Hint: "choose another name",
				})
				return
			}
			producers[out.SignalName] = at
		})
	}
	names := slices.Sorted(maps.Keys(producers))
	read := map[string]bool{}
	for i := range components {
		walk(reflect.ValueOf(components[i]), path.Index(i), func(v reflect.Value, at fielderr.Path) {
			in, ok := v.Interface().(InPort)
			read[in.SignalName] = ok || read[in.SignalName]
			if _, known := producers[in.SignalName]; !ok || known || in.SignalName == "" {
				return
			}
			w.report(at.Field("signal_name"), fielderr.Error{
				Message: fmt.Sprintf("no component of this circuit produces the signal %q", in.SignalName),
				Hint:    fielderr.OneOf(in.SignalName, names),
			})
		})
		if nested := components[i].NestedCircuit; nested != nil {
			inside := path.Index(i).Field("nested_circuit")
			w.checkNestedPorts(nested, inside)
			w.checkScope(nested.Components, inside.Field("components"), 0)
		}
	}
	w.warnUnused(components, read, path, generated)
}

// maxWarned is how many components of one circuit are named in warnings of a kind; more say nothing new.
const maxWarned = 10

// checkQueries warns of queries that nobody can evaluate, also in nested circuits.
func (w wiring) checkQueries(components []Component, path fielderr.Path, check func(string) error) {
	found := 0
	for i := range components {
		c, at := &components[i], path.Index(i)
		if c.NestedCircuit != nil {
			w.checkQueries(c.NestedCircuit.Components, at.Field("nested_circuit").Field("components"), check)
		}
		if c.Query == nil || c.Query.PromQL == nil || c.Query.PromQL.QueryString == "" || found == maxWarned {
			continue
		}
		if err := check(c.Query.PromQL.QueryString); err != nil {
			found++
			w.report(at.Field("query").Field("promql").Field("query_string"), fielderr.Error{
				Severity: fielderr.Warning, Message: err.Error(), Hint: "the signal is invalid as long as this is so",
			})
		}
	}
}

// warnUnused warns of components whose signals nobody reads. Signals of actuators and queries are fine
// alone: people look at them.
func (w wiring) warnUnused(components []Component, read map[string]bool, path fielderr.Path, generated int) {
	found := 0
	for i := min(generated, len(components)); i < len(components); i++ {
		c := &components[i]
		if c.FlowControl != nil || c.AutoScale != nil || c.Query != nil || c.NestedCircuit != nil || c.Alerter != nil ||
			c.NestedSignalIngress != nil || c.NestedSignalEgress != nil {
			continue
		}
		used, name := false, ""
		walk(reflect.ValueOf(c), path.Index(i), func(v reflect.Value, _ fielderr.Path) {
			if out, ok := v.Interface().(OutPort); ok {
				used, name = used || read[out.SignalName], out.SignalName
			}
		})
		kind := c.Kind()
		if used || kind == "" {
			continue
		}
		if found++; found > maxWarned {
			return
		}
		problem := fielderr.Error{Severity: fielderr.Warning, Message: "no out port is connected", Hint: "this component has no effect; give it a signal or remove it"}
		if name != "" {
			problem.Message, problem.Hint = fmt.Sprintf("nobody reads the signal %q", name), "this component has no effect; read its signal or remove it"
		}
		w.report(path.Index(i).Field(kind), problem)
	}
}

// checkNestedPorts refuses names in the port maps that no component inside has, and names that two have.
func (w wiring) checkNestedPorts(n *NestedCircuit, path fielderr.Path) {
	ingress, egress := map[string]int{}, map[string]int{}
	for i := range n.Components {
		c, at := &n.Components[i], path.Field("components").Index(i)
		if c.NestedSignalIngress != nil {
			w.checkPortName(ingress, c.NestedSignalIngress.PortName, i, at.Field("nested_signal_ingress"))
		}
		if c.NestedSignalEgress != nil {
			w.checkPortName(egress, c.NestedSignalEgress.PortName, i, at.Field("nested_signal_egress"))
		}
	}
	w.checkPortMap(slices.Sorted(maps.Keys(n.InPortsMap)), ingress, "nested_signal_ingress", path.Field("in_ports_map"))
	w.checkPortMap(slices.Sorted(maps.Keys(n.OutPortsMap)), egress, "nested_signal_egress", path.Field("out_ports_map"))
}

func (w wiring) checkPortName(seen map[string]int, name string, i int, at fielderr.Path) {
	if name == "" {
		return // refused when it was decoded
	}
	if first, taken := seen[name]; taken {
		w.report(at.Field("port_name"), fielderr.Error{
			Message: fmt.Sprintf("port name %q is taken by components[%d] of this nested circuit", name, first),
		})
		return
	}
	seen[name] = i
}

func (w wiring) checkPortMap(names []string, inside map[string]int, kind string, at fielderr.Path) {
	for _, name := range names {
		if _, ok := inside[name]; !ok {
			w.report(at.Field(name), fielderr.Error{
				Message: fmt.Sprintf("no %s inside has the port_name %q", kind, name),
				Hint:    fielderr.OneOf(name, slices.Sorted(maps.Keys(inside))),
			})
		}
	}
}
