// SPDX-License-Identifier: Apache-2.0

package component

import "github.com/sluice-project/sluice/internal/circuit"

// Copy gives its input out. It takes signals into nested circuits and out of them.
//
// In: input. Out: output.
type Copy struct{}

// Step implements circuit.Component.
func (Copy) Step(_ *circuit.Tick, in, out []float64) { out[0] = in[0] }
