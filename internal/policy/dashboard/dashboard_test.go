// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/blueprint"
)

var update = flag.Bool("update", false, "write the golden files anew; commit only a difference you can explain")

// examples are policies of every blueprint.
func examples(t *testing.T) []*policy.Document {
	t.Helper()
	var docs []*policy.Document
	for _, b := range blueprint.All() {
		doc, err := blueprint.Parse(policy.Source{File: b.Name, Text: []byte(named(b.Example, strings.ReplaceAll(b.Name, "/", "-")))})
		if err != nil {
			t.Fatalf("%s: %v", b.Name, err)
		}
		docs = append(docs, doc)
	}
	return docs
}

// named gives a values file another name of the policy.
func named(values, name string) string {
	var out []string
	for line := range strings.SplitSeq(values, "\n") {
		if before, _, ok := strings.Cut(line, "policy_name:"); ok {
			line = before + "policy_name: " + name
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// hostile names everything that users name so as to end a string, or to be a variable of Grafana.
const hostile = `
policy_name: hostile
circuit:
  components:
    - query: {promql: {query_string: "vector(1)", out_ports: {output: {signal_name: "a\"} or $__interval [[x]] ${datasource}"}}}}
    - nested_circuit:
        components:
          - flow_control:
              sampler:
                in_ports: {accept_percentage: {constant_signal: {value: 50}}}
                parameters: {selectors: [{control_point: "p.*|\"x\\"}]}
          - query: {promql: {query_string: "vector(2)", out_ports: {output: {signal_name: INNER}}}}
    - auto_scale:
        pod_scaler:
          in_ports: {replicas: {constant_signal: {value: 5}}}
          out_ports: {actual_replicas: {signal_name: ACTUAL}}
          kubernetes_object_selector: {namespace: n, api_version: apps/v1, kind: Deployment, name: d}
resources:
  flow_control:
    flux_meters:
      'm"}[5m])': {selectors: [{control_point: x}]}
  infra_meters:
    'weird-"name"/1': {receivers: {rabbitmq: {}}}
    'Weird "Name"/1':
      receivers: {postgresql: {}, postgresql/2: {}, rabbitmq/a: {}, elasticsearch: {}, redis: {}}
`

// checkout is a plain policy.
const checkout = `
policy_name: checkout
circuit:
  components:
    - query: {promql: {query_string: "vector(1)", out_ports: {output: {signal_name: LATENCY}}}}
    - flow_control:
        aimd_load_scheduler:
          in_ports: {signal: {signal_name: LATENCY}, setpoint: {constant_signal: {value: 100}}}
          parameters:
            load_scheduler: {selectors: [{control_point: checkout}]}
            gradient: {slope: -1}
            alerter: {alert_name: load is shed}
    - flow_control:
        concurrency_limiter:
          in_ports: {max_concurrency: {constant_signal: {value: 10}}}
          parameters: {max_inflight_duration: 10s}
          selectors: [{control_point: checkout}, {control_point: search}]
resources:
  flow_control:
    flux_meters: {checkout: {selectors: [{control_point: checkout}]}}
`

func all(t *testing.T) []*policy.Document {
	t.Helper()
	return append(examples(t), ours(t)...)
}

func ours(t *testing.T) (docs []*policy.Document) {
	t.Helper()
	for _, text := range []string{checkout, hostile} {
		doc, err := policy.Parse(policy.Source{Text: []byte(text)})
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, doc)
	}
	return docs
}

// TestQueries: every query of every policy is PromQL, once Grafana has replaced its variables.
func TestQueries(t *testing.T) {
	variables := strings.NewReplacer("$__rate_interval", "1m", "$__range", "15m", "$sub_circuit_id", "root|root.1", "$signal_name", ".*")
	parse := parser.NewParser(parser.Options{})
	n := 0
	for _, doc := range all(t) {
		for _, d := range Make(doc, Options{}) {
			for _, q := range d.Queries() {
				q = variables.Replace(q)
				if strings.ContainsAny(q, "$") || strings.Contains(q, "[[") {
					t.Errorf("%s: a variable is left in %s", d.Name, q)
				}
				if _, err := parse.ParseExpr(q); err != nil {
					t.Errorf("%s: %s: %v", d.Name, q, err)
				}
				n++
			}
		}
	}
	if n < 100 {
		t.Errorf("got %d queries, want more", n)
	}
}

// TestModel holds the dashboards to what Grafana needs: ids, titles, a place in the grid for every panel, a
// data source, and names that are unique.
func TestModel(t *testing.T) {
	names, uids := map[string]bool{}, map[string]bool{}
	for _, doc := range all(t) {
		for _, d := range Make(doc, Options{Datasource: "my \"prometheus\""}) {
			if names[d.Name] || uids[d.model.UID] || len(d.model.UID) > 40 {
				t.Errorf("%s: the name or the uid %s is not unique or too long", d.Name, d.model.UID)
			}
			names[d.Name], uids[d.model.UID] = true, true
			if d.Name != filepath.Base(d.Name) || strings.ContainsAny(d.Name, " \"\\") {
				t.Errorf("%q is no name for a file", d.Name)
			}
			text, err := d.JSON()
			if err != nil {
				t.Fatal(err)
			}
			again, err := d.JSON()
			if err != nil || !bytes.Equal(text, again) {
				t.Errorf("%s is not stable: %v", d.Name, err)
			}
			checkPanels(t, d.Name, text)
		}
	}
}

func checkPanels(t *testing.T, name string, text []byte) {
	t.Helper()
	var m model
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	if m.SchemaVersion < 39 || m.UID == "" || m.Title == "" || len(m.Panels) == 0 {
		t.Errorf("%s: schema %d, uid %q, title %q, %d panels", name, m.SchemaVersion, m.UID, m.Title, len(m.Panels))
	}
	if v := m.Templating.List[0]; v.Type != "datasource" || v.Query != "prometheus" || v.Current.Text != `my "prometheus"` {
		t.Errorf("%s: the first variable is %+v", name, v)
	}
	taken := map[[2]int]string{}
	for i, p := range m.Panels {
		if p.ID != i+1 || p.Title == "" || p.GridPos.X+p.GridPos.W > gridWidth || p.GridPos.W < 1 || p.GridPos.H < 1 {
			t.Errorf("%s: panel %d is %q at %+v", name, p.ID, p.Title, p.GridPos)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%s: %q lies over %q", name, p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("%s: panel %q has no data", name, p.Title)
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" || target.RefID == "" || target.Instant == target.Range {
				t.Errorf("%s: panel %q has the target %+v", name, p.Title, target)
			}
		}
	}
}

// TestRows: every component that acts has a row, in the order of the ids.
func TestRows(t *testing.T) {
	for _, doc := range examples(t) {
		var rows []string
		for _, p := range summary(doc, Options{}).model.Panels {
			if p.Type == "row" {
				rows = append(rows, p.Title)
			}
		}
		text := strings.Join(rows, "\n")
		for _, c := range doc.Components {
			if c.Component.FlowControl != nil && !strings.Contains(text, strings.ReplaceAll(c.Kind, "_", " ")+" "+c.ID) {
				t.Errorf("%s: %s %s has no row: %s", doc.Name, c.Kind, c.ID, text)
			}
		}
	}
	if compareIDs("root.2", "root.10") >= 0 || compareIDs("root.2", "root.2.1") >= 0 || compareIDs("root.3", "root.2.1") <= 0 {
		t.Error("ids are not in the order of the document")
	}
}

func TestGolden(t *testing.T) {
	for _, doc := range ours(t) {
		for _, d := range Make(doc, Options{}) {
			got, err := d.JSON()
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", d.Name+".json")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				continue
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s differs: run the test with -update and look at the difference", file)
			}
		}
	}
}

func ExampleMake() {
	doc, err := policy.Parse(policy.Source{Name: "checkout", Text: []byte(`
circuit:
  components:
    - flow_control:
        concurrency_limiter:
          in_ports: {max_concurrency: {constant_signal: {value: 10}}}
          parameters: {max_inflight_duration: 10s}
          selectors: [{control_point: checkout}]
`)})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, d := range Make(doc, Options{Datasource: "prometheus"}) {
		fmt.Println(d.Title)
	}
	// Output:
	// Policy Summary – checkout
	// Signals Dashboard – checkout
}
