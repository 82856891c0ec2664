// SPDX-License-Identifier: Apache-2.0

package circuit_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/circuit/component"
)

// mixed is a circuit of 30 components as policies have them: averages of an input, an AIAD controller and a
// gradient controller in a loop, alerts.
func mixed(tb testing.TB) (*circuit.Circuit, *circuit.Input) {
	const interval = time.Second
	input := &circuit.Input{Value: 1}
	var nodes []circuit.Node
	add := func(kind string, c circuit.Component, out string, ins ...string) {
		n := circuit.Node{ID: fmt.Sprintf("root.%d", len(nodes)), Kind: kind, Component: c}
		for _, name := range ins {
			if name == "1" || name == "" {
				n.In = append(n.In, circuit.In{Port: "in", Constant: map[string]float64{"1": 1, "": circuit.Invalid()}[name]})
				continue
			}
			n.In = append(n.In, in(name))
		}
		if out != "" {
			n.Out = []circuit.Out{{Port: "output", Signal: signal(out)}}
		}
		nodes = append(nodes, n)
	}
	operator := func(name string) circuit.Component {
		a, _ := component.NewArithmetic(name)
		return a
	}
	decider := func(name string) circuit.Component {
		d, _ := component.NewDecider(component.DeciderConfig{Operator: name, TrueFor: 2 * time.Second})
		return d
	}
	round, _ := component.NewUnary("round")
	add("input", input, "LATENCY")
	for i := range 3 { // 9 components each
		name := func(s string) string { return fmt.Sprint(s, i) }
		add("ema", component.NewEMA(component.EMAConfig{
			Window: 1500 * time.Second, Warmup: 10 * time.Second, MinEnvelopeFactor: 1, MaxEnvelopeFactor: 0.95,
		}, interval), name("EMA"), "LATENCY", name("LIMIT"), "")
		add("arithmetic_combinator", operator("mul"), name("SETPOINT"), name("EMA"), "1")
		add("arithmetic_combinator", operator("mul"), name("LIMIT"), name("SETPOINT"), "1")
		add("sma", component.NewSMA(component.SMAConfig{Window: 5 * time.Second}, interval), name("SMA"), "LATENCY")
		add("decider", decider("gt"), name("OVERLOAD"), name("SMA"), name("SETPOINT"))
		add("integrator", component.NewIntegrator(component.IntegratorConfig{}, interval), name("SUM"), "1", name("OVERLOAD"), "", "")
		add("gradient_controller", component.NewGradient(component.GradientConfig{Slope: -1, MinGradient: 0.1, MaxGradient: 1}),
			name("GRADIENT"), "LATENCY", name("SETPOINT"), name("MULTIPLIER"), "", "")
		add("switcher", component.Switcher{}, name("MULTIPLIER"), name("GRADIENT"), name("SUM"), name("OVERLOAD"))
		add("first_valid", component.FirstValid{}, name("DESIRED"), name("MULTIPLIER"), "1")
	}
	add("and", component.And{}, "ALL", "OVERLOAD0", "OVERLOAD1", "OVERLOAD2")
	add("unary_operator", round, "ROUND", "SUM0")
	c, err := circuit.Compile(interval, nodes)
	if err != nil {
		tb.Fatal(err)
	}
	if len(nodes) != 30 {
		tb.Fatalf("%d components", len(nodes))
	}
	return c, input
}

// BenchmarkTick runs one tick of 1,000 circuits of 30 components each.
func BenchmarkTick(b *testing.B) {
	const n = 1000
	circuits, inputs := make([]*circuit.Circuit, n), make([]*circuit.Input, n)
	for i := range circuits {
		circuits[i], inputs[i] = mixed(b)
	}
	now := start
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		now = now.Add(time.Second)
		for j := range circuits {
			inputs[j].Value = float64((i*7 + j) % 100)
			circuits[j].Tick(now)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(n*30), "ns/component")
}

// BenchmarkCompile compiles a circuit in which every node reads both its neighbours, so that loops are cut
// one node at a time: the worst there is.
func BenchmarkCompile(b *testing.B) {
	for _, n := range []int{30, 1000} {
		nodes := make([]circuit.Node, n)
		for i := range nodes {
			nodes[i] = circuit.Node{
				ID: fmt.Sprintf("root.%d", i), Kind: "max", Component: component.Max{},
				In:  []circuit.In{in(fmt.Sprint(max(0, i-1))), in(fmt.Sprint(min(n-1, i+1)))},
				Out: []circuit.Out{out(fmt.Sprint(i))},
			}
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if _, err := circuit.Compile(time.Second, nodes); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
