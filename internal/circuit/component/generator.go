// SPDX-License-Identifier: Apache-2.0

package component

import (
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
)

// Generator runs through a list of steps. The first step gives its target out from beginning to end; each
// of the others goes in a straight line from the target before to its own, and gives its own out when one
// of the two is not a finite number. At the end of the last step the output is the last target, whatever
// the length of that step is.
//
// On each tick it moves by one tick: forwards while only forward is true, backwards while only backward is.
// While reset is true it is at the beginning.
//
// In: forward, backward, reset. Out: output, at_start (1 at the beginning of the first step, else 0), at_end
// (1 at the end of the last step, else 0).
type Generator struct {
	steps []generatorStep

	step int   // position: step and ticks in it;
	tick int64 // 0..length−1, and length at the end of the last step
}

type generatorStep struct {
	target float64
	length int64 // ticks, at least 1
}

// GeneratorStep is a number and the time it takes to get there from the step before.
type GeneratorStep struct {
	// Target is the number at the end of the step. NaN is an invalid reading.
	Target float64
	// Length of the step, at least one tick.
	Length time.Duration
}

// NewGenerator returns a Generator for circuits of an interval. Without steps its output is invalid.
func NewGenerator(steps []GeneratorStep, interval time.Duration) *Generator {
	g := &Generator{steps: make([]generatorStep, len(steps))}
	for i, s := range steps {
		g.steps[i] = generatorStep{target: s.Target, length: max(1, ticks(s.Length, interval))}
	}
	return g
}

// Step implements circuit.Component.
func (g *Generator) Step(_ *circuit.Tick, in, out []float64) {
	if len(g.steps) == 0 {
		return
	}
	forward, backward, reset := isTrue(in[0]), isTrue(in[1]), isTrue(in[2])
	switch {
	case reset:
		g.step, g.tick = 0, 0
	case forward && !backward:
		g.forward()
	case backward && !forward:
		g.backward()
	}
	out[0] = g.output()
	out[1] = reading(g.step == 0 && g.tick == 0)
	out[2] = reading(g.atEnd())
}

func (g *Generator) atEnd() bool { return g.tick == g.steps[g.step].length }

func (g *Generator) forward() {
	if g.atEnd() {
		return
	}
	g.tick++
	if g.atEnd() && g.step+1 < len(g.steps) {
		g.step, g.tick = g.step+1, 0
	}
}

func (g *Generator) backward() {
	switch {
	case g.tick > 0:
		g.tick--
	case g.step > 0:
		g.step--
		g.tick = g.steps[g.step].length - 1
	}
}

func (g *Generator) output() float64 {
	s := g.steps[g.step]
	if g.step == 0 || g.atEnd() {
		return s.target
	}
	from := g.steps[g.step-1].target
	if !finite(from) || !finite(s.target) {
		return s.target
	}
	part := float64(g.tick) / float64(s.length)
	if way := s.target - from; finite(way) {
		return from + way*part
	}
	return from*(1-part) + s.target*part
}
