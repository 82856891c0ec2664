// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/setpoint"
)

// driven makes a spec one that setpoints move, of the policy with that hash.
func driven(s *LimiterSpec, hash string) *LimiterSpec {
	out := *s
	out.Driven, out.Hash = true, hash
	return &out
}

func drivenSlots(kind Kind, id ledger.LimiterID) *LimiterSpec {
	s := driven(slotSpec(ConcurrencyScheduler, id, "cp", "", 0), "h")
	s.Kind = kind
	if !kind.schedules() {
		s.Scheduler = nil
	}
	return s
}

func loadSpec(id ledger.LimiterID, point string) *LimiterSpec {
	return &LimiterSpec{
		ID: id, Policy: fmt.Sprintf("policy-%d", id), Component: "root.0", Hash: "h", Kind: LoadScheduler, DeniedStatus: 503,
		Selectors: []Selector{{ControlPoint: point}}, Driven: true, TokensKey: "tokens",
		Scheduler: &SchedulerSpec{
			Default:     WorkloadSpec{Name: "default", Priority: 1, Tokens: 1},
			PriorityKey: "priority", WorkloadKey: "workload", FairnessKey: "user",
		},
	}
}

// steer sends one setpoint to a limiter of these tests.
func steer(e *Engine, id ledger.LimiterID, sp setpoint.Setpoint) {
	sp.Policy, sp.Component = fmt.Sprintf("policy-%d", id), "root.0"
	if sp.Hash == "" {
		sp.Hash = "h"
	}
	e.Steer([]setpoint.Setpoint{sp})
}

func observe(t *testing.T, e *Engine, id ledger.LimiterID) setpoint.Observation {
	t.Helper()
	var o setpoint.Observation
	if !e.Observe(setpoint.Ref{Policy: fmt.Sprintf("policy-%d", id), Component: "root.0"}, &o) {
		t.Fatalf("limiter %d cannot be observed", id)
	}
	return o
}

// admittedOf starts n flows that may not wait and returns how many were admitted. They do not end.
func admittedOf(e *Engine, n int, labels ...string) (admitted int) {
	for range n {
		f := start(e, "cp", labels...)
		if f.Admitted() {
			admitted++
		}
		f.Free()
	}
	return admitted
}

func TestDrivenLimiterFollowsItsSetpoints(t *testing.T) {
	rate := func() *LimiterSpec {
		return driven(rateSpec(1, "cp", "", label.Expr{}, limit.BucketRule{Interval: time.Hour, Continuous: true}), "h")
	}
	for name, tt := range map[string]struct {
		spec *LimiterSpec
		set  func(n float64) setpoint.Setpoint
	}{
		"rate limiter":                   {rate(), func(n float64) setpoint.Setpoint { return setpoint.Setpoint{BucketCapacity: n} }},
		"concurrency limiter":            {drivenSlots(ConcurrencyLimiter, 1), func(n float64) setpoint.Setpoint { return setpoint.Setpoint{MaxConcurrency: n} }},
		"concurrency scheduler":          {drivenSlots(ConcurrencyScheduler, 1), func(n float64) setpoint.Setpoint { return setpoint.Setpoint{MaxConcurrency: n} }},
		"adaptive concurrency scheduler": {drivenSlots(AdaptiveConcurrencyScheduler, 1), func(n float64) setpoint.Setpoint { return setpoint.Setpoint{MaxConcurrency: n} }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, tt.spec)
				if n := admittedOf(e, 5); n != 5 {
					t.Errorf("before the first setpoint %d of 5 passed, want all", n)
				}
				held := 0
				if tt.spec.Kind == AdaptiveConcurrencyScheduler {
					held = 5 // it knows what is in flight, also while everything passes
				}
				steer(e, 1, tt.set(float64(held+3)))
				if n := admittedOf(e, 5); n != 3 {
					t.Errorf("with 3 to have, %d of 5 passed", n)
				}
				steer(e, 1, setpoint.Setpoint{PassThrough: true})
				if n := admittedOf(e, 5); n != 5 {
					t.Errorf("while everything passes %d of 5 did", n)
				}
				if tt.spec.Kind == AdaptiveConcurrencyScheduler {
					held += 5
				}
				steer(e, 1, tt.set(float64(held+3+2)))
				if n := admittedOf(e, 5); n != 2 && tt.spec.Kind != RateLimiter {
					t.Errorf("with 2 more than are held, %d of 5 passed", n)
				}
				steer(e, 1, tt.set(0))
				f := start(e, "cp")
				if f.Admitted() || f.Verdict.Reason == TooLarge || f.Verdict.Reason == InvalidRequest {
					t.Errorf("with 0 to have: %+v", f.Verdict)
				}
				f.Free()
			})
		})
	}
}

func TestSetpointsOfAnotherHashOrAgeAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, drivenSlots(ConcurrencyLimiter, 1))
		max := func() float64 { return e.Overview(0).Limiters[0].Spec.Slots.Max }
		steer(e, 1, setpoint.Setpoint{Version: 5, MaxConcurrency: 7})
		steer(e, 1, setpoint.Setpoint{Version: 4, MaxConcurrency: 1})
		steer(e, 1, setpoint.Setpoint{Version: 9, MaxConcurrency: 2, Hash: "other"})
		steer(e, 2, setpoint.Setpoint{Version: 9, MaxConcurrency: 2})
		if max() != 7 {
			t.Errorf("limit %v, want that of version 5", max())
		}
		steer(e, 1, setpoint.Setpoint{Version: 5, MaxConcurrency: 8}) // sent again
		if max() != 8 {
			t.Errorf("limit %v, want 8", max())
		}
		// An edit keeps the number until its own circuit has one; versions begin anew.
		edited := drivenSlots(ConcurrencyLimiter, 1)
		edited.Hash = "h2"
		if err := e.Publish(Set{Limiters: []*LimiterSpec{edited}}); err != nil {
			t.Fatal(err)
		}
		if o := e.Overview(0).Limiters[0]; o.Spec.Slots.Max != 8 || o.Spec.PassThrough || o.Spec.Hash != "h2" {
			t.Errorf("after the edit: %+v", o.Spec)
		}
		steer(e, 1, setpoint.Setpoint{Version: 99, MaxConcurrency: 3})
		if max() != 8 {
			t.Errorf("a setpoint of the old policy made the limit %v", max())
		}
		steer(e, 1, setpoint.Setpoint{Version: 1, MaxConcurrency: 4, Hash: "h2"})
		if max() != 4 {
			t.Errorf("limit %v, want 4", max())
		}
		// A policy that was removed and put back starts from scratch.
		for _, specs := range [][]*LimiterSpec{nil, {edited}} {
			if err := e.Publish(Set{Limiters: specs}); err != nil {
				t.Fatal(err)
			}
		}
		if o := e.Overview(0).Limiters[0]; !o.Spec.PassThrough {
			t.Errorf("put back: %+v, want pass-through until the first setpoint", o.Spec)
		}
		steer(e, 1, setpoint.Setpoint{Version: 1, MaxConcurrency: 6, Hash: "h2"})
		if max() != 6 {
			t.Errorf("limit %v, want 6", max())
		}
	})
}

func TestSetpointForAConstantLimiterIsIgnored(t *testing.T) {
	spec := slotSpec(ConcurrencyLimiter, 1, "cp", "", 5)
	spec.Hash = "h"
	e := newEngine(t, spec)
	steer(e, 1, setpoint.Setpoint{MaxConcurrency: 1})
	steer(e, 1, setpoint.Setpoint{PassThrough: true})
	if n := admittedOf(e, 9); n != 5 {
		t.Errorf("%d admitted, want 5", n)
	}
}

func TestChangingBetweenConstantAndSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		constant := slotSpec(ConcurrencyLimiter, 1, "cp", "", 5)
		constant.Hash = "c"
		e := newEngine(t, constant)
		publish := func(s *LimiterSpec) *LimiterSpec {
			t.Helper()
			if err := e.Publish(Set{Limiters: []*LimiterSpec{s}}); err != nil {
				t.Fatal(err)
			}
			return e.Overview(0).Limiters[0].Spec
		}
		if s := publish(drivenSlots(ConcurrencyLimiter, 1)); s.Slots.Max != 5 || s.PassThrough {
			t.Errorf("a signal instead of 5: %+v, want 5 until the first setpoint", s)
		}
		steer(e, 1, setpoint.Setpoint{Version: 3, MaxConcurrency: 9, Expires: time.Now().Add(time.Second)})
		again := *constant
		if s := publish(&again); s.Slots.Max != 5 || s.Driven {
			t.Errorf("5 instead of a signal: %+v", s)
		}
		time.Sleep(2 * time.Second)
		if n := admittedOf(e, 9); n != 5 {
			t.Errorf("%d admitted: the old setpoint's end is none of a constant's business", n)
		}
	})
}

func TestExpiredSetpointLetsEverythingPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, drivenSlots(ConcurrencyScheduler, 1))
		steer(e, 1, setpoint.Setpoint{MaxConcurrency: 0, Expires: time.Now().Add(3 * time.Second)})
		began := time.Now()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { // nobody frees a slot: only the end of the setpoint helps
				f := wait(context.Background(), e, "cp")
				if took := time.Since(began); !f.Admitted() || took != 3*time.Second {
					t.Errorf("%v after %v, want admitted when the setpoint ends", f.Verdict.Reason, took)
				}
				f.End(Outcome{})
			})
		}
		wg.Wait()
		if n := admittedOf(e, 3); n != 3 {
			t.Errorf("%d of 3 passed after the end", n)
		}
		steer(e, 1, setpoint.Setpoint{Version: 2, MaxConcurrency: 1})
		if n := admittedOf(e, 3); n != 1 {
			t.Errorf("%d of 3 passed under the next setpoint, want 1", n)
		}
		steer(e, 1, setpoint.Setpoint{Version: 3, MaxConcurrency: 1, Expires: time.Now().Add(-time.Hour)})
		if n := admittedOf(e, 3); n != 3 {
			t.Errorf("%d of 3 passed under a setpoint that came too late", n)
		}
	})
}

// TestRenewedSetpointHolds: what is sent again before it ends does not end.
func TestRenewedSetpointHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, drivenSlots(ConcurrencyScheduler, 1))
		renew := func(version uint64) {
			steer(e, 1, setpoint.Setpoint{Version: version, Expires: time.Now().Add(3 * time.Second)})
		}
		renew(1)
		began := time.Now()
		done := make(chan time.Duration, 1)
		go func() {
			f := wait(context.Background(), e, "cp")
			done <- time.Since(began)
			f.End(Outcome{})
		}()
		for v := range uint64(10) {
			time.Sleep(time.Second)
			renew(v + 2)
		}
		if took := <-done; took != 13*time.Second {
			t.Errorf("the flow waited %v, want until 3 s after the last renewal", took)
		}
	})
}

func TestHostileSetpoints(t *testing.T) {
	hostile := []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, -1e308, 1e308, math.SmallestNonzeroFloat64, math.Copysign(0, -1)}
	specs := []*LimiterSpec{
		driven(rateSpec(1, "cp", "", label.Expr{}, limit.BucketRule{Interval: time.Second, Continuous: true}), "h"),
		drivenSlots(ConcurrencyScheduler, 2), drivenSlots(AdaptiveConcurrencyScheduler, 3), loadSpec(4, "cp"),
		samplerSpec(5, false), samplerSpec(6, true),
	}
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, specs...)
		version := uint64(0)
		for _, a := range hostile {
			for _, b := range hostile {
				for id := range specs {
					version++
					steer(e, ledger.LimiterID(id+1), setpoint.Setpoint{
						Version: version, BucketCapacity: a, FillAmount: b, MaxConcurrency: a, LoadMultiplier: a, AcceptPercentage: b,
						WorkloadTokens: map[string]float64{"default": a, "x": b}, PassThroughValues: []string{"", "\xff"},
					})
				}
				time.Sleep(300 * time.Millisecond)
				start(e, "cp", "tokens", "1").Free()
				for _, l := range e.Overview(0).Limiters {
					s := l.Spec
					for _, n := range []float64{s.Bucket.Capacity, s.Bucket.FillAmount, s.Slots.Max} {
						if !limit.ValidTokens(n) {
							t.Fatalf("%v, %v: %s has %+v", a, b, s.Kind, s)
						}
					}
					if math.IsNaN(a) && s.Slots.Max > 0 && s.Kind.holdsSlots() && !s.PassThrough {
						t.Errorf("%s limits to %v after NaN", s.Kind, s.Slots.Max)
					}
					if s.Sample != nil && !(s.Sample.Percentage >= 0 && s.Sample.Percentage <= 100) {
						t.Errorf("percentage %v", s.Sample.Percentage)
					}
				}
			}
		}
		for id := range specs {
			version++
			steer(e, ledger.LimiterID(id+1), setpoint.Setpoint{Version: version, PassThrough: true, AcceptPercentage: 100})
		}
		if r := reason(e, "cp"); r != NotSampled { // the load ramp admits nobody while nothing is known
			t.Errorf("%v, want not_sampled", r)
		}
	})
}

// TestSetpointStorm moves limits thousands of times while ten thousand flows wait, on real goroutines: all
// get through, and nothing is left.
func TestSetpointStorm(t *testing.T) {
	e := newEngine(t, drivenSlots(AdaptiveConcurrencyScheduler, 1), loadSpec(2, "cp"))
	steer(e, 1, setpoint.Setpoint{MaxConcurrency: 0})
	n := 10_000
	if testing.Short() {
		n = 1000
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var flows sync.WaitGroup
	for i := range n {
		flows.Go(func() {
			c := ctx
			if i%3 > 0 {
				c = context.Background()
			}
			if f := wait(c, e, "cp", "priority", fmt.Sprint(1+i%5)); f.Admitted() {
				f.End(Outcome{Failed: i%7 == 0})
			} else {
				f.Free()
			}
		})
	}
	for began := time.Now(); e.Overview(0).Limiters[0].Waiting < n/2; runtime.Gosched() {
		if time.Since(began) > time.Minute {
			t.Fatal("the flows do not come to wait")
		}
	}
	var steering sync.WaitGroup
	for g := range 4 {
		steering.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			for i := range 1000 {
				steer(e, 1, setpoint.Setpoint{Version: uint64(i), MaxConcurrency: float64(rng.IntN(20)), PassThrough: rng.IntN(500) == 0})
				steer(e, 2, setpoint.Setpoint{Version: uint64(i), LoadMultiplier: 3 * rng.Float64(), PassThrough: rng.IntN(3) == 0})
			}
		})
	}
	cancel()
	steering.Wait()
	steer(e, 1, setpoint.Setpoint{Version: 1 << 40, MaxConcurrency: 5})
	steer(e, 2, setpoint.Setpoint{Version: 1 << 40, PassThrough: true})
	flows.Wait()
	for _, id := range []ledger.LimiterID{1, 2} {
		o := observe(t, e, id)
		if o.Waiting != 0 || o.InFlight != 0 || o.Ended > o.Accepted {
			t.Errorf("limiter %d: %+v", id, o)
		}
	}
	if o := observe(t, e, 1); o.Accepted+o.Rejected != uint64(n) || o.Ended != o.Accepted {
		t.Errorf("%d of %d flows counted, %d ended", o.Accepted+o.Rejected, n, o.Ended)
	}
}

func TestSteeringDoesNotBurdenDecisions(t *testing.T) {
	e := newEngine(t, drivenSlots(AdaptiveConcurrencyScheduler, 1), loadSpec(2, "cp"), samplerSpec(3, false))
	steer(e, 1, setpoint.Setpoint{MaxConcurrency: 5})
	steer(e, 2, setpoint.Setpoint{LoadMultiplier: 1})
	steer(e, 3, setpoint.Setpoint{AcceptPercentage: 100})
	shape, err := NewShape("cp", []string{"user"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := Request{Shape: shape, Values: []string{"a"}, QueueTimeout: -1}
	n := testing.AllocsPerRun(1000, func() {
		f := e.Start(context.Background(), &r)
		if !f.Admitted() {
			t.Error(f.Verdict.Message())
		}
		f.End(Outcome{})
	})
	if n != 0 {
		t.Errorf("%v allocations per flow", n)
	}
	var o setpoint.Observation
	ref := setpoint.Ref{Policy: "policy-1", Component: "root.0"}
	if n := testing.AllocsPerRun(100, func() { e.Observe(ref, &o) }); n != 0 {
		t.Errorf("%v allocations per observation", n)
	}
}

// TestWaitersWakeWhenCapacityGrows: nothing but the setpoint lets them go on.
func TestWaitersWakeWhenCapacityGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quota := driven(quotaSpec(1, "cp", "", limit.BucketRule{Interval: time.Hour, Continuous: true}), "h")
		e := newEngine(t, quota)
		steer(e, 1, setpoint.Setpoint{BucketCapacity: 0})
		verdicts := make(chan Reason, 1)
		go func() {
			f := wait(context.Background(), e, "cp", "tokens", "50") // more than a full bucket holds: it may grow
			verdicts <- f.Verdict.Reason
			f.End(Outcome{})
		}()
		synctest.Wait()
		time.Sleep(time.Minute)
		if len(verdicts) != 0 {
			t.Fatal("it did not wait")
		}
		steer(e, 1, setpoint.Setpoint{Version: 1, BucketCapacity: 100, FillAmount: 100 * 3600})
		if got := <-verdicts; got != Admitted {
			t.Errorf("got %v", got)
		}
	})
}

// TestLargeFlowAtASmallAdaptiveLimit takes all slots instead of waiting for a limit that never grows.
func TestLargeFlowAtASmallAdaptiveLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := drivenSlots(AdaptiveConcurrencyScheduler, 1)
		spec.TokensKey = "tokens"
		e := newEngine(t, spec)
		steer(e, 1, setpoint.Setpoint{MaxConcurrency: 3})
		small := start(e, "cp")
		if f := start(e, "cp", "tokens", "50"); f.Admitted() {
			t.Error("admitted beside another flow")
		} else {
			f.Free()
		}
		small.End(Outcome{})
		big := start(e, "cp", "tokens", "50")
		if !big.Admitted() {
			t.Fatal(big.Verdict.Message())
		}
		if o := observe(t, e, 1); o.InFlight != 3 {
			t.Errorf("%v in flight, want all 3", o.InFlight)
		}
		big.End(Outcome{})
		if o := observe(t, e, 1); o.InFlight != 0 {
			t.Errorf("%v in flight after the end", o.InFlight)
		}
	})
}

// TestDrivenAccountsSurviveARestart: until the first setpoint comes, what a bucket holds is not touched.
func TestDrivenAccountsSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := driven(rateSpec(1, "cp", "user", label.Expr{}, limit.BucketRule{Interval: time.Hour, Continuous: true}), "h")
		w := &world{t: t, dir: t.TempDir()}
		w.open([]*LimiterSpec{spec})
		steer(w.e, 1, setpoint.Setpoint{BucketCapacity: 10})
		if n := admittedOf(w.e, 4, "user", "ann"); n != 4 {
			t.Fatal(n)
		}
		if err := w.m.Close(); err != nil {
			t.Fatal(err)
		}
		w.open([]*LimiterSpec{spec})
		time.Sleep(time.Second)
		steer(w.e, 1, setpoint.Setpoint{BucketCapacity: 10})
		if n := admittedOf(w.e, 20, "user", "ann"); n != 6 {
			t.Errorf("%d admitted after the restart, want the 6 that are left", n)
		}
		if n := admittedOf(w.e, 20, "user", "bob"); n != 10 {
			t.Errorf("a new account admitted %d, want 10", n)
		}
		if err := w.m.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestObservations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		adaptive := drivenSlots(AdaptiveConcurrencyScheduler, 1)
		adaptive.Scheduler.WorkloadKey = "workload"
		rate := rateSpec(2, "cp", "user", label.Expr{}, limit.BucketRule{Capacity: 4, Interval: time.Hour, Continuous: true})
		last := quotaSpec(3, "cp", "", limit.BucketRule{Capacity: 4, Interval: time.Hour, Continuous: true})
		last.TokensKey = ""
		e := newEngine(t, adaptive, rate, last)
		steer(e, 1, setpoint.Setpoint{MaxConcurrency: 10})
		var flows []*Flow
		for i := range 6 { // rate admits 4 of ann's; no user, no limit
			labels := []string{"workload", []string{"a", "b"}[i%2], "user", "ann"}
			if i == 5 {
				labels = labels[:2]
			}
			f := start(e, "cp", labels...)
			if f.Admitted() {
				flows = append(flows, f)
			} else {
				f.Free()
			}
		}
		// The quota has 4: those of ann that the rate limiter admitted. The one without a user is denied there.
		if o := observe(t, e, 2); o.Accepted != 4 || o.Rejected != 2 {
			t.Errorf("rate limiter: %+v, want 4 accepted, 1 denied, and 1 that passed and was denied later", o)
		}
		o := observe(t, e, 1)
		if o.Accepted != 4 || o.Rejected != 1 || o.InFlight != 4 || o.InFlightPeak != 5 || o.AcceptedTokens != 4 || o.RejectedTokens != 1 || o.IncomingTokens != 5 {
			t.Errorf("adaptive: %+v", o)
		}
		if o := observe(t, e, 3); o.Accepted != 4 || o.Rejected != 1 {
			t.Errorf("quota: %+v", o)
		}
		time.Sleep(300 * time.Millisecond)
		flows[0].End(Outcome{})                                // 300 ms, measured
		flows[1].End(Outcome{Duration: 50 * time.Millisecond}) // as reported
		token := flows[2].Seal(nil)                            // ended by token
		flows[2].Free()
		if _, err := e.EndToken(token, &Outcome{Failed: true, Duration: 2 * time.Second}); err != nil {
			t.Fatal(err)
		}
		for _, b := range e.limiterOf(1).workloadBins() { // a, b, a
			var n binTotals
			if n.add(b); b.name == "a" && n.ended != 2 || b.name == "b" && n.ended != 1 {
				t.Errorf("%d flows of workload %s ended", n.ended, b.name)
			}
		}
		o = observe(t, e, 1)
		if o.Ended != 3 || o.Failed != 1 || math.Abs(o.DurationSum-2.35) > 1e-9 || math.Abs(o.DurationMin-0.05) > 1e-9 || o.InFlight != 1 || o.InFlightPeak != 4 {
			t.Errorf("adaptive after the ends: %+v", o)
		}
		for _, d := range []float64{0.3, 0.05, 2} {
			if o.Durations[setpoint.DurationBucket(d)] != 1 {
				t.Errorf("no flow of %v s in %v", d, o.Durations)
			}
		}
		if o := observe(t, e, 1); o.DurationMin != 0 || o.InFlightPeak != 1 {
			t.Errorf("the shortest and the most begin anew: %+v", o)
		}
		for _, b := range e.Overview(0).Limiters {
			if b.Spec.ID == 1 && (b.Admitted != 5 || b.Denied != 0) {
				t.Errorf("the limiter itself: %+v", b)
			}
		}
		flows[3].Abort()
		if o := observe(t, e, 1); o.InFlight != 0 || o.Ended != 3 {
			t.Errorf("after an abort: %+v", o)
		}
		if e.Observe(setpoint.Ref{Policy: "nobody", Component: "root.0"}, &o) {
			t.Error("an actuator that is not there was observed")
		}
	})
}

func TestObservationsNeverFall(t *testing.T) {
	e := newEngine(t, drivenSlots(ConcurrencyScheduler, 1), loadSpec(2, "cp"), samplerSpec(3, false))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 5))
			for {
				select {
				case <-stop:
					return
				default:
				}
				f := start(e, "cp", "priority", fmt.Sprint(rng.IntN(3)))
				switch {
				case !f.Admitted():
					f.Free()
				case rng.IntN(9) == 0:
					f.Abort()
				default:
					f.End(Outcome{})
				}
			}
		})
	}
	was := map[ledger.LimiterID]setpoint.Observation{}
	for i := range 500 {
		steer(e, 1, setpoint.Setpoint{Version: uint64(i), MaxConcurrency: float64(i % 5)})
		steer(e, 3, setpoint.Setpoint{Version: uint64(i), AcceptPercentage: float64(i % 101)})
		for id := ledger.LimiterID(1); id <= 3; id++ {
			o, b := observe(t, e, id), was[id]
			if o.Accepted < b.Accepted || o.Rejected < b.Rejected || o.IncomingTokens < b.IncomingTokens || o.Ended < b.Ended {
				t.Fatalf("limiter %d: %+v after %+v", id, o, b)
			}
			was[id] = o
		}
	}
	close(stop)
	wg.Wait()
}

// TestTokensOfVersion1StillEnd seals as the release before did.
func TestTokensOfVersion1StillEnd(t *testing.T) {
	e := newEngine(t, slotSpec(ConcurrencyScheduler, 1, "cp", "", 5), rateSpec(2, "cp", "user", label.Expr{}, perSecond(5)))
	f := start(e, "cp", "user", "ann")
	plain := []byte{1}
	u64 := func(n uint64) {
		for i := range 8 {
			plain = append(plain, byte(n>>(8*i)))
		}
	}
	text := func(s string) { plain = append(append(plain, byte(len(s))), s...) }
	u64(uint64(f.started))
	u64(0)
	text("cp")
	plain = append(plain, byte(len(f.charges)))
	for _, c := range f.charges {
		flags := byte(0)
		if c.slot != 0 {
			flags = flagSlot
		}
		plain = append(plain, flags)
		u64(uint64(c.limiter.id))
		u64(math.Float64bits(c.tokens))
		if c.slot != 0 {
			u64(uint64(c.slot))
		}
		text(c.key)
	}
	f.Free()
	nonce := make([]byte, nonceSize)
	token := e.sealer.Seal(nonce, nonce, plain, nil)
	if r, err := e.EndToken(token, &Outcome{Duration: time.Second}); r != Ended || err != nil {
		t.Fatal(r, err)
	}
	if o := observe(t, e, 1); o.InFlight != 0 || o.Ended != 1 || o.DurationSum != 1 {
		t.Errorf("%+v", o)
	}
}

// TestTokensAreSmall: a flow through one scheduler and one rate limiter.
func TestTokensAreSmall(t *testing.T) {
	e := newEngine(t, slotSpec(ConcurrencyScheduler, 1, "cp", "", 5), rateSpec(2, "cp", "user", label.Expr{}, perSecond(5)), loadSpec(3, "cp"), samplerSpec(4, false))
	f := start(e, "cp", "user", "ann")
	defer f.Free()
	if n := len(f.Seal(nil)); n > 130 {
		t.Errorf("%d bytes", n)
	}
}

func TestFromComponentDriven(t *testing.T) {
	selectors := []policy.Selector{{ControlPoint: "cp"}}
	load := policy.LoadSchedulerParameters{Selectors: selectors, Scheduler: policy.Scheduler{DeniedResponseStatusCode: 503, DefaultWorkloadParameters: policy.WorkloadParameters{Priority: 1}}}
	sampler := policy.SamplerParameters{Selectors: selectors, SessionLabelKey: "user", DeniedResponseStatusCode: 403}
	ramp := sampler
	ramp.RampMode = true
	signal := &policy.InPort{SignalName: "S"}
	for name, tt := range map[string]struct {
		fc     policy.FlowControl
		kind   Kind
		driven bool
		ramp   bool
	}{
		"load":         {policy.FlowControl{LoadScheduler: &policy.LoadScheduler{Parameters: load}}, LoadScheduler, true, false},
		"aimd":         {policy.FlowControl{AIMDLoadScheduler: &policy.AIMDLoadScheduler{Parameters: policy.AIMDParameters{LoadScheduler: load}}}, LoadScheduler, true, false},
		"aiad":         {policy.FlowControl{AIADLoadScheduler: &policy.AIADLoadScheduler{Parameters: policy.AIADParameters{LoadScheduler: load}}}, LoadScheduler, true, false},
		"range driven": {policy.FlowControl{RangeDrivenLoadScheduler: &policy.RangeDrivenLoadScheduler{Parameters: policy.RangeDrivenParameters{LoadScheduler: load}}}, LoadScheduler, true, false},
		"old adaptive": {policy.FlowControl{AdaptiveLoadScheduler: &policy.AdaptiveLoadScheduler{Parameters: policy.AdaptiveLoadSchedulerParameters{LoadScheduler: load}}}, LoadScheduler, true, false},
		"adaptive": {policy.FlowControl{AdaptiveConcurrencyScheduler: &policy.AdaptiveConcurrencyScheduler{
			Selectors: selectors, ConcurrencyLimiter: policy.ConcurrencyLimiterParameters{MaxInflightDuration: policy.Duration(time.Minute)},
		}}, AdaptiveConcurrencyScheduler, true, false},
		"sampler of 30":    {policy.FlowControl{Sampler: &policy.Sampler{InPorts: policy.SamplerIns{AcceptPercentage: constantPort(30)}, Parameters: sampler}}, Sampler, false, false},
		"sampler of none":  {policy.FlowControl{Sampler: &policy.Sampler{Parameters: ramp}}, Sampler, false, true},
		"sampler, signal":  {policy.FlowControl{Sampler: &policy.Sampler{InPorts: policy.SamplerIns{AcceptPercentage: signal}, Parameters: sampler}}, Sampler, true, false},
		"sampler, dynamic": {policy.FlowControl{Sampler: &policy.Sampler{InPorts: policy.SamplerIns{AcceptPercentage: constantPort(30)}, Parameters: sampler, PassThroughLabelValuesConfigKey: "k"}}, Sampler, true, false},
		"load ramp":        {policy.FlowControl{LoadRamp: &policy.LoadRamp{Parameters: policy.LoadRampParameters{Sampler: sampler}, PassThroughLabelValues: []string{"vip"}}}, LoadRamp, true, true},
	} {
		s, err := FromComponent("p", "h", "root.0", &policy.Component{FlowControl: &tt.fc})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s.ID = 1
		if s.Kind != tt.kind || s.Driven != tt.driven || s.ramp() != tt.ramp || len(s.Selectors) != 1 || s.validate() != nil {
			t.Errorf("%s: %+v, %v", name, s, s.validate())
		}
		if s.Sample != nil && s.LimitBy != "user" {
			t.Errorf("%s: session label %q", name, s.LimitBy)
		}
		e := newEngine(t, s)
		e.Close()
	}
}

func TestKinds(t *testing.T) {
	for k := LoadRamp; k <= LoadScheduler; k++ {
		if KindByName(k.String()) != k || strings.Contains(k.String(), "unspecified") {
			t.Errorf("%d is called %s", k, k)
		}
		n := 0
		for _, is := range []bool{k.samples(), k.holdsSlots(), k.hasBucket(), k == LoadScheduler} {
			if is {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s keeps its state in %d ways", k, n)
		}
	}
}
