// SPDX-License-Identifier: Apache-2.0

package component

import (
	"math"
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
)

// EMA is the exponential moving average of its input: α·input + (1−α)·average with α = 2/(N+1), where N is
// the window in ticks.
//
// It begins with a warm-up: the plain average of the inputs, given out on the last tick of the warm-up, and
// before that only when so configured. An invalid input starts the warm-up again. Afterwards an invalid
// input repeats the average; the Nth in a row does so for the last time, and a new warm-up follows.
//
// An average above max_envelope or below min_envelope, while valid, is multiplied by the factor for it, and
// goes on from there. An infinite input is given out and not averaged, and an average that corrections made
// infinite starts over: it would stay infinite for ever.
//
// In: input, max_envelope, min_envelope. Out: output.
type EMA struct {
	config         EMAConfig
	alpha          float64
	window, warmup int64

	warm    bool
	sum     float64 // of the warm-up
	count   int64   // ticks of the warm-up
	average float64
	invalid int64 // inputs in a row
}

// EMAConfig configures an EMA.
type EMAConfig struct {
	// Window is the length of the average, Warmup that of the warm-up; each is at least one tick.
	Window, Warmup time.Duration
	// MinEnvelopeFactor is for averages below the min envelope; at least 1.
	MinEnvelopeFactor float64
	// MaxEnvelopeFactor is for averages above the max envelope; 0..1.
	MaxEnvelopeFactor float64
	// ValidDuringWarmup gives the average out during the warm-up.
	ValidDuringWarmup bool
}

// NewEMA returns an EMA for circuits of an interval.
func NewEMA(c EMAConfig, interval time.Duration) *EMA {
	window := max(1, ticks(c.Window, interval))
	return &EMA{
		config: c, window: window, warmup: max(1, ticks(c.Warmup, interval)),
		alpha: 2 / (float64(window) + 1),
	}
}

// Step implements circuit.Component.
func (e *EMA) Step(_ *circuit.Tick, in, out []float64) {
	input, highest, lowest := in[0], in[1], in[2]
	if !circuit.Valid(input) {
		out[0] = e.missing()
		return
	}
	e.invalid = 0
	if math.IsInf(input, 0) {
		if e.warm || e.config.ValidDuringWarmup {
			out[0] = input
		}
		return
	}
	if e.warm {
		e.average = e.correct(e.alpha*input+(1-e.alpha)*e.average, lowest, highest)
	} else {
		e.sum += input
		e.count++
		e.warm = e.count >= e.warmup
		e.average = e.correct(e.sum/float64(e.count), lowest, highest)
	}
	if e.warm || e.config.ValidDuringWarmup {
		out[0] = e.average
	}
	if !finite(e.average) {
		e.restart()
	}
}

// missing is the output for an invalid input.
func (e *EMA) missing() float64 {
	average := circuit.Invalid()
	if e.warm {
		average = e.average
		if e.invalid++; e.invalid < e.window {
			return average
		}
	}
	e.restart()
	return average
}

// restart begins a new warm-up.
func (e *EMA) restart() { e.warm, e.sum, e.count, e.invalid = false, 0, 0, 0 }

func (e *EMA) correct(average, lowest, highest float64) float64 {
	switch {
	case average > highest:
		return average * e.config.MaxEnvelopeFactor
	case average < lowest:
		return average * e.config.MinEnvelopeFactor
	}
	return average
}
