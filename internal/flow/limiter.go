// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"math"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/sched"
)

// limiter is the running part of a LimiterSpec: it lives as long as its id does, across snapshots.
type limiter struct {
	id      ledger.LimiterID
	kind    Kind
	spec    atomic.Pointer[LimiterSpec] // in force: what was published, with the numbers of the setpoint
	buckets ledger.Buckets              // of kinds that have them, else nil
	slots   ledger.Slots                // of kinds that have them, else nil
	load    *loadBucket                 // of load schedulers, else nil
	queue   *sched.Scheduler            // of kinds that schedule, else nil

	own          *bin // flows that belong to no workload
	workloads    bins
	labelMissing atomic.Uint64
	failed       atomic.Uint64
	hold         holdTime
	work         *workTimes   // of adaptive kinds, else nil
	retiredAt    atomic.Int64 // Unix nanoseconds; 0: in force

	published *LimiterSpec // guarded by Engine.mu
	// lapses is the instant from which on the setpoint does not count any more; 0: never.
	lapses atomic.Int64

	// steering is locked while numbers change. It may be locked while a shard of the queue is, so whoever
	// holds it must not call the queue.
	steering   sync.Mutex
	setHash    string // of the last setpoint
	setVersion uint64
	known      bool // there has been a number
	announced  announced
}

// announced is what the ledger was told last.
type announced struct {
	bucket limit.BucketRule
	slots  ledger.SlotRule
}

// stripes is how many ways the hottest counters are split; a power of two.
var stripes = 1 << min(4, bits.Len(uint(runtime.GOMAXPROCS(0))))

func newLimiter(spec *LimiterSpec, authority ledger.Authority, maxWaiting int) (*limiter, error) {
	l := &limiter{id: spec.ID, kind: spec.Kind, published: spec, own: newBin("")}
	first := l.merge(spec)
	l.announced = l.announcement(first)
	l.spec.Store(first)
	switch {
	case spec.Kind.holdsSlots():
		l.slots = authority.Slots(spec.ID, l.announced.slots)
	case spec.Kind.hasBucket():
		l.buckets = authority.Buckets(spec.ID, l.announced.bucket)
	case spec.Kind == LoadScheduler:
		l.load = newLoadBucket(authority.Now())
	}
	if spec.Kind == AdaptiveConcurrencyScheduler {
		l.work = newWorkTimes()
	}
	if spec.Kind.schedules() {
		var err error
		l.queue, err = sched.New(sched.Config{Capacity: l, Now: authority.Now, MaxWaiting: maxWaiting})
		if err != nil {
			return nil, err
		}
	}
	return l, nil
}

// configure puts a new spec into force. Flows that wait go on under it.
func (l *limiter) configure(spec *LimiterSpec, now limit.Instant, wakes *sched.Wakes) {
	l.steering.Lock()
	if l.retiredAt.Swap(0) != 0 { // its circuit starts from scratch
		l.known, l.setHash, l.setVersion = false, "", 0
		l.lapses.Store(0)
	}
	l.published = spec
	next := l.merge(spec)
	l.announce(next)
	l.spec.Store(next)
	l.steering.Unlock()
	if l.queue != nil {
		l.queue.FreedAll(now, wakes)
	}
}

var _ waitingPlace = (*limiter)(nil)

// cancelWait implements waitingPlace.
func (l *limiter) cancelWait(f *Flow, now limit.Instant, wakes *sched.Wakes) bool {
	if !l.queue.Cancel(&f.waiter, now, wakes) {
		return false
	}
	f.Verdict.Waited += f.waiter.Waited
	f.Verdict.Key, f.Verdict.Tokens = f.waiter.Key, f.waiter.Tokens
	return true
}

// at implements waitingPlace.
func (l *limiter) at(f *Flow) *stage { return &f.point.stages[f.next-1] }

// take charges an account without waiting.
func (l *limiter) take(ctx context.Context, key string, n float64, now limit.Instant) (ledger.Charge, error) {
	if l.slots != nil {
		return l.slots.Take(ctx, key, n, now)
	}
	return l.buckets.Take(ctx, key, n, now)
}

// Take implements sched.Capacity.
func (l *limiter) Take(key string, n float64, now limit.Instant) (sched.Grant, error) {
	spec := l.spec.Load()
	if !spec.Driven {
		c, err := l.take(context.Background(), key, n, now)
		return sched.Grant{OK: c.OK, Wait: c.Wait, Slot: uint64(c.Slot), Remaining: c.Remaining, Limit: c.Limit}, err
	}
	spec = l.inForce(now)
	if spec.PassThrough && l.work == nil {
		return sched.Grant{OK: true, Free: true, Moves: true}, nil
	}
	g, err := l.takeDriven(spec, key, n, now)
	g.Moves = true
	if at := limit.Instant(l.lapses.Load()); at != 0 && !g.OK {
		g.Wait = min(g.Wait, max(0, at.Sub(now))) // everything passes from then on
	}
	return g, err
}

func (l *limiter) takeDriven(spec *LimiterSpec, key string, n float64, now limit.Instant) (sched.Grant, error) {
	if l.load != nil {
		c, free := l.load.take(n, now)
		return sched.Grant{OK: c.OK, Free: free, Wait: c.Wait, Remaining: c.Remaining, Limit: c.Limit}, nil
	}
	if l.work != nil && spec.Slots.Max > 0 && !spec.PassThrough {
		n = min(n, spec.Slots.Max) // else a large flow would wait for a limit that never grows without flows
	}
	c, err := l.take(context.Background(), key, n, now)
	g := sched.Grant{OK: c.OK, Wait: c.Wait, Slot: uint64(c.Slot), Remaining: c.Remaining, Limit: c.Limit}
	if c.OK && l.work != nil {
		l.work.held(c.Limit - c.Remaining)
	}
	return g, err
}

// Forecast implements sched.Capacity. For a bucket it is arithmetic. For slots it is drawn from how
// long slots were held of late; since hold times vary, only half of it counts as certain.
func (l *limiter) Forecast(key string, tokens float64, now limit.Instant) (expect, atLeast time.Duration) {
	spec := l.spec.Load()
	expect, atLeast = l.forecast(spec, key, tokens, now)
	switch {
	case spec.Driven && expect == limit.Never:
		atLeast = 0 // the limit may be another one on the next tick
	case spec.Kind == LoadScheduler:
		atLeast = expect / 2 // it moves, but not that fast
	}
	if at := limit.Instant(l.lapses.Load()); at != 0 { // everything passes from then on
		left := max(0, at.Sub(now))
		expect, atLeast = min(expect, left), min(atLeast, left)
	}
	return expect, atLeast
}

func (l *limiter) forecast(spec *LimiterSpec, key string, tokens float64, now limit.Instant) (expect, atLeast time.Duration) {
	if l.slots != nil {
		level := l.slots.Level(key, now)
		missing := tokens - level.Remaining
		if missing <= 0 || level.Limit <= 0 {
			return 0, 0
		}
		expect = seconds(missing / level.Limit * l.hold.mean())
		return expect, expect / 2
	}
	missing := tokens
	if l.load != nil {
		missing -= l.load.level(now)
	} else {
		missing -= l.buckets.Level(key, now).Remaining
	}
	r := &spec.Bucket
	if missing <= 0 {
		return 0, 0
	}
	if r.FixedWindow && tokens <= r.Capacity {
		expect = r.FullIn(0, now)
		return expect, expect
	}
	if r.FillAmount <= 0 || r.FixedWindow {
		return limit.Never, limit.Never
	}
	intervals := missing / r.FillAmount
	expect = seconds(intervals * r.Interval.Seconds())
	if r.Continuous {
		return expect, expect
	}
	return seconds(math.Ceil(intervals) * r.Interval.Seconds()), seconds(max(0, math.Ceil(intervals)-1) * r.Interval.Seconds())
}

func seconds(s float64) time.Duration {
	if s >= math.MaxInt64/1e9 {
		return limit.Never
	}
	return time.Duration(s * 1e9)
}

// undo hands back what a flow was charged, because it will not run.
func (l *limiter) undo(c *charge, now limit.Instant, wakes *sched.Wakes) {
	if c.flags&chargeEmpty != 0 {
		return
	}
	switch {
	case l.slots != nil:
		l.slots.Release(c.key, c.slot)
	case l.load != nil:
		l.load.give(c.tokens, now)
	default:
		l.buckets.Give(c.key, c.tokens, now)
	}
	if l.queue != nil {
		l.queue.Freed(c.key, now, wakes)
	}
}

// settle ends a charge: slots become free; tokens are corrected to the true cost when it is known. It
// returns false when the slots had been released or had expired before.
func (l *limiter) settle(c *charge, actual float64, known bool, heldFor time.Duration, now limit.Instant, wakes *sched.Wakes) bool {
	switch {
	case c.flags&chargeEmpty != 0:
		return true
	case l.slots != nil:
		if !l.slots.Release(c.key, c.slot) {
			return false
		}
		l.hold.observe(heldFor)
	case !known || actual == c.tokens:
		return true
	case l.load != nil:
		l.load.give(c.tokens-actual, now)
	default:
		l.buckets.Give(c.key, c.tokens-actual, now)
	}
	if l.queue != nil {
		l.queue.Freed(c.key, now, wakes)
	}
	return true
}

// retryAfterSlots guesses when a slot becomes free for a flow that may not wait for it.
func (l *limiter) retryAfterSlots(c ledger.Charge) time.Duration {
	if c.Wait == limit.Never {
		return 0
	}
	if mean := l.hold.mean(); mean > 0 && c.Limit > 0 {
		return min(c.Wait, max(time.Millisecond, seconds(mean/c.Limit)))
	}
	return c.Wait
}

// holdTime is a moving average of how long slots are held.
type holdTime struct{ bits atomic.Uint64 }

func (h *holdTime) mean() float64 { return math.Float64frombits(h.bits.Load()) }

// holdWeight is the share of the newest observation: about the last 32 count.
const holdWeight = 1.0 / 16

func (h *holdTime) observe(d time.Duration) {
	if d <= 0 {
		return
	}
	for {
		old := h.bits.Load()
		mean := math.Float64frombits(old)
		if mean == 0 {
			mean = d.Seconds()
		}
		next := mean + (d.Seconds()-mean)*holdWeight
		if h.bits.CompareAndSwap(old, math.Float64bits(next)) {
			return
		}
	}
}

// atomicFloat is a float64 that goroutines can add to.
type atomicFloat struct{ bits atomic.Uint64 }

func (f *atomicFloat) store(v float64) { f.bits.Store(math.Float64bits(v)) }

func (f *atomicFloat) load() float64 { return math.Float64frombits(f.bits.Load()) }

func (f *atomicFloat) add(v float64) {
	for {
		old := f.bits.Load()
		if f.bits.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// raise makes the value at least v.
func (f *atomicFloat) raise(v float64) {
	for {
		old := f.bits.Load()
		if math.Float64frombits(old) >= v || f.bits.CompareAndSwap(old, math.Float64bits(v)) {
			return
		}
	}
}
