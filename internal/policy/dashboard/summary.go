// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-project/sluice/internal/policy"
)

// Matchers of decision_type, which is the verdict on the whole flow.
const (
	accepted = `decision_type="DECISION_TYPE_ACCEPTED"`
	rejected = `decision_type="DECISION_TYPE_REJECTED"`
)

// part is a component of a policy and the matchers of its series.
type part struct {
	policy.ComponentInfo
	doc *policy.Document
}

// ours are the matchers of the series with the names of the policy language. The hash is left out: a policy
// that is edited goes on in the same lines.
func (p part) ours() []string {
	return []string{label("policy_name", p.doc.Name), label("component_id", p.ID)}
}

// own are the matchers of the series whose names begin with sluice_.
func (p part) own() []string {
	return []string{label("policy", p.doc.Name), label("component", p.ID)}
}

// circuit is the id that the signals of the component's circuit carry.
func (p part) circuit() string {
	parent := p.ID[:max(strings.LastIndexByte(p.ID, '.'), 0)]
	if parent == "" {
		return "root"
	}
	return parent
}

func summary(doc *policy.Document, o Options) *Dashboard {
	d := newDashboard(doc, o, "summary", "Policy Summary")
	d.model.Description = "What the components of the policy do to flows."
	d.points(doc)
	components := slices.Clone(doc.Components)
	slices.SortStableFunc(components, func(a, b policy.ComponentInfo) int { return compareIDs(a.ID, b.ID) })
	for _, c := range components {
		d.component(part{c, doc})
	}
	d.meters(doc)
	return d
}

// points shows the control points that the policy names.
func (d *Dashboard) points(doc *policy.Document) {
	names := controlPoints(doc)
	if len(names) == 0 {
		return
	}
	for i, n := range names {
		names[i] = regexp.QuoteMeta(n)
	}
	which := strings.Replace(label("control_point", strings.Join(names, "|")), "=", "=~", 1)
	d.row("Control points: " + strings.Join(controlPoints(doc), ", "))
	d.add(8, 8, chart{
		title: "Flows", unit: "reqps", help: "Flows at the control points of this policy, by the verdict on the whole flow.", stack: true,
		series: []series{{"{{control_point}} {{decision_type}}", rate("control_point, decision_type", "flowcontrol_decisions_total", which)}},
	})
	d.add(8, 8, chart{
		title: "Denied by reason", unit: "reqps", stack: true,
		series: []series{{"{{reject_reason}}", rate("reject_reason", "flowcontrol_reject_reasons_total", which)}},
	})
	d.add(8, 8, chart{
		title: "Duration of admitted work", unit: "s", help: "Without the time in queues.", min: ptr(0),
		series: []series{
			{"p50", quantile(0.5, "sluice_flow_duration_seconds", which)},
			{"p95", quantile(0.95, "sluice_flow_duration_seconds", which)},
			{"p99", quantile(0.99, "sluice_flow_duration_seconds", which)},
		},
	})
}

func quantile(q float64, histogram string, matchers ...string) string {
	return "histogram_quantile(" + strconv.FormatFloat(q, 'g', -1, 64) + ", " + rate("le", histogram+"_bucket", matchers...) + ")"
}

// component adds the row of a component, if it has something to show.
func (d *Dashboard) component(p part) {
	title := strings.ReplaceAll(p.Kind, "_", " ") + " " + p.ID
	switch p.Kind {
	case "rate_limiter":
		d.row(title)
		d.limiter(p, "Rate Limiter", "rate_limiter_counter_total")
		d.add(8, 8, chart{
			title: "Accounts", help: "Accounts the limiter keeps, such as users, and flows that passed without one.", min: ptr(0),
			series: []series{
				{"accounts", "sum(sluice_limiter_accounts" + selector(p.own()...) + ")"},
				{"flows without the label, per second", rate("", "sluice_limiter_label_missing_total", p.own()...)},
			},
		})
	case "concurrency_limiter":
		d.row(title)
		d.limiter(p, "Concurrency Limiter", "concurrency_limiter_counter_total")
		d.slots(p)
	case "quota_scheduler":
		d.row(title)
		d.scheduler(p)
	case "concurrency_scheduler", "adaptive_concurrency_scheduler":
		d.row(title)
		d.slots(p)
		d.scheduler(p)
	case "load_scheduler", "adaptive_load_scheduler", "aimd_load_scheduler", "aiad_load_scheduler", "range_driven_load_scheduler":
		d.row(title)
		d.loadActuator(p)
		d.scheduler(p)
	case "sampler", "load_ramp":
		d.row(title)
		d.sampler(p)
	case "promql":
		if out := p.Component.Query.PromQL.OutPorts.Output; out != nil {
			d.row("query " + p.ID + ": " + out.SignalName)
			d.signals(p, "Signal "+out.SignalName, p.Component.Query.PromQL.QueryString, out.SignalName)
		}
	case "pod_scaler", "auto_scaler":
		d.scaler(p, title)
	}
}

func (d *Dashboard) limiter(p part, title, counter string) {
	d.add(16, 8, chart{
		title: title, unit: "reqps", help: "Flows that came to the limiter, by the verdict on the whole flow. limiter_dropped: this limiter denied them.",
		stack: true, series: []series{{"{{decision_type}} dropped here: {{limiter_dropped}}", rate("decision_type, limiter_dropped", counter, p.ours()...)}},
	})
	d.totals(counter, p.ours())
}

// totals are three numbers over the whole time shown.
func (d *Dashboard) totals(counter string, matchers []string) {
	for _, s := range []struct{ title, decision string }{{"Total Requests", ""}, {"Accepted Requests", accepted}, {"Rejected Requests", rejected}} {
		d.add(8, 4, chart{title: s.title, unit: "short", stat: true, series: []series{{s.title, total(counter, append(slices.Clone(matchers), s.decision)...)}}})
	}
}

// slots shows the use of a limit on what is in progress.
func (d *Dashboard) slots(p part) {
	of := selector(p.own()...)
	d.add(24, 8, chart{
		title: "In flight and limit", help: "Slots held, over all accounts, and the slots of one account.", min: ptr(0), step: true,
		series: []series{
			{"in flight", "sum(sluice_limiter_in_flight_tokens" + of + ")"}, {"limit", "max(sluice_limiter_capacity_tokens" + of + ")"},
		},
	})
}

func (d *Dashboard) sampler(p part) {
	d.add(12, 8, chart{
		title: "Throughput - Accept/Reject", unit: "reqps", stack: true,
		series: []series{{"{{decision_type}} dropped here: {{sampler_dropped}}", rate("decision_type, sampler_dropped", "sampler_counter_total", p.ours()...)}},
	})
	kept := append(p.ours(), `sampler_dropped="false"`)
	d.add(12, 8, chart{
		title: "Accept Percentage", help: "Flows that the sampler let pass, of those that came to it.", unit: "percent", min: ptr(0), max: ptr(100),
		series: []series{{"accepted", rate("", "sampler_counter_total", kept...) + " / " + rate("", "sampler_counter_total", p.ours()...) + " * 100"}},
	})
	d.totals("sampler_counter_total", p.ours())
}

// scheduler shows workloads and tokens.
func (d *Dashboard) scheduler(p part) {
	const by = "workload_index"
	ours := p.ours()
	of := func(more string) []string { return append(slices.Clone(ours), more) }
	d.add(8, 8, chart{
		title: "Workload Decisions", unit: "reqps", stack: true,
		series: []series{{"{{workload_index}} {{decision_type}}", rate("workload_index, decision_type", "workload_requests_total", ours...)}},
	})
	d.add(8, 8, chart{
		title: "Workload Decisions (accepted)", unit: "reqps", stack: true,
		series: []series{{"{{workload_index}}", rate(by, "workload_requests_total", of(accepted)...)}},
	})
	d.add(8, 8, chart{
		title: "Workload Decisions (rejected)", unit: "reqps", stack: true,
		series: []series{{"{{workload_index}}", rate(by, "workload_requests_total", of(rejected)...)}},
	})
	d.totals("workload_requests_total", ours)
	d.add(8, 8, chart{
		title: "Workload Latency", unit: "ms", help: "Mean length of the work, without the time in the queue.", min: ptr(0),
		series: []series{{"{{workload_index}}", mean(by, "workload_latency_ms", ours...)}},
	})
	d.add(8, 8, chart{
		title: "Request in Queue Duration", unit: "ms", help: "Mean of the admitted flows; most do not have to queue.", min: ptr(0),
		series: []series{{"{{workload_index}}", mean(by, "request_in_queue_duration_ms", ours...)}},
	})
	d.add(8, 8, chart{
		title: "Average preemption per request by Workload",
		help:  "Tokens by which a workload is served earlier (above 0) or later (below 0) than first in, first out would serve it.",
		series: []series{
			{"{{workload_index}} earlier", rate(by, "workload_preempted_tokens_sum", ours...) + " / " + rate(by, "workload_requests_total", of(accepted)...)},
			{"{{workload_index}} later", "-" + rate(by, "workload_delayed_tokens_sum", ours...) + " / " + rate(by, "workload_requests_total", of(accepted)...)},
		},
	})
	d.add(16, 8, chart{
		title: "Accepted vs Rejected Token Rate", help: "Tokens per second.", min: ptr(0),
		series: []series{
			{"incoming", rate("", "incoming_tokens_total", ours...)},
			{"accepted", rate("", "accepted_tokens_total", ours...)},
			{"rejected", rate("", "rejected_tokens_total", ours...)},
		},
	})
	d.add(8, 8, chart{
		title: "Waiting", help: "Flows in the queue now.", min: ptr(0), stack: true,
		series: []series{{"{{workload}}", "sum by (workload) (sluice_workload_waiting_flows" + selector(p.own()...) + ")"}},
	})
	for _, s := range []struct{ title, metric string }{
		{"Total Incoming Tokens", "incoming_tokens_total"}, {"Total Accepted Tokens", "accepted_tokens_total"}, {"Total Rejected Tokens", "rejected_tokens_total"},
	} {
		d.add(8, 4, chart{title: s.title, unit: "short", stat: true, series: []series{{s.title, total(s.metric, ours...)}}})
	}
}

func (d *Dashboard) loadActuator(p part) {
	of := selector(p.ours()...)
	const absent = " There is no line while everything passes."
	d.add(12, 8, chart{
		title: "Average Load Multiplier", help: "Admitted load relative to arriving load." + absent, min: ptr(0), step: true,
		series: []series{{"load multiplier", "avg(token_bucket_lm_ratio" + of + ")"}},
	})
	d.add(12, 8, chart{
		title: "Token Bucket FillRate", help: "Tokens per second that may pass." + absent, min: ptr(0), step: true,
		series: []series{{"fill rate", "sum(token_bucket_fill_rate" + of + ")"}},
	})
	d.add(12, 8, chart{
		title: "Token Bucket Capacity", min: ptr(0), step: true, series: []series{{"capacity", "sum(token_bucket_capacity_total" + of + ")"}},
	})
	d.add(12, 8, chart{
		title: "Token Bucket Available Tokens", series: []series{{"available", "sum(token_bucket_available_tokens_total" + of + ")"}},
	})
}

// scaler shows the replicas, which are signals.
func (d *Dashboard) scaler(p part, title string) {
	name := func(o *policy.OutPort) string {
		if o == nil {
			return ""
		}
		return o.SignalName
	}
	var desired, actual, configured string
	if s := p.Component.AutoScale.PodScaler; s != nil {
		actual, configured = name(s.OutPorts.ActualReplicas), name(s.OutPorts.ConfiguredReplicas)
		if s.InPorts.Replicas != nil {
			desired = s.InPorts.Replicas.SignalName
		}
	} else if k := p.Component.AutoScale.AutoScaler.ScalingBackend.KubernetesReplicas; k != nil {
		desired = name(k.OutPorts.DesiredReplicas)
		actual, configured = name(k.OutPorts.ActualReplicas), name(k.OutPorts.ConfiguredReplicas)
	}
	if desired+actual+configured == "" {
		return // nobody can see what it does
	}
	d.row(title)
	d.signals(p, "Desired Replicas", "", desired)
	d.signals(p, "Actual and configured replicas", "", actual, configured)
}

// signals is a panel with signals of the circuit the component is in; empty names are left out.
func (d *Dashboard) signals(p part, title, help string, names ...string) {
	c := chart{title: title, help: help, step: true}
	for _, n := range names {
		if n != "" {
			of := []string{label("policy_name", p.doc.Name), label("sub_circuit_id", p.circuit()), label("signal_name", n)}
			c.series = append(c.series, series{"{{signal_name}}", mean("signal_name", "signal_reading", of...)})
		}
	}
	if len(c.series) > 0 {
		d.add(12, 8, c)
	}
}

// meters shows the flux meters of the policy.
func (d *Dashboard) meters(doc *policy.Document) {
	for _, name := range slices.Sorted(maps.Keys(doc.Policy.Resources.FlowControl.FluxMeters)) {
		of := []string{label("policy_name", doc.Name), label("flux_meter_name", name)}
		ok := append(slices.Clone(of), `flow_status="OK"`)
		d.row("flux meter " + name + ": " + doc.Policy.Resources.FlowControl.FluxMeters[name].AttributeKey)
		d.add(12, 8, chart{
			title: "Values of flows that went well", min: ptr(0),
			series: []series{
				{"mean", mean("", "flux_meter", ok...)},
				{"p50", quantile(0.5, "flux_meter", ok...)},
				{"p95", quantile(0.95, "flux_meter", ok...)},
				{"p99", quantile(0.99, "flux_meter", ok...)},
			},
		})
		d.add(12, 8, chart{
			title: "Flows measured", unit: "reqps", stack: true,
			series: []series{
				{"{{decision_type}} {{flow_status}}", rate("decision_type, flow_status", "flux_meter_count", of...)},
				{"without a number", rate("", "invalid_flux_meter_total", of...)},
			},
		})
	}
}
