// SPDX-License-Identifier: Apache-2.0

package app

import (
	"strings"
	"testing"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/control"
	"github.com/sluice-project/sluice/internal/document"
	"github.com/sluice-project/sluice/internal/flow"
)

const groups = `
circuit:
  components:
    - flow_control:
        rate_limiter:
          in_ports:
            bucket_capacity: {constant_signal: {value: 5}}
            fill_amount: {constant_signal: {value: 1}}
          parameters: {interval: 1s}
          selectors: [{control_point: a}]
    - flow_control:
        rate_limiter:
          in_ports:
            bucket_capacity: {constant_signal: {value: 5}}
            fill_amount: {constant_signal: {value: 1}}
          parameters: {interval: 1s}
          selectors: [{control_point: a, agent_group: edge}, {control_point: b, agent_group: core}]
resources:
  flow_control:
    flux_meters:
      m: {selectors: [{control_point: a, agent_group: core}]}
    classifiers:
      - selectors: [{control_point: a}]
        rules: {method: {extractor: {from: request.http.method}}}
`

// TestPartsForOtherGroupsAreTold: a policy that decides nothing here must not look as if it did.
func TestPartsForOtherGroupsAreTold(t *testing.T) {
	for group, want := range map[string][]string{
		"":     nil,
		"edge": {"root.0", "resources.flow_control.flux_meters.m", "resources.flow_control.classifiers[0]"},
		"core": {"root.0", "resources.flow_control.classifiers[0]"},
	} {
		got, err := Compiler{AgentGroup: group}.Compile(document.Source{Name: "groups", Text: []byte(groups)})
		if err != nil {
			t.Fatal(err)
		}
		var paths []string
		for _, w := range got.Warnings {
			if strings.Contains(w.Message, "selects no flow on this server") {
				paths = append(paths, w.Path)
			}
		}
		if strings.Join(paths, " ") != strings.Join(want, " ") {
			t.Errorf("group %q: got warnings of %q, want %q", group, paths, want)
		}
		for i, c := range got.Components {
			if told := strings.Contains(c.Status, "selects no flow"); told != (group != "" && i == 0) {
				t.Errorf("group %q, %s: got status %q (a part that works says %q)", group, c.ID, c.Status, control.Running)
			}
		}
	}
}

const malformed = `
circuit:
  components: []
resources:
  flow_control:
    classifiers:
      - selectors: [{control_point: a}]
        rules:
          field: {extractor: {json: {from: request.http.body, pointer: /field}}}
          user: {extractor: {jwt: {from: request.http.bearer, json_pointer: /sub}}}
        rego:
          labels: {operation: {}}
          module: |
            package graph
            import rego.v1
            document := graphql.parse_query(input.parsed_body.query)
            operation := document.Operations[0].Operation
`

// TestMalformedRequestsAreCounted: what strangers send wrong makes no labels and is seen all the same.
func TestMalformedRequestsAreCounted(t *testing.T) {
	p := metricsParts(t)
	_, err := p.catalog.Apply(t.Context(), document.ApplyRequest{
		Source: document.Source{Name: "malformed", Text: []byte(malformed)}, Origin: document.OriginAPI,
	})
	if err != nil {
		t.Fatal(err)
	}
	kind := map[string]string{"content-type": "application/json"}
	with := func(name, value string) map[string]string {
		return map[string]string{"content-type": "application/json", name: value}
	}
	for _, tt := range []struct {
		part string
		in   classify.Request
	}{
		{"", classify.Request{Headers: with("authorization", "Bearer e30.eyJzdWIiOiJhIn0.c2ln"), Body: `{"query": "mutation { a }"}`}},
		{"json", classify.Request{Headers: map[string]string{}, Body: `{"field": `}},
		{"body", classify.Request{Headers: map[string]string{"content-type": "multipart/form-data; boundary=x"}, Body: "--x\r\nhalf"}},
		{"jwt", classify.Request{Headers: with("authorization", "Bearer a.b"), Body: "{}"}},
		{"jwt", classify.Request{Headers: with("authorization", "Bearer e30.bm90IGpzb24.c2ln"), Body: "{}"}},
		{"argument", classify.Request{Headers: kind, Body: `{"query": "mutation {"}`}},
		{"baggage", classify.Request{Headers: with("baggage", "no member"), Body: "{}"}},
	} {
		before := malformedCounts(t, p)
		f := p.engine.Start(t.Context(), &flow.Request{ControlPoint: "a", HTTP: &tt.in, NoEnd: true})
		if !f.Admitted() {
			t.Errorf("%s: denied: %s", tt.part, f.Verdict.Message())
		}
		f.Free()
		after := malformedCounts(t, p)
		for part, n := range after {
			want := before[part]
			if part == tt.part || tt.part == "body" && part == "json" { // which the rule reads as well
				want++
			}
			if n != want {
				t.Errorf("%q %q: %s counts %v, want %v", tt.part, tt.in.Body, part, n, want)
			}
		}
	}
}

func malformedCounts(t *testing.T, p *parts) map[string]float64 {
	t.Helper()
	families, err := p.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, family := range families {
		if family.GetName() == "sluice_http_malformed_total" {
			for _, m := range family.GetMetric() {
				out[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	if len(out) == 0 {
		t.Fatal("sluice_http_malformed_total is not there")
	}
	return out
}
