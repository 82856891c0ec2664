// SPDX-License-Identifier: Apache-2.0

package component

import (
	"math"

	"github.com/sluice-project/sluice/internal/circuit"
)

// Unary is a function of one number. It is invalid where its input is and where the function is not
// defined.
//
// In: input. Out: output.
type Unary struct {
	apply func(float64) float64
}

// NewUnary returns a Unary for a function by its name in package math, in lower case. ok is false for an
// unknown one.
func NewUnary(operator string) (u Unary, ok bool) {
	u.apply, ok = functions[operator]
	return u, ok
}

var functions = map[string]func(float64) float64{
	"abs": math.Abs, "acos": math.Acos, "acosh": math.Acosh, "asin": math.Asin, "asinh": math.Asinh,
	"atan": math.Atan, "atanh": math.Atanh, "cbrt": math.Cbrt, "ceil": math.Ceil, "cos": math.Cos,
	"cosh": math.Cosh, "erf": math.Erf, "erfc": math.Erfc, "erfcinv": math.Erfcinv, "erfinv": math.Erfinv,
	"exp": math.Exp, "exp2": math.Exp2, "expm1": math.Expm1, "floor": math.Floor, "gamma": math.Gamma,
	"j0": math.J0, "j1": math.J1, "lgamma": lgamma, "log": math.Log, "log10": math.Log10,
	"log1p": math.Log1p, "log2": math.Log2, "round": math.Round, "roundtoeven": math.RoundToEven,
	"sin": math.Sin, "sinh": math.Sinh, "sqrt": math.Sqrt, "tan": math.Tan, "tanh": math.Tanh,
	"trunc": math.Trunc, "y0": math.Y0, "y1": math.Y1,
}

func lgamma(x float64) float64 {
	v, _ := math.Lgamma(x)
	return v
}

// Step implements circuit.Component.
func (u Unary) Step(_ *circuit.Tick, in, out []float64) {
	if circuit.Valid(in[0]) {
		out[0] = u.apply(in[0])
	}
}
