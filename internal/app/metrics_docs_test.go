// SPDX-License-Identifier: Apache-2.0

package app

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-project/sluice/internal/config"
	"github.com/sluice-project/sluice/internal/control"
	"github.com/sluice-project/sluice/internal/document"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/policy/blueprint"
	"github.com/sluice-project/sluice/internal/setpoint"
)

var updateDocs = flag.Bool("update-docs", false, "write docs/reference/metrics.md anew")

const metricsPage = "../../docs/reference/metrics.md"

// TestMetricsReference compares the page with the metrics of a server that has decided flows of all
// kinds. To write it anew: go test ./internal/app -run TestMetricsReference -update-docs
func TestMetricsReference(t *testing.T) {
	p := metricsParts(t)
	metrics, err := gathered(p.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range described(p.registry) {
		if !slices.ContainsFunc(metrics, func(m metric) bool { return m.name == d.name }) {
			metrics = append(metrics, d)
		}
	}
	slices.SortStableFunc(metrics, func(a, b metric) int { return strings.Compare(a.name, b.name) })
	want := metricsReference(metrics)
	for _, m := range metrics {
		if !strings.Contains(want, "`"+m.name+"`") && !strings.HasPrefix(m.name, "go_") && !strings.HasPrefix(m.name, "process_") {
			t.Errorf("metric %s is in no section of the page", m.name)
		}
	}
	if *updateDocs {
		if err := os.WriteFile(metricsPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the server has; run this test with -update-docs. Want:\n%s", metricsPage, want)
	}
}

// metricsParts is a server, not listening, with one policy of each blueprint, whose control points have
// seen a flow, and one control point without a policy.
func metricsParts(t *testing.T) *parts {
	t.Helper()
	c := config.Default()
	c.Listen, c.DataDir, c.Log.Level = "127.0.0.1:0", t.TempDir(), "error"
	c.Alerts.Targets = []config.AlertTarget{{Name: "pager", Type: "webhook", URL: "http://127.0.0.1:1"}}
	p := &parts{config: c, log: newLogger(c.Log, io.Discard)}
	if err := p.build(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	points := []string{"no-policy"}
	for _, b := range blueprint.All() {
		applied, err := p.catalog.Apply(t.Context(), document.ApplyRequest{
			Source: document.Source{Text: []byte(b.Example)}, Origin: document.OriginAPI,
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, component := range applied.Version.Components {
			points = append(points, component.ControlPoints...)
		}
	}
	tickOnce(t, p.runtime)
	labels := map[string]string{"model_variant": "gpt-4", "tier": "paid"}
	for _, point := range points {
		f := p.engine.Start(context.Background(), &flow.Request{ControlPoint: point, Labels: labels})
		f.End(flow.Outcome{})
	}
	for _, l := range p.engine.Overview(0).Limiters { // some numbers exist only while there is a setpoint
		p.engine.Steer([]setpoint.Setpoint{{
			Ref: setpoint.Ref{Policy: l.Spec.Policy, Component: l.Spec.Component}, Hash: l.Spec.Hash, Version: math.MaxUint64,
		}})
	}
	return p
}

// tickOnce lets every circuit tick.
func tickOnce(t *testing.T, r *control.Runtime) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	ticked := errors.New("ticked")
	for _, policy := range r.Policies() {
		err := r.Watch(ctx, policy, 1, func(u control.Update) error {
			if len(u.Frames) == 0 {
				return nil
			}
			return ticked
		})
		if !errors.Is(err, ticked) {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// metric is one line of the page.
type metric struct{ name, kind, labels, help string }

// gathered are the metrics that the registry has now, by name.
func gathered(r *prometheus.Registry) ([]metric, error) {
	families, err := r.Gather()
	var out []metric
	for _, f := range families {
		labels := map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels["`"+l.GetName()+"`"] = true
			}
		}
		out = append(out, metric{
			f.GetName(), strings.ToLower(f.GetType().String()),
			cmp.Or(strings.Join(slices.Sorted(maps.Keys(labels)), ", "), "none"), f.GetHelp(),
		})
	}
	return out, err
}

// metricsReference writes the page.
func metricsReference(metrics []metric) string {
	sections := []struct{ prefix, title, text string }{
		{"sluice_flows_", "Flows", "One series per control point. A flow that several policies limit counts once."},
		{"sluice_flow_", "Flows that ended", ""},
		{"sluice_limiter_", "Limiters", "One series per limiter: `policy` is its policy, `component` its place there, `kind` one of `load_ramp`, `sampler`, `rate_limiter`, `concurrency_limiter`, `concurrency_scheduler`, `adaptive_concurrency_scheduler`, `quota_scheduler` and `load_scheduler`. A flow counts at every limiter that decided it."},
		{"sluice_workload_", "Workloads of schedulers", "One series per workload of a scheduler; a summary here has a sum and a count, and no quantiles."},
		{"sluice_polic", "Policies", ""},
		{"sluice_circuit_", "Circuits", "One series per policy."},
		{"signal_reading", "Signals of circuits", "Under the names of Aperture. At most 2,000 signals, those of policies first in the alphabet; the private signals of composites are left out. `sub_circuit_id` is the nested circuit, `root` for the outermost. `sluice policy watch --all` shows all of them."},
		{"invalid_signal", "", ""},
		{"infinite_signal", "", ""},
		{"sluice_signal_", "Time series and queries", ""},
		{"sluice_alert", "Alerts", ""},
		{"sluice_classifier", "Classifiers", "One series per classifier: `policy` is its policy and `index` its place in the list there."},
		{"sluice_http_malformed", "", ""},
		{"sluice_cache_", "Caches", ""},
		{"sluice_discovery_", "Discovery", ""},
		{"sluice_forwardauth_", "Doors", "What other systems ask by. The flows behind it count as all others."},
		{"sluice_extauthz_", "", ""},
		{"sluice_rls_", "", ""},
		{"sluice_aperture_", "", ""},
		{"sluice_", "The server", ""},
		{"flux_meter", "Flux meters", "One series per flux meter of a policy, decision and status. The buckets are those of the meter; values are in the unit of what it measures, most often milliseconds. `http_status_code` is empty for flows whose end does not tell one."},
		{"invalid_flux_meter", "", ""},
		{"workload_", "Workloads and limiters under their Aperture names", "The same counters as above under the names and labels that policies and dashboards written for Aperture query. `policy_hash` changes with every edit of the policy; the counts go on. `workload_index` is the name of the workload, else its index, else `default`. The `fairness_*` metrics of Aperture have no counterpart yet."},
		{"request_in_queue", "", ""},
		{"incoming_tokens", "", ""},
		{"accepted_tokens", "", ""},
		{"rejected_tokens", "", ""},
		{"token_bucket_", "", ""},
		{"rate_limiter_", "", ""},
		{"concurrency_limiter_", "", ""},
		{"sampler_", "", ""},
		{"flowcontrol_", "", ""},
		{"classifier_", "", ""},
		{"cache_", "", ""},
		{"service_", "", ""},
	}
	var out strings.Builder
	out.WriteString(metricsIntro)
	rest := slices.Clone(metrics)
	for _, s := range sections {
		var rows strings.Builder
		rest = slices.DeleteFunc(rest, func(m metric) bool {
			if !strings.HasPrefix(m.name, s.prefix) {
				return false
			}
			fmt.Fprintf(&rows, "| `%s` | %s | %s | %s |\n", m.name, m.kind, m.labels, m.help)
			return true
		})
		if s.title != "" { // else the rows belong to the table before
			fmt.Fprintf(&out, "\n## %s\n\n", s.title)
			if s.text != "" {
				out.WriteString(s.text + "\n\n")
			}
			out.WriteString("| metric | type | labels | |\n|---|---|---|---|\n")
		}
		out.WriteString(rows.String())
	}
	return out.String()
}

const metricsIntro = `<!-- Generated by "go test ./internal/app -run TestMetricsReference -update-docs". Do not edit. -->

# Metrics

` + "`GET /metrics`" + ` serves these in the Prometheus text format, on the port of everything else. A server that asks
for tokens wants one of role viewer, operator or admin. Beside them are the usual ` + "`go_*` and `process_*`" + `.

Counters start at 0 with the process. Account keys, such as user names, are never labels, so the number of
series does not grow with the number of users: it is bounded by control points
(` + "`limits.max_control_points`" + `), limiters in force, and 1,000 workloads per scheduler.
[Operations](../operations.md#metrics-and-alerts) says which to alert on.
`

// described are all metrics of ours that the registry may ever have. Of those that nothing has counted yet a
// description knows all but the type, which their names tell.
func described(r *prometheus.Registry) []metric {
	ch := make(chan *prometheus.Desc)
	go func() {
		defer close(ch)
		r.Describe(ch)
	}()
	var out []metric
	for d := range ch {
		// Desc has no accessors.
		parts := description.FindStringSubmatch(d.String())
		if parts == nil || !ours.MatchString(parts[1]) {
			continue
		}
		m := metric{name: parts[1], kind: "gauge", help: strings.ReplaceAll(parts[2], `\"`, `"`), labels: "none"}
		if strings.HasSuffix(m.name, "_total") {
			m.kind = "counter"
		}
		if parts[3] != "" {
			labels := strings.Split(parts[3], ",")
			slices.Sort(labels)
			m.labels = "`" + strings.Join(labels, "`, `") + "`"
		}
		out = append(out, m)
	}
	return out
}

var (
	description = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: "(.*?)"(?:, unit: "[^"]*")?, constLabels: \{.*\}, variableLabels: \{(.*)\}\}$`)
	ours        = regexp.MustCompile(`^(sluice|cache|classifier|service)_`)
)
