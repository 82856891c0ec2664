// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sluice-project/sluice/internal/alert"
	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/setpoint"
)

// Runner runs one program by hand: the caller says what comes from outside, and when to tick. It has no data
// plane and runs no queries. It is used by one goroutine at a time.
type Runner struct {
	unit    *unit
	forced  map[circuit.Signal]*replacement
	seen    map[string]*observer
	changed []setpoint.Setpoint
	raised  []alert.Event
	now     time.Time
}

// NewRunner starts a program that Compile has returned.
func NewRunner(p *Program) *Runner {
	r := &Runner{
		forced: map[circuit.Signal]*replacement{}, seen: map[string]*observer{},
	}
	unit, err := newUnit(p, r.intercept)
	if err != nil {
		panic("control: a program that was not compiled: " + err.Error())
	}
	r.unit, unit.started = unit, true
	for i := range unit.observers {
		r.seen[unit.observers[i].component] = &unit.observers[i]
	}
	return r
}

// intercept makes every signal one that can be forced.
func (r *Runner) intercept(nodes []circuit.Node) {
	for i := range nodes {
		n := &nodes[i]
		if len(n.Out) == 0 || n.Component == nil {
			continue
		}
		f := &replaceable{Component: n.Component, outs: make([]replacement, len(n.Out))}
		for port, out := range n.Out {
			if out.Signal.Name != "" {
				r.forced[out.Signal] = &f.outs[port]
			}
		}
		n.Component = f
	}
}

// replaceable is a component whose outputs can be replaced.
type replaceable struct {
	circuit.Component
	outs []replacement // by out port
}

// replacement is what an output is instead, while on.
type replacement struct {
	on    bool
	value float64
}

// Step implements circuit.Component.
func (f *replaceable) Step(t *circuit.Tick, in, out []float64) {
	f.Component.Step(t, in, out)
	for i := range f.outs {
		if f.outs[i].on {
			out[i] = f.outs[i].value
		}
	}
}

// Configure implements circuit.Configurable.
func (f *replaceable) Configure(lookup func(string) (any, bool)) error {
	if c, ok := f.Component.(circuit.Configurable); ok {
		return c.Configure(lookup)
	}
	return nil
}

// Program is what it runs.
func (r *Runner) Program() *Program { return r.unit.program }

// Set sets a signal from the next tick on, until it is set again. The name is one that Program.Lookup finds.
// A signal that the circuit computes itself is replaced; Unset ends that. NaN is an invalid reading.
//
// Accept percentages and observed load multipliers that are set win over what Observe says.
func (r *Runner) Set(name string, value float64) error {
	s, err := r.find(name)
	if err != nil {
		return err
	}
	r.Force(s, value)
	return nil
}

// Unset lets a signal be what the circuit computes. An input is what it was told last by Observe, or invalid.
func (r *Runner) Unset(name string) error {
	s, err := r.find(name)
	if err != nil {
		return err
	}
	if f := r.forced[s]; f != nil {
		f.on = false
	}
	return nil
}

func (r *Runner) find(name string) (circuit.Signal, error) {
	s, ok := r.unit.program.Lookup(name)
	if ok {
		return s, nil
	}
	var known []string
	for _, s := range r.unit.program.signals {
		known = append(known, SignalName(s))
	}
	slices.Sort(known)
	return s, &fielderr.Error{
		Path: name, Message: fmt.Sprintf("policy %q has no signal of this name", r.unit.program.Policy), Hint: fielderr.OneOf(name, known),
	}
}

// Force is Set for a signal of Program.Signals.
func (r *Runner) Force(s circuit.Signal, value float64) {
	if f := r.forced[s]; f != nil {
		f.on, f.value = true, value
	}
}

// Observe tells what the actuator of a component has seen so far, as the data plane would before a tick. It
// returns false when nothing of that component depends on it.
func (r *Runner) Observe(component string, seen *setpoint.Observation) bool {
	o := r.seen[component]
	if o == nil {
		return false
	}
	durations := append(o.seen.Durations[:0], seen.Durations...)
	o.seen = *seen
	o.seen.Durations = durations
	o.take()
	return true
}

// Configure replaces the dynamic configuration. All or nothing: the error says what is wrong.
func (r *Runner) Configure(config map[string]any) error {
	p := r.unit.program
	if err := p.checkKeys(config); err != nil {
		return err
	}
	config = cloneConfig(config)
	return r.unit.circuit.Configure(func(key string) (any, bool) {
		value, ok := config[key]
		return value, ok
	})
}

// Tick runs every component once. now must not be before that of the last tick; it is usually one interval
// later.
func (r *Runner) Tick(now time.Time) {
	r.now = now
	r.unit.circuit.Tick(now)
	r.changed = r.unit.steer(now, r.changed[:0])
	r.raised = r.unit.alerts(now, r.raised[:0])
}

// Ticks is the number of ticks so far.
func (r *Runner) Ticks() uint64 { return r.unit.circuit.Count() }

// Value is the reading of a signal in the last tick, by a name that Program.Lookup finds. ok is false when
// there is no such signal.
func (r *Runner) Value(name string) (value float64, ok bool) {
	s, ok := r.unit.program.Lookup(name)
	if !ok {
		return math.NaN(), false
	}
	i, ok := r.unit.circuit.Index(s)
	return r.unit.circuit.Values()[i], ok
}

// Values are the readings of the last tick, in the order of Program.Signals. They are overwritten by the
// next one.
func (r *Runner) Values() []float64 { return r.unit.circuit.Values() }

// Changed are the setpoints that the last tick would have sent. They are overwritten by the next one.
func (r *Runner) Changed() []setpoint.Setpoint { return r.changed }

// Setpoints are what the actuators that circuits drive are asked for as of the last tick, one each, in the
// order of their ids.
func (r *Runner) Setpoints() []setpoint.Setpoint {
	var all []setpoint.Setpoint
	for i := range r.unit.actuators {
		all = append(all, r.unit.actuators[i].last)
	}
	return all
}

// Setpoint is that of one component.
func (r *Runner) Setpoint(component string) (sp setpoint.Setpoint, ok bool) {
	for i := range r.unit.actuators {
		if a := &r.unit.actuators[i]; a.component == component {
			return a.last, true
		}
	}
	return setpoint.Setpoint{}, false
}

// Alerts are what the last tick raised. They are overwritten by the next one.
func (r *Runner) Alerts() []alert.Event { return r.raised }
