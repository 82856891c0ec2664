// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-project/sluice/internal/cache"
	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
)

// cachingEngine has caches on the clock of its accounts.
func cachingEngine(tb testing.TB, change func(*cache.Config), specs ...*LimiterSpec) (*Engine, *cache.Cache) {
	tb.Helper()
	m, err := ledger.NewMemory(ledger.Config{})
	if err != nil {
		tb.Fatal(err)
	}
	cfg := cache.DefaultConfig()
	cfg.Now = m.Now
	if change != nil {
		change(&cfg)
	}
	c, err := cache.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	e, err := New(Config{Authority: m, TokenKey: make([]byte, TokenKeySize), Cache: c})
	if err != nil {
		tb.Fatal(err)
	}
	if err := e.Publish(Set{Limiters: specs}); err != nil {
		tb.Fatal(err)
	}
	return e, c
}

func store(tb testing.TB, c *cache.Cache, k cache.Key, value string, ttl time.Duration) {
	tb.Helper()
	if err := c.Upsert(context.Background(), k, cache.Entry{Value: []byte(value), TTL: ttl}, c.Now()); err != nil {
		tb.Fatal(err)
	}
}

// resultRequest asks for a result and waits as long as it takes.
func resultRequest(how Coalesce) *Request {
	return &Request{ControlPoint: "cp", QueueTimeout: -1, Cache: &CacheQuery{ResultKey: "k", Coalesce: how}}
}

var resultKey = cache.ResultKey("", "cp", "k")

// TestHitsSkipQuotaAndLoad: what holds slots or is cheap is asked first, and keeps its charge until the end.
func TestHitsSkipQuotaAndLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rate := rateSpec(1, "cp", "", label.Expr{}, limit.BucketRule{Capacity: 3, FillAmount: 0, Interval: time.Second})
		slots := slotSpec(ConcurrencyScheduler, 2, "cp", "", 1)
		quota := quotaSpec(3, "cp", "", limit.BucketRule{Capacity: 1, FillAmount: 0, Interval: time.Second})
		e, c := cachingEngine(t, nil, rate, slots, quota)
		ctx := context.Background()

		f := e.Start(ctx, resultRequest(CoalesceNone))
		if got := f.Cached(); !f.Admitted() || got.Result.Status != CacheMiss || got.Leader {
			t.Fatalf("got %v with %+v, want admitted with a miss", f.Verdict.Reason, got)
		}
		f.End(Outcome{})
		store(t, c, resultKey, "v", time.Minute)

		f = e.Start(ctx, resultRequest(CoalesceNone)) // the quota is used up
		if got := f.Cached(); f.Verdict.Reason != Admitted || got.Result.Status != CacheHit || string(got.Result.Value) != "v" {
			t.Fatalf("got %v with %+v, want admitted with a hit", f.Verdict.Reason, got)
		}
		if n := inFlight(t, e, 2); n != 1 {
			t.Errorf("%v slots are held, want 1", n)
		}
		f.End(Outcome{})
		if n := inFlight(t, e, 2); n != 0 {
			t.Errorf("%v slots are held after the end, want 0", n)
		}
		f = e.Start(ctx, resultRequest(CoalesceNone))
		f.End(Outcome{})
		f = e.Start(ctx, resultRequest(CoalesceNone)) // the rate limit is used up, too: it comes before
		if f.Verdict.Reason != RateLimited || f.Cached() != nil {
			t.Errorf("got %v with %+v, want rate_limited without a result", f.Verdict.Reason, f.Cached())
		}
		f.Free()
	})
}

func TestHitsWithoutPolicies(t *testing.T) {
	e, c := cachingEngine(t, nil)
	store(t, c, resultKey, "v", time.Minute)
	f := e.Start(t.Context(), resultRequest(CoalesceWait))
	if got := f.Cached(); f.Verdict.Reason != NoPolicy || got.Result.Status != CacheHit {
		t.Errorf("got %v with %+v, want no_policy with a hit", f.Verdict.Reason, got)
	}
	f.End(Outcome{})
	f = e.Start(t.Context(), &Request{ControlPoint: "cp"})
	if f.Cached() != nil {
		t.Error("a flow that asked for nothing has a result of the caches")
	}
	f.End(Outcome{})
}

func TestGlobalValues(t *testing.T) {
	e, c := cachingEngine(t, nil)
	store(t, c, resultKey, "result", time.Minute)
	store(t, c, cache.GlobalKey("", "a"), "global", time.Minute)
	f := e.Start(t.Context(), &Request{ControlPoint: "cp", Cache: &CacheQuery{
		ResultKey: "k", GlobalKeys: []string{"a", "b", "", strings.Repeat("x", 2000)},
	}})
	defer f.End(Outcome{})
	got := f.Cached()
	if got.Result.Status != CacheHit {
		t.Errorf("result: got %+v, want a hit", got.Result)
	}
	for key, want := range map[string]CacheStatus{"a": CacheHit, "b": CacheMiss, "": CacheError, strings.Repeat("x", 2000): CacheError} {
		if v := got.Global[key]; v.Status != want || (v.Error != "") != (want == CacheError) {
			t.Errorf("%.10q: got %+v, want %v", key, v, want)
		}
	}
	if v := got.Global["a"]; string(v.Value) != "global" {
		t.Errorf("got %q, want global", v.Value)
	}
}

func TestWithoutCaches(t *testing.T) {
	e := newEngine(t, rateSpec(1, "cp", "", label.Expr{}, wide))
	r := resultRequest(CoalesceWait)
	r.Cache.GlobalKeys = []string{"g"}
	f := e.Start(t.Context(), r)
	defer f.End(Outcome{})
	got := f.Cached()
	for _, v := range []CacheValue{got.Result, got.Global["g"]} {
		if v.Status != CacheError || v.Error != "cache is not ready" {
			t.Errorf("got %+v, want that the cache is not ready", v)
		}
	}
	if !f.Admitted() || got.Leader {
		t.Errorf("got %+v, want admitted and no leader", f.Verdict)
	}
}

// TestCoalescing: of many flows that miss, one computes and passes the quota; the others get its result.
func TestCoalescing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quota := quotaSpec(1, "cp", "", limit.BucketRule{Capacity: 1, FillAmount: 0, Interval: time.Second})
		e, c := cachingEngine(t, nil, quota)
		var wg sync.WaitGroup
		var mu sync.Mutex
		leaders, hits := 0, 0
		for range 100 {
			wg.Go(func() {
				f := e.Start(context.Background(), resultRequest(CoalesceWait))
				defer f.End(Outcome{})
				got := f.Cached()
				mu.Lock()
				defer mu.Unlock()
				switch {
				case got.Leader:
					leaders++
					mu.Unlock()
					time.Sleep(time.Second)
					store(t, c, resultKey, "v", time.Minute)
					mu.Lock()
				case got.Result.Status == CacheHit && string(got.Result.Value) == "v":
					hits++
					if w := f.Verdict.Waited; w != time.Second {
						t.Errorf("waited %s, want 1s", w)
					}
				default:
					t.Errorf("got %+v with %+v", f.Verdict, got)
				}
			})
		}
		synctest.Wait()
		if n := e.pointStats("cp").waiting.Load(); n != 99 {
			t.Errorf("%d flows wait, want 99", n)
		}
		wg.Wait()
		if leaders != 1 || hits != 99 {
			t.Errorf("%d leaders and %d hits, want 1 and 99", leaders, hits)
		}
		if n := e.pointStats("cp").waiting.Load(); n != 0 {
			t.Errorf("%d flows wait in the end, want none", n)
		}
	})
}

// TestLeadIsPassedOn: however a leader ends without a result, the next flow that waits is chosen.
func TestLeadIsPassedOn(t *testing.T) {
	ways := map[string]func(e *Engine, f *Flow){
		"End": func(_ *Engine, f *Flow) { f.End(Outcome{Failed: true}) },
		"EndToken": func(e *Engine, f *Flow) {
			token := f.Seal(nil)
			f.Free()
			if r, err := e.EndToken(token, &Outcome{}); r != Ended || err != nil {
				panic(fmt.Sprint(r, err))
			}
		},
		"ReleaseToken": func(e *Engine, f *Flow) {
			token := f.Seal(nil)
			f.Free()
			if r, err := e.ReleaseToken(token); r != Ended || err != nil {
				panic(fmt.Sprint(r, err))
			}
		},
		"Abort": func(_ *Engine, f *Flow) { f.Abort() },
		"its time is over": func(_ *Engine, f *Flow) {
			f.Seal(nil)
			f.Free()
			time.Sleep(time.Minute)
		},
	}
	for name, end := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, _ := cachingEngine(t, func(c *cache.Config) { c.CoalesceTimeout = time.Minute },
					slotSpec(ConcurrencyLimiter, 1, "cp", "", 2))
				first := e.Start(context.Background(), resultRequest(CoalesceWait))
				if !first.Cached().Leader {
					t.Fatal("the first does not lead")
				}
				done := make(chan *Flow)
				go func() { done <- e.Start(context.Background(), resultRequest(CoalesceWait)) }()
				synctest.Wait()
				select {
				case <-done:
					t.Fatal("the second did not wait")
				default:
				}
				before := time.Now()
				end(e, first)
				second := <-done
				if took := time.Since(before); took != 0 && name != "its time is over" {
					t.Errorf("the second heard of it after %s, want at once", took)
				}
				if got := second.Cached(); got == nil || !got.Leader || got.Result.Status != CacheMiss {
					t.Fatalf("got %v with %+v, want a leader", second.Verdict.Reason, got)
				}
				second.End(Outcome{})
			})
		})
	}
}

// TestDeniedLeadersPassOn: a leader that the quota denies passes the lead on to the next, which is denied, too,
// and so on to the last, without a deep stack.
func TestDeniedLeadersPassOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 5000
		quota := quotaSpec(1, "cp", "", limit.BucketRule{Capacity: 1, FillAmount: 0, Interval: time.Second})
		quota.Scheduler.Default.NoWait = true
		e, _ := cachingEngine(t, nil, quota)
		first := e.Start(context.Background(), resultRequest(CoalesceWait))
		reasons := make(chan Reason, n)
		for range n {
			go func() {
				f := e.Start(context.Background(), resultRequest(CoalesceWait))
				reasons <- f.Verdict.Reason
				if f.Cached() != nil {
					t.Error("a denied flow has a result")
				}
				f.Free()
			}()
		}
		synctest.Wait()
		before := time.Now()
		first.End(Outcome{})
		defer func() {
			if took := time.Since(before); took != 0 {
				t.Errorf("that took %s, want no time at all", took)
			}
		}()
		for range n {
			if r := <-reasons; r != QueueTimeout {
				t.Fatalf("got %v, want queue_timeout", r)
			}
		}
		f := e.Start(context.Background(), &Request{ControlPoint: "elsewhere", Cache: &CacheQuery{ResultKey: "k", Coalesce: CoalesceWait}})
		if !f.Cached().Leader {
			t.Error("a flow of another control point does not lead")
		}
		f.End(Outcome{})
	})
}

// TestWaitersGoOn: a flow that has waited for a result as long as it may is still decided by what comes after.
func TestWaitersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := cachingEngine(t, nil, slotSpec(ConcurrencyScheduler, 1, "cp", "", 2), quotaSpec(2, "cp", "", perSecond(10)))
		leader := e.Start(context.Background(), resultRequest(CoalesceWait))
		r := resultRequest(CoalesceWait)
		r.QueueTimeout = time.Second
		f := e.Start(context.Background(), r)
		if got := f.Cached(); !f.Admitted() || got.Result.Status != CacheMiss || got.Leader {
			t.Errorf("got %v with %+v, want admitted with a miss", f.Verdict.Reason, got)
		}
		if w := f.Verdict.Waited; w != time.Second-coalesceMargin {
			t.Errorf("waited %s, want a second less the margin", w)
		}
		f.End(Outcome{})
		r.QueueTimeout = 0
		f = e.Start(context.Background(), r)
		if got := f.Cached(); !f.Admitted() || got.Result.Status != CacheMiss || f.Verdict.Waited != 0 {
			t.Errorf("one that may not wait: got %+v with %+v, want a miss at once", f.Verdict, got)
		}
		f.End(Outcome{})
		leader.End(Outcome{})
	})
}

func TestCancelledWaitersGiveBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, c := cachingEngine(t, nil, slotSpec(ConcurrencyScheduler, 1, "cp", "", 3))
		leader := e.Start(context.Background(), resultRequest(CoalesceWait))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan *Flow, 2)
		for range 2 {
			go func() { done <- e.Start(ctx, resultRequest(CoalesceWait)) }()
		}
		synctest.Wait()
		if n := inFlight(t, e, 1); n != 3 {
			t.Fatalf("%v slots are held, want 3: flows that wait for a result hold theirs", n)
		}
		time.Sleep(time.Second)
		cancel()
		for range 2 {
			f := <-done
			if f.Verdict.Reason != Cancelled || f.Verdict.Waited != time.Second || f.Cached() != nil || f.Verdict.Limiter != nil {
				t.Errorf("got %+v, want cancelled after 1s", f.Verdict)
			}
			f.Free()
		}
		if n := inFlight(t, e, 1); n != 1 {
			t.Errorf("%v slots are held, want 1", n)
		}
		store(t, c, resultKey, "v", time.Minute)
		leader.End(Outcome{})
		f := e.Start(ctx, resultRequest(CoalesceWait))
		if f.Verdict.Reason != Admitted { // a hit needs no wait
			t.Errorf("got %v, want admitted", f.Verdict.Reason)
		}
		f.End(Outcome{})
	})
}

func TestCloseDeniesFlowsThatWaitForResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := cachingEngine(t, nil, slotSpec(ConcurrencyScheduler, 1, "cp", "", 3))
		leader := e.Start(context.Background(), resultRequest(CoalesceWait))
		done := make(chan *Flow)
		go func() { done <- e.Start(context.Background(), resultRequest(CoalesceWait)) }()
		synctest.Wait()
		e.Close()
		for range 2 {
			f := <-done
			if f.Verdict.Reason != ShuttingDown {
				t.Errorf("got %v, want shutting_down", f.Verdict.Reason)
			}
			f.Free()
			go func() { done <- e.Start(context.Background(), resultRequest(CoalesceWait)) }()
		}
		(<-done).Free()
		leader.End(Outcome{})
		if n := inFlight(t, e, 1); n != 0 {
			t.Errorf("%v slots are held, want none", n)
		}
	})
}

func TestStaleResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quota := quotaSpec(1, "cp", "", limit.BucketRule{Capacity: 1, FillAmount: 0, Interval: time.Second})
		e, c := cachingEngine(t, nil, quota)
		store(t, c, resultKey, "old", time.Minute)
		time.Sleep(time.Minute)
		leader := e.Start(context.Background(), resultRequest(CoalesceStale))
		if got := leader.Cached(); !got.Leader || got.Result.Status != CacheMiss {
			t.Fatalf("got %+v, want a leader that misses", got)
		}
		f := e.Start(context.Background(), resultRequest(CoalesceStale))
		if got := f.Cached(); !f.Admitted() || got.Leader || got.Result.Status != CacheStale || string(got.Result.Value) != "old" {
			t.Errorf("got %v with %+v, want the old value", f.Verdict.Reason, got)
		}
		f.End(Outcome{})
		leader.End(Outcome{})
	})
}

// TestTenants: the label separates them, wherever it comes from; classifiers win, because callers may lie.
func TestTenants(t *testing.T) {
	e, c := cachingEngine(t, func(c *cache.Config) { c.TenantLabel = "tenant" })
	for _, tenant := range []string{"", "a", "b"} {
		store(t, c, cache.ResultKey(tenant, "cp", "k"), "result of "+tenant, time.Minute)
		store(t, c, cache.GlobalKey(tenant, "g"), "value of "+tenant, time.Minute)
	}
	http := func() *classify.Request {
		return &classify.Request{Headers: map[string]string{"baggage": "tenant=b"}}
	}
	for name, tt := range map[string]struct {
		r    Request
		want string
	}{
		"no label":           {Request{}, ""},
		"a label":            {Request{Labels: map[string]string{"tenant": "a"}}, "a"},
		"baggage":            {Request{HTTP: http()}, "b"},
		"a label wins":       {Request{HTTP: http(), Labels: map[string]string{"tenant": "a"}}, "a"},
		"one without values": {Request{Labels: map[string]string{"tenant": "c"}}, "c"},
	} {
		tt.r.ControlPoint, tt.r.Cache = "cp", &CacheQuery{ResultKey: "k", GlobalKeys: []string{"g"}}
		f := e.Start(t.Context(), &tt.r)
		got := f.Cached()
		if got.Tenant != tt.want {
			t.Errorf("%s: tenant %q, want %q", name, got.Tenant, tt.want)
		}
		result, value := "result of "+tt.want, "value of "+tt.want
		if tt.want == "c" {
			result, value = "", ""
		}
		if string(got.Result.Value) != result || string(got.Global["g"].Value) != value {
			t.Errorf("%s: got %q and %q", name, got.Result.Value, got.Global["g"].Value)
		}
		f.End(Outcome{})
	}
	f := e.Start(t.Context(), &Request{
		ControlPoint: "cp", Labels: map[string]string{"tenant": strings.Repeat("x", 2000)}, Cache: &CacheQuery{ResultKey: "k"},
	})
	if got := f.Cached(); !f.Admitted() || got.Result.Status != CacheError || !strings.Contains(got.Result.Error, "tenant has 2000 bytes") {
		t.Errorf("a tenant that is too long: got %v with %+v, want admitted with an error", f.Verdict.Reason, got)
	}
	f.End(Outcome{})
}

// TestTenantOfClassifiers: a label that a classifier makes wins over what the caller says.
func TestTenantOfClassifiers(t *testing.T) {
	e, c := cachingEngine(t, func(c *cache.Config) { c.TenantLabel = "tenant" })
	publish(t, e, Set{Classifiers: []*ClassifierSpec{classifierSpec("p", 0, label.Expr{}, always("tenant", "wrong", "tenant", "acme"))}})
	store(t, c, cache.ResultKey("acme", "cp", "k"), "v", time.Minute)
	f := e.Start(t.Context(), &Request{
		ControlPoint: "cp", Labels: map[string]string{"tenant": "victim"}, HTTP: &classify.Request{}, Cache: &CacheQuery{ResultKey: "k"},
	})
	if got := f.Cached(); got.Tenant != "acme" || string(got.Result.Value) != "v" {
		t.Errorf("got %+v, want the value of acme", got)
	}
	f.End(Outcome{})
}

// TestKeyFloods: a request that names very many keys is answered about a few of them.
func TestKeyFloods(t *testing.T) {
	names := make([]string, 100_000)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	e, _ := cachingEngine(t, nil)
	for _, e := range []*Engine{e, newEngine(t)} {
		f := e.Start(t.Context(), &Request{ControlPoint: "cp", Cache: &CacheQuery{GlobalKeys: names}})
		if got := f.Cached(); !f.Admitted() || len(got.Global) > 2*cache.MaxGlobalKeys {
			t.Errorf("got %v with %d answers, want admitted with a few", f.Verdict.Reason, len(got.Global))
		}
		f.End(Outcome{})
	}
}

// TestControlPointsDoNotShareResults, not even those that are counted as one.
func TestControlPointsDoNotShareResults(t *testing.T) {
	e, c := cachingEngine(t, nil)
	e.cfg.MaxControlPoints = 1
	for _, point := range []string{"one", "two", "three"} {
		store(t, c, cache.ResultKey("", point, "k"), point, time.Minute)
	}
	for _, point := range []string{"one", "two", "three", "four"} {
		f := e.Start(t.Context(), &Request{ControlPoint: point, Cache: &CacheQuery{ResultKey: "k"}})
		want := point
		if point == "four" {
			want = ""
		}
		if got := f.Cached(); string(got.Result.Value) != want {
			t.Errorf("%s: got %q, want %q", point, got.Result.Value, want)
		}
		f.End(Outcome{})
	}
}

func TestLeadOfAnotherServerIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := cachingEngine(t, nil)
		b, _ := cachingEngine(t, nil) // with the same key
		fa, fb := a.Start(context.Background(), resultRequest(CoalesceWait)), b.Start(context.Background(), resultRequest(CoalesceWait))
		token := fa.Seal(nil)
		fa.Free()
		if r, err := b.EndToken(token, &Outcome{}); r != Ended || err != nil {
			t.Errorf("got %v, %v", r, err)
		}
		r := resultRequest(CoalesceWait)
		r.QueueTimeout = time.Second
		f := b.Start(context.Background(), r)
		if f.Cached().Leader {
			t.Error("a flow of another server gave up a lead of this one")
		}
		f.End(Outcome{})
		fb.End(Outcome{})
		if e := newEngine(t); func() bool { _, err := e.EndToken(token, &Outcome{}); return err != nil }() {
			t.Error("a server without caches cannot end the flow of a leader")
		}
	})
}

// TestNothingLeaksAroundCaches races flows of every fate and then looks at what is left: no slot, nobody who waits,
// no flight.
func TestNothingLeaksAroundCaches(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			e, c := cachingEngine(t, func(c *cache.Config) { c.CoalesceTimeout = 2 * time.Second },
				slotSpec(ConcurrencyScheduler, 1, "cp", "", 30), quotaSpec(2, "cp", "", perSecond(40)))
			var wg sync.WaitGroup
			for n := range 300 {
				rng := rand.New(rand.NewPCG(seed, uint64(n)))
				wg.Go(func() { raceOne(t, e, c, rng) })
			}
			wg.Wait()
			time.Sleep(2 * time.Minute)                                                // slots of flows without an end
			e.Start(context.Background(), &Request{ControlPoint: "cp"}).End(Outcome{}) // finds that their time is over
			if n := inFlight(t, e, 1); n != 0 {
				t.Errorf("%v slots are held, want none", n)
			}
			if n := e.pointStats("cp").waiting.Load(); n != 0 {
				t.Errorf("%d flows wait, want none", n)
			}
		})
	}
}

// raceOne starts a flow at some time and ends it in some way.
func raceOne(t *testing.T, e *Engine, c *cache.Cache, rng *rand.Rand) {
	pause := func(ms int) { time.Sleep(time.Duration(rng.IntN(ms)) * time.Millisecond) }
	pause(5000)
	key := fmt.Sprint(rng.IntN(3))
	r := &Request{
		ControlPoint: "cp", QueueTimeout: time.Duration(rng.IntN(4000)-500) * time.Millisecond, NoEnd: rng.IntN(10) == 0,
		Cache: &CacheQuery{ResultKey: key, Coalesce: Coalesce(rng.IntN(3))},
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+rng.IntN(3000))*time.Millisecond)
	defer cancel()
	if rng.IntN(5) == 0 {
		time.AfterFunc(time.Duration(rng.IntN(1000))*time.Millisecond, cancel)
	}
	f := e.Start(ctx, r)
	if !f.Admitted() {
		f.Free()
		return
	}
	got := f.Cached()
	leads := got.Leader
	if leads && got.Result.Status != CacheMiss {
		t.Errorf("a leader got %+v", got.Result)
	}
	token := []byte(nil)
	if rng.IntN(2) == 0 && !r.NoEnd {
		token = f.Seal(nil)
		f.Free()
		f = nil
	}
	pause(300)
	if leads && rng.IntN(3) > 0 {
		store(t, c, cache.ResultKey("", "cp", key), "v", time.Duration(1+rng.IntN(500))*time.Millisecond)
	}
	switch {
	case token != nil:
		for range 1 + rng.IntN(2) {
			if _, err := e.EndToken(token, &Outcome{}); err != nil {
				t.Error(err)
			}
		}
	case r.NoEnd:
		f.Free()
	case rng.IntN(4) == 0:
		f.Abort()
	default:
		f.End(Outcome{})
	}
}
