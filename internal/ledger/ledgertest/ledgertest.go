// SPDX-License-Identifier: Apache-2.0

// Package ledgertest is the suite that every ledger.Authority must pass.
package ledgertest

import (
	"context"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
)

// Config says what is tested.
type Config struct {
	// Open returns an authority without accounts and closes it when the test ends.
	Open func(t *testing.T) ledger.Authority
	// Advance makes time pass for the authority, at most a second a call. nil: the authority believes
	// the instants it is given.
	Advance func(d time.Duration)
}

// Run runs the suite.
func Run(t *testing.T, cfg Config) {
	tests := []struct {
		name string
		f    func(*testing.T, *fixture)
	}{
		{"BucketTake", bucketTake},
		{"BucketWaitIsHonest", bucketWait},
		{"BucketGive", bucketGive},
		{"BucketLevelChangesNothing", bucketLevel},
		{"BucketConfigure", bucketConfigure},
		{"BucketForget", bucketForget},
		{"BucketHostileCosts", bucketHostile},
		{"BucketKeys", bucketKeys},
		{"BucketConcurrency", bucketConcurrency},
		{"SlotsTakeRelease", slotsTakeRelease},
		{"SlotsBySize", slotsBySize},
		{"SlotsForgedRelease", slotsForged},
		{"SlotsExpiry", slotsExpiry},
		{"SlotsExpiryOfShortenedRule", slotsShortened},
		{"SlotsConfigure", slotsConfigure},
		{"SlotsForget", slotsForget},
		{"SlotsHostileCosts", slotsHostile},
		{"SlotsKeys", slotsKeys},
		{"SlotsConcurrency", slotsConcurrency},
		{"KindsAreApart", kindsApart},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := &fixture{Authority: cfg.Open(t), t: t, advance: cfg.Advance}
			f.start = f.Now()
			tt.f(t, f)
		})
	}
}

// fixture is an authority and the time of the test.
type fixture struct {
	ledger.Authority
	t       *testing.T
	advance func(time.Duration)
	start   limit.Instant
	passed  time.Duration
}

func (f *fixture) now() limit.Instant {
	if f.advance != nil {
		return f.Now()
	}
	return f.start.Add(f.passed)
}

func (f *fixture) sleep(d time.Duration) {
	f.passed += d
	if f.advance != nil {
		f.advance(d)
	}
}

func (f *fixture) bucket(b ledger.Buckets, key string, n float64) ledger.Charge {
	f.t.Helper()
	c, err := b.Take(context.Background(), key, n, f.now())
	if err != nil {
		f.t.Fatalf("Take(%q, %v): %v", key, n, err)
	}
	if c.Slot != 0 || c.Remaining < 0 || c.OK == (c.Wait > 0) {
		f.t.Fatalf("Take(%q, %v) = %+v: impossible", key, n, c)
	}
	return c
}

func (f *fixture) slot(s ledger.Slots, key string, n float64) ledger.Charge {
	f.t.Helper()
	c, err := s.Take(context.Background(), key, n, f.now())
	if err != nil {
		f.t.Fatalf("Take(%q, %v): %v", key, n, err)
	}
	if c.OK == (c.Slot == 0) || c.Remaining < 0 {
		f.t.Fatalf("Take(%q, %v) = %+v: impossible", key, n, c)
	}
	return c
}

// want checks an answer; remaining may be up to half a token more, by time.
func (f *fixture) want(c ledger.Charge, ok bool, remaining float64) {
	f.t.Helper()
	if c.OK != ok || c.Remaining < remaining-1e-6 || c.Remaining > remaining+0.5 {
		f.t.Fatalf("got %+v, want OK %t, Remaining %v", c, ok, remaining)
	}
}

// slow fills a token in twenty seconds, quick in a twentieth.
var (
	slow  = limit.BucketRule{Capacity: 5, FillAmount: 1, Interval: 20 * time.Second, Continuous: true}
	quick = limit.BucketRule{Capacity: 5, FillAmount: 20, Interval: time.Second, Continuous: true}
	fixed = limit.BucketRule{Capacity: 5, Interval: time.Second}
)

func bucketTake(t *testing.T, f *fixture) {
	b := f.Buckets(1, slow)
	for i := range 5 {
		f.want(f.bucket(b, "a", 1), true, 4-float64(i))
	}
	c := f.bucket(b, "a", 1)
	f.want(c, false, 0)
	if c.Limit != 5 || c.Wait > 20*time.Second {
		t.Errorf("got %+v, want Limit 5 and a Wait of at most 20s", c)
	}
	f.want(f.bucket(b, "b", 5), true, 0) // another key, and exactly what there is
	if c := f.bucket(b, "c", 5.5); c.OK || c.Wait != limit.Never || c.Remaining != 5 {
		t.Errorf("more than the capacity: %+v", c)
	}
	f.want(f.bucket(b, "a", 0), true, 0)
}

func bucketWait(t *testing.T, f *fixture) {
	b := f.Buckets(1, quick)
	f.bucket(b, "a", 5)
	for range 5 {
		c := f.bucket(b, "a", 2)
		for c.OK { // a real clock may have moved on
			c = f.bucket(b, "a", 2)
		}
		f.sleep(c.Wait)
		if c := f.bucket(b, "a", 2); !c.OK {
			t.Fatalf("refused after waiting as told: %+v", c)
		}
	}
	b = f.Buckets(2, fixed)
	f.bucket(b, "a", 5)
	if c := f.bucket(b, "a", 1); c.Wait != limit.Never {
		t.Errorf("a bucket that does not fill: %+v", c)
	}
}

func bucketGive(t *testing.T, f *fixture) {
	b := f.Buckets(1, slow)
	b.Give("a", 3, f.now())
	f.want(f.bucket(b, "a", 5), true, 0)
	b.Give("a", 2, f.now())
	f.want(f.bucket(b, "a", 3), false, 2)
	b.Give("a", 100, f.now())
	f.want(f.bucket(b, "a", 1), true, 4)
	b.Give("a", -7, f.now()) // 3 tokens of debt: a minute and one token more
	c := f.bucket(b, "a", 1)
	f.want(c, false, 0)
	if c.Wait < 60*time.Second || c.Wait > 80*time.Second {
		t.Errorf("wait out of debt = %v, want 60s..80s", c.Wait)
	}
	b.Give("new", -4, f.now())
	f.want(f.bucket(b, "new", 0), true, 1)
}

func bucketLevel(t *testing.T, f *fixture) {
	b := f.Buckets(1, slow)
	for range 10 {
		if c := b.Level("a", f.now()); c.Remaining != 5 || c.Limit != 5 || c.OK {
			t.Fatalf("Level = %+v", c)
		}
	}
	f.bucket(b, "a", 4)
	f.want(b.Level("a", f.now()), false, 1)
	f.want(f.bucket(b, "a", 1), true, 0)
}

func bucketConfigure(t *testing.T, f *fixture) {
	b := f.Buckets(1, slow)
	f.bucket(b, "a", 3)
	larger := slow
	larger.Capacity = 50
	b.Configure(larger)
	f.want(f.bucket(b, "a", 1), true, 1)    // nothing is given for the edit
	f.want(f.bucket(b, "new", 1), true, 49) // who comes now has the new rule
	again := f.Buckets(1, quick)            // the same accounts
	f.want(f.bucket(again, "a", 1), true, 0)
	f.want(f.bucket(b, "new", 5), true, 0) // no more than the new capacity
	f.sleep(100 * time.Millisecond)        // two tokens
	if c := f.bucket(b, "a", 1); !c.OK {
		t.Errorf("the new rule does not fill: %+v", c)
	}
	if other := f.Buckets(2, slow); !f.bucket(other, "a", 5).OK {
		t.Error("two limiters share an account")
	}
}

func bucketForget(t *testing.T, f *fixture) {
	b, other := f.Buckets(1, slow), f.Buckets(2, slow)
	f.bucket(b, "a", 5)
	f.bucket(other, "a", 5)
	f.Forget(1)
	f.Forget(3) // never heard of
	f.want(f.bucket(f.Buckets(1, slow), "a", 1), true, 4)
	f.want(f.bucket(other, "a", 1), false, 0)
}

var hostile = []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, -1e308, 1e308, math.MaxFloat64}

func bucketHostile(t *testing.T, f *fixture) {
	b := f.Buckets(1, slow)
	for _, key := range []string{"new", "used"} {
		if key == "used" {
			f.bucket(b, key, 3)
		}
		for _, n := range hostile {
			if c := f.bucket(b, key, n); c.OK || c.Wait != limit.Never {
				t.Errorf("Take(%v) = %+v", n, c)
			}
		}
	}
	f.want(b.Level("new", f.now()), false, 5)
	f.want(b.Level("used", f.now()), false, 2)
	b.Give("used", math.NaN(), f.now())
	f.want(b.Level("used", f.now()), false, 2)
}

// keys are all different accounts.
func keys() []string {
	prefix := strings.Repeat("p", 20)
	exact := strings.Repeat("x", 36)
	long := strings.Repeat("l", 300)
	return []string{
		"", "\x00", "\x00\x00", "a", "a\x00", "A", " a", "ä", "a\u0308",
		"\xff", "\xff\xfe", "\xc3", "\xed\xa0\x80", // not UTF-8
		prefix, prefix + "1", prefix + strings.Repeat("-", 16), prefix + strings.Repeat("-", 17),
		prefix + strings.Repeat("-", 18), prefix + strings.Repeat("-", 17) + "1",
		exact, exact + "x", exact + "y", exact[:35], exact[:35] + "\x00",
		long, long + "1", long[:299] + "m", strings.Repeat("k", 64<<10), strings.Repeat("k", 64<<10) + "k",
	}
}

func bucketKeys(t *testing.T, f *fixture) {
	b := f.Buckets(1, slow)
	for i, k := range keys() {
		if c := f.bucket(b, k, 1+float64(i%4)); !c.OK {
			t.Fatalf("key %d, %.40q, is another key's account", i, k)
		}
	}
	for i, k := range keys() {
		f.want(b.Level(k, f.now()), false, 4-float64(i%4))
	}
}

func bucketConcurrency(t *testing.T, f *fixture) {
	rule := limit.BucketRule{Capacity: 1000, Interval: time.Second}
	var admitted [3]atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			b := f.Buckets(1, rule)
			for i := range 600 {
				k := (g + i) % len(admitted)
				c, err := b.Take(context.Background(), string('a'+rune(k)), 1, f.now())
				if err != nil {
					t.Error(err)
					return
				}
				if !c.OK {
					continue
				}
				if i%5 == 0 {
					b.Give(string('a'+rune(k)), 1, f.now())
				} else {
					admitted[k].Add(1)
				}
			}
		})
	}
	wg.Wait()
	for k := range admitted {
		if n := admitted[k].Load(); n != 1000 {
			t.Errorf("key %d: admitted %d, want 1000", k, n)
		}
	}
}

// held is a rule whose slots do not expire during a test.
func held(n float64) ledger.SlotRule { return ledger.SlotRule{Max: n, MaxInFlight: time.Hour} }

func slotsTakeRelease(t *testing.T, f *fixture) {
	s := f.Slots(1, held(2))
	a := f.slot(s, "k", 1)
	b := f.slot(s, "k", 1)
	f.want(a, true, 1)
	f.want(b, true, 0)
	c := f.slot(s, "k", 1)
	f.want(c, false, 0)
	if c.Limit != 2 || c.Wait > time.Hour || c.Wait < 59*time.Minute {
		t.Errorf("got %+v, want Limit 2, Wait about an hour", c)
	}
	f.want(f.slot(s, "other", 1), true, 1)
	if !s.Release("k", a.Slot) {
		t.Error("a held slot was not released")
	}
	if s.Release("k", a.Slot) {
		t.Error("released twice")
	}
	f.want(f.slot(s, "k", 1), true, 0)
	if s.Release("k", a.Slot) {
		t.Error("released a third time, after the slot went to somebody else")
	}
	f.want(s.Level("k", f.now()), false, 0)
	if !s.Release("k", b.Slot) {
		t.Error("a held slot was not released")
	}
	f.want(s.Level("k", f.now()), false, 1)
	if c := s.Level("nobody", f.now()); c.Remaining != 2 || c.Wait != limit.Never {
		t.Errorf("Level of an unused account = %+v", c)
	}
}

// The size of a request counts, not only that it is one more.
func slotsBySize(t *testing.T, f *fixture) {
	s := f.Slots(1, held(10))
	big := f.slot(s, "k", 7)
	f.want(big, true, 3)
	f.want(f.slot(s, "k", 4), false, 3)
	f.want(f.slot(s, "k", 3), true, 0)
	s.Release("k", big.Slot)
	f.want(f.slot(s, "k", 6.5), true, 0.5)
	if c := f.slot(s, "k", 11); c.OK || c.Wait != limit.Never {
		t.Errorf("more than there are: %+v", c)
	}
	if c := f.slot(f.Slots(2, held(0)), "k", 1); c.OK || c.Wait != limit.Never {
		t.Errorf("none at all: %+v", c)
	}
}

func slotsForged(t *testing.T, f *fixture) {
	s, other := f.Slots(1, held(1)), f.Slots(2, held(1))
	a := f.slot(s, "a", 1)
	f.slot(s, "b", 1)
	f.slot(other, "a", 1)
	for _, id := range []ledger.SlotID{0, 1, a.Slot + 1, a.Slot - 1, a.Slot ^ 1<<30, a.Slot ^ 1<<63, math.MaxUint64} {
		if s.Release("a", id) {
			t.Errorf("forged slot %x was released", id)
		}
	}
	if s.Release("b", a.Slot) || s.Release("", a.Slot) || s.Release("nobody", a.Slot) || other.Release("a", a.Slot) {
		t.Error("released by somebody else")
	}
	if c := f.slot(s, "a", 1); c.OK {
		t.Errorf("a slot came free: %+v", c)
	}
	if !s.Release("a", a.Slot) {
		t.Error("the rightful owner was refused")
	}
}

func slotsExpiry(t *testing.T, f *fixture) {
	s := f.Slots(1, ledger.SlotRule{Max: 2, MaxInFlight: 300 * time.Millisecond})
	a := f.slot(s, "k", 1)
	f.sleep(100 * time.Millisecond)
	b := f.slot(s, "k", 1)
	c := f.slot(s, "k", 1)
	f.want(c, false, 0)
	if c.Wait > 200*time.Millisecond {
		t.Errorf("the first slot expires in at most 200ms, not in %v", c.Wait)
	}
	if next := s.Expire("k", f.now()); next > 200*time.Millisecond {
		t.Errorf("Expire = %v, want at most 200ms", next)
	}
	f.sleep(c.Wait)
	f.want(f.slot(s, "k", 1), true, 0)
	if s.Release("k", a.Slot) {
		t.Error("an expired slot was released")
	}
	if !s.Release("k", b.Slot) {
		t.Error("a slot expired too early")
	}
	f.sleep(400 * time.Millisecond)
	if next := s.Expire("k", f.now()); next != limit.Never {
		t.Errorf("all have expired, but the next is to in %v", next)
	}
	f.want(s.Level("k", f.now()), false, 2)
}

// After the rule was shortened, later slots expire before earlier ones.
func slotsShortened(t *testing.T, f *fixture) {
	s := f.Slots(1, ledger.SlotRule{Max: 4, MaxInFlight: time.Hour})
	long := f.slot(s, "k", 1)
	s.Configure(ledger.SlotRule{Max: 4, MaxInFlight: 200 * time.Millisecond})
	f.slot(s, "k", 1)
	f.sleep(50 * time.Millisecond)
	short := f.slot(s, "k", 2)
	if c := f.slot(s, "k", 1); c.OK || c.Wait > 150*time.Millisecond {
		t.Fatalf("got %+v, want a wait of at most 150ms", c)
	}
	f.sleep(160 * time.Millisecond)
	f.want(f.slot(s, "k", 1), true, 0)
	f.sleep(time.Second)
	f.want(s.Level("k", f.now()), false, 3)
	if s.Release("k", short.Slot) || !s.Release("k", long.Slot) {
		t.Error("the wrong slots have expired")
	}
}

func slotsConfigure(t *testing.T, f *fixture) {
	s := f.Slots(1, held(5))
	var slots []ledger.SlotID
	for range 5 {
		slots = append(slots, f.slot(s, "k", 1).Slot)
	}
	s.Configure(held(2)) // the five go on
	for i, id := range slots {
		if c := f.slot(s, "k", 1); c.OK != (i > 3) {
			t.Fatalf("%d of 2 held: %+v", 5-i, c)
		}
		if !s.Release("k", id) {
			t.Fatal("lost by a change of the rule")
		}
	}
	f.want(f.slot(f.Slots(1, held(9)), "k", 1), true, 7)
}

func slotsForget(t *testing.T, f *fixture) {
	s, other := f.Slots(1, held(3)), f.Slots(2, held(3))
	a, b := f.slot(s, "k", 3), f.slot(other, "k", 3)
	f.slot(s, "l", 1)
	f.Forget(1)
	s = f.Slots(1, held(3))
	if s.Release("k", a.Slot) {
		t.Error("a forgotten slot was released")
	}
	f.want(f.slot(s, "k", 3), true, 0)
	if !other.Release("k", b.Slot) {
		t.Error("another limiter's slot was forgotten")
	}
}

func slotsHostile(t *testing.T, f *fixture) {
	s := f.Slots(1, held(3))
	f.slot(s, "k", 2)
	for _, n := range hostile {
		if c := f.slot(s, "k", n); c.OK || c.Wait != limit.Never {
			t.Errorf("Take(%v) = %+v", n, c)
		}
	}
	f.want(f.slot(s, "k", 1), true, 0)
}

func slotsKeys(t *testing.T, f *fixture) {
	s := f.Slots(1, held(1))
	ids := map[string]ledger.SlotID{}
	for i, k := range keys() {
		c := f.slot(s, k, 1)
		if !c.OK {
			t.Fatalf("key %d, %.40q, is another key's account", i, k)
		}
		ids[k] = c.Slot
	}
	for i, k := range keys() {
		if !s.Release(k, ids[k]) {
			t.Errorf("key %d, %.40q: not released", i, k)
		}
	}
}

func slotsConcurrency(t *testing.T, f *fixture) {
	const most = 3
	var inFlight, peak, admitted atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			s := f.Slots(1, held(most))
			for i := range 300 {
				n := int64(1 + (g+i)%2)
				c, err := s.Take(context.Background(), "k", float64(n), f.now())
				if err != nil {
					t.Error(err)
					return
				}
				if !c.OK {
					continue
				}
				now := inFlight.Add(n)
				for p := peak.Load(); now > p && !peak.CompareAndSwap(p, now); p = peak.Load() {
				}
				admitted.Add(1)
				inFlight.Add(-n)
				if !s.Release("k", c.Slot) {
					t.Error("a held slot was not released")
				}
			}
		})
	}
	wg.Wait()
	if peak.Load() > most || admitted.Load() == 0 {
		t.Errorf("%d of %d slots in flight at once; %d takes admitted", peak.Load(), most, admitted.Load())
	}
	if c := f.Slots(1, held(most)).Level("k", f.now()); c.Remaining != most {
		t.Errorf("all released, but %+v", c)
	}
}

func kindsApart(t *testing.T, f *fixture) {
	b, s := f.Buckets(1, slow), f.Slots(1, held(1))
	f.want(f.bucket(b, "k", 5), true, 0)
	f.want(f.slot(s, "k", 1), true, 0)
	f.want(f.bucket(b, "k", 1), false, 0)
}
