// SPDX-License-Identifier: Apache-2.0

package component

import (
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
)

// Differentiator is the change of its input over a window: the newest valid input minus the oldest in the
// window, divided by the ticks of the window, of which there are at least two. It is invalid while its input
// is; as many invalid inputs in a row as the window is long clear it.
//
// In: input. Out: output.
type Differentiator struct {
	size     int64 // ticks
	perGroup int64 // of the inputs this many, the first is kept

	kept    []float64 // a ring; kept[oldest] is the oldest
	oldest  int
	count   int
	skipped int64 // inputs since the last one kept
	invalid int64 // inputs in a row
}

// NewDifferentiator returns a Differentiator for circuits of an interval.
func NewDifferentiator(window, interval time.Duration) *Differentiator {
	size := max(2, ticks(window, interval))
	perGroup := (size + maxSamples - 1) / maxSamples
	return &Differentiator{size: size, perGroup: perGroup, kept: make([]float64, (size+perGroup-1)/perGroup)}
}

// Step implements circuit.Component.
func (d *Differentiator) Step(_ *circuit.Tick, in, out []float64) {
	if !circuit.Valid(in[0]) {
		if d.invalid++; d.invalid >= d.size {
			d.invalid, d.count, d.skipped = 0, 0, 0
		}
		return
	}
	d.invalid = 0
	d.keep(in[0])
	out[0] = (in[0] - d.kept[d.oldest]) / float64(d.size)
}

func (d *Differentiator) keep(v float64) {
	if d.count > 0 {
		if d.skipped++; d.skipped < d.perGroup {
			return
		}
	}
	d.skipped = 0
	switch {
	case d.count == 0:
		d.oldest, d.kept[0], d.count = 0, v, 1
	case d.count < len(d.kept):
		d.kept[d.count] = v
		d.count++
	default:
		d.kept[d.oldest] = v
		d.oldest = (d.oldest + 1) % len(d.kept)
	}
}
