// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/control"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/blueprint"
	"github.com/sluice-project/sluice/internal/signal"
)

// hand runs the policy of a values file by hand, one tick a second.
type hand struct {
	*control.Runner
	t   *testing.T
	now time.Time
}

func byHand(t *testing.T, values string) *hand {
	t.Helper()
	d, err := blueprint.Parse(policy.Source{Text: []byte(values), CheckQuery: signal.CheckQuery})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range d.Warnings {
		if strings.Contains(w.Path, "query") {
			t.Errorf("a query is not PromQL: %v", w)
		}
	}
	p, err := control.Compile(d)
	if err != nil {
		t.Fatal(err)
	}
	return &hand{Runner: control.NewRunner(p), t: t, now: time.Unix(1_800_000_000, 0)}
}

func exampleByHand(t *testing.T, name string) *hand {
	t.Helper()
	b, ok := blueprint.Find(name)
	if !ok {
		t.Fatalf("no blueprint %s", name)
	}
	return byHand(t, b.Example)
}

func (h *hand) tick(n int) {
	for range n {
		h.Tick(h.now)
		h.now = h.now.Add(time.Second)
	}
}

func (h *hand) set(name string, value float64) {
	h.t.Helper()
	if err := h.Set(name, value); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hand) configure(config map[string]any) {
	h.t.Helper()
	if err := h.Configure(config); err != nil {
		h.t.Fatal(err)
	}
}

// want compares a signal; NaN is an invalid one.
func (h *hand) want(when, name string, want float64) {
	h.t.Helper()
	got, ok := h.Value(name)
	if !ok || math.Abs(got-want) > 1e-9 || math.IsNaN(got) != math.IsNaN(want) {
		h.t.Errorf("%s: %s is %g, want %g", when, name, got, want)
	}
}

// TestBlueprintsCompile compiles every blueprint and the values files that people have from elsewhere. What
// this release cannot do is said, and refuses nothing.
func TestBlueprintsCompile(t *testing.T) {
	waiting := map[string][]string{
		"auto-scaling/pod-auto-scaler":                {"infra meters", "Kubernetes"},
		"load-scheduling/cpu-overload-protection-k8s": {"infra meters"},
		"load-scheduling/elasticsearch":               {"infra meters"},
		"load-scheduling/java-gc-generic":             {"infra meters"},
		"load-scheduling/java-gc-k8s":                 {"infra meters"},
		"load-scheduling/postgresql":                  {"infra meters"},
		"hasura-auto-scale.values.yaml":               {"Kubernetes"},
		"postgresql-protection.values.yaml":           {"infra meters"},
	}
	texts := map[string]string{}
	for _, b := range blueprint.All() {
		texts[b.Name] = b.Example
	}
	scenarios, err := filepath.Glob("../policy/blueprint/testdata/scenarios/*")
	if err != nil || len(scenarios) != 2 {
		t.Fatalf("found %v: %v", scenarios, err)
	}
	for _, file := range scenarios {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(file)] = string(text)
	}
	for name, text := range texts {
		h := byHand(t, text)
		var got []string
		for _, n := range h.Program().Waiting {
			what, _, _ := strings.Cut(strings.TrimPrefix(n.Text, "waiting for "), ":")
			got = append(got, what)
		}
		if !slices.Equal(got, waiting[name]) {
			t.Errorf("%s waits for %q, want %q", name, got, waiting[name])
		}
		h.tick(100)
	}
}

// TestLimiterAlert: one denied flow, which makes the accept percentage 0 for as long as it is seen, is no
// reason for an alert; denying most flows for longer is.
func TestLimiterAlert(t *testing.T) {
	h := exampleByHand(t, "rate-limiting/base")
	h.tick(5)
	h.set("ACCEPT_PERCENTAGE", 0)
	for range 31 {
		if h.tick(1); len(h.Alerts()) > 0 {
			t.Fatal("an alert after one denied flow")
		}
	}
	h.set("ACCEPT_PERCENTAGE", math.NaN())
	if h.tick(60); len(h.Alerts()) > 0 {
		t.Error("an alert while nothing happens")
	}
	h.set("ACCEPT_PERCENTAGE", 10)
	if h.tick(40); len(h.Alerts()) != 1 {
		t.Error("no alert while 90% are denied")
	}
	h.set("ACCEPT_PERCENTAGE", 10.1)
	if h.tick(1); len(h.Alerts()) > 0 {
		t.Error("the alert does not end")
	}
}

// TestUsualLatency: the usual latency is not what it is during an overload.
func TestUsualLatency(t *testing.T) {
	h := exampleByHand(t, "load-scheduling/average-latency") // tolerance 1.1
	h.tick(1)
	h.want("at first", "SETPOINT", math.NaN())
	h.want("at first", "DESIRED_LOAD_MULTIPLIER", math.NaN())
	h.set("SIGNAL", 50)
	h.set("SIGNAL_LONG_TERM", 50)
	h.set("OBSERVED_LOAD_MULTIPLIER", 1)
	h.tick(2)
	h.want("all is well", "SETPOINT", 55)
	h.want("all is well", "DESIRED_LOAD_MULTIPLIER", math.NaN())
	h.set("SIGNAL", 100)
	h.tick(1)
	h.want("overload", "IS_OVERLOAD", 1)
	h.want("overload", "DESIRED_LOAD_MULTIPLIER", 0.55)
	h.set("OBSERVED_LOAD_MULTIPLIER", 0.55)
	h.set("SIGNAL_LONG_TERM", 80)
	h.tick(1000)
	h.want("long overload", "SETPOINT", 55)
	h.tick(1000)
	h.want("slower for good", "SETPOINT", 88)
	h.set("SIGNAL", 60)
	h.set("OBSERVED_LOAD_MULTIPLIER", 1)
	h.tick(1000)
	h.want("over", "DESIRED_LOAD_MULTIPLIER", math.NaN())
	h.want("over", "SETPOINT", 88)
}

// TestConfirmations: an overload counts when all confirm it, and dry run changes nothing.
func TestConfirmations(t *testing.T) {
	h := exampleByHand(t, "load-scheduling/promql")
	passing := func(when string, want bool) {
		t.Helper()
		if s, ok := h.Setpoint("root.0"); !ok || s.PassThrough != want {
			t.Errorf("%s: got setpoint %+v, want everything to pass: %t", when, s, want)
		}
	}
	h.set("SIGNAL", 2000)
	h.tick(3)
	passing("confirmation unknown", true)
	h.set("PROMQL_0", 0.8)
	h.tick(1)
	passing("confirmed", false)
	h.want("confirmed", "DESIRED_LOAD_MULTIPLIER", 0.8)
	h.configure(map[string]any{"dry_run": true})
	h.tick(1)
	passing("dry run", true)
	h.want("dry run", "IS_OVERLOAD", 1)
	h.configure(nil)
	h.tick(1)
	passing("no dry run", false)
	h.set("SIGNAL", math.NaN())
	h.tick(1000)
	passing("signal lost", true)
}

// TestRamp drives the ramp of the example: started by hand, forward below 75 ms, back to the start above.
func TestRamp(t *testing.T) {
	h := exampleByHand(t, "load-ramping/base")
	setpoint := func(when string, percentage float64, pass ...string) {
		t.Helper()
		s, ok := h.Setpoint("root.0")
		if !ok || math.Abs(s.AcceptPercentage-percentage) > 0.5 || !slices.Equal(s.PassThroughValues, pass) {
			t.Errorf("%s: got %g%% and %v, want %g%% and %v", when, s.AcceptPercentage, s.PassThroughValues, percentage, pass)
		}
	}
	h.set("AVERAGE_LATENCY_0", 50)
	h.tick(100)
	setpoint("not started", 1, "tester-1", "tester-2")
	h.configure(map[string]any{"start": true, "pass_through_label_values": []any{"me"}})
	h.tick(101)
	setpoint("a third", 34, "me")
	h.set("AVERAGE_LATENCY_0", math.NaN())
	h.tick(50)
	setpoint("no flows", 34, "me")
	h.set("AVERAGE_LATENCY_0", 76)
	h.tick(1)
	setpoint("too slow", 1, "me")
	h.set("AVERAGE_LATENCY_0", 50)
	h.tick(310)
	setpoint("at the top", 100, "me")
	h.want("at the top", "AT_END", 1)
	h.configure(map[string]any{"start": true, "reset": true})
	h.tick(1)
	setpoint("reset by hand", 1, "tester-1", "tester-2")
}
