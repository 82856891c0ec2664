// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"math"
	"math/bits"
	"runtime"
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
	spec    atomic.Pointer[LimiterSpec] // the one in force
	buckets ledger.Buckets
	slots   ledger.Slots
	queue   *sched.Scheduler // nil for kinds that do not schedule

	passed       []passCounts // by stripe
	denied       atomic.Uint64
	tokensDenied atomicFloat
	labelMissing atomic.Uint64
	failed       atomic.Uint64
	hold         holdTime
	retiredAt    atomic.Int64 // Unix nanoseconds; 0: in force
}

// passCounts counts admissions. They are on the path of every flow, so there is one for every stripe:
// flows that run on different cores would slow each other down on a shared cache line.
type passCounts struct {
	flows  atomic.Uint64
	tokens atomicFloat
	_      [48]byte
}

// stripes is how many ways the hottest counters are split; a power of two.
var stripes = 1 << min(4, bits.Len(uint(runtime.GOMAXPROCS(0))))

func (l *limiter) admitted() (flows uint64, tokens float64) {
	for i := range l.passed {
		flows += l.passed[i].flows.Load()
		tokens += l.passed[i].tokens.load()
	}
	return flows, tokens
}

func newLimiter(spec *LimiterSpec, authority ledger.Authority, maxWaiting int) (*limiter, error) {
	l := &limiter{id: spec.ID, kind: spec.Kind, passed: make([]passCounts, stripes)}
	l.spec.Store(spec)
	if spec.Kind.holdsSlots() {
		l.slots = authority.Slots(spec.ID, spec.Slots)
	} else {
		l.buckets = authority.Buckets(spec.ID, spec.Bucket)
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
	l.spec.Store(spec)
	l.retiredAt.Store(0)
	if l.slots != nil {
		l.slots.Configure(spec.Slots)
	} else {
		l.buckets.Configure(spec.Bucket)
	}
	if l.queue != nil {
		l.queue.FreedAll(now, wakes)
	}
}

// take charges an account without waiting.
func (l *limiter) take(ctx context.Context, key string, n float64, now limit.Instant) (ledger.Charge, error) {
	if l.slots != nil {
		return l.slots.Take(ctx, key, n, now)
	}
	return l.buckets.Take(ctx, key, n, now)
}

// Take implements sched.Capacity.
func (l *limiter) Take(key string, n float64, now limit.Instant) (sched.Grant, error) {
	c, err := l.take(context.Background(), key, n, now)
	return sched.Grant{OK: c.OK, Wait: c.Wait, Slot: uint64(c.Slot), Remaining: c.Remaining, Limit: c.Limit}, err
}

// Forecast implements sched.Capacity. For a bucket it is arithmetic. For slots it is drawn from how
// long slots were held of late; since hold times vary, only half of it counts as certain.
func (l *limiter) Forecast(key string, tokens float64, now limit.Instant) (expect, atLeast time.Duration) {
	spec := l.spec.Load()
	if l.slots != nil {
		level := l.slots.Level(key, now)
		missing := tokens - level.Remaining
		if missing <= 0 || level.Limit <= 0 {
			return 0, 0
		}
		expect = seconds(missing / level.Limit * l.hold.mean())
		return expect, expect / 2
	}
	missing := tokens - l.buckets.Level(key, now).Remaining
	r := &spec.Bucket
	if missing <= 0 {
		return 0, 0
	}
	if r.FillAmount <= 0 {
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
	if l.slots != nil {
		l.slots.Release(c.key, c.slot)
	} else {
		l.buckets.Give(c.key, c.tokens, now)
	}
	if l.queue != nil {
		l.queue.Freed(c.key, now, wakes)
	}
}

// settle ends a charge: slots become free; tokens are corrected to the true cost when it is known. It
// returns false when the slots had been released or had expired before.
func (l *limiter) settle(c *charge, actual float64, known bool, heldFor time.Duration, now limit.Instant, wakes *sched.Wakes) bool {
	if l.slots != nil {
		if !l.slots.Release(c.key, c.slot) {
			return false
		}
		l.hold.observe(heldFor)
	} else {
		if !known || actual == c.tokens {
			return true
		}
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

func (f *atomicFloat) load() float64 { return math.Float64frombits(f.bits.Load()) }

func (f *atomicFloat) add(v float64) {
	for {
		old := f.bits.Load()
		if f.bits.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}
