// SPDX-License-Identifier: Apache-2.0

package flow

// MeterNames are the names of the flux meters that measure the flow.
func (f *Flow) MeterNames() []string {
	var out []string
	f.eachGauge(func(g *gauge) { out = append(out, g.meter.Spec().Name) })
	return out
}
