// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// errBusy is what a model server says when more prompts run at once than it keeps track of.
var errBusy = errors.New("the model server already works on as many prompts as it keeps track of")

// gpuConfig describes a device that works on several prompts at once.
type gpuConfig struct {
	// Slots is the number of prompts that run at full speed side by side. At least 1.
	Slots int
	// Penalty is how much each prompt beyond Slots slows the whole device, as a share per Slots:
	// with n > Slots prompts the device does Slots / (1 + Penalty·(n−Slots)/Slots) seconds of work
	// per second, instead of Slots. It stands for the memory traffic and cache evictions of a GPU that
	// holds too many contexts. 0: none.
	Penalty float64
	// MaxJobs is the number of prompts at which the device refuses more. At least 1.
	MaxJobs int
	// Speed is how many seconds of work one undisturbed prompt does per second of the clock; the time
	// scale of a demo. More than 0.
	Speed float64
}

// perJob returns the work one of n prompts does per second of the clock.
func (c gpuConfig) perJob(n int) float64 {
	if n <= c.Slots {
		return c.Speed
	}
	slots := float64(c.Slots)
	over := (float64(n) - slots) / slots
	return c.Speed * slots / float64(n) / (1 + c.Penalty*over)
}

// step is one change of a count over time.
type step struct {
	at time.Time
	n  int
}

// maxSteps bounds the history a gpu keeps; later changes are dropped from it, not from the peak.
const maxSteps = 1 << 17

// gpu is a processor-sharing engine: every prompt inside gets the same share of the device, and the
// shares change only when a prompt arrives or leaves. All prompts therefore advance on one common
// odometer, and the next thing to happen is the smallest odometer mark somebody waits for: one timer
// is enough. Times in between are computed, not polled, so the engine is exact however late its timer
// fires. All methods may be called concurrently.
type gpu struct {
	cfg gpuConfig

	mu       sync.Mutex
	jobs     int
	odometer float64   // seconds of work each prompt present since the beginning would have done
	at       time.Time // when odometer was read
	marks    markHeap
	timer    *time.Timer
	closed   bool
	history  []step
	peak     int
}

func newGPU(cfg gpuConfig) (*gpu, error) {
	if cfg.Slots < 1 || cfg.MaxJobs < 1 || !(cfg.Speed > 0) || !(cfg.Penalty >= 0) {
		return nil, fmt.Errorf("demo: gpu config %+v: want slots and max jobs of at least 1, speed over 0, penalty of at least 0", cfg)
	}
	return &gpu{cfg: cfg, at: time.Now()}, nil
}

// job is one prompt on the device. It leaves by itself at the exact moment its work is done.
type job struct {
	g     *gpu
	start float64 // odometer at arrival
	work  float64
	last  *mark
}

// begin puts work seconds of work on the device. It fails with errBusy when the device is full or closed.
func (g *gpu) begin(work float64) (*job, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.advanceLocked(now)
	if g.closed || g.jobs >= g.cfg.MaxJobs {
		return nil, errBusy
	}
	j := &job{g: g, start: g.odometer, work: max(work, 0)}
	j.last = g.markLocked(j.start+j.work, true)
	g.setJobsLocked(now, g.jobs+1)
	g.armLocked()
	return j, nil
}

// wait returns when the job has done that much of its work, at most all of it, or when ctx ends.
func (j *job) wait(ctx context.Context, done float64) error {
	m := j.last
	if done < j.work {
		j.g.mu.Lock()
		j.g.advanceLocked(time.Now())
		m = j.g.markLocked(j.start+done, false)
		j.g.armLocked()
		j.g.mu.Unlock()
	}
	select {
	case <-m.reached:
		return nil
	case <-ctx.Done():
		j.g.mu.Lock()
		defer j.g.mu.Unlock()
		if m != j.last {
			j.g.dropLocked(m)
		}
		return ctx.Err()
	}
}

// leave takes the job off the device, however much of its work is left. It may be called twice.
func (j *job) leave() {
	j.g.mu.Lock()
	defer j.g.mu.Unlock()
	now := time.Now()
	j.g.advanceLocked(now)
	if j.g.dropLocked(j.last) {
		j.g.setJobsLocked(now, j.g.jobs-1)
	}
	j.g.armLocked()
}

// close takes everything off the device, wakes whoever waits and refuses what comes later.
func (g *gpu) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for len(g.marks) > 0 {
		close(heap.Pop(&g.marks).(*mark).reached)
	}
	g.setJobsLocked(time.Now(), 0)
	g.armLocked()
}

// resetTrace forgets the recorded history and starts a new one with what runs now.
func (g *gpu) resetTrace() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.advanceLocked(now)
	g.history, g.peak = []step{{now, g.jobs}}, g.jobs
}

// trace returns how many prompts were on the device over time since resetTrace, and the most at once.
func (g *gpu) trace() ([]step, int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.advanceLocked(time.Now())
	return slices.Clone(g.history), g.peak
}

// running returns the number of prompts on the device.
func (g *gpu) running() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.advanceLocked(time.Now())
	return g.jobs
}

// advanceLocked replays what has happened up to now, one mark at a time, because each job that leaves
// changes the speed of the others.
func (g *gpu) advanceLocked(now time.Time) {
	for len(g.marks) > 0 {
		due := g.dueLocked()
		if due.After(now) {
			break
		}
		m := heap.Pop(&g.marks).(*mark)
		g.odometer, g.at = max(g.odometer, m.odometer), due
		if m.ends {
			g.setJobsLocked(due, g.jobs-1)
		}
		close(m.reached)
	}
	if now.After(g.at) {
		g.odometer += now.Sub(g.at).Seconds() * g.cfg.perJob(g.jobs)
		g.at = now
	}
}

// dueLocked tells when the next mark is reached if nothing changes. Needs a mark.
func (g *gpu) dueLocked() time.Time {
	seconds := (g.marks[0].odometer - g.odometer) / g.cfg.perJob(g.jobs)
	return g.at.Add(time.Duration(max(seconds, 0) * float64(time.Second)))
}

// armLocked sets the timer to the next mark.
func (g *gpu) armLocked() {
	if len(g.marks) == 0 {
		if g.timer != nil {
			g.timer.Stop()
		}
		return
	}
	wait := g.dueLocked().Sub(g.at)
	if g.timer == nil {
		g.timer = time.AfterFunc(wait, g.fire)
		return
	}
	g.timer.Reset(wait)
}

func (g *gpu) fire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.advanceLocked(time.Now())
	g.armLocked()
}

func (g *gpu) setJobsLocked(at time.Time, n int) {
	g.jobs = n
	g.peak = max(g.peak, n)
	g.history = appendBounded(g.history, step{at, n})
}

func (g *gpu) markLocked(odometer float64, ends bool) *mark {
	m := &mark{odometer: odometer, ends: ends, reached: make(chan struct{})}
	heap.Push(&g.marks, m)
	return m
}

// dropLocked forgets a mark and tells whether it was still ahead.
func (g *gpu) dropLocked(m *mark) bool {
	if m.index < 0 {
		return false
	}
	heap.Remove(&g.marks, m.index)
	if m.ends {
		close(m.reached)
	}
	return true
}

// mark is a point on the odometer that somebody waits for or at which a job ends.
type mark struct {
	odometer float64
	ends     bool
	reached  chan struct{}
	index    int // in the heap; -1 once it has left it
}

type markHeap []*mark

func (h markHeap) Len() int           { return len(h) }
func (h markHeap) Less(i, j int) bool { return h[i].odometer < h[j].odometer }
func (h markHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *markHeap) Push(x any) {
	m := x.(*mark)
	m.index = len(*h)
	*h = append(*h, m)
}

func (h *markHeap) Pop() any {
	old := *h
	m := old[len(old)-1]
	*h = old[:len(old)-1]
	m.index = -1
	return m
}
