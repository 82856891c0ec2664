// SPDX-License-Identifier: Apache-2.0

package component

import "github.com/sluice-project/sluice/internal/circuit"

// Switcher gives on_signal out while switch is true, and off_signal while it is false or invalid.
//
// In: on_signal, off_signal, switch. Out: output.
type Switcher struct{}

// Step implements circuit.Component.
func (Switcher) Step(_ *circuit.Tick, in, out []float64) {
	if isTrue(in[2]) {
		out[0] = in[0]
		return
	}
	out[0] = in[1]
}
