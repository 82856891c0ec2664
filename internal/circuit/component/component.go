// SPDX-License-Identifier: Apache-2.0

// Package component has the primitive components of circuits, one file each.
//
// A reading is a float64; NaN is an invalid one and infinities are valid numbers. As a truth value, 0 is
// false, every other number is true and an invalid reading is unknown. Where a component is said to repeat
// or to compute something, it gives an invalid reading out when that is not a number.
//
// To add one: its file, a line in the table of kinds of its test and a script in testdata; what documents say
// is a type in package policy, which package control turns into a node.
//
// Components are made with the interval of their circuit, because lengths of time become numbers of ticks:
// rounded up, unless the component says otherwise. They are pure: their state changes in Step and
// Configure only.
package component

import (
	"math"
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
)

// maxTicks is more ticks than any document can ask for, and sums of them do not overflow.
const maxTicks = 1 << 40

// ticks is the number of ticks that a length of time takes: d/interval, rounded up; 0 for 0.
func ticks(d, interval time.Duration) int64 {
	if d <= 0 || interval <= 0 {
		return 0
	}
	n := int64(d / interval)
	if d%interval > 0 {
		n++
	}
	return min(n, maxTicks)
}

// truth is a value of three-valued logic.
type truth int8

const (
	unknown truth = iota
	no
	yes
)

// truthOf is the truth value of a reading.
func truthOf(v float64) truth {
	switch {
	case !circuit.Valid(v):
		return unknown
	case v == 0:
		return no
	}
	return yes
}

// isTrue reports whether a reading is valid and not 0.
func isTrue(v float64) bool { return truthOf(v) == yes }

// reading is 1 for true and 0 for false.
func reading(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// clamp bounds v by highest, then by lowest, each while it is valid: where they contradict each other the
// lowest wins.
func clamp(v, lowest, highest float64) float64 {
	if v > highest {
		v = highest
	}
	if v < lowest {
		v = lowest
	}
	return v
}

// finite reports whether v is a number that sums can digest.
func finite(v float64) bool { return !math.IsInf(v, 0) && !math.IsNaN(v) }
