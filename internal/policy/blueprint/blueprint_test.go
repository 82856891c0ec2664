// SPDX-License-Identifier: Apache-2.0

package blueprint

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// problems are all problems of every file in testdata/bad, at their places in the values file.
var problems = map[string][]string{
	"adaptive": {
		`7:29: policy.load_scheduling_core.adaptive_concurrency_scheduler.concurrency_limiter.limit_by_label_key: unknown field; known here: max_inflight_duration`,
		`7:78: policy.load_scheduling_core.adaptive_concurrency_scheduler.concurrency_limiter.max_inflight_duration: got text "0s", want more than 0s`,
		`8:37: policy.load_scheduling_core.adaptive_concurrency_scheduler.parameters.min_concurrency: got number 30, want at most max_concurrency, which is 20`,
		`8:83: policy.load_scheduling_core.adaptive_concurrency_scheduler.parameters.initial_concurrency: got -1, want at least 1`,
	},
	"amounts": {
		`5:22: policy.quota_scheduler.bucket_capacity: got -1, want at least 0`,
		`6:18: policy.quota_scheduler.fill_amount: got number .inf, want a finite number`,
		`7:30: policy.quota_scheduler.rate_limiter.interval: got text "0s", want more than 0s`,
		`8:16: policy.quota_scheduler.selectors: got an empty list, want at least one item`,
	},
	"auto-scaling": {
		`7:21: policy.scaling_backend.kubernetes_replicas.max_replicas: got number 3, want at least min_replicas, which is 5`,
		`8:7: policy.scaling_backend.kubernetes_replicas.kubernetes_object_selector.namespace: missing; want text`,
		`8:7: policy.scaling_backend.kubernetes_replicas.kubernetes_object_selector.api_version: missing; want text`,
		`8:7: policy.scaling_backend.kubernetes_replicas.kubernetes_object_selector.kind: missing; want text`,
		`9:34: policy.promql_scale_out_controllers[0].query_string: missing; want text`,
		`10:90: policy.promql_scale_in_controllers[0].gradient.min_gradient: got 2, want at most 1`,
		`11:13: policy.pod_cpu.scale_out.threshold: missing; want a number; it is needed because enabled is true`,
		`11:78: policy.pod_cpu.scale_in.threshold: got 0, want more than 0`,
		`12:55: policy.scaling_parameters.scale_in_alerter.alert_name: got empty text, want some text`,
	},
	"average-latency": {
		`4:24: policy.evaluation_interval: got text "50ms", want at least 100ms`,
		`6:81: policy.latency_baseliner.flux_meter.static_buckets.buckets[1]: got number 1, want more than the bound before it, 2`,
		`7:35: policy.latency_baseliner.latency_tolerance_multiplier: got 0, want more than 0`,
		`8:32: policy.latency_baseliner.short_term_query_interval: got text "2h", want at most 1h`,
		`12:24: policy.load_scheduling_core.overload_confirmations[0].query_string: got empty text, want some text`,
		`12:52: policy.load_scheduling_core.overload_confirmations[0].operator: got text "above", want one of gt, lt, gte, lte, eq, neq`,
		`13:9: policy.load_scheduling_core.overload_confirmations[1].query_string: missing; want text`,
		`16:18: policy.load_scheduling_core.kubelet_overload_confirmations.criteria.pod_cpu.threshold: missing; want a number; it is needed because enabled is true`,
		`16:83: policy.load_scheduling_core.kubelet_overload_confirmations.criteria.pod_memory.threshold: got -1, want at least 0`,
		`18:7: policy.load_scheduling_core.aimd_load_scheduler.load_scheduler.selectors: missing; want a list`,
		`19:32: policy.load_scheduling_core.aimd_load_scheduler.gradient.min_gradient: got number 2, want at most max_gradient, which is 1`,
		`20:27: policy.load_scheduling_core.aimd_load_scheduler.alerter.severity: got text "bad", want one of info, warn, crit`,
	},
	"blueprint-not-text": {
		`1:12: blueprint: got number 5, want the name of a blueprint`,
	},
	"concurrency": {
		`5:22: policy.concurrency_limiter.max_concurrency: got text "1e308", want at most 9007199254740992`,
		`6:41: policy.concurrency_limiter.parameters.max_inflight_duration: got text "0s", want more than 0s`,
		`7:55: policy.concurrency_limiter.request_parameters.denied_response_status_code: got number 42, want an HTTP status such as TooManyRequests or 429`,
		`8:17: policy.concurrency_limiter.selectors[0].control_point: missing; want text`,
	},
	"names-taken": {
		`8:47: policy.components[0].max.out_ports.output.signal_name: signal "SIGNAL" has a producer already, policy.postgresql; choose another name`,
		`9:47: policy.components[1].min.in_ports.inputs[0].signal_name: no component of this circuit produces the signal "IS_OVERLOADED"; did you mean "IS_OVERLOAD"?`,
		`11:32: policy.resources.infra_meters.postgresql: the name "postgresql" is taken, by the blueprint or by another one here; choose another name`,
		`11:69: policy.resources.infra_meters.mine: the name "mine" is taken, by the blueprint or by another one here; choose another name`,
	},
	"no-blueprint": {
		`1:1: blueprint: these are values of a blueprint, but the document does not say of which; add a line such as "blueprint: load-scheduling/adaptive"; sluice blueprint list names them all`,
	},
	"no-policy": {
		`1:1: policy: missing; want a mapping`,
	},
	"older-both": {
		`4:3: policy.setpoint: got setpoint and connections_used_threshold, want only one of them; the first is the old name of the second`,
		`6:55: policy.postgresql.port: unknown field; known here: agent_group, endpoint, username, password, transport, databases, collection_interval, initial_delay, tls`,
		`8:75: policy.load_scheduling_core.overload_confirmations[0].operator: got text "above", want one of gt, lt, gte, lte, eq, neq`,
		`9:59: policy.load_scheduling_core.aiad_load_scheduler.load_scheduler.selectors: got an empty list, want at least one item`,
	},
	"other-keys": {
		`2:1: url: unknown field; did you mean "uri"?`,
		`3:1: circuit: unknown field; known here: blueprint, uri, policy`,
	},
	"promql": {
		`5:13: policy.setpoint: got number .nan, want a finite number`,
		`6:23: policy.overload_condition: got text "above", want one of gt, lt, gte, lte`,
		`8:5: policy.load_scheduling_core.aimd_load_scheduler: unknown field; did you mean "aiad_load_scheduler"?`,
	},
	"ramping": {
		`7:9: policy.load_ramp.steps[0].target_accept_percentage: missing; want a number`,
		`8:36: policy.load_ramp.steps[1].target_accept_percentage: got 101, want at most 100`,
		`8:51: policy.load_ramp.steps[1].duration: got number 10, want a duration such as "30s" or "1m30s"; did you mean "10s"?`,
		`12:19: policy.drivers.promql_drivers[0].criteria: got none, want one or more of forward, backward and reset`,
		`14:54: policy.drivers.promql_drivers[1].criteria.forward.operator: got text "<", want one of gt, lt, gte, lte, eq, neq`,
		`14:60: policy.drivers.promql_drivers[1].criteria.back: unknown field; did you mean "backward"?`,
		`17:20: policy.drivers.average_latency_drivers[0].criteria.forward.threshold: missing; want a number`,
		`19:22: policy.drivers.percentile_latency_drivers[0].flux_meter.selector: unknown field; did you mean "selectors"?`,
		`20:21: policy.drivers.percentile_latency_drivers[0].percentile: got 100, want less than 100`,
		`23:5: policy.kubelet_metrics.infra_context.namespace: missing; want text`,
		`23:27: policy.kubelet_metrics.infra_context.kind: got text "Pod", want one of Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob`,
		`24:25: policy.kubelet_metrics.criteria.pod_cpu: got none, want one or more of forward, backward and reset`,
		`25:10: policy.start: got text "yes", want true or false; did you mean true (without quotes)?`,
	},
	"required": {
		`2:1: policy.policy_name: missing; want text`,
		`3:3: policy.rate_limiter.bucket_capacity: missing; want a number`,
		`3:3: policy.rate_limiter.fill_amount: missing; want a number`,
		`3:3: policy.rate_limiter.selectors: missing; want a list`,
		`3:3: policy.rate_limiter.parameters: missing; want a mapping`,
	},
	"short-average": {
		`5:97: policy.latency_baseliner.short_term_query_interval: got text "5s", want at least 3 ticks, 6s at the evaluation_interval of 2s`,
		`5:127: policy.latency_baseliner.long_term_query_interval: got text "1s", want at least 3 ticks, 6s at the evaluation_interval of 2s`,
	},
	"signals": {
		`12:39: policy.components[0].decider.in_ports.lhs.signal_name: no component of this circuit produces the signal "ACCEPT_PERCENT"; did you mean "ACCEPT_PERCENTAGE"?`,
		`13:43: policy.components[0].decider.out_ports.output.signal_name: signal "ACCEPT_PERCENTAGE_ALERT" has a producer already, policy.rate_limiter.alerter; choose another name`,
		`14:47: policy.components[1].max.out_ports.output.signal_name: signal "ACCEPT_PERCENTAGE" has a producer already, policy.rate_limiter.out_ports.accept_percentage; choose another name`,
	},
	"unknown-blueprint": {
		`1:12: blueprint: unknown blueprint "rate-limitting/base"; did you mean "rate-limiting/base"?`,
	},
	"values": {
		`3:16: policy.policy_name: got text "Mistral", want lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit; did you mean "mistral"?`,
		`5:5: policy.concurrency_scheduler.max_concurency: unknown field; did you mean "max_concurrency"?`,
		"8:71: policy.concurrency_scheduler.selectors[0].label_matcher.expression.label_matches.regex: got text \"[\", want an RE2 regular expression; missing closing ]: `[`",
		`10:30: policy.concurrency_scheduler.concurrency_limiter.max_inflight_duration: got number 60, want a duration such as "30s" or "1m30s"; did you mean "60s"?`,
		`14:18: policy.concurrency_scheduler.scheduler.workloads[1].name: duplicate workload name "a", first used by workloads[0]`,
		`14:63: policy.concurrency_scheduler.scheduler.workloads[1].parameters.priority: got 0, want more than 0`,
		`15:27: policy.concurrency_scheduler.alerter.alert_name: got empty text, want some text`,
		`16:3: policy.componets: unknown field; did you mean "components"?`,
	},
}

var show = flag.Bool("show", false, "print what the bad values give, in the form of the table")

func quote(s string) string {
	if strings.Contains(s, "`") {
		return fmt.Sprintf("%q", s)
	}
	return "`" + s + "`"
}

func TestBadValues(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) != len(problems) {
		t.Errorf("found %d files for %d rows: %v", len(files), len(problems), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(policy.Source{Text: text})
			var list fielderr.List
			if !errors.As(err, &list) {
				t.Fatalf("got error %v, want a fielderr.List", err)
			}
			if *show {
				fmt.Printf("\t%q: {\n", name)
				for line := range strings.SplitSeq(list.Error(), "\n") {
					fmt.Printf("\t\t%s,\n", quote(line))
				}
				fmt.Println("\t},")
				return
			}
			if diff := cmp.Diff(problems[name], strings.Split(list.Error(), "\n")); diff != "" {
				t.Errorf("problems differ (-want +got):\n%s", diff)
			}
		})
	}
}

var update = flag.Bool("update", false, "write what is rendered to testdata/golden")

// golden compares a rendered policy with what it was. After a change of a blueprint, run the tests with
// -update and commit what you can explain: the hash of everybody's policies changes with it.
func golden(t *testing.T, name string, d *policy.Document) {
	t.Helper()
	file := filepath.Join("testdata", "golden", strings.ReplaceAll(name, "/", ".")+".yaml")
	got, err := PolicyYAML(d)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s changed (-want +got):\n%s", file, diff)
	}
	again, err := policy.Parse(policy.Source{Text: got})
	if err != nil {
		t.Fatalf("rendered policy is refused: %v", err)
	}
	if again.Hash != d.Hash || again.Name != d.Name || len(again.Warnings) > 0 {
		t.Errorf("rendered policy means something else, or has warnings %v:\n%s", again.Warnings, cmp.Diff(string(d.Canonical), string(again.Canonical)))
	}
}

// TestExamples renders the example of every blueprint and reads the result again.
func TestExamples(t *testing.T) {
	for _, b := range All() {
		t.Run(b.Name, func(t *testing.T) {
			r, err := b.Render(policy.Source{Text: []byte(b.Example)})
			if err != nil {
				t.Fatal(err)
			}
			if r.Document.Blueprint != b.Name || len(r.Document.Warnings) > 0 {
				t.Errorf("got %s with warnings %v, want the blueprint named and no warnings", r.Document.Blueprint, r.Document.Warnings)
			}
			golden(t, b.Name, r.Document)
			if again, err := b.Render(policy.Source{Text: []byte(b.Example)}); err != nil || !bytes.Equal(again.YAML, r.YAML) {
				t.Errorf("rendering twice gives two policies: %v", err)
			}
			if d := r.Document.Components[0]; d.ID != "root.0" || d.Component.FlowControl == nil && d.Component.AutoScale == nil {
				t.Errorf("got %+v, want the actuator first: dashboards and metrics know it as root.0", d)
			}
		})
	}
}

// TestScenarios renders the values files of older names that people have.
func TestScenarios(t *testing.T) {
	warnings := map[string][]string{
		"hasura-auto-scale": {
			`1:1: blueprint: warning: deprecated name "service-protection/average-latency"; write blueprint: load-scheduling/average-latency`,
			`62:3: policy.service_protection_core: warning: deprecated; use load_scheduling_core`,
			`64:5: policy.load_scheduling_core.adaptive_load_scheduler: warning: deprecated; use load_scheduling_core.aimd_load_scheduler`,
		},
		"postgresql-protection": {
			`1:1: blueprint: warning: deprecated name "service-protection/postgresql"; write blueprint: load-scheduling/postgresql`,
			`4:3: policy.setpoint: warning: deprecated; use connections_used_threshold`,
			`28:3: policy.service_protection_core: warning: deprecated; use load_scheduling_core`,
			`30:5: policy.load_scheduling_core.cpu_overload_confirmation: warning: deprecated; use load_scheduling_core.overload_confirmations`,
			`34:5: policy.load_scheduling_core.adaptive_load_scheduler: warning: deprecated; use load_scheduling_core.aiad_load_scheduler`,
		},
	}
	for name, want := range warnings {
		text, err := os.ReadFile(filepath.Join("testdata", "scenarios", name+".values.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := Parse(policy.Source{Text: text})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, strings.Split(d.Warnings.Error(), "\n")); diff != "" {
			t.Errorf("%s: warnings differ (-want +got):\n%s", name, diff)
		}
		golden(t, "scenario."+name, d)
	}
}

// TestAlerts compares the circuits of limiters with what they promise.
func TestAlerts(t *testing.T) {
	for _, name := range []string{"rate-limiting/base", "quota-scheduling/base", "concurrency-limiting/base", "concurrency-scheduling/base"} {
		b, _ := Find(name)
		r, err := b.Render(policy.Source{Text: []byte(b.Example)})
		if err != nil {
			t.Fatal(err)
		}
		c := r.Document.Policy.Circuit.Components
		if len(c) != 3 || c[0].FlowControl == nil || c[1].Decider == nil || c[2].Alerter == nil {
			t.Fatalf("%s: got %+v, want a limiter, a decider and an alerter", name, c)
		}
		if limit, _, _ := c[1].Decider.InPorts.RHS.Constant(); c[1].Decider.Operator != "lte" || limit != 10 {
			t.Errorf("%s: alert at %s %g %%, want it at lte 10 %% admitted, when more than 90 %% are denied", name, c[1].Decider.Operator, limit)
		}
		if d := c[1].Decider.TrueFor.Std(); d <= 30*time.Second {
			t.Errorf("%s: alert after %s, want longer than one flow stays in the percentage", name, d)
		}
		if c[1].Decider.InPorts.LHS.SignalName != "ACCEPT_PERCENTAGE" || c[2].Alerter.InPorts.Signal.SignalName != c[1].Decider.OutPorts.Output.SignalName {
			t.Errorf("%s: signals do not lead from the limiter to the alert: %+v", name, c)
		}
	}
}

// fills are values for what values files leave open, by key; everything else is a number.
var fills = map[string]string{
	"control_point": "a", "policy_name": "x", "interval": "1s", "max_inflight_duration": "1s", "duration": "1s", "overload_condition": "gt",
	"promql_query": "up", "endpoint": "a:1", "username": "a", "password": "a", "jmx_host": "a", "app_namespace": "a", "k8s_pod_regex": "a",
	"name": "a", "namespace": "a", "kind": "Deployment", "api_version": "apps/v1",
}

func fill(line string) string {
	key, _, _ := strings.Cut(strings.TrimLeft(line, " -"), ":")
	value, ok := fills[key]
	if !ok {
		value = "1"
	}
	return strings.Replace(line, strict.Placeholder, value, 1)
}

// TestValuesFiles fills in what the commented values files leave open: the result is what the defaults
// alone give. Leaving any one open is refused at its place.
func TestValuesFiles(t *testing.T) {
	for _, b := range All() {
		text, err := b.Values()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(policy.Source{Text: text}); err == nil || !strings.Contains(err.Error(), "not filled in") {
			t.Errorf("%s: got %v, want a refusal of what is not filled in", b.Name, err)
		}
		var full, short strings.Builder // short is only what was filled in
		lines := slices.Collect(strings.Lines(string(text)))
		for i, line := range lines {
			full.WriteString(fill(line))
			open := strings.Contains(line, strict.Placeholder) && !strings.Contains(line, "#")
			if open {
				missing := strings.Join(slices.Concat(mapped(lines[:i]), mapped(lines[i+1:])), "")
				checkMissing(t, b, line, missing)
			}
			if open || strings.HasSuffix(strings.TrimSpace(line), ":") && !strings.Contains(line, "#") || strings.HasPrefix(line, "blueprint") {
				short.WriteString(fill(line))
			}
			if strings.HasPrefix(strings.TrimSpace(line), "- #") {
				fmt.Fprintln(&short, strings.Repeat(" ", strings.Index(line, "-"))+"-")
			}
		}
		filled, err := Parse(policy.Source{Text: []byte(full.String())})
		if err != nil {
			t.Errorf("%s: %v", b.Name, err)
			continue
		}
		brief, err := Parse(policy.Source{Text: []byte(short.String())})
		if err != nil {
			t.Errorf("%s: %v\n%s", b.Name, err, short.String())
			continue
		}
		if filled.Hash != brief.Hash {
			t.Errorf("%s: the values file does not have the defaults:\n%s", b.Name, cmp.Diff(string(brief.Canonical), string(filled.Canonical)))
		}
	}
}

func mapped(lines []string) []string {
	var filled []string
	for _, line := range lines {
		filled = append(filled, fill(line))
	}
	return filled
}

// checkMissing parses a values file without one required line: it is refused, with its name and a place.
func checkMissing(t *testing.T, b *Blueprint, line, text string) {
	t.Helper()
	key, _, _ := strings.Cut(strings.TrimLeft(line, " -"), ":")
	_, err := Parse(policy.Source{Text: []byte(text)})
	var list fielderr.List
	if !errors.As(err, &list) {
		t.Errorf("%s without %s: got %v, want a refusal", b.Name, key, err)
		return
	}
	if p := list[0]; !strings.HasSuffix(p.Path, key) || p.Message != "missing" || p.Want == "" || p.Line < 2 {
		t.Errorf("%s without %s: got %v, want it reported as missing", b.Name, key, err)
	}
}

func TestAppendedComponentsAndResources(t *testing.T) {
	text, err := os.ReadFile("../testdata/good/per-user-concurrency.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d, err := Parse(policy.Source{Text: text})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, c := range d.Components {
		kinds = append(kinds, c.ID+" "+c.Kind)
	}
	want := []string{"root.0 concurrency_limiter", "root.1 decider", "root.2 alerter", "root.3 decider", "root.4 alerter"}
	if !slices.Equal(kinds, want) {
		t.Errorf("got %v, want %v", kinds, want)
	}
	alert := d.Policy.Circuit.Components[2].Alerter.Parameters
	if alert.Severity != "crit" || alert.AlertName != "Too many inflight requests" {
		t.Errorf("got %+v, want the default name with the severity of the file", alert)
	}
	if len(d.Policy.Resources.FlowControl.Classifiers) != 1 {
		t.Errorf("got %+v, want the classifier of the file", d.Policy.Resources)
	}
}

const minimal = `policy: {policy_name: x, rate_limiter: {bucket_capacity: 0, fill_amount: 0, parameters: {interval: 1s}, selectors: [{control_point: a}]}}`

const average = `policy: {policy_name: x, latency_baseliner: {flux_meter: {selectors: [{control_point: a}]}}, load_scheduling_core: {aimd_load_scheduler: {load_scheduler: {selectors: [{control_point: a}]}}}}`

// TestRecognition checks how a document says which blueprint its values are for.
func TestRecognition(t *testing.T) {
	const name = "rate-limiting/base"
	for _, c := range []struct {
		src  policy.Source
		want string // the blueprint, or the error
	}{
		{policy.Source{Text: []byte("blueprint: rate-limiting/base\nuri: x\n" + minimal)}, name},
		{policy.Source{Text: []byte("# yaml-language-server: $schema=../../aperture/blueprints/rate-limiting/base/gen/definitions.json\n" + minimal)}, name},
		{policy.Source{Text: []byte("# Note\r\n#yaml-language-server: $schema=https://example.com/rate-limiting.base.schema.json\r\n" + minimal)}, name},
		{policy.Source{Text: []byte(minimal), Blueprint: name}, name},
		{policy.Source{Text: []byte("blueprint: rate-limiting/base\n" + minimal), Blueprint: name, Name: "x"}, name},
		{policy.Source{Text: []byte("# yaml-language-server: $schema=../policy.schema.json\nname: x\ncircuit: {}")}, ""},
		{policy.Source{Text: []byte("blueprint: rate-limiting/base\n" + minimal), Name: "y"}, `2:23: policy.policy_name: got "x", want "y", the name asked for; use one name in both places, or leave it out of the document`},
		{policy.Source{Text: []byte("blueprint: rate-limiting/base\n" + minimal), Blueprint: "quota-scheduling/base"}, `1:12: blueprint: got text "rate-limiting/base", want "quota-scheduling/base", the blueprint asked for`},
		{policy.Source{Text: []byte(average), Blueprint: "service-protection/average-latency"}, "load-scheduling/average-latency"},
		{policy.Source{Text: []byte("# yaml-language-server: $schema=../aperture/blueprints/policies/service-protection/average-latency/gen/definitions.json\n" + average)}, "load-scheduling/average-latency"},
		{policy.Source{Text: []byte("# yaml-language-server: $schema=../blueprints/load-scheduling.average-latency.schema.json\n" + average)}, "load-scheduling/average-latency"},
		{policy.Source{Text: []byte("blueprint: load-scheduling/average-latency\n" + average), Blueprint: "service-protection/average-latency"}, "load-scheduling/average-latency"},
		{policy.Source{Text: []byte("blueprint: service-protection/postgresql\n" + average), Blueprint: "load-scheduling/average-latency"}, `1:12: blueprint: got text "service-protection/postgresql", want "load-scheduling/average-latency", the blueprint asked for`},
		{policy.Source{Text: []byte(minimal), Blueprint: "rate-limiting"}, `1:1: unknown blueprint "rate-limiting"; did you mean "rate-limiting/base"?`},
	} {
		d, err := Parse(c.src)
		switch {
		case err != nil && err.Error() != c.want:
			t.Errorf("got  %v\nwant %s", err, c.want)
		case err == nil && d.Blueprint != c.want:
			t.Errorf("%s: got blueprint %q, want %q", c.src.Text, d.Blueprint, c.want)
		}
	}
}

func TestFind(t *testing.T) {
	if !slices.IsSorted(Names()) {
		t.Errorf("not sorted: %v", Names())
	}
	for _, name := range Names() {
		if b, ok := Find(name); !ok || b.Name != name || b.Title == "" || b.Description == "" {
			t.Errorf("%s: got %+v", name, b)
		}
		b, _ := Find(name)
		if schema, err := b.Schema(); err != nil || !strings.Contains(string(schema), `"const": "`+name+`"`) {
			t.Errorf("%s: schema does not name the blueprint: %v", name, err)
		}
	}
	for older, now := range olderNames {
		if b, ok := Find(older); !ok || b.Name != now {
			t.Errorf("%s: got %+v, want %s", older, b, now)
		}
	}
	if _, ok := Find("nothing"); ok {
		t.Error("found a blueprint that does not exist")
	}
}

// TestOlderValues: keys that had other names give the same policy as the new ones.
func TestOlderValues(t *testing.T) {
	for name, c := range map[string]struct{ older, now string }{
		"aimd": {
			`policy: &p {policy_name: x, latency_baseliner: {flux_meter: {selectors: &s [{control_point: a}]}}, service_protection_core: {dry_run: true, adaptive_load_scheduler: {load_scheduler: {selectors: *s}}}}`,
			`policy: {policy_name: x, latency_baseliner: {flux_meter: {selectors: [{control_point: a}]}}, load_scheduling_core: {dry_run: true, aimd_load_scheduler: {load_multiplier_linear_increment: 0.0025, load_scheduler: {selectors: [{control_point: a}]}}}}`,
		},
		"aimd, increment given": {
			`policy: {policy_name: x, latency_baseliner: {flux_meter: {selectors: [{control_point: a}]}}, load_scheduling_core: {adaptive_load_scheduler: {load_multiplier_linear_increment: 0.1, load_scheduler: {selectors: [{control_point: a}]}}}}`,
			`policy: {policy_name: x, latency_baseliner: {flux_meter: {selectors: [{control_point: a}]}}, load_scheduling_core: {aimd_load_scheduler: {load_multiplier_linear_increment: 0.1, load_scheduler: {selectors: [{control_point: a}]}}}}`,
		},
		"aiad": {
			`policy: {policy_name: x, setpoint: 9, jmx: {jmx_host: h, jmx_prometheus_port: 1}, service_protection_core: {overload_confirmations: [{query_string: a, threshold: 1}], cpu_overload_confirmation: {query_string: b, threshold: 2}, adaptive_load_scheduler: {gradient: {slope: -1}, load_scheduler: {selectors: [{control_point: a}]}}}}`,
			`policy: {policy_name: x, jmx: {jmx_host: h, jmx_prometheus_port: 1}, load_scheduling_core: {setpoint: 9, overload_confirmations: [{query_string: a, threshold: 1}, {query_string: b, threshold: 2}], aiad_load_scheduler: {load_scheduler: {selectors: [{control_point: a}]}}}}`,
		},
	} {
		kind := "load-scheduling/average-latency"
		if strings.HasPrefix(name, "aiad") {
			kind = "load-scheduling/java-gc-generic"
		}
		older, err := Parse(policy.Source{Text: []byte(c.older), Blueprint: kind})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		now, err := Parse(policy.Source{Text: []byte(c.now), Blueprint: kind})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if older.Hash != now.Hash || len(older.Warnings) == 0 || len(now.Warnings) > 0 {
			t.Errorf("%s: warnings %v and %v, policies differ:\n%s", name, older.Warnings, now.Warnings, cmp.Diff(string(now.Canonical), string(older.Canonical)))
		}
	}
}

// TestSharedAlias: what an alias stands for elsewhere does not change with an older name.
func TestSharedAlias(t *testing.T) {
	_, err := Parse(policy.Source{Blueprint: "load-scheduling/average-latency", Text: []byte(`uri: &u x
policy: {policy_name: x, service_protection_core: &core {adaptive_load_scheduler: {load_scheduler: {selectors: [{control_point: a}]}}}, load_scheduling: *core, latency_baseliner: {flux_meter: {selectors: [{control_point: a}]}}}`)})
	if err == nil || err.Error() != `2:137: policy.load_scheduling: unknown field; did you mean "load_scheduling_core"?` {
		t.Errorf("got %v, want only the unknown field", err)
	}
}

// TestAverageLatencyWindows: the short average has the length of the ticks, and a long one stands alone.
func TestAverageLatencyWindows(t *testing.T) {
	for values, want := range map[string][2]string{
		"":                               {"[5s]", "[30s]"},
		"evaluation_interval: 100ms":     {"[500ms]", "[30s]"},
		"evaluation_interval: 2.5s":      {"[12500ms]", "[30s]"},
		"evaluation_interval: 10s":       {"[50s]", "[50s]"},
		"short_term_query_interval: 10s": {"[10s]", "[30s]"},
		"short_term_query_interval: 60s": {"[60s]", "[60s]"},
	} {
		text := strings.Replace(average, "flux_meter:", "flux_meter: ", 1)
		if strings.HasPrefix(values, "evaluation") {
			text = strings.Replace(text, "policy_name: x", "policy_name: x, "+values, 1)
		} else if values != "" {
			text = strings.Replace(text, "latency_baseliner: {", "latency_baseliner: {"+values+", ", 1)
		}
		d, err := Parse(policy.Source{Text: []byte(text), Blueprint: "load-scheduling/average-latency"})
		if err != nil {
			t.Fatalf("%s: %v", values, err)
		}
		query := d.Policy.Circuit.Components[1].Query.PromQL
		windows := regexp.MustCompile(`\[[^]]*\]`).FindAllString(query.QueryString, -1)
		if got := [2]string{windows[0], windows[len(windows)-1]}; got != want || query.EvaluationInterval != d.Policy.Circuit.EvaluationInterval {
			t.Errorf("%s: got windows %v every %s, want %v on every tick", values, windows, query.EvaluationInterval, want)
		}
	}
}

// TestPercentile: 95 and 0.95 are the same percentile, below 1 for PromQL.
func TestPercentile(t *testing.T) {
	for percentile, want := range map[float64]string{95: "0.95", 0.95: "0.95", 99.9: "0.999", 1: "0.01", 50: "0.5"} {
		if got := (PercentileLatencyDriver{Percentile: percentile}).quantile(); got != want {
			t.Errorf("%g: got %s, want %s", percentile, got, want)
		}
	}
}

// TestTelemetryCollectors: the old form of infra meters becomes the new one, beside those of the blueprint.
func TestTelemetryCollectors(t *testing.T) {
	b, _ := Find("load-scheduling/postgresql")
	d, err := Parse(policy.Source{Text: []byte(b.Example + `
  resources:
    telemetry_collectors:
      - agent_group: far
        infra_meters: {rabbitmq: {receivers: {rabbitmq: {endpoint: a}}}}
    flow_control:
      flux_meters: {mine: {selectors: [{control_point: a}]}}
`)})
	if err != nil {
		t.Fatal(err)
	}
	r := d.Policy.Resources
	if len(r.InfraMeters) != 2 || r.InfraMeters["rabbitmq"].AgentGroup != "far" || r.TelemetryCollectors != nil || len(r.FlowControl.FluxMeters) != 1 {
		t.Errorf("got %+v, want both infra meters and the flux meter", r)
	}
	if len(d.Warnings) != 1 || !strings.Contains(d.Warnings.Error(), "use infra_meters") {
		t.Errorf("got warnings %v, want one", d.Warnings)
	}
}

// TestKubeletSelectors: one infra meter looks at all pods that a policy asks for, each once.
func TestKubeletSelectors(t *testing.T) {
	b, _ := Find("load-scheduling/cpu-overload-protection-k8s")
	for object, want := range map[string]int{"{name: service1-demo-app, namespace: demoapp}": 1, "{name: other, namespace: demoapp, kind: StatefulSet}": 2} {
		text := strings.Replace(b.Example, "    setpoint: 40\n", "    setpoint: 40\n    kubelet_overload_confirmations: {infra_context: "+object+", criteria: {pod_memory: {enabled: true, threshold: 1e9}}}\n", 1)
		d, err := Parse(policy.Source{Text: []byte(text)})
		if err != nil {
			t.Fatal(err)
		}
		attributes := d.Policy.Resources.InfraMeters["kubeletstats"].Processors["k8sattributes"]
		if got := attributes["selectors"].([]any); len(got) != want {
			t.Errorf("%s: got selectors %v, want %d", object, got, want)
		}
	}
}

// TestScaleIn: less use than the threshold means fewer replicas, which takes a positive slope.
func TestScaleIn(t *testing.T) {
	b, _ := Find("auto-scaling/pod-auto-scaler")
	r, err := b.Render(policy.Source{Text: []byte(b.Example)})
	if err != nil {
		t.Fatal(err)
	}
	s := r.Document.Policy.Circuit.Components[0].AutoScale.AutoScaler
	if len(s.ScaleInControllers) != 1 || s.ScaleInControllers[0].Controller.Gradient.Parameters.Slope != 1 || len(s.ScaleOutControllers) != 1 {
		t.Errorf("got %+v, want one controller each, with slope 1", s)
	}
}

// TestRenderKeepsText: text that YAML could read as something else comes back as text.
func TestRenderKeepsText(t *testing.T) {
	for _, text := range []string{
		"1", "1e3", "0x1f", "1_000", "null", "true", "yes", "~", ".nan", "2001-01-01", "a: b", "- a", "# a", "'", `"`, "é", "a\nb\n", " a ",
		"", "{}", "*a", "&a", "!a", "%", "@", "|", "a #b", "\t", "\u2028", strings.Repeat("long ", 100), strict.Placeholder + "x",
	} {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		d, err := policy.Parse(policy.Source{Name: "x", Text: fmt.Appendf(nil, `{"resources":{"flow_control":{"flux_meters":{"m":{"selectors":[{"control_point":"a","service":%s}]}}}}}`, quoted)})
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		rendered, err := PolicyYAML(d)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		again, err := policy.Parse(policy.Source{Text: rendered})
		if err != nil {
			t.Errorf("%q: %v\n%s", text, err, rendered)
			continue
		}
		if got := again.Policy.Resources.FlowControl.FluxMeters["m"].Selectors[0].Service; got != text {
			t.Errorf("got %q, want %q back from\n%s", got, text, rendered)
		}
	}
	for _, name := range []string{"1", "1e3", "null", "true", "2001-01-01", "0.5"} {
		rendered, err := PolicyYAML(&policy.Document{Name: name, Canonical: []byte(`{"circuit":{"evaluation_interval":"1s"}}`)})
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(rendered), "{") {
			t.Errorf("got JSON, want YAML: %s", rendered)
		}
		if again, err := policy.Parse(policy.Source{Text: rendered}); err != nil || again.Name != name {
			t.Errorf("name %q does not come back from %s: %v", name, rendered, err)
		}
	}
}

// FuzzRender gives every blueprint hostile values: they are refused with places, or make a policy that
// reads back as what it is.
func FuzzRender(f *testing.F) {
	for _, b := range All() {
		f.Add(b.Name, b.Example)
		text, err := b.Values()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b.Name, string(text))
	}
	f.Add("rate-limiting/base", minimal)
	files, err := filepath.Glob("testdata/*/*.values.yaml")
	if err != nil || len(files) == 0 {
		f.Fatalf("found no scenarios: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add("load-scheduling/average-latency", string(text))
		f.Add("service-protection/postgresql", string(text))
	}
	f.Fuzz(func(t *testing.T, name, text string) {
		b, ok := Find(name)
		if !ok {
			b = All()[0]
		}
		r, err := b.Render(policy.Source{Text: []byte(text)})
		if err != nil {
			var list fielderr.List
			if !errors.As(err, &list) || len(list) == 0 {
				t.Fatalf("got error %v, want a fielderr.List", err)
			}
			return
		}
		again, err := policy.Parse(policy.Source{Text: r.YAML})
		if err != nil {
			t.Fatalf("rendered policy is refused: %v\n%s", err, r.YAML)
		}
		if again.Hash != r.Document.Hash || again.Name != r.Document.Name {
			t.Fatalf("rendered policy means something else:\n%s\n%s", r.Document.Canonical, again.Canonical)
		}
	})
}
