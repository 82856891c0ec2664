// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"math"
	"time"
)

// BucketRule says how a token bucket fills. It is shared by all accounts of a limiter.
type BucketRule struct {
	// Capacity is the number of tokens a full bucket holds: the largest burst. 0 admits nothing that
	// costs anything. 0..MaxTokens.
	Capacity float64
	// FillAmount is the number of tokens added per Interval. 0 never refills. 0..MaxTokens.
	FillAmount float64
	// Interval is the time in which FillAmount is added. More than 0.
	Interval time.Duration
	// Continuous adds tokens steadily; otherwise FillAmount arrives at once at the end of each whole
	// interval, counted from the first take.
	Continuous bool
	// DelayInitialFill gives a full bucket the chance to be emptied before it starts to fill: filling
	// begins one time-to-fill after the first take from a full bucket, so that the first interval does
	// not admit capacity plus fill. It re-arms only when time has filled the bucket up again.
	DelayInitialFill bool
}

// TimeToFill is how long an empty bucket takes to become full; Never when it does not fill.
func (r *BucketRule) TimeToFill() time.Duration {
	if r.Capacity <= 0 {
		return 0
	}
	if r.FillAmount <= 0 {
		return Never
	}
	intervals := r.Capacity / r.FillAmount
	if !r.Continuous {
		intervals = math.Ceil(intervals)
	}
	return duration(intervals * float64(r.Interval))
}

// Bucket is the state of one token bucket. The zero Bucket has never been used and is full.
type Bucket struct {
	// Available tokens at FilledAt; negative after a flow turned out to cost more than was there.
	Available float64
	// FilledAt is up to when filling has been accounted for. In the future while the initial fill is
	// delayed. 0: never used.
	FilledAt Instant
}

// slack is the relative rounding error forgiven when comparing tokens, so that a caller who waits
// exactly as long as it was told is admitted. It makes a debt, not a gift: what is forgiven is still
// charged.
const slack = 1e-9

// maxDebt bounds how negative a bucket may become by settling true costs.
const maxDebt = MaxTokens

// level returns the tokens available now and up to when the filling in them is accounted for.
func (b *Bucket) level(r *BucketRule, now Instant) (float64, Instant) {
	if b.FilledAt == 0 {
		return r.Capacity, now
	}
	dt := now.Sub(b.FilledAt)
	if dt <= 0 {
		return min(b.Available, r.Capacity), b.FilledAt
	}
	if r.Continuous {
		fill := r.FillAmount * (float64(dt) / float64(r.Interval))
		return min(b.Available+fill, r.Capacity), now
	}
	n := dt / r.Interval
	return min(b.Available+float64(n)*r.FillAmount, r.Capacity), b.FilledAt.Add(n * r.Interval)
}

// thaw bounds how long a bucket waits for a clock that jumped back: never more than the delay a rule
// can ask for. Until then nothing is added, so a clock that jumps to and fro creates no tokens.
func (b *Bucket) thaw(r *BucketRule, now Instant) {
	if b.FilledAt <= now {
		return
	}
	if ttf := r.TimeToFill(); ttf != Never && b.FilledAt.Sub(now) > ttf {
		b.FilledAt = now.Add(ttf)
	}
}

// Level returns the tokens available now, without changing anything. Negative means debt.
func (b *Bucket) Level(r *BucketRule, now Instant) float64 {
	n, _ := b.level(r, now)
	return n
}

// Take charges n tokens if they are available. If not, nothing changes and wait says when they will be
// (Never: not by waiting, because n exceeds the capacity or the bucket does not fill). n must be valid.
func (b *Bucket) Take(r *BucketRule, now Instant, n float64) (wait time.Duration, ok bool) {
	b.thaw(r, now)
	have, at := b.level(r, now)
	if n <= have+slack*n {
		b.charge(r, now, have, at, n)
		return 0, true
	}
	return b.wait(r, now, have, at, n), false
}

func (b *Bucket) charge(r *BucketRule, now Instant, have float64, at Instant, n float64) {
	if r.DelayInitialFill && n > 0 && have >= r.Capacity && at <= now && r.FillAmount > 0 {
		at = now.Add(r.TimeToFill())
		if !r.Continuous {
			at = at.Add(-r.Interval) // the first whole interval ends when the delay does
		}
	}
	if at == 0 {
		at = 1
	}
	b.Available, b.FilledAt = have-n, at
}

// Wait tells how long n tokens would have to wait if nobody else took any.
func (b *Bucket) Wait(r *BucketRule, now Instant, n float64) time.Duration {
	have, at := b.level(r, now)
	if n <= have+slack*n {
		return 0
	}
	return b.wait(r, now, have, at, n)
}

func (b *Bucket) wait(r *BucketRule, now Instant, have float64, at Instant, n float64) time.Duration {
	if n > r.Capacity || r.FillAmount <= 0 {
		return Never
	}
	intervals := (n - have) / r.FillAmount
	if !r.Continuous {
		intervals = math.Ceil(intervals - slack)
	}
	d := duration(intervals * float64(r.Interval))
	if d == Never {
		return Never
	}
	return max(0, at.Add(d).Sub(now))
}

// Give hands n tokens back (a flow was denied later, or cost less than expected) or, when n is
// negative, charges more without asking. A bucket never holds more than its capacity.
func (b *Bucket) Give(r *BucketRule, now Instant, n float64) {
	if b.FilledAt == 0 && n >= 0 {
		return // still full
	}
	b.thaw(r, now)
	have, at := b.level(r, now)
	b.Available = max(min(have+n, r.Capacity), -maxDebt)
	b.FilledAt = max(at, 1)
}

// Rebase accounts for all filling under the old rule, so that a new rule counts from now on only.
func (b *Bucket) Rebase(old *BucketRule, now Instant) {
	if b.FilledAt == 0 {
		return
	}
	b.Available, b.FilledAt = b.level(old, now)
}

// Full tells whether the bucket is indistinguishable from one never used, so that its state can be
// forgotten.
func (b *Bucket) Full(r *BucketRule, now Instant) bool {
	have, at := b.level(r, now)
	return have >= r.Capacity && at <= now
}
