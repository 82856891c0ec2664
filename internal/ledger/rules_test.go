// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-project/sluice/internal/limit"
)

// TestBucketsCatchUpWithRules changes rules again and again and compares every account with a bucket that
// is told each change at once, whether its changes are taken lazily or not, and over restarts.
func TestBucketsCatchUpWithRules(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { catchUp(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func catchUp(t *testing.T, rng *rand.Rand) {
	random := func() limit.BucketRule {
		r := limit.BucketRule{
			Capacity: float64(1 + rng.IntN(50)), FillAmount: 20 * rng.Float64(), Continuous: true,
			Interval: time.Duration(1+rng.IntN(2000)) * time.Millisecond,
		}
		switch rng.IntN(40) {
		case 0:
			r.Continuous = false
		case 1:
			r.DelayInitialFill = true
		}
		return r
	}
	dir := t.TempDir()
	m, err := NewMemory(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	rule := random()
	b := m.Buckets(1, rule)
	want := map[string]*limit.Bucket{}
	for range 3000 {
		now := m.Now()
		switch n := rng.IntN(100); {
		case n == 0 && !delayed(want, now):
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			if m, err = NewMemory(Config{Dir: dir}); err != nil {
				t.Fatal(err)
			}
			b = m.Buckets(1, rule)
		case n == 1:
			m.catchUpAll() // as Run does, which also forgets accounts that are full
		case n < 40:
			next := random()
			b.Configure(next)
			for _, w := range want {
				w.Rebase(&rule, &next, now)
			}
			rule = next
		default:
			key, tokens := fmt.Sprint("k", rng.IntN(6)), float64(rng.IntN(12))
			w := want[key]
			if w == nil {
				w = new(limit.Bucket)
				want[key] = w
			}
			if rng.IntN(5) == 0 {
				b.Give(key, tokens, now)
				w.Give(&rule, now, tokens)
				break
			}
			c, err := b.Take(context.Background(), key, tokens, now)
			wait, ok := w.Take(&rule, now, tokens)
			if err != nil || c.OK != ok || c.Wait != wait && math.Abs(float64(c.Wait-wait)) > 1000 {
				t.Fatalf("%s asked for %v: %+v %v, want %v after %v", key, tokens, c, err, ok, wait)
			}
		}
		for key, w := range want {
			if got, wanted := b.Level(key, now).Remaining, max(0, w.Level(&rule, now)); math.Abs(got-wanted) > 1e-6 {
				t.Fatalf("%s has %v, want %v", key, got, wanted)
			}
		}
		time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// delayed tells whether the initial fill of a bucket is. A restart forgets that, and a limit that falls and
// rises again meanwhile does not take the tokens away that it should.
func delayed(buckets map[string]*limit.Bucket, now limit.Instant) bool {
	for _, b := range buckets {
		if b.FilledAt > now {
			return true
		}
	}
	return false
}

// TestRulesAreBounded: without Run, too, a bucket has a bounded number of rules to catch up with.
func TestRulesAreBounded(t *testing.T) {
	m, err := NewMemory(Config{})
	if err != nil {
		t.Fatal(err)
	}
	b := m.Buckets(1, limit.BucketRule{Capacity: 1, Interval: time.Second, Continuous: true}).(*memoryBuckets)
	if _, err := b.Take(context.Background(), "k", 1, m.Now()); err != nil {
		t.Fatal(err)
	}
	for i := range 10 * maxRules {
		b.Configure(limit.BucketRule{Capacity: float64(i%7 + 2), Interval: time.Second, Continuous: true})
		if d := b.rules[0].depth; d > maxRules {
			t.Fatalf("%d rules", d)
		}
	}
	if d := b.rules[0].depth; d == 0 {
		t.Fatal("the test does not get at the bound")
	}
	m.catchUpAll()
	for i, r := range b.rules {
		if r.older != nil || r.depth != 0 {
			t.Errorf("shard %d has %d rules left", i, r.depth)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}
