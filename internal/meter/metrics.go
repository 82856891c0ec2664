// SPDX-License-Identifier: Apache-2.0

package meter

import "github.com/prometheus/client_golang/prometheus"

// The names and labels are those that policies written for Aperture query.
var (
	meterLabels = []string{"flux_meter_name", "policy_name", "decision_type", "http_status_code", "flow_status"}
	descMeter   = prometheus.NewDesc("flux_meter",
		"What a flux meter of a policy measures, over the flows that it selects. Denied flows have flow_status Error.", meterLabels, nil)
	descInvalid = prometheus.NewDesc("invalid_flux_meter_total",
		"Flows that a flux meter selects and that lack the attribute it measures, or have text there that is no number. A denied flow has no workload_duration_ms.", meterLabels, nil)
)

// outcomeLabels are decision_type, http_status_code and flow_status. No door of this release reports an
// HTTP status.
var outcomeLabels = [outcomes][3]string{
	OK - 1:       {"DECISION_TYPE_ACCEPTED", "", "OK"},
	Failed - 1:   {"DECISION_TYPE_ACCEPTED", "", "Error"},
	Rejected - 1: {"DECISION_TYPE_REJECTED", "", "Error"},
}

// Describe sends the descriptions of what Collect sends.
func Describe(ch chan<- *prometheus.Desc) {
	ch <- descMeter
	ch <- descInvalid
}

// Collect sends the histograms of a meter. They exist from the start, with zeros, so that the first flow is
// an increase.
func (m *Meter) Collect(ch chan<- prometheus.Metric) {
	for o := OK; o <= Rejected; o++ {
		r := m.Read(o)
		by := outcomeLabels[o-1]
		labels := []string{m.spec.Name, m.spec.Policy, by[0], by[1], by[2]}
		last := len(r.Buckets) - 1
		buckets := make(map[float64]uint64, last)
		for i, bound := range m.spec.Bounds {
			buckets[bound] = r.Buckets[i]
		}
		ch <- prometheus.MustNewConstHistogram(descMeter, r.Buckets[last], r.Sum, buckets, labels...)
		ch <- prometheus.MustNewConstMetric(descInvalid, prometheus.CounterValue, float64(r.Invalid), labels...)
	}
}
