// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/setpoint"
)

// openLoop starts flows that may not wait, evenly, and returns how many tokens were admitted.
func openLoop(e *Engine, perSecond float64, tokens int, during time.Duration) (admitted float64) {
	n := int(perSecond * during.Seconds())
	for range n {
		time.Sleep(during / time.Duration(n))
		if reason(e, "cp", "tokens", fmt.Sprint(tokens)) == Admitted {
			admitted += float64(tokens)
		}
	}
	return admitted
}

func near(got, want, margin float64) bool { return math.Abs(got-want) <= margin }

func TestLoadSchedulerAdmitsAMultipleOfTheLoad(t *testing.T) {
	for _, tokens := range []int{1, 7} {
		for _, lm := range []float64{0, 0.1, 0.5, 0.9, 1, 1.5} {
			t.Run(fmt.Sprintf("tokens=%d/lm=%v", tokens, lm), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := newEngine(t, loadSpec(1, "cp"))
					if got := openLoop(e, 100, tokens, 20*time.Second); got != 2000*float64(tokens) {
						t.Fatalf("%v admitted before the first setpoint", got)
					}
					steer(e, 1, setpoint.Setpoint{LoadMultiplier: lm})
					got := openLoop(e, 100, tokens, 20*time.Second) / float64(tokens)
					if want := min(1, lm) * 2000; !near(got, want, 1+0.01*want) || lm == 0 && got > 0 {
						t.Errorf("%v of 2000 flows admitted, want %v", got, want)
					}
				})
			})
		}
	}
}

// TestThrottledLoadDoesNotGrowWithTheSurge is what relative limits get wrong: ten times the load brings ten
// times the admissions.
func TestThrottledLoadDoesNotGrowWithTheSurge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, loadSpec(1, "cp"))
		openLoop(e, 100, 1, 15*time.Second)
		steer(e, 1, setpoint.Setpoint{LoadMultiplier: 0.5})
		for second := range 10 { // the circuit sends one setpoint a second
			got := openLoop(e, 1000, 1, time.Second)
			if bound := 50*math.Pow(1.05, float64(second+1)) + 2; got > bound {
				t.Errorf("second %d: %v admitted, want no more than %v", second, got, bound)
			}
			steer(e, 1, setpoint.Setpoint{Version: uint64(second + 1), LoadMultiplier: 0.5})
		}
	})
}

// TestBaseIsWhatMultipliersAreRelativeTo: what was admitted of it is the multiplier in force, whatever comes.
// An AIMD load scheduler multiplies that; with the share of what came it would cut retries twice.
func TestBaseIsWhatMultipliersAreRelativeTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, loadSpec(1, "cp"))
		openLoop(e, 100, 1, 15*time.Second)
		if o := observe(t, e, 1); !near(o.BaseTokens, o.IncomingTokens, 1) {
			t.Errorf("%v tokens came and %v count before anything is throttled", o.IncomingTokens, o.BaseTokens)
		}
		steer(e, 1, setpoint.Setpoint{LoadMultiplier: 0.5})
		before := observe(t, e, 1)
		for second := range 10 {
			openLoop(e, 600, 1, time.Second)
			steer(e, 1, setpoint.Setpoint{Version: uint64(second + 1), LoadMultiplier: 0.5})
		}
		after := observe(t, e, 1)
		accepted := after.AcceptedTokens - before.AcceptedTokens
		if share := accepted / (after.BaseTokens - before.BaseTokens); !near(share, 0.5, 0.02) {
			t.Errorf("admitted %v of the base, want 0.5", share)
		}
		if share := accepted / (after.IncomingTokens - before.IncomingTokens); share > 0.15 {
			t.Errorf("admitted %v of what came: there was no surge", share)
		}
		steer(e, 1, setpoint.Setpoint{Version: 99, PassThrough: true})
		before = observe(t, e, 1)
		openLoop(e, 600, 1, time.Second)
		after = observe(t, e, 1)
		if came := after.BaseTokens - before.BaseTokens; !near(came, 600, 1) {
			t.Errorf("%v tokens count while everything passes, want 600", came)
		}
	})
}

// TestSetpointStormDoesNotGrowTheBase: growth is by time, not by setpoint.
func TestSetpointStormDoesNotGrowTheBase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, loadSpec(1, "cp"))
		openLoop(e, 100, 1, 15*time.Second)
		steer(e, 1, setpoint.Setpoint{LoadMultiplier: 0.5})
		openLoop(e, 1000, 1, time.Second)
		for v := range uint64(10_000) {
			steer(e, 1, setpoint.Setpoint{Version: v, LoadMultiplier: 0.5})
		}
		if fill := e.Overview(0).Limiters[0].Spec.Bucket.FillAmount; !near(fill, 52.5, 1) {
			t.Errorf("fill %v after a second of ten times the load, want 52.5", fill)
		}
	})
}

// TestFallingLoad: the end of a surge is no reason to admit less than during it; a lower multiplier is.
func TestFallingLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, loadSpec(1, "cp"))
		openLoop(e, 100, 1, 15*time.Second)
		steer(e, 1, setpoint.Setpoint{LoadMultiplier: 0.5})
		openLoop(e, 10, 1, 11*time.Second)
		steer(e, 1, setpoint.Setpoint{Version: 1, LoadMultiplier: 0.5})
		if fill := e.Overview(0).Limiters[0].Spec.Bucket.FillAmount; !near(fill, 50, 1) {
			t.Errorf("fill %v at the same multiplier, want the 50 of before", fill)
		}
		steer(e, 1, setpoint.Setpoint{Version: 2, LoadMultiplier: 0.8})
		if fill := e.Overview(0).Limiters[0].Spec.Bucket.FillAmount; !near(fill, 50, 1) {
			t.Errorf("fill %v at a higher multiplier, want the 50 of before", fill)
		}
		steer(e, 1, setpoint.Setpoint{Version: 3, LoadMultiplier: 0.5})
		if fill := e.Overview(0).Limiters[0].Spec.Bucket.FillAmount; !near(fill, 5, 0.2) {
			t.Errorf("fill %v at a lower multiplier, want half of what comes", fill)
		}
	})
}

// TestHeldBetweenSetpoints: the fill rate is what the setpoint made it, whatever comes.
func TestHeldBetweenSetpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, loadSpec(1, "cp"))
		openLoop(e, 100, 1, 15*time.Second)
		steer(e, 1, setpoint.Setpoint{LoadMultiplier: 0.2})
		for _, rate := range []float64{100, 1000, 40} {
			if got := openLoop(e, rate, 1, 10*time.Second); !near(got, 200, 21) {
				t.Errorf("at %v a second %v admitted in 10 s, want 200", rate, got)
			}
		}
	})
}

// TestSilenceIsMeasuredAnew: after nothing came for a while, the first flows pass, and soon the multiplier
// counts again.
func TestSilenceIsMeasuredAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, loadSpec(1, "cp"))
		steer(e, 1, setpoint.Setpoint{LoadMultiplier: 0.5})
		for round := range 2 {
			if got := openLoop(e, 100, 1, 400*time.Millisecond); got != 40 {
				t.Errorf("round %d: %v of the first 40 admitted", round, got)
			}
			openLoop(e, 100, 1, time.Second)
			if got := openLoop(e, 100, 1, 10*time.Second); !near(got, 500, 60) {
				t.Errorf("round %d: %v of 1000 admitted afterwards, want 500", round, got)
			}
			time.Sleep(time.Minute)
			steer(e, 1, setpoint.Setpoint{Version: uint64(round + 1), LoadMultiplier: 0.5})
		}
		steer(e, 1, setpoint.Setpoint{Version: 9, LoadMultiplier: 0})
		if got := openLoop(e, 100, 1, 10*time.Second); got != 0 {
			t.Errorf("%v admitted at 0", got)
		}
	})
}

// TestSlowStreamGoesOn: capacity is at least one flow, and equal is enough.
func TestSlowStreamGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, loadSpec(1, "cp"))
		openLoop(e, 0.5, 40, 30*time.Second) // 20 tokens a second, in flows of 40
		steer(e, 1, setpoint.Setpoint{LoadMultiplier: 0.5})
		if got := openLoop(e, 0.5, 40, 200*time.Second); !near(got, 2000, 80) {
			t.Errorf("%v tokens admitted in 200 s, want 2000", got)
		}
		// A larger flow than any before gets its turn, too.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		f := wait(ctx, e, "cp", "tokens", "100")
		if !f.Admitted() || f.Verdict.Waited > 12*time.Second {
			t.Errorf("%v after %v", f.Verdict.Reason, f.Verdict.Waited)
		}
		f.Free()
	})
}

func TestLoadSchedulerRetryAfterAndMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, loadSpec(1, "cp"))
		openLoop(e, 100, 1, 15*time.Second)
		steer(e, 1, setpoint.Setpoint{LoadMultiplier: 0.1})
		start(e, "cp").Free()
		f := start(e, "cp")
		defer f.Free()
		v := &f.Verdict
		if v.Admitted || v.RetryAfter < 90*time.Millisecond || v.RetryAfter > 110*time.Millisecond || v.HTTPStatus() != 503 {
			t.Errorf("%+v", v)
		}
		if v.Limiter.Kind != LoadScheduler || !near(v.Limiter.Bucket.FillAmount, 10, 0.1) {
			t.Errorf("%s: %+v", v.Message(), v.Limiter)
		}
	})
}

// TestHopelessFlowsAreDeniedAtOnce, but a limit of nothing may be another one on the next tick.
func TestHopelessFlowsAreDeniedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, loadSpec(1, "cp"))
		openLoop(e, 100, 1, 15*time.Second)
		steer(e, 1, setpoint.Setpoint{LoadMultiplier: 0.1}) // 10 a second
		ask := func(tokens string, timeout time.Duration) (Reason, time.Duration, time.Duration) {
			f := e.Start(context.Background(), &Request{ControlPoint: "cp", Labels: map[string]string{"tokens": tokens}, QueueTimeout: timeout})
			defer f.Free()
			return f.Verdict.Reason, f.Verdict.Waited, f.Verdict.RetryAfter
		}
		if r, waited, retry := ask("100", time.Second); r != DeadlineTooShort || waited != 0 || !near(retry.Seconds(), 9.9, 0.2) {
			t.Errorf("%v after %v, retry after %v; want deadline_too_short at once, and 9.9 s", r, waited, retry)
		}
		if r, waited, _ := ask("10", time.Second); r != Admitted || !near(waited.Seconds(), 0.9, 0.02) {
			t.Errorf("%v after %v, want admitted after 0.9 s", r, waited)
		}
		steer(e, 1, setpoint.Setpoint{Version: 1})
		time.AfterFunc(500*time.Millisecond, func() { steer(e, 1, setpoint.Setpoint{Version: 2, PassThrough: true}) })
		if r, waited, _ := ask("10", time.Second); r != Admitted || waited != 500*time.Millisecond {
			t.Errorf("%v after %v, want admitted when everything passes", r, waited)
		}
	})
}

// TestLoadSchedulerServesByPriority: of what is admitted, 50 and 200 get their shares.
func TestLoadSchedulerServesByPriority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, loadSpec(1, "cp"))
		openLoop(e, 100, 1, 15*time.Second)
		steer(e, 1, setpoint.Setpoint{LoadMultiplier: 0.5})
		var mu sync.Mutex
		admitted := map[string]int{}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for _, p := range []string{"50", "200"} {
			for range 100 {
				wg.Go(func() {
					for ctx.Err() == nil {
						f := wait(ctx, e, "cp", "priority", p, "workload", p)
						mu.Lock()
						in := f.Admitted()
						if in {
							admitted[p]++
						}
						mu.Unlock()
						f.Free()
						if !in { // there is too little time left
							return
						}
					}
				})
			}
		}
		wg.Wait()
		if sum := admitted["50"] + admitted["200"]; !near(float64(sum), 1000, 20) || !near(float64(admitted["200"]), 800, 20) {
			t.Errorf("%v, want 200 and 800", admitted)
		}
	})
}

// TestWorkloadTokensComeFromTheSetpoint, and the load stays comparable with what came at the old prices.
func TestWorkloadTokensComeFromTheSetpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := loadSpec(1, "cp")
		spec.Scheduler.Workloads = []WorkloadSpec{{Name: "slow", Match: label.Equal("kind", "slow"), Priority: 1, Tokens: 1}}
		e := newEngine(t, spec)
		run := func(d time.Duration) (fast, slow int) {
			for range int(d / (10 * time.Millisecond)) {
				time.Sleep(10 * time.Millisecond)
				fast += admittedOf(e, 1, "kind", "fast")
				slow += admittedOf(e, 1, "kind", "slow")
			}
			return fast, slow
		}
		run(15 * time.Second)
		steer(e, 1, setpoint.Setpoint{LoadMultiplier: 0.5, WorkloadTokens: map[string]float64{"slow": 900, "default": 100, "bad": math.NaN(), "worse": -1}})
		if fill := e.Overview(0).Limiters[0].Spec.Bucket.FillAmount; !near(fill, 50_000, 600) {
			t.Errorf("fill %v, want half of 100 flows of 100 and 100 of 900", fill)
		}
		fast, slow := run(10 * time.Second)
		if cost := float64(fast*100 + slow*900); !near(cost, 500_000, 11_000) {
			t.Errorf("%d fast and %d slow flows: %v tokens, want 500000", fast, slow, cost)
		}
		if o := observe(t, e, 1); o.IncomingTokens <= o.AcceptedTokens {
			t.Errorf("%+v", o)
		}
		steer(e, 1, setpoint.Setpoint{Version: 1, LoadMultiplier: 0.5}) // back to one token
		if fill := e.Overview(0).Limiters[0].Spec.Bucket.FillAmount; !near(fill, 100, 2) {
			t.Errorf("fill %v, want 100", fill)
		}
	})
}

// TestPricesDoNotTouchFlowsThatBringTheirOwn.
func TestPricesDoNotTouchFlowsThatBringTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, loadSpec(1, "cp"))
		openLoop(e, 100, 3, 15*time.Second)
		steer(e, 1, setpoint.Setpoint{LoadMultiplier: 0.5, WorkloadTokens: map[string]float64{"default": 1000}})
		if fill := e.Overview(0).Limiters[0].Spec.Bucket.FillAmount; !near(fill, 150, 2) {
			t.Errorf("fill %v, want 150", fill)
		}
	})
}

// TestLoadSchedulerNeverAdmitsMore: under random setpoints and load, every window between two setpoints
// admits at most what the bucket can hold and what it fills.
func TestLoadSchedulerNeverAdmitsMore(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 7))
				e := newEngine(t, loadSpec(1, "cp"))
				openLoop(e, 50, 1+rng.IntN(5), 12*time.Second)
				before := 0.0 // tokens in the bucket when the window began, at most
				for v := range uint64(60) {
					steer(e, 1, setpoint.Setpoint{Version: v, LoadMultiplier: float64(rng.IntN(12)) / 10})
					rule := e.Overview(0).Limiters[0].Spec.Bucket
					if v == 0 {
						before = rule.Capacity
					}
					began, admitted := time.Now(), 0.0
					capacity := max(rule.Capacity, 12) // the largest flow raises it
					for range rng.IntN(60) {
						time.Sleep(time.Duration(rng.IntN(40)) * time.Millisecond)
						tokens := 1 + rng.IntN(12)
						f := start(e, "cp", "tokens", fmt.Sprint(tokens))
						if f.Admitted() && rng.IntN(4) == 0 {
							f.Abort() // hands its tokens back
							continue
						}
						if f.Admitted() {
							admitted += float64(tokens)
						}
						f.Free()
						bound := min(before, capacity) + rule.FillAmount*time.Since(began).Seconds() + 1e-6
						if rule.FillAmount > 0 && admitted > bound {
							t.Fatalf("setpoint %d: %v admitted within %v, bound %v (%+v)", v, admitted, time.Since(began), bound, rule)
						}
						if rule.FillAmount == 0 && rule.Capacity > 0 && admitted > 0 && e.limiterOf(1).load.lm == 0 {
							t.Fatalf("setpoint %d: %v admitted at 0", v, admitted)
						}
					}
					before = min(capacity, before-admitted+rule.FillAmount*time.Since(began).Seconds())
					before = max(before, 0)
				}
			})
		})
	}
}

// TestLoadSchedulerTakesTokensBack: from flows that are denied later or aborted, and what a flow did not need.
func TestLoadSchedulerTakesTokensBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, loadSpec(1, "cp"))
		openLoop(e, 100, 1, 15*time.Second)
		steer(e, 1, setpoint.Setpoint{LoadMultiplier: 0.5})
		time.Sleep(2 * time.Second) // 50 tokens are there
		for range 1000 {
			f := start(e, "cp", "tokens", "50")
			if !f.Admitted() {
				t.Fatal(f.Verdict.Message())
			}
			f.Abort()
		}
		f := start(e, "cp", "tokens", "50")
		actual := 20.0
		f.End(Outcome{Tokens: &actual})
		if got := admittedOf(e, 50); got != 30 {
			t.Errorf("%d admitted after a flow that cost 20 instead of 50, want 30", got)
		}
	})
}

func (e *Engine) limiterOf(id ledger.LimiterID) *limiter { return (*e.limiters.Load())[id] }

// TestLoadRate compares the measured rate with counting by hand, over random arrivals.
func TestLoadRate(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 11))
		now := limit.Instant(1e18)
		b := newLoadBucket(now)
		born := now
		type arrival struct {
			at limit.Instant
			n  float64
		}
		var all []arrival
		for range 3000 {
			now = now.Add(time.Duration(rng.ExpFloat64() * float64(10*time.Millisecond)))
			n := float64(1 + rng.IntN(9))
			b.arrive(rng.IntN(stripes), n, now)
			all = append(all, arrival{now, n})
			if rng.IntN(50) > 0 {
				continue
			}
			b.mu.Lock()
			got, known := b.rateLocked(now)
			b.mu.Unlock()
			span := min(loadWindow, now.Sub(born))
			if known != (span >= loadLearn) {
				t.Fatalf("seed %d: known %v after %v", seed, known, span)
			}
			if !known {
				continue
			}
			want := 0.0
			for _, a := range all {
				if now.Sub(a.at) <= span {
					want += a.n
				}
			}
			// Within a sampling period at the far end, arrivals are taken as evenly spread.
			if margin := 200.0; math.Abs(got*span.Seconds()-want) > margin {
				t.Fatalf("seed %d: %v in %v, want %v", seed, got*span.Seconds(), span, want)
			}
		}
	}
}

// TestNothingLeaksOverNewStages: every denial, wherever it comes, undoes what the stages before took.
func TestNothingLeaksOverNewStages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(5, 6))
		adaptive := drivenSlots(AdaptiveConcurrencyScheduler, 3)
		e := newEngine(t,
			samplerSpec(1, true),
			rateSpec(2, "cp", "", label.Expr{}, limit.BucketRule{Capacity: 1e6, Interval: time.Hour, Continuous: true}),
			adaptive, slotSpec(ConcurrencyLimiter, 4, "cp", "", 20), loadSpec(5, "cp"),
			driven(quotaSpec(6, "cp", "", limit.BucketRule{Interval: time.Second, Continuous: true}), "h"),
		)
		var wg sync.WaitGroup
		ran := 0
		var mu sync.Mutex
		for i := range 4000 {
			if i%20 == 0 {
				v := uint64(i)
				steer(e, 1, setpoint.Setpoint{Version: v, AcceptPercentage: 50 + 50*rng.Float64()})
				steer(e, 3, setpoint.Setpoint{Version: v, MaxConcurrency: float64(rng.IntN(12)), PassThrough: rng.IntN(6) == 0})
				steer(e, 5, setpoint.Setpoint{Version: v, LoadMultiplier: 1.2 * rng.Float64(), PassThrough: rng.IntN(4) == 0})
				steer(e, 6, setpoint.Setpoint{Version: v, BucketCapacity: float64(rng.IntN(50)), FillAmount: 300 * rng.Float64(), Expires: time.Now().Add(time.Duration(rng.IntN(200)) * time.Millisecond)})
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rng.IntN(100))*time.Millisecond)
			takes, how := time.Duration(rng.IntN(30))*time.Millisecond, rng.IntN(3)
			ramp := rng.IntN(2) == 0
			user := fmt.Sprint(rng.IntN(100))
			wg.Go(func() {
				defer cancel()
				f := e.Start(ctx, &Request{ControlPoint: "cp", Labels: map[string]string{"user": user}, QueueTimeout: -1, RampMode: ramp})
				if !f.Admitted() {
					f.Free()
					return
				}
				mu.Lock()
				ran++
				mu.Unlock()
				time.Sleep(takes)
				switch how {
				case 0:
					f.Abort()
					mu.Lock()
					ran--
					mu.Unlock()
				case 1:
					token := f.Seal(nil)
					f.Free()
					if r, err := e.EndToken(token, &Outcome{}); r != Ended || err != nil {
						t.Error(r, err)
					}
				default:
					f.End(Outcome{})
				}
			})
			time.Sleep(time.Duration(rng.IntN(4)) * time.Millisecond)
		}
		wg.Wait()
		if ran < 200 {
			t.Fatalf("only %d flows ran: the test shows too little", ran)
		}
		for _, id := range []ledger.LimiterID{3, 4} {
			if n := observe(t, e, id).InFlight; n != 0 {
				t.Errorf("limiter %d: %v slots leaked", id, n)
			}
		}
		if used := inFlight(t, e, 2); used != float64(ran) {
			t.Errorf("%v tokens used by %d flows that ran", used, ran)
		}
		for _, l := range e.Overview(0).Limiters {
			if l.Waiting != 0 {
				t.Errorf("%s: %d wait", l.Spec.Kind, l.Waiting)
			}
		}
	})
}
