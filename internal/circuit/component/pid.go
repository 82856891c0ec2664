// SPDX-License-Identifier: Apache-2.0

package component

import (
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
)

// PID is a controller: kp·e + ki·Σe + kd·Δsignal, bounded by max, then by min, each while it is valid,
// where e = setpoint − signal and Δsignal is the change of the signal since the last valid one.
//
// When the bounds change the result, the sum takes the difference over, so that it does not wind up. It
// computes every few ticks and repeats its output in between. While signal or setpoint is invalid it
// repeats its output, too; after more than a given number of such computations in a row the sum starts
// again at 0, the signal before is forgotten and the output is invalid. An infinite signal or setpoint
// moves the output to its bounds and leaves the sum alone.
//
// In: signal, setpoint, max, min. Out: output.
type PID struct {
	config PIDConfig
	every  uint64

	integral float64 // ki·Σe and corrections
	last     float64 // signal before; NaN: none
	output   float64
	invalid  int // computations in a row without a signal or a setpoint
}

// PIDConfig configures a PID.
type PIDConfig struct {
	// KP, KI and KD are the factors; at least 0.
	KP, KI, KD float64
	// Every is the time from one computation to the next; 0 computes on each tick.
	Every time.Duration
	// ResetAfterInvalid is how many computations in a row may lack their inputs before the sum starts again.
	ResetAfterInvalid int
}

// NewPID returns a PID for circuits of an interval.
func NewPID(c PIDConfig, interval time.Duration) *PID {
	return &PID{
		config: c, every: uint64(max(1, ticks(c.Every, interval))),
		last: circuit.Invalid(), output: circuit.Invalid(),
	}
}

// Step implements circuit.Component.
func (p *PID) Step(t *circuit.Tick, in, out []float64) {
	if t.Count%p.every == 0 {
		p.compute(in[0], in[1], in[2], in[3])
	}
	out[0] = p.output
}

func (p *PID) compute(signal, setpoint, highest, lowest float64) {
	e := setpoint - signal
	if !circuit.Valid(e) {
		if p.invalid <= p.config.ResetAfterInvalid {
			p.invalid++
		}
		if p.invalid > p.config.ResetAfterInvalid {
			p.integral, p.last, p.output = 0, circuit.Invalid(), circuit.Invalid()
		}
		return
	}
	p.invalid = 0
	proportional := term(p.config.KP, e)
	integral := p.integral + term(p.config.KI, e)
	derivative := term(p.config.KD, signal-p.last)
	p.last = signal
	free := proportional + integral + derivative
	if !circuit.Valid(free) { // infinities against each other: the error decides
		free = e
	}
	p.output = clamp(free, lowest, highest)
	if p.config.KI != 0 {
		integral += p.output - free
	}
	if finite(integral) {
		p.integral = integral
	}
}

// term is k·x, and 0 when k is 0 or x is not known.
func term(k, x float64) float64 {
	if k == 0 || !circuit.Valid(x) {
		return 0
	}
	return k * x
}
