// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/meter"
)

// seal starts a flow and returns its token.
func seal(t *testing.T, e *Engine, kv ...string) []byte {
	t.Helper()
	f := start(e, "cp", kv...)
	defer f.Free()
	if !f.Admitted() {
		t.Fatalf("denied: %s", f.Verdict.Message())
	}
	return f.Seal(nil)
}

func TestReleaseToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots, rate := slotSpec(ConcurrencyLimiter, 1, "cp", "", 1), rateSpec(2, "cp", "", label.Expr{}, perSecond(1000))
		rate.TokensKey = "tokens"
		e := newEngine(t)
		publish(t, e, Set{
			Limiters: []*LimiterSpec{slots, rate},
			Meters:   []*MeterSpec{meterSpec("p", "m", meter.WorkloadDuration, label.Expr{})},
		})
		expect := func(what string, got EndResult, err error, want EndResult) {
			t.Helper()
			if err != nil || got != want {
				t.Errorf("%s: %s, %v; want %s", what, got, err, want)
			}
		}
		token := seal(t, e, "tokens", "10")
		if r := reason(e, "cp"); r != ConcurrencyLimited {
			t.Errorf("a second flow: %s", r)
		}
		time.Sleep(time.Second)
		r, err := e.ReleaseToken(token)
		expect("release", r, err, Ended)
		r, err = e.ReleaseToken(token)
		expect("release again", r, err, AlreadyEnded)
		other := seal(t, e) // the slot is free; and it must stay taken now
		if n := e.pointStats("cp").failed.Load(); n != 0 || inFlight(t, e, 1) != 1 {
			t.Errorf("after the release: %d flows failed, %v slots in flight", n, inFlight(t, e, 1))
		}
		tokens := 4.0
		r, err = e.EndToken(token, &Outcome{Failed: true, Tokens: &tokens, Duration: 3 * time.Second})
		expect("end after release", r, err, Ended)
		if n := inFlight(t, e, 1); n != 1 {
			t.Errorf("%v slots in flight after the end of a released flow, want that of the other one", n)
		}
		if n := e.pointStats("cp").failed.Load(); n != 1 {
			t.Errorf("%d failed flows, want 1", n)
		}
		if n, sum, _ := read(t, e, "p", "m", meter.Failed); n != 1 || sum != 3000 {
			t.Errorf("the meter has %d flows, sum %v", n, sum)
		}
		r, err = e.EndToken(token, &Outcome{})
		expect("end again", r, err, AlreadyEnded)
		r, err = e.ReleaseToken(token)
		expect("release after the end", r, err, AlreadyEnded)

		time.Sleep(2 * time.Minute) // longer than slots may be held
		third := seal(t, e)
		r, err = e.ReleaseToken(other)
		expect("release late", r, err, Expired)
		r, err = e.EndToken(other, &Outcome{})
		expect("end after that", r, err, Ended)

		r, err = e.EndToken(third, &Outcome{})
		expect("end", r, err, Ended)
		r, err = e.ReleaseToken(third)
		expect("release after the end", r, err, AlreadyEnded)

		publish(t, e, Set{})
		none := seal(t, e)
		r, err = e.ReleaseToken(none)
		expect("release of a flow that holds nothing", r, err, Ended)
		if _, err := e.ReleaseToken(token[:len(token)-1]); err != ErrInvalidToken {
			t.Errorf("a token that is none: %v", err)
		}
	})
}

// TestReleaseWakesWaiting: a slot that a flow gives back goes to the one that waits for it.
func TestReleaseWakesWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, slotSpec(ConcurrencyScheduler, 1, "cp", "", 1))
		token := seal(t, e)
		done := make(chan time.Duration)
		go func() {
			f := wait(t.Context(), e, "cp")
			done <- f.Verdict.Waited
			f.End(Outcome{})
		}()
		time.Sleep(time.Second)
		if r, err := e.ReleaseToken(token); r != Ended || err != nil {
			t.Errorf("%s, %v", r, err)
		}
		if waited := <-done; waited != time.Second {
			t.Errorf("waited %v", waited)
		}
	})
}

// TestReleaseAndEndInAnyOrder: whatever order and however often flows are released and ended, by goroutines at once
// and after their slots expired, no slot is freed twice or lost, and every flow that was ended counts once.
func TestReleaseAndEndInAnyOrder(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { releaseAndEnd(t, rand.New(rand.NewPCG(seed, 3))) })
		})
	}
}

func releaseAndEnd(t *testing.T, rng *rand.Rand) {
	const slots = 5
	e := newEngine(t)
	publish(t, e, Set{
		Limiters: []*LimiterSpec{slotSpec(ConcurrencyScheduler, 1, "cp", "", slots)},
		Meters:   []*MeterSpec{meterSpec("p", "m", meter.WorkloadDuration, label.Expr{})},
	})
	var mu sync.Mutex
	ended, holding := 0, 0 // flows with an end that counted; those that hold a slot as far as their callers know
	var wg sync.WaitGroup
	for range 300 {
		f := e.Start(t.Context(), &Request{ControlPoint: "cp", QueueTimeout: time.Hour})
		if !f.Admitted() {
			t.Fatal(f.Verdict.Message())
		}
		token := f.Seal(nil)
		f.Free()
		mu.Lock()
		if holding++; holding > slots {
			t.Fatalf("%d flows hold %d slots", holding, slots)
		}
		mu.Unlock()
		// A slot is free at the first call, or when its time is over.
		var once sync.Once
		free := func() {
			once.Do(func() {
				mu.Lock()
				holding--
				mu.Unlock()
			})
		}
		expires := time.AfterFunc(time.Minute-time.Nanosecond, free)
		for range rng.IntN(4) {
			delay, end := time.Duration(rng.IntN(90_000))*time.Millisecond/100, rng.IntN(2) == 0
			if rng.IntN(20) == 0 {
				delay += time.Minute
			}
			wg.Go(func() {
				time.Sleep(delay)
				free()
				expires.Stop()
				if !end {
					if _, err := e.ReleaseToken(token); err != nil {
						t.Error(err)
					}
					return
				}
				r, err := e.EndToken(token, &Outcome{})
				if err != nil {
					t.Error(err)
				}
				if r != AlreadyEnded {
					mu.Lock()
					ended++
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
	}
	wg.Wait()
	time.Sleep(2 * time.Minute)
	_, count, _ := e.pointStats("cp").durations()
	metered, _, _ := read(t, e, "p", "m", meter.OK)
	if int(count) != ended || int(metered) != ended {
		t.Errorf("%d ends counted and %d measured, want %d", count, metered, ended)
	}
	for range slots { // all of them are there, and not one more
		if f := start(e, "cp"); !f.Admitted() {
			t.Errorf("a slot is missing: %s", f.Verdict.Message())
		}
	}
	if f := start(e, "cp"); f.Admitted() {
		t.Error("there are more slots than the limit says")
	}
}

// TestReleaseAcrossServers: what one server released another one ends, with one ledger between them.
func TestReleaseAcrossServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := ledger.NewMemory(ledger.Config{})
		if err != nil {
			t.Fatal(err)
		}
		var servers []*Engine
		for range 2 {
			e, err := New(Config{Authority: m, TokenKey: make([]byte, TokenKeySize)})
			if err != nil {
				t.Fatal(err)
			}
			publish(t, e, Set{Limiters: []*LimiterSpec{slotSpec(ConcurrencyLimiter, 1, "cp", "", 1)}})
			servers = append(servers, e)
		}
		token := seal(t, servers[0])
		if r, err := servers[1].ReleaseToken(token); r != Ended || err != nil {
			t.Errorf("release: %s, %v", r, err)
		}
		second := seal(t, servers[1])
		// The server that ends it does not know who freed the slot; it only knows that it is not there.
		if r, err := servers[0].EndToken(token, &Outcome{}); r != Expired || err != nil {
			t.Errorf("end: %s, %v", r, err)
		}
		if n := inFlight(t, servers[0], 1); n != 1 {
			t.Errorf("%v slots in flight, want that of the second flow", n)
		}
		if r, err := servers[0].EndToken(second, &Outcome{}); r != Ended || err != nil {
			t.Errorf("end of the second: %s, %v", r, err)
		}
	})
}
