// SPDX-License-Identifier: Apache-2.0

package control

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/internal/policy"
)

// TestCompile compares what documents are compiled to with golden files.
func TestCompile(t *testing.T) {
	files, err := filepath.Glob("testdata/compile/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	files = append(files, "../policy/testdata/every-component.yaml")
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p := compile(t, name, string(text))
			golden(t, "compile/"+name+".golden", p.String())
		})
	}
}

// TestCompileErrors names the component of every mistake that a document parser does not see.
func TestCompileErrors(t *testing.T) {
	// Documents that no parser would let through.
	duplicate := parse(t, "p", circuitOf("1s", `    - variable: {constant_output: {value: 1}, out_ports: {output: {signal_name: A}}}
    - variable: {constant_output: {value: 1}, out_ports: {output: {signal_name: B}}}
    - max: {in_ports: {inputs: [{signal_name: A}]}, out_ports: {output: {signal_name: C}}}
`))
	components := duplicate.Policy.Circuit.Components
	components[1].Variable.OutPorts.Output.SignalName = "A"
	components[2].Max.InPorts.Inputs[0].SignalName = "Z"
	_, err := Compile(duplicate)
	for _, want := range []string{`root.1 (variable): out port "output": signal "A" has a producer already, root.0`, `root.2 (max): in port "inputs[0]": no component produces the signal "Z"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to have %q", err, want)
		}
	}
	outside := parse(t, "p", circuitOf("1s", "    - pulse_generator: {}\n"))
	outside.Policy.Circuit.Components = []policy.Component{{NestedSignalIngress: &policy.NestedSignalIngress{PortName: "x"}}, {}}
	if _, err = Compile(outside); err == nil || !strings.Contains(err.Error(), "root.0 (nested_signal_ingress): allowed inside") || !strings.Contains(err.Error(), "root.1: component of an unknown kind") {
		t.Errorf("got %v", err)
	}
}

// TestResourcesOnly: a policy without a circuit compiles to one that does nothing.
func TestResourcesOnly(t *testing.T) {
	p := compile(t, "p", "resources: {flow_control: {flux_meters: {m: {selectors: [{control_point: a}]}}}}\n")
	if p.Interval <= 0 || len(p.Components()) != 0 || len(p.Waiting) != 0 {
		t.Errorf("got %v", p)
	}
	on(t, p).ticks(2, nil)
}
