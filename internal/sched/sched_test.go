// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/wfq"
)

// slots is a Capacity of n slots per key that are freed by hand.
type slots struct {
	mu   sync.Mutex
	max  float64
	used map[string]float64
	err  error
}

func (c *slots) Take(key string, n float64, _ limit.Instant) (Grant, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return Grant{}, c.err
	}
	if c.used[key]+n > c.max {
		return Grant{Wait: limit.Never, Limit: c.max, Remaining: c.max - c.used[key]}, nil
	}
	c.used[key] += n
	return Grant{OK: true, Limit: c.max, Remaining: c.max - c.used[key]}, nil
}

func (c *slots) Forecast(string, float64, limit.Instant) (expect, atLeast time.Duration) {
	return time.Second, 0
}

func (c *slots) free(key string, n float64) {
	c.mu.Lock()
	c.used[key] -= n
	c.mu.Unlock()
}

func (c *slots) check(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, used := range c.used {
		if used > c.max || used < 0 {
			t.Fatalf("key %s has %v used of %v", key, used, c.max)
		}
	}
}

func (c *slots) set(max float64, err error) {
	c.mu.Lock()
	c.max, c.err = max, err
	c.mu.Unlock()
}

// bucket is a Capacity that refills.
type bucket struct {
	rule limit.BucketRule
	mu   sync.Mutex
	b    limit.Bucket
}

func (c *bucket) Take(_ string, n float64, now limit.Instant) (Grant, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wait, ok := c.b.Take(&c.rule, now, n)
	return Grant{OK: ok, Wait: wait, Limit: c.rule.Capacity}, nil
}

func (c *bucket) Forecast(_ string, tokens float64, now limit.Instant) (expect, atLeast time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	missing := tokens - c.b.Level(&c.rule, now)
	d := time.Duration(max(0, missing) / c.rule.FillAmount * float64(c.rule.Interval))
	return d, d
}

// rig is a scheduler and what became of its waiters.
type rig struct {
	t   testing.TB
	s   *Scheduler
	mu  sync.Mutex
	log []string
}

func now() limit.Instant { return limit.At(time.Now()) }

func newRig(t testing.TB, c Capacity, maxWaiting int) *rig {
	s, err := New(Config{Capacity: c, Now: now, MaxWaiting: maxWaiting})
	if err != nil {
		t.Fatal(err)
	}
	return &rig{t: t, s: s}
}

type named struct {
	Waiter
	name string
	r    *rig
	held bool // needs r.mu
}

func (n *named) Resume(w *Waiter, _ *Wakes) {
	n.r.note(n.name, w.Outcome)
	n.hold(w.Outcome == Granted)
}

func (n *named) hold(held bool) (was bool) {
	n.r.mu.Lock()
	defer n.r.mu.Unlock()
	was, n.held = n.held, held
	return was
}

// release frees what the flow holds, if it holds anything.
func (n *named) release(c *slots) {
	if n.hold(false) {
		c.free(n.Key, n.Tokens)
		n.r.freed(n.Key)
	}
}

func (r *rig) note(name string, out Outcome) {
	r.mu.Lock()
	r.log = append(r.log, fmt.Sprintf("%s:%d", name, out))
	r.mu.Unlock()
}

func (r *rig) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	log := r.log
	r.log = nil
	return log
}

func (r *rig) admit(name, key, workload string, priority, tokens float64, timeout time.Duration) *named {
	n := &named{name: name, r: r}
	n.Key, n.Tokens, n.Class = key, tokens, wfq.ClassKey{Workload: workload, Priority: priority}
	n.Stats, n.Resumer = r.s.Workload(workload), n
	if timeout != 0 {
		n.Deadline = now().Add(timeout)
	}
	if out := r.s.Admit(&n.Waiter, now()); out != Pending {
		r.note(name, out)
		n.hold(out == Granted)
	}
	return n
}

func (r *rig) freed(key string) {
	var wakes Wakes
	r.s.Freed(key, now(), &wakes)
	wakes.Run()
}

func (r *rig) want(log ...string) {
	r.t.Helper()
	if got := r.take(); !slices.Equal(got, log) {
		r.t.Errorf("got %q, want %q", got, log)
	}
}

func TestAloneGetsEverything(t *testing.T) {
	c := &slots{max: 3, used: map[string]float64{}}
	r := newRig(t, c, 0)
	for i := range 3 {
		r.admit(fmt.Sprint(i), "", "low", 0.001, 1, 0)
	}
	r.want("0:1", "1:1", "2:1")
}

func TestOrderByPriority(t *testing.T) {
	c := &slots{max: 1, used: map[string]float64{}}
	r := newRig(t, c, 0)
	r.admit("first", "", "a", 1, 1, 0)
	for i := range 3 {
		r.admit(fmt.Sprint("low", i), "", "low", 1, 1, 0)
	}
	for i := range 3 {
		r.admit(fmt.Sprint("high", i), "", "high", 10, 1, 0)
	}
	r.want("first:1")
	for range 6 {
		c.free("", 1)
		r.freed("")
	}
	r.want("high0:1", "high1:1", "high2:1", "low0:1", "low1:1", "low2:1")
	if r.s.Waiting() != 0 || r.s.WaitingAt("") != 0 {
		t.Error("the queue is not empty")
	}
}

func TestKeysDoNotDisturbEachOther(t *testing.T) {
	c := &slots{max: 1, used: map[string]float64{}}
	r := newRig(t, c, 0)
	r.admit("a", "x", "w", 1, 1, 0)
	r.admit("b", "x", "w", 1, 1, 0)
	r.admit("c", "y", "w", 1, 1, 0)
	r.want("a:1", "c:1")
}

func TestTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &slots{max: 1, used: map[string]float64{}}
		r := newRig(t, c, 0)
		r.admit("holder", "", "w", 1, 1, 0)
		r.admit("zero", "", "w", 1, 1, -1)
		slow := r.admit("slow", "", "w", 1, 1, 2*time.Second)
		quick := r.admit("quick", "", "w", 1, 1, time.Second)
		r.want("holder:1", fmt.Sprintf("zero:%d", QueueTimeout))
		time.Sleep(time.Second)
		synctest.Wait()
		r.want(fmt.Sprintf("quick:%d", QueueTimeout))
		if quick.Waited != time.Second || quick.RetryAfter != time.Second {
			t.Errorf("waited %v, retry after %v", quick.Waited, quick.RetryAfter)
		}
		c.free("", 1)
		r.freed("")
		r.want("slow:1")
		if slow.Waited != time.Second {
			t.Errorf("waited %v", slow.Waited)
		}
	})
}

func TestBucketWakesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &bucket{rule: limit.BucketRule{Capacity: 10, FillAmount: 10, Interval: time.Second, Continuous: true}}, 0)
		r.admit("burst", "", "w", 1, 10, 0)
		a := r.admit("a", "", "w", 1, 5, 0)
		b := r.admit("b", "", "w", 1, 5, 0)
		small := r.admit("small", "", "high", 100, 1, 0) // comes first and needs less
		c := r.admit("never", "", "w", 1, 11, 0)
		d := r.admit("hopeless", "", "w", 1, 5, time.Second)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		r.want("burst:1", fmt.Sprintf("never:%d", TooLarge), fmt.Sprintf("hopeless:%d", NoTime), "small:1", "a:1", "b:1")
		for _, tt := range []struct {
			w    *named
			want time.Duration
		}{{small, 100}, {a, 600}, {b, 1100}, {c, 0}, {d, 0}} {
			if got := tt.w.Waited.Round(time.Millisecond); got != tt.want*time.Millisecond {
				t.Errorf("%s waited %v, want %v ms", tt.w.name, got, int(tt.want))
			}
		}
		if d.RetryAfter != 1600*time.Millisecond {
			t.Errorf("retry after %v, want 1.6s", d.RetryAfter)
		}
	})
}

// TestNewcomerAtTheMomentOfARefill joins when the refill's timer is due but has not fired.
func TestNewcomerAtTheMomentOfARefill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &bucket{rule: limit.BucketRule{Capacity: 1, FillAmount: 1, Interval: time.Second, Continuous: true}}, 0)
		r.admit("first", "", "w", 1, 1, 0)
		r.admit("head", "", "w", 1, 1, 0)
		time.Sleep(time.Second - time.Microsecond)
		late := &named{name: "late", r: r}
		late.Tokens, late.Class, late.Stats, late.Resumer = 1, wfq.ClassKey{Workload: "w", Priority: 1}, r.s.Workload("w"), late
		late.Deadline = now().Add(time.Hour)
		r.s.Admit(&late.Waiter, now().Add(2*time.Microsecond))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		r.want("first:1", "head:1", "late:1")
	})
}

func TestSmallNewcomerThatComesFirstIsServedAtOnce(t *testing.T) {
	c := &slots{max: 4, used: map[string]float64{}}
	r := newRig(t, c, 0)
	r.admit("holder", "", "w", 1, 2, 0)
	r.admit("big", "", "w", 1, 4, 0)
	r.admit("small", "", "high", 10, 1, 0)
	r.want("holder:1", "small:1")
}

func TestCancelHeadLetsOthersPass(t *testing.T) {
	c := &slots{max: 4, used: map[string]float64{}}
	r := newRig(t, c, 0)
	r.admit("holder", "", "w", 1, 2, 0)
	big := r.admit("big", "", "w", 1, 4, 0)
	r.admit("small", "", "w", 1, 1, 0)
	var wakes Wakes
	if !r.s.Cancel(&big.Waiter, now(), &wakes) || r.s.Cancel(&big.Waiter, now(), &wakes) {
		t.Error("cancel should succeed once")
	}
	wakes.Run()
	r.want("holder:1", "small:1")
}

func TestFullQueueAndClose(t *testing.T) {
	c := &slots{max: 1, used: map[string]float64{}}
	r := newRig(t, c, 2)
	for i := range 4 {
		r.admit(fmt.Sprint(i), "", "w", 1, 1, 0)
	}
	r.want("0:1", fmt.Sprintf("3:%d", QueueFull))
	var wakes Wakes
	r.s.Close(&wakes)
	wakes.Run()
	r.want(fmt.Sprintf("1:%d", Closed), fmt.Sprintf("2:%d", Closed))
	r.admit("late", "", "w", 1, 1, 0)
	r.want(fmt.Sprintf("late:%d", Closed))
	if r.s.Waiting() != 0 {
		t.Error("flows are waiting in a closed scheduler")
	}
}

func TestLoweredLimitAndFailure(t *testing.T) {
	c := &slots{max: 4, used: map[string]float64{}}
	r := newRig(t, c, 0)
	r.admit("holder", "", "w", 1, 4, 0)
	r.admit("big", "", "w", 1, 3, 0)
	r.admit("small", "", "w", 1, 1, 0)
	c.set(2, nil)
	var wakes Wakes
	c.free("", 4)
	r.s.FreedAll(now(), &wakes)
	wakes.Run()
	r.want("holder:1", fmt.Sprintf("big:%d", TooLarge), "small:1")
	r.admit("more", "", "w", 1, 2, 0)
	c.set(2, errors.New("away"))
	r.freed("")
	r.want(fmt.Sprintf("more:%d", Failed))
	r.admit("again", "", "w", 1, 1, 0)
	r.want(fmt.Sprintf("again:%d", Failed))
}

// TestNothingIsLost runs random arrivals, ends, cancellations and limits in virtual time, and checks that
// every flow is answered once, the limit holds, and nothing is left.
func TestNothingIsLost(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			c := &slots{max: 5, used: map[string]float64{}}
			r := newRig(t, c, 50)
			var flows []*named
			var answered int
			for i := range 500 {
				key := fmt.Sprint(rng.IntN(3))
				timeout := time.Duration(rng.IntN(300)) * time.Millisecond
				n := r.admit(fmt.Sprint(i), key, fmt.Sprint("w", rng.IntN(4)), float64(1+rng.IntN(9)), float64(1+rng.IntN(5)), timeout)
				flows = append(flows, n)
				time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
				synctest.Wait()
				if v := flows[rng.IntN(len(flows))]; rng.IntN(4) == 0 {
					var wakes Wakes
					if r.s.Cancel(&v.Waiter, now(), &wakes) {
						answered++
					}
					wakes.Run()
				}
				for _, v := range flows {
					if rng.IntN(5) == 0 {
						v.release(c)
					}
				}
				c.check(t)
			}
			for r.s.Waiting() > 0 {
				time.Sleep(time.Second)
				synctest.Wait()
				for _, v := range flows {
					v.release(c)
				}
			}
			if answered += len(r.take()); answered != len(flows) {
				t.Errorf("seed %d: %d answers for %d flows", seed, answered, len(flows))
			}
			for i := range r.s.shards {
				if n := len(r.s.shards[i].queues); n != 0 {
					t.Errorf("seed %d: %d empty queues are kept", seed, n)
				}
			}
			for _, w := range r.s.Workloads() {
				if w.Waiting != 0 || w.WaitingTokens > 1e-9 {
					t.Errorf("seed %d: workload %+v", seed, w)
				}
			}
		})
	}
}

// TestShares keeps three workloads backlogged on a bucket and compares what they get to their weights.
func TestShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &bucket{rule: limit.BucketRule{Capacity: 1, FillAmount: 100, Interval: time.Second, Continuous: true}}, 0)
		weights := map[string]float64{"a": 1, "b": 2, "c": 5}
		for range 4000 {
			for name, w := range weights {
				r.admit(name, "", name, w, 1, 0)
			}
		}
		time.Sleep(40 * time.Second)
		synctest.Wait()
		got := map[string]float64{}
		total := 0.0
		for _, w := range r.s.Workloads() {
			got[w.Name] = float64(w.Admitted)
			total += float64(w.Admitted)
		}
		for name, w := range weights {
			if share := got[name] / total; share < w/8*0.99 || share > w/8*1.01 {
				t.Errorf("%s got %.4f of %v, want %.4f within 1 %%", name, share, total, w/8)
			}
		}
		var wakes Wakes
		r.s.Close(&wakes)
		wakes.Run()
	})
}

func TestWorkloadsAreBounded(t *testing.T) {
	r := newRig(t, &slots{max: 1, used: map[string]float64{}}, 0)
	for i := range 3 * MaxWorkloads {
		r.s.Workload(fmt.Sprint(i))
	}
	if n := len(r.s.Workloads()); n != MaxWorkloads+1 {
		t.Errorf("%d workloads", n)
	}
}

// memoryPerWaiting queues n flows and returns the bytes each takes, its Waiter included.
func memoryPerWaiting(tb testing.TB, n int) float64 {
	tb.Helper()
	c := &slots{max: 1, used: map[string]float64{}}
	r := newRig(tb, c, n+1)
	r.admit("holder", "", "w", 1, 1, 0)
	heap := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before := heap()
	flows := make([]*named, n)
	for i := range flows {
		flows[i] = r.admit("", "", "w", float64(1+i%5), 1, time.Hour)
	}
	per := float64(heap()-before) / float64(n)
	runtime.KeepAlive(flows)
	return per
}

func TestMemoryPerWaitingFlow(t *testing.T) {
	if per := memoryPerWaiting(t, 20_000); per > 1500 {
		t.Errorf("%.0f bytes per waiting flow, want at most 1500", per)
	}
}

// BenchmarkWaitingMemory reports what a waiting flow takes in the scheduler, its Waiter included; a flow
// of the engine adds its own state, about a kilobyte.
func BenchmarkWaitingMemory(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(memoryPerWaiting(b, 50_000), "B/flow")
	}
}

// BenchmarkWake is the time from freed capacity to the goroutine that waited for it, beside a bare
// hand-off over a channel. Target: at most 1 µs more.
func BenchmarkWake(b *testing.B) {
	b.Run("channel", func(b *testing.B) {
		ping, pong := make(chan struct{}), make(chan struct{})
		go func() {
			for range ping {
				pong <- struct{}{}
			}
		}()
		for b.Loop() {
			ping <- struct{}{}
			<-pong
		}
		close(ping)
	})
	b.Run("scheduler", func(b *testing.B) {
		c := &slots{max: 1, used: map[string]float64{}}
		r := newRig(b, c, 0)
		r.admit("", "", "w", 1, 1, 0)
		ping, pong := make(chan struct{}), make(chan struct{})
		go func() {
			for range ping {
				pong <- struct{}{}
			}
		}()
		w := &chanWaiter{ch: ping}
		w.Tokens, w.Class.Priority, w.Stats, w.Resumer = 1, 1, r.s.Workload("w"), w
		for b.Loop() {
			w.Deadline = now().Add(time.Hour)
			if r.s.Admit(&w.Waiter, now()) != Pending {
				b.Fatal("admitted")
			}
			c.free("", 1)
			r.freed("")
			<-pong
		}
		close(ping)
	})
}

type chanWaiter struct {
	Waiter
	ch chan struct{}
}

func (c *chanWaiter) Resume(*Waiter, *Wakes) { c.ch <- struct{}{} }
