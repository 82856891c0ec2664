// SPDX-License-Identifier: Apache-2.0

package alert

import "github.com/prometheus/client_golang/prometheus"

// severities in the order of counts.fired.
var severities = [...]string{Info, Warn, Crit}

func severityIndex(s string) int {
	for i, name := range severities {
		if name == s {
			return i
		}
	}
	return 0
}

// collector reads the metrics of a Center when they are asked for.
type collector struct{ center *Center }

// Collector returns the metrics of the alert center, to be registered once.
func (c *Center) Collector() prometheus.Collector { return collector{c} }

var (
	firingDesc = prometheus.NewDesc("sluice_alerts_firing", "Alerts that fire.", nil, nil)
	firedDesc  = prometheus.NewDesc("sluice_alerts_fired_total",
		"Alerts that have begun to fire since start, by severity: info, warn or crit.", []string{"severity"}, nil)
	refusedDesc = prometheus.NewDesc("sluice_alerts_refused_total",
		"Events since start that became no alert because too many alerts were firing.", nil, nil)
	keptDesc          = prometheus.NewDesc("sluice_alerts_kept", "Alerts that are kept, firing or resolved.", nil, nil)
	historyErrorsDesc = prometheus.NewDesc("sluice_alert_history_errors_total",
		"Attempts since start to write the history of alerts that failed.", nil, nil)
	notificationsDesc = prometheus.NewDesc("sluice_alert_notifications_total",
		"Alerts since start that were delivered to a target, failed to be (each attempt counts), or were dropped for good, by outcome: delivered, failed or dropped.",
		[]string{"target", "outcome"}, nil)
	waitingDesc = prometheus.NewDesc("sluice_alert_notifications_waiting", "Alerts that wait to be delivered to a target.",
		[]string{"target"}, nil)
	workingDesc = prometheus.NewDesc("sluice_alert_target_working",
		"1 when the last delivery to a target succeeded, or none was tried yet; else 0.", []string{"target"}, nil)
)

// Describe implements prometheus.Collector.
func (collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		firingDesc, firedDesc, refusedDesc, keptDesc, historyErrorsDesc, notificationsDesc, waitingDesc, workingDesc,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	for _, m := range c.center.metrics() { // sending may wait, so not under the lock
		out <- m
	}
}

func (c *Center) metrics() []prometheus.Metric {
	var out []prometheus.Metric
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		out = append(out, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...))
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		out = append(out, prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	gauge(firingDesc, len(c.due))
	gauge(keptDesc, len(c.due)+c.resolved.Len())
	for i, name := range severities {
		counter(firedDesc, c.counts.fired[i], name)
	}
	counter(refusedDesc, c.counts.refused)
	counter(historyErrorsDesc, c.counts.historyErrors)
	for _, k := range c.couriers {
		name := k.target.Name
		counter(notificationsDesc, k.delivered, name, "delivered")
		counter(notificationsDesc, k.failed, name, "failed")
		counter(notificationsDesc, k.dropped, name, "dropped")
		gauge(waitingDesc, k.queue.Len(), name)
		working := 1
		if k.failing != "" {
			working = 0
		}
		gauge(workingDesc, working, name)
	}
	return out
}
