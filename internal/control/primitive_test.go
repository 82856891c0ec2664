// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/circuit/component"
	"github.com/sluice-project/sluice/internal/policy"
)

// primitives are components as documents write them, their wires, and what is said of them. The signals
// A, B and C exist.
var primitives = []struct{ yaml, wires, description string }{
	{
		`gradient_controller: {in_ports: {signal: {signal_name: A}, setpoint: {constant_signal: {value: 5}}, control_variable: {signal_name: B}, min: {}},
			out_ports: {output: {signal_name: OUT}}, parameters: {slope: -1, max_gradient: 1}, manual_mode: true, manual_mode_config_key: m}`,
		"signal=A setpoint=5 control_variable=B max=NaN min=0 -> output=OUT",
		"slope -1, gradient at most 1, manual, manual mode from key m",
	},
	{
		`pid_controller: {in_ports: {signal: {signal_name: A}, setpoint: {signal_name: B}, max: {constant_signal: {special_value: +Inf}}},
			out_ports: {output: {signal_name: OUT}}, parameters: {kp: 0.5, ki: 1, evaluation_interval: 10s}}`,
		"signal=A setpoint=B max=+Inf min=NaN -> output=OUT",
		"kp 0.5, ki 1, kd 0, every 10s",
	},
	{
		`ema: {in_ports: {input: {signal_name: A}, min_envelope: {signal_name: B}}, out_ports: {output: {signal_name: OUT}}, parameters: {ema_window: 30s, warmup_window: 1.5s}}`,
		"input=A max_envelope=NaN min_envelope=B -> output=OUT",
		"over 30s, warm-up 1.5s",
	},
	{
		`sma: {in_ports: {input: {signal_name: A}}, out_ports: {output: {signal_name: OUT}}, parameters: {sma_window: 5s}}`,
		"input=A -> output=OUT",
		"over 5s",
	},
	{
		`arithmetic_combinator: {in_ports: {lhs: {signal_name: A}, rhs: {constant_signal: {value: 2}}}, out_ports: {output: {signal_name: OUT}}, operator: div}`,
		"lhs=A rhs=2 -> output=OUT",
		"div",
	},
	{
		`decider: {in_ports: {lhs: {signal_name: A}, rhs: {signal_name: B}}, out_ports: {output: {signal_name: OUT}}, operator: gte, true_for: 5s, false_for: 1m}`,
		"lhs=A rhs=B -> output=OUT",
		"gte, true for 5s, false for 60s",
	},
	{
		`switcher: {in_ports: {on_signal: {signal_name: A}, off_signal: {signal_name: B}, switch: {signal_name: C}}, out_ports: {output: {signal_name: OUT}}}`,
		"on_signal=A off_signal=B switch=C -> output=OUT",
		"",
	},
	{
		`variable: {out_ports: {output: {signal_name: OUT}}, constant_output: {special_value: -Inf}, config_key: v}`,
		"-> output=OUT",
		"-Inf, or what dynamic configuration has under v",
	},
	{
		`bool_variable: {out_ports: {output: {signal_name: OUT}}, constant_output: true}`,
		"-> output=OUT",
		"true",
	},
	{
		`unary_operator: {in_ports: {input: {signal_name: A}}, out_ports: {output: {signal_name: OUT}}, operator: sqrt}`,
		"input=A -> output=OUT",
		"sqrt",
	},
	{
		`extrapolator: {in_ports: {input: {signal_name: A}}, out_ports: {output: {signal_name: OUT}}, parameters: {max_extrapolation_interval: 10s}}`,
		"input=A -> output=OUT",
		"for at most 10s",
	},
	{
		`max: {in_ports: {inputs: [{signal_name: A}, {constant_signal: {value: 7}}, {}]}, out_ports: {output: {signal_name: OUT}}}`,
		"inputs[0]=A inputs[1]=7 inputs[2]=0 -> output=OUT",
		"",
	},
	{
		`min: {in_ports: {inputs: [{signal_name: A}, {signal_name: B}]}, out_ports: {output: {signal_name: OUT}}}`,
		"inputs[0]=A inputs[1]=B -> output=OUT",
		"",
	},
	{
		`first_valid: {in_ports: {inputs: [{signal_name: A}, {constant_signal: {special_value: NaN}}]}, out_ports: {output: {signal_name: OUT}}}`,
		"inputs[0]=A inputs[1]=NaN -> output=OUT",
		"",
	},
	{`and: {in_ports: {inputs: []}, out_ports: {output: {signal_name: OUT}}}`, "-> output=OUT", ""},
	{`or: {in_ports: {inputs: [{signal_name: C}]}, out_ports: {output: {signal_name: OUT}}}`, "inputs[0]=C -> output=OUT", ""},
	{`inverter: {in_ports: {input: {signal_name: C}}, out_ports: {}}`, "input=C -> output=", ""},
	{
		`integrator: {in_ports: {input: {signal_name: A}, reset: {signal_name: C}, max: {constant_signal: {value: 2}}}, out_ports: {output: {signal_name: OUT}}, initial_value: 1, evaluation_interval: 10s}`,
		"input=A reset=C max=2 min=NaN -> output=OUT",
		"from 1, every 10s",
	},
	{
		`differentiator: {in_ports: {input: {signal_name: A}}, out_ports: {output: {signal_name: OUT}}}`,
		"input=A -> output=OUT",
		"over 5s",
	},
	{
		`pulse_generator: {out_ports: {output: {signal_name: OUT}}, false_for: 1s}`,
		"-> output=OUT",
		"true for 5s, false for 1s",
	},
	{
		`holder: {in_ports: {input: {signal_name: A}, reset: {signal_name: C}}, out_ports: {output: {signal_name: OUT}}, hold_for: 300ms}`,
		"input=A reset=C -> output=OUT",
		"for 0.3s",
	},
	{
		`signal_generator: {in_ports: {forward: {signal_name: C}}, out_ports: {at_end: {signal_name: OUT}},
			parameters: {steps: [{target_output: {value: 1}, duration: 0s}, {target_output: {value: 50}, duration: 60s}, {target_output: {special_value: NaN}, duration: 60s}]}}`,
		"forward=C backward=NaN reset=NaN -> output= at_start= at_end=OUT",
		"1 in 0s, 50 in 60s, NaN in 60s",
	},
	{
		`signal_generator: {parameters: {steps: [{duration: 1s}, {duration: 2s}, {duration: 3s}, {duration: 4s}, {target_output: {value: 9}, duration: 5s}]}, out_ports: {output: {signal_name: OUT}}}`,
		"forward=NaN backward=NaN reset=NaN -> output=OUT at_start= at_end=",
		"0 in 1s, 0 in 2s, 0 in 3s, …, 9 in 5s",
	},
	{
		`polynomial_range_function: {in_ports: {input: {signal_name: A}}, out_ports: {output: {signal_name: OUT}},
			parameters: {start: {input: 0, output: 1}, end: {input: 10, output: 0.5}, degree: 2, clamp_to_custom_values: {pre_start: 1, post_end: 0}}}`,
		"input=A -> output=OUT",
		"0→1 to 10→0.5, degree 2, 1 before, 0 after",
	},
	{
		`polynomial_range_function: {in_ports: {input: {signal_name: A}}, out_ports: {output: {signal_name: OUT}},
			parameters: {start: {input: 0, output: 1}, end: {input: 10, output: 0.5}, degree: 1, clamp_to_datapoint: true}}`,
		"input=A -> output=OUT",
		"0→1 to 10→0.5, degree 1, clamped",
	},
}

// composites are the components that have no node of their own.
var composites = []string{"alerter", "nested_circuit", "query", "flow_control", "auto_scale"}

func parsed(t *testing.T, components string) *policy.Document {
	t.Helper()
	text := "circuit:\n  components:\n"
	for _, name := range []string{"A", "B", "C"} {
		text += fmt.Sprintf("  - variable: {constant_output: {value: 1}, out_ports: {output: {signal_name: %s}}}\n", name)
	}
	doc, err := policy.Parse(policy.Source{Name: "p", Text: []byte(text + components)})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// Every primitive component becomes a node with the ports of the document, and can run.
func TestPrimitive(t *testing.T) {
	seen := slices.Clone(composites)
	for _, c := range primitives {
		doc := parsed(t, "  - "+strings.Join(strings.Fields(c.yaml), " "))
		which := &doc.Policy.Circuit.Components[3]
		node, description, ok := primitive(which, "root", time.Second)
		if !ok {
			t.Errorf("%s: is no primitive", which.Kind())
			continue
		}
		seen = append(seen, which.Kind())
		if got := wires(node, "root"); got != c.wires || node.Kind != which.Kind() || node.ID != "" {
			t.Errorf("%s %s: got  %s\nwant %s", node.ID, node.Kind, got, c.wires)
		}
		if description != c.description {
			t.Errorf("%s: got %q, want %q", node.Kind, description, c.description)
		}
		in, out := make([]float64, len(node.In)), make([]float64, len(node.Out))
		node.Component.Step(&circuit.Tick{Interval: time.Second}, in, out)
	}
	for field := range reflect.TypeFor[policy.Component]().Fields() {
		kind, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if !slices.Contains(seen, kind) && !strings.HasPrefix(kind, "nested_signal_") {
			t.Errorf("%s is not tested", kind)
		}
	}
}

// wires prints the ports of a node of the circuit scope.
func wires(n circuit.Node, scope string) string {
	var words []string
	for _, in := range n.In {
		from := number(in.Constant)
		if in.Signal.Name != "" {
			from = strings.TrimPrefix(in.Signal.Circuit+"/"+in.Signal.Name, scope+"/")
		}
		words = append(words, in.Port+"="+from)
	}
	words = append(words, "->")
	for _, out := range n.Out {
		to := ""
		if out.Signal.Name != "" {
			to = strings.TrimPrefix(out.Signal.Circuit+"/"+out.Signal.Name, scope+"/")
		}
		words = append(words, out.Port+"="+to)
	}
	return strings.Join(words, " ")
}

// Parameters reach the components: what they compute shows it.
func TestPrimitiveParameters(t *testing.T) {
	for _, c := range []struct {
		yaml string
		in   [][]float64 // ticks
		want []float64
	}{
		{"gradient_controller: {parameters: {slope: -1, min_gradient: 0.25, max_gradient: 3}}", [][]float64{{8, 1, 10, 100, 0}, {1, 8, 10, 100, 0}}, []float64{2.5, 30}},
		{"gradient_controller: {parameters: {slope: -1}, manual_mode: true}", [][]float64{{8, 1, 10, 100, 0}}, []float64{10}},
		{
			"pid_controller: {parameters: {kp: 1, ki: 10, kd: 100, evaluation_interval: 2s, reset_after_invalid_samples: 1}}",
			[][]float64{{1, 2, 9999, -9999}, {5, 5, 0, 0}, {2, 2, 9999, -9999}, {0, 0, 0, 0}, {math.NaN(), 0, 0, 0}, {0, 0, 0, 0}, {math.NaN(), 0, 0, 0}},
			[]float64{11, 11, 110, 110, 110, 110, math.NaN()},
		},
		{
			"ema: {parameters: {ema_window: 3s, warmup_window: 2s, valid_during_warmup: true, correction_factor_on_max_envelope_violation: 0.5, correction_factor_on_min_envelope_violation: 3}}",
			[][]float64{{4, 99, 0}, {6, 99, 0}, {7, 99, 0}, {6, 5, 0}, {3, 99, 4}},
			[]float64{4, 5, 6, 3, 9},
		},
		{"sma: {parameters: {sma_window: 2s, valid_during_warmup: true}}", [][]float64{{1}, {2}, {4}}, []float64{1, 1.5, 3}},
		{"sma: {parameters: {sma_window: 2s}}", [][]float64{{1}, {2}}, []float64{math.NaN(), 1.5}},
		{"decider: {operator: lt, true_for: 1s, false_for: 2s}", [][]float64{{1, 2}, {1, 2}, {3, 2}, {3, 2}, {3, 2}}, []float64{0, 1, 1, 1, 0}},
		{"extrapolator: {parameters: {max_extrapolation_interval: 1s}}", [][]float64{{1}, {math.NaN()}, {math.NaN()}}, []float64{1, 1, math.NaN()}},
		{"integrator: {initial_value: 5, evaluation_interval: 2s}", [][]float64{{1, 0, 9, 0}, {1, 0, 9, 0}, {1, 0, 6.5, 0}}, []float64{6, 6, 6.5}},
		{"differentiator: {window: 2s}", [][]float64{{1}, {2}, {6}}, []float64{0, 0.5, 2}},
		{"pulse_generator: {true_for: 1s, false_for: 2s}", [][]float64{{}, {}, {}, {}}, []float64{1, 0, 0, 1}},
		{"holder: {hold_for: 2s}", [][]float64{{1, 0}, {2, 0}, {3, 0}, {4, 1}}, []float64{1, 1, 3, 4}},
		{
			"signal_generator: {parameters: {steps: [{target_output: {value: 1}, duration: 1s}, {target_output: {value: 5}, duration: 2s}]}}",
			[][]float64{{1, 0, 0}, {1, 0, 0}, {1, 0, 0}},
			[]float64{1, 3, 5},
		},
		{
			"polynomial_range_function: {parameters: {start: {input: 0, output: 0}, end: {input: 2, output: 8}, degree: 3, clamp_to_custom_values: {pre_start: -1, post_end: 9}}}",
			[][]float64{{1}, {-1}, {3}},
			[]float64{1, -1, 9},
		},
		{
			"polynomial_range_function: {parameters: {start: {input: 0, output: 0}, end: {input: 2, output: 8}, degree: 1, continue_curve: true}}",
			[][]float64{{-1}, {3}},
			[]float64{-4, 12},
		},
		{
			"polynomial_range_function: {parameters: {start: {input: 0, output: 0}, end: {input: 2, output: 8}, degree: 1, clamp_to_datapoint: true}}",
			[][]float64{{-1}, {3}},
			[]float64{0, 8},
		},
	} {
		which := &parsed(t, "  - "+c.yaml).Policy.Circuit.Components[3]
		node, _, ok := primitive(which, "root", time.Second)
		if !ok {
			t.Errorf("%s: no primitive", c.yaml)
			continue
		}
		tick := circuit.Tick{Now: time.Unix(1e9, 0), Interval: time.Second}
		for i, in := range c.in {
			out := make([]float64, len(node.Out))
			for j := range out {
				out[j] = math.NaN()
			}
			node.Component.Step(&tick, in, out)
			if got := out[0]; got != c.want[i] && (circuit.Valid(got) || circuit.Valid(c.want[i])) {
				t.Errorf("%s: tick %d: got %v, want %v", c.yaml, i, got, c.want[i])
			}
			tick.Count++
			tick.Now = tick.Now.Add(time.Second)
		}
	}
}

// Every operator that documents may name exists.
func TestPrimitiveOperators(t *testing.T) {
	for kind, yaml := range map[reflect.Type]string{
		reflect.TypeFor[policy.ArithmeticCombinator](): "arithmetic_combinator: {operator: %s}",
		reflect.TypeFor[policy.UnaryOperator]():        "unary_operator: {operator: %s}",
		reflect.TypeFor[policy.Decider]():              "decider: {operator: %s}",
	} {
		field, _ := kind.FieldByName("Operator")
		_, names, _ := strings.Cut(field.Tag.Get("check"), "oneof=")
		if names == "" {
			t.Fatalf("%s has no operators", kind)
		}
		for _, name := range strings.Fields(names) {
			c := &parsed(t, "  - "+fmt.Sprintf(yaml, name)).Policy.Circuit.Components[3]
			if _, description, ok := primitive(c, "root", time.Second); !ok || description != name {
				t.Errorf("%s: got %q, %t", name, description, ok)
			}
		}
	}
}

// Ports of nested circuits have one side here; the other one belongs to the circuit around.
func TestPrimitiveNestedPorts(t *testing.T) {
	doc := parsed(t, `  - nested_circuit:
      in_ports_map: {x: {signal_name: A}}
      out_ports_map: {z: {signal_name: OUT}}
      components:
      - nested_signal_ingress: {port_name: x, out_ports: {signal: {signal_name: IN}}}
      - nested_signal_egress: {port_name: z, in_ports: {signal: {signal_name: IN}}}
`)
	outer := &doc.Policy.Circuit.Components[3]
	if _, _, ok := primitive(outer, "root", time.Second); ok {
		t.Error("a nested circuit is no primitive")
	}
	for i, want := range []string{"x=NaN -> signal=root.3/IN", "signal=root.3/IN -> z="} {
		node, description, ok := primitive(&outer.NestedCircuit.Components[i], "root.3", time.Second)
		if got := wires(node, "root"); !ok || got != want || description != []string{"x", "z"}[i] {
			t.Errorf("got %s, %s, want %s", got, description, want)
		}
		if _, copies := node.Component.(component.Copy); !copies {
			t.Errorf("%s: got %T", node.Kind, node.Component)
		}
	}
}
