// SPDX-License-Identifier: Apache-2.0

package component

import (
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
)

// Integrator sums its input up, on each tick or every few. The sum is bounded by max, then by min, each
// while it is valid, on every tick. While reset is true it is 0, whatever the bounds are. It is always
// valid: an input that would make it anything but a number is left out.
//
// In: input, reset, max, min. Out: output.
type Integrator struct {
	every uint64
	sum   float64
}

// IntegratorConfig configures an Integrator.
type IntegratorConfig struct {
	// Initial is where the sum starts.
	Initial float64
	// Every is the time from one addition to the next; 0 adds on each tick.
	Every time.Duration
}

// NewIntegrator returns an Integrator for circuits of an interval.
func NewIntegrator(c IntegratorConfig, interval time.Duration) *Integrator {
	return &Integrator{every: uint64(max(1, ticks(c.Every, interval))), sum: c.Initial}
}

// Step implements circuit.Component.
func (i *Integrator) Step(t *circuit.Tick, in, out []float64) {
	input, reset, highest, lowest := in[0], in[1], in[2], in[3]
	switch {
	case isTrue(reset):
		i.sum = 0
	default:
		if sum := i.sum + input; circuit.Valid(sum) && t.Count%i.every == 0 {
			i.sum = sum
		}
		i.sum = clamp(i.sum, lowest, highest)
	}
	out[0] = i.sum
}
