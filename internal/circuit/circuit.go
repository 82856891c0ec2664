// SPDX-License-Identifier: Apache-2.0

// Package circuit runs compiled circuits: components that read and produce signals, one pass per tick.
//
// A signal is a float64; NaN is an invalid reading, infinities are valid. Circuits are pure: what comes from
// outside (queries, observations) is an Input that is set before the tick, and what goes outside (actuators,
// alerters) is a node without outputs whose ports are read after the tick.
package circuit

import (
	"math"
	"strconv"
	"time"
)

// Valid reports whether a reading is valid.
func Valid(v float64) bool { return !math.IsNaN(v) }

// Invalid is an invalid reading.
func Invalid() float64 { return math.NaN() }

// Tick is one evaluation of a circuit.
type Tick struct {
	// Now is the time of the tick.
	Now time.Time
	// Count is the number of ticks before this one.
	Count uint64
	// Interval is the time from one tick to the next.
	Interval time.Duration
}

// Component is one step of a circuit. It is used by one goroutine at a time and keeps its state between
// ticks.
type Component interface {
	// Step reads in and writes out, in the order of the ports of its Node. A port that is not connected
	// reads NaN. Every output is NaN before. Step must not write in, keep the slices, allocate, block or
	// panic. It is called once per tick; t.Count grows by one from call to call, t.Now may jump.
	Step(t *Tick, in, out []float64)
}

// Configurable is a Component that dynamic configuration can change.
type Configurable interface {
	Component
	// Configure looks its keys up in the dynamic configuration of the policy. A key that is missing means
	// the value of the document. It returns an error for a value of the wrong type, and keeps what it had.
	Configure(lookup func(key string) (value any, ok bool)) error
}

// Root is the Signal.Circuit of the outermost circuit.
const Root = "root"

// Signal names a signal.
type Signal struct {
	// Circuit is the id of the nested circuit that the signal belongs to; Root for the outermost.
	Circuit string
	Name    string
}

// String is the name as people know it; the circuit is added when it is a nested one.
func (s Signal) String() string {
	if s.Circuit == "" || s.Circuit == Root {
		return strconv.Quote(s.Name)
	}
	return strconv.Quote(s.Name) + " of " + s.Circuit
}

// In is an in port: a signal, or a constant when Signal.Name is "". A port that the document leaves out is
// the constant NaN.
type In struct {
	Port     string
	Signal   Signal
	Constant float64
}

// Out is an out port; not connected when Signal.Name is "".
type Out struct {
	Port   string
	Signal Signal
}

// Node is a component and its wires.
type Node struct {
	// ID is the component id, such as root.3.1. Nodes are given in the order of their ids.
	ID string
	// Kind is the kind of component, such as decider.
	Kind string
	In   []In
	Out  []Out
	// Component computes the outputs; nil for nodes that only read (actuators, alerters).
	Component Component
}

// Input is a node that gives out what was set from outside.
type Input struct{ Value float64 }

// Step implements Component.
func (i *Input) Step(_ *Tick, _, out []float64) { out[0] = i.Value }
