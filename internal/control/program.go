// SPDX-License-Identifier: Apache-2.0

// Package control is the control plane: it compiles policies to circuits and runs them tick by tick.
//
// Compile turns a document into a Program: every component becomes a node of one flat circuit, and the
// composites, such as aimd_load_scheduler, become the small circuits they stand for. What a circuit needs
// from outside is an input that is set before the tick (queries, what the data plane has observed), and
// what it does outside is read after the tick (actuators, alerters), so that a tick computes and nothing
// else. A Runtime runs programs against a data plane; a Runner runs one program by hand, for tests and
// simulations. Both tick with the same code.
//
// # Time
//
// Policies tick at multiples of their interval since 1970 UTC, so that policies of one interval tick
// together. One goroutine runs them all. Queries run elsewhere; a tick waits for those that are due a
// quarter of its interval, at most 50 ms, and later results count for the next tick.
package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/policy"
)

// Program is a compiled policy. It does not change, and any number of Runtimes and Runners may run it: each
// makes the state it needs for itself.
type Program struct {
	// Policy and Hash name the document it was compiled from.
	Policy, Hash string
	// Interval is the time from one tick to the next.
	Interval time.Duration
	// Keys are what dynamic configuration can change, in the order of the components that read them.
	Keys []ConfigKey
	// Waiting says which parts of the policy do nothing yet, and why.
	Waiting []Notice

	doc     *policy.Document
	views   []ComponentView
	signals []circuit.Signal
	inputs  []InputView
}

// Notice is something that people should know about a policy in force.
type Notice struct {
	// Component it is about; "" for the policy as a whole.
	Component string
	// Text for people.
	Text string
}

// Types of values of dynamic configuration.
const (
	Boolean       = "boolean"
	Number        = "number"
	ListOfStrings = "list of strings"
)

// ConfigKey is a key of dynamic configuration and a component that reads it. A key that several components
// read is listed once for each.
type ConfigKey struct {
	Key, Component string
	// Type is Boolean, Number or ListOfStrings.
	Type string
	// Description says what it does.
	Description string
}

// ComponentView is a component as people see it.
type ComponentView struct {
	// ID is the component id, such as root.3.1, and Kind what it is, such as decider.
	ID, Kind string
	// Parent is the composite or nested circuit it is part of; "" in the outermost circuit.
	Parent string
	// Description says what it is set to, in a few words; it may be empty.
	Description string
	// In and Out are its ports.
	In, Out []PortView
}

// PortView is a port of a component as people see it.
type PortView struct {
	// Name of the port.
	Name string
	// Signal and Circuit name the signal, as circuit.Signal does; both "" for a constant, and for a port
	// that is not connected.
	Signal, Circuit string
	// Constant is the number that the port reads; nil for a signal, and for a port that is not connected.
	Constant *float64
	// Looped tells that the port reads the signal as of the tick before.
	Looped bool
}

// InputView is a signal that comes from outside of the circuit.
type InputView struct {
	// Signal that it sets.
	Signal circuit.Signal
	// Component whose input it is: the outer one in a composite.
	Component string
	// Kind is promql, accept_percentage, observed_load_multiplier or replicas.
	Kind string
}

// Compile compiles a document. Its error names every component that cannot be compiled, by its id.
//
// Parts that need what this server does not have, such as Kubernetes, are compiled and marked in
// Program.Waiting: nothing acts on what they compute.
func Compile(doc *policy.Document) (*Program, error) {
	p := plan(doc)
	if len(p.problems) > 0 {
		return nil, fmt.Errorf("policy %q: %w", doc.Name, errors.Join(p.problems...))
	}
	c, err := circuit.Compile(p.interval, p.nodes)
	if err != nil {
		return nil, fmt.Errorf("policy %q: %w", doc.Name, err)
	}
	p.markLoops(c)
	return &Program{
		Policy: doc.Name, Hash: doc.Hash, Interval: p.interval, Keys: p.keys,
		Waiting: append(waitingResources(&doc.Policy.Resources), p.waiting...),
		doc:     doc, views: p.views, signals: c.Signals(), inputs: p.inputViews(),
	}, nil
}

// Components are all components: those of nested circuits and the parts of composites after their parent.
// The caller must not change them.
func (p *Program) Components() []ComponentView { return p.views }

// Signals are all signals, in the order of readings. The caller must not change them.
func (p *Program) Signals() []circuit.Signal { return p.signals }

// Inputs are the signals that come from outside. The caller must not change them.
func (p *Program) Inputs() []InputView { return p.inputs }

// Lookup finds a signal by the name that people write: its name alone in the outermost circuit, else
// circuit/name, such as root.3/IS_OVERLOAD.
func (p *Program) Lookup(name string) (circuit.Signal, bool) {
	s := circuit.Signal{Circuit: circuit.Root, Name: name}
	if slices.Contains(p.signals, s) {
		return s, true
	}
	at := strings.IndexByte(name, '/')
	if at < 0 {
		return s, false
	}
	s = circuit.Signal{Circuit: name[:at], Name: name[at+1:]}
	return s, slices.Contains(p.signals, s)
}

// SignalName is the name that Lookup finds a signal by.
func SignalName(s circuit.Signal) string {
	if s.Circuit == "" || s.Circuit == circuit.Root {
		return s.Name
	}
	return s.Circuit + "/" + s.Name
}

// waitingResources names resources that nothing collects or applies yet.
func waitingResources(r *policy.Resources) (waiting []Notice) {
	var meters []string
	for name := range r.InfraMeters {
		meters = append(meters, name)
	}
	for _, c := range r.TelemetryCollectors {
		for name := range c.InfraMeters {
			meters = append(meters, name)
		}
	}
	slices.Sort(meters)
	if meters = slices.Compact(meters); len(meters) > 0 {
		waiting = append(waiting, Notice{Text: "waiting for infra meters: this release does not collect " +
			strings.Join(meters, ", ") + "; send their metrics by remote write, OTLP or scraping, and queries find them"})
	}
	return waiting
}
