// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// The names and labels are those that policies written for Aperture query.
var (
	meterLabels = []string{"flux_meter_name", "policy_name", "decision_type", "http_status_code", "flow_status"}
	descMeter   = prometheus.NewDesc("flux_meter",
		"What a flux meter of a policy measures, over the flows that it selects. Flows with an http_status_code of 400 and more, and denied ones, have flow_status Error.", meterLabels, nil)
	descInvalid = prometheus.NewDesc("invalid_flux_meter_total",
		"Flows that a flux meter selects and that lack the attribute it measures, or have text there that is no number. A denied flow has no workload_duration_ms.", meterLabels, nil)
)

// outcomeLabels are decision_type and flow_status.
var outcomeLabels = [outcomes][2]string{
	OK - 1:       {"DECISION_TYPE_ACCEPTED", "OK"},
	Failed - 1:   {"DECISION_TYPE_ACCEPTED", "Error"},
	Rejected - 1: {"DECISION_TYPE_REJECTED", "Error"},
}

// Describe sends the descriptions of what Collect sends.
func Describe(ch chan<- *prometheus.Desc) {
	ch <- descMeter
	ch <- descInvalid
}

// Collect sends the histograms of a meter. Those without an HTTP status exist from the start, with zeros, so that
// the first flow is an increase; those with one exist from their first flow on.
func (m *Meter) Collect(ch chan<- prometheus.Metric) {
	for _, r := range m.ReadAll() {
		by, status := outcomeLabels[r.Outcome-1], ""
		if r.Status != 0 {
			status = strconv.Itoa(r.Status)
		}
		labels := []string{m.spec.Name, m.spec.Policy, by[0], status, by[1]}
		last := len(r.Buckets) - 1
		buckets := make(map[float64]uint64, last)
		for i, bound := range m.spec.Bounds {
			buckets[bound] = r.Buckets[i]
		}
		ch <- prometheus.MustNewConstHistogram(descMeter, r.Buckets[last], r.Sum, buckets, labels...)
		ch <- prometheus.MustNewConstMetric(descInvalid, prometheus.CounterValue, float64(r.Invalid), labels...)
	}
}
