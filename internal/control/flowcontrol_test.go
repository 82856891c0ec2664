// SPDX-License-Identifier: Apache-2.0

package control

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/setpoint"
)

func TestLoadRamp(t *testing.T) {
	s := fromFile(t, "load-ramp")
	if err := s.Configure(map[string]any{"start": false}); err != nil {
		t.Fatal(err)
	}
	s.ticks(3, nil)
	s.want(map[string]float64{"PERCENTAGE": 1, "DONE": 0})
	if sp := s.setpoint("root.1"); sp.AcceptPercentage != 1 || !slices.Equal(sp.PassThroughValues, []string{"alice"}) || !sp.Expires.IsZero() {
		t.Errorf("got %+v, want 1 %%, alice and no expiry", sp)
	}
	if err := s.Configure(nil); err != nil {
		t.Fatal(err)
	}
	s.ticks(1, nil) // the first step takes one tick
	s.want(map[string]float64{"PERCENTAGE": 1})
	s.ticks(150, nil)
	s.want(map[string]float64{"PERCENTAGE": 50.5, "DONE": 0})
	s.ticks(150, nil)
	s.want(map[string]float64{"PERCENTAGE": 100, "DONE": 1})
	if got := s.setpoint("root.1").AcceptPercentage; got != 100 {
		t.Errorf("got %v %%, want exactly 100", got)
	}
}

func TestRateLimiterSetpoints(t *testing.T) {
	s := fromFile(t, "rate-limiter")
	s.ticks(1, nil)
	if all := s.Setpoints(); len(all) != 1 || all[0].Component != "root.1" || all[0].Hash != s.Program().Hash || all[0].Policy != "rate-limiter" {
		t.Fatalf("got %+v, want one of root.1: the other one has constants", all)
	}
	step := func(fill float64) []setpoint.Setpoint {
		s.ticks(1, map[string]float64{"FILL": fill})
		return s.Changed()
	}
	if got := step(40); len(got) != 0 {
		t.Errorf("the same setpoint was sent again: %+v", got)
	}
	for _, c := range []struct {
		in, fill float64
		pass     bool
	}{
		{41, 41, false}, {0, 0, false}, {-1, 0, false}, {nan, 0, true}, {math.Inf(1), mostTokens, false}, {7, 7, false},
	} {
		got := step(c.in)
		if c.in == -1 {
			if len(got) != 0 {
				t.Errorf("-1 is 0, which is in force, but was sent: %+v", got)
			}
			continue
		}
		if len(got) != 1 || got[0].FillAmount != c.fill || got[0].PassThrough != c.pass || !got[0].Expires.IsZero() {
			t.Errorf("fill %v: got %+v", c.in, got)
		}
		if want := 100.0; !c.pass && len(got) == 1 && got[0].BucketCapacity != want {
			t.Errorf("got capacity %v, want %v", got[0].BucketCapacity, want)
		}
	}
	sent := 0
	for range 20 {
		sent += len(step(7))
	}
	if sent != 4 {
		t.Errorf("an unchanged setpoint was sent %d times in 20 s, want every 5 s", sent)
	}
}

// TestFirstSetpoint: also one of zeros is sent.
func TestFirstSetpoint(t *testing.T) {
	s := on(t, compile(t, "p", circuitOf("1s", `    - variable: {constant_output: {value: 0}, out_ports: {output: {signal_name: ZERO}}}
    - flow_control:
        rate_limiter:
          in_ports: {bucket_capacity: {signal_name: ZERO}, fill_amount: {signal_name: ZERO}}
          parameters: {interval: 1s}
          selectors: [{control_point: ingress}]
`)))
	s.ticks(1, nil)
	if got := s.Changed(); len(got) != 1 || got[0].PassThrough || got[0].Version == 0 {
		t.Errorf("got %+v, want one setpoint that admits nothing", got)
	}
}

func TestPassThroughPort(t *testing.T) {
	s := fromFile(t, "quota-scheduler")
	for _, c := range []struct {
		open float64
		pass bool
	}{{0, false}, {1, true}, {nan, false}, {-1, true}} {
		s.ticks(1, map[string]float64{"OPEN": c.open})
		if sp := s.setpoint("root.1"); sp.PassThrough != c.pass || !c.pass && (sp.BucketCapacity != 100 || sp.FillAmount != 10) {
			t.Errorf("pass_through %v: got %+v", c.open, sp)
		}
	}
}

func TestConcurrencySetpoints(t *testing.T) {
	s := fromFile(t, "concurrency")
	for _, c := range []struct {
		slots, want float64
		pass        bool
	}{{5, 5, false}, {2.5, 2.5, false}, {nan, 0, true}, {-1, 0, false}} {
		s.ticks(1, map[string]float64{"SLOTS": c.slots})
		for _, id := range []string{"root.1", "root.2"} {
			if sp := s.setpoint(id); sp.MaxConcurrency != c.want || sp.PassThrough != c.pass || !sp.Expires.IsZero() {
				t.Errorf("%s: slots %v: got %+v", id, c.slots, sp)
			}
		}
	}
}

func TestSamplerSetpoints(t *testing.T) {
	s := fromFile(t, "sampler")
	for _, c := range []struct {
		in, want float64
		pass     bool
	}{{5, 5, false}, {101, 100, false}, {-1, 0, false}, {nan, 100, true}} {
		s.ticks(1, map[string]float64{"PERCENTAGE": c.in})
		if sp := s.setpoint("root.1"); sp.AcceptPercentage != c.want || sp.PassThrough != c.pass {
			t.Errorf("%v %%: got %+v", c.in, sp)
		}
	}
	values := func(config map[string]any, want ...string) {
		t.Helper()
		if err := s.Configure(config); err != nil {
			t.Fatal(err)
		}
		s.ticks(1, nil)
		if got := s.Changed(); len(got) != 1 || !slices.Equal(got[0].PassThroughValues, want) {
			t.Errorf("got %+v, want one setpoint with %q", got, want)
		}
	}
	values(map[string]any{"pass": []any{"bob", "carol"}}, "bob", "carol")
	values(map[string]any{"pass": []any{}})
	values(nil, "alice")
	for _, bad := range []any{"bob", []any{"bob", 1.0}, nil, map[string]any{}} {
		if err := s.Configure(map[string]any{"pass": bad, "percentage": 9.0}); err == nil {
			t.Errorf("%v was accepted as a list", bad)
		}
	}
	s.Unset("PERCENTAGE")
	s.ticks(1, nil)
	s.want(map[string]float64{"PERCENTAGE": 5}) // all or nothing: 9 was refused along
}

// TestRampModeWithoutPercentage denies.
func TestRampModeWithoutPercentage(t *testing.T) {
	s := on(t, compile(t, "p", circuitOf("1s", `    - query: {promql: {query_string: up, out_ports: {output: {signal_name: PERCENTAGE}}}}
    - flow_control:
        sampler:
          in_ports: {accept_percentage: {signal_name: PERCENTAGE}}
          parameters: {ramp_mode: true, selectors: [{control_point: ingress}]}
`)))
	s.ticks(1, nil)
	if sp := s.setpoint("root.1"); sp.PassThrough || sp.AcceptPercentage != 0 {
		t.Errorf("got %+v, want 0 %%", sp)
	}
}

func TestAcceptPercentage(t *testing.T) {
	s := fromFile(t, "rate-limiter")
	var seen setpoint.Observation
	second := func(accepted, rejected uint64) {
		seen.Accepted += accepted
		seen.Rejected += rejected
		s.Observe("root.1", &seen)
		s.ticks(1, nil)
	}
	second(7, 7)
	s.want(map[string]float64{"ACCEPT": nan})
	second(9, 1)
	s.want(map[string]float64{"ACCEPT": 90})
	for range 30 {
		second(0, 0)
	}
	s.want(map[string]float64{"ACCEPT": nan})
	second(0, 10)
	s.want(map[string]float64{"ACCEPT": 0})
}

func TestAdaptiveConcurrency(t *testing.T) {
	s := fromFile(t, "adaptive-concurrency")
	s.ticks(1, nil)
	s.want(map[string]float64{"LIMIT": 20, "OVERLOAD": 0})
	sp := s.setpoint("root.0")
	if sp.MaxConcurrency != 20 || sp.PassThrough || !sp.Expires.Equal(t0.Add(10*time.Second)) {
		t.Errorf("got %+v, want 20 slots for 10 s", sp)
	}
	s.ticks(1, map[string]float64{"OVERLOAD": 1})
	s.wantAlerts("Overload")
	if err := s.Configure(map[string]any{"dry": true}); err != nil {
		t.Fatal(err)
	}
	s.ticks(1, nil)
	if sp := s.setpoint("root.0"); !sp.PassThrough {
		t.Errorf("got %+v in a dry run", sp)
	}
}

func TestAutoScaler(t *testing.T) {
	s := without(t, "auto-scaler", "eriodic")
	s.ticks(1, map[string]float64{"CPU": 100})
	s.want(map[string]float64{"DESIRED": nan, "ACTUAL": nan}) // no Kubernetes
	s.wantAlerts()
	if len(s.Program().Waiting) != 2 {
		t.Errorf("got notices %+v, want two", s.Program().Waiting)
	}

	// Twice the setpoint asks for twice the replicas; a step is 10 %, at least one.
	s.ticks(1, map[string]float64{"ACTUAL": 5, "CONFIGURED": 5})
	s.want(map[string]float64{"root.1/SCALE_OUT_INTENT_HOLD": 10, "DESIRED": 6})
	s.wantAlerts("Busy", "Scaled out")
	// The proposal is held for 30 s, also when it is gone; scaling in has to wait.
	s.ticks(29, map[string]float64{"CPU": 5, "ACTUAL": 6, "CONFIGURED": 6})
	s.want(map[string]float64{"root.1/SCALE_OUT_INTENT_HOLD": 10, "DESIRED": 7, "root.1/SCALE_IN_ONLY_INTENT": nan})
	s.wantAlerts("Idle", "Scaled out")
	s.ticks(1, nil)
	s.want(map[string]float64{"root.1/SCALE_OUT_INTENT_HOLD": nan, "root.1/SCALE_IN_ONLY_INTENT": 1, "DESIRED": 5})
	s.wantAlerts("Idle", "Scaled in")
	// A proposal that exceeds the one held by more than half ends the cooldown.
	s.ticks(1, map[string]float64{"CPU": 60, "ACTUAL": 10, "CONFIGURED": 10})
	s.want(map[string]float64{"root.1/SCALE_OUT_INTENT_HOLD": 12})
	s.ticks(1, map[string]float64{"CPU": 90})
	s.want(map[string]float64{"root.1/SCALE_OUT_INTENT_HOLD": 12})
	s.ticks(1, map[string]float64{"CPU": 91})
	s.want(map[string]float64{"root.1/SCALE_OUT_INTENT_HOLD": 19, "DESIRED": 11})
	// Nothing goes beyond the bounds of the document.
	s.ticks(1, map[string]float64{"ACTUAL": 20, "CONFIGURED": 20, "CPU": 200})
	s.want(map[string]float64{"DESIRED": 20})
	s.wantAlerts("Busy")
}

// TestPeriodicScaleIn proposes on one tick of each period.
func TestPeriodicScaleIn(t *testing.T) {
	s := without(t, "auto-scaler", "value: 30")
	pulses := 0
	for range 180 {
		s.ticks(1, map[string]float64{"ACTUAL": 15, "CONFIGURED": 15, "CPU": 50})
		switch v, _ := s.Value("root.1/SCALE_IN_PERIODIC_0"); {
		case v == 13: // 10 % rounded up
			pulses++
			s.want(map[string]float64{"DESIRED": 14})
		case !math.IsNaN(v):
			t.Errorf("got %v, want 13 or nothing", v)
		}
	}
	if pulses != 3 {
		t.Errorf("got %d proposals in 180 s, want 3", pulses)
	}
}

func TestNestedLoop(t *testing.T) {
	s := fromFile(t, "nested")
	for n := range 5 {
		s.ticks(1, nil)
		want := float64(n)
		s.want(map[string]float64{"A": want, "B": want, "root.1.1/IN": want, "root.0/NO": nan})
	}
}
