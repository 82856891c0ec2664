// SPDX-License-Identifier: Apache-2.0

package control

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/setpoint"
)

// FuzzProgram compiles documents and feeds them with nonsense: nothing panics, and whatever is asked of the
// data plane makes sense.
func FuzzProgram(f *testing.F) {
	for _, pattern := range []string{"testdata/compile/*.yaml", "../policy/testdata/*.yaml", "../policy/testdata/good/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("%s: no documents: %v", pattern, err)
		}
		for i, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text, uint64(i))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, seed uint64) {
		doc, err := policy.Parse(policy.Source{File: "p.yaml", Text: text})
		if err != nil {
			return
		}
		p, err := Compile(doc)
		if err != nil {
			return
		}
		if p.String() == "" {
			t.Error("a program that prints nothing")
		}
		nonsense(t, NewRunner(p), rand.New(rand.NewPCG(seed, 0)))
	})
}

// nonsense ticks a runner with random inputs and observations.
func nonsense(t *testing.T, r *Runner, rnd *rand.Rand) {
	t.Helper()
	now := t0
	seen := map[string]*setpoint.Observation{}
	for range 20 {
		for _, in := range r.Program().Inputs() {
			if rnd.IntN(2) == 0 {
				r.Force(in.Signal, weird(rnd))
			}
		}
		for id := range r.seen {
			if seen[id] == nil || rnd.IntN(10) == 0 {
				seen[id] = &setpoint.Observation{Durations: make([]uint64, setpoint.DurationBuckets)}
			}
			o := seen[id]
			o.Accepted += rnd.Uint64N(100)
			o.Rejected += rnd.Uint64N(100)
			o.Ended = o.Accepted
			o.BaseTokens += math.Abs(weird(rnd))
			o.AcceptedTokens += math.Abs(weird(rnd))
			o.DurationSum += math.Abs(weird(rnd))
			o.InFlightPeak = math.Abs(weird(rnd))
			o.Durations[rnd.IntN(len(o.Durations))] += rnd.Uint64N(100)
			r.Observe(id, o)
		}
		r.Tick(now)
		now = now.Add(r.Program().Interval)
		for _, sp := range r.Setpoints() {
			sane(t, &sp, now)
		}
	}
}

func weird(rnd *rand.Rand) float64 {
	numbers := []float64{math.NaN(), math.Inf(1), math.Inf(-1), 0, 1, -1, 100, 1e308, -1e308, 1e-300, rnd.Float64(), rnd.NormFloat64() * 100}
	return numbers[rnd.IntN(len(numbers))]
}

func sane(t *testing.T, sp *setpoint.Setpoint, now time.Time) {
	t.Helper()
	for name, v := range map[string]float64{
		"bucket capacity": sp.BucketCapacity, "fill amount": sp.FillAmount, "max concurrency": sp.MaxConcurrency,
		"load multiplier": sp.LoadMultiplier,
	} {
		if !(v >= 0 && v <= mostTokens) {
			t.Errorf("%s: %s is %v", sp.Component, name, v)
		}
	}
	if !(sp.AcceptPercentage >= 0 && sp.AcceptPercentage <= 100) {
		t.Errorf("%s: accept percentage is %v", sp.Component, sp.AcceptPercentage)
	}
	if sp.Version == 0 || sp.Hash == "" || sp.Policy == "" || !sp.Expires.IsZero() && sp.Expires.Before(now) {
		t.Errorf("%s: got %+v", sp.Component, sp)
	}
}

// TestRandomForcing: any signal of any program can be anything.
func TestRandomForcing(t *testing.T) {
	text, err := os.ReadFile("../policy/testdata/every-component.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p := compile(t, "every-component", string(text))
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		r := NewRunner(p)
		now := t0
		for range 20 {
			s := p.Signals()[rnd.IntN(len(p.Signals()))]
			v := weird(rnd)
			r.Force(s, v)
			r.Tick(now)
			now = now.Add(p.Interval)
			if got, _ := r.Value(SignalName(s)); got != v && !(math.IsNaN(got) && math.IsNaN(v)) {
				t.Fatalf("%s: got %v, forced %v", s, got, v)
			}
			for _, sp := range r.Setpoints() {
				sane(t, &sp, now)
			}
		}
	}
}

// TestRunnerNames: signals are found by the names that people write, and misspelt ones get a hint.
func TestRunnerNames(t *testing.T) {
	s := fromFile(t, "aimd-load-scheduler")
	err := s.Set("LATENZY", 1)
	if err == nil || err.Error() != `LATENZY: policy "aimd-load-scheduler" has no signal of this name; did you mean "LATENCY"?` {
		t.Errorf("got %v", err)
	}
	if err := s.Unset("root.2/DRY"); err == nil {
		t.Error("a signal that is not there was unset")
	}
	if _, ok := s.Value("root.2/DRY_RUN"); !ok {
		t.Error("a private signal was not found")
	}
	if _, ok := s.Value("nothing"); ok {
		t.Error("nothing was found")
	}
	if got := SignalName(circuit.Signal{Circuit: "root.2", Name: "DRY_RUN"}); got != "root.2/DRY_RUN" {
		t.Errorf("got %s", got)
	}
	if err := s.Configure(map[string]any{"x": 1.0}); err == nil {
		t.Error("a key that nothing reads was accepted")
	}
	if _, ok := s.Setpoint("root.9"); ok {
		t.Error("a component that is not there has a setpoint")
	}
	kinds := map[string]bool{}
	for _, in := range s.Program().Inputs() {
		kinds[in.Kind+" "+in.Component+" "+SignalName(in.Signal)] = true
	}
	if len(kinds) != 3 || !kinds["promql root.0 LATENCY"] || !kinds["observed_load_multiplier root.2 OBSERVED"] {
		t.Errorf("got inputs %v", kinds)
	}
}
