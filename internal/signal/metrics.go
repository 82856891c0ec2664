// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Source is where samples come from.
type Source string

// The sources.
const (
	SourceSelf   Source = "self"   // measured by this process
	SourceScrape Source = "scrape" // scraped
	SourcePush   Source = "push"   // sent by remote write or OTLP
)

type metrics struct {
	samples    *prometheus.CounterVec
	refused    *prometheus.CounterVec
	appendErrs *prometheus.CounterVec
	collect    prometheus.Histogram
	query      prometheus.Histogram
	failures   *prometheus.CounterVec
	skipped    prometheus.Counter
	late       prometheus.Counter
}

func newMetrics() *metrics {
	m := unusedMetrics()
	for _, s := range []Source{SourceSelf, SourceScrape, SourcePush} { // a rate needs a zero to begin with
		m.samples.WithLabelValues(string(s))
		m.appendErrs.WithLabelValues(string(s))
		m.refused.WithLabelValues(string(s), "limit")
	}
	for _, k := range kindNames[KindEmpty:KindClosed] {
		m.failures.WithLabelValues(k)
	}
	return m
}

func unusedMetrics() *metrics {
	return &metrics{
		samples: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_signal_samples_total", Help: "Samples kept, by where they came from.",
		}, []string{"source"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_signal_refused_samples_total",
			Help: "Samples not kept: of new series beyond the most that are kept (limit), of series that Sluice keeps itself (reserved), too old or too new (time), or nonsense (invalid).",
		}, []string{"source", "reason"}),
		appendErrs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_signal_append_failures_total", Help: "Batches of samples that were lost, as when the disk is full.",
		}, []string{"source"}),
		collect: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sluice_signal_collect_duration_seconds", Help: "Time to measure this process and keep it.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 7),
		}),
		query: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sluice_signal_query_duration_seconds", Help: "Time that queries of policies took, without waiting for their turn.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_signal_query_failures_total", Help: "Queries of policies that gave no value, by the reason.",
		}, []string{"reason"}),
		skipped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_signal_evaluations_skipped_total", Help: "Evaluations that were not started because the one before was still running.",
		}),
		late: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_signal_evaluations_late_total", Help: "Evaluations that were not done in time for the tick that started them.",
		}),
	}
}

// register registers the metrics and the gauges of a service.
func (m *metrics) register(r prometheus.Registerer, s *Service) error {
	gauge := func(name, help string, read func(Status) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return read(s.Status()) })
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.samples, m.refused, m.appendErrs, m.collect, m.query, m.failures, m.skipped, m.late,
		gauge("sluice_signal_series", "Time series that got a sample lately.", func(s Status) float64 { return float64(s.Series) }),
		gauge("sluice_signal_disk_bytes", "Disk that time series take.", func(s Status) float64 { return float64(s.Bytes) }),
		gauge("sluice_signal_queries", "Queries of policies that are evaluated regularly.", func(s Status) float64 { return float64(s.Queries) }),
		gauge("sluice_signal_up", "Whether time series are kept, or the remote server answered last time.", func(s Status) float64 {
			if s.Err != nil {
				return 0
			}
			return 1
		}),
	} {
		errs = append(errs, r.Register(c))
	}
	return errors.Join(errs...)
}

// reminder logs something that goes on at most once a minute.
type reminder struct{ last atomic.Int64 }

// warn logs if that was not done for a minute.
func (r *reminder) warn(log *slog.Logger, message string, attrs ...any) {
	now := time.Now().UnixNano()
	last := r.last.Load()
	if last != 0 && now-last < int64(time.Minute) || !r.last.CompareAndSwap(last, now) {
		return
	}
	log.Warn(message, attrs...) //nolint:sloglint // the callers' messages are constants, and their attributes typed
}
