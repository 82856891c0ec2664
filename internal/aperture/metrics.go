// SPDX-License-Identifier: Apache-2.0

package aperture

import "github.com/prometheus/client_golang/prometheus"

// endResult says what one reference of a FlowEnd did.
type endResult uint8

const (
	endReturned endResult = iota
	endLate               // its slots were free already
	endInvalid
	endResults // their number
)

func (r endResult) String() string { return [...]string{"returned", "late", "invalid"}[r] }

// recordResult says what became of the record of a flow.
type recordResult uint8

const (
	recordEnded     recordResult = iota // it ended its flow
	recordRepeated                      // its flow had been ended before
	recordExpired                       // likewise, but its slots had been taken as free
	recordRejected                      // its flow had been rejected, so there is nothing to end
	recordForeign                       // it is not about a flow: the span or log line of somebody else
	recordUndecided                     // no CheckResponse: the client had no answer
	recordGarbage                       // a CheckResponse that cannot be read
	recordNoToken                       // a CheckResponse without the token of a flow
	recordBadToken                      // a token that was not issued by this server or cluster
	recordResults                       // their number
)

func (r recordResult) String() string {
	return [...]string{
		"ended", "repeated", "expired", "rejected_flow", "foreign", "no_check_response", "bad_check_response", "no_token", "bad_token",
	}[r]
}

// refused tells that the exporter should hear of it.
func (r recordResult) refused() bool { return r >= recordUndecided }

// metrics counts what happens at the door.
type metrics struct {
	records  [recordResults]prometheus.Counter
	flowEnds [endResults]prometheus.Counter
	all      []prometheus.Collector
}

var _ prometheus.Collector = (*metrics)(nil)

func newMetrics() *metrics {
	records := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sluice_aperture_records_total",
		Help: "Records of flows that clients of Aperture sent as spans and log lines, by what became of them.",
	}, []string{"result"})
	ends := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sluice_aperture_flow_end_refs_total",
		Help: "References of FlowEnd calls, by what became of them. late: the slots were free already.",
	}, []string{"result"})
	m := &metrics{all: []prometheus.Collector{records, ends}}
	for r := range recordResults {
		m.records[r] = records.WithLabelValues(r.String())
	}
	for r := range endResults {
		m.flowEnds[r] = ends.WithLabelValues(r.String())
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, c := range m.all {
		c.Describe(out)
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	for _, c := range m.all {
		c.Collect(out)
	}
}
