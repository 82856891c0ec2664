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
	// not admit capacity plus fill. It re-arms when the bucket is full again and the delay is over.
	DelayInitialFill bool
	// FixedWindow makes the bucket full at the start of every interval, whatever was charged before.
	// Intervals are counted from the Unix epoch, so that those that divide a day begin with it, in UTC.
	// FillAmount, Continuous and DelayInitialFill do not count then.
	FixedWindow bool
	// CountRefused charges a take that is refused as well, so that it spoils the rest of the window. Only
	// with FixedWindow: a debt of any other bucket would outlive the burst that made it.
	CountRefused bool
}

// TimeToFill is how long an empty bucket takes to become full, at most; Never when it does not fill.
func (r *BucketRule) TimeToFill() time.Duration {
	if r.Capacity <= 0 {
		return 0
	}
	if r.FixedWindow {
		return r.Interval
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

// FullIn is how long a bucket with this level now takes to become full if nobody takes anything; Never
// when it does not fill.
func (r *BucketRule) FullIn(level float64, now Instant) time.Duration {
	switch {
	case level >= r.Capacity:
		return 0
	case r.FixedWindow:
		return r.window(now).Add(r.Interval).Sub(now)
	case r.FillAmount <= 0:
		return Never
	}
	intervals := (r.Capacity - level) / r.FillAmount
	if !r.Continuous {
		intervals = math.Ceil(intervals)
	}
	return duration(intervals * float64(r.Interval))
}

// window is when the interval began that an instant lies in.
func (r *BucketRule) window(now Instant) Instant {
	into := now % Instant(r.Interval)
	if into < 0 {
		into += Instant(r.Interval)
	}
	return now.Add(-time.Duration(into))
}

// counts tells whether refused takes are charged.
func (r *BucketRule) counts() bool { return r.FixedWindow && r.CountRefused }

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

// jitter is how late a caller may come with an instant it read: it was descheduled, or waited for a
// lock, and others have been served at later instants meanwhile. Only an instant further behind than
// this means that the clock was set back.
const jitter = 10 * time.Second

// used returns at as a value of FilledAt, where 0 would mean never used.
func used(at Instant) Instant {
	if at == 0 {
		return 1
	}
	return at
}

// level returns the tokens available now and up to when the filling in them is accounted for.
func (b *Bucket) level(r *BucketRule, now Instant) (float64, Instant) {
	if b.FilledAt == 0 {
		return r.Capacity, now
	}
	dt := now.Sub(b.FilledAt)
	if dt <= 0 {
		return min(b.Available, r.Capacity), b.FilledAt
	}
	if r.FixedWindow {
		if start := r.window(now); start > b.FilledAt {
			return r.Capacity, start
		}
		return min(b.Available, r.Capacity), b.FilledAt
	}
	if r.Continuous {
		fill := r.FillAmount * (float64(dt) / float64(r.Interval))
		return min(b.Available+fill, r.Capacity), now
	}
	n := dt / r.Interval
	return min(b.Available+float64(n)*r.FillAmount, r.Capacity), b.FilledAt.Add(n * r.Interval)
}

// thaw bounds how long a bucket waits for a clock that was set back: to the delay that its rule can ask
// for. Nothing is added until then; but where a clock is set forth and back by more than the jitter,
// the bucket fills each time the clock goes forth.
func (b *Bucket) thaw(r *BucketRule, now Instant) {
	if b.FilledAt <= now || b.FilledAt == 0 {
		return
	}
	if ttf := r.TimeToFill(); b.FilledAt.Sub(now)-jitter > ttf {
		b.FilledAt = used(now.Add(ttf))
	}
}

// Level returns the tokens available now, without changing anything. Negative means debt.
func (b *Bucket) Level(r *BucketRule, now Instant) float64 {
	n, _ := b.level(r, now)
	return n
}

// Take charges n tokens if they are available. If not, nothing changes and wait says when they will be
// (Never: not by waiting, because n exceeds the capacity, is not valid or the bucket does not fill).
func (b *Bucket) Take(r *BucketRule, now Instant, n float64) (wait time.Duration, ok bool) {
	if !ValidTokens(n) {
		return Never, false
	}
	b.thaw(r, now)
	have, at := b.level(r, now)
	if n <= have+slack*n {
		b.charge(r, now, have, at, n)
		return 0, true
	}
	wait = b.wait(r, now, have, at, n)
	if r.counts() {
		b.Available, b.FilledAt = max(have-n, -maxDebt), used(at)
	}
	return wait, false
}

func (b *Bucket) charge(r *BucketRule, now Instant, have float64, at Instant, n float64) {
	if r.DelayInitialFill && !r.FixedWindow && n > 0 && have >= r.Capacity && at <= now && r.FillAmount > 0 {
		at = now.Add(r.TimeToFill())
		if !r.Continuous {
			at = at.Add(-r.Interval) // the first whole interval ends when the delay does
		}
	}
	b.Available, b.FilledAt = have-n, used(at)
}

// Wait tells how long n tokens would have to wait if nobody else took any; Never as for Take.
func (b *Bucket) Wait(r *BucketRule, now Instant, n float64) time.Duration {
	after := *b
	wait, _ := after.Take(r, now, n)
	return wait
}

func (b *Bucket) wait(r *BucketRule, now Instant, have float64, at Instant, n float64) time.Duration {
	if r.FixedWindow && n <= r.Capacity {
		return r.window(now).Add(r.Interval).Sub(now)
	}
	if n > r.Capacity || r.FillAmount <= 0 {
		return Never
	}
	intervals := (n - have) / r.FillAmount
	if !r.Continuous {
		intervals = math.Ceil(intervals)
		// Forgive what Take forgives, but wait for one interval at least.
		if before := have + (intervals-1)*r.FillAmount; intervals > 1 && n <= before+slack*n {
			intervals--
		}
	}
	d := duration(intervals * float64(r.Interval))
	if d == Never {
		return Never
	}
	return max(0, at.Add(d).Sub(now))
}

// Give hands n tokens back (a flow was denied later, or cost less than expected) or, when n is
// negative, charges more without asking. A bucket never holds more than its capacity. An n that is not
// a number changes nothing; beyond MaxTokens it counts as MaxTokens.
func (b *Bucket) Give(r *BucketRule, now Instant, n float64) {
	if b.FilledAt == 0 && n >= 0 || math.IsNaN(n) {
		return // still full, or nothing that can be counted
	}
	b.thaw(r, now)
	have, at := b.level(r, now)
	b.Available = max(min(have+min(n, MaxTokens), r.Capacity), -maxDebt)
	b.FilledAt = used(at)
}

// Rebase makes the bucket go on under another rule: what has filled so far is accounted for under the
// old one. The part of an interval that has passed counts as the same part of the new interval, so that
// changing a rule often neither starves a bucket nor fills it.
func (b *Bucket) Rebase(old, rule *BucketRule, now Instant) {
	if b.FilledAt == 0 {
		return
	}
	have, at := b.level(old, now)
	if old.FixedWindow && rule.FixedWindow {
		have += rule.Capacity - old.Capacity // what counts in a window is how much was used
	}
	if passed := now.Sub(at); passed > 0 && (!old.Continuous || old.FixedWindow) {
		at = now
		if !rule.Continuous && !rule.FixedWindow && !old.FixedWindow {
			part := float64(passed) / float64(old.Interval)
			at = now.Add(-min(rule.Interval, time.Duration(part*float64(rule.Interval))))
		}
	}
	b.Available, b.FilledAt = have, used(at)
}

// Full tells whether the bucket is indistinguishable from one never used, so that its state can be
// forgotten.
func (b *Bucket) Full(r *BucketRule, now Instant) bool {
	have, at := b.level(r, now)
	return have >= r.Capacity && at <= now
}
