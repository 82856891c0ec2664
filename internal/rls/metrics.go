// SPDX-License-Identifier: Apache-2.0

package rls

import (
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// metrics counts what the door did. It is a prometheus.Collector.
type metrics struct {
	requests    *prometheus.CounterVec
	descriptors *prometheus.CounterVec
	refusals    *prometheus.CounterVec
	overrides   prometheus.Counter

	ok, over, unavailable, cancelled, invalid prometheus.Counter // of requests
	descriptorOK, descriptorOver              prometheus.Counter
}

func newMetrics() metrics {
	m := metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_rls_requests_total",
			Help: "Requests of Envoy's rate limit service, by outcome: ok, over_limit, invalid, cancelled or unavailable.",
		}, []string{"outcome"}),
		descriptors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_rls_descriptors_total", Help: "Descriptors answered, by code: ok or over_limit.",
		}, []string{"code"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_rls_refused_total",
			Help: "Requests that make no sense, by what is wrong: domain, descriptors, entries, hits or negative_hits.",
		}, []string{"reason"}),
		overrides: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_rls_overrides_total",
			Help: "Descriptors that carry a limit of their own, which is a label for policies and nothing else.",
		}),
	}
	m.ok, m.over = m.requests.WithLabelValues("ok"), m.requests.WithLabelValues("over_limit")
	m.invalid, m.cancelled = m.requests.WithLabelValues("invalid"), m.requests.WithLabelValues("cancelled")
	m.unavailable = m.requests.WithLabelValues("unavailable")
	m.descriptorOK, m.descriptorOver = m.descriptors.WithLabelValues("ok"), m.descriptors.WithLabelValues("over_limit")
	for _, reason := range []string{reasonDomain, reasonDescriptors, reasonEntries, reasonHits, reasonNegativeHits} {
		m.refusals.WithLabelValues(reason)
	}
	return m
}

func (m *metrics) refused(reason string) {
	m.refusals.WithLabelValues(reason).Inc()
	m.invalid.Inc()
}

// failed counts a request that was neither refused nor answered.
func (m *metrics) failed(err error) {
	switch status.Code(err) {
	case codes.Unavailable:
		m.unavailable.Inc()
	case codes.Canceled, codes.DeadlineExceeded:
		m.cancelled.Inc()
	}
}

func (m *metrics) answered(out *rlsv3.RateLimitResponse) {
	if out.GetOverallCode() == rlsv3.RateLimitResponse_OVER_LIMIT {
		m.over.Inc()
	} else {
		m.ok.Inc()
	}
	over := 0
	for _, s := range out.GetStatuses() {
		if s.GetCode() == rlsv3.RateLimitResponse_OVER_LIMIT {
			over++
		}
	}
	if over > 0 {
		m.descriptorOver.Add(float64(over))
	}
	m.descriptorOK.Add(float64(len(out.GetStatuses()) - over))
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(out)
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(out)
	}
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.descriptors, m.refusals, m.overrides}
}
