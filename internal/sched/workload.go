// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"math"
	"sync/atomic"
	"time"
)

// MaxWorkloads bounds the workloads a scheduler keeps figures of. Names come from label values if the
// policy says so; those beyond the bound share the figures of OtherWorkloads. Their order in the queue
// is not affected.
const MaxWorkloads = 1000

// OtherWorkloads is the name under which workloads beyond MaxWorkloads are counted.
const OtherWorkloads = "(other)"

// Workload counts what happens to the flows of one workload. All fields are read with Snapshot.
type Workload struct {
	name          string
	admitted      atomic.Uint64
	denied        atomic.Uint64
	waiting       atomic.Int64
	waitingTokens atomicFloat
	waitNanos     atomic.Int64
	waits         atomic.Uint64
	priority      atomicFloat
	onTime        atomic.Uint64
	preempted     atomicFloat // tokens by which flows came earlier than first in, first out
	preemptions   atomic.Uint64
	delayed       atomicFloat
	delays        atomic.Uint64
	epoch         atomic.Int64 // half minute of maxNow
	maxNow        atomic.Int64
	maxBefore     atomic.Int64
}

// WorkloadSnapshot is a reading of a Workload; counters count from its creation.
type WorkloadSnapshot struct {
	Name             string
	Admitted, Denied uint64
	Waiting          int64
	WaitingTokens    float64
	Waits            uint64        // admitted flows that had to queue
	WaitTotal        time.Duration // of admitted flows
	WaitMax          time.Duration // of an admitted flow within the last 30 to 60 s
	Priority         float64       // last used
	OnTime           uint64        // flows served as first in, first out would have
	Preempted        float64       // tokens by which flows overtook others
	Preemptions      uint64
	Delayed          float64 // tokens by which flows were overtaken
	Delays           uint64
}

// Workload returns the figures of a workload, creating them.
func (s *Scheduler) Workload(name string) *Workload {
	s.workloadsMu.RLock()
	w := s.workloads[name]
	s.workloadsMu.RUnlock()
	if w != nil {
		return w
	}
	s.workloadsMu.Lock()
	defer s.workloadsMu.Unlock()
	if w = s.workloads[name]; w != nil {
		return w
	}
	if len(s.workloads) >= MaxWorkloads {
		name = OtherWorkloads
		if w = s.workloads[name]; w != nil {
			return w
		}
	}
	w = &Workload{name: name}
	s.workloads[name] = w
	return w
}

// Workloads reads the figures of all workloads, in no order.
func (s *Scheduler) Workloads() []WorkloadSnapshot {
	s.workloadsMu.RLock()
	defer s.workloadsMu.RUnlock()
	out := make([]WorkloadSnapshot, 0, len(s.workloads))
	for _, w := range s.workloads {
		out = append(out, w.Snapshot())
	}
	return out
}

// Snapshot reads the figures.
func (w *Workload) Snapshot() WorkloadSnapshot {
	w.roll(0)
	return WorkloadSnapshot{
		Name: w.name, Admitted: w.admitted.Load(), Denied: w.denied.Load(),
		Waiting: w.waiting.Load(), WaitingTokens: max(0, w.waitingTokens.load()),
		Waits: w.waits.Load(), WaitTotal: time.Duration(w.waitNanos.Load()),
		WaitMax:  time.Duration(max(w.maxNow.Load(), w.maxBefore.Load())),
		Priority: w.priority.load(), OnTime: w.onTime.Load(),
		Preempted: w.preempted.load(), Preemptions: w.preemptions.Load(),
		Delayed: w.delayed.load(), Delays: w.delays.Load(),
	}
}

// count records an outcome that was known at once.
func (w *Workload) count(f *Waiter) {
	if f.Outcome != Granted {
		w.denied.Add(1)
		return
	}
	w.admitted.Add(1)
	if w.priority.load() != f.Class.Priority {
		w.priority.store(f.Class.Priority)
	}
}

func (w *Workload) join(f *Waiter) {
	w.waiting.Add(1)
	w.waitingTokens.add(f.Tokens)
}

// leave records the end of a wait.
func (w *Workload) leave(f *Waiter) {
	w.waiting.Add(-1)
	w.waitingTokens.add(-f.Tokens)
	w.count(f)
	if f.Outcome == Granted {
		w.waits.Add(1)
		w.waitNanos.Add(int64(f.Waited))
		w.roll(f.Waited)
	}
}

// shift records by how many tokens a flow came earlier (positive) or later than first in, first out.
func (w *Workload) shift(tokens float64) {
	switch {
	case tokens > 0:
		w.preempted.add(tokens)
		w.preemptions.Add(1)
	case tokens < 0:
		w.delayed.add(-tokens)
		w.delays.Add(1)
	default:
		w.onTime.Add(1)
	}
}

// roll keeps the largest wait of this half minute and the one before. Two flows at the border may count
// for either.
func (w *Workload) roll(waited time.Duration) {
	epoch := time.Now().Unix() / 30
	if was := w.epoch.Load(); was != epoch && w.epoch.CompareAndSwap(was, epoch) {
		before := w.maxNow.Swap(0)
		if was != epoch-1 {
			before = 0
		}
		w.maxBefore.Store(before)
	}
	for old := w.maxNow.Load(); int64(waited) > old; old = w.maxNow.Load() {
		if w.maxNow.CompareAndSwap(old, int64(waited)) {
			return
		}
	}
}

// atomicFloat is a float64 that goroutines can add to.
type atomicFloat struct{ bits atomic.Uint64 }

func (f *atomicFloat) load() float64   { return math.Float64frombits(f.bits.Load()) }
func (f *atomicFloat) store(v float64) { f.bits.Store(math.Float64bits(v)) }

func (f *atomicFloat) add(v float64) {
	for {
		old := f.bits.Load()
		if f.bits.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}
