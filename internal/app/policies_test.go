// SPDX-License-Identifier: Apache-2.0

package app

import (
	"strings"
	"testing"

	"github.com/sluice-project/sluice/internal/control"
	"github.com/sluice-project/sluice/internal/document"
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
