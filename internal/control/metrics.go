// SPDX-License-Identifier: Apache-2.0

package control

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-project/sluice/internal/circuit"
)

var (
	byPolicy = []string{"policy_name"}
	bySignal = []string{"policy_name", "signal_name", "sub_circuit_id"}

	descTicks = prometheus.NewDesc("sluice_circuit_ticks_total",
		"Ticks of a circuit.", byPolicy, nil)
	descSkipped = prometheus.NewDesc("sluice_circuit_skipped_ticks_total",
		"Ticks of a circuit that were left out because the ones before took too long.", byPolicy, nil)
	descDuration = prometheus.NewDesc("sluice_circuit_tick_duration_seconds",
		"Time that ticks of a circuit took.", byPolicy, nil)
	descSlowest = prometheus.NewDesc("sluice_circuit_slowest_tick_seconds",
		"Time that the slowest tick of a circuit took.", byPolicy, nil)
	descStopped = prometheus.NewDesc("sluice_circuit_stopped",
		"1 when a circuit ticks no more after an internal error, else 0.", byPolicy, nil)
	descSetpoints = prometheus.NewDesc("sluice_circuit_setpoints_total",
		"Setpoints that a circuit has sent to the data plane.", byPolicy, nil)
	descLate = prometheus.NewDesc("sluice_circuit_late_signals_total",
		"Ticks that went on with the readings of before because queries or the storage of metrics were too slow.", nil, nil)
	descHidden = prometheus.NewDesc("sluice_circuit_hidden_signals",
		"Signals of policies that are not exported as signal_reading because there are too many.", nil, nil)
	descReading = prometheus.NewDesc("signal_reading",
		"Finite readings of a signal, one per tick.", bySignal, nil)
	descInvalid = prometheus.NewDesc("invalid_signal_readings_total",
		"Ticks on which a signal was invalid.", bySignal, nil)
	descInfinite = prometheus.NewDesc("infinite_signal_readings_total",
		"Ticks on which a signal was infinite.", bySignal, nil)
)

// Collector has the metrics of the circuits: seven series per policy, and four per signal that a document
// names, of at most Config.MaxSignals signals, those of policies first in the alphabet. Private signals of
// composites are not among them: History and Watch have those.
func (r *Runtime) Collector() prometheus.Collector { return collector{r} }

type collector struct{ r *Runtime }

// Describe implements prometheus.Collector.
func (collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descTicks, descSkipped, descDuration, descSlowest, descStopped, descSetpoints, descLate, descHidden,
		descReading, descInvalid, descInfinite,
	} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(metrics chan<- prometheus.Metric) {
	for _, m := range c.r.measure() {
		metrics <- m
	}
}

// measure reads everything under the lock, and leaves the writing to later.
func (r *Runtime) measure() []*metric {
	r.mu.RLock()
	defer r.mu.RUnlock()
	hidden, left := 0, r.config.MaxSignals
	out := make([]*metric, 0, 2+6*len(r.order)+3*min(left, 30*len(r.order)))
	for _, u := range r.order {
		ticks := u.circuit.Count()
		stopped := 0.0
		if u.stopped != "" {
			stopped = 1
		}
		out = append(out,
			counter(descTicks, u.labels, float64(ticks)), counter(descSkipped, u.labels, float64(u.skipped)),
			&metric{desc: descDuration, labels: u.labels, kind: dto.MetricType_SUMMARY, value: u.tookSum.Seconds(), count: ticks},
			gauge(descSlowest, u.labels, u.tookMost.Seconds()), gauge(descStopped, u.labels, stopped),
			counter(descSetpoints, u.labels, float64(u.sent)))
		for _, e := range u.exported {
			if left == 0 {
				hidden++
				continue
			}
			left--
			t := &u.tallies[e.signal]
			out = append(out,
				&metric{desc: descReading, labels: e.labels, kind: dto.MetricType_SUMMARY, value: t.sum, count: t.finite},
				counter(descInvalid, e.labels, float64(t.invalid)), counter(descInfinite, e.labels, float64(t.infinite)))
		}
	}
	return append(out, counter(descLate, nil, float64(r.late.Load())), gauge(descHidden, nil, float64(hidden)))
}

// exported is a signal with metrics.
type exported struct {
	signal int
	labels []*dto.LabelPair
}

// label prepares the labels of the metrics of a unit.
func (u *running) label() {
	p := u.program
	u.labels = prometheus.MakeLabelPairs(descTicks, []string{p.Policy})
	named := map[string]bool{circuit.Root: true}
	for _, v := range p.views {
		named[v.ID] = v.Kind == "nested_circuit"
	}
	for i, s := range p.signals {
		if named[s.Circuit] {
			u.exported = append(u.exported, exported{i, prometheus.MakeLabelPairs(descReading, []string{p.Policy, s.Name, s.Circuit})})
		}
	}
}

// metric is one value of a metric. Labels are shared, so that reading them costs nothing.
type metric struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair
	kind   dto.MetricType
	value  float64
	count  uint64
}

func counter(d *prometheus.Desc, labels []*dto.LabelPair, v float64) *metric {
	return &metric{desc: d, labels: labels, kind: dto.MetricType_COUNTER, value: v}
}

func gauge(d *prometheus.Desc, labels []*dto.LabelPair, v float64) *metric {
	return &metric{desc: d, labels: labels, kind: dto.MetricType_GAUGE, value: v}
}

// Desc implements prometheus.Metric.
func (m *metric) Desc() *prometheus.Desc { return m.desc }

// Write implements prometheus.Metric.
func (m *metric) Write(to *dto.Metric) error {
	to.Label = m.labels
	switch m.kind {
	case dto.MetricType_COUNTER:
		to.Counter = &dto.Counter{Value: proto.Float64(m.value)}
	case dto.MetricType_SUMMARY:
		to.Summary = &dto.Summary{SampleSum: proto.Float64(m.value), SampleCount: proto.Uint64(m.count)}
	default:
		to.Gauge = &dto.Gauge{Value: proto.Float64(m.value)}
	}
	return nil
}
