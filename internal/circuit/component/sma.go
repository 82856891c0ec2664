// SPDX-License-Identifier: Apache-2.0

package component

import (
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
)

// maxSamples bounds the memory of windows: 16 KiB. A longer window, of more than about half an hour of ticks at
// one second, is averaged from groups of samples, and is too long by less than one group: 1/1024 of it.
const maxSamples = 2048

// SMA is the mean of its last valid inputs, as many as the window has ticks, rounded down and at least one.
// Before there are that many it is invalid, unless configured otherwise. An invalid input repeats the
// output; as many in a row as the window is long clear it.
//
// In: input. Out: output.
type SMA struct {
	early bool
	size  int64 // inputs in a full window

	window  window
	output  float64
	invalid int64 // inputs in a row
}

// SMAConfig configures an SMA.
type SMAConfig struct {
	// Window is the length of the average.
	Window time.Duration
	// ValidDuringWarmup gives the mean out before the window is full.
	ValidDuringWarmup bool
}

// NewSMA returns an SMA for circuits of an interval.
func NewSMA(c SMAConfig, interval time.Duration) *SMA {
	size := int64(1)
	if interval > 0 {
		size = min(max(1, int64(c.Window/interval)), maxTicks)
	}
	return &SMA{early: c.ValidDuringWarmup, size: size, window: newWindow(size), output: circuit.Invalid()}
}

// Step implements circuit.Component.
func (s *SMA) Step(_ *circuit.Tick, in, out []float64) {
	if circuit.Valid(in[0]) {
		s.invalid = 0
		s.window.add(in[0])
		if s.early || s.window.count >= s.size {
			s.output = s.window.mean()
		}
	} else if s.invalid++; s.invalid >= s.size {
		s.invalid, s.output = 0, circuit.Invalid()
		s.window.clear()
	}
	out[0] = s.output
}

// window sums the last numbers up. It never subtracts: what has left the window leaves no rounding error
// and no infinity behind.
//
// groups[:at] are sums of groups of the numbers that came since the window was last turned over. The others
// are from before, and each has those behind it added: groups[at] is the sum of all that are left.
type window struct {
	groups []float64
	at     int
	older  int64 // groups from before
	recent float64
	// open is the sum of the group that is not complete, of opened numbers out of perGroup.
	open             float64
	opened, perGroup int64
	count            int64 // numbers in the window
}

// newWindow returns a window of size numbers, or up to one group more where groups have several.
func newWindow(size int64) window {
	perGroup := (size + maxSamples - 1) / maxSamples
	return window{groups: make([]float64, (size+perGroup-1)/perGroup), perGroup: perGroup}
}

func (w *window) add(v float64) {
	w.count++
	w.opened++
	w.open += v
	if w.opened < w.perGroup {
		return
	}
	if w.older > 0 { // groups[at] is the oldest group and those after it: it leaves
		w.older--
		w.count -= w.perGroup
	}
	w.groups[w.at] = w.open
	w.recent += w.open
	w.at++
	w.open, w.opened = 0, 0
	if w.at == len(w.groups) {
		for i := len(w.groups) - 2; i >= 0; i-- {
			w.groups[i] += w.groups[i+1]
		}
		w.at, w.recent, w.older = 0, 0, int64(len(w.groups))
	}
}

func (w *window) mean() float64 {
	sum := w.open + w.recent
	if w.older > 0 {
		sum += w.groups[w.at]
	}
	return sum / float64(w.count)
}

func (w *window) clear() { *w = window{groups: w.groups, perGroup: w.perGroup} }
