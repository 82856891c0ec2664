// SPDX-License-Identifier: Apache-2.0

package component

import (
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
)

// Holder gives its first valid input out for a while, then takes the next valid one at once; it is invalid
// until there is one. While reset is true it drops what it holds and takes the input of the tick.
//
// In: input, reset. Out: output.
type Holder struct {
	length int64 // ticks

	held float64
	left int64 // ticks
}

// NewHolder returns a Holder for circuits of an interval. It holds for at least one tick.
func NewHolder(holdFor, interval time.Duration) *Holder {
	return &Holder{length: max(1, ticks(holdFor, interval))}
}

// Step implements circuit.Component.
func (h *Holder) Step(_ *circuit.Tick, in, out []float64) {
	if isTrue(in[1]) {
		h.left = 0
	}
	if h.left == 0 {
		if !circuit.Valid(in[0]) {
			return
		}
		h.held, h.left = in[0], h.length
	}
	h.left--
	out[0] = h.held
}
