// SPDX-License-Identifier: Apache-2.0

package forwardauth

import "github.com/prometheus/client_golang/prometheus"

// counts are the metrics of a door.
type counts struct {
	requests *prometheus.CounterVec
	ends     *prometheus.CounterVec

	admit, deny, invalid, gone prometheus.Counter // of requests
}

func newCounts() counts {
	c := counts{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_forwardauth_requests_total",
			Help: "Questions of proxies, by answer: admit, deny, invalid (the URL that the proxy is configured with makes no sense) " +
				"or gone (the proxy did not wait for the answer).",
		}, []string{"answer"}),
		ends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_forwardauth_ends_total",
			Help: "Ends of requests that proxies told, by result: ended, already_ended, expired or invalid (no token of this server).",
		}, []string{"result"}),
	}
	c.admit, c.deny = c.requests.WithLabelValues("admit"), c.requests.WithLabelValues("deny")
	c.invalid, c.gone = c.requests.WithLabelValues("invalid"), c.requests.WithLabelValues("gone")
	return c
}

// Describe implements prometheus.Collector.
func (c counts) Describe(ch chan<- *prometheus.Desc) {
	c.requests.Describe(ch)
	c.ends.Describe(ch)
}

// Collect implements prometheus.Collector.
func (c counts) Collect(ch chan<- prometheus.Metric) {
	c.requests.Collect(ch)
	c.ends.Collect(ch)
}
