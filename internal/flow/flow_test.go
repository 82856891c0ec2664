// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
)

// perSecond is a bucket of n tokens that fills n per second.
func perSecond(n float64) limit.BucketRule {
	return limit.BucketRule{Capacity: n, FillAmount: n, Interval: time.Second, Continuous: true}
}

func quotaSpec(id ledger.LimiterID, point, by string, rule limit.BucketRule) *LimiterSpec {
	s := rateSpec(id, point, by, label.Expr{}, rule)
	s.Kind, s.DeniedStatus, s.TokensKey = QuotaScheduler, 503, "tokens"
	s.Scheduler = &SchedulerSpec{
		Default:     WorkloadSpec{Name: "default", Priority: 1, Tokens: 1},
		PriorityKey: "priority", WorkloadKey: "workload", FairnessKey: "user",
	}
	return s
}

// start decides a flow that may not wait.
func start(e *Engine, point string, labels ...string) *Flow {
	return e.Start(context.Background(), &Request{ControlPoint: point, Labels: labelMap(labels)})
}

// wait decides a flow that waits as long as it takes.
func wait(ctx context.Context, e *Engine, point string, labels ...string) *Flow {
	return e.Start(ctx, &Request{ControlPoint: point, Labels: labelMap(labels), QueueTimeout: -1})
}

func labelMap(kv []string) map[string]string {
	m := make(map[string]string, len(kv)/2)
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return m
}

// reason decides a flow that may not wait, frees it, and returns why.
func reason(e *Engine, point string, labels ...string) Reason {
	f := start(e, point, labels...)
	defer f.Free()
	return f.Verdict.Reason
}

func inFlight(t *testing.T, e *Engine, id ledger.LimiterID) float64 {
	t.Helper()
	used := 0.0
	for _, a := range e.Overview(1000).Accounts {
		if a.Spec.ID == id {
			used += a.Used
		}
	}
	return used
}

func TestRateLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, rateSpec(1, "cp", "user", label.Expr{}, limit.BucketRule{Capacity: 3, FillAmount: 1, Interval: time.Second, Continuous: true}))
		for i := range 3 {
			if r := reason(e, "cp", "user", "alice"); r != Admitted {
				t.Fatalf("flow %d: %v", i, r)
			}
		}
		f := start(e, "cp", "user", "alice")
		if f.Admitted() || f.Verdict.Reason != RateLimited || f.Verdict.RetryAfter != time.Second || f.Verdict.HTTPStatus() != 429 {
			t.Errorf("fourth flow: %+v", f.Verdict)
		}
		if msg := f.Verdict.Message(); !strings.Contains(msg, "policy-1") || !strings.Contains(msg, "user:alice") || !strings.Contains(msg, "retry in 1s") {
			t.Errorf("message %q says too little", msg)
		}
		f.Free()
		if r := reason(e, "cp", "user", "bob"); r != Admitted {
			t.Errorf("another user: %v", r)
		}
		if r := reason(e, "cp"); r != Admitted {
			t.Errorf("without the label: %v, want admitted", r)
		}
		if r := reason(e, "elsewhere", "user", "alice"); r != NoPolicy {
			t.Errorf("another control point: %v", r)
		}
		time.Sleep(time.Second)
		if r := reason(e, "cp", "user", "alice"); r != Admitted {
			t.Errorf("after the retry time: %v", r)
		}
	})
}

func TestHostileNumbersAreRefusedAndChargeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := rateSpec(1, "cp", "", label.Expr{}, perSecond(10))
		spec.TokensKey = "tokens"
		e := newEngine(t, spec)
		for range 10 {
			start(e, "cp").Free()
		}
		for _, text := range []string{"-100", "NaN", "nan", "Inf", "-Inf", "1e308", "1e999", "-1e999", "-0.0001", "9007199254740993000"} {
			if r := reason(e, "cp", "tokens", text); r != InvalidRequest {
				t.Errorf("tokens %s: %v, want invalid_request", text, r)
			}
		}
		if r := reason(e, "cp"); r != RateLimited {
			t.Errorf("an empty bucket became %v", r)
		}
		time.Sleep(time.Second)
		if r := reason(e, "cp", "tokens", "many"); r != Admitted {
			t.Errorf("text that is no number: %v, want cost 1", r)
		}
		if r := reason(e, "cp", "tokens", "11"); r != TooLarge {
			t.Errorf("more than a full bucket: %v", r)
		}
		if r := reason(e, "cp", "tokens", "9"); r != Admitted {
			t.Errorf("exactly what is left: %v", r)
		}
	})
}

func TestUndoAcrossStages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t,
			rateSpec(1, "cp", "", label.Expr{}, limit.BucketRule{Capacity: 5, Interval: time.Second, Continuous: true}),
			slotSpec(ConcurrencyLimiter, 2, "cp", "", 5),
			slotSpec(ConcurrencyScheduler, 3, "cp", "", 5),
			quotaSpec(4, "cp", "", limit.BucketRule{Capacity: 1, Interval: time.Second, Continuous: true}),
		)
		f := start(e, "cp")
		if !f.Admitted() {
			t.Fatal(f.Verdict.Message())
		}
		for range 100 {
			if r := reason(e, "cp"); r != QueueTimeout && r != DeadlineTooShort {
				t.Fatalf("the quota scheduler should deny, got %v", r)
			}
		}
		for id, want := range map[ledger.LimiterID]float64{1: 1, 2: 1, 3: 1, 4: 1} {
			if got := inFlight(t, e, id); got != want {
				t.Errorf("limiter %d: %v used, want %v", id, got, want)
			}
		}
		f.End(Outcome{})
		for id, want := range map[ledger.LimiterID]float64{1: 1, 2: 0, 3: 0, 4: 1} {
			if got := inFlight(t, e, id); got != want {
				t.Errorf("after the end, limiter %d: %v used, want %v", id, got, want)
			}
		}
	})
}

func TestSchedulerOrderAndCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, slotSpec(ConcurrencyScheduler, 1, "cp", "", 1))
		first := wait(context.Background(), e, "cp")
		var mu sync.Mutex
		var order []string
		queue := func(ctx context.Context, name, priority string) {
			go func() {
				f := wait(ctx, e, "cp", "priority", priority)
				mu.Lock()
				order = append(order, name+" "+f.Verdict.Reason.String())
				mu.Unlock()
				if f.Admitted() {
					time.Sleep(time.Second)
					f.End(Outcome{})
				} else {
					f.Free()
				}
			}()
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(context.Background())
		queue(context.Background(), "low", "1")
		queue(ctx, "leaves", "100")
		queue(context.Background(), "high", "10")
		impatient, stop := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer stop()
		queue(impatient, "impatient", "0.001")
		cancel()
		synctest.Wait()
		time.Sleep(600 * time.Millisecond)
		first.End(Outcome{})
		time.Sleep(10 * time.Second)
		want := []string{"leaves cancelled", "impatient queue_timeout", "high admitted", "low admitted"}
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(order, want) {
			// The caller's deadline and the queue's end at the same instant; either may be noticed first.
			want[1] = "impatient cancelled"
			if !slices.Equal(order, want) {
				t.Errorf("got %q, want %q", order, want)
			}
		}
		if n := inFlight(t, e, 1); n != 0 {
			t.Errorf("%v slots leaked", n)
		}
	})
}

func TestDeadlineTooShortIsDeniedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, quotaSpec(1, "cp", "", perSecond(10)))
		start(e, "cp", "tokens", "10").Free()
		began := time.Now()
		f := e.Start(context.Background(), &Request{
			ControlPoint: "cp", Labels: map[string]string{"tokens": "5"}, QueueTimeout: 200 * time.Millisecond,
		})
		defer f.Free()
		if f.Verdict.Reason != DeadlineTooShort || time.Since(began) != 0 || f.Verdict.RetryAfter != 500*time.Millisecond {
			t.Errorf("%v after %v, retry after %v", f.Verdict.Reason, time.Since(began), f.Verdict.RetryAfter)
		}
		g := e.Start(context.Background(), &Request{
			ControlPoint: "cp", Labels: map[string]string{"tokens": "5"}, QueueTimeout: 600 * time.Millisecond,
		})
		defer g.Free()
		if !g.Admitted() || g.Verdict.Waited.Round(time.Millisecond) != 500*time.Millisecond {
			t.Errorf("%v after %v", g.Verdict.Reason, g.Verdict.Waited)
		}
	})
}

func TestLostEndFreesSlotAndWakesWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, slotSpec(ConcurrencyScheduler, 1, "cp", "", 1))
		lost := wait(context.Background(), e, "cp")
		token := lost.Seal(nil)
		lost.Free()
		began := time.Now()
		f := wait(context.Background(), e, "cp")
		if !f.Admitted() || time.Since(began) != time.Minute {
			t.Errorf("%v after %v, want admitted after max_inflight_duration", f.Verdict.Reason, time.Since(began))
		}
		if r, err := e.EndToken(token, &Outcome{}); r != Expired || err != nil {
			t.Errorf("the late end: %v %v, want expired", r, err)
		}
		if n := inFlight(t, e, 1); n != 1 {
			t.Errorf("%v in flight, want 1: a late end must not free somebody else's slot", n)
		}
		f.End(Outcome{})
	})
}

func TestEditKeepsCountsAndQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rate := rateSpec(1, "cp", "", label.Expr{}, limit.BucketRule{Capacity: 10, Interval: time.Hour, Continuous: true})
		slots := slotSpec(ConcurrencyScheduler, 2, "cp", "", 1)
		e := newEngine(t, rate, slots)
		holder := wait(context.Background(), e, "cp")
		results := make(chan Reason, 10)
		for range 3 {
			go func() {
				f := wait(context.Background(), e, "cp")
				results <- f.Verdict.Reason
				f.Free() // the end is lost; slots stay held
			}()
		}
		synctest.Wait()
		wider := *slots
		wider.Slots.Max = 3
		if err := e.Publish(Set{Limiters: []*LimiterSpec{rate, &wider, rateSpec(9, "other", "", label.Expr{}, perSecond(1))}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(results) != 2 {
			t.Errorf("%d waiting flows went on after the limit was raised by 2", len(results))
		}
		if used := inFlight(t, e, 1); used != 4 {
			t.Errorf("the unchanged rate limiter has %v used, want 4", used)
		}
		if err := e.Publish(Set{Limiters: []*LimiterSpec{rate}}); err != nil { // the scheduler is gone; its queue is not
			t.Fatal(err)
		}
		holder.End(Outcome{})
		synctest.Wait()
		if len(results) != 3 {
			t.Errorf("%d of 3 flows admitted after the policy was removed and a slot was freed", len(results))
		}
		for range 3 {
			if r := <-results; r != Admitted {
				t.Errorf("a waiting flow was %v", r)
			}
		}
	})
}

func TestRefusedPublishChangesNothing(t *testing.T) {
	e := newEngine(t, rateSpec(1, "cp", "", label.Expr{}, perSecond(1)))
	before := e.snapshot.Load()
	bad := rateSpec(2, "cp", "", label.Expr{}, perSecond(1))
	bad.Bucket.Interval = 0
	if err := e.Publish(Set{Limiters: []*LimiterSpec{bad}}); err == nil || !strings.Contains(err.Error(), "interval") {
		t.Errorf("got %v", err)
	}
	dup := []*LimiterSpec{rateSpec(3, "a", "", label.Expr{}, perSecond(1)), rateSpec(3, "b", "", label.Expr{}, perSecond(1))}
	if err := e.Publish(Set{Limiters: dup}); err == nil {
		t.Error("two limiters of one id were accepted")
	}
	if e.snapshot.Load() != before {
		t.Error("the running version changed")
	}
}

func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tpm := rateSpec(1, "cp", "user", label.Expr{}, limit.BucketRule{Capacity: 1000, Interval: time.Minute, Continuous: true})
		tpm.TokensKey = "tokens"
		e := newEngine(t, tpm, slotSpec(ConcurrencyLimiter, 2, "cp", "user", 10))
		sealed := func() []byte {
			f := start(e, "cp", "user", "alice", "tokens", "100")
			defer f.Free()
			return f.Seal(nil)
		}
		token := sealed()
		actual := 40.0
		if r, err := e.EndToken(token, &Outcome{Tokens: &actual}); r != Ended || err != nil {
			t.Fatal(r, err)
		}
		if used := inFlight(t, e, 1); used != 40 {
			t.Errorf("%v used after settling, want 40", used)
		}
		for range 5 {
			if r, _ := e.EndToken(token, &Outcome{Tokens: &actual}); r != AlreadyEnded {
				t.Errorf("ending again: %v", r)
			}
		}
		if used := inFlight(t, e, 1); used != 40 {
			t.Errorf("%v used after ending again, want 40", used)
		}
		more := 500.0
		if _, err := e.EndToken(sealed(), &Outcome{TokensByLabel: map[string]float64{"tokens": more}}); err != nil {
			t.Fatal(err)
		}
		if used := inFlight(t, e, 1); used != 540 {
			t.Errorf("%v used, want 540", used)
		}
		if used := inFlight(t, e, 2); used != 0 {
			t.Errorf("%v slots held after all ends", used)
		}
		for i := range token {
			forged := slices.Clone(token)
			forged[i] ^= 1
			if _, err := e.EndToken(forged, &Outcome{}); !errors.Is(err, ErrInvalidToken) {
				t.Fatalf("byte %d changed: %v", i, err)
			}
		}
		for _, short := range [][]byte{nil, token[:5], token[:len(token)-1], append(slices.Clone(token), 0), make([]byte, 1<<20)} {
			if _, err := e.EndToken(short, &Outcome{}); !errors.Is(err, ErrInvalidToken) {
				t.Errorf("%d bytes: %v", len(short), err)
			}
		}
	})
}

func TestReplayedTokenOfAnEarlierProcessGivesNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		open := func() (*Engine, *ledger.Memory) {
			m, err := ledger.NewMemory(ledger.Config{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			e, err := New(Config{Authority: m, TokenKey: make([]byte, TokenKeySize)})
			if err != nil {
				t.Fatal(err)
			}
			spec := rateSpec(1, "cp", "", label.Expr{}, limit.BucketRule{Capacity: 100, Interval: time.Hour, Continuous: true})
			spec.TokensKey = "tokens"
			if err := e.Publish(Set{Limiters: []*LimiterSpec{spec, slotSpec(ConcurrencyLimiter, 2, "cp", "", 10)}}); err != nil {
				t.Fatal(err)
			}
			return e, m
		}
		e, m := open()
		f := start(e, "cp", "tokens", "60")
		token := f.Seal(nil)
		f.Free()
		m.Close()
		time.Sleep(time.Second)
		e, m = open()
		defer m.Close()
		if a, b := inFlight(t, e, 1), inFlight(t, e, 2); a != 60 || b != 1 {
			t.Fatalf("after the restart %v tokens used and %v slots held", a, b)
		}
		cheap := 0.0
		if r, err := e.EndToken(token, &Outcome{Tokens: &cheap}); r != Ended || err != nil {
			t.Errorf("%v %v", r, err)
		}
		if a, b := inFlight(t, e, 1), inFlight(t, e, 2); a != 60 || b != 0 {
			t.Errorf("%v tokens used, want 60: no refund across a restart; %v slots held, want 0", a, b)
		}
	})
}

func TestInvalidRequests(t *testing.T) {
	e := newEngine(t, rateSpec(1, "cp", "user", label.Expr{}, perSecond(1e6)))
	many := make(map[string]string)
	for i := range MaxLabels + 1 {
		many[fmt.Sprint(i)] = "x"
	}
	for name, r := range map[string]*Request{
		"no control point":   {},
		"long control point": {ControlPoint: strings.Repeat("x", 256)},
		"too many labels":    {ControlPoint: "cp", Labels: many},
	} {
		f := e.Start(context.Background(), r)
		if f.Verdict.Reason != InvalidRequest || f.Verdict.HTTPStatus() != 400 || f.Verdict.Detail == "" {
			t.Errorf("%s: %+v", name, f.Verdict)
		}
		f.Free()
	}
	for _, value := range []string{"", strings.Repeat("x", 64<<10), "\xff\xfe", "a\x00b\n", strings.Repeat("\xff", 1000)} {
		f := start(e, "cp", "user", value)
		if !f.Admitted() {
			t.Errorf("%.20q: %s", value, f.Verdict.Message())
		}
		f.Free()
	}
	for range 10 {
		if r := reason(e, "cp", "user", strings.Repeat("y", 64<<10)); r != Admitted {
			t.Fatal(r)
		}
	}
}

func TestDeadlineInThePastStillTriesOnce(t *testing.T) {
	e := newEngine(t, slotSpec(ConcurrencyScheduler, 1, "cp", "", 1))
	ctx, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Hour))
	defer cancel()
	f := wait(ctx, e, "cp")
	if !f.Admitted() {
		t.Error("capacity was free:", f.Verdict.Message())
	}
	if g := wait(ctx, e, "cp"); g.Admitted() {
		t.Error("admitted past the limit")
	} else {
		g.Free()
	}
	f.End(Outcome{})
}

func TestTenThousandWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, slotSpec(ConcurrencyScheduler, 1, "cp", "", 2))
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		const n = 10_000
		for i := range n {
			wg.Go(func() {
				c := context.Background()
				if i%2 == 0 {
					c = ctx
				}
				f := wait(c, e, "cp", "priority", fmt.Sprint(1+i%5))
				if f.Admitted() {
					time.Sleep(time.Millisecond)
					f.End(Outcome{})
				} else {
					f.Free()
				}
			})
		}
		synctest.Wait()
		if w := e.Overview(0).Limiters[0].Waiting; w != n-2 {
			t.Errorf("%d waiting, want %d", w, n-2)
		}
		cancel()
		wg.Wait()
		o := e.Overview(10)
		if o.Limiters[0].Waiting != 0 || len(o.Accounts) != 0 {
			t.Errorf("left behind: %d waiting, accounts %+v", o.Limiters[0].Waiting, o.Accounts)
		}
		if got := o.Points[len(o.Points)-1]; got.Admitted+got.Denied != n || got.Waiting != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// TestHeadline is the reference of H1: 2 slots, 5 paid and 5 free users, 25 sequential calls of 100 ms.
// The work-conserving makespan is 12.5 s. Free users are unfinished until the end, so together they wait
// 5 x 12.5 s less the 12.5 s that they run, less what those who finish before the last one save: first
// in, first out, with everybody ending within the last 200 ms, that is 396.8 ms a call, whatever the
// share of the paid. Which free user ends first is chance here, so single runs come out between 390 and
// 397 ms.
func TestHeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := slotSpec(ConcurrencyScheduler, 1, "cp", "", 2)
		spec.Scheduler.Workloads = []WorkloadSpec{
			{Name: "paid", Match: label.Equal("tier", "paid"), Priority: 5, Tokens: 1},
			{Name: "free", Match: label.Equal("tier", "free"), Priority: 1, Tokens: 1},
		}
		e := newEngine(t, spec)
		var mu sync.Mutex
		waits := map[string]time.Duration{}
		running, peak := 0, 0
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 10 {
			tier := []string{"paid", "free"}[i%2]
			wg.Go(func() {
				for range 25 {
					f := wait(context.Background(), e, "cp", "tier", tier)
					mu.Lock()
					waits[tier] += f.Verdict.Waited
					running++
					peak = max(peak, running)
					mu.Unlock()
					time.Sleep(100 * time.Millisecond)
					mu.Lock()
					running--
					mu.Unlock()
					f.End(Outcome{})
				}
			})
		}
		wg.Wait()
		makespan, paid, free := time.Since(began), waits["paid"]/125, waits["free"]/125
		t.Logf("makespan %v, mean wait paid %v, free %v, peak %d", makespan, paid, free, peak)
		if makespan > 12700*time.Millisecond || paid > 205*time.Millisecond || free > 398*time.Millisecond || peak != 2 {
			t.Errorf("makespan %v (<= 12.7s), paid %v (<= 205ms), free %v (<= 398ms), peak %d (2)", makespan, paid, free, peak)
		}
	})
}

// TestCancelRaces lets cancellations cross grants, timers and limit changes on real goroutines.
func TestCancelRaces(t *testing.T) {
	scheduler := slotSpec(ConcurrencyScheduler, 1, "cp", "", 3)
	quota := quotaSpec(2, "cp", "", perSecond(1e5))
	e := newEngine(t, scheduler, quota, rateSpec(3, "cp", "", label.Expr{}, perSecond(1e6)))
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 3))
			for range 400 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rng.IntN(300))*time.Microsecond)
				if rng.IntN(2) == 0 {
					go cancel()
				}
				f := wait(ctx, e, "cp", "priority", fmt.Sprint(rng.IntN(5)), "tokens", fmt.Sprint(rng.IntN(100)))
				switch {
				case !f.Admitted():
					f.Free()
				case rng.IntN(5) == 0:
					f.Abort()
				default:
					runtime.Gosched()
					f.End(Outcome{})
				}
				cancel()
			}
		})
	}
	for i := range 100 {
		changed := *scheduler
		changed.Slots.Max = float64(1 + i%4)
		if err := e.Publish(Set{Limiters: []*LimiterSpec{&changed, quota}}); err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	wg.Wait()
	o := e.Overview(10)
	for _, l := range o.Limiters {
		if l.Waiting != 0 {
			t.Errorf("%s: %d flows wait", l.Spec.Kind, l.Waiting)
		}
	}
	if n := inFlight(t, e, 1); n != 0 {
		t.Errorf("%v slots leaked", n)
	}
	for _, p := range o.Points {
		if p.Waiting != 0 {
			t.Errorf("%+v", p)
		}
	}
}

func TestExplain(t *testing.T) {
	e := newEngine(t, rateSpec(1, "cp", "user", label.Expr{}, perSecond(5)), rateSpec(2, "cp", "plan", label.Expr{}, perSecond(5)),
		slotSpec(ConcurrencyScheduler, 3, "cp", "", 2))
	f := e.Start(context.Background(), &Request{ControlPoint: "cp", Labels: map[string]string{"user": "alice"}, Explain: true})
	defer f.Free()
	if len(f.Verdict.Decisions) != 3 {
		t.Fatalf("%+v", f.Verdict.Decisions)
	}
	d := f.Verdict.Decisions
	if d[0].Remaining != 4 || d[0].Limit != 5 || d[0].Account() != "user:alice" {
		t.Errorf("%+v", d[0])
	}
	if d[1].Note != "label_missing" || !d[1].Admitted {
		t.Errorf("%+v", d[1])
	}
	if d[2].Workload != "default" || d[2].Remaining != 1 {
		t.Errorf("%+v", d[2])
	}
}

func TestExplainTellsWhyAFlowCostOne(t *testing.T) {
	spec := rateSpec(1, "cp", "user", label.Expr{}, perSecond(100))
	spec.TokensKey = "tokens"
	e := newEngine(t, spec)
	for text, want := range map[string]Decision{
		"5":   {Tokens: 5},
		"abc": {Tokens: 1, Note: "tokens_not_a_number"},
		"-":   {Tokens: 1, Note: "tokens_label_missing"},
	} {
		labels := map[string]string{"user": "ann", "tokens": text}
		if text == "-" {
			delete(labels, "tokens")
		}
		f := e.Start(context.Background(), &Request{ControlPoint: "cp", Labels: labels, Explain: true})
		d := f.Verdict.Decisions[0]
		if d.Tokens != want.Tokens || d.Note != want.Note || d.Account() != "user:ann" {
			t.Errorf("tokens %q: %+v", text, d)
		}
		f.End(Outcome{})
	}
}

func TestPriorityLabelIsBounded(t *testing.T) {
	e := newEngine(t, slotSpec(ConcurrencyScheduler, 1, "cp", "", 1e6))
	for text, want := range map[string]float64{"1e9": maxPriority, "1e308": maxPriority, "Inf": maxPriority, "-5": 1, "NaN": 1, "0": 1, "x": 1, "1e-300": minPriority, "7.5": 7.5} {
		f := e.Start(context.Background(), &Request{ControlPoint: "cp", Labels: map[string]string{"priority": text}, Explain: true})
		if got := f.Verdict.Decisions[0].Priority; got != want || math.IsNaN(got) {
			t.Errorf("priority %s: %v, want %v", text, got, want)
		}
		f.End(Outcome{})
	}
}

func TestControlPointFloodIsBounded(t *testing.T) {
	m, _ := ledger.NewMemory(ledger.Config{})
	e, err := New(Config{Authority: m, TokenKey: make([]byte, TokenKeySize), MaxControlPoints: 100})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10_000 {
		start(e, fmt.Sprint("cp-", i)).Free()
	}
	o := e.Overview(0)
	if len(o.Points) > 101 {
		t.Errorf("%d control points are counted", len(o.Points))
	}
	total := uint64(0)
	for _, p := range o.Points {
		total += p.Unmatched
	}
	if total != 10_000 {
		t.Errorf("%d flows counted, want 10000", total)
	}
}

func TestAccountsOutliveTheirLimiterForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := rateSpec(1, "cp", "", label.Expr{}, limit.BucketRule{Capacity: 5, Interval: time.Hour, Continuous: true})
		e := newEngine(t, spec)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go e.Run(ctx)
		start(e, "cp").Free()
		replace := func(specs ...*LimiterSpec) {
			if err := e.Publish(Set{Limiters: specs}); err != nil {
				t.Fatal(err)
			}
		}
		replace()
		time.Sleep(50 * time.Minute)
		again := *spec
		replace(&again)
		if used := inFlight(t, e, 1); used != 1 {
			t.Errorf("%v used after the policy was put back within the hour, want 1", used)
		}
		replace()
		time.Sleep(62 * time.Minute)
		back := *spec
		replace(&back)
		if used := inFlight(t, e, 1); used != 0 {
			t.Errorf("%v used after more than an hour, want a fresh account", used)
		}
	})
}

func TestCostIsSettledAlsoAfterAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, quotaSpec(1, "cp", "", perSecond(10)))
		start(e, "cp", "tokens", "10").Free()
		f := wait(context.Background(), e, "cp", "tokens", "8")
		if f.Verdict.Waited == 0 {
			t.Fatal("it did not wait")
		}
		actual := 3.0
		f.End(Outcome{Tokens: &actual})
		if used := inFlight(t, e, 1); used < 4.9 || used > 5.1 { // 10 + 8 - 5 handed back, less 8 refilled
			t.Errorf("%v used, want 5", used)
		}
	})
}
