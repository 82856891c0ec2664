// SPDX-License-Identifier: Apache-2.0

package component

import (
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
)

// Decider compares two numbers and gives 1 or 0. It starts at 0. It changes when the comparison has come
// out the other way for long enough: at each tick from the first such one to one that is at least that much
// later. An invalid number compares as false.
//
// In: lhs, rhs. Out: output.
type Decider struct {
	compare           func(lhs, rhs float64) bool
	trueFor, falseFor time.Duration

	state    bool
	changing bool // the comparison differs from state, since since
	since    time.Time
}

// DeciderConfig configures a Decider.
type DeciderConfig struct {
	// Operator is gt, lt, gte, lte, eq or neq.
	Operator string
	// TrueFor is how long the comparison has to hold before the output becomes 1, FalseFor how long it has
	// to fail before it becomes 0. 0: at once.
	TrueFor, FalseFor time.Duration
}

// NewDecider returns a Decider. ok is false for an unknown operator.
func NewDecider(c DeciderConfig) (d *Decider, ok bool) {
	compare, ok := comparisons[c.Operator]
	return &Decider{compare: compare, trueFor: c.TrueFor, falseFor: c.FalseFor}, ok
}

var comparisons = map[string]func(l, r float64) bool{
	"gt":  func(l, r float64) bool { return l > r },
	"lt":  func(l, r float64) bool { return l < r },
	"gte": func(l, r float64) bool { return l >= r },
	"lte": func(l, r float64) bool { return l <= r },
	"eq":  func(l, r float64) bool { return l == r },
	"neq": func(l, r float64) bool { return circuit.Valid(l) && circuit.Valid(r) && l != r },
}

// Step implements circuit.Component.
func (d *Decider) Step(t *circuit.Tick, in, out []float64) {
	holds := d.compare(in[0], in[1])
	if holds == d.state {
		d.changing = false
		out[0] = reading(d.state)
		return
	}
	if !d.changing || t.Now.Before(d.since) {
		d.changing, d.since = true, t.Now
	}
	wait := d.falseFor
	if holds {
		wait = d.trueFor
	}
	if t.Now.Sub(d.since) >= wait {
		d.state, d.changing = holds, false
	}
	out[0] = reading(d.state)
}
