// SPDX-License-Identifier: Apache-2.0

package component_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/circuit/component"
	"github.com/sluice-project/sluice/internal/setpoint"
)

// bench is a controller with a service that is a formula: flows take as long as they do without waiting, or
// as long as it takes the workers to get to them.
type bench struct {
	controller *component.ConcurrencyController
	seen       setpoint.Observation
	tick       circuit.Tick
	in, out    []float64

	workers, seconds float64 // of the service
	fails            bool
	demand           float64 // flows that there would be in the service without a limit
}

func newBench(c component.ConcurrencyConfig) *bench {
	b := &bench{
		controller: component.NewConcurrencyController(c),
		seen:       setpoint.Observation{Durations: make([]uint64, setpoint.DurationBuckets)},
		tick:       circuit.Tick{Now: time.Unix(1, 0), Interval: time.Second},
		in:         []float64{circuit.Invalid()}, out: make([]float64, 2),
		workers: 40, seconds: 0.02, demand: math.Inf(1),
	}
	b.step()
	return b
}

// step makes one tick without flows.
func (b *bench) step() float64 {
	b.controller.Feed(&b.seen)
	b.out[0], b.out[1] = circuit.Invalid(), circuit.Invalid()
	b.controller.Step(&b.tick, b.in, b.out)
	b.tick.Count++
	b.tick.Now = b.tick.Now.Add(b.tick.Interval)
	return b.out[0]
}

// run makes ticks and returns the limit after them.
func (b *bench) run(ticks int) float64 {
	for range ticks {
		inside := min(b.out[0], b.demand)
		each := b.seconds * max(1, inside/b.workers)
		ended := inside / each * b.tick.Interval.Seconds()
		b.seen.Ended += uint64(ended)
		b.seen.Accepted += uint64(ended)
		if b.fails {
			b.seen.Failed += uint64(ended)
		}
		b.seen.DurationSum += math.Floor(ended) * each
		b.seen.Durations[setpoint.DurationBucket(each)] += uint64(ended)
		b.seen.InFlight, b.seen.InFlightPeak = inside, inside
		b.seen.Waiting = 0
		if b.demand > b.out[0] {
			b.seen.Waiting = 5
			b.seen.Rejected += 10
		}
		b.step()
	}
	return b.out[0]
}

func defaults() component.ConcurrencyConfig {
	return component.ConcurrencyConfig{Min: 1, Max: 10000, Initial: 20}
}

// usual is the limit in the middle of those of the next ticks: not that of a probe.
func (b *bench) usual() float64 {
	limits := make([]float64, 7)
	for i := range limits {
		limits[i] = b.run(1)
	}
	slices.Sort(limits)
	return limits[len(limits)/2]
}

// near fails unless a limit is enough for the workers and not much more.
func near(t *testing.T, what string, limit, workers float64) {
	t.Helper()
	if limit < 0.9*workers || limit > max(workers+2, 1.45*workers) {
		t.Errorf("%s: the limit is %v for %v workers", what, limit, workers)
	}
}

func TestConcurrencyBegins(t *testing.T) {
	for _, c := range []struct{ min, max, initial, want float64 }{
		{1, 100, 20, 20}, {1, 10, 20, 10}, {30, 100, 20, 30}, {1, 100, 2.6, 3},
	} {
		b := newBench(component.ConcurrencyConfig{Min: c.min, Max: c.max, Initial: c.initial})
		if b.out[0] != c.want || b.out[1] != 0 {
			t.Errorf("initial %v in %v..%v: got %v, overload %v; want %v, 0", c.initial, c.min, c.max, b.out[0], b.out[1], c.want)
		}
	}
}

func TestConcurrencyFindsTheWorkers(t *testing.T) {
	for _, workers := range []float64{2, 5, 16, 40, 100, 500, 3000} {
		b := newBench(defaults())
		b.workers = workers
		near(t, "after 60 ticks", b.run(60), workers)
		if b.out[1] != 1 {
			t.Errorf("%v workers: is_overload is %v while flows wait", workers, b.out[1])
		}
		for range 20 {
			b.run(43)
			near(t, "later", b.usual(), workers)
		}
	}
}

func TestConcurrencyFollowsChanges(t *testing.T) {
	for _, c := range []struct {
		what             string
		workers, seconds float64
	}{
		{"half of the workers", 20, 0.02},
		{"twice the workers", 80, 0.02},
		{"half the speed", 40, 0.04},
		{"twice the speed", 40, 0.01},
		{"a tenth of the workers", 4, 0.02},
		{"ten times the workers", 400, 0.02},
	} {
		b := newBench(defaults())
		b.run(60)
		b.workers, b.seconds = c.workers, c.seconds
		near(t, c.what, b.run(25), c.workers)
	}
}

func TestConcurrencyStaysWithoutLoad(t *testing.T) {
	b := newBench(defaults())
	found := b.run(60)
	for _, demand := range []float64{0, 1, 10} {
		b.demand = demand
		if got := b.run(2000); math.Abs(got-found) > 0.25*found {
			t.Errorf("with %v flows inside the limit went from %v to %v", demand, found, got)
		}
		if b.out[1] != 0 {
			t.Errorf("with %v flows inside there is an overload", demand)
		}
	}
	b.demand = math.Inf(1)
	near(t, "when the load is back", b.run(10), 40)
}

func TestConcurrencyWhileEverythingFails(t *testing.T) {
	b := newBench(defaults())
	found := b.run(60)
	b.fails, b.seconds = true, 1
	if got := b.run(40); got > found/4 || got < 1 {
		t.Errorf("the limit is %v while all flows fail, it was %v", got, found)
	}
	b.fails, b.seconds = false, 0.02
	near(t, "three ticks after the end", b.run(3), 40)
}

func TestConcurrencyOverloadConfirmation(t *testing.T) {
	b := newBench(defaults())
	b.run(60)
	b.in[0], b.demand = 0, 300
	if b.run(10); b.out[0] < 300 || b.out[1] != 0 {
		t.Errorf("not confirmed: the limit is %v for 300 flows, overload %v", b.out[0], b.out[1])
	}
	b.in[0] = 1
	b.run(60)
	near(t, "confirmed", b.usual(), 40)
}

func TestConcurrencyWithoutObservation(t *testing.T) {
	b := newBench(defaults())
	found := b.run(60)
	for range 10 {
		b.controller.Step(&b.tick, b.in, b.out)
		if b.out[0] != found {
			t.Fatalf("a tick without an observation moved the limit from %v to %v", found, b.out[0])
		}
	}
	// The actuator is a new one: its counters begin anew.
	b.seen = setpoint.Observation{Durations: make([]uint64, setpoint.DurationBuckets)}
	if got := b.step(); got != found {
		t.Errorf("counters that fell moved the limit from %v to %v", found, got)
	}
	near(t, "later", b.run(30), 40)
}

func TestConcurrencyAllocatesNothing(t *testing.T) {
	b := newBench(defaults())
	b.run(30)
	if n := testing.AllocsPerRun(200, func() { b.run(1) }); n != 0 {
		t.Errorf("a tick makes %v allocations", n)
	}
}

// Whatever is observed, the limit is a whole number within its bounds.
func TestConcurrencyBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lowest := float64(rapid.IntRange(1, 50).Draw(t, "min"))
		highest := lowest + float64(rapid.IntRange(0, 1000).Draw(t, "range"))
		c := component.NewConcurrencyController(component.ConcurrencyConfig{Min: lowest, Max: highest, Initial: rapid.Float64Range(1, 2000).Draw(t, "initial")})
		tick := circuit.Tick{Interval: rapid.SampledFrom([]time.Duration{100 * time.Millisecond, time.Second, time.Minute}).Draw(t, "interval")}
		seen := setpoint.Observation{Durations: make([]uint64, setpoint.DurationBuckets)}
		out := make([]float64, 2)
		for range rapid.IntRange(1, 60).Draw(t, "ticks") {
			ended := rapid.Uint64Range(0, 1e6).Draw(t, "ended")
			each := rapid.SampledFrom([]float64{0, 1e-9, 1e-4, 0.01, 1, 1e4, math.Inf(1), math.NaN(), -1}).Draw(t, "each")
			seen.Ended += ended
			seen.Failed += min(ended, rapid.Uint64Range(0, 1e6).Draw(t, "failed"))
			seen.DurationSum += float64(ended) * each
			seen.Durations[setpoint.DurationBucket(each)] += ended
			seen.Rejected += rapid.Uint64Range(0, 3).Draw(t, "rejected")
			seen.InFlight = rapid.SampledFrom([]float64{0, 1, out[0], 1e9}).Draw(t, "inFlight")
			seen.InFlightPeak = seen.InFlight
			if rapid.Bool().Draw(t, "anew") {
				seen = setpoint.Observation{Durations: make([]uint64, setpoint.DurationBuckets)}
			}
			c.Feed(&seen)
			c.Step(&tick, []float64{rapid.SampledFrom([]float64{circuit.Invalid(), 0, 1}).Draw(t, "confirmation")}, out)
			if out[0] < lowest || out[0] > highest || out[0] != math.Round(out[0]) || out[1] != 0 && out[1] != 1 {
				t.Fatalf("limit %v, overload %v; want a whole number in %v..%v", out[0], out[1], lowest, highest)
			}
		}
	})
}

func BenchmarkConcurrencyController(b *testing.B) {
	k := newBench(defaults())
	k.run(60)
	b.ReportAllocs()
	for b.Loop() {
		k.run(1)
	}
}
