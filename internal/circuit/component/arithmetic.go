// SPDX-License-Identifier: Apache-2.0

package component

import (
	"math"

	"github.com/sluice-project/sluice/internal/circuit"
)

// Arithmetic combines two numbers. It is invalid while one of them is, and where the result is not a
// number: division by 0, infinity minus infinity. xor and shifts work on whole numbers of 64 bits, for
// which fractions are cut off; they are invalid for numbers of more bits and for shifts by less than 0.
//
// In: lhs, rhs. Out: output.
type Arithmetic struct {
	apply func(lhs, rhs float64) float64
}

// NewArithmetic returns an Arithmetic for an operator: add, sub, mul, div, xor, lshift or rshift. ok is
// false for another one.
func NewArithmetic(operator string) (a Arithmetic, ok bool) {
	a.apply, ok = operators[operator]
	return a, ok
}

var operators = map[string]func(lhs, rhs float64) float64{
	"add": func(l, r float64) float64 { return l + r },
	"sub": func(l, r float64) float64 { return l - r },
	"mul": func(l, r float64) float64 { return l * r },
	"div": func(l, r float64) float64 {
		if r == 0 {
			return math.NaN()
		}
		return l / r
	},
	"xor": func(l, r float64) float64 {
		return whole(l, r, func(l, r int64) (int64, bool) { return l ^ r, true })
	},
	"lshift": func(l, r float64) float64 {
		return whole(l, r, func(l, r int64) (int64, bool) { return l << max(r, 0), r >= 0 })
	},
	"rshift": func(l, r float64) float64 {
		return whole(l, r, func(l, r int64) (int64, bool) { return l >> max(r, 0), r >= 0 })
	},
}

// whole applies f to whole numbers.
func whole(l, r float64, f func(l, r int64) (int64, bool)) float64 {
	const limit = 1 << 63
	if !(l >= -limit && l < limit && r >= -limit && r < limit) {
		return math.NaN()
	}
	if v, ok := f(int64(l), int64(r)); ok {
		return float64(v)
	}
	return math.NaN()
}

// Step implements circuit.Component.
func (a Arithmetic) Step(_ *circuit.Tick, in, out []float64) { out[0] = a.apply(in[0], in[1]) }
