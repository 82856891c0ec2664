// SPDX-License-Identifier: Apache-2.0

package circuit_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/circuit/component"
)

// reference interprets circuits in the plainest way: a port asks for a signal, and whoever produces it steps
// when it has not yet in this tick.
type reference struct {
	nodes    []circuit.Node
	interval time.Duration
	producer map[circuit.Signal]int
	looped   [][]bool

	now, before map[circuit.Signal]float64
	stepped     []bool
	tick        circuit.Tick
}

func newReference(interval time.Duration, nodes []circuit.Node) *reference {
	r := &reference{nodes: nodes, interval: interval, producer: map[circuit.Signal]int{}, before: map[circuit.Signal]float64{}}
	for i, n := range nodes {
		r.looped = append(r.looped, make([]bool, len(n.In)))
		for _, out := range n.Out {
			if out.Signal.Name != "" {
				r.producer[out.Signal] = i
			}
		}
	}
	all := map[int]bool{}
	for i := range nodes {
		all[i] = true
	}
	r.cut(all)
	return r
}

// cut does as the documentation of Compile says, with the transitive closure.
func (r *reference) cut(among map[int]bool) {
	n := len(r.nodes)
	reach := make([][]bool, n)
	for i := range reach {
		reach[i] = make([]bool, n)
	}
	for v := range r.nodes {
		for port, in := range r.nodes[v].In {
			if p, ok := r.producer[in.Signal]; ok && among[v] && among[p] && !r.looped[v][port] {
				reach[p][v] = true
			}
		}
	}
	for k := range n {
		for i := range n {
			for j := range n {
				reach[i][j] = reach[i][j] || reach[i][k] && reach[k][j]
			}
		}
	}
	done := map[int]bool{}
	for v := range n {
		if !reach[v][v] || done[v] {
			continue
		}
		rest := map[int]bool{}
		for w := range n {
			if reach[v][w] && reach[w][v] {
				rest[w], done[w] = true, true
			}
		}
		for port, in := range r.nodes[v].In {
			if p, ok := r.producer[in.Signal]; ok && rest[p] {
				r.looped[v][port] = true
			}
		}
		delete(rest, v)
		r.cut(rest)
	}
}

func (r *reference) run(now time.Time) map[circuit.Signal]float64 {
	r.tick.Now, r.tick.Interval = now, r.interval
	r.now, r.stepped = map[circuit.Signal]float64{}, make([]bool, len(r.nodes))
	for i := range r.nodes {
		r.step(i)
	}
	r.before = r.now
	r.tick.Count++
	return r.now
}

func (r *reference) step(i int) {
	if r.stepped[i] {
		return
	}
	r.stepped[i] = true
	n := &r.nodes[i]
	in, out := make([]float64, len(n.In)), make([]float64, len(n.Out))
	for j, port := range n.In {
		in[j] = port.Constant
		if port.Signal.Name == "" {
			continue
		}
		values := r.before
		if !r.looped[i][j] {
			r.step(r.producer[port.Signal])
			values = r.now
		}
		v, ok := values[port.Signal]
		if !ok {
			v = math.NaN()
			if !r.looped[i][j] {
				panic(fmt.Sprintf("%s waits for itself", n.ID))
			}
		}
		in[j] = v
	}
	for j := range out {
		out[j] = math.NaN()
	}
	if n.Component != nil {
		n.Component.Step(&r.tick, in, out)
	}
	for j, port := range n.Out {
		if port.Signal.Name != "" {
			r.now[port.Signal] = out[j]
		}
	}
}

// source gives out choices: bytes of a fuzzer, then zeroes; or random ones.
type source struct {
	data   []byte
	random *rand.Rand
}

func (s *source) choice(n int) int {
	if s.random != nil {
		return s.random.IntN(n)
	}
	if len(s.data) == 0 {
		return 0
	}
	v := int(s.data[0])
	s.data = s.data[1:]
	return v % n
}

var numbers = []float64{0, 1, math.NaN(), -1, 2, 0.5, 10, math.Inf(1), math.Inf(-1), -0.25, 100, 1e308, math.Copysign(0, -1), 1e-300}

func (s *source) number() float64 { return numbers[s.choice(len(numbers))] }

func (s *source) duration() time.Duration {
	return []time.Duration{time.Second, 0, 300 * time.Millisecond, 2500 * time.Millisecond, 5 * time.Second, 2 * time.Hour}[s.choice(6)]
}

func (s *source) of(words ...string) string { return words[s.choice(len(words))] }

// component returns a maker of equal components and how many ports they have; -1 of them in: any number.
func (s *source) component(interval time.Duration) (kind string, make func() circuit.Component, ins, outs int) {
	a, b, c, d := s.number(), s.number(), s.duration(), s.duration()
	flag := s.choice(2) == 1
	kinds := []struct {
		kind      string
		make      func() circuit.Component
		ins, outs int
	}{
		{"sum", func() circuit.Component { return sum{} }, -1, 2},
		{"sink", func() circuit.Component { return nil }, -1, 1},
		{"max", func() circuit.Component { return component.Max{} }, -1, 1},
		{"min", func() circuit.Component { return component.Min{} }, -1, 1},
		{"first_valid", func() circuit.Component { return component.FirstValid{} }, -1, 1},
		{"and", func() circuit.Component { return component.And{} }, -1, 1},
		{"or", func() circuit.Component { return component.Or{} }, -1, 1},
		{"inverter", func() circuit.Component { return component.Inverter{} }, 1, 1},
		{"copy", func() circuit.Component { return component.Copy{} }, 1, 1},
		{"switcher", func() circuit.Component { return component.Switcher{} }, 3, 1},
		{"variable", func() circuit.Component { return component.NewVariable(a, "") }, 0, 1},
		{"bool_variable", func() circuit.Component { return component.NewBoolVariable(flag, "") }, 0, 1},
		{"extrapolator", func() circuit.Component { return component.NewExtrapolator(c) }, 1, 1},
		{"differentiator", func() circuit.Component { return component.NewDifferentiator(c, interval) }, 1, 1},
		{"pulse_generator", func() circuit.Component { return component.NewPulse(c, d, interval) }, 0, 1},
		{"holder", func() circuit.Component { return component.NewHolder(c, interval) }, 2, 1},
		{"gradient_controller", func() circuit.Component {
			return component.NewGradient(component.GradientConfig{Slope: a, MinGradient: -5, MaxGradient: 5, Manual: flag})
		}, 5, 1},
		{"pid_controller", func() circuit.Component {
			return component.NewPID(component.PIDConfig{KP: math.Abs(a), KI: math.Abs(b), KD: 0.5, Every: c, ResetAfterInvalid: 2}, interval)
		}, 4, 1},
		{"ema", func() circuit.Component {
			return component.NewEMA(component.EMAConfig{Window: c, Warmup: d, MinEnvelopeFactor: 2, MaxEnvelopeFactor: 0.5, ValidDuringWarmup: flag}, interval)
		}, 3, 1},
		{"sma", func() circuit.Component {
			return component.NewSMA(component.SMAConfig{Window: c, ValidDuringWarmup: flag}, interval)
		}, 1, 1},
		{"integrator", func() circuit.Component {
			return component.NewIntegrator(component.IntegratorConfig{Initial: 1, Every: c}, interval)
		}, 4, 1},
		{"polynomial_range_function", func() circuit.Component {
			return component.NewPolynomial(component.PolynomialConfig{
				Start: component.Datapoint{Input: 0, Output: a}, End: component.Datapoint{Input: 1, Output: b},
				Degree: 2, Clamp: flag, Before: a, After: b,
			})
		}, 1, 1},
		{"signal_generator", func() circuit.Component {
			return component.NewGenerator([]component.GeneratorStep{{Target: a, Length: c}, {Target: b, Length: d}, {Target: 3}}, interval)
		}, 3, 3},
		{"decider", func() circuit.Component {
			d, _ := component.NewDecider(component.DeciderConfig{Operator: "gte", TrueFor: c, FalseFor: d})
			return d
		}, 2, 1},
	}
	arithmetic := s.of("add", "sub", "mul", "div", "xor", "lshift", "rshift")
	unary := s.of("abs", "sqrt", "log", "gamma", "sin", "exp", "ceil", "y0")
	switch i := s.choice(len(kinds) + 2); {
	case i < len(kinds):
		k := kinds[i]
		return k.kind, k.make, k.ins, k.outs
	case i == len(kinds):
		return "arithmetic_combinator", func() circuit.Component { a, _ := component.NewArithmetic(arithmetic); return a }, 2, 1
	default:
		return "unary_operator", func() circuit.Component { u, _ := component.NewUnary(unary); return u }, 1, 1
	}
}

// circuits returns two equal lists of nodes, with components of their own, and the inputs of both.
func (s *source) circuits(interval time.Duration) (a, b []circuit.Node, inputs [][2]*circuit.Input) {
	var signals []circuit.Signal
	var makers []func() circuit.Component
	n := 1 + s.choice(16)
	for i := range n {
		kind, make, ins, outs := s.component(interval)
		if ins < 0 {
			ins = s.choice(4)
		}
		node := circuit.Node{ID: fmt.Sprintf("root.%d", i), Kind: kind}
		for j := range ins {
			node.In = append(node.In, circuit.In{Port: fmt.Sprintf("in%d", j)})
		}
		for j := range outs {
			out := circuit.Out{Port: fmt.Sprintf("out%d", j)}
			if s.choice(6) != 1 {
				out.Signal = circuit.Signal{Circuit: []string{circuit.Root, "root.9"}[s.choice(2)], Name: fmt.Sprintf("%d_%d", i, j)}
				signals = append(signals, out.Signal)
			}
			node.Out = append(node.Out, out)
		}
		a, makers = append(a, node), append(makers, make)
	}
	for i := range s.choice(3) {
		pair := [2]*circuit.Input{{Value: math.NaN()}, {Value: math.NaN()}}
		inputs = append(inputs, pair)
		signals = append(signals, signal(fmt.Sprintf("input%d", i)))
		a = append(a, circuit.Node{
			ID: fmt.Sprintf("root.%d", n+i), Kind: "input", Component: pair[0],
			Out: []circuit.Out{{Port: "output", Signal: signals[len(signals)-1]}},
		})
		makers = append(makers, func() circuit.Component { return pair[1] })
	}
	for i := range a {
		for j := range a[i].In {
			if len(signals) > 0 && s.choice(5) != 1 {
				a[i].In[j].Signal = signals[s.choice(len(signals))]
			} else {
				a[i].In[j].Constant = s.number()
			}
		}
		other := a[i]
		other.Component = makers[i]()
		b = append(b, other)
		if a[i].Kind != "input" {
			a[i].Component = makers[i]()
		}
	}
	return a, b, inputs
}

// compare runs a circuit and the reference beside each other.
func compare(t *testing.T, s *source, ticks int) {
	interval := []time.Duration{time.Second, 100 * time.Millisecond, 7 * time.Second}[s.choice(3)]
	a, b, inputs := s.circuits(interval)
	c, err := circuit.Compile(interval, a)
	if err != nil {
		t.Fatal(err)
	}
	r := newReference(interval, b)
	for i := range a {
		for port := range a[i].In {
			if got, want := c.Looped(i, port), r.looped[i][port]; got != want {
				t.Fatalf("%s port %d: looped: got %t, want %t\n%s", a[i].ID, port, got, want, describe(a))
			}
		}
	}
	now := start
	for tick := range ticks {
		for _, pair := range inputs {
			pair[0].Value = s.number()
			pair[1].Value = pair[0].Value
		}
		now = now.Add(interval * time.Duration(1+max(0, s.choice(8)-6)))
		c.Tick(now)
		want := r.run(now)
		for i, signal := range c.Signals() {
			if got := c.Values()[i]; got != want[signal] && (circuit.Valid(got) || circuit.Valid(want[signal])) {
				t.Fatalf("tick %d: %s: got %v, want %v\n%s", tick, signal, got, want[signal], describe(a))
			}
		}
	}
}

func describe(nodes []circuit.Node) string {
	text := ""
	for _, n := range nodes {
		text += fmt.Sprintf("%s %s %v -> %v\n", n.ID, n.Kind, n.In, n.Out)
	}
	return text
}

// Random circuits do as the reference does, whatever comes in.
func TestReference(t *testing.T) {
	for seed := range uint64(3000) {
		s := &source{random: rand.New(rand.NewPCG(seed, 1))}
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) { compare(t, s, 12) })
		if t.Failed() {
			return
		}
	}
}

func FuzzCircuit(f *testing.F) {
	f.Add([]byte("circuits of components that read each other's signals"))
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 2))
		data := make([]byte, 400)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) { compare(t, &source{data: data}, 8) })
}

// A tick does not allocate, whatever the components are.
func TestTickDoesNotAllocate(t *testing.T) {
	for seed := range uint64(300) {
		s := &source{random: rand.New(rand.NewPCG(seed, 3))}
		nodes, _, inputs := s.circuits(time.Second)
		c, err := circuit.Compile(time.Second, nodes)
		if err != nil {
			t.Fatal(err)
		}
		now := start
		got := testing.AllocsPerRun(20, func() {
			for _, pair := range inputs {
				pair[0].Value = s.number()
			}
			now = now.Add(time.Second)
			c.Tick(now)
		})
		if got != 0 {
			t.Fatalf("seed %d: %v allocations per tick\n%s", seed, got, describe(nodes))
		}
	}
}
