// SPDX-License-Identifier: Apache-2.0

package discovery

import "github.com/prometheus/client_golang/prometheus"

var (
	lookupsDesc = prometheus.NewDesc("sluice_discovery_lookups_total",
		"Addresses of flows that were looked up, by result: known or unknown. Nothing is looked up, nor counted, while there are no entities.",
		[]string{"result"}, nil)
	entitiesDesc = prometheus.NewDesc("sluice_discovery_entities",
		"Entities (addresses of services) that a source has told: static, dns or kubernetes.", []string{"source"}, nil)
	leftOutDesc = prometheus.NewDesc("sluice_discovery_entities_left_out",
		"Entities that are left out because there are more than discovery.max_entities.", []string{"source"}, nil)
	workingDesc = prometheus.NewDesc("sluice_discovery_source_working",
		"1 when nothing is wrong with a source; else 0, and sluice discover --services says what.", []string{"source"}, nil)
	updatedDesc = prometheus.NewDesc("sluice_discovery_source_updated_timestamp_seconds",
		"When a source was up to date last, in Unix time; 0: never.", []string{"source"}, nil)
	failuresDesc = prometheus.NewDesc("sluice_discovery_source_failures_total",
		"Attempts to bring a source up to date that failed.", []string{"source"}, nil)
)

// collector reads the metrics of a Directory when they are asked for.
type collector struct{ directory *Directory }

// Collector returns the metrics of the directory, to be registered once.
func (d *Directory) Collector() prometheus.Collector { return collector{d} }

// Describe implements prometheus.Collector.
func (collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{lookupsDesc, entitiesDesc, leftOutDesc, workingDesc, updatedDesc, failuresDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	var known, unknown uint64
	for i := range c.directory.lookups {
		known += c.directory.lookups[i].known.Load()
		unknown += c.directory.lookups[i].unknown.Load()
	}
	count := func(d *prometheus.Desc, n uint64, label string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), label)
	}
	gauge := func(d *prometheus.Desc, n float64, label string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, label)
	}
	count(lookupsDesc, known, "known")
	count(lookupsDesc, unknown, "unknown")
	for _, s := range c.directory.Sources() {
		working, updated := 1.0, 0.0
		if s.Problem != "" {
			working = 0
		}
		if !s.Updated.IsZero() {
			updated = float64(s.Updated.UnixMilli()) / 1e3
		}
		gauge(entitiesDesc, float64(s.Entities), s.Name)
		gauge(leftOutDesc, float64(s.LeftOut), s.Name)
		gauge(workingDesc, working, s.Name)
		gauge(updatedDesc, updated, s.Name)
		count(failuresDesc, s.Failures, s.Name)
	}
}
