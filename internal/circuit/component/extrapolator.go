// SPDX-License-Identifier: Apache-2.0

package component

import (
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
)

// Extrapolator repeats its last valid input while the input is invalid, on ticks that are at most a given
// time later than that input.
//
// In: input. Out: output.
type Extrapolator struct {
	longest time.Duration

	last float64
	at   time.Time
}

// NewExtrapolator returns an Extrapolator that repeats for at most longest.
func NewExtrapolator(longest time.Duration) *Extrapolator {
	return &Extrapolator{longest: longest, last: circuit.Invalid()}
}

// Step implements circuit.Component.
func (e *Extrapolator) Step(t *circuit.Tick, in, out []float64) {
	if circuit.Valid(in[0]) {
		e.last, e.at = in[0], t.Now
	} else if t.Now.Sub(e.at) > e.longest {
		e.last = circuit.Invalid()
	}
	out[0] = e.last
}
