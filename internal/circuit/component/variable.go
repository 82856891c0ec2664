// SPDX-License-Identifier: Apache-2.0

package component

import "github.com/sluice-project/sluice/internal/circuit"

// Variable is a number that dynamic configuration can change.
//
// Out: output.
type Variable struct {
	constant float64
	key      string
	value    float64
}

var _ circuit.Configurable = (*Variable)(nil)

// NewVariable returns a Variable that is constant while dynamic configuration has no number under key; ""
// is no key.
func NewVariable(constant float64, key string) *Variable {
	return &Variable{constant: constant, key: key, value: constant}
}

// Configure implements circuit.Configurable.
func (v *Variable) Configure(lookup func(string) (any, bool)) error {
	value, err := numberOf(lookup, v.key, v.constant)
	if err == nil {
		v.value = value
	}
	return err
}

// Step implements circuit.Component.
func (v *Variable) Step(_ *circuit.Tick, _, out []float64) { out[0] = v.value }

// BoolVariable is 1 or 0, which dynamic configuration can change.
//
// Out: output.
type BoolVariable struct {
	constant bool
	key      string
	value    bool
}

var _ circuit.Configurable = (*BoolVariable)(nil)

// NewBoolVariable returns a BoolVariable that is constant while dynamic configuration has no truth value
// under key; "" is no key.
func NewBoolVariable(constant bool, key string) *BoolVariable {
	return &BoolVariable{constant: constant, key: key, value: constant}
}

// Configure implements circuit.Configurable.
func (v *BoolVariable) Configure(lookup func(string) (any, bool)) error {
	value, err := boolOf(lookup, v.key, v.constant)
	if err == nil {
		v.value = value
	}
	return err
}

// Step implements circuit.Component.
func (v *BoolVariable) Step(_ *circuit.Tick, _, out []float64) { out[0] = reading(v.value) }
