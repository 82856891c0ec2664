// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

var (
	windowed = BucketRule{Capacity: 5, FillAmount: 5, Interval: 10 * time.Second, FixedWindow: true}
	counting = with(windowed, func(r *BucketRule) { r.CountRefused = true })
)

// t0 is a multiple of ten seconds since the epoch.
func TestFixedWindow(t *testing.T) {
	tests := []struct {
		name  string
		rule  BucketRule
		steps []step
	}{
		{"windows begin where the clock says, not at the first take", windowed, []step{
			{at: t8, take: 4, ok: true, left: 1},
			{at: t9, take: 2, wait: time.Second, left: 1},
			{at: t9, take: 1, ok: true, left: 0},
			{at: t9 + 1000*ms - 1, take: 1, wait: 1, left: 0},
			{at: t9 + 1000*ms, take: 5, ok: true, left: 0},
			{at: t9 + 1000*ms, take: 6, wait: Never, left: 0},
		}},
		{"debts end with the window", windowed, []step{
			{at: t0, give: -100, left: -95},
			{at: t9, take: 1, wait: time.Second, left: -95},
			{at: t9 + 1000*ms, take: 5, ok: true, left: 0},
		}},
		{"nothing to wait for when the window is full enough next time only", windowed, []step{
			{at: t0, take: 0, ok: true, left: 5},
			{at: t1, take: 5, ok: true, left: 0},
			{at: t1, give: 2, left: 2},
			{at: t2, take: 3, wait: 8 * time.Second, left: 2},
		}},
		{"what is refused counts", counting, []step{
			{at: t0, take: 3, ok: true, left: 2},
			{at: t1, take: 3, wait: 9 * time.Second, left: -1},
			{at: t2, take: 0, wait: 8 * time.Second, left: -1},
			{at: t3, take: 1, wait: 7 * time.Second, left: -2},
			{at: t9 + 1000*ms, take: 6, wait: Never, left: -1},
			{at: t9 + 1000*ms, take: 1, wait: 10 * time.Second, left: -2},
			{at: t9 + 11000*ms, take: 5, ok: true, left: 0},
		}},
		{"a clock set back by a little", windowed, []step{
			{at: t0, take: 5, ok: true, left: 0},
			{at: t0 - 1, take: 1, wait: 1, left: 0},
			{at: t0, take: 1, wait: 10 * time.Second, left: 0},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { run(t, tt.rule, tt.steps) })
	}
}

// A fixed window decides like a counter per window.
func TestFixedWindowIsACounter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule := BucketRule{
			Capacity: float64(rapid.IntRange(0, 20).Draw(t, "capacity")), FixedWindow: true,
			Interval:     rapid.SampledFrom([]time.Duration{time.Second, time.Minute, 7 * 24 * time.Hour}).Draw(t, "interval"),
			CountRefused: rapid.Bool().Draw(t, "count refused"), Continuous: rapid.Bool().Draw(t, "continuous"),
		}
		rule.FillAmount = rule.Capacity
		var b Bucket
		used := map[int64]float64{}
		now := Instant(rapid.Int64Range(-1e18, 2e18).Draw(t, "start"))
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(rule.Interval)/5).Draw(t, "later")))
			n := float64(rapid.IntRange(0, 25).Draw(t, "n"))
			window := now.Time().UnixNano() / int64(rule.Interval)
			if now < 0 && int64(now)%int64(rule.Interval) != 0 {
				window--
			}
			fits := used[window]+n <= rule.Capacity
			if _, ok := b.Take(&rule, now, n); ok != fits {
				t.Fatalf("Take(%v) = %t with %v of %v used in the window", n, ok, used[window], rule.Capacity)
			}
			if fits || rule.CountRefused {
				used[window] += n
			}
			if left := rule.Capacity - used[window]; b.Level(&rule, now) != left {
				t.Fatalf("Level = %v, want %v", b.Level(&rule, now), left)
			}
			if full := b.Full(&rule, now.Add(rule.Interval)); !full {
				t.Fatal("not full one interval later")
			}
		}
	})
}

func TestRebaseFixedWindow(t *testing.T) {
	larger := with(windowed, func(r *BucketRule) { r.Capacity = 8 })
	tests := []struct {
		name      string
		old, rule BucketRule
		left      float64 // a second after the rule changed, four tokens having been taken before
	}{
		{"a larger limit counts what was used", windowed, larger, 4},
		{"a smaller one too", larger, windowed, 1},
		{"from a bucket that fills", steady, windowed, 2},
		{"to a bucket that fills", windowed, steady, 3},
		{"to a bucket that fills by interval", windowed, stepped, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b Bucket
			b.Take(&tt.old, t1, 4)
			b.Rebase(&tt.old, &tt.rule, t1+500*ms)
			if left := b.Level(&tt.rule, t2+500*ms); left != tt.left {
				t.Errorf("Level = %v, want %v", left, tt.left)
			}
		})
	}
}

func TestFullIn(t *testing.T) {
	tests := []struct {
		name  string
		rule  BucketRule
		level float64
		now   Instant
		want  time.Duration
	}{
		{"full", steady, 5, t0, 0},
		{"steady", steady, 4, t0, 500 * time.Millisecond},
		{"by interval", stepped, 2, t0, 2 * time.Second},
		{"debt", steady, -5, t0, 5 * time.Second},
		{"window", windowed, 4, t3, 7 * time.Second},
		{"never", BucketRule{Capacity: 5, Interval: time.Second}, 4, t0, Never},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.rule.FullIn(tt.level, tt.now); got != tt.want {
				t.Errorf("FullIn = %v, want %v", got, tt.want)
			}
		})
	}
}
