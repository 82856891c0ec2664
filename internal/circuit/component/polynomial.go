// SPDX-License-Identifier: Apache-2.0

package component

import (
	"math"

	"github.com/sluice-project/sluice/internal/circuit"
)

// Polynomial maps the range of its input from start to end along a curve:
// start.Output + t^degree · (end.Output − start.Output), where t is how far the input is from start to end,
// 0 to 1. It is invalid while its input is, and where the curve is not defined.
//
// In: input. Out: output.
type Polynomial struct{ config PolynomialConfig }

// PolynomialConfig configures a Polynomial.
type PolynomialConfig struct {
	// Start and End of the range. Their inputs differ; that of End may be the smaller one.
	Start, End Datapoint
	// Degree of the curve; 1 is a straight line.
	Degree float64
	// Clamp gives Before out for inputs before the range and After for inputs behind it. Otherwise the curve
	// goes on.
	Clamp         bool
	Before, After float64
}

// Datapoint is an output at an input.
type Datapoint struct{ Input, Output float64 }

// NewPolynomial returns a Polynomial.
func NewPolynomial(c PolynomialConfig) *Polynomial { return &Polynomial{config: c} }

// Step implements circuit.Component.
func (p *Polynomial) Step(_ *circuit.Tick, in, out []float64) {
	c := &p.config
	t := (in[0] - c.Start.Input) / (c.End.Input - c.Start.Input)
	way := c.End.Output - c.Start.Output
	switch {
	case !circuit.Valid(t):
	case c.Clamp && t < 0:
		out[0] = c.Before
	case c.Clamp && t > 1:
		out[0] = c.After
	case t == 1:
		out[0] = c.End.Output // exactly
	case way == 0:
		out[0] = c.Start.Output // not 0 · infinity
	default:
		out[0] = c.Start.Output + math.Pow(t, c.Degree)*way
	}
}
