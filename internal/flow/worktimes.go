// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"sync/atomic"
	"time"

	"github.com/sluice-project/sluice/internal/setpoint"
)

// workTimes is what only limits that find themselves need to know: how the durations of work are
// distributed, and how many flows run.
type workTimes struct {
	hot      []durations // by stripe
	shortest atomic.Int64
	peak     atomicFloat
}

type durations [setpoint.DurationBuckets]atomic.Uint64

func newWorkTimes() *workTimes { return &workTimes{hot: make([]durations, stripes)} }

// observe counts the work of an ended flow.
func (w *workTimes) observe(stripe int, d time.Duration) {
	w.hot[stripe][setpoint.DurationBucket(d.Seconds())].Add(1)
	for {
		old := w.shortest.Load()
		if old != 0 && old <= int64(d) || w.shortest.CompareAndSwap(old, max(1, int64(d))) {
			return
		}
	}
}

// held notes how many slots are held.
func (w *workTimes) held(n float64) {
	if n > w.peak.load() {
		w.peak.raise(n)
	}
}

// read fills in an observation, into the slice given if it is long enough, and begins anew with the
// shortest and the most.
func (w *workTimes) read(o *setpoint.Observation, buf []uint64) {
	if cap(buf) < setpoint.DurationBuckets {
		buf = make([]uint64, setpoint.DurationBuckets)
	}
	o.Durations = buf[:setpoint.DurationBuckets]
	for b := range o.Durations {
		n := uint64(0)
		for i := range w.hot {
			n += w.hot[i][b].Load()
		}
		o.Durations[b] = n
	}
	o.DurationMin = time.Duration(w.shortest.Swap(0)).Seconds()
	o.InFlightPeak = max(w.peak.load(), o.InFlight)
	w.peak.store(o.InFlight)
}
