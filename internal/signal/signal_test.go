// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// logBuffer is a log that tests read.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// bench is a service over a directory of its own.
type bench struct {
	*Service
	registry *prometheus.Registry // what is measured
	log      *logBuffer
	dir      string
}

// open opens a service; change may change its configuration.
func open(t testing.TB, dir string, change func(*Config)) *bench {
	t.Helper()
	b := &bench{registry: prometheus.NewRegistry(), log: &logBuffer{}, dir: dir}
	c := DefaultConfig()
	c.Dir, c.Gatherer, c.Registerer = dir, b.registry, prometheus.NewRegistry()
	c.Logger = slog.New(slog.NewTextHandler(b.log, nil))
	if change != nil {
		change(&c)
	}
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	b.Service = s
	if s.store != nil {
		<-s.store.opened // the machine may be slow
	}
	t.Cleanup(s.Close)
	return b
}

// tick is a tick of the control plane.
func (b *bench) tick(t testing.TB, now time.Time) {
	t.Helper()
	if err := b.Collect(t.Context(), now); err != nil {
		t.Fatalf("collect at %v: %v", now, err)
	}
	if late := b.Step(t.Context(), now, 10*time.Second); late != 0 {
		t.Fatalf("%d queries late at %v", late, now)
	}
}

// value asks a query for a time; the text is the value or the kind of error.
func (b *bench) value(t testing.TB, expr string, at time.Time) string {
	t.Helper()
	a, err := b.evaluate(t.Context(), expr, at)
	r := a.reading("", err)
	if r.Err != nil {
		return KindOf(r.Err).String()
	}
	return fmt.Sprint(r.Value)
}

func subscribe(t testing.TB, s *Service, expr string, interval time.Duration) *Subscription {
	t.Helper()
	sub, err := s.Subscribe(Query{Expr: expr, Interval: interval, Policy: "p", Component: "root.0"})
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

// start is when the clocks of tests begin.
var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func TestWhatIsCountedBeforeATickIsReadInIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, t.TempDir(), nil)
		requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests_total"}, []string{"code"})
		b.registry.MustRegister(requests)
		all := subscribe(t, b.Service, `sum(increase(requests_total[10s]))`, time.Second)
		if r := all.Reading(); r.Valid() || KindOf(r.Err) != KindPending || !r.At.IsZero() {
			t.Errorf("before the first tick: %+v", r)
		}
		for range 30 {
			b.tick(t, time.Now())
			time.Sleep(time.Second)
		}
		if r := all.Reading(); KindOf(r.Err) != KindEmpty {
			t.Errorf("without series: %+v", r)
		}
		requests.WithLabelValues("500").Add(7) // a series that is born with its first events
		now := time.Now()
		b.tick(t, now)
		r := all.Reading()
		// increase extrapolates to half an interval beyond the first and last sample, and never below zero.
		if !(r.Value >= 7 && r.Value <= 11) || r.Err != nil || !r.At.Equal(now) || r.Evaluations != 31 {
			t.Errorf("in the same tick: %+v, want about 7", r)
		}
	})
}

func TestAnHourOfTicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, t.TempDir(), nil)
		requests := prometheus.NewCounter(prometheus.CounterOpts{Name: "requests_total"})
		latency := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "latency_seconds", Buckets: []float64{.01, .1, 1}})
		b.registry.MustRegister(requests, latency)
		rate := subscribe(t, b.Service, `rate(requests_total[10s])`, time.Second)
		p90 := subscribe(t, b.Service, `histogram_quantile(0.9, sum by (le) (rate(latency_seconds_bucket[10s])))`, 10*time.Second)
		for i := range 3600 {
			time.Sleep(time.Second)
			requests.Add(500)
			latency.Observe(0.05)
			b.tick(t, time.Now())
			if i < 11 {
				continue
			}
			if v := rate.Reading().Value; math.Abs(v-500) > 1 {
				t.Fatalf("rate %v at second %d, want 500", v, i)
			}
			if v := p90.Reading().Value; math.Abs(v-0.091) > 1e-6 {
				t.Fatalf("quantile %v at second %d, want 0.091", v, i)
			}
		}
		if n := rate.Reading().Evaluations; n != 3600 {
			t.Errorf("%d evaluations at 1 s, want 3600", n)
		}
		if n := p90.Reading().Evaluations; n != 361 { // at the first tick, then at the multiples of 10 s
			t.Errorf("%d evaluations at 10 s, want 361", n)
		}
	})
}

func TestReadings(t *testing.T) {
	b := open(t, t.TempDir(), nil)
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "depth"}, []string{"queue"})
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "native", NativeHistogramBucketFactor: 1.1})
	b.registry.MustRegister(g, h)
	g.WithLabelValues("a").Set(3)
	g.WithLabelValues("b").Set(4)
	h.Observe(2)
	b.tick(t, start)
	for _, c := range []struct{ expr, want string }{
		{`sum(depth)`, "7"},
		{`depth{queue="a"}`, "3"},
		{`scalar(sum(depth))`, "7"},
		{`vector(1)/0`, "+Inf"},
		{`-1/0`, "-Inf"},
		{`vector(0)/0`, "not a number"},
		{`0/0`, "not a number"},
		{`depth`, "many-valued"},
		{`depth{queue="c"}`, "empty"},
		{`nothing`, "empty"},
		{`native`, "not a number"},
		{`histogram_count(native)`, "1"},
		{`label_replace(depth, "__name__", "x", "", "") + on () depth`, "invalid"},
	} {
		if got := b.value(t, c.expr, start); got != c.want {
			t.Errorf("%s = %s, want %s", c.expr, got, c.want)
		}
	}
}

func TestReadingsByLabel(t *testing.T) {
	b := open(t, t.TempDir(), nil)
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "latency"}, []string{"workload", "zone"})
	b.registry.MustRegister(g)
	for i, w := range []string{"gold", "silver"} {
		for j, z := range []string{"x", "y"} {
			g.WithLabelValues(w, z).Set(float64(10*i + j))
		}
	}
	ask := func(expr string) Reading {
		s, err := b.Subscribe(Query{Expr: expr, Interval: time.Second, ByLabel: "workload"})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		b.tick(t, start)
		return s.Reading()
	}
	if r := ask(`max by (workload) (latency)`); fmt.Sprint(r.ByLabel) != "map[gold:1 silver:11]" || r.Value != 2 {
		t.Errorf("table: %+v", r)
	}
	if r := ask(`latency`); KindOf(r.Err) != KindMany || r.ByLabel != nil {
		t.Errorf("two values for one label: %+v", r)
	}
	if r := ask(`1`); KindOf(r.Err) != KindInvalid {
		t.Errorf("scalar: %+v", r)
	}
	if r := ask(`sum by (workload) (nothing)`); r.Err != nil || len(r.ByLabel) != 0 || r.Value != 0 {
		t.Errorf("no workloads: %+v", r)
	}
}

func TestCheckQuery(t *testing.T) {
	for _, c := range []struct{ expr, want string }{
		{`sum(rate(x[5m]))`, ""},
		{`1`, ""},
		{``, "empty"},
		{" \n", "empty"},
		{`sum(`, "line 1, column 5: "},
		{"sum(\n  rate(x[5m)\n)", "line 2, column 12: "},
		{`x[5m]`, "want a scalar or an instant vector: put it into a function such as rate"},
		{`"text"`, "the result is a string"},
		{`nosuch(x)`, "unknown function"},
		{`{}`, "at least one non-empty matcher"},
		{`sum by (`, "line 1, column "},
		{strings.Repeat("(", 5000), "more than 100 parentheses"},
		{strings.Repeat("1+", MostQuery/2) + "1", "at most 16384"},
	} {
		err := CheckQuery(c.expr)
		if c.want == "" && err != nil {
			t.Errorf("%q: %v", c.expr, err)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || KindOf(err) != KindInvalid) {
			t.Errorf("%q: got %v, want it to contain %q", c.expr, err, c.want)
		}
	}
}

func FuzzCheckQuery(f *testing.F) {
	for _, s := range []string{`sum(rate(x[5m]))`, `x{a="b"} offset 5m @ 3`, "a\n+ b)", `{"é.x"}`, `sum by (`, "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, expr string) {
		e, problem := parse(expr)
		if problem != nil {
			if problem.Text == "" {
				t.Errorf("%q is wrong for no reason", expr)
			}
			return
		}
		text, err := enforce(e, map[string]string{"tenant": "a\"b"})
		if err != nil {
			t.Fatal(err)
		}
		if CheckQuery(text) != nil {
			t.Errorf("%q became %q, which is wrong: %v", expr, text, CheckQuery(text))
		}
	})
}

func TestEnforcedLabels(t *testing.T) {
	b := open(t, t.TempDir(), func(c *Config) { c.EnforceLabels = map[string]string{"tenant": "a", "zone": "z"} })
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "load"}, []string{"tenant", "zone"})
	b.registry.MustRegister(g)
	g.WithLabelValues("a", "z").Set(1)
	g.WithLabelValues("a", "y").Set(10)
	g.WithLabelValues("b", "z").Set(100)
	for expr, want := range map[string]float64{
		`sum(load)`:                           1,
		`sum(load) + sum(load)`:               2,
		`sum(load{tenant="b"}) or vector(-1)`: -1, // nothing is both
		`sum(load{tenant=~".*"})`:             1,
		`max_over_time(sum(load)[5s:1s])`:     1,
		`sum({__name__="load"} offset 0s)`:    1,
	} {
		s := subscribe(t, b.Service, expr, time.Second)
		b.tick(t, start)
		if r := s.Reading(); r.Value != want {
			t.Errorf("%s = %v (%v), want %v", expr, r.Value, r.Err, want)
		}
		s.Close()
	}
}

func TestEqualQueriesAreEvaluatedOnce(t *testing.T) {
	b := open(t, t.TempDir(), nil)
	one, two := subscribe(t, b.Service, `1 + 1`, time.Second), subscribe(t, b.Service, `1+1`, time.Second)
	other := subscribe(t, b.Service, `1+1`, 2*time.Second)
	if n := b.Status().Queries; n != 2 {
		t.Errorf("%d queries, want 2", n)
	}
	b.tick(t, start)
	if one.Reading().Evaluations != 1 || two.Reading().Evaluations != 1 || one.Reading().Value != 2 {
		t.Errorf("%+v, %+v", one.Reading(), two.Reading())
	}
	one.Close()
	one.Close() // the second time it does nothing
	b.tick(t, start.Add(time.Second))
	if n := two.Reading().Evaluations; n != 2 {
		t.Errorf("%d evaluations after another subscription was closed, want 2", n)
	}
	two.Close()
	other.Close()
	if n := b.Status().Queries; n != 0 {
		t.Errorf("%d queries are left", n)
	}
}

func TestSeriesEndAndComeBack(t *testing.T) {
	b := open(t, t.TempDir(), nil)
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "depth"}, []string{"queue"})
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "lat", Buckets: []float64{1}, NativeHistogramBucketFactor: 1.1}, []string{"queue"})
	b.registry.MustRegister(g, h)
	for _, q := range []string{"a", "b", "c"} {
		g.WithLabelValues(q).Set(1)
		h.WithLabelValues(q).Observe(1)
	}
	b.tick(t, start)
	count := func(at time.Time, want string) {
		t.Helper()
		for _, expr := range []string{`count(depth)`, `count(lat)`, `count(lat_bucket)/2`, `count(lat_sum)`} {
			if got := b.value(t, expr, at); got != want {
				t.Errorf("%s = %s after %v, want %s", expr, got, at.Sub(start), want)
			}
		}
	}
	count(start, "3")
	g.DeleteLabelValues("b")
	h.DeleteLabelValues("b")
	b.tick(t, start.Add(time.Second))
	count(start.Add(time.Second), "2")
	g.WithLabelValues("b").Set(1)
	h.WithLabelValues("b").Observe(1)
	b.tick(t, start.Add(2*time.Second))
	count(start.Add(2*time.Second), "3")
	g.Reset()
	h.Reset()
	b.tick(t, start.Add(3*time.Second))
	count(start.Add(3*time.Second), "empty")
	if n := len(b.collector.families); n != 0 {
		t.Errorf("%d families are remembered", n)
	}
}

// A policy that is changed may give its meter other buckets.
func TestBucketsChange(t *testing.T) {
	b := open(t, t.TempDir(), nil)
	make := func(buckets ...float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "lat", Buckets: buckets}, nil)
	}
	h := make(1, 2, 4)
	b.registry.MustRegister(h)
	h.WithLabelValues().Observe(3)
	b.tick(t, start)
	b.registry.Unregister(h)
	h = make(1, 3)
	b.registry.MustRegister(h)
	h.WithLabelValues().Observe(3)
	b.tick(t, start.Add(time.Second))
	if got := b.value(t, `count(lat_bucket)`, start.Add(time.Second)); got != "3" {
		t.Errorf("%s buckets, want 1, 3 and +Inf", got)
	}
}

func TestTheFileOfTargetsIsChecked(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"rule_files: [x]\n", "rule_files: Sluice scrapes and does nothing else"},
		{"scrape_configs: [{job_name: a, kubernetes_sd_configs: [{role: pod}]}]\n", "scrape_configs[0].kubernetes_sd_configs: targets are found by static_configs and file_sd_configs only"},
		{"scrape_configs: [{job_name: a, static_config: []}]\n", "static_config not found"},
		{"scrape_configs: [{job_name: sluice, static_configs: []}]\n", "want another name"},
		{"scrape_configs: [{job_name: a}, {job_name: a}]\n", "multiple scrape configs with job name"},
		{"scrape_config_files: [more.yaml]\n", "more.yaml: remote_write: Sluice scrapes"},
		{"{", ""},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "prometheus.yaml")
		write(t, file, c.text)
		write(t, filepath.Join(dir, "more.yaml"), "remote_write: []\n")
		cfg := DefaultConfig()
		cfg.Dir, cfg.ScrapeConfigFile = filepath.Join(dir, "signals"), file
		_, err := Open(t.Context(), cfg)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%q: got %v, want it to contain %q", c.text, err, c.want)
		}
	}
	cfg := DefaultConfig()
	cfg.Dir, cfg.ScrapeConfigFile = t.TempDir(), "/nosuch"
	if _, err := Open(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "scrape_config_file") {
		t.Errorf("no file: %v", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestMetricsOfItsOwn(t *testing.T) {
	r := prometheus.NewRegistry()
	b := open(t, t.TempDir(), func(c *Config) { c.Registerer, c.Gatherer = r, r })
	subscribe(t, b.Service, `nothing`, time.Second)
	b.tick(t, start)
	b.tick(t, start.Add(time.Second))
	if n := testutil.ToFloat64(b.metrics.failures.WithLabelValues("empty")); n != 2 {
		t.Errorf("%v empty answers counted, want 2", n)
	}
	if got := b.value(t, `sluice_signal_queries`, start.Add(time.Second)); got != "1" {
		t.Errorf("sluice_signal_queries = %s, want 1", got)
	}
	problems, err := testutil.GatherAndLint(r)
	if err != nil || len(problems) > 0 {
		t.Error(err, problems)
	}
}
