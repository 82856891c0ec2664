// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
)

// loadBucket is the token bucket of a load scheduler. Its fill rate is absolute: each setpoint makes it the
// load multiplier times the rate at which tokens came of late, and it stays so until the next one. While
// load is throttled, that rate may count as growing by 5 % a second at most, so that retries and surges do
// not raise the limit that is meant to keep them out. It may fall, but as long as the multiplier does not, the
// fill rate does not either: the end of a surge is no reason to admit less than during it. The bucket belongs
// to this process and starts anew with it.
//
// Arrivals are counted without the lock, also while everything passes, so that the rate is known when
// throttling begins.
type loadBucket struct {
	hot     []arrivals   // by stripe
	next    atomic.Int64 // when the next sample of arrivals is due
	largest atomicFloat  // tokens of the largest flow of late

	mu        sync.Mutex
	rule      limit.BucketRule // FillAmount per second
	bucket    limit.Bucket
	active    bool // else everything passes
	learning  bool // active, and no rate is known yet: everything passes for a moment
	throttles bool // the multiplier is less than 1
	lm        float64
	base      float64 // tokens per second that the multiplier is relative to
	basedAt   limit.Instant
	expected  float64       // tokens that would have come at the base rate, see expectLocked
	expectAt  limit.Instant // as of when
	counted   float64       // incoming then
	resumed   limit.Instant // since when there has been traffic
	samples   [loadSamples]arrived
	newest    int
	before    float64 // the largest flow of the period before
	turned    limit.Instant
}

// arrivals counts tokens that came; each stripe has a cache line.
type arrivals struct {
	tokens atomicFloat
	_      [56]byte
}

// arrived is how many tokens had come at an instant.
type arrived struct {
	at     limit.Instant
	tokens float64
}

const (
	loadWindow  = 10 * time.Second       // over which arrivals are averaged
	loadPeriod  = 100 * time.Millisecond // between samples of arrivals
	loadSamples = 128                    // a little more than a window of them
	loadLearn   = 500 * time.Millisecond // the shortest time from which a rate is told
	// loadGrowth is the factor by which the base of a throttled load may grow in a second.
	loadGrowth = 1.05
	// nothing is less than any flow costs, and more than rounding.
	nothing = 1e-9
	// maxMultiplier bounds load multipliers: beyond it, nothing is limited anyway.
	maxMultiplier = 1e6
)

func newLoadBucket(now limit.Instant) *loadBucket {
	b := &loadBucket{hot: make([]arrivals, stripes), resumed: now, turned: now, expectAt: now}
	b.rule = limit.BucketRule{Capacity: 1, Interval: time.Second, Continuous: true}
	b.samples[0] = arrived{at: now}
	b.next.Store(int64(now.Add(loadPeriod)))
	return b
}

// arrive counts a flow that asks for n tokens.
func (b *loadBucket) arrive(stripe int, n float64, now limit.Instant) {
	if int64(now) >= b.next.Load() {
		b.mu.Lock()
		b.sampleLocked(now)
		b.mu.Unlock()
	}
	b.hot[stripe].tokens.add(n)
	if n > b.largest.load() {
		b.largest.raise(n)
	}
}

// incoming is the tokens counted so far, as they were asked for.
func (b *loadBucket) incoming() (n float64) {
	for i := range b.hot {
		n += b.hot[i].tokens.load()
	}
	return n
}

// sampleLocked notes how many tokens have come, if it is time to. REQUIRES mu.
func (b *loadBucket) sampleLocked(now limit.Instant) {
	last := &b.samples[b.newest]
	if now < last.at.Add(loadPeriod) {
		return
	}
	total := b.incoming()
	if total-b.atLocked(now.Add(-loadWindow), now) <= nothing {
		b.resumed = now
	}
	b.newest = (b.newest + 1) % loadSamples
	b.samples[b.newest] = arrived{now, total}
	b.next.Store(int64(now.Add(loadPeriod)))
	if now.Sub(b.turned) >= loadWindow {
		b.before, b.turned = b.largest.load(), now
		b.largest.store(0)
	}
}

// rateLocked is the mean rate of arrivals over the window, or since traffic began; false when that was just
// now, or nothing came. REQUIRES mu.
func (b *loadBucket) rateLocked(now limit.Instant) (float64, bool) {
	span := min(loadWindow, now.Sub(b.resumed))
	if span < loadLearn {
		return 0, false
	}
	n := b.incoming() - b.atLocked(now.Add(-span), now)
	if n <= nothing {
		return 0, false
	}
	return n / span.Seconds(), true
}

// atLocked is how many tokens had come at an instant of the window. Samples are taken by flows: what came
// after one came within the period that follows it, and then none until the next sample.
func (b *loadBucket) atLocked(at, now limit.Instant) float64 {
	after := arrived{now, b.incoming()}
	for i := range loadSamples {
		s := &b.samples[(b.newest-i+loadSamples)%loadSamples]
		if s.at == 0 {
			break
		}
		if s.at > at {
			after = *s
			continue
		}
		end := min(after.at, s.at.Add(loadPeriod))
		if at >= end || end <= s.at {
			return after.tokens
		}
		return s.tokens + (after.tokens-s.tokens)*float64(at-s.at)/float64(end-s.at)
	}
	return after.tokens // before the oldest sample
}

// largestLocked is the largest flow of late, at least 1 token. REQUIRES mu.
func (b *loadBucket) largestLocked() float64 {
	return min(max(1, b.largest.load(), b.before), limit.MaxTokens)
}

// steer puts a load multiplier into force, not negative, and returns the rule that results.
func (b *loadBucket) steer(lm float64, now limit.Instant) limit.BucketRule {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sampleLocked(now)
	b.expectLocked(now)
	rate, known := b.rateLocked(now)
	held, before := b.active && b.throttles && b.base > 0, b.lm
	b.lm, b.throttles, b.learning = lm, lm < 1, false
	switch {
	case !known: // nothing to be relative to: the next flows are measured
		b.base, b.learning = 0, lm > 0
	case held && b.throttles:
		most := b.base * math.Pow(loadGrowth, max(0, now.Sub(b.basedAt).Seconds()))
		if lm > 0 && lm >= before {
			rate = max(rate, b.base*before/lm)
		}
		b.base = min(rate, most)
	default:
		b.base = rate
	}
	b.basedAt = now
	b.applyLocked(now)
	return b.rule
}

// applyLocked makes the bucket fill with what multiplier and base say. REQUIRES mu.
func (b *loadBucket) applyLocked(now limit.Instant) {
	fill := min(b.lm*b.base, limit.MaxTokens)
	rule := limit.BucketRule{
		Capacity: max(fill, b.largestLocked()), FillAmount: fill, Interval: time.Second, Continuous: true,
	}
	if b.active {
		b.bucket.Rebase(&b.rule, &rule, now)
		b.bucket.Available = min(b.bucket.Available, rule.Capacity)
	} else { // one flow may go at once, so that a slow stream goes on, but no burst
		b.bucket = limit.Bucket{Available: b.largestLocked(), FilledAt: max(now, 1)}
	}
	if b.lm == 0 {
		b.bucket.Available = min(b.bucket.Available, 0)
	}
	b.active, b.rule = true, rule
}

// pass lets everything through until the next steer.
func (b *loadBucket) pass(now limit.Instant) {
	b.mu.Lock()
	b.expectLocked(now)
	b.active, b.learning = false, false
	b.mu.Unlock()
}

// expectLocked adds what the base rate makes of the time since the last call: base times the time while load
// is throttled, else what came. REQUIRES mu.
func (b *loadBucket) expectLocked(now limit.Instant) {
	came := b.incoming()
	if b.active && b.throttles && !b.learning && b.base > 0 {
		b.expected += b.base * max(0, now.Sub(b.expectAt).Seconds())
	} else {
		b.expected += came - b.counted
	}
	b.expectAt, b.counted = max(now, b.expectAt), came
}

// baseTokens is the tokens that would have come at the base rate.
func (b *loadBucket) baseTokens(now limit.Instant) float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expectLocked(now)
	return b.expected
}

// take charges n tokens if they are there. free tells that everything passes at the moment.
func (b *loadBucket) take(n float64, now limit.Instant) (c ledger.Charge, free bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.active {
		return ledger.Charge{OK: true}, true
	}
	if b.learning {
		rate, known := b.rateLocked(now)
		if !known {
			return ledger.Charge{OK: true}, true
		}
		b.expectLocked(now)
		b.learning, b.base, b.basedAt = false, rate, now
		b.applyLocked(now)
	}
	if b.lm > 0 && n > b.rule.Capacity && n <= limit.MaxTokens { // the largest flow so far
		b.rule.Capacity = n
	}
	c.Limit = b.rule.Capacity
	c.Wait, c.OK = b.bucket.Take(&b.rule, now, n)
	c.Remaining = max(0, b.bucket.Level(&b.rule, now))
	return c, false
}

// give hands tokens back, or charges more when n is negative.
func (b *loadBucket) give(n float64, now limit.Instant) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.active && b.lm > 0 {
		b.bucket.Give(&b.rule, now, n)
	}
}

// level is what is available now.
func (b *loadBucket) level(now limit.Instant) float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(0, b.bucket.Level(&b.rule, now))
}

// rescale makes tokens counted so far worth ratio times as much, because flows of the same kind cost that
// much more from now on.
func (b *loadBucket) rescale(ratio float64, now limit.Instant) {
	if !(ratio > 0) || math.IsInf(ratio, 0) || ratio == 1 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	total := b.incoming()
	for i := range b.samples {
		if s := &b.samples[i]; s.at != 0 {
			s.tokens = total + (s.tokens-total)*ratio
		}
	}
	b.counted = total + (b.counted-total)*ratio
	b.base *= ratio
	b.before *= ratio
	b.largest.store(b.largest.load() * ratio)
	if b.active {
		rule := b.rule
		rule.Capacity, rule.FillAmount = min(rule.Capacity*ratio, limit.MaxTokens), min(rule.FillAmount*ratio, limit.MaxTokens)
		b.bucket.Rebase(&b.rule, &rule, now)
		b.bucket.Available *= ratio
		b.rule = rule
	}
}

// loadReading is a load bucket at one moment.
type loadReading struct {
	active                                bool
	multiplier, fill, capacity, available float64
}

func (b *loadBucket) read(now limit.Instant) loadReading {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := loadReading{active: b.active && !b.learning}
	if r.active {
		r.multiplier, r.fill, r.capacity = b.lm, b.rule.FillAmount, b.rule.Capacity
		r.available = max(0, b.bucket.Level(&b.rule, now))
	}
	return r
}
