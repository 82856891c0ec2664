// SPDX-License-Identifier: Apache-2.0

package document

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	policies    prometheus.Gauge
	changes     *prometheus.CounterVec
	errors      *prometheus.CounterVec
	dirProblems prometheus.Gauge
}

// newMetrics registers the metrics of the catalog; with a nil registerer they count for nobody.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		policies: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_policies", Help: "Policies in force.",
		}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_policy_changes_total",
			Help: "Changes of policies since start, by change: created, updated or deleted.",
		}, []string{"change"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_policy_apply_errors_total",
			Help: "Changes of policies that failed or were refused since start, by source: api or dir.",
		}, []string{"source"}),
		dirProblems: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_policy_dir_problems",
			Help: "Problems of the policy directory at its last scan; 0 is good.",
		}),
	}
	for _, change := range []Change{Created, Updated, Deleted} {
		m.changes.WithLabelValues(string(change))
	}
	for _, origin := range []Origin{OriginAPI, OriginDir} {
		m.errors.WithLabelValues(string(origin))
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.policies, m.changes, m.errors, m.dirProblems} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register the metrics of the policy catalog: %w", err)
		}
	}
	return m, nil
}
