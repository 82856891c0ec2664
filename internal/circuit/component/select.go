// SPDX-License-Identifier: Apache-2.0

package component

import (
	"math"

	"github.com/sluice-project/sluice/internal/circuit"
)

// Max is the largest of its inputs. It is invalid while one of them is, and without inputs.
//
// In: any number. Out: output.
type Max struct{}

// Step implements circuit.Component.
func (Max) Step(_ *circuit.Tick, in, out []float64) {
	out[0] = fold(in, func(a, b float64) bool { return b > a })
}

// Min is the smallest of its inputs. It is invalid while one of them is, and without inputs.
//
// In: any number. Out: output.
type Min struct{}

// Step implements circuit.Component.
func (Min) Step(_ *circuit.Tick, in, out []float64) {
	out[0] = fold(in, func(a, b float64) bool { return b < a })
}

// fold returns the input that no other is better than.
func fold(in []float64, better func(a, b float64) bool) float64 {
	best := math.NaN()
	for i, v := range in {
		if !circuit.Valid(v) {
			return v
		}
		if i == 0 || better(best, v) {
			best = v
		}
	}
	return best
}

// FirstValid is the first of its inputs that is valid.
//
// In: any number. Out: output.
type FirstValid struct{}

// Step implements circuit.Component.
func (FirstValid) Step(_ *circuit.Tick, in, out []float64) {
	for _, v := range in {
		if circuit.Valid(v) {
			out[0] = v
			return
		}
	}
}
