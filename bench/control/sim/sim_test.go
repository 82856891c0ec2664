// SPDX-License-Identifier: Apache-2.0

package sim_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/bench/control/sim"
)

// The seeds here are others than those that the controller was tuned on.
const firstSeed = 101

func scenario(t *testing.T, name string) *sim.Scenario {
	t.Helper()
	for _, s := range sim.Scenarios() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no scenario %q", name)
	return nil
}

var intervals = []time.Duration{time.Second, 100 * time.Millisecond}

// From two seconds after a step on, goodput is within a tenth of what is possible: on average over runs in
// which the step comes at all times between ticks.
func TestStepsWithinTwoSeconds(t *testing.T) {
	runs := uint64(8)
	if testing.Short() {
		runs = 4
	}
	for _, name := range []string{"load-x10", "workers-halved", "speed-halved", "workers-doubled", "speed-doubled"} {
		for _, interval := range intervals {
			sum, slow := 0.0, 0.0
			for k := range runs {
				s := *scenario(t, name)
				s.Length = s.Change + 15
				s.Phase = (float64(k) + 0.5) / float64(runs)
				r := sim.Run(&s, sim.NewAdaptive(interval), firstSeed+k)
				sum += r.Goodput(s.Change+2, s.Change+5) / float64(runs)
				p50, _ := r.Latency(0.5, s.Change+4, s.Length)
				slow += p50 / float64(runs)
			}
			t.Logf("%s, %s: %.3f, median %.0f ms", name, interval, sum, 1000*slow)
			if sum < 0.9 {
				t.Errorf("%s with ticks of %s: goodput from 2 s to 5 s after the step is %.3f of what is possible, want 0.9", name, interval, sum)
			}
			if slow > 0.1 {
				t.Errorf("%s with ticks of %s: the median time is %.0f ms on average over runs, and up to 70 without waiting", name, interval, 1000*slow)
			}
		}
	}
}

// In every scenario goodput is near what is possible. The numbers are somewhat below what was measured.
func TestGoodput(t *testing.T) {
	least := map[string]float64{"bimodal": 0.75, "some-time-outs": 0.6, "gc-pauses": 0.85, "noise": 0.9}
	for _, s := range sim.Scenarios() {
		if testing.Short() && (s.Name == "500-workers" || strings.Contains(s.Name, "-doubled")) {
			continue
		}
		want := 0.92
		if l, ok := least[s.Name]; ok {
			want = l
		}
		for _, interval := range intervals {
			r := sim.Run(s, sim.NewAdaptive(interval), firstSeed)
			if g := r.Goodput(s.Warm, s.Length); g < want {
				t.Errorf("%s with ticks of %s: goodput is %.3f, want %.2f", s.Name, interval, g, want)
			}
		}
	}
}

// Over a day the limit stays: without load, and under too much of it.
func TestNoDriftOverADay(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const hour = 3600.0
	t.Run("quiet", func(t *testing.T) {
		s := sim.Day()
		r := sim.Run(s, sim.NewAdaptive(time.Second), firstSeed)
		early, late := mean(r.Limits(hour, 2*hour)), mean(r.Limits(22*hour, 23*hour))
		if math.Abs(late-early) > 0.25*early {
			t.Errorf("the limit was %.1f in the second hour and is %.1f in the last but one", early, late)
		}
		if g := r.Goodput(s.Change+2, s.Change+12); g < 0.85 {
			t.Errorf("goodput in the rush that ends the day is %.3f", g)
		}
	})
	t.Run("overload", func(t *testing.T) {
		r := sim.Run(sim.FullDay(), sim.NewAdaptive(time.Second), firstSeed)
		for h := 1.0; h < 24; h++ {
			if l := mean(r.Limits(h*hour, (h+1)*hour)); l < 3.5 || l > 7 {
				t.Errorf("in hour %.0f the limit is %.2f on average, for 4 workers", h, l)
			}
			if g := r.Goodput(h*hour, (h+1)*hour); g < 0.9 {
				t.Errorf("in hour %.0f goodput is %.3f", h, g)
			}
		}
	})
}

// Priorities hold: guests come eight times as often and have a quarter of the weight.
func TestShares(t *testing.T) {
	s := *scenario(t, "elephant")
	s.Warm = s.Change + 5
	r := sim.Run(&s, sim.NewAdaptive(time.Second), firstSeed)
	// Subscribers want less than four fifths, so they get what they want and guests the rest.
	if guests := r.Share(0); guests < 0.3 || guests > 0.5 {
		t.Errorf("guests have %.2f of what is done, want 0.4", guests)
	}
}

// The simulator itself: a service without a limit and with enough capacity does what is asked, and one
// with as many slots as workers does what it can.
func TestSimulator(t *testing.T) {
	s := *scenario(t, "steady")
	light := s
	light.Clients = []sim.Client{{Name: "all", Rate: sim.Constant(400), Timeout: 2}}
	r := sim.Run(&light, sim.NoLimit, firstSeed)
	if g := r.Goodput(light.Warm, light.Length); math.Abs(g-1) > 0.03 {
		t.Errorf("half the load: goodput %.3f", g)
	}
	if p50, _ := r.Latency(0.5, light.Warm, light.Length); math.Abs(p50-0.05*math.Ln2) > 0.003 {
		t.Errorf("half the load: median %.4f s, want that of the exponential distribution", p50)
	}
	r = sim.Run(&s, sim.Static{Concurrency: 40, Rate: math.Inf(1)}, firstSeed)
	if g := r.Goodput(s.Warm, s.Length); math.Abs(g-1) > 0.03 {
		t.Errorf("as many slots as workers: goodput %.3f", g)
	}
	again := sim.Run(&s, sim.Static{Concurrency: 40, Rate: math.Inf(1)}, firstSeed)
	if again.Done(0, s.Length) != r.Done(0, s.Length) {
		t.Error("two runs with one seed differ")
	}
}

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}
