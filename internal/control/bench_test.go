// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/alert"
	"github.com/sluice-project/sluice/internal/setpoint"
	"github.com/sluice-project/sluice/internal/signal"
)

// busy is a data plane, signals and alerts that cost next to nothing, and in which something always happens.
type busy struct {
	n      uint64
	sent   int
	raised int
	value  float64
}

func (b *busy) Steer(s []setpoint.Setpoint) { b.sent += len(s) }
func (b *busy) Raise(alert.Event)           { b.raised++ }

func (b *busy) Observe(_ setpoint.Ref, into *setpoint.Observation) bool {
	b.n++
	into.Accepted, into.Rejected = 9*b.n, b.n
	into.BaseTokens, into.AcceptedTokens, into.RejectedTokens = 10*float64(b.n), 9*float64(b.n), float64(b.n)
	return true
}

func (b *busy) Collect(context.Context, time.Time) error                 { return nil }
func (b *busy) Step(_ context.Context, _ time.Time, _ time.Duration) int { return 0 }
func (b *busy) Subscribe(signal.Query) (Subscription, error)             { return b, nil }
func (b *busy) Reading() signal.Reading                                  { return signal.Reading{Value: b.value} }
func (b *busy) Close()                                                   {}

// typical is a policy of 30 components: an AIMD load scheduler, an alerter, a query, and primitives.
func typical(tb testing.TB, name string) *Program {
	tb.Helper()
	var b strings.Builder
	b.WriteString(`    - query: {promql: {query_string: avg(latency), evaluation_interval: 1s, out_ports: {output: {signal_name: S0}}}}
    - flow_control:
        aimd_load_scheduler:
          in_ports: {signal: {signal_name: S0}, setpoint: {constant_signal: {value: 100}}}
          parameters:
            gradient: {slope: -1, min_gradient: 0.1, max_gradient: 1}
            alerter: {alert_name: Throttled}
            load_scheduler: {selectors: [{control_point: ingress}]}
`)
	kinds := []string{
		`ema: {in_ports: {input: {signal_name: S%d}}, parameters: {ema_window: 30s, warmup_window: 5s}, out_ports: {output: {signal_name: S%d}}}`,
		`arithmetic_combinator: {operator: add, in_ports: {lhs: {signal_name: S%d}, rhs: {constant_signal: {value: 1}}}, out_ports: {output: {signal_name: S%d}}}`,
		`sma: {in_ports: {input: {signal_name: S%d}}, parameters: {sma_window: 10s}, out_ports: {output: {signal_name: S%d}}}`,
		`first_valid: {in_ports: {inputs: [{signal_name: S%d}, {constant_signal: {value: 0}}]}, out_ports: {output: {signal_name: S%d}}}`,
		`unary_operator: {operator: abs, in_ports: {input: {signal_name: S%d}}, out_ports: {output: {signal_name: S%d}}}`,
	}
	for i := range 13 { // 15 parts, 2 components and these
		fmt.Fprintf(&b, "    - "+kinds[i%len(kinds)]+"\n", i, i+1)
	}
	return compile(tb, name, circuitOf("1s", b.String()))
}

// thousand is a Runtime with 1,000 typical policies, past their first tick.
func thousand(tb testing.TB) (*Runtime, *busy, time.Time) {
	tb.Helper()
	w := &busy{value: 200}
	r := New(Config{DataPlane: w, Signals: w, Alerts: w, HistoryTicks: blockTicks})
	var programs []*Program
	for i := range 1000 {
		programs = append(programs, typical(tb, fmt.Sprintf("policy-%d", i)))
	}
	if err := r.Publish(tb.Context(), programs); err != nil {
		tb.Fatal(err)
	}
	r.pump.start(tb.Context(), w, r.log)
	tb.Cleanup(r.pump.stop)
	now := t0
	for range blockTicks + 1 { // until the histories are full
		r.round(now)
		now = now.Add(time.Second)
	}
	return r, w, now
}

// BenchmarkThousandPolicies is a tick of 1,000 policies of 30 components, each of which is in an overload.
func BenchmarkThousandPolicies(b *testing.B) {
	r, w, now := thousand(b)
	nodes := len(r.order[0].circuit.Nodes())
	before, rounds := w.sent, 0
	b.ReportAllocs()
	for b.Loop() {
		r.round(now)
		now = now.Add(time.Second)
		rounds++
	}
	if w.sent-before != 1000*rounds || nodes < 29 {
		b.Fatalf("%d setpoints in %d rounds, circuits of %d nodes", w.sent-before, rounds, nodes)
	}
}

// TestTicksDoNotAllocate: not even with setpoints and alerts on every tick.
func TestTicksDoNotAllocate(t *testing.T) {
	r, w, now := thousand(t)
	if n := testing.AllocsPerRun(50, func() {
		r.round(now)
		now = now.Add(time.Second)
	}); n > 0 {
		t.Errorf("%v allocations per tick of 1,000 policies, want none", n)
	}
	if w.raised == 0 || r.order[0].circuit.Count() < 100 {
		t.Errorf("%d alerts, %d ticks: nothing was measured", w.raised, r.order[0].circuit.Count())
	}
}

func BenchmarkCompile(b *testing.B) {
	doc := typical(b, "p").doc
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(doc); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCollect is reading the metrics of 1,000 policies.
func BenchmarkCollect(b *testing.B) {
	r, _, _ := thousand(b)
	b.ReportAllocs()
	for b.Loop() {
		if n := len(r.measure()); n < 6000 {
			b.Fatal(n)
		}
	}
}
