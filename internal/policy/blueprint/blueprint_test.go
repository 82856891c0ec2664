// SPDX-License-Identifier: Apache-2.0

package blueprint

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// problems are all problems of every file in testdata/bad, at their places in the values file.
var problems = map[string][]string{
	"amounts": {
		`5:22: policy.quota_scheduler.bucket_capacity: got -1, want at least 0`,
		`6:18: policy.quota_scheduler.fill_amount: got number .inf, want a finite number`,
		`7:30: policy.quota_scheduler.rate_limiter.interval: got text "0s", want more than 0s`,
		`8:16: policy.quota_scheduler.selectors: got an empty list, want at least one item`,
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
	"no-blueprint": {
		`1:1: blueprint: these are values of a blueprint, but the document does not say of which; known here: concurrency-limiting/base, concurrency-scheduling/base, quota-scheduling/base, rate-limiting/base`,
	},
	"no-policy": {
		`1:1: policy: missing; want a mapping`,
	},
	"other-keys": {
		`2:1: url: unknown field; did you mean "uri"?`,
		`3:1: circuit: unknown field; known here: blueprint, uri, policy`,
	},
	"required": {
		`2:1: policy.policy_name: missing; want text`,
		`3:3: policy.rate_limiter.bucket_capacity: missing; want a number`,
		`3:3: policy.rate_limiter.fill_amount: missing; want a number`,
		`3:3: policy.rate_limiter.selectors: missing; want a list`,
		`3:3: policy.rate_limiter.parameters: missing; want a mapping`,
	},
	"signals": {
		`12:39: policy.components[0].decider.in_ports.lhs.signal_name: no component of this circuit produces the signal "ACCEPT_PERCENT"; did you mean "ACCEPT_PERCENTAGE"?`,
		`13:43: policy.components[0].decider.out_ports.output.signal_name: signal "ACCEPT_PERCENTAGE_ALERT" has a producer already, policy.rate_limiter.alerter; choose another name`,
		`14:47: policy.components[1].max.out_ports.output.signal_name: signal "ACCEPT_PERCENTAGE" has a producer already, policy.rate_limiter.out_ports.accept_percentage; choose another name`,
	},
	"unimplemented-blueprint": {
		`1:12: blueprint: unknown blueprint "auto-scaling/pod-auto-scaler"; known here: concurrency-limiting/base, concurrency-scheduling/base, quota-scheduling/base, rate-limiting/base`,
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
			if diff := cmp.Diff(problems[name], strings.Split(list.Error(), "\n")); diff != "" {
				t.Errorf("problems differ (-want +got):\n%s", diff)
			}
		})
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
				t.Errorf("got %+v, want the blueprint named and no warnings", r.Document)
			}
			again, err := policy.Parse(policy.Source{Text: r.YAML})
			if err != nil {
				t.Fatalf("rendered policy is refused: %v\n%s", err, r.YAML)
			}
			if again.Hash != r.Document.Hash || again.Name != r.Document.Name {
				t.Errorf("rendered policy means something else:\n%s", cmp.Diff(string(r.Document.Canonical), string(again.Canonical)))
			}
			checkCircuit(t, r.Document)
		})
	}
}

// checkCircuit compares the circuit with what every blueprint promises.
func checkCircuit(t *testing.T, d *policy.Document) {
	t.Helper()
	c := d.Policy.Circuit.Components
	if len(c) != 3 || c[0].FlowControl == nil || c[1].Decider == nil || c[2].Alerter == nil {
		t.Fatalf("got %+v, want a limiter, a decider and an alerter", c)
	}
	if limit, _, _ := c[1].Decider.InPorts.RHS.Constant(); c[1].Decider.Operator != "lte" || limit != 10 {
		t.Errorf("alert at %s %g %%, want it at lte 10 %% admitted, when more than 90 %% are denied", c[1].Decider.Operator, limit)
	}
	if c[1].Decider.InPorts.LHS.SignalName != "ACCEPT_PERCENTAGE" || c[2].Alerter.InPorts.Signal.SignalName != c[1].Decider.OutPorts.Output.SignalName {
		t.Errorf("signals do not lead from the limiter to the alert: %+v", c)
	}
	if d.Components[0].ID != "root.0" || len(d.Components[0].ControlPoints) != 1 {
		t.Errorf("got %+v, want root.0 with its control point", d.Components[0])
	}
}

// TestValuesFiles fills in what the commented values files leave open: the result is what the defaults
// alone give.
func TestValuesFiles(t *testing.T) {
	for _, b := range All() {
		text, err := b.Values()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(policy.Source{Text: text}); err == nil || !strings.Contains(err.Error(), "not filled in") {
			t.Errorf("%s: got %v, want a refusal of what is not filled in", b.Name, err)
		}
		fill := strings.NewReplacer("control_point: "+strict.Placeholder, "control_point: a", "policy_name: "+strict.Placeholder, "policy_name: x",
			"interval: "+strict.Placeholder, "interval: 1s", "duration: "+strict.Placeholder, "duration: 1s", strict.Placeholder, "1")
		full, err := Parse(policy.Source{Text: []byte(fill.Replace(string(text)))})
		if err != nil {
			t.Errorf("%s: %v", b.Name, err)
			continue
		}
		var short strings.Builder // only what was filled in
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, strict.Placeholder) && !strings.Contains(line, "#") || strings.HasSuffix(strings.TrimSpace(line), ":") || strings.HasPrefix(line, "blueprint") {
				short.WriteString(fill.Replace(line))
			}
			if strings.HasPrefix(strings.TrimSpace(line), "- #") {
				fmt.Fprintln(&short, strings.Repeat(" ", strings.Index(line, "-"))+"-")
			}
		}
		brief, err := Parse(policy.Source{Text: []byte(short.String())})
		if err != nil {
			t.Errorf("%s: %v\n%s", b.Name, err, short.String())
			continue
		}
		if full.Hash != brief.Hash {
			t.Errorf("%s: the values file does not have the defaults:\n%s", b.Name, cmp.Diff(string(brief.Canonical), string(full.Canonical)))
		}
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
	if _, ok := Find("nothing"); ok {
		t.Error("found a blueprint that does not exist")
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
