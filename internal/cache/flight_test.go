// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-project/sluice/internal/cache"
	"github.com/sluice-project/sluice/internal/limit"
)

// caller is one flow that asks for a result.
type caller struct {
	cache.Waiter
	told chan struct{}
}

func newCaller() *caller {
	c := &caller{told: make(chan struct{}, 1)}
	c.Resumer = c
	return c
}

// Resumed implements cache.Resumer.
func (c *caller) Resumed(*cache.Waiter) { c.told <- struct{}{} }

var wanted = cache.ResultKey("tenant", "cp", "k")

// join asks for the result; timeout 0: as long as it takes.
func join(t *testing.T, c *cache.Cache, how cache.Coalesce, timeout time.Duration) (*caller, cache.Outcome) {
	t.Helper()
	w := newCaller()
	if timeout != 0 {
		w.Deadline = c.Now().Add(timeout)
	}
	return w, c.Join(t.Context(), wanted, how, &w.Waiter, c.Now())
}

// mustLead joins and expects to be chosen.
func mustLead(t *testing.T, c *cache.Cache, how cache.Coalesce) cache.Lead {
	t.Helper()
	w, out := join(t, c, how, 0)
	if out != cache.Answered || w.Answer.Status != cache.Miss || w.Answer.Lead == 0 {
		t.Fatalf("got %d with %+v, want a miss with a lead", out, w.Answer)
	}
	return w.Answer.Lead
}

// mustWait joins and expects to wait.
func mustWait(t *testing.T, c *cache.Cache, timeout time.Duration) *caller {
	t.Helper()
	w, out := join(t, c, cache.CoalesceWait, timeout)
	if out != cache.Pending {
		t.Fatalf("got %d with %+v, want to wait", out, w.Answer)
	}
	return w
}

func (c *caller) isTold(t *testing.T, status cache.Status, leads bool) {
	t.Helper()
	select {
	case <-c.told:
	default:
		t.Fatal("still waits")
	}
	if c.Answer.Status != status || (c.Answer.Lead != 0) != leads || c.Closed {
		t.Errorf("got %+v, closed %v, want status %d, lead %v", c.Answer, c.Closed, status, leads)
	}
}

func (c *caller) waits(t *testing.T) {
	t.Helper()
	select {
	case <-c.told:
		t.Fatalf("was told %+v", c.Answer)
	default:
	}
}

func TestOthersWaitForTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		lead := mustLead(t, c, cache.CoalesceWait)
		var others []*caller
		for range 100 {
			others = append(others, mustWait(t, c, 0))
		}
		time.Sleep(time.Second)
		upsert(t, c, wanted, "v", time.Minute)
		for _, w := range others {
			w.isTold(t, cache.Hit, false)
			if string(w.Answer.Value) != "v" || w.Waited != time.Second {
				t.Errorf("got %q after %s, want v after 1s", w.Answer.Value, w.Waited)
			}
		}
		if next := c.Leave(lead, c.Now()); next != nil {
			t.Error("leaving what is over chose another leader")
		}
		if w, out := join(t, c, cache.CoalesceWait, 0); out != cache.Answered || w.Answer.Status != cache.Hit {
			t.Errorf("then: got %d with %+v, want a hit", out, w.Answer)
		}
	})
}

// TestOneLeadsAtATime: whenever a leader gives up, exactly one more is chosen, first come, first served.
func TestOneLeadsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		lead := mustLead(t, c, cache.CoalesceWait)
		var others []*caller
		for range 5 {
			others = append(others, mustWait(t, c, 0))
		}
		for i, w := range others {
			next := c.Leave(lead, c.Now())
			if next != &w.Waiter {
				t.Fatalf("leader %d: another one was chosen", i)
			}
			if again := c.Leave(lead, c.Now()); again != nil {
				t.Fatalf("leader %d: leaving twice chose two", i)
			}
			next.Resumer.Resumed(next)
			w.isTold(t, cache.Miss, true)
			lead = w.Answer.Lead
			for _, later := range others[i+1:] {
				later.waits(t)
			}
		}
		if next := c.Leave(lead, c.Now()); next != nil {
			t.Error("somebody was chosen when nobody waited")
		}
		mustLead(t, c, cache.CoalesceWait)
	})
}

func TestLeadRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, func(cfg *cache.Config) { cfg.CoalesceTimeout = 10 * time.Second })
		first := mustLead(t, c, cache.CoalesceWait)
		time.Sleep(4 * time.Second)
		a, b := mustWait(t, c, 0), mustWait(t, c, 0)
		time.Sleep(6*time.Second - 1)
		synctest.Wait()
		a.waits(t)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		a.isTold(t, cache.Miss, true)
		b.waits(t)
		if next := c.Leave(first, c.Now()); next != nil {
			t.Error("the one whose time was over passed on what it had lost")
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		b.isTold(t, cache.Miss, true)
		// Nobody waits: the next one to come does not wait for a leader that is over.
		time.Sleep(10 * time.Second)
		mustLead(t, c, cache.CoalesceWait)
	})
}

func TestWaitingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		mustLead(t, c, cache.CoalesceWait)
		if w, out := join(t, c, cache.CoalesceWait, -time.Second); out != cache.Answered || w.Answer.Lead != 0 {
			t.Errorf("a caller without time: got %d with %+v, want a miss at once", out, w.Answer)
		}
		short, long := mustWait(t, c, time.Second), mustWait(t, c, 3*time.Second)
		time.Sleep(time.Second)
		synctest.Wait()
		short.isTold(t, cache.Miss, false)
		long.waits(t)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		long.isTold(t, cache.Miss, false)
		if long.Waited != 3*time.Second {
			t.Errorf("waited %s, want 3s", long.Waited)
		}
	})
}

func TestNotTooManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		mustLead(t, c, cache.CoalesceWait)
		all := make([]*caller, cache.MaxWaiters)
		for i := range all {
			all[i] = mustWait(t, c, time.Duration(i%10+1)*time.Second)
		}
		if w, out := join(t, c, cache.CoalesceWait, 0); out != cache.Answered || w.Answer.Status != cache.Miss || w.Answer.Lead != 0 {
			t.Errorf("one more: got %d with %+v, want a miss at once", out, w.Answer)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		upsert(t, c, wanted, "v", time.Minute)
		hits := 0
		for _, w := range all {
			<-w.told
			if w.Answer.Status == cache.Hit {
				hits++
			}
		}
		if hits != cache.MaxWaiters/2 {
			t.Errorf("%d got the value, want those that could wait longer than 5s: %d", hits, cache.MaxWaiters/2)
		}
	})
}

// TestManyGiveUpInTime: of many that wait for a leader which is gone, the last ones stop earlier, so that all can be
// answered before their time is over.
func TestManyGiveUpInTime(t *testing.T) {
	for timeout, want := range map[time.Duration][3]int{ // told 101 ms before the end, 51 ms before it, and at it
		10 * time.Second:       {1780, 2780, 4000}, // one every 50 µs
		500 * time.Millisecond: {0, 0, 4000},       // no earlier than a tenth of the wait
	} {
		synctest.Test(t, func(t *testing.T) {
			c := open(t)
			mustLead(t, c, cache.CoalesceWait)
			all := make([]*caller, 4000)
			for i := range all {
				all[i] = mustWait(t, c, timeout)
			}
			told := func() (n int) {
				synctest.Wait()
				for _, w := range all {
					n += len(w.told)
				}
				return n
			}
			var got [3]int
			time.Sleep(timeout - 101*time.Millisecond)
			got[0] = told()
			time.Sleep(50 * time.Millisecond)
			got[1] = told()
			if len(all[0].told) != 0 {
				t.Error("the first one does not wait until its time is over")
			}
			time.Sleep(51 * time.Millisecond)
			got[2] = told()
			if got != want {
				t.Errorf("%s: told %v, want %v", timeout, got, want)
			}
		})
	}
}

func TestCancelledCallersAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		lead := mustLead(t, c, cache.CoalesceWait)
		a, b := mustWait(t, c, time.Minute), mustWait(t, c, time.Hour)
		time.Sleep(time.Second)
		if !c.Cancel(&a.Waiter, c.Now()) || a.Waited != time.Second {
			t.Errorf("Cancel failed, or got %s of waiting, want 1s", a.Waited)
		}
		if c.Cancel(&a.Waiter, c.Now()) {
			t.Error("it could be cancelled twice")
		}
		if next := c.Leave(lead, c.Now()); next != &b.Waiter {
			t.Error("the lead did not go to the one that still waits")
		}
		if c.Cancel(&b.Waiter, c.Now()) {
			t.Error("a leader could be cancelled")
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		a.waits(t)
		if never := new(cache.Waiter); c.Cancel(never, c.Now()) {
			t.Error("one that never waited could be cancelled")
		}
	})
}

func TestStaleWhileComputed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, func(cfg *cache.Config) { cfg.StaleFor = time.Minute })
		upsert(t, c, wanted, "old", 10*time.Minute)
		time.Sleep(10 * time.Minute)
		wantLookup(t, c, wanted, cache.Miss, "")
		lead := mustLead(t, c, cache.CoalesceStale)
		for range 3 {
			if w, out := join(t, c, cache.CoalesceStale, 0); out != cache.Answered || w.Answer.Status != cache.Stale || string(w.Answer.Value) != "old" {
				t.Errorf("got %d with %+v, want the old value", out, w.Answer)
			}
		}
		mustWait(t, c, time.Second) // one that does not take stale values
		c.Leave(lead, c.Now())
		upsert(t, c, wanted, "new", 10*time.Second)
		if w, _ := join(t, c, cache.CoalesceStale, 0); w.Answer.Status != cache.Hit || string(w.Answer.Value) != "new" {
			t.Errorf("got %+v, want the new value", w.Answer)
		}
		// It was fresh for 10 s, so it is kept no longer than another 10 s.
		time.Sleep(20*time.Second - 1)
		mustLead(t, c, cache.CoalesceStale)
		if w, _ := join(t, c, cache.CoalesceStale, 0); w.Answer.Status != cache.Stale {
			t.Errorf("got %+v, want the value that has expired", w.Answer)
		}
		time.Sleep(time.Nanosecond)
		if w, out := join(t, c, cache.CoalesceStale, time.Second); out != cache.Pending {
			t.Errorf("got %d with %+v, want to wait: nothing is kept", out, w.Answer)
		}
		time.Sleep(time.Second)
		synctest.Wait()
	})
}

func TestClosedCachesLetNobodyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		lead := mustLead(t, c, cache.CoalesceWait)
		w := mustWait(t, c, time.Minute)
		c.StopWaiting()
		<-w.told
		if !w.Closed {
			t.Error("Closed is not set")
		}
		if _, out := join(t, c, cache.CoalesceWait, 0); out != cache.Refused {
			t.Errorf("then: got %d, want refused", out)
		}
		c.Leave(lead, c.Now())
		mustLead(t, c, cache.CoalesceWait)
	})
}

// TestFlightsAreBounded: keys that nobody computes do not fill memory, and are forgotten.
func TestFlightsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		ask := func(from, to int) (leads int) {
			for i := from; i < to; i++ {
				var w cache.Waiter
				c.Join(t.Context(), cache.ResultKey("", "cp", fmt.Sprint(i)), cache.CoalesceWait, &w, c.Now())
				if w.Answer.Lead != 0 {
					leads++
				}
			}
			return leads
		}
		if n := ask(0, cache.MaxFlights+1000); n != cache.MaxFlights {
			t.Errorf("%d leads, want %d", n, cache.MaxFlights)
		}
		time.Sleep(31 * time.Second)
		if n := ask(1_000_000, 1_001_000); n != 1000 {
			t.Errorf("after their time: %d leads, want 1000", n)
		}
	})
}

// TestManyCallers lets callers with every fate race: each is told exactly once, never more than one leads, and
// nobody is left behind.
func TestManyCallers(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			c := open(t, func(cfg *cache.Config) { cfg.CoalesceTimeout = 500 * time.Millisecond })
			var wg sync.WaitGroup
			var mu sync.Mutex
			leading := 0
			for n := range 200 {
				rng := rand.New(rand.NewPCG(seed, uint64(n)))
				wg.Go(func() {
					time.Sleep(time.Duration(rng.IntN(2000)) * time.Millisecond)
					w, out := join(t, c, cache.CoalesceWait, time.Duration(1+rng.IntN(3000))*time.Millisecond)
					if out == cache.Pending {
						if rng.IntN(4) == 0 {
							time.Sleep(time.Duration(rng.IntN(50)) * time.Millisecond)
							if c.Cancel(&w.Waiter, c.Now()) {
								return
							}
						}
						<-w.told
					}
					lead := w.Answer.Lead
					if lead == 0 {
						return
					}
					mu.Lock()
					if leading++; leading > 1 {
						t.Error("two lead at the same time")
					}
					mu.Unlock()
					time.Sleep(time.Duration(rng.IntN(440)) * time.Millisecond) // with the wait above, less than the time-out
					mu.Lock()
					leading--
					mu.Unlock()
					if rng.IntN(3) == 0 {
						upsert(t, c, wanted, "v", time.Duration(1+rng.IntN(300))*time.Millisecond)
					}
					if next := c.Leave(lead, c.Now()); next != nil {
						next.Resumer.Resumed(next)
					}
				})
			}
			wg.Wait()
		})
	}
}

// TestUpsertsDoNotSlipThrough: whoever misses while a value comes either gets it or leads.
func TestUpsertsDoNotSlipThrough(t *testing.T) {
	c := open(t)
	ctx := context.Background()
	for i := range 2000 {
		k := cache.ResultKey("", "cp", fmt.Sprint(i))
		var first cache.Waiter
		c.Join(ctx, k, cache.CoalesceWait, &first, c.Now())
		if first.Answer.Lead == 0 {
			t.Fatal("no lead")
		}
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				w := newCaller()
				if c.Join(ctx, k, cache.CoalesceWait, &w.Waiter, c.Now()) == cache.Pending {
					<-w.told
				}
				if w.Answer.Status != cache.Hit {
					t.Errorf("got %+v, want the value", w.Answer)
				}
			})
		}
		upsert(t, c, k, "v", time.Hour)
		wg.Wait()
	}
}

// lateStore calls late after its answer is known and before the caller has it.
type lateStore struct {
	cache.Store
	late func()
}

func (s *lateStore) Get(ctx context.Context, k cache.Key, now limit.Instant) (cache.Stored, bool, error) {
	stored, ok, err := s.Store.Get(ctx, k, now)
	if late := s.late; late != nil {
		s.late = nil
		late()
	}
	return stored, ok, err
}

// TestValuesThatComeMeanwhile: a value that is stored between the look-up and the choice of a leader is found.
func TestValuesThatComeMeanwhile(t *testing.T) {
	store := &lateStore{Store: openMemory(t, 1<<20)}
	c := open(t, func(cfg *cache.Config) { cfg.Store = store })
	store.late = func() { upsert(t, c, wanted, "v", time.Minute) }
	if w, out := join(t, c, cache.CoalesceWait, 0); out != cache.Answered || w.Answer.Status != cache.Hit || w.Answer.Lead != 0 {
		t.Errorf("got %d with %+v, want the value", out, w.Answer)
	}
}
