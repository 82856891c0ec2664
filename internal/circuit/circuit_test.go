// SPDX-License-Identifier: Apache-2.0

package circuit_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/circuit/component"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// sum adds its valid inputs up.
type sum struct{}

func (sum) Step(_ *circuit.Tick, in, out []float64) {
	total := 0.0
	for _, v := range in {
		if circuit.Valid(v) {
			total += v
		}
	}
	for i := range out {
		out[i] = total
	}
}

// Scripts. testdata/README.md has the format.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p := &player{t: t}
			for i, line := range strings.Split(string(text), "\n") {
				p.at = fmt.Sprintf("%s:%d", file, i+1)
				p.line(line)
			}
		})
	}
}

// player plays a script, a line at a time.
type player struct {
	t       *testing.T
	at      string
	nodes   []circuit.Node
	inputs  map[string]*circuit.Input
	circuit *circuit.Circuit
	columns []string
	reads   []func() float64
}

func (p *player) line(line string) {
	left, right, table := strings.Cut(line, "|")
	switch {
	case strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "":
	case line == "circuit":
		*p = player{t: p.t, at: p.at, inputs: map[string]*circuit.Input{}}
	case !table:
		p.node(line)
	case p.circuit == nil:
		p.compile(strings.Fields(left), strings.Fields(right))
	default:
		p.tick(strings.Fields(left), strings.Fields(right))
	}
}

func signal(word string) circuit.Signal {
	scope, name, ok := strings.Cut(word, "/")
	if !ok {
		return circuit.Signal{Circuit: circuit.Root, Name: word}
	}
	return circuit.Signal{Circuit: scope, Name: name}
}

func (p *player) node(line string) {
	left, right, _ := strings.Cut(line, "->")
	words := strings.Fields(left)
	n := circuit.Node{ID: words[0], Kind: words[1]}
	for i, word := range words[2:] {
		in := circuit.In{Port: strconv.Itoa(i)}
		if v, err := strconv.ParseFloat(strings.Replace(word, "inv", "NaN", 1), 64); err == nil {
			in.Constant = v
		} else {
			in.Signal = signal(word)
		}
		n.In = append(n.In, in)
	}
	for i, word := range strings.Fields(right) {
		out := circuit.Out{Port: strconv.Itoa(i)}
		if word != "-" {
			out.Signal = signal(word)
		}
		n.Out = append(n.Out, out)
	}
	switch n.Kind {
	case "input":
		input := &circuit.Input{Value: math.NaN()}
		p.inputs[strings.TrimSpace(right)] = input
		n.Component = input
	case "sum":
		n.Component = sum{}
	case "copy":
		n.Component = component.Copy{}
	case "first_valid":
		n.Component = component.FirstValid{}
	case "add":
		n.Component, _ = component.NewArithmetic("add")
	case "sink":
	default:
		p.t.Fatalf("%s: unknown kind %q", p.at, n.Kind)
	}
	p.nodes = append(p.nodes, n)
}

func (p *player) compile(inputs, outputs []string) {
	c, err := circuit.Compile(time.Second, p.nodes)
	if err != nil {
		p.t.Fatalf("%s: %v", p.at, err)
	}
	p.circuit, p.columns = c, inputs
	for _, word := range outputs {
		if id, port, ok := strings.Cut(word, "#"); ok {
			node := slices.IndexFunc(p.nodes, func(n circuit.Node) bool { return n.ID == id })
			i, _ := strconv.Atoi(port)
			p.reads = append(p.reads, func() float64 { return c.In(node)[i] })
			continue
		}
		slot, ok := c.Index(signal(word))
		if !ok || c.Signals()[slot] != signal(word) {
			p.t.Fatalf("%s: no signal %s", p.at, word)
		}
		p.reads = append(p.reads, func() float64 { return c.Values()[slot] })
	}
}

func (p *player) tick(in, want []string) {
	for i, name := range p.columns {
		v, err := strconv.ParseFloat(strings.Replace(in[i], "inv", "NaN", 1), 64)
		if err != nil {
			p.t.Fatalf("%s: %v", p.at, err)
		}
		p.inputs[name].Value = v
	}
	p.circuit.Tick(start.Add(time.Duration(p.circuit.Count()) * time.Second))
	got := make([]string, len(p.reads))
	for i, read := range p.reads {
		got[i] = strings.Replace(strconv.FormatFloat(read(), 'g', -1, 64), "NaN", "inv", 1)
	}
	if !slices.Equal(got, want) {
		p.t.Errorf("%s: got %v, want %v", p.at, got, want)
	}
}

func in(name string) circuit.In   { return circuit.In{Port: "in", Signal: signal(name)} }
func out(name string) circuit.Out { return circuit.Out{Port: "out", Signal: signal(name)} }

func TestCompileRefuses(t *testing.T) {
	nodes := []circuit.Node{
		{ID: "root.0", Kind: "copy", In: []circuit.In{in("X")}, Out: []circuit.Out{out("A")}, Component: sum{}},
		{ID: "root.1", Kind: "copy", In: []circuit.In{in("A")}, Out: []circuit.Out{out("A")}, Component: sum{}},
		{ID: "root.2", Kind: "max", Out: []circuit.Out{out("B"), out("B")}, Component: sum{}},
		{ID: "root.3.0", Kind: "sink", In: []circuit.In{in("root.3/A")}},
	}
	c, err := circuit.Compile(0, nodes)
	want := `evaluation interval: got 0s, want more than 0s
root.1 (copy): out port "out": signal "A" has a producer already, root.0; choose another name
root.2 (max): out port "out": signal "B" has a producer already, root.2; choose another name
root.0 (copy): in port "in": no component produces the signal "X"
root.3.0 (sink): in port "in": no component produces the signal "A" of root.3`
	if c != nil || err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// Before the first tick everything is invalid, and constants can be read.
func TestBeforeTheFirstTick(t *testing.T) {
	c, err := circuit.Compile(100*time.Millisecond, []circuit.Node{
		{ID: "root.0", In: []circuit.In{in("A"), {Port: "b", Constant: 7}}, Out: []circuit.Out{out("A")}, Component: sum{}},
		{ID: "root.1", Out: []circuit.Out{out("N")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Count() != 0 || c.Interval() != 100*time.Millisecond || len(c.Nodes()) != 2 {
		t.Errorf("got %d ticks, interval %s, %d nodes", c.Count(), c.Interval(), len(c.Nodes()))
	}
	if v := c.Values(); len(v) != 2 || circuit.Valid(v[0]) || circuit.Valid(v[1]) {
		t.Errorf("values: got %v", v)
	}
	if v := c.In(0); circuit.Valid(v[0]) || v[1] != 7 {
		t.Errorf("in: got %v", v)
	}
	if !c.Looped(0, 0) || c.Looped(0, 1) {
		t.Error("root.0 reads itself, and a constant")
	}
	if _, ok := c.Index(signal("X")); ok {
		t.Error("there is no signal X")
	}
	c.Tick(start)
	if v := c.Values(); v[0] != 7 || circuit.Valid(v[1]) {
		t.Errorf("after a tick: got %v; a node without a component leaves its signals invalid", v)
	}
}

// watcher tells what it is called with.
type watcher struct {
	ticks []circuit.Tick
	stale bool
}

func (w *watcher) Step(t *circuit.Tick, _, out []float64) {
	w.ticks = append(w.ticks, *t)
	w.stale = w.stale || circuit.Valid(out[0])
	if t.Count == 0 {
		out[0] = 1
	}
}

// A component learns when it runs, and an output that it leaves alone is invalid.
func TestStep(t *testing.T) {
	connected, alone := &watcher{}, &watcher{}
	c, err := circuit.Compile(time.Second, []circuit.Node{
		{ID: "root.0", Out: []circuit.Out{out("A")}, Component: connected},
		{ID: "root.1", Out: []circuit.Out{{Port: "x"}, out("B")}, Component: alone},
	})
	if err != nil {
		t.Fatal(err)
	}
	var want []circuit.Tick
	for i := range 3 {
		now := start.Add(time.Duration(i) * 1001 * time.Millisecond)
		want = append(want, circuit.Tick{Now: now, Count: uint64(i), Interval: time.Second})
		c.Tick(now)
		if a := c.Values()[0]; circuit.Valid(a) != (i == 0) {
			t.Errorf("tick %d: got %v", i, a)
		}
	}
	if !slices.Equal(connected.ticks, want) || !slices.Equal(alone.ticks, want) {
		t.Errorf("got %v and %v, want %v", connected.ticks, alone.ticks, want)
	}
	if connected.stale || alone.stale {
		t.Error("an output was valid before the step")
	}
}

// Dynamic configuration reaches every component or none.
func TestConfigure(t *testing.T) {
	c, err := circuit.Compile(time.Second, []circuit.Node{
		{ID: "root.0", Kind: "variable", Out: []circuit.Out{out("A")}, Component: component.NewVariable(1, "a")},
		{ID: "root.1", Kind: "bool_variable", Out: []circuit.Out{out("B")}, Component: component.NewBoolVariable(false, "b")},
		{ID: "root.2", Kind: "variable", Out: []circuit.Out{out("C")}, Component: component.NewVariable(3, "c")},
		{ID: "root.3", Kind: "copy", In: []circuit.In{in("A")}, Component: component.Copy{}, Out: []circuit.Out{out("D")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	configure := func(values map[string]any) error {
		return c.Configure(func(key string) (any, bool) {
			value, ok := values[key]
			return value, ok
		})
	}
	check := func(when string, want ...float64) {
		t.Helper()
		c.Tick(start)
		if got := c.Values(); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", when, got, want)
		}
	}
	check("document", 1, 0, 3, 1)
	if err := configure(map[string]any{"a": 10.0, "b": true, "x": "nobody reads it"}); err != nil {
		t.Fatal(err)
	}
	check("configured", 10, 1, 3, 10)
	err = configure(map[string]any{"a": 20.0, "b": 1.0, "c": true})
	want := `root.1 (bool_variable): b: got the number 1, want true or false; correct the value, or delete the key to go back to that of the policy
root.2 (variable): c: got true, want a number, or one of the texts NaN, +Inf and -Inf; correct the value, or delete the key to go back to that of the policy`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	check("refused", 10, 1, 3, 10)
	if err := configure(nil); err != nil {
		t.Fatal(err)
	}
	check("deleted", 1, 0, 3, 1)
	if err := configure(map[string]any{"c": "?"}); err == nil {
		t.Error("a text was accepted as a number")
	}
	check("refused after deletion", 1, 0, 3, 1)
}
