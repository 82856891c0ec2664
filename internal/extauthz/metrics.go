// SPDX-License-Identifier: Apache-2.0

package extauthz

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-project/sluice/internal/flow"
)

// checkResult is what became of a call.
type checkResult uint8

const (
	checkAdmitted checkResult = iota
	checkDenied
	checkNoControlPoint
	checkCancelled
	checkUnavailable
	checkResults
)

var checkNames = [checkResults]string{"admitted", "denied", "no_control_point", "cancelled", "unavailable"}

// endResult is what became of an entry of an access log.
type endResult uint8

const (
	endEnded endResult = iota
	endAlready
	endExpired
	endInvalidToken
	endNoToken
	endResults
)

var endNames = [endResults]string{"ended", "already_ended", "expired", "invalid_token", "no_token"}

func endOf(r flow.EndResult) endResult {
	switch r {
	case flow.AlreadyEnded:
		return endAlready
	case flow.Expired:
		return endExpired
	}
	return endEnded
}

type counts struct {
	checks         [checkResults]atomic.Uint64
	ends           [endResults]atomic.Uint64
	droppedHeaders atomic.Uint64
}

func (c *counts) check(r checkResult) { c.checks[r].Add(1) }
func (c *counts) end(r endResult)     { c.ends[r].Add(1) }

var (
	descChecks = prometheus.NewDesc("sluice_extauthz_checks_total",
		"Requests that Envoy asked about by external authorization, by result: admitted, denied, or an error, about "+
			"which Envoy does what its failure_mode_allow says: no_control_point (nothing names one), cancelled (Envoy "+
			"went or its time was over), unavailable (this server is stopping).", []string{"result"}, nil)
	descEnds = prometheus.NewDesc("sluice_extauthz_ends_total",
		"Entries of Envoy's access logs, by what they ended: ended, already_ended, expired (the slots had been taken "+
			"back), invalid_token, or no_token (nobody had asked about that request, or it was denied).", []string{"result"}, nil)
	descDropped = prometheus.NewDesc("sluice_extauthz_dropped_headers_total",
		"Headers that were not passed on because their text cannot be a header.", nil, nil)
)

// Collector counts what came through the door.
func (d *Door) Collector() prometheus.Collector { return collector{&d.counts} }

type collector struct{ counts *counts }

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{descChecks, descEnds, descDropped} {
		out <- desc
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	counter := func(desc *prometheus.Desc, n *atomic.Uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n.Load()), labels...)
	}
	for i := range c.counts.checks {
		counter(descChecks, &c.counts.checks[i], checkNames[i])
	}
	for i := range c.counts.ends {
		counter(descEnds, &c.counts.ends[i], endNames[i])
	}
	counter(descDropped, &c.counts.droppedHeaders)
}
