// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-project/sluice/internal/limit"
)

func newMemory(t testing.TB, cfg Config) *Memory {
	t.Helper()
	m, err := NewMemory(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// advance lets time pass for a ledger that nobody else is using.
func advance(m *Memory, d time.Duration) { m.start = m.start.Add(-d) }

func take(t testing.TB, b interface {
	Take(context.Context, string, float64, limit.Instant) (Charge, error)
}, key string, n float64, now limit.Instant,
) Charge {
	t.Helper()
	c, err := b.Take(context.Background(), key, n, now)
	if err != nil {
		t.Fatalf("Take(%q, %v): %v", key, n, err)
	}
	return c
}

// checkRecords verifies that every record is in exactly one place: free, filed in a table, or not handed
// out yet; and that what slots an account holds is what is in its list.
func checkRecords(t testing.TB, m *Memory) {
	t.Helper()
	seen := make([]int, m.arena.len()+1)
	for i := range m.arena.free {
		seen[m.arena.free[i]]++
	}
	for i := m.arena.next + 1; i <= m.arena.len(); i++ {
		seen[i]++
	}
	for s := range m.shards {
		count := 0
		for _, i := range m.shards[s].free {
			seen[i]++
		}
		for _, e := range m.shards[s].table.entries {
			i := uint32(e)
			if i == noRecord {
				continue
			}
			seen[i]++
			count++
			r := m.arena.at(i)
			if r.typ == typFree || !r.sane() {
				t.Fatalf("record %d is in a table, but %+v", i, r)
			}
			if r.typ != typSlots {
				continue
			}
			sum := 0.0
			for j, _ := ends(r); j != noRecord; j = m.arena.at(j).next {
				if h := m.arena.at(j); h.typ != typHeld || h.account != i {
					t.Fatalf("record %d is in the list of %d, but %+v", j, i, h)
				}
				sum += m.arena.at(j).a
			}
			if math.Abs(sum-r.a) > 1e-9 {
				t.Fatalf("account %d holds %v, its list %v", i, r.a, sum)
			}
		}
		if count != m.shards[s].table.count {
			t.Fatalf("table of shard %d counts %d, has %d", s, m.shards[s].table.count, count)
		}
	}
	for i, n := range seen[1:] {
		spare := uint32(i) >= m.arena.max && m.arena.at(uint32(i+1)).typ == typFree
		if n != 1 && !(n == 0 && spare) {
			t.Fatalf("record %d is in %d places: %+v", i+1, n, m.arena.at(uint32(i+1)))
		}
	}
}

// window checks admitted <= capacity + rate * time over every window of a key's takes.
type window struct {
	at  []limit.Instant
	sum []float64
}

func (w *window) admit(t testing.TB, rule *limit.BucketRule, at limit.Instant, n float64) {
	t.Helper()
	before := 0.0
	if len(w.sum) > 0 {
		before = w.sum[len(w.sum)-1]
	}
	w.at, w.sum = append(w.at, at), append(w.sum, before+n)
	for i := range w.at {
		got := before + n
		if i > 0 {
			got -= w.sum[i-1]
		}
		most := rule.Capacity + rule.FillAmount*float64(at.Sub(w.at[i]))/float64(rule.Interval)
		if got > most+1e-6 {
			t.Fatalf("admitted %v within %v, at most %v may be", got, at.Sub(w.at[i]), most)
		}
	}
}

// No key is ever admitted more than its limit while accounts are evicted, shared and created again.
func TestNoRoomForBuckets(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(uint64(seed), 1))
		m := newMemory(t, Config{MaxAccounts: 20 + rng.IntN(100)})
		rule := limit.BucketRule{
			Capacity: 4, FillAmount: 4, Interval: time.Second, Continuous: true,
			DelayInitialFill: seed%4 == 0,
		}
		b := m.Buckets(7, rule).(*memoryBuckets)
		windows := map[int]*window{}
		for step := range 3000 {
			advance(m, time.Duration(rng.Int64N(int64(4*time.Millisecond))))
			if step%300 == 0 {
				advance(m, 3*time.Second) // everybody is full again
			}
			k, n := 10+rng.IntN(300), float64(1)
			if step%300 > 150 && rng.IntN(2) == 0 { // a few keys ask for much when there is no room
				k, n = rng.IntN(10), float64(1+rng.IntN(4))
			}
			key := fmt.Sprint("key", k)
			if rng.IntN(10) == 0 {
				b.Give(key, -1, m.Now())
				continue
			}
			now := m.Now()
			if take(t, b, key, n, now).OK {
				if windows[k] == nil {
					windows[k] = new(window)
				}
				windows[k].admit(t, &rule, now, n)
			}
		}
		if m.SharedTakes() == 0 {
			t.Fatal("there was room all the time: the test tests nothing")
		}
		checkRecords(t, m)
		live := int64(0)
		m.Each(func(Account) { live++ })
		if live != b.Len() {
			t.Errorf("Len %d, but %d accounts", b.Len(), live)
		}
	}
}

// No key ever holds more slots than it may, and none is lost, while accounts come and go.
func TestNoRoomForSlots(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	type slot struct {
		key string
		n   float64
		id  SlotID
	}
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(uint64(seed), 2))
		m := newMemory(t, Config{MaxAccounts: 20 + rng.IntN(100)})
		rule := SlotRule{Max: 4, MaxInFlight: time.Hour}
		s := m.Slots(7, rule)
		b := m.Buckets(8, limit.BucketRule{Capacity: 2, FillAmount: 1, Interval: time.Second, Continuous: true})
		held := map[string]float64{}
		var slots []slot
		for step := range 3000 {
			key := fmt.Sprint("key", rng.IntN(100))
			if step%700 == 699 { // a flood of other accounts; later they are forgotten
				advance(m, 5*time.Second)
				for i := range 200 {
					_, _ = b.Take(context.Background(), fmt.Sprint(step, i), 1, m.Now())
				}
			}
			if rng.IntN(5) < 2 && len(slots) > 0 {
				i := rng.IntN(len(slots))
				x := slots[i]
				slots = slices.Delete(slots, i, i+1)
				if s.Release("key-of-nobody", x.id) {
					t.Fatal("released by somebody else")
				}
				if !s.Release(x.key, x.id) || s.Release(x.key, x.id) {
					t.Fatal("a held slot must be released, once")
				}
				held[x.key] -= x.n
				continue
			}
			n := float64(1 + rng.IntN(3))
			c, err := s.Take(context.Background(), key, n, m.Now())
			if err != nil || !c.OK {
				continue
			}
			if held[key] += n; held[key] > rule.Max {
				t.Fatalf("%s holds %v of %v", key, held[key], rule.Max)
			}
			slots = append(slots, slot{key, n, c.Slot})
		}
		if m.SharedTakes() == 0 {
			t.Fatal("there was room all the time: the test tests nothing")
		}
		checkRecords(t, m)
		for _, x := range slots {
			if !s.Release(x.key, x.id) {
				t.Fatal("a slot was lost")
			}
		}
		checkRecords(t, m)
		m.Each(func(a Account) {
			if a.Kind == KindSlots && a.Used != 0 {
				t.Errorf("after all were released: %+v", a)
			}
		})
	}
}

// Only accounts that are as good as new are forgotten.
func TestEvictsOnlyTheFull(t *testing.T) {
	m := newMemory(t, Config{MaxAccounts: 400})
	lasting := m.Buckets(1, limit.BucketRule{Capacity: 5, Interval: time.Second})
	passing := m.Buckets(2, limit.BucketRule{Capacity: 5, FillAmount: 5, Interval: time.Second, Continuous: true})
	for i := range 100 {
		take(t, lasting, fmt.Sprint(i), float64(i%5)+1, m.Now())
	}
	for i := range 5000 {
		advance(m, 100*time.Millisecond)
		if c := take(t, passing, fmt.Sprint("x", i), 1, m.Now()); !c.OK {
			t.Fatalf("take %d was refused although full accounts can be forgotten: %+v", i, c)
		}
	}
	for i := range 100 {
		if c := lasting.Level(fmt.Sprint(i), m.Now()); c.Remaining != 4-float64(i%5) {
			t.Fatalf("account %d: %+v", i, c)
		}
	}
	checkRecords(t, m)
}

func TestSharedAccountIsNamed(t *testing.T) {
	m := newMemory(t, Config{MaxAccounts: 16})
	b := m.Buckets(1, limit.BucketRule{Capacity: 1, Interval: time.Second})
	for i := range 100 {
		take(t, b, fmt.Sprint(i), 1, m.Now())
	}
	found := false
	m.Each(func(a Account) { found = found || a.Key == "(shared)" })
	if !found || m.SharedTakes() == 0 {
		t.Errorf("no shared account; %d shared takes", m.SharedTakes())
	}
	// So many limiters that even the room for shared accounts runs out: an error, not a panic.
	var failed error
	for id := range LimiterID(50) {
		set := m.Buckets(id+2, limit.BucketRule{Capacity: 1, Interval: time.Second})
		if _, err := set.Take(context.Background(), "k", 1, m.Now()); err != nil {
			failed = err
		}
		set.Give("k", -1, m.Now())
	}
	if failed == nil {
		t.Error("16 records held more than 50 accounts")
	}
	checkRecords(t, m)
}

// Run forgets idle accounts.
func TestRunForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, Config{})
		b := m.Buckets(1, limit.BucketRule{Capacity: 5, FillAmount: 1, Interval: time.Second, Continuous: true})
		s := m.Slots(2, SlotRule{Max: 1, MaxInFlight: time.Hour})
		for i := range 2000 {
			take(t, b, fmt.Sprint(i), 1, m.Now())
			s.Release(fmt.Sprint(i), take(t, s, fmt.Sprint(i), 1, m.Now()).Slot)
		}
		take(t, b, "in debt", 5, m.Now())
		b.Give("in debt", -1e6, m.Now())
		kept := take(t, s, "held", 1, m.Now())
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := m.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(20 * time.Second)
		cancel()
		wg.Wait()
		var left []string
		m.Each(func(a Account) { left = append(left, a.Key) })
		if slices.Sort(left); !slices.Equal(left, []string{"held", "in debt"}) {
			t.Errorf("left: %q", left)
		}
		if !s.Release("held", kept.Slot) {
			t.Error("a held slot was forgotten")
		}
		checkRecords(t, m)
	})
}

// Everything at once, for the race detector: the bound holds whatever else goes on.
func TestConcurrentEverything(t *testing.T) {
	m := newMemory(t, Config{MaxAccounts: 2000, Dir: t.TempDir()})
	rule := limit.BucketRule{Capacity: 100, Interval: time.Second}
	var admitted [10]atomic.Int64
	var held atomic.Int64
	steps := 4000
	if testing.Short() {
		steps = 500
	}
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			b, s := m.Buckets(1, rule), m.Slots(1, SlotRule{Max: 5, MaxInFlight: time.Hour})
			other := m.Buckets(LimiterID(10+g%2), perSecond)
			for i := range steps {
				k := (i + g) % len(admitted)
				key := fmt.Sprint(k)
				if c, err := b.Take(t.Context(), key, 1, m.Now()); err == nil && c.OK {
					admitted[k].Add(1)
				}
				if c, err := s.Take(t.Context(), key, 1, m.Now()); err == nil && c.OK {
					if held.Add(1); !s.Release(key, c.Slot) {
						t.Error("a held slot was not released")
					}
				}
				_, _ = other.Take(t.Context(), fmt.Sprint(g, i), 1, m.Now())
			}
		})
	}
	wg.Go(func() {
		for i := range steps / 20 {
			changed := rule
			changed.Interval = time.Second + time.Duration(i)
			m.Buckets(1, changed)
			m.Forget(LimiterID(10 + i%2))
			m.Each(func(Account) {})
			for s := range m.shards {
				m.shards[s].mu.Lock()
				m.sweepLocked(&m.shards[s], sweepSoft, noRecord, m.Now())
				m.shards[s].mu.Unlock()
			}
			if err := m.arena.sync(m.Now()); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	for k := range admitted {
		if n := admitted[k].Load(); n > 100 {
			t.Errorf("key %d: admitted %d of 100", k, n)
		}
	}
	checkRecords(t, m)
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func TestMemoryPerAccount(t *testing.T) {
	n := 200_000
	if testing.Short() {
		n /= 2
	}
	keys := benchKeys(n)
	before := heap()
	m := newMemory(t, Config{})
	b := m.Buckets(1, limit.BucketRule{Capacity: 5, Interval: time.Second})
	for _, k := range keys {
		take(t, b, k, 1, m.Now())
	}
	if each := float64(heap()-before) / float64(n); each > 100 {
		t.Errorf("an account takes %.1f bytes, want at most 100", each)
	}
	if got := m.buckets[1].Len(); got != int64(n) {
		t.Errorf("%d accounts, want %d", got, n)
	}
}

func TestTableAgainstMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	var tab table
	want := map[uint32]uint64{}
	for range 20_000 {
		rec := 1 + rng.Uint32N(500)
		h, there := want[rec]
		found, at := tab.find(h, func(i uint32) bool { return i == rec })
		if there != (found == rec) && there {
			t.Fatalf("record %d is lost", rec)
		}
		if there {
			tab.removeAt(at)
			delete(want, rec)
		} else {
			h = uint64(rng.IntN(40)) // many collisions
			tab.insert(h, rec)
			want[rec] = h
		}
	}
	if tab.count != len(want) {
		t.Fatalf("count %d, want %d", tab.count, len(want))
	}
	for rec, h := range want {
		if found, _ := tab.find(h, func(i uint32) bool { return i == rec }); found != rec {
			t.Fatalf("record %d is lost", rec)
		}
	}
}

// Who was charged to the shared account does not start afresh when there is room again.
func TestRoomComesBack(t *testing.T) {
	m := newMemory(t, Config{MaxAccounts: 64})
	flood := m.Buckets(1, limit.BucketRule{Capacity: 1, Interval: time.Second})
	for i := range 100 {
		take(t, flood, fmt.Sprint(i), 1, m.Now())
	}
	b := m.Buckets(2, limit.BucketRule{Capacity: 4, FillAmount: 1, Interval: time.Second, Continuous: true})
	s := m.Slots(3, SlotRule{Max: 4, MaxInFlight: time.Hour})
	now := m.Now()
	if c := take(t, b, "k", 4, now); !c.OK {
		t.Fatalf("refused by a new shared account: %+v", c)
	}
	if c := take(t, b, "other", 1, now); c.OK {
		t.Fatalf("keys that share an account were admitted more than it holds: %+v", c)
	}
	b.Give("k", 4, now) // is not given to whoever else shares
	one := take(t, s, "k", 3, now)
	if c := take(t, s, "other", 2, now); !one.OK || c.OK || s.Level("third", now).Remaining != 1 {
		t.Fatalf("shared slots: %+v, then %+v", one, c)
	}

	m.Forget(1)
	if c := take(t, b, "k", 1, now); c.OK {
		t.Fatalf("admitted twice: %+v", c)
	}
	if c := take(t, b, "k", 1, now.Add(time.Second)); !c.OK {
		t.Fatalf("the new account does not fill: %+v", c)
	}
	if c := take(t, s, "k", 2, now); c.OK || c.Remaining != 1 {
		t.Fatalf("3 of 4 slots held in the shared account, and then %+v", c)
	}
	if c := take(t, s, "other", 4, now); !c.OK {
		t.Fatalf("another key pays for them: %+v", c)
	}
	if !s.Release("k", one.Slot) || s.Release("k", one.Slot) {
		t.Fatal("what moved with its key must be released, once")
	}
	if c := take(t, s, "k", 4, now); !c.OK {
		t.Fatalf("all free, but %+v", c)
	}
	if c := take(t, b, "late", 4, now.Add(time.Minute)); !c.OK {
		t.Fatalf("the shared account is full, but %+v", c)
	}
	checkRecords(t, m)
}
