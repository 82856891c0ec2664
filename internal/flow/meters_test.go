// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/meter"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/setpoint"
)

func meterSpec(policy, name, attribute string, match label.Expr) *MeterSpec {
	return &MeterSpec{
		Spec:      meter.Spec{Policy: policy, Name: name, Attribute: attribute, Bounds: []float64{10, 100, 1000}},
		Selectors: []Selector{{ControlPoint: "cp", Match: match}},
	}
}

// read returns the histogram of a meter: how many flows, their sum, and how many lacked the attribute.
func read(t *testing.T, e *Engine, policy, name string, o meter.Outcome) (count uint64, sum float64, invalid uint64) {
	t.Helper()
	m := e.meters[meterKey{policy, name}]
	if m == nil {
		t.Fatalf("no meter %s of policy %s", name, policy)
	}
	r := m.Read(o, 0)
	return r.Buckets[len(r.Buckets)-1], r.Sum, r.Invalid
}

func TestFluxMeters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, slotSpec(ConcurrencyScheduler, 1, "cp", "", 1))
		meters := []*MeterSpec{
			meterSpec("p", "work", meter.WorkloadDuration, label.Expr{}),
			meterSpec("q", "work", meter.FlowDuration, label.Expr{}),
			meterSpec("p", "size", "bytes", label.Expr{}),
			meterSpec("p", "eu", meter.WorkloadDuration, label.Equal("region", "eu")),
			meterSpec("p", "elsewhere", meter.WorkloadDuration, label.Expr{}),
		}
		meters[4].Selectors[0].ControlPoint = "elsewhere"
		if err := e.Publish(Set{Limiters: []*LimiterSpec{slotSpec(ConcurrencyScheduler, 1, "cp", "", 1)}, Meters: meters}); err != nil {
			t.Fatal(err)
		}
		expect := func(when, policy, name string, o meter.Outcome, count uint64, sum float64, invalid uint64) {
			t.Helper()
			if c, s, i := read(t, e, policy, name, o); c != count || s != sum || i != invalid {
				t.Errorf("%s: %s/%s outcome %d has %d flows, sum %v, %d invalid; want %d, %v, %d", when, policy, name, o, c, s, i, count, sum, invalid)
			}
		}
		first := start(e, "cp", "region", "eu", "bytes", "512")
		ended := make(chan struct{})
		go func() {
			f := wait(context.Background(), e, "cp", "bytes", "many")
			time.Sleep(50 * time.Millisecond)
			token := f.Seal(nil) // the process that ends it knows the token only
			f.Free()
			if _, err := e.EndToken(token, &Outcome{Failed: true}); err != nil {
				t.Error(err)
			}
			close(ended)
		}()
		synctest.Wait()
		start(e, "cp", "bytes", "7").Free() // denied: the slot is taken and it may not wait
		time.Sleep(200 * time.Millisecond)
		first.End(Outcome{})
		<-ended
		token := start(e, "cp", "region", "eu", "bytes", "100.5")
		sealed := token.Seal(nil)
		token.Free()
		if _, err := e.EndToken(sealed, &Outcome{Duration: 30 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
		expect("ok", "p", "work", meter.OK, 2, 230, 0)
		expect("ok", "q", "work", meter.OK, 2, 200, 0)
		expect("ok", "p", "size", meter.OK, 2, 612.5, 0)
		expect("ok", "p", "eu", meter.OK, 2, 230, 0)
		expect("failed", "p", "work", meter.Failed, 1, 50, 0)
		expect("failed", "q", "work", meter.Failed, 1, 250, 0) // with the time in the queue
		expect("failed", "p", "size", meter.Failed, 0, 0, 1)
		expect("failed", "p", "eu", meter.Failed, 0, 0, 0)
		expect("denied", "p", "work", meter.Rejected, 0, 0, 1)
		expect("denied", "q", "work", meter.Rejected, 1, 0, 0)
		expect("denied", "p", "size", meter.Rejected, 1, 7, 0)
		expect("elsewhere", "p", "elsewhere", meter.OK, 0, 0, 0)

		f := e.Start(context.Background(), &Request{ControlPoint: "cp", Labels: map[string]string{"bytes": "1"}, NoEnd: true})
		f.Free()
		expect("nobody ends it", "p", "size", meter.OK, 3, 613.5, 0)
		expect("nobody ends it", "p", "work", meter.OK, 2, 230, 1)

		// A meter that stays the same keeps its counts, one with other buckets begins anew, and one that is
		// gone is ignored by old tokens.
		last := wait(context.Background(), e, "elsewhere")
		old := last.Seal(nil)
		last.Free()
		changed := *meters[2]
		changed.Bounds = []float64{1}
		if err := e.Publish(Set{Meters: []*MeterSpec{meters[0], &changed}}); err != nil {
			t.Fatal(err)
		}
		if _, err := e.EndToken(old, &Outcome{}); err != nil {
			t.Error(err)
		}
		expect("after the edit", "p", "work", meter.OK, 2, 230, 1)
		expect("after the edit", "p", "size", meter.OK, 0, 0, 0)
	})
}

func TestMetersOfUnlimitedControlPoints(t *testing.T) {
	e := newEngine(t)
	if err := e.Publish(Set{Meters: []*MeterSpec{meterSpec("p", "m", meter.FlowDuration, label.Expr{})}}); err != nil {
		t.Fatal(err)
	}
	f := start(e, "cp")
	if f.Verdict.Reason != NoPolicy {
		t.Errorf("%v, want no_policy", f.Verdict.Reason)
	}
	f.End(Outcome{Duration: time.Second})
	if n, _, _ := read(t, e, "p", "m", meter.OK); n != 1 {
		t.Errorf("%d flows measured", n)
	}
	if r := reason(e, "", "x", "y"); r != InvalidRequest {
		t.Error(r)
	}
	shape, err := NewShape("cp", []string{"a"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	g := e.Start(context.Background(), &Request{Shape: shape}) // a value is missing: denied before anything matched
	if g.Verdict.Reason != InvalidRequest {
		t.Error(g.Verdict.Reason)
	}
	g.Free()
	if n, _, invalid := read(t, e, "p", "m", meter.Rejected); n+invalid != 0 {
		t.Errorf("%d flows that make no sense were measured", n+invalid)
	}
}

func TestPublishRefusesBadMeters(t *testing.T) {
	e := newEngine(t)
	bad := meterSpec("p", "m", meter.FlowDuration, label.Expr{})
	bad.Bounds = nil
	same := meterSpec("p", "m", "other", label.Expr{})
	for want, meters := range map[string][]*MeterSpec{
		"0 buckets":            {bad},
		"cannot be told apart": {meterSpec("p", "m", meter.FlowDuration, label.Expr{}), same},
	} {
		if err := e.Publish(Set{Meters: meters}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want …%s…", err, want)
		}
	}
}

func TestFromFluxMeters(t *testing.T) {
	in := map[string]policy.FluxMeter{
		"b": {AttributeKey: "workload_duration_ms", LinearBuckets: &policy.LinearBuckets{Start: 1, Width: 2, Count: 3}, Selectors: []policy.Selector{{ControlPoint: "cp", Service: "any"}}},
		"a": {AttributeKey: "size", Selectors: []policy.Selector{{ControlPoint: "cp", Service: "s"}}},
		"c": {AttributeKey: "x", ExponentialBuckets: &policy.ExponentialBuckets{Start: 1, Factor: 2, Count: 3}},
		"d": {AttributeKey: "x", ExponentialBucketsRange: &policy.ExponentialBucketsRange{Min: 1, Max: 100, Count: 3}},
		"e": {AttributeKey: "x", StaticBuckets: &policy.StaticBuckets{Buckets: []float64{1, 2}}},
	}
	got, err := FromFluxMeters("p", in)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]float64{"a": defaultBounds, "b": {1, 3, 5}, "c": {1, 2, 4}, "d": {1, 10, 100}, "e": {1, 2}}
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		if got[i].Name != name || got[i].Policy != "p" || !slices.Equal(got[i].Bounds, want[name]) {
			t.Errorf("%s: %+v", name, got[i].Spec)
		}
	}
	if got[0].Selectors[0].Service != "s" || got[1].Selectors[0].Service != "" {
		t.Errorf("%+v %+v", got[0].Selectors, got[1].Selectors)
	}
	in["f"] = policy.FluxMeter{AttributeKey: "x", LinearBuckets: &policy.LinearBuckets{Start: 1e300, Width: 1, Count: 3}}
	if _, err := FromFluxMeters("p", in); err == nil || !strings.Contains(err.Error(), "use larger steps") {
		t.Errorf("bounds that do not grow: %v", err)
	}
}

func TestMetersAllocateNothing(t *testing.T) {
	e := newEngine(t)
	var meters []*MeterSpec
	for i := range 200 { // more than fit into the bits of a flow
		meters = append(meters, meterSpec("p", fmt.Sprint(i), meter.WorkloadDuration, label.Expr{}))
	}
	if err := e.Publish(Set{Limiters: []*LimiterSpec{rateSpec(1, "cp", "user", label.Expr{}, wide)}, Meters: meters}); err != nil {
		t.Fatal(err)
	}
	shape, err := NewShape("cp", []string{"user"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := Request{Shape: shape, Values: []string{"a"}}
	if n := testing.AllocsPerRun(1000, func() { e.Start(context.Background(), &r).End(Outcome{}) }); n > 0 {
		t.Errorf("%v allocations per flow", n)
	}
}

// TestCompatMetrics follows flows through every kind of limiter to the names that existing policies query.
func TestCompatMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := slotSpec(ConcurrencyScheduler, 1, "cp", "", 2)
		slots.Hash, slots.Scheduler.WorkloadKey = "h", "workload"
		rate := rateSpec(2, "cp", "user", label.Expr{}, limit.BucketRule{Capacity: 2, Interval: time.Hour, Continuous: true})
		load := loadSpec(3, "cp")
		load.Selectors[0].Match = label.Equal("workload", "a")
		load.TokensKey = ""
		e := newEngine(t, slots, rate, load, constantSampler(4, 100), slotSpec(ConcurrencyLimiter, 5, "cp", "", 9))
		for range 3 { // two of ann's pass
			if f := start(e, "cp", "workload", "a", "user", "ann"); f.Admitted() {
				time.Sleep(100 * time.Millisecond)
				f.End(Outcome{})
			} else {
				f.Free()
			}
		}
		a, b := start(e, "cp", "workload", "b"), start(e, "cp", "workload", "b")
		steer(e, 3, setpoint.Setpoint{LoadMultiplier: 0})
		reason(e, "cp", "workload", "a") // slots are taken
		a.Abort()
		reason(e, "cp", "workload", "a") // the load scheduler denies
		b.End(Outcome{})

		edited := *slots
		edited.Hash = "h2"
		if err := e.Publish(Set{Limiters: []*LimiterSpec{&edited, rate, load, constantSampler(4, 100), slotSpec(ConcurrencyLimiter, 5, "cp", "", 9)}}); err != nil {
			t.Fatal(err)
		}
		const want = `
# HELP workload_requests_total Flows of a workload by the verdict on the whole flow; limiter_dropped tells whether this scheduler denied them.
# TYPE workload_requests_total counter
workload_requests_total{component_id="root.0",decision_type="DECISION_TYPE_ACCEPTED",limiter_dropped="false",policy_hash="h",policy_name="policy-3",workload_index="a"} 2
workload_requests_total{component_id="root.0",decision_type="DECISION_TYPE_REJECTED",limiter_dropped="false",policy_hash="h",policy_name="policy-3",workload_index="a"} 0
workload_requests_total{component_id="root.0",decision_type="DECISION_TYPE_REJECTED",limiter_dropped="true",policy_hash="h",policy_name="policy-3",workload_index="a"} 1
workload_requests_total{component_id="root.0",decision_type="DECISION_TYPE_ACCEPTED",limiter_dropped="false",policy_hash="h",policy_name="policy-3",workload_index="default"} 0
workload_requests_total{component_id="root.0",decision_type="DECISION_TYPE_REJECTED",limiter_dropped="false",policy_hash="h",policy_name="policy-3",workload_index="default"} 0
workload_requests_total{component_id="root.0",decision_type="DECISION_TYPE_REJECTED",limiter_dropped="true",policy_hash="h",policy_name="policy-3",workload_index="default"} 0
workload_requests_total{component_id="root.0",decision_type="DECISION_TYPE_ACCEPTED",limiter_dropped="false",policy_hash="h2",policy_name="policy-1",workload_index="a"} 2
workload_requests_total{component_id="root.0",decision_type="DECISION_TYPE_REJECTED",limiter_dropped="false",policy_hash="h2",policy_name="policy-1",workload_index="a"} 1
workload_requests_total{component_id="root.0",decision_type="DECISION_TYPE_REJECTED",limiter_dropped="true",policy_hash="h2",policy_name="policy-1",workload_index="a"} 1
workload_requests_total{component_id="root.0",decision_type="DECISION_TYPE_ACCEPTED",limiter_dropped="false",policy_hash="h2",policy_name="policy-1",workload_index="b"} 2
workload_requests_total{component_id="root.0",decision_type="DECISION_TYPE_REJECTED",limiter_dropped="false",policy_hash="h2",policy_name="policy-1",workload_index="b"} 0
workload_requests_total{component_id="root.0",decision_type="DECISION_TYPE_REJECTED",limiter_dropped="true",policy_hash="h2",policy_name="policy-1",workload_index="b"} 0
workload_requests_total{component_id="root.0",decision_type="DECISION_TYPE_ACCEPTED",limiter_dropped="false",policy_hash="h2",policy_name="policy-1",workload_index="default"} 0
workload_requests_total{component_id="root.0",decision_type="DECISION_TYPE_REJECTED",limiter_dropped="false",policy_hash="h2",policy_name="policy-1",workload_index="default"} 0
workload_requests_total{component_id="root.0",decision_type="DECISION_TYPE_REJECTED",limiter_dropped="true",policy_hash="h2",policy_name="policy-1",workload_index="default"} 0
# HELP workload_latency_ms How long the work of the ended flows of a workload took, without the time in queues.
# TYPE workload_latency_ms summary
workload_latency_ms_sum{component_id="root.0",policy_hash="h",policy_name="policy-3",workload_index="a"} 200
workload_latency_ms_count{component_id="root.0",policy_hash="h",policy_name="policy-3",workload_index="a"} 2
workload_latency_ms_sum{component_id="root.0",policy_hash="h",policy_name="policy-3",workload_index="default"} 0
workload_latency_ms_count{component_id="root.0",policy_hash="h",policy_name="policy-3",workload_index="default"} 0
workload_latency_ms_sum{component_id="root.0",policy_hash="h2",policy_name="policy-1",workload_index="a"} 200
workload_latency_ms_count{component_id="root.0",policy_hash="h2",policy_name="policy-1",workload_index="a"} 2
workload_latency_ms_sum{component_id="root.0",policy_hash="h2",policy_name="policy-1",workload_index="b"} 0
workload_latency_ms_count{component_id="root.0",policy_hash="h2",policy_name="policy-1",workload_index="b"} 1
workload_latency_ms_sum{component_id="root.0",policy_hash="h2",policy_name="policy-1",workload_index="default"} 0
workload_latency_ms_count{component_id="root.0",policy_hash="h2",policy_name="policy-1",workload_index="default"} 0
# HELP rate_limiter_counter_total Flows that came to a rate limiter, by the verdict on the whole flow; limiter_dropped tells whether this limiter denied them.
# TYPE rate_limiter_counter_total counter
rate_limiter_counter_total{component_id="root.0",decision_type="DECISION_TYPE_ACCEPTED",limiter_dropped="false",policy_hash="",policy_name="policy-2"} 4
rate_limiter_counter_total{component_id="root.0",decision_type="DECISION_TYPE_REJECTED",limiter_dropped="false",policy_hash="",policy_name="policy-2"} 2
rate_limiter_counter_total{component_id="root.0",decision_type="DECISION_TYPE_REJECTED",limiter_dropped="true",policy_hash="",policy_name="policy-2"} 1
# HELP sampler_counter_total Flows that came to a sampler or load ramp, by the verdict on the whole flow; sampler_dropped tells whether it denied them.
# TYPE sampler_counter_total counter
sampler_counter_total{component_id="root.0",decision_type="DECISION_TYPE_ACCEPTED",policy_hash="h",policy_name="policy-4",sampler_dropped="false"} 4
sampler_counter_total{component_id="root.0",decision_type="DECISION_TYPE_REJECTED",policy_hash="h",policy_name="policy-4",sampler_dropped="false"} 3
sampler_counter_total{component_id="root.0",decision_type="DECISION_TYPE_REJECTED",policy_hash="h",policy_name="policy-4",sampler_dropped="true"} 0
# HELP incoming_tokens_total Tokens that the flows which came to a scheduler asked for.
# TYPE incoming_tokens_total counter
incoming_tokens_total{component_id="root.0",policy_hash="h",policy_name="policy-3"} 3
incoming_tokens_total{component_id="root.0",policy_hash="h2",policy_name="policy-1"} 6
# HELP rejected_tokens_total Tokens of the flows that came to a scheduler and were denied, by it or by another limiter.
# TYPE rejected_tokens_total counter
rejected_tokens_total{component_id="root.0",policy_hash="h",policy_name="policy-3"} 1
rejected_tokens_total{component_id="root.0",policy_hash="h2",policy_name="policy-1"} 2
# HELP token_bucket_lm_ratio Load multiplier in force at a load scheduler; absent while everything passes.
# TYPE token_bucket_lm_ratio gauge
token_bucket_lm_ratio{component_id="root.0",policy_hash="h",policy_name="policy-3"} 0
# HELP flowcontrol_requests_total Flows decided.
# TYPE flowcontrol_requests_total counter
flowcontrol_requests_total{control_point="cp"} 7
# HELP flowcontrol_decisions_total Flows decided, by verdict.
# TYPE flowcontrol_decisions_total counter
flowcontrol_decisions_total{control_point="cp",decision_type="DECISION_TYPE_ACCEPTED"} 4
flowcontrol_decisions_total{control_point="cp",decision_type="DECISION_TYPE_REJECTED"} 3
# HELP flowcontrol_reject_reasons_total Denied flows, by reason.
# TYPE flowcontrol_reject_reasons_total counter
flowcontrol_reject_reasons_total{control_point="cp",reject_reason="REJECT_REASON_NO_TOKENS"} 2
flowcontrol_reject_reasons_total{control_point="cp",reject_reason="REJECT_REASON_RATE_LIMITED"} 1
# HELP flowcontrol_ends_total Flows that ended.
# TYPE flowcontrol_ends_total counter
flowcontrol_ends_total{control_point="cp"} 3
`
		if err := testutil.CollectAndCompare(e.CompatCollector(), strings.NewReader(want),
			"workload_requests_total", "workload_latency_ms", "rate_limiter_counter_total", "sampler_counter_total", "incoming_tokens_total",
			"rejected_tokens_total", "token_bucket_lm_ratio", "flowcontrol_requests_total", "flowcontrol_decisions_total",
			"flowcontrol_reject_reasons_total", "flowcontrol_ends_total"); err != nil {
			t.Error(err)
		}
	})
}

// TestHostileNamesDoNotSpoilMetrics: names come from callers, and one series twice spoils the whole answer.
func TestHostileNamesDoNotSpoilMetrics(t *testing.T) {
	spec := loadSpec(1, "cp")
	e := newEngine(t, spec, slotSpec(ConcurrencyScheduler, 2, "cp", "", 1e6))
	long := strings.Repeat("x", 100)
	names := []string{long + "1", long + "2", "a\x00", "a\x01", "a·", "\xff", "\xfe", "�", "", strings.Repeat("y", 300), strings.Repeat("y", 299)}
	for _, name := range names {
		start(e, "cp", "workload", name).Free()
		start(e, "cp"+name, "workload", name).Free()
		for _, other := range names {
			if name != other && seriesName(name) == seriesName(other) {
				t.Errorf("%q and %q are one series", name, other)
			}
		}
		if n := seriesName(name); seriesName(n) == n && n != name {
			t.Errorf("a caller may name a workload %q, which is what %q becomes", n, name)
		}
	}
	r := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{e.Collector(), e.CompatCollector()} {
		if err := r.Register(c); err != nil {
			t.Fatal(err)
		}
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) < 20 || !slices.ContainsFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == "workload_requests_total" }) {
		t.Errorf("%d families", len(families))
	}
}

// FuzzEndToken reads whatever is sealed with the right key: nothing crashes, nothing is given back that was not
// taken, and every flow ends once.
func FuzzEndToken(f *testing.F) {
	m, e := fuzzEngine(f)
	for _, labels := range [][]string{{"user", "ann", "tokens", "3"}, {"workload", "w"}} {
		fl := start(e, "cp", labels...)
		token := fl.Seal(nil)
		plain, err := e.sealer.Open(nil, token[:nonceSize], token[nonceSize:], nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(plain)
		plain[0] = 1
		f.Add(plain)
		fl.Free()
	}
	_ = m
	f.Fuzz(func(t *testing.T, plain []byte) {
		nonce := e.nonce.count.Add(1)
		head := append(make([]byte, 4), byte(nonce), byte(nonce>>8), byte(nonce>>16), byte(nonce>>24), 0, 0, 0, 0)
		token := e.sealer.Seal(head, head, plain, nil)
		released, err := e.ReleaseToken(token)
		ended, endErr := e.EndToken(token, &Outcome{Duration: -1, HTTPStatus: -1})
		if (err == nil) != (endErr == nil) || released == AlreadyEnded || ended == AlreadyEnded {
			t.Errorf("release: %s, %v; end: %s, %v", released, err, ended, endErr)
		}
		if again, _ := e.EndToken(token, &Outcome{}); err == nil && again != AlreadyEnded {
			t.Errorf("end again: %s", again)
		}
	})
}

func fuzzEngine(tb testing.TB) (*LimiterSpec, *Engine) {
	rate := rateSpec(2, "cp", "user", label.Expr{}, perSecond(5))
	rate.TokensKey = "tokens"
	e := newEngine(tb, slotSpec(ConcurrencyScheduler, 1, "cp", "", 5), rate, loadSpec(3, "cp"), drivenSlots(AdaptiveConcurrencyScheduler, 4), samplerSpec(5, false))
	steer(e, 4, setpoint.Setpoint{MaxConcurrency: 5})
	return rate, e
}

// TestMetersReadTheOutcome: HTTP statuses make series, explicit durations win over the clock, and attributes count
// where no label of the start does. It is the same by token.
func TestMetersReadTheOutcome(t *testing.T) {
	for _, tokens := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			e := newEngine(t)
			publish(t, e, Set{Meters: []*MeterSpec{
				meterSpec("p", "work", meter.WorkloadDuration, label.Expr{}), meterSpec("p", "flow", meter.FlowDuration, label.Expr{}),
				meterSpec("p", "bytes", "bytes", label.Expr{}),
			}})
			for _, tt := range []struct {
				name   string
				bytes  string // label at the start; "": none
				o      Outcome
				status int
				want   map[string]float64 // what is measured; -1: invalid
				failed bool
			}{
				{"clock", "", Outcome{}, 0, map[string]float64{"work": 50, "flow": 50, "bytes": -1}, false},
				{"label", "7", Outcome{Attributes: map[string]float64{"bytes": 8}}, 0, map[string]float64{"work": 50, "flow": 50, "bytes": 7}, false},
				{"text", "many", Outcome{Attributes: map[string]float64{"bytes": 8}}, 0, map[string]float64{"work": 50, "flow": 50, "bytes": -1}, false},
				{"attribute", "", Outcome{Attributes: map[string]float64{"bytes": 8}}, 0, map[string]float64{"work": 50, "flow": 50, "bytes": 8}, false},
				{"not finite", "", Outcome{Attributes: map[string]float64{"bytes": math.Inf(1)}}, 0, map[string]float64{"work": 50, "flow": 50, "bytes": -1}, false},
				{"durations", "", Outcome{Attributes: map[string]float64{meter.WorkloadDuration: 20.5, meter.FlowDuration: 1e3}}, 0, map[string]float64{"work": 20.5, "flow": 1e3, "bytes": -1}, false},
				{"explicit", "", Outcome{Duration: time.Second, Attributes: map[string]float64{meter.WorkloadDuration: 20}}, 0, map[string]float64{"work": 1000, "flow": 50, "bytes": -1}, false},
				{"no durations", "", Outcome{Attributes: map[string]float64{meter.WorkloadDuration: -1, meter.FlowDuration: math.NaN()}}, 0, map[string]float64{"work": 50, "flow": 50, "bytes": -1}, false},
				{"a very long time", "", Outcome{Attributes: map[string]float64{meter.WorkloadDuration: 1e300}}, 0, map[string]float64{"work": milliseconds(longestWork), "flow": 50, "bytes": -1}, false},
				{"ok", "", Outcome{HTTPStatus: 201, Failed: true}, 201, map[string]float64{"work": 50, "flow": 50, "bytes": -1}, false},
				{"not found", "", Outcome{HTTPStatus: 404}, 404, map[string]float64{"work": 50, "flow": 50, "bytes": -1}, true},
				{"no status", "", Outcome{HTTPStatus: 42, Failed: true}, 0, map[string]float64{"work": 50, "flow": 50, "bytes": -1}, true},
			} {
				outcome := meter.OK
				if tt.failed {
					outcome = meter.Failed
				}
				before := make(map[string]meter.Reading)
				for name := range tt.want {
					before[name] = e.meters[meterKey{"p", name}].Read(outcome, tt.status)
				}
				kv := []string{"bytes", tt.bytes}
				if tt.bytes == "" {
					kv = nil
				}
				f := start(e, "cp", kv...)
				token := f.Seal(nil)
				time.Sleep(50 * time.Millisecond)
				if tokens {
					f.Free()
					if _, err := e.EndToken(token, &tt.o); err != nil {
						t.Fatal(err)
					}
				} else {
					f.End(tt.o)
				}
				for name, want := range tt.want {
					r, was := e.meters[meterKey{"p", name}].Read(outcome, tt.status), before[name]
					last := len(r.Buckets) - 1
					switch {
					case want < 0 && r.Invalid != was.Invalid+1:
						t.Errorf("%s: meter %s did not find that invalid", tt.name, name)
					case want >= 0 && (r.Buckets[last] != was.Buckets[last]+1 || math.Abs(r.Sum-was.Sum-want) > 1e-6):
						t.Errorf("%s: meter %s measured %v in %d flows, want %v", tt.name, name, r.Sum-was.Sum, r.Buckets[last]-was.Buckets[last], want)
					}
				}
			}
		})
	}
}
