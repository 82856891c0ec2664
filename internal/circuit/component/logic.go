// SPDX-License-Identifier: Apache-2.0

package component

import "github.com/sluice-project/sluice/internal/circuit"

// And is 0 when an input is false, else invalid when one is, else 1. This is the three-valued logic of
// Kleene. Without inputs it is 1.
//
// In: any number. Out: output.
type And struct{}

// Step implements circuit.Component.
func (And) Step(_ *circuit.Tick, in, out []float64) { out[0] = decide(in, no) }

// Or is 1 when an input is true, else invalid when one is, else 0. This is the three-valued logic of
// Kleene. Without inputs it is 0.
//
// In: any number. Out: output.
type Or struct{}

// Step implements circuit.Component.
func (Or) Step(_ *circuit.Tick, in, out []float64) { out[0] = decide(in, yes) }

// decide returns what settles it when an input has that truth value, else whether the others leave a doubt.
func decide(in []float64, settles truth) float64 {
	doubt := false
	for _, v := range in {
		switch truthOf(v) {
		case settles:
			return reading(settles == yes)
		case unknown:
			doubt = true
		}
	}
	if doubt {
		return circuit.Invalid()
	}
	return reading(settles == no)
}

// Inverter is 1 when its input is false, 0 when it is true, and invalid when it is invalid.
//
// In: input. Out: output.
type Inverter struct{}

// Step implements circuit.Component.
func (Inverter) Step(_ *circuit.Tick, in, out []float64) {
	if t := truthOf(in[0]); t != unknown {
		out[0] = reading(t == no)
	}
}
