// SPDX-License-Identifier: Apache-2.0

package control

import "math"

// tally counts the readings of a signal.
type tally struct {
	sum               float64 // of finite readings
	finite            uint64
	invalid, infinite uint64
}

func (t *tally) add(v float64) {
	switch {
	case math.IsNaN(v):
		t.invalid++
	case math.IsInf(v, 0):
		t.infinite++
	default:
		t.finite++
		if sum := t.sum + v; !math.IsInf(sum, 0) {
			t.sum = sum
		}
	}
}
