// SPDX-License-Identifier: Apache-2.0

package control

import (
	"slices"
	"time"
)

// Frame is the readings of all signals of a policy at one tick.
type Frame struct {
	// Tick counts the ticks of the circuit, from 0.
	Tick uint64
	// Time of the tick.
	Time time.Time
	// Values are one per signal, in the order of the signals. NaN: invalid.
	Values []float64
}

// blockTicks is how many ticks a history grows by.
const blockTicks = 60

// budget is memory that histories share, in numbers. It is used under the lock of the Runtime.
type budget struct{ left int }

func (b *budget) take(n int) bool {
	if b.left < n {
		return false
	}
	b.left -= n
	return true
}

// history keeps the readings of the last ticks in blocks: a ring that grows until it is as long as it should
// be, or the budget is spent. The first block is always granted.
type history struct {
	width  int
	ticks  int // how long the ring gets, a multiple of blockTicks
	budget *budget
	taken  int

	blocks [][]float64
	times  []time.Time
	total  uint64 // frames so far
}

func newHistory(width, ticks int, b *budget) history {
	blocks := max(1, (ticks+blockTicks-1)/blockTicks)
	return history{width: width, ticks: blocks * blockTicks, budget: b}
}

// add keeps a copy of the readings of a tick. It allocates when the history grows only.
func (h *history) add(at time.Time, values []float64) {
	if h.total == uint64(len(h.times)) && len(h.times) < h.ticks {
		h.grow()
	}
	i := int(h.total % uint64(len(h.times)))
	h.times[i] = at
	copy(h.blocks[i/blockTicks][i%blockTicks*h.width:][:h.width], values)
	h.total++
}

func (h *history) grow() {
	const timeNumbers = 3 // memory that a time takes, in numbers
	size := blockTicks * (h.width + timeNumbers)
	switch {
	case h.budget.take(size):
		h.taken += size
	case len(h.blocks) > 0:
		h.ticks = len(h.times)
		return
	}
	h.blocks = append(h.blocks, make([]float64, blockTicks*h.width))
	h.times = append(h.times, make([]time.Time, blockTicks)...)
}

// release gives the memory back to the budget.
func (h *history) release() {
	h.budget.left += h.taken
	h.taken = 0
}

// oldest is the number of the first frame that is still there.
func (h *history) oldest() uint64 {
	return h.total - min(h.total, uint64(len(h.times)))
}

// since copies the frames from number from on, oldest first.
func (h *history) since(from uint64) []Frame {
	from = max(from, h.oldest())
	if from >= h.total {
		return nil
	}
	frames := make([]Frame, 0, h.total-from)
	for n := from; n < h.total; n++ {
		i := int(n % uint64(len(h.times)))
		frames = append(frames, Frame{
			Tick: n, Time: h.times[i], Values: slices.Clone(h.blocks[i/blockTicks][i%blockTicks*h.width:][:h.width]),
		})
	}
	return frames
}

// last copies the newest n frames; all when n is not more than 0.
func (h *history) last(n int) []Frame {
	if n <= 0 || uint64(n) > h.total {
		return h.since(0)
	}
	return h.since(h.total - uint64(n))
}
