// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/blueprint"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

const everyComponent = "testdata/every-component.yaml"

// goodFiles are the examples, and the inventory of all components.
func goodFiles(t testing.TB) []string {
	files, err := filepath.Glob("testdata/good/*")
	if err != nil || len(files) < 6 {
		t.Fatalf("found %d examples: %v", len(files), err)
	}
	return append(files, everyComponent)
}

func mustParse(t testing.TB, file string, text []byte) *policy.Document {
	t.Helper()
	doc, err := blueprint.Parse(policy.Source{File: file, Text: text})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestGoodDocuments checks what every good document promises: an unchanging name and hash, and a canonical
// form that means the same.
func TestGoodDocuments(t *testing.T) {
	hash := map[string]string{
		"crawler-escalation":     "e7e8bb2e305028bf8d2c59bb76a1cf36",
		"feature-rollout":        "1c4406d08224c250b19f6a215787d3fc",
		"crawlers":               "d479a32069edb33b42cad3d1acbe6eda",
		"every-component":        "fa31d030b5ceb45c3a4f81d0e746a252",
		"inter-service":          "fd165e7d7260f8e6d12677436cdeb2b5",
		"mistral":                "bad223cffe9aff7d96bdfcd6f28203bd",
		"gpt-4-rpm":              "a399db6900980ea60257bf23f4b574d4",
		"gpt-4-tpm":              "ec4bcb137703a1c3f3b2b8aeebb4ff35",
		"concurrency-limit-test": "49186c51f52e3e71d69b7e68846ab270",
		"per-user-rate-limit":    "eea6b3cf7eeff3d72b884105bc314f6a",
		"tiers":                  "c0bdf3953ec38d93428f52b388930816",
	}
	for _, file := range goodFiles(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			doc := mustParse(t, file, read(t, file))
			if want, ok := hash[doc.Name]; !ok || doc.Hash != want {
				// A changed hash restarts the circuits of everybody who updates: change it for a reason.
				t.Errorf("%q has hash %q, want %q", doc.Name, doc.Hash, want)
			}
			again, err := policy.Parse(policy.Source{Name: doc.Name, Text: doc.Canonical})
			if err != nil {
				t.Fatalf("canonical form: %v", err)
			}
			if again.Hash != doc.Hash || !bytes.Equal(again.Canonical, doc.Canonical) {
				t.Errorf("canonical form changes when it is parsed:\n%s", cmp.Diff(string(doc.Canonical), string(again.Canonical)))
			}
		})
	}
}

const limiter = `
policy_name: x
circuit:
  components:
    - flow_control:
        quota_scheduler:
          in_ports: {bucket_capacity: {constant_signal: {value: %s}}, fill_amount: {}}
          rate_limiter: {interval: 1s%s}
          selectors: [{control_point: a}]
          scheduler: {%s}
`

func TestDefaults(t *testing.T) {
	scheduler := func(parameters, scheduler string) *policy.QuotaScheduler {
		doc := mustParse(t, "", fmt.Appendf(nil, limiter, "1", parameters, scheduler))
		return doc.Policy.Circuit.Components[0].FlowControl.QuotaScheduler
	}
	absent, null, zero := scheduler("", ""),
		scheduler(", continuous_fill: ~, max_idle_time: null, lazy_sync:", "workloads: [{label_matcher: {}, parameters: {priority: ~}}]"),
		scheduler(", continuous_fill: false", "decision_deadline_margin: 0s, workloads: [{label_matcher: {}, parameters: {tokens: 0, queue_timeout: 0s}}]")
	for name, s := range map[string]*policy.QuotaScheduler{"absent": absent, "null": null} {
		p := s.RateLimiter
		if !p.ContinuousFill || p.MaxIdleTime.Std() != 2*time.Hour || p.LazySync.NumSync != 4 || s.Scheduler.DecisionDeadlineMargin.Std() != 10*time.Millisecond {
			t.Errorf("%s: got %+v, want the defaults", name, s)
		}
	}
	if w := null.Scheduler.Workloads[0].Parameters; w.Priority != 1 || w.Tokens != 1 || w.QueueTimeout != nil {
		t.Errorf("null in a list item: got %+v, want the defaults", w)
	}
	if zero.RateLimiter.ContinuousFill || zero.Scheduler.DecisionDeadlineMargin != 0 {
		t.Errorf("explicit zeros: got %+v, want them kept", zero)
	}
	if w := zero.Scheduler.Workloads[0].Parameters; w.Tokens != 0 || w.QueueTimeout == nil || *w.QueueTimeout != 0 {
		t.Errorf("explicit zeros in a list item: got %+v, want them kept", w)
	}
	if s := absent.Selectors[0]; s.AgentGroup != "default" || s.Service != "any" {
		t.Errorf("selector: got %+v, want the defaults", s)
	}
}

// TestHashMeansTheSame checks that the way a document is written does not change its hash, and that what it
// means does.
func TestHashMeansTheSame(t *testing.T) {
	hash := func(capacity, parameters, scheduler string) string {
		return mustParse(t, "", fmt.Appendf(nil, limiter, capacity, parameters, scheduler)).Hash
	}
	want := hash("60", "", "")
	for _, same := range [][3]string{
		{`"60"`, "", ""},
		{"60.0", "", ""},
		{"6.0e+1", "", ""},
		{"0x3C", "", ""},
		{"60", ", continuous_fill: true", "workloads: []"},
		{"60", ", max_idle_time: 2h", "denied_response_status_code: 503"},
		{"60", ", lazy_sync: {}", ""},
		{"60,", "", ""},
	} {
		if got := hash(same[0], same[1], same[2]); got != want {
			t.Errorf("%q: hash differs", same)
		}
	}
	for _, other := range [][3]string{{"61", "", ""}, {"60", ", continuous_fill: false", ""}, {"60", "", "priority_label_key: p"}} {
		if got := hash(other[0], other[1], other[2]); got == want {
			t.Errorf("%q: hash does not differ", other)
		}
	}
}

func TestComponents(t *testing.T) {
	doc := mustParse(t, everyComponent, read(t, everyComponent))
	var got []string
	kinds := map[string]bool{}
	for _, c := range doc.Components {
		if c.Component == nil || c.Component.Kind() != c.Kind {
			t.Errorf("%s: kind %s does not match its component", c.ID, c.Kind)
		}
		kinds[c.Kind] = true
		if c.ControlPoints != nil || strings.HasPrefix(c.ID, "root.25") {
			got = append(got, fmt.Sprintf("%s %s %v", c.ID, c.Kind, c.ControlPoints))
		}
	}
	want := []string{
		"root.25 nested_circuit []",
		"root.25.0 nested_signal_ingress []",
		"root.25.1 arithmetic_combinator []",
		"root.25.2 nested_signal_egress []",
		"root.26 aimd_load_scheduler [a]",
		"root.27 aiad_load_scheduler [b]",
		"root.28 adaptive_load_scheduler [c]",
		"root.29 range_driven_load_scheduler [d]",
		"root.30 load_scheduler [e]",
		"root.31 sampler [f]",
		"root.32 load_ramp [g]",
		"root.33 rate_limiter [h i]",
		"root.34 quota_scheduler [j]",
		"root.35 concurrency_limiter [k]",
		"root.36 concurrency_scheduler [l]",
		"root.39 adaptive_concurrency_scheduler [m]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("components differ (-want +got):\n%s", diff)
	}
	for _, group := range []reflect.Type{reflect.TypeFor[policy.Component](), reflect.TypeFor[policy.FlowControl](), reflect.TypeFor[policy.AutoScale](), reflect.TypeFor[policy.Query]()} {
		for _, f := range strict.Fields(group) {
			if !kinds[f.Name] && !slices.Contains([]string{"flow_control", "auto_scale", "query"}, f.Name) {
				t.Errorf("%s has no %s", everyComponent, f.Name)
			}
		}
	}
}

func TestConstant(t *testing.T) {
	five := 5.0
	for name, c := range map[string]struct {
		port           *policy.InPort
		value          float64
		valid, isConst bool
	}{
		"absent": {nil, 0, false, true},
		"empty":  {&policy.InPort{}, 0, true, true},
		"signal": {&policy.InPort{SignalName: "A"}, 0, false, false},
		"five":   {&policy.InPort{ConstantSignal: &policy.ConstantSignal{Value: &five}}, 5, true, true},
		"zero":   {&policy.InPort{ConstantSignal: &policy.ConstantSignal{}}, 0, true, true},
		"NaN":    {&policy.InPort{ConstantSignal: &policy.ConstantSignal{SpecialValue: "NaN"}}, 0, false, true},
	} {
		value, valid, isConst := c.port.Constant()
		if valid != c.valid || isConst != c.isConst || valid && value != c.value {
			t.Errorf("%s: got %v %v %v, want %v %v %v", name, value, valid, isConst, c.value, c.valid, c.isConst)
		}
	}
	if value, valid, _ := (&policy.InPort{ConstantSignal: &policy.ConstantSignal{SpecialValue: "-Inf"}}).Constant(); !valid || value >= 0 {
		t.Errorf("-Inf: got %v %v, want a valid number", value, valid)
	}
}

func TestName(t *testing.T) {
	for _, c := range []struct {
		src  policy.Source
		want string // name, or part of the error
	}{
		{policy.Source{File: "policies/per-user.yaml", Text: []byte("circuit: {}")}, "per-user"},
		{policy.Source{File: `C:\policies\per-user.json`, Text: []byte("circuit: {}")}, "per-user"},
		{policy.Source{File: "a.yaml", Name: "b", Text: []byte("circuit: {}")}, "b"},
		{policy.Source{File: "a.yaml", Text: []byte("policy_name: c\ncircuit: {}")}, "c"},
		{policy.Source{File: "a.yaml", Name: "c", Text: []byte("name: c\ncircuit: {}")}, "c"},
		{policy.Source{Name: "b", Text: []byte("policy_name: c\ncircuit: {}")}, `1:14: policy_name: got "c", want "b", the name asked for`},
		{policy.Source{Text: []byte("circuit: {}")}, "policy_name: missing"},
		{policy.Source{Name: "B", Text: []byte("circuit: {}")}, "the policy has no valid name"},
		{policy.Source{File: "-.yaml", Text: []byte("circuit: {}")}, "the policy has no valid name"},
	} {
		doc, err := policy.Parse(c.src)
		switch {
		case err != nil && !strings.Contains(err.Error(), c.want):
			t.Errorf("%+v: got error %v, want %s", c.src, err, c.want)
		case err == nil && doc.Name != c.want:
			t.Errorf("%+v: got name %s, want %s", c.src, doc.Name, c.want)
		}
	}
}

func TestWarnings(t *testing.T) {
	doc := mustParse(t, "w.yaml", fmt.Appendf(nil, limiter, "1", ", label_key: user", ""))
	want := "w.yaml:8:40: circuit.components[0].flow_control.quota_scheduler.rate_limiter.label_key: warning: deprecated; use limit_by_label_key"
	if got := doc.Warnings.Error(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if by := doc.Policy.Circuit.Components[0].FlowControl.QuotaScheduler.RateLimiter.LimitBy(); by != "user" {
		t.Errorf("got label %q, want the deprecated one", by)
	}
	object := "apiVersion: fluxninja.com/v1alpha1\nkind: Policy\nmetadata: {name: a}\nspec: {circuit: {}}\ndynamicConfig: {x: 1}\n"
	if doc := mustParse(t, "", []byte(object)); len(doc.Warnings) != 1 || doc.Warnings[0].Path != "dynamicConfig" || doc.Name != "a" {
		t.Errorf("got %+v, want a warning about dynamicConfig", doc)
	}
}

// TestUnusedSignals: a component nobody reads is worth a warning, an actuator or a query is not.
func TestUnusedSignals(t *testing.T) {
	doc := mustParse(t, "u.yaml", []byte(`
name: u
circuit:
  components:
    - query: {promql: {query_string: up, out_ports: {output: {signal_name: UP}}}}
    - max: {out_ports: {output: {signal_name: NOTHING}}}
    - min: {}
    - or: {in_ports: {inputs: [{signal_name: SELF}]}, out_ports: {output: {signal_name: SELF}}}
    - signal_generator: {parameters: {steps: [{target_output: {}, duration: 1s}]}, out_ports: {at_start: {signal_name: S}, at_end: {signal_name: E}}}
    - alerter: {in_ports: {signal: {signal_name: E}}, parameters: {alert_name: a}}
    - flow_control: {load_scheduler: {in_ports: {}, parameters: {selectors: [{control_point: a}]}, out_ports: {observed_load_multiplier: {signal_name: O}}}}
    - nested_circuit: {components: [{and: {}}]}
`))
	want := `u.yaml:6:12: circuit.components[1].max: warning: nobody reads the signal "NOTHING"; this component has no effect; read its signal or remove it
u.yaml:7:12: circuit.components[2].min: warning: no out port is connected; this component has no effect; give it a signal or remove it
u.yaml:12:43: circuit.components[7].nested_circuit.components[0].and: warning: no out port is connected; this component has no effect; give it a signal or remove it`
	if diff := cmp.Diff(want, doc.Warnings.Error()); diff != "" {
		t.Errorf("warnings differ (-want +got):\n%s", diff)
	}
	many := "name: m\ncircuit:\n  components:\n" + strings.Repeat("    - max: {}\n", 500)
	if doc := mustParse(t, "", []byte(many)); len(doc.Warnings) != 10 {
		t.Errorf("got %d warnings, want 10", len(doc.Warnings))
	}
}

// TestQueries: a query that somebody objects to is worth a warning at its place, also inside circuits and in
// the values of a blueprint.
func TestQueries(t *testing.T) {
	objection := func(query string) error {
		if strings.HasPrefix(query, "sum(") {
			return nil
		}
		return fmt.Errorf("line 1, column 1: no sum in %s", query)
	}
	text := `name: q
circuit:
  components:
    - query: {promql: {query_string: sum(up)}}
    - query: {promql: {query_string: up}}
    - nested_circuit: {components: [{query: {promql: {query_string: down}}}]}
`
	doc, err := policy.Parse(policy.Source{File: "q", Text: []byte(text), CheckQuery: objection})
	if err != nil {
		t.Fatal(err)
	}
	want := `q:5:38: circuit.components[1].query.promql.query_string: warning: line 1, column 1: no sum in up; the signal is invalid as long as this is so
q:6:69: circuit.components[2].nested_circuit.components[0].query.promql.query_string: warning: line 1, column 1: no sum in down; the signal is invalid as long as this is so`
	if diff := cmp.Diff(want, doc.Warnings.Error()); diff != "" {
		t.Errorf("warnings differ (-want +got):\n%s", diff)
	}
	values := `blueprint: load-scheduling/promql
policy:
  policy_name: x
  promql_query: up
  setpoint: 1
  overload_condition: gt
  load_scheduling_core: {aiad_load_scheduler: {load_scheduler: {selectors: [{control_point: a}]}}}
`
	doc, err = blueprint.Parse(policy.Source{File: "v", Text: []byte(values), CheckQuery: objection})
	if err != nil || len(doc.Warnings) != 1 || doc.Warnings[0].Path != "policy.promql_query" || doc.Warnings[0].Line != 4 {
		t.Errorf("got warnings %v, want one at line 4: %v", doc.Warnings, err)
	}
	many := "name: m\ncircuit:\n  components:\n" + strings.Repeat("    - query: {promql: {query_string: up}}\n", 300)
	doc, err = policy.Parse(policy.Source{Text: []byte(many), CheckQuery: objection})
	if err != nil || len(doc.Warnings) != 10 {
		t.Errorf("got %d warnings, want 10: %v", len(doc.Warnings), err)
	}
}

// TestRego: what somebody says about a module stands at its place in the document, also in the values of a blueprint.
func TestRego(t *testing.T) {
	check := func(module string, labels []string) fielderr.List {
		if !strings.HasPrefix(module, "package ") || !slices.Equal(labels, []string{"a", "b"}) {
			t.Errorf("asked about %q for %q", module, labels)
		}
		return fielderr.List{
			{Line: 2, Column: 3, Message: "no x"},
			{Line: 1, Column: 9, Message: "odd", Hint: "look", Severity: fielderr.Warning},
		}
	}
	classifiers := `
  resources:
    flow_control:
      classifiers:
        - {selectors: [{control_point: a}]}
        - selectors: [{control_point: a}]
          rules: {a: {extractor: {from: request.http.method}}}
          rego:
            labels: {a: {}, b: {}}
            module: |

              package x
              y
        - {selectors: [{control_point: a}], rego: {labels: {a: {}, b: {}}, module: "package x"}}
`
	classifiers = strings.Replace(classifiers, "|\n\n", "|\n", 1)
	_, err := policy.Parse(policy.Source{File: "q", Name: "q", Text: []byte(strings.ReplaceAll(classifiers, "\n  ", "\n")), CheckRego: check})
	want := `q:12:15: resources.flow_control.classifiers[1].rego.module: no x
q:13:82: resources.flow_control.classifiers[2].rego.module: no x`
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	values := "blueprint: rate-limiting/base\npolicy:\n  policy_name: x\n  rate_limiter: {bucket_capacity: 5, fill_amount: 1, parameters: {interval: 1s}, selectors: [{control_point: a}]}" + classifiers
	_, err = blueprint.Parse(policy.Source{File: "v", Text: []byte(values), CheckRego: check})
	want = `v:15:17: policy.resources.flow_control.classifiers[1].rego.module: no x
v:16:84: policy.resources.flow_control.classifiers[2].rego.module: no x`
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	quiet := func(string, []string) fielderr.List {
		return fielderr.List{{Line: 1, Column: 9, Message: "odd", Severity: fielderr.Warning}}
	}
	doc, err := policy.Parse(policy.Source{File: "q", Name: "q", Text: []byte(strings.ReplaceAll(classifiers, "\n  ", "\n")), CheckRego: quiet})
	want = `q:5:9: resources.flow_control.classifiers[0]: warning: the classifier makes no labels; give it rules or rego
q:7:20: resources.flow_control.classifiers[1].rules.a: warning: rego makes the label "a" as well; that of rego wins; remove one of them
q:11:21: resources.flow_control.classifiers[1].rego.module: warning: odd
q:13:91: resources.flow_control.classifiers[2].rego.module: warning: odd`
	if err != nil || doc.Warnings.Error() != want {
		t.Errorf("got %v\n%v\nwant %s", err, doc.Warnings, want)
	}
}

func TestAdaptiveConcurrency(t *testing.T) {
	parse := func(parameters string) policy.AdaptiveConcurrencyParameters {
		doc := mustParse(t, "", []byte("name: a\ncircuit: {components: [{flow_control: {adaptive_concurrency_scheduler: {selectors: [{control_point: a}], concurrency_limiter: {max_inflight_duration: 1s}, alerter: {alert_name: a}, parameters: "+parameters+"}}}]}"))
		return doc.Policy.Circuit.Components[0].FlowControl.AdaptiveConcurrencyScheduler.Parameters
	}
	for parameters, initial := range map[string]float64{"{}": 20, "{max_concurrency: 5}": 5, "{min_concurrency: 50}": 50, "{initial_concurrency: 7}": 7} {
		p := parse(parameters)
		if got := p.Initial(); got != initial {
			t.Errorf("%s: got initial %g, want %g", parameters, got, initial)
		}
		if p.MinConcurrency < 1 || p.MaxConcurrency > 10000 {
			t.Errorf("%s: got %+v, want the defaults", parameters, p)
		}
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]string{"1.5s": "1.5s", "1m30s": "90s", "300ms": "0.3s", "2h": "7200s", "1ns": "0.000000001s", "0": "0s", "0s": "0s"} {
		doc := mustParse(t, "", fmt.Appendf(nil, "name: x\ncircuit: {components: [{holder: {hold_for: %q}}]}", text))
		got, err := json.Marshal(doc.Policy.Circuit.Components[0].Holder.HoldFor)
		if err != nil || string(got) != `"`+want+`"` {
			t.Errorf("%s: got %s, want %q: %v", text, got, want, err)
		}
	}
}

// TestTags walks the whole language: tags are well-formed, defaults keep their own rules, and what may be
// left out does not hold anything required.
func TestTags(t *testing.T) {
	seen := map[reflect.Type]bool{}
	var visit func(reflect.Type)
	visit = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || seen[typ] {
			return
		}
		seen[typ] = true
		for _, f := range strict.Fields(typ) {
			visit(f.Go.Type)
			tag := f.Go.Tag.Get("json")
			if f.Default != nil && strings.Contains(tag, "omit") {
				t.Errorf("%s.%s: a field with a default must not be left out of the canonical form", typ, f.Name)
			}
			if f.Go.Type.Kind() == reflect.Struct && !f.Required && f.Default == nil && requires(f.Go.Type) {
				t.Errorf("%s.%s may be absent but holds required fields: make it a pointer", typ, f.Name)
			}
		}
	}
	visit(reflect.TypeFor[policy.PlainDocument]())
	visit(reflect.TypeFor[policy.ObjectDocument]())
	for _, b := range blueprint.All() {
		visit(b.ValuesFile)
	}
	if len(seen) < 80 {
		t.Errorf("walked %d types only", len(seen))
	}
}

func requires(typ reflect.Type) bool {
	return slices.ContainsFunc(strict.Fields(typ), func(f strict.Field) bool { return f.Required })
}

// TestLargestAmount ties the number in messages and tags to the limit of the arithmetic.
func TestLargestAmount(t *testing.T) {
	for capacity, fine := range map[float64]bool{limit.MaxTokens: true, limit.MaxTokens * 2: false} {
		_, err := policy.Parse(policy.Source{Text: fmt.Appendf(nil, limiter, fmt.Sprint(int64(capacity)), "", "")})
		if (err == nil) != fine {
			t.Errorf("capacity %g: got %v", capacity, err)
		}
	}
}

// TestManyProblems bounds what a document full of mistakes gives.
func TestManyProblems(t *testing.T) {
	text := "circuit:\n  components:\n" + strings.Repeat("    - banana: 1\n", 5000)
	_, err := policy.Parse(policy.Source{Name: "x", Text: []byte(text)})
	list, ok := err.(fielderr.List)
	if !ok || len(list) != 101 || list[100].Message != "more than 100 problems; the rest is not shown" {
		t.Errorf("got %d problems, the last %v", len(list), list[len(list)-1])
	}
}
