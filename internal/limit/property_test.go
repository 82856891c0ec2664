// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func drawRule(t *rapid.T, continuous bool) BucketRule {
	return BucketRule{
		Capacity:         rapid.SampledFrom([]float64{0, 0.5, 1, 7, 100, 1e6}).Draw(t, "capacity"),
		FillAmount:       rapid.SampledFrom([]float64{0, 0.1, 1, 10, 1e4}).Draw(t, "fill"),
		Interval:         rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, time.Minute}).Draw(t, "interval"),
		Continuous:       continuous,
		DelayInitialFill: rapid.Bool().Draw(t, "delay"),
	}
}

// watcher measures what a bucket lets through and compares it with what any window may let through.
type watcher struct {
	t   *rapid.T
	net []float64 // admitted minus handed back, up to each event
	due []float64 // what the rules filled in, up to each event
	top float64   // the largest capacity
}

func (w *watcher) note(net, due float64) {
	w.net, w.due = append(w.net, net), append(w.due, due)
	for i := range w.net {
		got, most := net-w.net[i], w.top+due-w.due[i]
		if got > most+1e-6+1e-9*most {
			w.t.Fatalf("events %d to %d admitted %v, at most %v may be", i, len(w.net)-1, got, most)
		}
	}
}

// In any window, admitted <= capacity + rate * window, under random takes, returns of what was taken,
// settlements and changes of the rule. Instants come out of order by less than the jitter. Whole
// intervals may end at both edges of a window, so each rule change and window is granted one fill more.
func TestAdmittedNeverExceedsLimit(t *testing.T) {
	t.Run("continuous", rapid.MakeCheck(func(t *rapid.T) { checkBound(t, true) }))
	t.Run("intervals", rapid.MakeCheck(func(t *rapid.T) { checkBound(t, false) }))
}

func checkBound(t *rapid.T, continuous bool) {
	rule := drawRule(t, continuous)
	w := &watcher{t: t, net: []float64{0}, due: []float64{0}, top: rule.Capacity}
	extra := func(r *BucketRule) {
		if !continuous {
			w.top = max(w.top, rule.Capacity+2*r.FillAmount)
		}
	}
	extra(&rule)
	var b Bucket
	now, latest, taken, net, due := t0, t0-Instant(jitter), 0.0, 0.0, 0.0
	for range rapid.IntRange(20, 120).Draw(t, "steps") {
		ahead := rapid.Int64Range(0, int64(rule.Interval)*3).Draw(t, "later")
		now = now.Add(time.Duration(ahead))
		late := rapid.SampledFrom([]time.Duration{0, time.Microsecond, time.Second, jitter}).Draw(t, "late")
		at := now.Add(-late)
		due += rule.FillAmount * float64(max(0, at-latest)) / float64(rule.Interval)
		latest = max(latest, at)
		n := rule.Capacity * rapid.Float64Range(0, 1.1).Draw(t, "n")
		switch rapid.IntRange(0, 9).Draw(t, "op") {
		case 0:
			back := min(n, taken)
			b.Give(&rule, at, back)
			taken -= back
			net -= back
		case 1:
			b.Give(&rule, at, -n)
		case 2:
			next := drawRule(t, continuous)
			w.top = max(w.top, next.Capacity)
			extra(&next)
			b.Rebase(&rule, &next, at)
			rule = next
		default:
			if _, ok := b.Take(&rule, at, n); ok {
				taken += n
				net += n
			}
		}
		w.note(net, due)
	}
}

// A clock that is set forth and back by hours admits at most what all its steps forward are due.
func TestClockJumps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule := drawRule(t, true)
		var b Bucket
		now, admitted, due := t0, 0.0, 0.0
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			step := time.Duration(rapid.Int64Range(-int64(time.Hour), int64(time.Hour)).Draw(t, "step"))
			now = now.Add(step)
			due += rule.FillAmount * max(0, float64(step)) / float64(rule.Interval)
			n := rule.Capacity * rapid.Float64Range(0, 1).Draw(t, "n")
			if _, ok := b.Take(&rule, now, n); ok {
				admitted += n
			}
			if most := rule.Capacity + due; admitted > most+1e-6+1e-9*most {
				t.Fatalf("admitted %v, at most %v may be", admitted, most)
			}
		}
	})
}

// When more is asked for than there is, at least 99.9 % of capacity + rate * time is admitted.
func TestUtilisation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule := BucketRule{
			Capacity:   rapid.Float64Range(10, 1e6).Draw(t, "capacity"),
			Interval:   time.Second,
			Continuous: rapid.Bool().Draw(t, "continuous"),
		}
		rule.FillAmount = rule.Capacity * rapid.Float64Range(0.01, 0.85).Draw(t, "fill") // at 1, a step onto what is left would overflow
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		var b Bucket
		now, admitted := t0, 0.0
		end := t0.Add(200 * rule.Interval)
		for {
			n := rule.FillAmount * rng.Float64() / 10
			wait, ok := b.Take(&rule, now, n)
			if ok {
				admitted += n
			}
			if now = now.Add(wait); now > end {
				break
			}
		}
		if most := rule.Capacity + 200*rule.FillAmount; admitted < 0.999*most || admitted > 1.000001*most {
			t.Fatalf("admitted %v of %v", admitted, most)
		}
	})
}

// Rounding errors must not add up.
func TestLongRunDrift(t *testing.T) {
	takes := 10_000_000
	if testing.Short() {
		takes /= 20
	}
	rule := BucketRule{Capacity: 0.7, FillAmount: 0.7, Interval: 3 * time.Millisecond, Continuous: true}
	rng := rand.New(rand.NewPCG(1, 2))
	var b Bucket
	now, admitted := t0, 0.0
	for range takes {
		n := rng.Float64() / 3
		wait, ok := b.Take(&rule, now, n)
		if ok {
			admitted += n
			continue
		}
		now = now.Add(wait)
	}
	most := rule.Capacity + rule.FillAmount*float64(now-t0)/float64(rule.Interval)
	if admitted > most*(1+1e-9) || admitted < most*0.9999 {
		t.Errorf("admitted %.9f of %.9f", admitted, most)
	}
}

func FuzzBucket(f *testing.F) {
	f.Add(5.0, 2.0, int64(time.Second), true, false, uint8(0), 1.0, -3.0, int64(1), int64(5))
	f.Add(5.0, 5.0, int64(time.Minute), true, false, uint8(3), 6.0, -3.0, int64(math.MinInt64), int64(5))
	f.Add(1e308, math.MaxFloat64, int64(1), false, true, uint8(1), math.NaN(), math.Inf(1), int64(-1), int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, capacity, fill float64, interval int64, continuous, delay bool, window uint8, n, back float64, a, b int64) {
		if !ValidTokens(capacity) || !ValidTokens(fill) || interval <= 0 {
			t.Skip()
		}
		rule := BucketRule{capacity, fill, time.Duration(interval), continuous, delay, window&1 != 0, window&2 != 0}
		var bucket Bucket
		for _, at := range []int64{a, b, a} {
			wait, ok := bucket.Take(&rule, Instant(at), n)
			if ok && !ValidTokens(n) || wait < 0 || ok && wait != 0 {
				t.Fatalf("Take(%v) = %v, %t", n, wait, ok)
			}
			bucket.Give(&rule, Instant(at), back)
			if l := bucket.Level(&rule, Instant(at)); !(l >= -MaxTokens && l <= capacity) {
				t.Fatalf("Level = %v", l)
			}
		}
	})
}

func BenchmarkTake(b *testing.B) {
	rule := BucketRule{Capacity: 1e6, FillAmount: 1e6, Interval: time.Second, Continuous: true}
	var bucket Bucket
	now := t0
	for b.Loop() {
		now += 100
		bucket.Take(&rule, now, 1)
	}
}
