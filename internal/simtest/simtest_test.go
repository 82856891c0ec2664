// SPDX-License-Identifier: Apache-2.0

package simtest

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/wfq"
)

func TestFairShare(t *testing.T) {
	tests := []struct {
		name     string
		capacity float64
		claims   []Claim
		want     []float64
	}{
		{"by weight", 60, []Claim{{5, 100}, {1, 100}}, []float64{50, 10}},
		{"what one leaves goes to the other", 60, []Claim{{5, 20}, {1, 100}}, []float64{20, 40}},
		{"enough for all", 60, []Claim{{5, 20}, {1, 30}}, []float64{20, 30}},
		{"in three rounds", 100, []Claim{{1, 5}, {1, 40}, {2, 20}, {1, 100}}, []float64{5, 37.5, 20, 37.5}},
		{"nothing to share", 0, []Claim{{1, 5}}, []float64{0}},
		{"nobody", 10, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for i, got := range FairShare(tt.capacity, tt.claims) {
				if math.Abs(got-tt.want[i]) > 1e-9 {
					t.Errorf("share %d = %v, want %v", i, got, tt.want[i])
				}
			}
		})
	}
}

// Five paid and five free users make 25 calls of 100 ms each, two at a time, 5 : 1. Ideally, while both
// have calls waiting, paid get 5/6 of the slots: a mean wait of 200 ms; free users then have them for
// themselves, which makes 400 ms. Starting from idle slots saves a little of both.
func TestPaidOverFree(t *testing.T) {
	group := func(name string, priority float64, start time.Duration) Group {
		return Group{
			Class: wfq.ClassKey{Workload: name, Priority: priority}, Clients: 5, Calls: 25, Cost: 1,
			Service: 100 * time.Millisecond, Start: start, Stagger: 2 * time.Millisecond,
		}
	}
	for _, firstFree := range []time.Duration{0, time.Millisecond, 3 * time.Millisecond, 20 * time.Millisecond} {
		results, peak := Run(Server{Slots: 2}, []Group{group("paid", 5, 0), group("free", 1, firstFree)}, time.Minute)
		paid, free := results[0], results[1]
		t.Logf("free start after %v; mean wait: paid %v, free %v", firstFree, paid.MeanWait(), free.MeanWait())
		if end := max(paid.Last, free.Last); end > 12505*time.Millisecond || peak != 2 {
			t.Errorf("ended after %v with at most %d at a time, want 12.5s and 2: capacity was withheld", end, peak)
		}
		if paid.Calls != 125 || free.Calls != 125 {
			t.Errorf("lost calls: %+v %+v", paid, free)
		}
		if paid.MeanWait() > 200*time.Millisecond || free.MeanWait() > 400*time.Millisecond {
			t.Errorf("mean wait: paid %v, want at most 200ms; free %v, want at most 400ms", paid.MeanWait(), free.MeanWait())
		}
	}
}

// Closed loops of random shape against a bucket: each class gets its weighted max-min share of the
// tokens, and each client of a class the same.
func TestSharesOfQuota(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		rule := limit.BucketRule{Capacity: 10, FillAmount: 1000, Interval: time.Second, Continuous: true}
		var groups []Group
		var claims []Claim
		for i := range 2 + rng.IntN(4) {
			g := Group{
				Class:   wfq.ClassKey{Workload: string(rune('A' + i)), Priority: 0.5 + 10*rng.Float64()},
				Clients: 10 + rng.IntN(10), Keys: true, Cost: 0.5 + rng.Float64(),
			}
			claim := Claim{Weight: g.Class.Priority, Demand: math.Inf(1)}
			if i > 0 && rng.IntN(2) == 0 { // wants little: its clients are thinking most of the time
				g.Think = 5 * time.Second
				g.Stagger = g.Think / time.Duration(g.Clients)
				claim.Demand = float64(g.Clients) * g.Cost / g.Think.Seconds()
			}
			groups, claims = append(groups, g), append(claims, claim)
		}
		const span = 100 * time.Second
		results, _ := Run(Server{Bucket: &rule}, groups, span)
		for i, want := range FairShare(1000, claims) {
			got := results[i].Tokens / span.Seconds()
			if got < want*0.99-1 || got > want*1.01+1 {
				t.Errorf("%+v\ngot %.1f tokens/s, fair are %.1f", groups[i], got, want)
			}
		}
	}
}

// A lone workload gets all there is, whatever its priority.
func TestLoneWorkload(t *testing.T) {
	results, peak := Run(Server{Slots: 4}, []Group{{
		Class: wfq.ClassKey{Priority: 0.1}, Clients: 8, Cost: 1,
		Service: 10 * time.Millisecond,
	}}, 10*time.Second)
	if results[0].Calls < 4000 || peak != 4 {
		t.Errorf("%d calls, %d at once, want 4000, 4", results[0].Calls, peak)
	}
}
