// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/meter"
)

// The metrics below have the names and labels that policies and dashboards written for Aperture query. They
// are read from the same counters as our own, when they are gathered. A policy that is edited goes on with
// its counts under the new policy_hash.
var (
	compatLabels   = []string{"policy_name", "policy_hash", "component_id"}
	compatWorkload = append(compatLabels[:3:3], "workload_index")
	compatDecision = append(compatLabels[:3:3], "decision_type", "limiter_dropped")

	descWorkloadLatency = prometheus.NewDesc("workload_latency_ms",
		"How long the work of the ended flows of a workload took, without the time in queues.", compatWorkload, nil)
	descWorkloadRequests = prometheus.NewDesc("workload_requests_total",
		"Flows of a workload by the verdict on the whole flow; limiter_dropped tells whether this scheduler denied them.",
		append(compatLabels[:3:3], "decision_type", "workload_index", "limiter_dropped"), nil)
	descQueueDuration = prometheus.NewDesc("request_in_queue_duration_ms",
		"Time that the flows of a workload which a scheduler admitted spent in its queue; most often 0.", compatWorkload, nil)
	descWorkloadPreempted = prometheus.NewDesc("workload_preempted_tokens",
		"Tokens by which flows of a workload were served earlier than first in, first out would have; the count is of flows.", compatWorkload, nil)
	descWorkloadDelayed = prometheus.NewDesc("workload_delayed_tokens",
		"Tokens by which flows of a workload were served later than first in, first out would have; the count is of flows.", compatWorkload, nil)
	descWorkloadOnTime = prometheus.NewDesc("workload_on_time_total",
		"Flows of a workload that had to queue and were served when first in, first out would have.", compatWorkload, nil)
	descIncoming = prometheus.NewDesc("incoming_tokens_total", "Tokens that the flows which came to a scheduler asked for.", compatLabels, nil)
	descAccepted = prometheus.NewDesc("accepted_tokens_total", "Tokens of the flows that came to a scheduler and were admitted.", compatLabels, nil)
	descRejected = prometheus.NewDesc("rejected_tokens_total", "Tokens of the flows that came to a scheduler and were denied, by it or by another limiter.", compatLabels, nil)
	descLM       = prometheus.NewDesc("token_bucket_lm_ratio", "Load multiplier in force at a load scheduler; absent while everything passes.", compatLabels, nil)
	descLMFill   = prometheus.NewDesc("token_bucket_fill_rate", "Tokens per second that a load scheduler admits; absent while everything passes.", compatLabels, nil)
	descLMFull   = prometheus.NewDesc("token_bucket_capacity_total", "Tokens that the bucket of a load scheduler holds; absent while everything passes.", compatLabels, nil)
	descLMLeft   = prometheus.NewDesc("token_bucket_available_tokens_total", "Tokens in the bucket of a load scheduler; absent while everything passes.", compatLabels, nil)

	descRateCounter = prometheus.NewDesc("rate_limiter_counter_total",
		"Flows that came to a rate limiter, by the verdict on the whole flow; limiter_dropped tells whether this limiter denied them.", compatDecision, nil)
	descSlotCounter = prometheus.NewDesc("concurrency_limiter_counter_total",
		"Flows that came to a concurrency limiter, by the verdict on the whole flow; limiter_dropped tells whether this limiter denied them.", compatDecision, nil)
	descSampleCounter = prometheus.NewDesc("sampler_counter_total",
		"Flows that came to a sampler or load ramp, by the verdict on the whole flow; sampler_dropped tells whether it denied them.",
		append(compatLabels[:3:3], "decision_type", "sampler_dropped"), nil)

	descClassified = prometheus.NewDesc("classifier_counter_total",
		"Flows that a classifier looked at, also those of which it could make no labels.", []string{"policy_name", "policy_hash", "classifier_index"}, nil)

	pointLabels      = []string{"control_point"}
	descRequests     = prometheus.NewDesc("flowcontrol_requests_total", "Flows decided.", pointLabels, nil)
	descEnds         = prometheus.NewDesc("flowcontrol_ends_total", "Flows that ended.", pointLabels, nil)
	descByDecision   = prometheus.NewDesc("flowcontrol_decisions_total", "Flows decided, by verdict.", append(pointLabels[:1:1], "decision_type"), nil)
	descRejectReason = prometheus.NewDesc("flowcontrol_reject_reasons_total", "Denied flows, by reason.", append(pointLabels[:1:1], "reject_reason"), nil)
)

// Values of decision_type.
const (
	decisionAccepted = "DECISION_TYPE_ACCEPTED"
	decisionRejected = "DECISION_TYPE_REJECTED"
)

// rejectReasons translates our reasons, which are more.
var rejectReasons = [len(reasonNames)]string{
	RateLimited: "REJECT_REASON_RATE_LIMITED", ConcurrencyLimited: "REJECT_REASON_RATE_LIMITED",
	QueueTimeout: "REJECT_REASON_NO_TOKENS", DeadlineTooShort: "REJECT_REASON_NO_TOKENS",
	QueueFull: "REJECT_REASON_NO_TOKENS", TooLarge: "REJECT_REASON_NO_TOKENS",
	Cancelled: "REJECT_REASON_NO_TOKENS", NotSampled: "REJECT_REASON_NOT_SAMPLED",
	InvalidRequest: "REJECT_REASON_NONE", ShuttingDown: "REJECT_REASON_NONE",
}

type compatCollector struct{ e *Engine }

// CompatCollector returns flux meters, and the metrics that policies written for Aperture query.
func (e *Engine) CompatCollector() prometheus.Collector { return compatCollector{e} }

// Describe implements prometheus.Collector.
func (c compatCollector) Describe(ch chan<- *prometheus.Desc) {
	meter.Describe(ch)
	for _, d := range []*prometheus.Desc{
		descWorkloadLatency, descWorkloadRequests, descQueueDuration, descWorkloadPreempted, descWorkloadDelayed,
		descWorkloadOnTime, descIncoming, descAccepted, descRejected, descLM, descLMFill, descLMFull, descLMLeft,
		descRateCounter, descSlotCounter, descSampleCounter, descClassified, descRequests, descEnds, descByDecision, descRejectReason,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c compatCollector) Collect(ch chan<- prometheus.Metric) {
	snap := c.e.snapshot.Load()
	for _, m := range snap.meters {
		m.Collect(ch)
	}
	now := c.e.authority.Now()
	for _, l := range snap.states {
		spec := l.spec.Load()
		labels := []string{spec.Policy, spec.Hash, spec.Component}
		switch {
		case l.queue != nil:
			l.collectScheduler(ch, labels)
			if l.load != nil {
				l.load.collect(ch, l.load.read(now), labels)
			}
		case spec.Sample != nil:
			collectDecisions(ch, descSampleCounter, l.totals(), labels)
		case l.slots != nil:
			collectDecisions(ch, descSlotCounter, l.totals(), labels)
		default:
			collectDecisions(ch, descRateCounter, l.totals(), labels)
		}
	}
	for _, k := range snap.classifiers {
		n := uint64(0)
		for code := range classify.Codes {
			n += k.counts.total(code)
		}
		ch <- counterOf(descClassified, float64(n), k.spec.Policy, k.spec.Hash, strconv.Itoa(k.spec.Index))
	}
	c.e.eachPoint(func(s *pointStats) { s.collectCompat(ch) })
}

// with returns labels and more, sharing nothing with the next one that does.
func with(labels []string, more ...string) []string {
	return append(labels[:len(labels):len(labels)], more...)
}

// collectDecisions sends flows by verdict. All three series exist from the start, so that ratios of rates
// are defined as soon as there is a flow.
func collectDecisions(ch chan<- prometheus.Metric, d *prometheus.Desc, t binTotals, labels []string) {
	ch <- counterOf(d, float64(t.acceptedFlows()), with(labels, decisionAccepted, "false")...)
	ch <- counterOf(d, float64(t.denied), with(labels, decisionRejected, "true")...)
	ch <- counterOf(d, float64(t.dropped+t.droppedFree), with(labels, decisionRejected, "false")...)
}

func (l *limiter) collectScheduler(ch chan<- prometheus.Metric, labels []string) {
	all := binTotals{}
	all.add(l.own)
	for _, b := range l.workloadBins() {
		var t binTotals
		t.add(b)
		all.add(b)
		b.collect(ch, &t, labels)
	}
	incoming := all.acceptedTokens() + all.rejectedTokens()
	if l.load != nil {
		incoming = l.load.incoming()
	}
	ch <- counterOf(descIncoming, incoming, labels...)
	ch <- counterOf(descAccepted, all.acceptedTokens(), labels...)
	ch <- counterOf(descRejected, all.rejectedTokens(), labels...)
}

// collect sends the figures of a workload.
func (b *bin) collect(ch chan<- prometheus.Metric, t *binTotals, labels []string) {
	name := seriesName(b.name)
	for _, v := range []struct {
		flows             uint64
		decision, dropped string
	}{
		{t.acceptedFlows(), decisionAccepted, "false"},
		{t.denied, decisionRejected, "true"},
		{t.dropped + t.droppedFree, decisionRejected, "false"},
	} {
		ch <- counterOf(descWorkloadRequests, float64(v.flows), with(labels, v.decision, name, v.dropped)...)
	}
	own := with(labels, name)
	ch <- summaryOf(descWorkloadLatency, t.ended, milliseconds(t.work), own)
	s := b.sched.Snapshot()
	ch <- summaryOf(descQueueDuration, s.Admitted, milliseconds(s.WaitTotal), own)
	ch <- summaryOf(descWorkloadPreempted, s.Preemptions, s.Preempted, own)
	ch <- summaryOf(descWorkloadDelayed, s.Delays, s.Delayed, own)
	ch <- counterOf(descWorkloadOnTime, float64(s.OnTime), own...)
}

func summaryOf(d *prometheus.Desc, count uint64, sum float64, labels []string) prometheus.Metric {
	return prometheus.MustNewConstSummary(d, count, sum, nil, labels...)
}

func (b *loadBucket) collect(ch chan<- prometheus.Metric, r loadReading, labels []string) {
	if !r.active {
		return
	}
	ch <- gaugeOf(descLM, r.multiplier, labels...)
	ch <- gaugeOf(descLMFill, r.fill, labels...)
	ch <- gaugeOf(descLMFull, r.capacity, labels...)
	ch <- gaugeOf(descLMLeft, r.available, labels...)
}

func (s *pointStats) collectCompat(ch chan<- prometheus.Metric) {
	o := s.overview()
	accepted := o.Admitted + o.Unmatched
	if accepted+o.Denied == 0 {
		return
	}
	name := seriesName(s.name)
	ch <- counterOf(descRequests, float64(accepted+o.Denied), name)
	ch <- counterOf(descByDecision, float64(accepted), name, decisionAccepted)
	ch <- counterOf(descByDecision, float64(o.Denied), name, decisionRejected)
	byReason := make(map[string]uint64, 4)
	for r, n := range o.DeniedByReason {
		byReason[rejectReasons[r]] += n
	}
	for r, n := range byReason {
		ch <- counterOf(descRejectReason, float64(n), name, r)
	}
	_, ended, _ := s.durations()
	ch <- counterOf(descEnds, float64(ended), name)
}
