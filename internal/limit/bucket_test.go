// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"math"
	"testing"
	"time"
)

// Named instants, a second apart.
const (
	t0 Instant = 1_700_000_000_000_000_000
	t1         = t0 + Instant(time.Second)
	t2         = t1 + Instant(time.Second)
	t3         = t2 + Instant(time.Second)
	t4         = t3 + Instant(time.Second)
	t5         = t4 + Instant(time.Second)
	t6         = t5 + Instant(time.Second)
	t7         = t6 + Instant(time.Second)
	t8         = t7 + Instant(time.Second)
	t9         = t8 + Instant(time.Second)
)

const ms = Instant(time.Millisecond)

// step is one call and what must come of it.
type step struct {
	at   Instant
	take float64 // tokens asked for; ignored when give is set
	give float64 // tokens handed back, or, negative, charged without asking
	ok   bool
	wait time.Duration // of a refusal
	left float64       // Level afterwards
}

func run(t *testing.T, rule BucketRule, steps []step) {
	t.Helper()
	var b Bucket
	for i, s := range steps {
		if s.give != 0 {
			b.Give(&rule, s.at, s.give)
		} else {
			told := b.Wait(&rule, s.at, s.take)
			wait, ok := b.Take(&rule, s.at, s.take)
			if ok != s.ok || wait != s.wait {
				t.Errorf("step %d: Take(%v) = %v, %t, want %v, %t", i, s.take, wait, ok, s.wait, s.ok)
			}
			if told != wait {
				t.Errorf("step %d: Wait(%v) = %v, but Take says %v", i, s.take, told, wait)
			}
		}
		if left := b.Level(&rule, s.at); math.Abs(left-s.left) > 1e-9*max(1, math.Abs(s.left)) {
			t.Errorf("step %d: Level = %v, want %v", i, left, s.left)
		}
	}
}

var (
	steady  = BucketRule{Capacity: 5, FillAmount: 2, Interval: time.Second, Continuous: true}
	stepped = BucketRule{Capacity: 5, FillAmount: 2, Interval: time.Second}
)

func with(r BucketRule, change func(*BucketRule)) BucketRule {
	change(&r)
	return r
}

func delayed(r BucketRule) BucketRule {
	return with(r, func(r *BucketRule) { r.DelayInitialFill = true })
}

func TestBucketFill(t *testing.T) {
	tests := []struct {
		name  string
		rule  BucketRule
		steps []step
	}{
		{"continuous", steady, []step{
			{at: t0, take: 5, ok: true, left: 0}, // exactly what is there
			{at: t0, take: 1, wait: 500 * time.Millisecond, left: 0},
			{at: t0 + 250*ms, take: 1, wait: 250 * time.Millisecond, left: 0.5},
			{at: t0 + 500*ms, take: 1, ok: true, left: 0},
			{at: t3, take: 0, ok: true, left: 5},
			{at: t9, take: 5, ok: true, left: 0}, // no more than the capacity has gathered
			{at: t9, take: 5, wait: 2500 * time.Millisecond, left: 0},
		}},
		{"whole intervals", stepped, []step{
			{at: t0, take: 4, ok: true, left: 1},
			{at: t1 - 1, take: 2, wait: 1, left: 1},
			{at: t1, take: 2, ok: true, left: 1},
			{at: t1 + 500*ms, take: 4, wait: 1500 * time.Millisecond, left: 1},
			{at: t2 + 999*ms, take: 3, ok: true, left: 0},
			{at: t3, take: 2, ok: true, left: 0}, // intervals are counted from the first take
			{at: t8, take: 5, ok: true, left: 0},
			{at: t8, take: 5, wait: 3 * time.Second, left: 0},
		}},
		{"continuous, initial fill delayed", delayed(steady), []step{
			{at: t0, take: 1, ok: true, left: 4}, // no filling until t2.5
			{at: t2, take: 4, ok: true, left: 0},
			{at: t2, take: 1, wait: time.Second, left: 0},
			{at: t2 + 500*ms, take: 1, wait: 500 * time.Millisecond, left: 0},
			{at: t3, take: 1, ok: true, left: 0},
			{at: t4, take: 2, ok: true, left: 0},
			{at: t9, take: 1, ok: true, left: 4}, // full again: armed again
			{at: t9 + 2000*ms, take: 4, ok: true, left: 0},
			{at: t9 + 2500*ms, take: 1, wait: 500 * time.Millisecond, left: 0},
		}},
		{"whole intervals, initial fill delayed", delayed(stepped), []step{
			{at: t0, take: 5, ok: true, left: 0}, // the first fill comes at t3
			{at: t0, take: 2, wait: 3 * time.Second, left: 0},
			{at: t2, take: 1, wait: time.Second, left: 0},
			{at: t3, take: 1, ok: true, left: 1},
			{at: t4, take: 3, ok: true, left: 0},
		}},
		{"an undone take does not delay the fill again and again", delayed(steady), []step{
			{at: t0, take: 1, ok: true, left: 4},
			{at: t1, give: 1, left: 5},
			{at: t1, take: 1, ok: true, left: 4},
			{at: t2, give: 1, left: 5},
			{at: t2, take: 5, ok: true, left: 0},
			{at: t3, take: 1, ok: true, left: 0}, // filling since t2.5
		}},
		{"a take of nothing does not delay the fill", delayed(steady), []step{
			{at: t0, take: 0, ok: true, left: 5},
			{at: t1, take: 5, ok: true, left: 0},
			{at: t4, take: 1, ok: true, left: 0}, // t1 + 2.5 s + 0.5 s
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { run(t, tt.rule, tt.steps) })
	}
}

func TestBucketGive(t *testing.T) {
	tests := []struct {
		name  string
		rule  BucketRule
		steps []step
	}{
		{"undo", steady, []step{
			{at: t0, take: 5, ok: true, left: 0},
			{at: t0, give: 5, left: 5},
			{at: t0, take: 5, ok: true, left: 0},
		}},
		{"never more than the capacity", steady, []step{
			{at: t0, take: 1, ok: true, left: 4},
			{at: t0, give: 100, left: 5},
			{at: t1, give: 1, left: 5},
		}},
		{"to a bucket never used", steady, []step{
			{at: t0, give: 3, left: 5},
			{at: t0, take: 5, ok: true, left: 0},
			{at: t0, take: 1, wait: 500 * time.Millisecond, left: 0},
		}},
		{"a flow that cost more puts the bucket into debt", steady, []step{
			{at: t0, take: 1, ok: true, left: 4},
			{at: t0, give: -8, left: -4},
			{at: t1, take: 1, wait: 1500 * time.Millisecond, left: -2},
			{at: t2 + 500*ms, take: 1, ok: true, left: 0},
		}},
		{"debt of a bucket never used", stepped, []step{
			{at: t0, give: -6, left: -1},
			{at: t0, take: 1, wait: time.Second, left: -1},
			{at: t1, take: 1, ok: true, left: 0},
		}},
		{"debt is bounded, and what is no number ignored", steady, []step{
			{at: t0, take: 1, ok: true, left: 4},
			{at: t0, give: math.NaN(), left: 4},
			{at: t0, give: math.Inf(1), left: 5},
			{at: t0, give: math.Inf(-1), left: -MaxTokens},
			{at: t0, give: -MaxTokens, left: -MaxTokens},
			{at: t0, give: 1e308, left: 0},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { run(t, tt.rule, tt.steps) })
	}
}

func TestBucketClockSteps(t *testing.T) {
	tests := []struct {
		name  string
		rule  BucketRule
		steps []step
	}{
		{"back a little: wait for what was accounted for", steady, []step{
			{at: t5, take: 5, ok: true, left: 0},
			{at: t3, take: 1, wait: 2500 * time.Millisecond, left: 0},
			{at: t5, take: 1, wait: 500 * time.Millisecond, left: 0},
			{at: t3, take: 1, wait: 2500 * time.Millisecond, left: 0},
			{at: t5 + 500*ms, take: 1, ok: true, left: 0},
		}},
		{"back and forth creates nothing", steady, []step{
			{at: t5, take: 3, ok: true, left: 2},
			{at: t0, take: 2, ok: true, left: 0},
			{at: t5, take: 1, wait: 500 * time.Millisecond, left: 0},
			{at: t0, take: 1, wait: 5500 * time.Millisecond, left: 0},
			{at: t5, take: 1, wait: 500 * time.Millisecond, left: 0},
		}},
		{"an hour back: at most one time-to-fill of standing still", steady, []step{
			{at: t5, take: 5, ok: true, left: 0},
			{at: t0 - 3600_000*ms, take: 1, wait: 3 * time.Second, left: 0},
			{at: t0 - 3597_000*ms, take: 1, ok: true, left: 0},
		}},
		{"an hour forth counts as passed", stepped, []step{
			{at: t0, take: 5, ok: true, left: 0},
			{at: t0 + 3600_000*ms, take: 5, ok: true, left: 0},
			{at: t0 + 3600_000*ms, take: 1, wait: time.Second, left: 0},
		}},
		{"before 1970", steady, []step{
			{at: 0, take: 5, ok: true, left: 0},
			{at: 0, take: 1, wait: 500*time.Millisecond + 1, left: 0},
			{at: -5, take: 1, wait: 500*time.Millisecond + 6, left: 0},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { run(t, tt.rule, tt.steps) })
	}
}

func TestBucketExtremes(t *testing.T) {
	tests := []struct {
		name  string
		rule  BucketRule
		steps []step
	}{
		{"no capacity", with(steady, func(r *BucketRule) { r.Capacity = 0 }), []step{
			{at: t0, take: 0, ok: true, left: 0},
			{at: t1, take: 1e-9, wait: Never, left: 0},
			{at: t9, take: 1, wait: Never, left: 0},
		}},
		{"no fill: what is left may go", with(steady, func(r *BucketRule) { r.FillAmount = 0 }), []step{
			{at: t0, take: 4, ok: true, left: 1},
			{at: t1, take: 2, wait: Never, left: 1},
			{at: t9, take: 1, ok: true, left: 0},
		}},
		{"no fill, delayed", delayed(with(stepped, func(r *BucketRule) { r.FillAmount = 0 })), []step{
			{at: t0, take: 4, ok: true, left: 1},
			{at: t9, take: 1, ok: true, left: 0},
			{at: t9, take: 1, wait: Never, left: 0},
		}},
		{"more than the capacity", steady, []step{
			{at: t0, take: 5.000001, wait: Never, left: 5},
			{at: t0, take: 1, ok: true, left: 4},
			{at: t9, take: 6, wait: Never, left: 5},
		}},
		{"hostile costs", steady, []step{
			{at: t0, take: 1e308, wait: Never, left: 5},
			{at: t0, take: math.MaxFloat64, wait: Never, left: 5},
			{at: t0, take: math.Inf(1), wait: Never, left: 5},
			{at: t0, take: math.Inf(-1), wait: Never, left: 5},
			{at: t0, take: math.NaN(), wait: Never, left: 5},
			{at: t0, take: 2, ok: true, left: 3},
			{at: t0, take: -100, wait: Never, left: 3},
			{at: t0, take: 5e-324, ok: true, left: 3},
		}},
		{"huge capacity and fill", BucketRule{MaxTokens, MaxTokens, time.Nanosecond, true, false, false, false}, []step{
			{at: t0, take: MaxTokens, ok: true, left: 0},
			{at: t0, take: MaxTokens, wait: 1, left: 0},
			{at: t0 + 1, take: MaxTokens, ok: true, left: 0},
			{at: math.MaxInt64, take: 1, ok: true, left: MaxTokens - 1},
		}},
		{"huge fill into a small bucket", BucketRule{1, MaxTokens, time.Hour, false, false, false, false}, []step{
			{at: t0, take: 0.5, ok: true, left: 0.5},
			{at: t0, take: 1, wait: time.Hour, left: 0.5}, // never "now" for a refusal
			{at: t0 + 3600_000*ms, take: 1, ok: true, left: 0},
		}},
		{"slower than time itself", BucketRule{MaxTokens, 1e-300, time.Hour, true, true, false, false}, []step{
			{at: t0, take: MaxTokens, ok: true, left: 0},
			{at: t9, take: 1, wait: Never, left: 0},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { run(t, tt.rule, tt.steps) })
	}
}

func TestBucketRebase(t *testing.T) {
	slow := BucketRule{Capacity: 10, FillAmount: 6, Interval: time.Minute, Continuous: true}
	fast := BucketRule{Capacity: 10, FillAmount: 10, Interval: time.Second, Continuous: true}
	slowSteps := with(slow, func(r *BucketRule) { r.Continuous = false })
	fastSteps := with(fast, func(r *BucketRule) { r.Continuous = false })
	minute := t0 + 60_000*ms
	tests := []struct {
		name     string
		old, now BucketRule
		at       Instant // of the change; the bucket was emptied at t0
		read     Instant
		want     float64
	}{
		{"what has passed fills by the old rule", slow, fast, minute, minute, 6},
		{"what comes fills by the new rule", slow, fast, t0, t0 + 500*ms, 5},
		{"no more than the old capacity", with(slow, func(r *BucketRule) { r.Capacity = 3 }), fast, minute, minute, 3},
		{"no more than the new capacity", slow, with(fast, func(r *BucketRule) { r.Capacity = 2 }), minute, minute, 2},
		{"half an interval is half an interval", slowSteps, fastSteps, t0 + 30_000*ms, t0 + 30_499*ms, 0},
		{"and ends when half of the new one has passed", slowSteps, fastSteps, t0 + 30_000*ms, t0 + 30_500*ms, 10},
		{"and the other way round", fastSteps, slowSteps, t0 + 250*ms, t0 + 45_249*ms, 0},
		{"and then", fastSteps, slowSteps, t0 + 250*ms, t0 + 45_250*ms, 6},
		{"part of an interval is no gift to a continuous fill", slowSteps, fast, t0 + 59_000*ms, t0 + 59_000*ms, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b Bucket
			if _, ok := b.Take(&tt.old, t0, tt.old.Capacity); !ok {
				t.Fatal("a new bucket is not full")
			}
			b.Rebase(&tt.old, &tt.now, tt.at)
			if got := b.Level(&tt.now, tt.read); math.Abs(got-tt.want) > 1e-9 {
				t.Errorf("Level = %v, want %v", got, tt.want)
			}
		})
	}
}

// A rule that a circuit changes on every tick must still fill.
func TestRebaseEveryTickDoesNotStarve(t *testing.T) {
	old := BucketRule{Capacity: 1000, FillAmount: 60, Interval: time.Minute}
	var b Bucket
	b.Take(&old, t0, 1000)
	now := t0
	for i := range 600 { // ten minutes of seconds
		rule := old
		rule.FillAmount = 60 + float64(i%2)
		now = now.Add(time.Second)
		b.Rebase(&old, &rule, now)
		old = rule
	}
	if got := b.Level(&old, now); got < 599 || got > 611 {
		t.Errorf("ten intervals of 60 or 61 filled %v", got)
	}
}

func TestBucketFull(t *testing.T) {
	rule := delayed(steady)
	var b Bucket
	if !b.Full(&rule, t0) {
		t.Error("a bucket never used is not full")
	}
	b.Take(&rule, t0, 1)
	b.Give(&rule, t0, 1)
	if b.Full(&rule, t0) {
		t.Error("full while its fill is delayed: forgetting it would arm the delay anew")
	}
	if at := t0.Add(rule.TimeToFill()); !b.Full(&rule, at) {
		t.Error("not full after the delay")
	}
	b = Bucket{}
	b.Rebase(&rule, &steady, t0)
	if b != (Bucket{}) {
		t.Error("a change of rule uses a bucket")
	}
}

// Whoever waits exactly as told is admitted, and a nanosecond earlier is not told to wait again for
// longer than that nanosecond.
func TestWaitIsExact(t *testing.T) {
	rules := []BucketRule{
		{100, 3, time.Second, true, false, false, false},
		{100, 3, time.Second, false, false, false, false},
		{1e6, 1e6 / 3, time.Minute, true, true, false, false},
		{0.3, 0.1, 7 * time.Millisecond, false, true, false, false},
		{1e12, 1e3, time.Nanosecond, true, false, false, false},
		{1, 1e-3, 13 * time.Hour, true, false, false, false},
		{1, 1e12, time.Second, false, false, false, false},
		{100, 100, time.Minute, true, false, true, false},
		{100, 1, 13 * time.Hour, false, false, true, false},
	}
	for _, r := range rules {
		for i := range 1000 {
			var b Bucket
			now := t0 + Instant(i)*7919
			b.Take(&r, now, r.Capacity)
			b.Give(&r, now, -r.Capacity*float64(i%7)/3)
			n := r.Capacity * float64(i+1) / 1000
			now = now.Add(time.Duration(i) * r.Interval / 333)
			wait, ok := b.Take(&r, now, n)
			if ok {
				continue
			}
			if wait <= 0 {
				t.Fatalf("%+v: refused %v with a wait of %v", r, n, wait)
			}
			if _, ok := b.Take(&r, now.Add(wait), n); !ok {
				t.Fatalf("%+v: refused %v after waiting %v as told; %+v", r, n, wait, b)
			}
		}
	}
}

func TestInstantSaturates(t *testing.T) {
	tests := []struct {
		got, want any
	}{
		{Instant(math.MaxInt64 - 1).Add(5), Instant(math.MaxInt64)},
		{Instant(math.MinInt64 + 1).Add(-5), Instant(math.MinInt64)},
		{Instant(5).Add(-3), Instant(2)},
		{Instant(math.MaxInt64).Sub(-1), time.Duration(math.MaxInt64)},
		{Instant(-2).Sub(math.MaxInt64), time.Duration(math.MinInt64)},
		{Instant(7).Sub(9), time.Duration(-2)},
		{Instant(0).Sub(math.MinInt64), time.Duration(math.MaxInt64)},
		{t1.Sub(t0), time.Second},
		{At(t0.Time()), t0},
		{ValidTokens(0) && ValidTokens(MaxTokens), true},
		{ValidTokens(-1) || ValidTokens(MaxTokens+2) || ValidTokens(math.NaN()) || ValidTokens(math.Inf(1)), false},
		{steady.TimeToFill(), 2500 * time.Millisecond},
		{stepped.TimeToFill(), 3 * time.Second},
	}
	for i, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%d: got %v, want %v", i, tt.got, tt.want)
		}
	}
}
