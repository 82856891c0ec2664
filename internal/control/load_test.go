// SPDX-License-Identifier: Apache-2.0

package control

import (
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/setpoint"
)

// stage is a Runner with what tests of one circuit say often.
type stage struct {
	t testing.TB
	*Runner
	now time.Time
}

func on(t testing.TB, p *Program) *stage {
	t.Helper()
	return &stage{t: t, Runner: NewRunner(p), now: t0}
}

func fromFile(t testing.TB, name string) *stage {
	t.Helper()
	text, err := os.ReadFile("testdata/compile/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	return on(t, compile(t, name, string(text)))
}

// without is fromFile of a document in which the lines with a text are missing.
func without(t testing.TB, name, text string) *stage {
	t.Helper()
	doc, err := os.ReadFile("testdata/compile/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.DeleteFunc(strings.SplitAfter(string(doc), "\n"), func(line string) bool { return strings.Contains(line, text) })
	return on(t, compile(t, name, strings.Join(lines, "")))
}

// ticks ticks n times after setting signals.
func (s *stage) ticks(n int, set map[string]float64) {
	s.t.Helper()
	for name, v := range set {
		if err := s.Set(name, v); err != nil {
			s.t.Fatal(err)
		}
	}
	for range n {
		s.Tick(s.now)
		s.now = s.now.Add(s.Program().Interval)
	}
}

// want compares signals of the last tick.
func (s *stage) want(want map[string]float64) {
	s.t.Helper()
	for name, v := range want {
		if got, ok := s.Value(name); !ok || !near(got, v) {
			s.t.Errorf("tick %d: %s: got %v, want %v", s.Ticks(), name, got, v)
		}
	}
}

// setpoint is what a component was asked for.
func (s *stage) setpoint(component string) setpoint.Setpoint {
	s.t.Helper()
	sp, ok := s.Setpoint(component)
	if !ok {
		s.t.Fatalf("%s has no setpoint", component)
	}
	return sp
}

func (s *stage) wantLoad(component string, multiplier float64) {
	s.t.Helper()
	sp := s.setpoint(component)
	if pass := math.IsNaN(multiplier); sp.PassThrough != pass || !pass && !near(sp.LoadMultiplier, multiplier) {
		s.t.Errorf("tick %d: %s: got load multiplier %v, pass through %v; want %v", s.Ticks(), component, sp.LoadMultiplier, sp.PassThrough, multiplier)
	}
}

func (s *stage) wantAlerts(names ...string) {
	s.t.Helper()
	var got []string
	for _, ev := range s.Alerts() {
		got = append(got, ev.Name)
	}
	if len(got) != len(names) {
		s.t.Errorf("tick %d: got alerts %q, want %q", s.Ticks(), got, names)
		return
	}
	for i := range names {
		if got[i] != names[i] {
			s.t.Errorf("tick %d: got alerts %q, want %q", s.Ticks(), got, names)
		}
	}
}

var nan = math.NaN()

func TestAIMD(t *testing.T) {
	s := fromFile(t, "aimd-load-scheduler")
	s.ticks(1, nil) // nothing is known
	s.want(map[string]float64{"OVERLOAD": 0, "DESIRED": nan, "OBSERVED": nan})
	s.wantLoad("root.2", nan)

	s.ticks(1, map[string]float64{"LATENCY": 100, "OBSERVED": 1}) // at the setpoint is no overload
	s.want(map[string]float64{"OVERLOAD": 0, "DESIRED": nan})
	s.wantAlerts()

	s.ticks(1, map[string]float64{"LATENCY": 200}) // OBSERVED · setpoint/signal
	s.want(map[string]float64{"OVERLOAD": 1, "DESIRED": 0.5})
	s.wantLoad("root.2", 0.5)
	s.wantAlerts("Throttled")
	if ev := s.Alerts()[0]; ev.Component != "root.2" || ev.Severity != "warn" || ev.Labels["type"] != "aimd_load_scheduler" ||
		ev.Policy != "aimd-load-scheduler" || ev.ResolveTimeout != 5*time.Second || !ev.At.Equal(s.now.Add(-time.Second)) {
		t.Errorf("got alert %+v", ev)
	}

	s.ticks(1, map[string]float64{"OBSERVED": 0.6, "LATENCY": 120})
	s.wantLoad("root.2", 0.5)
	s.ticks(1, map[string]float64{"LATENCY": 1e6}) // min_gradient
	s.wantLoad("root.2", 0.06)
	s.ticks(1, map[string]float64{"CPU": 0}) // not confirmed: growth starts at 0.025/10 per tick
	s.want(map[string]float64{"OVERLOAD": 0, "DESIRED": 0.6025})
	s.ticks(1, map[string]float64{"CPU": nan})
	s.want(map[string]float64{"OVERLOAD": 1, "DESIRED": 0.06})

	s.ticks(10, map[string]float64{"LATENCY": 50, "OBSERVED": 0.6}) // 0.025 in 10 seconds
	s.want(map[string]float64{"DESIRED": 0.625})
	s.ticks(1, map[string]float64{"LATENCY": 150})
	s.ticks(399, map[string]float64{"LATENCY": 50, "OBSERVED": 1}) // 40 periods of 10 seconds from 1 to 2
	s.want(map[string]float64{"DESIRED": 1 + 399*0.0025})
	s.wantAlerts()
	s.ticks(2, nil) // one more than 400: 0.0025 is no binary fraction
	s.want(map[string]float64{"DESIRED": nan})
	s.wantLoad("root.2", nan)
}

// TestAIMDPositiveSlope is for signals that fall in an overload.
func TestAIMDPositiveSlope(t *testing.T) {
	s := on(t, compile(t, "p", circuitOf("1s", `    - query: {promql: {query_string: up, out_ports: {output: {signal_name: HEALTH}}}}
    - flow_control:
        aimd_load_scheduler:
          in_ports: {signal: {signal_name: HEALTH}, setpoint: {constant_signal: {value: 100}}}
          parameters:
            gradient: {slope: 1, max_gradient: 1}
            alerter: {alert_name: Throttled, labels: {type: mine}}
            load_scheduler: {selectors: [{control_point: ingress}]}
`)))
	s.ticks(1, map[string]float64{"HEALTH": 25, "root.1/OBSERVED_LOAD_MULTIPLIER": 0.8})
	s.wantLoad("root.1", 0.2)
	if got := s.Alerts()[0].Labels["type"]; got != "mine" {
		t.Errorf("got type %q, want that of the document", got)
	}
	s.ticks(1, map[string]float64{"HEALTH": 101})
	s.wantLoad("root.1", 0.8025)
}

func TestAdaptiveLoadScheduler(t *testing.T) {
	s := on(t, compile(t, "p", circuitOf("1s", `    - query: {promql: {query_string: up, out_ports: {output: {signal_name: LATENCY}}}}
    - flow_control:
        adaptive_load_scheduler:
          in_ports: {signal: {signal_name: LATENCY}, setpoint: {constant_signal: {value: 100}}}
          parameters:
            gradient: {slope: -1}
            alerter: {alert_name: Throttled}
            load_scheduler: {selectors: [{control_point: ingress}]}
`)))
	s.ticks(1, map[string]float64{"LATENCY": 400, "root.1/OBSERVED_LOAD_MULTIPLIER": 1})
	s.wantLoad("root.1", 0.25)
	s.ticks(10, map[string]float64{"LATENCY": 90})
	s.wantLoad("root.1", 1.0025) // 0.0025 in 10 seconds
}

func TestAIAD(t *testing.T) {
	s := fromFile(t, "aiad-load-scheduler") // ticks every 500 ms: steps are a twentieth
	const desired = "root.1/DESIRED_LOAD_MULTIPLIER"
	s.ticks(1, map[string]float64{"LATENCY": 99})
	s.want(map[string]float64{desired: nan})
	s.ticks(1, map[string]float64{"LATENCY": 100}) // gte; the first tick of an overload goes to 1 − 0.05
	s.want(map[string]float64{desired: 0.95, "root.1/IS_OVERLOAD": 1})
	s.wantAlerts("Throttled")
	s.wantLoad("root.1", nan) // it is a dry run
	s.ticks(20, nil)          // 10 seconds
	s.want(map[string]float64{desired: 0.9})
	s.ticks(1000, nil)
	s.want(map[string]float64{desired: 0.1}) // its minimum
	s.ticks(20, map[string]float64{"LATENCY": 10})
	s.want(map[string]float64{desired: 0.125})
	s.ticks(1499, nil)
	s.want(map[string]float64{desired: 0.125 + 1499*0.00125})
	s.ticks(2, nil)
	s.want(map[string]float64{desired: nan})
}

func TestRangeDriven(t *testing.T) {
	s := fromFile(t, "range-driven-load-scheduler")
	for _, c := range []struct{ memory, load, overload float64 }{
		{0, nan, 0},
		{60, nan, 0},
		{75, 1 - 0.25*0.9, 1}, // half way, squared
		{90, 0.1, 1},
		{1000, 0.1, 1},
		{nan, nan, 0},
		{87, 1 - 0.81*0.9, 1},
	} {
		s.ticks(1, map[string]float64{"MEMORY": c.memory})
		s.wantLoad("root.1", c.load)
		s.want(map[string]float64{"root.1/IS_OVERLOAD": c.overload})
	}
}

// TestRangeDrivenRising is for a multiplier that rises with the signal.
func TestRangeDrivenRising(t *testing.T) {
	s := on(t, compile(t, "p", circuitOf("1s", `    - query: {promql: {query_string: up, out_ports: {output: {signal_name: FREE}}}}
    - query: {promql: {query_string: up, out_ports: {output: {signal_name: SURE}}}}
    - flow_control:
        range_driven_load_scheduler:
          in_ports: {signal: {signal_name: FREE}, overload_confirmation: {signal_name: SURE}}
          parameters:
            low_throttle_threshold: {signal_value: 10, load_multiplier: 0.2}
            high_throttle_threshold: {signal_value: 30, load_multiplier: 0.8}
            degree: 1
            alerter: {alert_name: Throttled}
            load_scheduler: {selectors: [{control_point: ingress}]}
`)))
	for _, c := range []struct{ free, sure, load float64 }{
		{5, nan, 0.2}, {10, 1, 0.2}, {20, 1, 0.5}, {30, 1, 0.8}, {31, 1, nan}, {20, 0, nan}, {20, 2, 0.5},
	} {
		s.ticks(1, map[string]float64{"FREE": c.free, "SURE": c.sure})
		s.wantLoad("root.2", c.load)
	}
}

func TestLoadScheduler(t *testing.T) {
	s := fromFile(t, "load-scheduler")
	s.ticks(1, nil)
	s.wantLoad("root.1", 0.8)
	s.wantLoad("root.2", 0.5)
	for _, c := range []struct{ in, want float64 }{{0, 0}, {-3, 0}, {nan, nan}, {math.Inf(1), mostTokens}} {
		s.ticks(1, map[string]float64{"MULTIPLIER": c.in})
		s.wantLoad("root.1", c.want)
	}
	if err := s.Configure(map[string]any{"dry": true}); err != nil {
		t.Fatal(err)
	}
	s.ticks(1, map[string]float64{"MULTIPLIER": 0.3})
	s.wantLoad("root.1", nan)
	s.wantLoad("root.2", 0.5)
}

// TestThrottlingIsAlwaysSent: what a multiplier is relative to moves, so it is sent on every tick, and with
// it the time after which it counts no more.
func TestThrottlingIsAlwaysSent(t *testing.T) {
	s := fromFile(t, "load-scheduler")
	version := uint64(0)
	for range 20 {
		s.ticks(1, nil)
		sent := s.Changed()
		if len(sent) != 2 {
			t.Fatalf("tick %d: got %d setpoints, want 2", s.Ticks(), len(sent))
		}
		at := s.now.Add(-time.Second)
		if want := at.Add(10 * time.Second); !sent[0].Expires.Equal(want) || sent[0].Version <= version {
			t.Errorf("got expiry %v and version %d, want %v and more than %d", sent[0].Expires, sent[0].Version, want, version)
		}
		version = sent[0].Version
	}
	s.ticks(1, map[string]float64{"MULTIPLIER": nan})
	s.ticks(1, nil)
	if sent := s.Changed(); len(sent) != 1 || sent[0].Component != "root.2" {
		t.Errorf("letting everything pass was sent twice: %+v", sent)
	}
}

// TestObservedLoad: the share of the tokens that was admitted in 30 seconds.
func TestObservedLoad(t *testing.T) {
	s := fromFile(t, "load-scheduler")
	var seen setpoint.Observation
	second := func(incoming, accepted float64) {
		seen.BaseTokens += incoming
		seen.AcceptedTokens += accepted
		seen.RejectedTokens += max(0, incoming-accepted)
		if !s.Observe("root.1", &seen) {
			t.Fatal("root.1 is not listened to")
		}
		s.ticks(1, nil)
	}
	second(5000, 5000) // where counting starts
	s.want(map[string]float64{"OBSERVED": nan})
	second(100, 100)
	s.want(map[string]float64{"OBSERVED": 1})
	second(300, 100)
	s.want(map[string]float64{"OBSERVED": 0.5})
	for range 29 {
		second(100, 50)
	}
	s.want(map[string]float64{"OBSERVED": 1550.0 / 3200})
	second(0, 0)
	s.want(map[string]float64{"OBSERVED": 0.5})
	second(0, 20) // what waited is admitted
	for range 28 {
		second(0, 0)
	}
	s.want(map[string]float64{"OBSERVED": 1})
	for range 3 {
		second(0, 0)
	}
	s.want(map[string]float64{"OBSERVED": nan})
	second(10, 20)
	s.want(map[string]float64{"OBSERVED": 1})
	seen = setpoint.Observation{BaseTokens: 10, AcceptedTokens: 10}
	second(0, 0) // counters that fell count from there
	s.want(map[string]float64{"OBSERVED": nan})
	second(10, 5)
	s.want(map[string]float64{"OBSERVED": 0.5})
	if s.Observe("root.9", &seen) {
		t.Error("a component that is not there was observed")
	}
}

// TestObservedLoadAfterASurge: when nobody is turned away any more, all that came was admitted, however much
// less than the base that is.
func TestObservedLoadAfterASurge(t *testing.T) {
	s := fromFile(t, "load-scheduler")
	var seen setpoint.Observation
	second := func(base, accepted, rejected float64) float64 {
		seen.BaseTokens += base
		seen.AcceptedTokens += accepted
		seen.RejectedTokens += rejected
		s.Observe("root.1", &seen)
		s.ticks(1, nil)
		now, _ := s.Value("OBSERVED")
		return now
	}
	second(0, 0, 0)
	last := 0.0
	for range 40 {
		last = second(300, 180, 820) // retries come, too
	}
	if math.Abs(last-0.6) > 1e-9 {
		t.Errorf("observed %v during the surge, want 180 of 300", last)
	}
	for range 31 {
		now := second(280, 100, 0)
		if now < last {
			t.Fatalf("observed %v after %v: a surge that ends cuts load", now, last)
		}
		last = now
	}
	if last != 1 {
		t.Errorf("observed %v half a minute after the surge, want 1", last)
	}
}
