// SPDX-License-Identifier: Apache-2.0

package component

import (
	"math"

	"github.com/sluice-project/sluice/internal/circuit"
)

// Gradient computes control_variable · gradient, where the gradient is (signal / setpoint)^slope within
// its bounds; the result is bounded by max, then by min, each while it is valid. It is invalid while
// signal, setpoint or control_variable is, or setpoint is 0. In manual mode it repeats control_variable.
//
// In: signal, setpoint, control_variable, max, min. Out: output.
type Gradient struct {
	config GradientConfig
	manual bool
}

// GradientConfig configures a Gradient.
type GradientConfig struct {
	// Slope is the exponent: negative when the control variable has to fall while the signal is high.
	Slope float64
	// MinGradient and MaxGradient bound the gradient.
	MinGradient, MaxGradient float64
	// Manual starts in manual mode.
	Manual bool
	// ManualKey is the key of the dynamic configuration that replaces Manual; "": none.
	ManualKey string
}

var _ circuit.Configurable = (*Gradient)(nil)

// NewGradient returns a Gradient.
func NewGradient(c GradientConfig) *Gradient { return &Gradient{config: c, manual: c.Manual} }

// Configure implements circuit.Configurable.
func (g *Gradient) Configure(lookup func(string) (any, bool)) error {
	manual, err := boolOf(lookup, g.config.ManualKey, g.config.Manual)
	if err == nil {
		g.manual = manual
	}
	return err
}

// Step implements circuit.Component.
func (g *Gradient) Step(_ *circuit.Tick, in, out []float64) {
	signal, setpoint, variable, highest, lowest := in[0], in[1], in[2], in[3], in[4]
	if g.manual {
		out[0] = variable
		return
	}
	if setpoint == 0 {
		return
	}
	gradient := math.Pow(signal/setpoint, g.config.Slope)
	if !circuit.Valid(signal) || !circuit.Valid(setpoint) || !circuit.Valid(gradient) {
		return // not left to the arithmetic: NaN to the power of 0 is 1
	}
	gradient = clamp(gradient, g.config.MinGradient, g.config.MaxGradient)
	out[0] = clamp(variable*gradient, lowest, highest)
}
