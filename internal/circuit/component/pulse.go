// SPDX-License-Identifier: Apache-2.0

package component

import (
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
)

// Pulse alternates between 1 and 0, beginning with 1.
//
// Out: output.
type Pulse struct {
	on, period int64 // ticks
	at         int64
}

// NewPulse returns a Pulse for circuits of an interval. Each phase is at least one tick long.
func NewPulse(trueFor, falseFor, interval time.Duration) *Pulse {
	on := max(1, ticks(trueFor, interval))
	return &Pulse{on: on, period: on + max(1, ticks(falseFor, interval))}
}

// Step implements circuit.Component.
func (p *Pulse) Step(_ *circuit.Tick, _, out []float64) {
	out[0] = reading(p.at < p.on)
	p.at = (p.at + 1) % p.period
}
