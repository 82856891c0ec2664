// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/label"
)

// Metrics are read when they are scraped, from counters that the decision path keeps anyway: no label
// look-up happens for a flow. Cardinality is bounded: control points by Config.MaxControlPoints,
// limiters by the policies in force, workloads by sched.MaxWorkloads. Accounts never become labels.
var (
	descFlows = prometheus.NewDesc("sluice_flows_total",
		"Flows decided, by control point and verdict: admitted, unmatched (admitted because no policy selects them) or denied, with the reason of the denial.",
		[]string{"control_point", "verdict", "reason"}, nil)
	descFlowsWaiting = prometheus.NewDesc("sluice_flows_waiting",
		"Flows waiting in queues now.", []string{"control_point"}, nil)
	descFlowsFailed = prometheus.NewDesc("sluice_flows_failed_total",
		"Flows whose work ended with an error.", []string{"control_point"}, nil)
	descDuration = prometheus.NewDesc("sluice_flow_duration_seconds",
		"How long the work of admitted flows took, without the time in queues.", []string{"control_point"}, nil)
	descClassifier = prometheus.NewDesc("sluice_classifier_evaluations_total",
		"Flows that a classifier of a policy looked at, by result: ok, or why it made no labels.", []string{"policy", "index", "result"}, nil)
	descMalformed = prometheus.NewDesc("sluice_http_malformed_total",
		"HTTP flows of whose request a part was not what it should be, and made no labels: json and jwt that rules read, a body that is not what its content-type says, an argument of a function of Rego such as GraphQL, or members of the baggage.",
		[]string{"part"}, nil)
	limiterLabels  = []string{"policy", "component", "kind"}
	descDecisions  = prometheus.NewDesc("sluice_limiter_decisions_total", "Flows a limiter admitted or denied.", append(limiterLabels[:3:3], "verdict"), nil)
	descTokens     = prometheus.NewDesc("sluice_limiter_tokens_total", "Tokens of the flows a limiter admitted or denied.", append(limiterLabels[:3:3], "verdict"), nil)
	descMissing    = prometheus.NewDesc("sluice_limiter_label_missing_total", "Flows a limiter did not count because they lack the label that names the account.", limiterLabels, nil)
	descPassed     = prometheus.NewDesc("sluice_limiter_passed_through_total", "Flows a limiter did not decide about: it lets everything pass at the moment, a value of the session label always passes, or the flow lacks the label that names its account.", limiterLabels, nil)
	descSampled    = prometheus.NewDesc("sluice_limiter_sample_percent", "Percentage of flows a sampler or load ramp admits.", limiterLabels, nil)
	descErrors     = prometheus.NewDesc("sluice_limiter_errors_total", "Flows admitted because the ledger could not decide.", limiterLabels, nil)
	descInFlight   = prometheus.NewDesc("sluice_limiter_in_flight_tokens", "Slots held now, over all accounts of a limiter.", limiterLabels, nil)
	descCapacity   = prometheus.NewDesc("sluice_limiter_capacity_tokens", "What a full account holds.", limiterLabels, nil)
	descFill       = prometheus.NewDesc("sluice_limiter_fill_tokens_per_second", "What a token bucket gains.", limiterLabels, nil)
	descAccounts   = prometheus.NewDesc("sluice_limiter_accounts", "Accounts a limiter keeps.", limiterLabels, nil)
	workloadLabels = append(limiterLabels[:3:3], "workload")
	descWorkload   = prometheus.NewDesc("sluice_workload_flows_total", "Flows of a workload that a scheduler admitted or denied.", append(workloadLabels[:4:4], "verdict"), nil)
	descWaiting    = prometheus.NewDesc("sluice_workload_waiting_flows", "Flows of a workload waiting now.", workloadLabels, nil)
	descWaitTokens = prometheus.NewDesc("sluice_workload_waiting_tokens", "Tokens of the flows of a workload waiting now.", workloadLabels, nil)
	descWait       = prometheus.NewDesc("sluice_workload_wait_seconds", "Time that admitted flows of a workload spent in the queue; the count is of flows that had to queue.", workloadLabels, nil)
	descWaitMax    = prometheus.NewDesc("sluice_workload_wait_max_seconds", "The longest wait of an admitted flow within the last 30 to 60 seconds.", workloadLabels, nil)
	descPreempted  = prometheus.NewDesc("sluice_workload_preempted_tokens", "Tokens by which flows of a workload were served earlier than first in, first out would have; the count is of flows.", workloadLabels, nil)
	descDelayed    = prometheus.NewDesc("sluice_workload_delayed_tokens", "Tokens by which flows of a workload were served later than first in, first out would have; the count is of flows.", workloadLabels, nil)
)

type collector struct{ e *Engine }

// Collector returns the metrics of the engine. They are documented in docs/reference/metrics.md.
func (e *Engine) Collector() prometheus.Collector { return collector{e} }

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descFlows, descFlowsWaiting, descFlowsFailed, descDuration, descClassifier, descMalformed, descDecisions, descTokens, descMissing, descPassed, descSampled,
		descErrors, descInFlight, descCapacity, descFill, descAccounts, descWorkload, descWaiting,
		descWaitTokens, descWait, descWaitMax, descPreempted, descDelayed,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	c.e.eachPoint(func(s *pointStats) { s.collect(ch) })
	snap := c.e.snapshot.Load()
	for _, k := range snap.classifiers {
		k.collect(ch)
	}
	for i, part := range malformedParts {
		ch <- counterOf(descMalformed, float64(c.e.malformed[i].Load()), part)
	}
	for _, l := range snap.states {
		collectLimiter(ch, l.overview())
	}
}

// collect sends the counts of a classifier: ok from the start, errors from the first one on.
func (c *classifier) collect(ch chan<- prometheus.Metric) {
	for code := range classify.Codes {
		if n := c.counts.total(code); n > 0 || code == classify.CodeNone {
			ch <- counterOf(descClassifier, float64(n), c.spec.Policy, strconv.Itoa(c.spec.Index), code.String())
		}
	}
}

func counterOf(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func gaugeOf(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// seriesName makes a name fit for a label value of a series: printable and not too long. Different names
// stay different, whatever callers send, because one series twice spoils all metrics.
func seriesName(s string) string {
	const mark = "�" // of names that were changed
	p := label.Printable(s)
	if p == s && !strings.Contains(s, mark) {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return p + mark + hex.EncodeToString(sum[:8])
}

func (s *pointStats) collect(ch chan<- prometheus.Metric) {
	name := seriesName(s.name)
	o := s.overview()
	if o.Admitted+o.Denied+o.Unmatched == 0 && o.Waiting == 0 {
		return
	}
	ch <- counterOf(descFlows, float64(o.Admitted), name, "admitted", "admitted")
	ch <- counterOf(descFlows, float64(o.Unmatched), name, "unmatched", "no_policy")
	for r, n := range o.DeniedByReason {
		ch <- counterOf(descFlows, float64(n), name, "denied", r.String())
	}
	ch <- gaugeOf(descFlowsWaiting, float64(o.Waiting), name)
	ch <- counterOf(descFlowsFailed, float64(o.Failed), name)
	buckets, count, sum := s.durations()
	ch <- prometheus.MustNewConstHistogram(descDuration, count, sum.Seconds(), buckets, name)
}

// durations adds up the stripes of the histogram.
func (s *pointStats) durations() (cumulative map[float64]uint64, count uint64, sum time.Duration) {
	cumulative = make(map[float64]uint64, len(latencyBounds))
	for i := range len(latencyBounds) + 1 {
		for j := range s.hot {
			count += s.hot[j].latency.buckets[i].Load()
		}
		if i < len(latencyBounds) {
			cumulative[latencyBounds[i].Seconds()] = count
		}
	}
	for j := range s.hot {
		sum += time.Duration(s.hot[j].latency.nanos.Load())
	}
	return cumulative, count, sum
}

func collectLimiter(ch chan<- prometheus.Metric, o LimiterOverview) {
	spec := o.Spec
	ls := []string{spec.Policy, spec.Component, spec.Kind.String()}
	with := func(extra ...string) []string { return append(ls[:3:3], extra...) }
	ch <- counterOf(descDecisions, float64(o.Admitted), with("admitted")...)
	ch <- counterOf(descDecisions, float64(o.Denied), with("denied")...)
	ch <- counterOf(descTokens, o.TokensAdmitted, with("admitted")...)
	ch <- counterOf(descTokens, o.TokensDenied, with("denied")...)
	ch <- counterOf(descMissing, float64(o.LabelMissing), ls...)
	ch <- counterOf(descErrors, float64(o.Failed), ls...)
	ch <- counterOf(descPassed, float64(o.PassedThrough), ls...)
	collectLimit(ch, &o, ls)
	for _, w := range o.Workloads {
		wl := with(seriesName(w.Name))
		ch <- counterOf(descWorkload, float64(w.Admitted), append(wl[:4:4], "admitted")...)
		ch <- counterOf(descWorkload, float64(w.Denied), append(wl[:4:4], "denied")...)
		ch <- gaugeOf(descWaiting, float64(w.Waiting), wl...)
		ch <- gaugeOf(descWaitTokens, w.WaitingTokens, wl...)
		ch <- gaugeOf(descWaitMax, w.WaitMax.Seconds(), wl...)
		ch <- prometheus.MustNewConstSummary(descWait, w.Waits, w.WaitTotal.Seconds(), nil, wl...)
		ch <- prometheus.MustNewConstSummary(descPreempted, w.Preemptions, w.Preempted, nil, wl...)
		ch <- prometheus.MustNewConstSummary(descDelayed, w.Delays, w.Delayed, nil, wl...)
	}
}

// collectLimit sends what is in force: nothing while everything passes, because there is no limit then.
func collectLimit(ch chan<- prometheus.Metric, o *LimiterOverview, ls []string) {
	spec := o.Spec
	if spec.Sample != nil {
		if !spec.PassThrough {
			ch <- gaugeOf(descSampled, spec.Sample.Percentage, ls...)
		}
		return
	}
	if spec.Kind != LoadScheduler {
		ch <- gaugeOf(descAccounts, float64(o.Accounts), ls...)
	}
	if spec.Kind.holdsSlots() {
		ch <- gaugeOf(descInFlight, o.InFlight, ls...)
	}
	if spec.Driven && spec.PassThrough {
		return
	}
	ch <- gaugeOf(descCapacity, spec.Capacity(), ls...)
	if !spec.Kind.holdsSlots() {
		ch <- gaugeOf(descFill, spec.FillPerSecond(), ls...)
	}
}

// FillPerSecond is what a token bucket gains per second; 0 for limiters that hold slots.
func (s *LimiterSpec) FillPerSecond() float64 {
	if s.Bucket.Interval <= 0 {
		return 0
	}
	return s.Bucket.FillAmount / s.Bucket.Interval.Seconds()
}
