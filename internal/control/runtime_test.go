// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-project/sluice/internal/alert"
	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/setpoint"
	"github.com/sluice-project/sluice/internal/signal"
)

// world is everything that a Runtime is connected with. Its fields are guarded by mu.
type world struct {
	mu        sync.Mutex
	setpoints []setpoint.Setpoint // with At in Expires' place where needed
	sentAt    []time.Time
	events    []alert.Event
	seen      map[setpoint.Ref]setpoint.Observation
	observe   func(ref setpoint.Ref) // before each observation

	collected []time.Time
	stepped   []time.Time
	open      map[*subscription]bool
	values    map[string]float64 // readings, by expression
	tables    map[string]map[string]float64
	collect   time.Duration // how long it takes
	query     time.Duration

	configs map[string]map[string]any
	broken  error // of the store
}

func newWorld() *world {
	return &world{
		seen: map[setpoint.Ref]setpoint.Observation{}, open: map[*subscription]bool{}, values: map[string]float64{},
		tables: map[string]map[string]float64{}, configs: map[string]map[string]any{},
	}
}

func (w *world) Steer(setpoints []setpoint.Setpoint) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.setpoints = append(w.setpoints, setpoints...)
	for range setpoints {
		w.sentAt = append(w.sentAt, time.Now())
	}
}

func (w *world) Observe(ref setpoint.Ref, into *setpoint.Observation) bool {
	w.mu.Lock()
	seen, ok := w.seen[ref]
	hook := w.observe
	w.mu.Unlock()
	if hook != nil {
		hook(ref)
	}
	*into = seen
	return ok
}

func (w *world) Raise(ev alert.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, ev)
}

type subscription struct {
	w       *world
	query   signal.Query
	reading signal.Reading // guarded by w.mu
}

func (s *subscription) Reading() signal.Reading {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.reading
}

func (s *subscription) Close() {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if !s.w.open[s] {
		panic("closed twice")
	}
	delete(s.w.open, s)
}

func (w *world) Collect(ctx context.Context, now time.Time) error {
	w.mu.Lock()
	w.collected = append(w.collected, now)
	takes := w.collect
	w.mu.Unlock()
	sleep(ctx, takes)
	return ctx.Err()
}

func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (w *world) Step(ctx context.Context, now time.Time, wait time.Duration) int {
	w.mu.Lock()
	w.stepped = append(w.stepped, now)
	takes := w.query
	w.mu.Unlock()
	sleep(ctx, min(takes, wait))
	if takes > wait {
		return 1
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.open {
		v, ok := w.values[s.query.Expr]
		s.reading = signal.Reading{Value: v, ByLabel: w.tables[s.query.Expr], At: now, Evaluations: s.reading.Evaluations + 1}
		if !ok {
			s.reading.Value, s.reading.Err = math.NaN(), errors.New("no result")
		}
	}
	return 0
}

func (w *world) Subscribe(q signal.Query) (Subscription, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if strings.Contains(q.Expr, "refused") {
		return nil, errors.New("refused")
	}
	s := &subscription{w: w, query: q, reading: signal.Reading{Value: math.NaN(), Err: errors.New("not yet")}}
	w.open[s] = true
	return s, nil
}

func (w *world) LoadDynamicConfig(_ context.Context, policy string) (map[string]any, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.configs[policy]), w.broken
}

func (w *world) SaveDynamicConfig(_ context.Context, policy string, config map[string]any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken == nil {
		w.configs[policy] = maps.Clone(config)
	}
	return w.broken
}

func (w *world) DeleteDynamicConfig(_ context.Context, policy string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken == nil {
		delete(w.configs, policy)
	}
	return w.broken
}

func (w *world) set(expr string, v float64) { w.do(func() { w.values[expr] = v }) }

// do changes something while the Runtime runs.
func (w *world) do(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// sent takes the setpoints since the last call.
func (w *world) sent() []setpoint.Setpoint {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.setpoints
	w.setpoints, w.sentAt = nil, nil
	return s
}

// server is a Runtime in a bubble.
type server struct {
	t *testing.T
	*Runtime
	w *world
}

// inBubble runs a test with a Runtime that runs. The time is a little after a whole second at first.
func inBubble(t *testing.T, config Config, test func(s *server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(10 * time.Millisecond)
		w := newWorld()
		config.DataPlane, config.Signals, config.Alerts, config.Store = w, w, w, w
		r := New(config)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		test(&server{t: t, Runtime: r, w: w})
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.Close()
		if len(w.open) > 0 {
			t.Errorf("%d subscriptions were left open", len(w.open))
		}
	})
}

func (s *server) publish(programs ...*Program) {
	s.t.Helper()
	if err := s.Publish(s.t.Context(), programs); err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
}

func (s *server) status(policy string) Status {
	s.t.Helper()
	st, err := s.Status(policy)
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// run lets time go by, and everything that happens in it.
func (s *server) run(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// value is the reading of a signal in the last tick.
func (s *server) value(policy, name string) float64 {
	s.t.Helper()
	signals, frames, err := s.History(policy, 1)
	if err != nil || len(frames) != 1 {
		s.t.Fatalf("%d frames, error %v", len(frames), err)
	}
	for i, sig := range signals {
		if SignalName(sig) == name {
			return frames[0].Values[i]
		}
	}
	s.t.Fatalf("policy %s has no signal %s", policy, name)
	return 0
}

// limit is a policy with a rate limiter that a query moves.
func limit(t testing.TB, name, interval, expr string) *Program {
	t.Helper()
	return compile(t, name, circuitOf(interval, fmt.Sprintf(`    - query: {promql: {query_string: %q, evaluation_interval: %s, out_ports: {output: {signal_name: RATE}}}}
    - flow_control:
        rate_limiter:
          in_ports: {bucket_capacity: {constant_signal: {value: 100}}, fill_amount: {signal_name: RATE}}
          parameters: {interval: 1s}
          selectors: [{control_point: ingress}]
    - decider: {operator: gt, in_ports: {lhs: {signal_name: RATE}, rhs: {constant_signal: {value: 50}}}, out_ports: {output: {signal_name: HIGH}}}
    - alerter: {parameters: {alert_name: High, alert_channels: [ops]}, in_ports: {signal: {signal_name: HIGH}}}
`, expr, interval)))
}

func TestTicks(t *testing.T) {
	inBubble(t, Config{}, func(s *server) {
		s.w.set("rate", 40)
		start := time.Now()
		s.publish(limit(t, "p", "1s", "rate"))
		if sp := s.w.sent(); len(sp) != 1 || sp[0].FillAmount != 40 || sp[0].Policy != "p" || sp[0].Component != "root.1" {
			t.Fatalf("got %+v, want a first tick at once", sp)
		}
		s.run(5 * time.Second)
		st := s.status("p")
		if st.Ticks != 6 || st.Skipped != 0 || !st.LastTick.Equal(start.Truncate(time.Second).Add(5*time.Second)) {
			t.Errorf("got %+v, want 6 ticks, the last one on the second", st)
		}
		_, frames, _ := s.History("p", 0)
		for i, f := range frames {
			if f.Tick != uint64(i) || i > 0 && f.Time.Nanosecond() != 0 {
				t.Errorf("frame %d: tick %d at %v", i, f.Tick, f.Time)
			}
		}
		s.w.sent()
		s.w.set("rate", 60) // in force and in the alerts with the next tick
		s.run(time.Second)
		if sp := s.w.sent(); len(sp) != 1 || sp[0].FillAmount != 60 {
			t.Errorf("got %+v, want 60 tokens", sp)
		}
		if ev := s.w.events; len(ev) != 1 || ev[0].Name != "High" || ev[0].Policy != "p" || ev[0].Component != "root.3" || !ev[0].At.Equal(time.Now().Truncate(time.Second)) {
			t.Errorf("got %+v, want one alert", ev)
		}
		s.publish()
		if _, err := s.Status("p"); !errors.Is(err, ErrNotInForce) {
			t.Errorf("got %v, want ErrNotInForce", err)
		}
	})
}

// TestIntervals: policies of 100 ms tick ten times as often, together with those of a second; the metrics of
// this process are kept as often as somebody wants them.
func TestIntervals(t *testing.T) {
	inBubble(t, Config{}, func(s *server) {
		s.w.set("rate", 1)
		s.run(3 * time.Second)
		if n := len(s.w.collected); n < 3 || n > 4 {
			t.Errorf("%d collections in 3 s without policies, want one per second", n)
		}
		s.publish(limit(t, "slow", "1s", "rate"), limit(t, "quick", "100ms", "rate"), limit(t, "hourly", "3600s", "rate"))
		s.w.do(func() { s.w.collected = nil })
		s.run(10 * time.Second)
		if got := s.status("quick").Ticks; got < 100 || got > 101 {
			t.Errorf("got %d ticks at 100 ms in 10 s", got)
		}
		if got := s.status("slow").Ticks; got < 10 || got > 11 {
			t.Errorf("got %d ticks at 1 s in 10 s", got)
		}
		if got := s.status("hourly").Ticks; got != 1 {
			t.Errorf("got %d ticks at 1 h in 10 s", got)
		}
		if n := len(s.w.collected); n < 100 || n > 101 {
			t.Errorf("%d collections in 10 s, want ten per second", n)
		}
		for i, at := range s.w.collected {
			if i > 0 && !at.After(s.w.collected[i-1]) {
				t.Errorf("collection %d at %v does not come after %v", i, at, s.w.collected[i-1])
			}
		}
	})
}

// TestPublishKeeps: a policy whose hash stays goes on, another one starts from scratch.
func TestPublishKeeps(t *testing.T) {
	inBubble(t, Config{}, func(s *server) {
		s.publish(limit(t, "kept", "1s", "a"), limit(t, "changed", "1s", "a"))
		s.run(3 * time.Second)
		s.publish(limit(t, "kept", "1s", "a"), limit(t, "changed", "1s", "b"))
		if kept, changed := s.status("kept").Ticks, s.status("changed").Ticks; kept != 4 || changed != 1 {
			t.Errorf("got %d and %d ticks, want 4 and 1", kept, changed)
		}
		err := s.Publish(s.t.Context(), []*Program{limit(t, "kept", "1s", "a"), limit(t, "kept", "1s", "c")})
		if err == nil || s.status("kept").Ticks != 4 {
			t.Errorf("two policies of one name: %v, %d ticks", err, s.status("kept").Ticks)
		}
	})
}

// TestVersions go up across everything.
func TestVersions(t *testing.T) {
	inBubble(t, Config{}, func(s *server) {
		last := uint64(0)
		for range 5 {
			s.w.set("rate", 1)
			s.publish(limit(t, "p", "1s", "rate"))
			s.w.set("rate", 2)
			s.run(2 * time.Second)
			s.publish()
			for _, sp := range s.w.sent() {
				if sp.Version <= last {
					t.Errorf("version %d after %d", sp.Version, last)
				}
				last = sp.Version
			}
		}
	})
}

// TestOverrun: a tick that takes too long makes others being left out, and counted; none is made up for.
func TestOverrun(t *testing.T) {
	inBubble(t, Config{}, func(s *server) {
		s.w.set("rate", 1)
		s.publish(limit(t, "p", "1s", "rate"))
		s.run(1500 * time.Millisecond) // a tick at 0 s, at 1 s
		slow := true
		s.w.do(func() {
			s.w.observe = func(setpoint.Ref) {
				if slow {
					slow = false
					time.Sleep(3300 * time.Millisecond)
				}
			}
		})
		s.run(6 * time.Second) // 2 s (until 5.3 s), 5 s, 6 s, 7 s
		st := s.status("p")
		if st.Ticks != 6 || st.Skipped != 2 {
			t.Errorf("got %d ticks and %d skipped, want 6 and 2", st.Ticks, st.Skipped)
		}
		if st.SlowestDuration != 3300*time.Millisecond || st.LastDuration != 0 {
			t.Errorf("got durations %v and %v", st.SlowestDuration, st.LastDuration)
		}
		_, frames, _ := s.History("p", 0)
		var at []int
		for _, f := range frames[1:] {
			at = append(at, int(f.Time.Sub(frames[1].Time)/time.Second))
		}
		if want := []int{0, 1, 4, 5, 6}; !reflect.DeepEqual(at, want) {
			t.Errorf("ticks at %v, want %v", at, want)
		}
	})
}

// TestSlowSignals: when storage or queries hang, circuits go on with the readings they have.
func TestSlowSignals(t *testing.T) {
	inBubble(t, Config{}, func(s *server) {
		s.w.set("rate", 7)
		s.publish(limit(t, "p", "1s", "rate"))
		s.w.do(func() { s.w.query = 40 * time.Millisecond }) // within the 50 ms
		s.run(2100 * time.Millisecond)
		if got := s.value("p", "RATE"); got != 7 {
			t.Errorf("got %v, want 7", got)
		}
		s.w.do(func() { s.w.collect = time.Hour })
		s.w.set("rate", 8)
		s.run(10 * time.Second)
		st := s.status("p")
		if st.Ticks < 12 || st.Skipped != 0 || s.value("p", "RATE") != 7 {
			t.Errorf("got %d ticks, %d skipped, reading %v: want all ticks, with the old reading", st.Ticks, st.Skipped, s.value("p", "RATE"))
		}
		if late := s.late.Load(); late < 8 {
			t.Errorf("%d ticks were late, want to have been told", late)
		}
	})
}

// TestBrokenPolicy: a circuit that panics stops, and no other.
func TestBrokenPolicy(t *testing.T) {
	inBubble(t, Config{}, func(s *server) {
		s.w.set("rate", 60)
		s.publish(limit(t, "a", "1s", "rate"), limit(t, "broken", "1s", "rate"), limit(t, "c", "1s", "rate"))
		s.w.sent()
		s.w.do(func() {
			s.w.observe = func(ref setpoint.Ref) {
				if ref.Policy == "broken" {
					panic("oops")
				}
			}
		})
		s.w.do(func() { s.w.events = nil })
		s.run(5 * time.Second)
		st := s.status("broken")
		if st.Ticks != 1 || !strings.Contains(st.Stopped, "oops") || st.Components[0].Status != st.Stopped {
			t.Errorf("got %+v, want it to have stopped", st)
		}
		for _, name := range []string{"a", "c"} {
			if st := s.status(name); st.Ticks != 6 || st.Stopped != "" || st.Components[0].Status != Running {
				t.Errorf("%s: got %+v, want it to go on", name, st)
			}
		}
		if len(s.w.events) != 10 {
			t.Errorf("got %d alerts, want one per tick of the two that go on", len(s.w.events))
		}
		s.w.do(func() { s.w.observe = nil })
		s.publish(limit(t, "broken", "1s", "rate + 0")) // another version starts anew
		if st := s.status("broken"); st.Ticks != 1 || st.Stopped != "" {
			t.Errorf("got %+v, want it to run", st)
		}
	})
}

// TestRefusedQuery: what works of a policy is in force.
func TestRefusedQuery(t *testing.T) {
	inBubble(t, Config{}, func(s *server) {
		err := s.Publish(s.t.Context(), []*Program{limit(t, "p", "1s", "refused")})
		if err == nil || !strings.Contains(err.Error(), `policy "p": root.0: query: refused`) {
			t.Errorf("got %v, want the component", err)
		}
		synctest.Wait()
		st := s.status("p")
		if sp := s.w.sent(); st.Ticks != 1 || len(sp) != 1 || !sp[0].PassThrough {
			t.Errorf("got %d ticks, %+v", st.Ticks, sp)
		}
		if !strings.Contains(st.Components[0].Status, "refused") || st.Components[1].Status != Running {
			t.Errorf("got %q and %q", st.Components[0].Status, st.Components[1].Status)
		}
	})
}

// TestStart: after an edit, a limit stays what it was until the queries of the new version were answered; an
// answer that never comes is not waited for.
func TestStart(t *testing.T) {
	inBubble(t, Config{}, func(s *server) {
		s.w.set("rate", 40)
		s.w.do(func() { s.w.query = 2 * time.Second }) // the fake drops what is late
		s.publish(limit(t, "p", "1s", "rate"))
		s.run(3 * time.Second)
		if sp := s.w.sent(); len(sp) != 0 {
			t.Errorf("got %+v, want nothing: nothing is known", sp)
		}
		s.w.do(func() { s.w.query = 0 })
		s.run(time.Second)
		if sp := s.w.sent(); len(sp) != 1 || sp[0].FillAmount != 40 {
			t.Errorf("got %+v, want 40", sp)
		}
		s.w.do(func() { s.w.query = 2 * time.Second })
		s.publish(limit(t, "p", "1s", "other"))
		s.run(9500 * time.Millisecond)
		if sp := s.w.sent(); len(sp) != 0 {
			t.Errorf("got %+v, want nothing for ten seconds", sp)
		}
		s.run(2 * time.Second)
		if sp := s.w.sent(); len(sp) != 1 || !sp[0].PassThrough {
			t.Errorf("got %+v, want everything to pass", sp)
		}
	})
	inBubble(t, Config{}, func(s *server) { // an error is an answer
		s.publish(limit(t, "p", "1s", "none"))
		if sp := s.w.sent(); len(sp) != 1 || !sp[0].PassThrough {
			t.Errorf("got %+v, want everything to pass", sp)
		}
	})
}

// TestQueryStatus: a component says why its query has no value.
func TestQueryStatus(t *testing.T) {
	inBubble(t, Config{}, func(s *server) {
		s.publish(limit(t, "p", "1s", "rate"))
		if got := s.status("p").Components[0].Status; got != "no result" {
			t.Errorf("got %q", got)
		}
		s.w.set("rate", 1)
		s.run(time.Second)
		if got := s.status("p").Components[0].Status; got != Running {
			t.Errorf("got %q", got)
		}
	})
}

func TestWorkloadTokens(t *testing.T) {
	inBubble(t, Config{}, func(s *server) {
		p := compile(t, "p", circuitOf("1s", `    - flow_control:
        load_scheduler:
          in_ports: {load_multiplier: {constant_signal: {value: 0.5}}}
          parameters: {workload_latency_based_tokens: true, selectors: [{control_point: ingress}]}
`))
		s.publish(p)
		if sp := s.w.sent(); len(sp) != 1 || sp[0].WorkloadTokens != nil {
			t.Fatalf("got %+v, want no tokens", sp)
		}
		if st := s.status("p").Components[0].Status; !strings.Contains(st, "those of the document") {
			t.Errorf("got status %q", st)
		}
		var expr string
		for sub := range s.w.open {
			expr = sub.query.Expr
			if sub.query.Interval != 5*time.Second || sub.query.ByLabel != "workload_index" {
				t.Errorf("got %+v", sub.query)
			}
		}
		s.w.set(expr, 3)
		s.w.do(func() { s.w.tables[expr] = map[string]float64{"a": 12.5, "b": nan, "c": 0, "d": math.Inf(1), "": 5} })
		s.run(time.Second)
		sp := s.w.sent()
		if want := map[string]float64{"a": 12.5}; len(sp) != 1 || !reflect.DeepEqual(sp[0].WorkloadTokens, want) {
			t.Errorf("got %+v, want %v", sp, want)
		}
		s.w.do(func() { delete(s.w.values, expr) }) // a query that fails
		s.run(time.Second)
		if got := s.w.sent(); len(got) != 1 || len(got[0].WorkloadTokens) != 1 {
			t.Errorf("got %+v, want the tokens of before", got)
		}
	})
}

func variables(t testing.TB, extra string) *Program {
	t.Helper()
	return compile(t, "p", circuitOf("1s", `    - variable: {constant_output: {value: 1}, config_key: rate, out_ports: {output: {signal_name: RATE}}}
    - bool_variable: {constant_output: false, config_key: open, out_ports: {output: {signal_name: OPEN}}}
    - max: {in_ports: {inputs: [{signal_name: RATE}, {signal_name: OPEN}]}, out_ports: {output: {signal_name: MAX}}}
`+extra))
}

func TestDynamicConfig(t *testing.T) {
	inBubble(t, Config{}, func(s *server) {
		ctx := s.t.Context()
		s.w.do(func() { s.w.configs["p"] = map[string]any{"rate": 5.0, "gone": true, "open": "yes"} })
		s.publish(variables(t, ""))
		if got := s.value("p", "RATE"); got != 5 {
			t.Errorf("got %v, want what was kept", got)
		}
		if n := s.status("p").Notices; len(n) != 2 || !strings.Contains(n[0].Text, "gone") || !strings.Contains(n[1].Text, "open") {
			t.Errorf("got notices %+v, want them about gone and open", n)
		}
		if err := s.SetConfig(ctx, "p", map[string]any{"rate": 7.0, "open": true}); err != nil {
			t.Fatal(err)
		}
		if n := s.status("p").Notices; len(n) != 0 {
			t.Errorf("got notices %+v", n)
		}
		s.run(time.Second)
		if s.value("p", "RATE") != 7 || s.value("p", "OPEN") != 1 || s.status("p").Ticks != 2 {
			t.Errorf("got %v, %v after %d ticks, want 7 and 1 without a restart", s.value("p", "RATE"), s.value("p", "OPEN"), s.status("p").Ticks)
		}
		var mistake *fielderr.Error
		err := s.SetConfig(ctx, "p", map[string]any{"raet": 1.0, "open": false})
		if !errors.As(err, &mistake) || mistake.Hint != `did you mean "rate"?` {
			t.Errorf("got %v, want a hint", err)
		}
		if err := s.SetConfig(ctx, "p", map[string]any{"rate": 9.0, "open": 3.0}); !errors.As(err, &mistake) || mistake.Path != "open" {
			t.Errorf("got %v, want a problem with open", err)
		}
		s.w.do(func() { s.w.broken = errors.New("disk full") })
		if err := s.SetConfig(ctx, "p", map[string]any{"rate": 9.0}); !errors.Is(err, s.w.broken) {
			t.Errorf("got %v, want that of the store", err)
		}
		s.w.do(func() { s.w.broken = nil })
		s.run(time.Second)
		config, keys, err := s.Config("p")
		if want := map[string]any{"rate": 7.0, "open": true}; err != nil || !reflect.DeepEqual(config, want) || !reflect.DeepEqual(s.w.configs["p"], want) || s.value("p", "RATE") != 7 {
			t.Errorf("got %v, error %v, reading %v: want %v unchanged", config, err, s.value("p", "RATE"), want)
		}
		if len(keys) != 2 || keys[0].Key != "rate" || keys[0].Type != Number || keys[1].Type != Boolean || keys[1].Component != "root.1" {
			t.Errorf("got keys %+v", keys)
		}
		s.publish(variables(t, "    - pulse_generator: {}\n")) // survives an edit
		if got := s.value("p", "RATE"); got != 7 {
			t.Errorf("got %v after an edit, want 7", got)
		}
		if err := s.DeleteConfig(ctx, "p"); err != nil || len(s.w.configs) != 0 {
			t.Errorf("error %v, kept %v", err, s.w.configs)
		}
		s.run(time.Second)
		if s.value("p", "RATE") != 1 || s.value("p", "OPEN") != 0 {
			t.Error("the values of the document are not back")
		}
		if err := s.SetConfig(ctx, "q", nil); !errors.Is(err, ErrNotInForce) {
			t.Errorf("got %v", err)
		}
		if err := s.DeleteConfig(ctx, "q"); err != nil {
			t.Errorf("got %v", err)
		}
	})
}

// TestConfigBelongsToTheCaller: what was set does not change with the caller's map.
func TestConfigBelongsToTheCaller(t *testing.T) {
	inBubble(t, Config{}, func(s *server) {
		s.publish(variables(t, ""))
		config := map[string]any{"rate": map[string]any{"value": 3.0}}
		if err := s.SetConfig(s.t.Context(), "p", config); err != nil {
			t.Fatal(err)
		}
		config["rate"].(map[string]any)["value"] = 4.0
		got, _, _ := s.Config("p")
		got["rate"] = 5.0
		got, _, _ = s.Config("p")
		if want := map[string]any{"rate": map[string]any{"value": 3.0}}; !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestUnreadableConfig(t *testing.T) {
	inBubble(t, Config{}, func(s *server) {
		s.w.do(func() { s.w.broken = errors.New("damaged") })
		err := s.Publish(s.t.Context(), []*Program{variables(t, "")})
		synctest.Wait()
		if !errors.Is(err, s.w.broken) || s.status("p").Ticks != 1 || len(s.status("p").Notices) != 1 {
			t.Errorf("got %v and %+v, want the policy to run with a notice", err, s.status("p"))
		}
	})
}

func TestWatch(t *testing.T) {
	inBubble(t, Config{HistoryTicks: 60}, func(s *server) {
		ctx, cancel := context.WithCancel(s.t.Context())
		s.publish(variables(t, ""))
		s.run(3 * time.Second)
		var all []Update
		hold := make(chan struct{}, 1)
		hold <- struct{}{}
		ended := make(chan error, 1)
		go func() {
			ended <- s.Watch(ctx, "p", 2, func(u Update) error {
				<-hold
				all = append(all, u)
				hold <- struct{}{}
				return nil
			})
		}()
		updates := func() []Update {
			synctest.Wait()
			<-hold
			defer func() { hold <- struct{}{} }()
			return slices.Clone(all)
		}
		got := updates()
		if len(got) != 1 || len(got[0].Signals) != 3 || len(got[0].Frames) != 2 || got[0].Frames[1].Tick != 3 {
			t.Fatalf("got %+v, want two frames of the past", got)
		}
		s.run(2 * time.Second)
		if got = updates(); len(got) != 3 || got[2].Signals != nil || len(got[2].Frames) != 1 || got[2].Frames[0].Tick != 5 {
			t.Fatalf("got %+v, want each tick", got)
		}
		<-hold // the receiver is busy for longer than is kept
		s.run(100 * time.Second)
		hold <- struct{}{}
		got = updates()
		u := got[len(got)-1]
		if len(got) != 5 || u.Missed != 39 || len(u.Frames) != 60 || u.Frames[59].Tick != 105 {
			t.Errorf("got %d updates, the last one with %d missed, %d frames", len(got), u.Missed, len(u.Frames))
		}
		s.publish(variables(t, "    - pulse_generator: {out_ports: {output: {signal_name: PULSE}}}\n"))
		got = updates()
		if u = got[len(got)-1]; len(u.Signals) != 4 && len(got[len(got)-2].Signals) != 4 {
			t.Errorf("got %+v, want the signals of the new version", u)
		}
		s.publish()
		if err := <-ended; !errors.Is(err, ErrNotInForce) {
			t.Errorf("got %v, want ErrNotInForce", err)
		}
		cancel()
		s.publish(variables(t, ""))
		if err := s.Watch(ctx, "p", 0, func(Update) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want that it was canceled", err)
		}
		stop := errors.New("enough")
		if err := s.Watch(s.t.Context(), "p", 0, func(Update) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("got %v, want what send returned", err)
		}
	})
}

// TestRandomPublishing leaves nothing behind: no subscription, goroutine, budget or watcher. The bubble does
// not end while a goroutine is left.
func TestRandomPublishing(t *testing.T) {
	for seed := range uint64(5) {
		inBubble(t, Config{HistoryBytes: 1 << 20}, func(s *server) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			before := s.budget.left
			for range 100 {
				var programs []*Program
				for i := range 8 {
					if rnd.IntN(2) == 0 {
						programs = append(programs, limit(t, fmt.Sprintf("p%d", i), []string{"100ms", "1s"}[rnd.IntN(2)], fmt.Sprintf("rate + %d", rnd.IntN(2))))
					}
				}
				rnd.Shuffle(len(programs), func(i, j int) { programs[i], programs[j] = programs[j], programs[i] })
				s.publish(programs...)
				s.run(time.Duration(rnd.IntN(1500)) * time.Millisecond)
				if got := len(s.w.open); got != len(programs) {
					t.Fatalf("%d subscriptions for %d policies", got, len(programs))
				}
				if got := s.Policies(); len(got) != len(programs) {
					t.Fatalf("%d policies in force, want %d", len(got), len(programs))
				}
			}
			s.publish()
			if s.budget.left != before {
				t.Errorf("%d numbers of memory are missing", before-s.budget.left)
			}
			if len(s.watched.all) > 0 || len(s.configs) > 0 {
				t.Error("watchers or configurations are left")
			}
		})
	}
}

// TestClockSetBack: ticks go on when the clock steps back. The bubble's clock cannot, so this is about one
// unit.
func TestClockSetBack(t *testing.T) {
	u := &running{unit: &unit{program: &Program{Interval: time.Second}}}
	at := t0.Add(300 * time.Millisecond)
	if !u.isDue(at) || !u.at.Equal(at) || !u.next.Equal(t0.Add(time.Second)) {
		t.Fatalf("first tick: at %v, next %v", u.at, u.next)
	}
	back := t0.Add(-time.Hour).Add(100 * time.Millisecond)
	if u.isDue(back) || !u.next.Equal(t0.Add(-time.Hour).Add(time.Second)) {
		t.Errorf("next is %v, want a second after the clock was set back", u.next)
	}
	if !u.isDue(back.Add(time.Second)) || u.skipped != 0 {
		t.Errorf("no tick, or %d skipped", u.skipped)
	}
	if !u.isDue(back.Add(time.Hour)) || u.skipped != 3598 {
		t.Errorf("%d skipped, want 3598: the clock was set forward", u.skipped)
	}
	late := &running{unit: &unit{program: &Program{Interval: time.Second}}}
	if !late.isDue(t0.Add(600*time.Millisecond)) || !late.next.Equal(t0.Add(2*time.Second)) {
		t.Errorf("next is %v: a second tick right after the first is too early", late.next)
	}
}

func TestHistoryBudget(t *testing.T) {
	b := budget{left: blockTicks * (2 + 3) * 3}
	first, second := newHistory(2, 600, &b), newHistory(2, 600, &b)
	for i := range 1000 {
		first.add(t0.Add(time.Duration(i)*time.Second), []float64{float64(i), -float64(i)})
	}
	second.add(t0, []float64{1, 2})
	if len(first.times) != 3*blockTicks || len(second.times) != blockTicks || b.left != 0 {
		t.Errorf("got %d and %d ticks of memory, %d left", len(first.times), len(second.times), b.left)
	}
	frames := first.last(0)
	if len(frames) != 180 || frames[0].Tick != 820 || frames[179].Values[1] != -999 || !frames[179].Time.Equal(t0.Add(999*time.Second)) {
		t.Errorf("got %d frames, the first of tick %d", len(frames), frames[0].Tick)
	}
	if got := first.last(1); len(got) != 1 || got[0].Tick != 999 {
		t.Errorf("got %+v, want the newest", got)
	}
	if first.since(1000) != nil {
		t.Error("frames of the future")
	}
	first.release()
	second.release()
	if b.left != blockTicks*5*3 {
		t.Errorf("%d numbers are left", b.left)
	}
	var empty history
	if empty.last(5) != nil {
		t.Error("an empty history has frames")
	}
}

func TestMetrics(t *testing.T) {
	inBubble(t, Config{MaxSignals: 3}, func(s *server) {
		s.publish(variables(t, ""), compile(t, "q", circuitOf("1s", `    - nested_circuit:
        out_ports_map: {y: {signal_name: OUT}}
        components:
          - variable: {constant_output: {special_value: +Inf}, out_ports: {output: {signal_name: IN}}}
          - nested_signal_egress: {port_name: y, in_ports: {signal: {signal_name: IN}}}
`)))
		s.run(4 * time.Second)
		got := gather(t, s.Collector())
		for name, want := range map[string]float64{
			`signal_reading_sum{p,RATE,root}`:               5,
			`signal_reading_count{p,RATE,root}`:             5,
			`invalid_signal_readings_total{p,RATE,root}`:    0,
			`sluice_circuit_ticks_total{p}`:                 5,
			`sluice_circuit_ticks_total{q}`:                 5,
			`sluice_circuit_tick_duration_seconds_count{q}`: 5,
			`sluice_circuit_stopped{q}`:                     0,
			`sluice_circuit_hidden_signals{}`:               2,
			`sluice_circuit_late_signals_total{}`:           0,
			`sluice_circuit_skipped_ticks_total{p}`:         0,
			`sluice_circuit_setpoints_total{p}`:             0,
			`sluice_circuit_tick_duration_seconds_sum{p}`:   0,
			`infinite_signal_readings_total{p,OPEN,root}`:   0,
			`sluice_circuit_slowest_tick_seconds{p}`:        0,
			`invalid_signal_readings_total{p,MAX,root}`:     0,
		} {
			if v, ok := got[name]; !ok || v != want {
				t.Errorf("%s: got %v (%v), want %v", name, v, ok, want)
			}
		}
		s.mu.Lock()
		s.config.MaxSignals = 10
		s.mu.Unlock()
		got = gather(t, s.Collector())
		if got[`infinite_signal_readings_total{q,IN,root.0}`] != 5 || got[`signal_reading_count{q,IN,root.0}`] != 0 {
			t.Errorf("got %v", got)
		}
	})
}

// gather reads metrics as name{label values}.
func gather(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			labels := "{" + strings.Join(values, ",") + "}"
			switch {
			case m.Summary != nil:
				out[f.GetName()+"_sum"+labels], out[f.GetName()+"_count"+labels] = m.Summary.GetSampleSum(), float64(m.Summary.GetSampleCount())
			case m.Counter != nil:
				out[f.GetName()+labels] = m.Counter.GetValue()
			default:
				out[f.GetName()+labels] = m.Gauge.GetValue()
			}
		}
	}
	return out
}

// TestReaction: an overload that a query can see throttles with the next tick, and the load that the data plane
// observes is in the same tick's arithmetic.
func TestReaction(t *testing.T) {
	for interval, within := range map[string]time.Duration{"1s": time.Second, "100ms": 100 * time.Millisecond} {
		inBubble(t, Config{}, func(s *server) {
			s.w.set("avg(latency)", 50)
			ref := setpoint.Ref{Policy: "p", Component: "root.1"}
			load := func(incoming, accepted float64) {
				s.w.do(func() {
					seen := s.w.seen[ref]
					seen.BaseTokens += incoming
					seen.RejectedTokens += incoming - accepted
					seen.AcceptedTokens += accepted
					s.w.seen[ref] = seen
				})
			}
			load(0, 0)
			s.publish(compile(t, "p", circuitOf(interval, fmt.Sprintf(`    - query: {promql: {query_string: avg(latency), evaluation_interval: %s, out_ports: {output: {signal_name: LATENCY}}}}
    - flow_control:
        aimd_load_scheduler:
          in_ports: {signal: {signal_name: LATENCY}, setpoint: {constant_signal: {value: 100}}}
          parameters:
            gradient: {slope: -1, min_gradient: 0.1, max_gradient: 1}
            alerter: {alert_name: Throttled}
            load_scheduler: {selectors: [{control_point: ingress}]}
`, interval))))
			load(1000, 900)
			s.run(10*time.Second + 30*time.Millisecond)
			s.w.sent()
			s.w.set("avg(latency)", 400)
			start := time.Now()
			var sp []setpoint.Setpoint
			for len(sp) == 0 && time.Since(start) < time.Minute {
				s.run(time.Millisecond)
				sp = s.w.sent()
			}
			if took := time.Since(start); took > within || len(sp) != 1 || !near(sp[0].LoadMultiplier, 0.9*100/400) {
				t.Errorf("at %s: after %v got %+v, want 0.225 within %v", interval, took, sp, within)
			}
		})
	}
}

// TestStopping: Run returns whenever it is told to, also while signals hang.
func TestStopping(t *testing.T) {
	for i := range 50 {
		inBubble(t, Config{}, func(s *server) {
			if i%2 == 0 {
				s.w.do(func() { s.w.collect = time.Hour })
			}
			s.publish(limit(t, "p", "100ms", "rate"))
			s.run(time.Duration(i) * 37 * time.Millisecond)
		})
	}
}

// TestWithoutAnything: a Runtime that is connected with nothing computes.
func TestWithoutAnything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Config{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		if err := r.Publish(ctx, []*Program{variables(t, "")}); err != nil {
			t.Error(err)
		}
		if err := r.Publish(ctx, []*Program{variables(t, ""), limit(t, "q", "1s", "rate")}); !errors.Is(err, errNoSignals) {
			t.Errorf("got %v, want that there are no queries", err)
		}
		time.Sleep(3 * time.Second)
		if err := r.SetConfig(ctx, "p", map[string]any{"rate": 2.0}); err != nil {
			t.Error(err)
		}
		if st, err := r.Status("p"); err != nil || st.Ticks < 3 {
			t.Errorf("got %+v, %v", st, err)
		}
		cancel()
		<-done
	})
}

var _ circuit.Component = (*passValues)(nil)
