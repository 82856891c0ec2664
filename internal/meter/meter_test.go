// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func spec(bounds ...float64) Spec {
	return Spec{Policy: "p", Name: "m", Attribute: WorkloadDuration, Bounds: bounds}
}

func TestBounds(t *testing.T) {
	for _, tt := range []struct {
		name      string
		got, want []float64
	}{
		{"linear", Linear(10, 5, 3), []float64{10, 15, 20}},
		{"linear from below 0", Linear(-1, 1, 3), []float64{-1, 0, 1}},
		{"exponential", Exponential(1, 2, 4), []float64{1, 2, 4, 8}},
		{"range", ExponentialRange(1, 1000, 4), []float64{1, 10, 100, 1000}},
		{"range of one", ExponentialRange(3, 1000, 1), []float64{3}},
		{"none", Linear(1, 1, -1), []float64{}},
	} {
		if len(tt.got) != len(tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, tt.got, tt.want)
			continue
		}
		for i := range tt.got {
			if math.Abs(tt.got[i]-tt.want[i]) > 1e-9*math.Abs(tt.want[i]) {
				t.Errorf("%s: %v, want %v", tt.name, tt.got, tt.want)
			}
		}
	}
	if r := ExponentialRange(0.1, 7.3, 50); r[49] != 7.3 || !slices.IsSorted(r) {
		t.Errorf("a range ends at %v, want exactly 7.3", r[49])
	}
}

func TestValidate(t *testing.T) {
	good := spec(1, 2)
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for want, s := range map[string]Spec{
		"needs a policy":   {Name: "m", Attribute: "a", Bounds: []float64{1}},
		"attribute_key":    {Policy: "p", Name: "m", Bounds: []float64{1}},
		"has 0 buckets":    spec(),
		"finite number":    spec(1, math.Inf(1)),
		"more than the 2":  spec(2, 2),
		"bucket 0 ends at": spec(math.NaN()),
		"1001 buckets":     spec(Linear(0, 1, 1001)...),
	} {
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want …%s…", err, want)
		}
		if _, err := New(s, 1); err == nil {
			t.Errorf("New took a spec that %s", want)
		}
	}
}

// TestHistogram compares with counting by hand, over random values and bounds, some of them equal.
func TestHistogram(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		bounds := Linear(float64(rng.IntN(10)), 1+float64(rng.IntN(5)), 1+rng.IntN(20))
		m, err := New(spec(bounds...), 3)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]uint64, len(bounds)+1)
		sum := 0.0
		for range 500 {
			v := float64(rng.IntN(100)) / 2
			m.Observe(rng.IntN(3), OK, 0, v)
			sum += v
			for i, b := range bounds {
				if v <= b {
					want[i]++
				}
			}
			want[len(bounds)]++
		}
		if r := m.Read(OK, 0); !slices.Equal(r.Buckets, want) || math.Abs(r.Sum-sum) > 1e-6 || r.Invalid != 0 {
			t.Fatalf("bounds %v: %+v, want %v and sum %v", bounds, r, want, sum)
		}
		if r := m.Read(Failed, 0); r.Buckets[len(bounds)] != 0 {
			t.Fatal("flows of one outcome are counted at another")
		}
	}
}

func TestWhatIsNoNumberIsInvalid(t *testing.T) {
	m, err := New(spec(1), 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		m.Observe(0, Rejected, 0, v)
	}
	m.Invalid(0, Rejected, 0)
	if r := m.Read(Rejected, 0); r.Invalid != 4 || r.Buckets[1] != 0 || r.Sum != 0 {
		t.Errorf("%+v", r)
	}
}

func TestIdentity(t *testing.T) {
	a, b := spec(1), spec(1)
	if !a.Same(&b) || a.ID() != b.ID() {
		t.Error("equal specs differ")
	}
	b.Policy = "q"
	if a.Same(&b) || a.ID() == b.ID() {
		t.Error("meters of one name in two policies are the same")
	}
	c := spec(2)
	if a.Same(&c) || a.ID() != c.ID() {
		t.Error("other buckets: not the same meter, under the same id")
	}
	shift := Spec{Policy: "pm", Name: ""}
	if one := (&Spec{Policy: "p", Name: "m"}); shift.ID() == one.ID() {
		t.Error("policy and name run together")
	}
}

func TestObservingAllocatesNothing(t *testing.T) {
	m, err := New(spec(Linear(0, 1, 100)...), 2)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1000, func() { m.Observe(1, OK, 0, 42) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestConcurrentObservations(t *testing.T) {
	m, err := New(spec(10), 2)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for range 1000 {
				m.Observe(g%2, OK, 0, 5)
			}
		})
	}
	wg.Wait()
	if r := m.Read(OK, 0); r.Buckets[0] != 8000 || r.Sum != 40000 {
		t.Errorf("%+v", r)
	}
}

type collected struct{ m []*Meter }

func (collected) Describe(ch chan<- *prometheus.Desc) { Describe(ch) }
func (c collected) Collect(ch chan<- prometheus.Metric) {
	for _, m := range c.m {
		m.Collect(ch)
	}
}

func TestMetrics(t *testing.T) {
	a, err := New(spec(10, 20), 2)
	if err != nil {
		t.Fatal(err)
	}
	other := spec(10)
	other.Policy = "q"
	b, err := New(other, 1)
	if err != nil {
		t.Fatal(err)
	}
	a.Observe(0, OK, 0, 10)
	a.Observe(1, OK, 0, 15)
	a.Observe(1, OK, 0, 30)
	a.Invalid(0, Rejected, 0)
	const want = `
# HELP flux_meter What a flux meter of a policy measures, over the flows that it selects. Flows with an http_status_code of 400 and more, and denied ones, have flow_status Error.
# TYPE flux_meter histogram
flux_meter_bucket{decision_type="DECISION_TYPE_ACCEPTED",flow_status="Error",flux_meter_name="m",http_status_code="",policy_name="p",le="10"} 0
flux_meter_bucket{decision_type="DECISION_TYPE_ACCEPTED",flow_status="Error",flux_meter_name="m",http_status_code="",policy_name="p",le="20"} 0
flux_meter_bucket{decision_type="DECISION_TYPE_ACCEPTED",flow_status="Error",flux_meter_name="m",http_status_code="",policy_name="p",le="+Inf"} 0
flux_meter_sum{decision_type="DECISION_TYPE_ACCEPTED",flow_status="Error",flux_meter_name="m",http_status_code="",policy_name="p"} 0
flux_meter_count{decision_type="DECISION_TYPE_ACCEPTED",flow_status="Error",flux_meter_name="m",http_status_code="",policy_name="p"} 0
flux_meter_bucket{decision_type="DECISION_TYPE_ACCEPTED",flow_status="OK",flux_meter_name="m",http_status_code="",policy_name="p",le="10"} 1
flux_meter_bucket{decision_type="DECISION_TYPE_ACCEPTED",flow_status="OK",flux_meter_name="m",http_status_code="",policy_name="p",le="20"} 2
flux_meter_bucket{decision_type="DECISION_TYPE_ACCEPTED",flow_status="OK",flux_meter_name="m",http_status_code="",policy_name="p",le="+Inf"} 3
flux_meter_sum{decision_type="DECISION_TYPE_ACCEPTED",flow_status="OK",flux_meter_name="m",http_status_code="",policy_name="p"} 55
flux_meter_count{decision_type="DECISION_TYPE_ACCEPTED",flow_status="OK",flux_meter_name="m",http_status_code="",policy_name="p"} 3
flux_meter_bucket{decision_type="DECISION_TYPE_REJECTED",flow_status="Error",flux_meter_name="m",http_status_code="",policy_name="p",le="10"} 0
flux_meter_bucket{decision_type="DECISION_TYPE_REJECTED",flow_status="Error",flux_meter_name="m",http_status_code="",policy_name="p",le="20"} 0
flux_meter_bucket{decision_type="DECISION_TYPE_REJECTED",flow_status="Error",flux_meter_name="m",http_status_code="",policy_name="p",le="+Inf"} 0
flux_meter_sum{decision_type="DECISION_TYPE_REJECTED",flow_status="Error",flux_meter_name="m",http_status_code="",policy_name="p"} 0
flux_meter_count{decision_type="DECISION_TYPE_REJECTED",flow_status="Error",flux_meter_name="m",http_status_code="",policy_name="p"} 0
`
	if err := testutil.CollectAndCompare(collected{[]*Meter{a}}, strings.NewReader(want), "flux_meter"); err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(collected{[]*Meter{a, b}}, "invalid_flux_meter_total"); n != 6 {
		t.Errorf("%d series of two meters of one name, want 6", n)
	}
	if problems, err := testutil.CollectAndLint(collected{[]*Meter{a}}); err != nil {
		t.Error(problems, err)
	}
}

func BenchmarkObserve(b *testing.B) {
	m, err := New(spec(5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000), 8)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m.Observe(i&7, OK, 0, float64(i&1023))
	}
}

// TestStatus: an HTTP status makes a series of its own and decides about success.
func TestStatus(t *testing.T) {
	m, err := New(spec(10), 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []struct {
		said   Outcome
		status int
		in     Outcome // the series it belongs to
		label  int
	}{
		{OK, 0, OK, 0},
		{Failed, 0, Failed, 0},
		{OK, 200, OK, 200},
		{Failed, 302, OK, 302},
		{OK, 400, Failed, 400},
		{OK, 100, OK, 100},
		{Failed, 599, Failed, 599},
		{OK, 99, OK, 0},
		{Failed, 600, Failed, 0},
		{OK, -1, OK, 0},
		{Rejected, 429, Rejected, 429},
		{Rejected, 200, Rejected, 200},
	} {
		before := m.Read(v.in, v.label)
		m.Observe(1, v.said, v.status, 5)
		m.Invalid(0, v.said, v.status)
		after := m.Read(v.in, v.label)
		if n := len(after.Buckets) - 1; after.Buckets[n] != before.Buckets[n]+1 || after.Invalid != before.Invalid+1 {
			t.Errorf("outcome %d with status %d does not count as outcome %d, status %d", v.said, v.status, v.in, v.label)
		}
	}
	all := m.ReadAll()
	if len(all) != 3+7 || all[3].Status != 100 || all[9].Status != 599 {
		t.Errorf("%d series: %+v", len(all), all)
	}
	if r := m.Read(OK, 404); r.Buckets[1] != 0 {
		t.Errorf("a series that nobody made has %+v", r)
	}
}

// TestStatusesAreBounded: whoever reports outcomes cannot make more than so many series, however many goroutines do
// it at once, and no flow is lost.
func TestStatusesAreBounded(t *testing.T) {
	m, err := New(spec(10), 4)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for status := 50; status < 700; status++ {
				m.Observe(g, OK, status, 1)
			}
		})
	}
	wg.Wait()
	all, flows := m.ReadAll(), uint64(0)
	for _, r := range all {
		flows += r.Buckets[1]
	}
	if len(all) != 3+MaxStatuses || flows != 4*650 {
		t.Errorf("%d series with %d flows, want %d with %d", len(all), flows, 3+MaxStatuses, 4*650)
	}
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(collected{[]*Meter{m}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Gather(); err != nil {
		t.Error(err)
	}
	if n := testing.AllocsPerRun(1000, func() { m.Observe(1, OK, 100, 42) }); n != 0 {
		t.Errorf("observing allocates %v times", n)
	}
}
