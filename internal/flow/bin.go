// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"hash/fnv"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-project/sluice/internal/sched"
)

// bin counts the flows of one workload of a scheduler, or all flows of a limiter that has no workloads. It
// lives as long as the limiter does, across edits. What is on the path of every admitted flow is split in
// stripes; denials are not.
type bin struct {
	name  string // of the workload
	id    uint32 // what flow tokens carry instead of the name
	sched *sched.Workload
	hot   []binCounts // by stripe
	// denied flows and their tokens: by this limiter, and by another one after this one let them pass. The
	// last had not been charged here.
	denied, dropped, droppedFree atomic.Uint64
	tokensDenied, tokensDropped  atomicFloat
	tokensDroppedFree            atomicFloat
	price                        atomicFloat // tokens of a flow by setpoint; 0: as the document says
	pricedArrivals               float64     // counts of priced at the last change of price; guarded by limiter.steering
}

// binCounts counts flows of which the whole verdict is known.
type binCounts struct {
	accepted   atomic.Uint64 // and charged
	tokens     atomicFloat
	free       atomic.Uint64 // accepted without a charge
	tokensFree atomicFloat
	ended      atomic.Uint64
	failed     atomic.Uint64
	nanos      atomic.Int64  // of the work of the ended
	priced     atomic.Uint64 // flows that came and cost what the workload says
}

func newBin(name string) *bin {
	return &bin{name: name, id: workloadID(name), hot: make([]binCounts, stripes)}
}

// workloadID stands for the name of a workload in flow tokens: the same in every process.
func workloadID(name string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	return h.Sum32()
}

// accept counts an admitted flow.
func (b *bin) accept(stripe int, tokens float64, free bool) {
	c := &b.hot[stripe]
	if free {
		c.free.Add(1)
		if tokens != 0 {
			c.tokensFree.add(tokens)
		}
		return
	}
	c.accepted.Add(1)
	c.tokens.add(tokens)
}

// drop counts a flow that passed here and was denied later.
func (b *bin) drop(tokens float64, free bool) {
	if free {
		b.droppedFree.Add(1)
		b.tokensDroppedFree.add(tokens)
		return
	}
	b.dropped.Add(1)
	b.tokensDropped.add(tokens)
}

// deny counts a flow that the limiter itself turned away.
func (b *bin) deny(tokens float64) {
	b.denied.Add(1)
	b.tokensDenied.add(tokens)
}

func (b *bin) end(stripe int, work time.Duration, failed bool) {
	c := &b.hot[stripe]
	c.ended.Add(1)
	c.nanos.Add(int64(work))
	if failed {
		c.failed.Add(1)
	}
}

// binTotals is a reading of one or more bins. Every figure only ever grows.
type binTotals struct {
	accepted, free, denied, dropped, droppedFree                    uint64
	tokens, tokensFree, tokensDenied, tokensDropped, tokensDropFree float64
	ended, failed, priced                                           uint64
	work                                                            time.Duration
}

func (t *binTotals) add(b *bin) {
	for i := range b.hot {
		c := &b.hot[i]
		t.accepted += c.accepted.Load()
		t.tokens += c.tokens.load()
		t.free += c.free.Load()
		t.tokensFree += c.tokensFree.load()
		t.ended += c.ended.Load()
		t.failed += c.failed.Load()
		t.work += time.Duration(c.nanos.Load())
		t.priced += c.priced.Load()
	}
	t.denied += b.denied.Load()
	t.dropped += b.dropped.Load()
	t.droppedFree += b.droppedFree.Load()
	t.tokensDenied += b.tokensDenied.load()
	t.tokensDropped += b.tokensDropped.load()
	t.tokensDropFree += b.tokensDroppedFree.load()
}

// Flows by the verdict on the whole flow, and their tokens.
func (t *binTotals) acceptedFlows() uint64   { return t.accepted + t.free }
func (t *binTotals) rejectedFlows() uint64   { return t.denied + t.dropped + t.droppedFree }
func (t *binTotals) acceptedTokens() float64 { return t.tokens + t.tokensFree }
func (t *binTotals) rejectedTokens() float64 {
	return t.tokensDenied + t.tokensDropped + t.tokensDropFree
}

// bins are the workloads of a limiter by name and by what tokens carry. At most sched.MaxWorkloads, and
// one for those beyond.
type bins struct {
	mu     sync.RWMutex
	byName map[string]*bin
	byID   map[uint32]*bin
	prices map[string]float64 // by setpoint, those that make sense
	asked  map[string]float64 // as the setpoint has them
}

// workload returns the bin of a workload, creating it.
func (l *limiter) workload(name string) *bin {
	ws := &l.workloads
	ws.mu.RLock()
	b := ws.byName[name]
	ws.mu.RUnlock()
	if b != nil {
		return b
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if b = ws.byName[name]; b != nil {
		return b
	}
	if len(ws.byName) >= sched.MaxWorkloads {
		name = sched.OtherWorkloads
		if b = ws.byName[name]; b != nil {
			return b
		}
	}
	b = newBin(name)
	b.sched = l.queue.Workload(name)
	b.price.store(ws.prices[name])
	if ws.byName == nil {
		ws.byName, ws.byID = make(map[string]*bin), make(map[uint32]*bin)
	}
	ws.byName[name], ws.byID[b.id] = b, b
	return b
}

// workloadByID finds the bin that a flow token names; the limiter's own when it is not known (any more).
func (l *limiter) workloadByID(id uint32) *bin {
	l.workloads.mu.RLock()
	defer l.workloads.mu.RUnlock()
	if b := l.workloads.byID[id]; b != nil {
		return b
	}
	return l.own
}

// workloadBins lists the workloads by name.
func (l *limiter) workloadBins() []*bin {
	l.workloads.mu.RLock()
	defer l.workloads.mu.RUnlock()
	return slices.SortedFunc(maps.Values(l.workloads.byName), func(a, b *bin) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
}

// totals adds up all bins of a limiter, without allocating.
func (l *limiter) totals() (t binTotals) {
	t.add(l.own)
	l.workloads.mu.RLock()
	defer l.workloads.mu.RUnlock()
	for _, b := range l.workloads.byName {
		t.add(b)
	}
	return t
}
