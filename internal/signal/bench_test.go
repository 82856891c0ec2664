// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// populate makes about 3,600 series of the kinds that Sluice has.
func populate(r *prometheus.Registry) func() {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tokens_total"}, []string{"policy_name", "component_id", "kind"})
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "flux_meter", Buckets: prometheus.ExponentialBuckets(1, 1.6, 10)}, []string{"policy_name", "flow_status"})
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "fill_rate"}, []string{"policy_name"})
	r.MustRegister(c, h, g)
	var change []func()
	for i := range 100 {
		p := fmt.Sprint("policy-", i)
		for j := range 9 {
			one := c.WithLabelValues(p, "root."+strconv.Itoa(j), "accepted")
			change = append(change, one.Inc)
		}
		for _, status := range []string{"OK", "Error"} {
			one := h.WithLabelValues(p, status)
			change = append(change, func() { one.Observe(20) })
		}
		change = append(change, g.WithLabelValues(p).Inc)
	}
	return func() {
		for _, f := range change {
			f()
		}
	}
}

// BenchmarkTick collects 3,600 series; then it evaluates 0 or 100 queries over them, too.
func BenchmarkTick(b *testing.B) {
	for _, queries := range []int{0, 100} {
		b.Run(fmt.Sprintf("queries=%d", queries), func(b *testing.B) {
			s := open(b, b.TempDir(), nil)
			change := populate(s.registry)
			for i := range queries {
				subscribe(b, s.Service, fmt.Sprintf(`sum(increase(flux_meter_sum{policy_name="policy-%d"}[10s])) / sum(increase(flux_meter_count{policy_name="policy-%d"}[10s]))`, i, i), time.Second)
			}
			now := start
			for range 20 {
				s.tick(b, now)
				now = now.Add(time.Second)
			}
			b.ReportAllocs()
			for b.Loop() {
				change()
				s.tick(b, now)
				now = now.Add(time.Second)
			}
			b.ReportMetric(float64(s.Status().Series), "series")
		})
	}
}

// BenchmarkPush keeps samples of others, in batches of 2,000.
func BenchmarkPush(b *testing.B) {
	s := open(b, b.TempDir(), nil)
	now := time.Now()
	n := 0
	for b.Loop() {
		now = now.Add(time.Millisecond)
		push(b, s.Service, 0, 2000, now)
		n += 2000
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/sample")
}

// TestBoundsUnderManySeries measures what the guide says about the most series: it runs for minutes, when
// $SIGNAL_TEST_SERIES names how many, such as 100000, and $SIGNAL_TEST_EVERY how often a sample comes for each.
func TestBoundsUnderManySeries(t *testing.T) {
	most, err := strconv.Atoi(os.Getenv("SIGNAL_TEST_SERIES"))
	if err != nil {
		t.Skip("set SIGNAL_TEST_SERIES to measure")
	}
	every, err := time.ParseDuration(os.Getenv("SIGNAL_TEST_EVERY"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b := open(t, dir, func(c *Config) { c.MaxSeries = most * 10 / 9 })
	ls := make([]labels.Labels, most)
	refs := make([]storage.SeriesRef, most)
	for i := range ls {
		ls[i] = labels.FromStrings(model.MetricNameLabel, "http_server_request_duration_seconds_bucket", "job", "shop", "instance", fmt.Sprint("10.0.", i%256, ".", i/256%256, ":8080"),
			"method", "GET", "route", fmt.Sprint("/api/things/", i%977), "le", fmt.Sprint(i%13), "pod", fmt.Sprint("shop-7d9c5b8f6-", i))
	}
	now := time.Now().Add(-3 * time.Hour)
	values := make([]float64, most)
	begin := time.Now()
	for n := 0; now.Before(begin); n++ {
		a := b.Append(t.Context(), SourcePush)
		for i := range ls {
			values[i] += float64((i*n)%7) * math.Sqrt(float64(i%10))
			if refs[i], err = a.Append(refs[i], ls[i], 0, now.UnixMilli(), values[i], nil, nil, storage.AOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Commit(); err != nil {
			t.Fatal(err)
		}
		now = now.Add(every)
		if n%(1+int(15*time.Minute/every)) == 0 {
			s := b.Status()
			t.Logf("%v: %d series, %d MiB on disk, RSS %s MiB", now.Sub(begin).Round(time.Minute), s.Series, s.Bytes>>20, rss())
		}
	}
	s := b.Status()
	t.Logf("end: %d series, %d MiB on disk, RSS %s MiB, refused %+v, took %v", s.Series, s.Bytes>>20, rss(), s.Err, time.Since(begin))
	b.Close()
	begin = time.Now()
	open(t, dir, nil)
	t.Logf("opened again in %v", time.Since(begin))
	runtime.KeepAlive(refs)
}

// rss is the resident memory of this process.
func rss() string {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err.Error()
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(kb >> 10)
}
