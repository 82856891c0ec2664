// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
)

// world is an engine on a durable ledger that can be restarted, and a record of what it admitted.
type world struct {
	t   *testing.T
	dir string
	m   *ledger.Memory
	e   *Engine

	mu       sync.Mutex
	admitted map[string][]grant // by account
	live     map[string]float64 // slots that running work holds, by user
	peak     map[string]float64
}

type grant struct {
	at     time.Time
	tokens float64
}

func (w *world) open(specs []*LimiterSpec) {
	w.t.Helper()
	var err error
	if w.m, err = ledger.NewMemory(ledger.Config{Dir: w.dir}); err != nil {
		w.t.Fatal(err)
	}
	if w.e, err = New(Config{Authority: w.m, TokenKey: make([]byte, TokenKeySize)}); err != nil {
		w.t.Fatal(err)
	}
	w.publish(specs)
}

func (w *world) publish(specs []*LimiterSpec) {
	w.t.Helper()
	if err := w.e.Publish(Set{Limiters: specs}); err != nil {
		w.t.Fatal(err)
	}
}

// work runs one flow to its end; the work goes on over restarts, as real work does.
func (w *world) work(ctx context.Context, user string, tokens int, takes time.Duration, lost bool) {
	f := wait(ctx, w.e, "cp", "user", user, "tokens", fmt.Sprint(tokens))
	if !f.Admitted() {
		f.Free()
		return
	}
	w.mu.Lock()
	w.admitted[user] = append(w.admitted[user], grant{time.Now(), float64(tokens)})
	w.live[user]++
	w.peak[user] = max(w.peak[user], w.live[user])
	w.mu.Unlock()
	token := f.Seal(nil)
	f.Free()
	time.Sleep(takes)
	w.mu.Lock()
	w.live[user]--
	w.mu.Unlock()
	if !lost {
		w.e.EndToken(token, &Outcome{})
	}
}

// TestNeverMoreThanTheLimit drives random flows, cancellations, lost ends, edits and restarts in virtual
// time. In every window, each account admits at most the capacity plus what the rate adds, taking the
// largest of both that was ever in force; and never more work runs than there are slots.
func TestNeverMoreThanTheLimit(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { neverMore(t, seed) })
		})
	}
}

const (
	maxCapacity = 40.0
	maxRate     = 20.0 // tokens a second
	maxSlots    = 4.0
)

func randomSpecs(rng *rand.Rand) []*LimiterSpec {
	rule := func() limit.BucketRule {
		capacity := 1 + float64(rng.IntN(int(maxCapacity)))
		interval := time.Duration(1+rng.IntN(2000)) * time.Millisecond
		rate := maxRate * rng.Float64()
		r := limit.BucketRule{Capacity: capacity, Interval: interval, FillAmount: rate * interval.Seconds(), Continuous: true}
		if rng.IntN(4) == 0 {
			r.DelayInitialFill = true
		}
		return r
	}
	rate := rateSpec(1, "cp", "user", label.Expr{}, rule())
	rate.TokensKey = "tokens"
	quota := quotaSpec(2, "cp", "user", rule())
	slots := slotSpec(ConcurrencyScheduler, 3, "cp", "user", float64(1+rng.IntN(int(maxSlots))))
	specs := []*LimiterSpec{rate, slots}
	if rng.IntN(2) == 0 {
		specs = append(specs, quota)
	}
	return specs
}

func neverMore(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 99))
	w := &world{
		t: t, dir: t.TempDir(), admitted: map[string][]grant{},
		live: map[string]float64{}, peak: map[string]float64{},
	}
	w.open(randomSpecs(rng))
	began := time.Now()
	var wg sync.WaitGroup
	for range 1500 {
		switch n := rng.IntN(300); {
		case n == 0:
			w.e.Close() // waiting flows are denied
			wg.Wait()   // so that nobody uses the ledger that is closed
			if err := w.m.Close(); err != nil {
				t.Fatal(err)
			}
			w.open(randomSpecs(rng))
		case n < 6:
			w.publish(randomSpecs(rng))
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rng.IntN(3000))*time.Millisecond)
		if rng.IntN(5) == 0 {
			time.AfterFunc(time.Duration(rng.IntN(500))*time.Millisecond, cancel)
		}
		user, tokens, takes, lost := fmt.Sprint("u", rng.IntN(3)), rng.IntN(12), time.Duration(rng.IntN(400))*time.Millisecond, rng.IntN(30) == 0
		wg.Go(func() {
			defer cancel()
			w.work(ctx, user, tokens, takes, lost)
		})
		time.Sleep(time.Duration(rng.IntN(40)) * time.Millisecond)
	}
	wg.Wait()
	total := 0.0
	for user, grants := range w.admitted {
		total += checkWindows(t, user, grants)
		if w.peak[user] > maxSlots {
			t.Errorf("seed %d: %s had %v flows running, limit %v", seed, user, w.peak[user], maxSlots)
		}
	}
	if total < 200 {
		t.Errorf("seed %d: only %v tokens admitted in %v: the test shows too little", seed, total, time.Since(began))
	}
	time.Sleep(2 * time.Minute) // lost ends expire
	for _, l := range w.e.Overview(0).Limiters {
		if l.Waiting != 0 {
			t.Errorf("seed %d: %d flows wait at %s", seed, l.Waiting, l.Spec.Kind)
		}
	}
	if err := w.m.Close(); err != nil {
		t.Error(err)
	}
}

// checkWindows compares every window between two admissions with the bound.
func checkWindows(t *testing.T, user string, grants []grant) (total float64) {
	t.Helper()
	for i := range grants {
		sum := 0.0
		for _, g := range grants[i:] {
			sum += g.tokens
			if bound := maxCapacity + maxRate*g.at.Sub(grants[i].at).Seconds() + 1e-6; sum > bound {
				t.Fatalf("%s: %v tokens within %v, bound %v", user, sum, g.at.Sub(grants[i].at), bound)
			}
		}
		total += grants[i].tokens
	}
	return total
}
