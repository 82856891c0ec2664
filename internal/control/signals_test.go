// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-project/sluice/internal/signal"
)

// TestRealSignals: what is counted before a tick moves a limit in the same tick, through the time series and
// a query.
func TestRealSignals(t *testing.T) {
	registry := prometheus.NewRegistry()
	latency := prometheus.NewGauge(prometheus.GaugeOpts{Name: "latency_seconds", Help: "A latency."})
	work := prometheus.NewSummaryVec(prometheus.SummaryOpts{Name: "workload_latency_ms", Help: "As the data plane has it."},
		[]string{"policy_name", "component_id", "workload_index"})
	registry.MustRegister(latency, work)
	service, err := signal.Open(t.Context(), signal.Config{Dir: t.TempDir() + "/signals", Gatherer: registry, QueryTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	w := newWorld()
	r := New(Config{DataPlane: w, Signals: patient{FromService(service)}, Alerts: w})
	r.pump.start(t.Context(), r.config.Signals, r.log)
	defer r.pump.stop()
	defer r.Close()
	err = r.Publish(t.Context(), []*Program{limit(t, "p", "1s", "latency_seconds * 10"), compile(t, "q", circuitOf("1s", `    - flow_control:
        load_scheduler:
          in_ports: {load_multiplier: {constant_signal: {value: 0.5}}}
          parameters: {workload_latency_based_tokens: true, selectors: [{control_point: ingress}]}
`))})
	if err != nil {
		t.Fatal(err)
	}
	now := floor(time.Now(), time.Second).Add(-time.Minute)
	tick := func() {
		r.round(now)
		now = now.Add(time.Second)
		if r.pump.busy { // the machine is slow; the next tick has it
			<-r.pump.done
			r.pump.busy = false
		}
	}
	for _, v := range []float64{4, 5, 3} {
		latency.Set(v)
		late := r.late.Load()
		tick()
		if r.late.Load() > late {
			t.Logf("%v came late", v)
			tick()
		}
		if sp := w.sent(); len(sp) < 2 || sp[len(sp)-2].FillAmount != 10*v {
			t.Fatalf("got %+v, want %v tokens in the same tick", sp, 10*v)
		}
	}
	for range 10 {
		work.WithLabelValues("q", "root.0", "guests").Observe(12)
		work.WithLabelValues("q", "root.0", "members").Observe(48)
		work.WithLabelValues("other", "root.0", "guests").Observe(1000)
		tick()
	}
	tick()
	sp := w.sent()
	if got := sp[len(sp)-1].WorkloadTokens; len(got) != 2 || !near(got["guests"], 12) || !near(got["members"], 48) {
		t.Errorf("got tokens %v, want the mean latencies", got)
	}
}

// patient waits for every query: the machine that runs the test may be slow.
type patient struct{ Signals }

func (p patient) Step(ctx context.Context, now time.Time, _ time.Duration) int {
	return p.Signals.Step(ctx, now, time.Minute)
}
