// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew; commit only a difference you can explain")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got\n%s", file, got)
	}
}

func constant(name string, v float64) Port { return Port{Name: name, Constant: &v} }

func wired(name, circuit, signal string) Port {
	return Port{Name: name, Signal: signal, Circuit: circuit}
}

func looped(name, circuit, signal string) Port {
	return Port{Name: name, Signal: signal, Circuit: circuit, Looped: true}
}

// protection is a circuit with everything a drawing has to show.
func protection() Circuit {
	return Circuit{Title: "checkout", Components: []Component{
		{ID: "root.0", Kind: "promql", Description: "every 1s", Status: "no series matches", Out: []Port{wired("output", "root", "LATENCY")}},
		{ID: "root.1", Kind: "variable", Description: "config key setpoint", Out: []Port{wired("output", "root", "SETPOINT")}},
		{
			ID: "root.2", Kind: "aimd_load_scheduler", Description: "gradient slope -1", Status: "running",
			In:  []Port{wired("signal", "root", "LATENCY"), wired("setpoint", "root", "SETPOINT"), {Name: "overload_confirmation"}},
			Out: []Port{wired("is_overload", "root", "IS_OVERLOAD"), wired("desired_load_multiplier", "root", "DESIRED")},
		},
		{
			ID: "root.2.0", Kind: "nested_signal_ingress", Parent: "root.2",
			In: []Port{wired("signal", "root", "LATENCY")}, Out: []Port{wired("signal", "root.2", "SIGNAL")},
		},
		{ID: "root.2.1", Kind: "observed_load_multiplier", Parent: "root.2", Out: []Port{wired("output", "root.2", "OBSERVED")}},
		{
			ID: "root.2.2", Kind: "gradient_controller", Parent: "root.2",
			In: []Port{
				wired("signal", "root.2", "SIGNAL"), wired("setpoint", "root", "SETPOINT"), wired("control_variable", "root.2", "OBSERVED"),
				constant("max", 2), constant("min", math.NaN()),
			},
			Out: []Port{wired("output", "root.2", "LM")},
		},
		{
			ID: "root.2.3", Kind: "integrator", Parent: "root.2", Description: "from 2",
			In: []Port{constant("input", 0.0025), looped("reset", "root.2", "OVER"), constant("max", math.Inf(1))}, Out: []Port{wired("output", "root.2", "I")},
		},
		{
			ID: "root.2.4", Kind: "decider", Parent: "root.2", Description: "lt",
			In: []Port{wired("lhs", "root.2", "LM"), wired("rhs", "root.2", "I")}, Out: []Port{wired("output", "root.2", "OVER")},
		},
		{ID: "root.2.5", Kind: "actuator", Parent: "root.2", In: []Port{wired("load_multiplier", "root.2", "LM")}},
		{
			ID: "root.3", Kind: "alerter", Description: "load is shed",
			In: []Port{wired("signal", "root", "IS_OVERLOAD")},
		},
		{ID: "root.4", Kind: "ema", Description: "window 10s", In: []Port{looped("input", "root", "SMOOTH")}, Out: []Port{wired("output", "root", "SMOOTH")}},
	}}
}

// hostile is what a policy could name its signals to break out of a drawing.
func hostile() Circuit {
	evil := []string{
		`"]; click n0 "javascript:alert(1)"`, "<script>alert(1)</script>", "a\nend\nn9[x]", `\" -> x`, "`**md**`", "%%{init: {}}%%",
		"]]>", "\u202eright to left", "#quot;", "&amp;", "世界 😀", strings.Repeat("long ", 100), "--> |", "a;b", "'\x00\x1b[2J",
	}
	c := Circuit{Title: `x"]: <b>` + "\n---\nevil"}
	for i, e := range evil {
		c.Components = append(c.Components, Component{
			ID: fmt.Sprintf("root.%d", i), Kind: e, Description: e, Status: e,
			In:  []Port{{Name: e, Signal: evil[(i+1)%len(evil)], Circuit: "root"}},
			Out: []Port{{Name: e, Signal: e, Circuit: "root"}},
		})
	}
	return c
}

func TestGolden(t *testing.T) {
	for name, c := range map[string]Circuit{"protection": protection(), "hostile": hostile(), "empty": {}} {
		for depth := range 3 {
			if depth == 2 && name != "protection" || depth == 0 && name != "protection" {
				continue
			}
			file := fmt.Sprintf("%s-%d", name, depth)
			golden(t, file+".mmd", Mermaid(c, depth))
			golden(t, file+".dot", DOT(c, depth))
			picture, err := SVG(c, depth)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, file+".svg", picture)
			checkXML(t, picture)
		}
	}
}

// checkXML refuses a picture that is not well formed, or has an element that we do not write.
func checkXML(t interface{ Fatalf(string, ...any) }, picture []byte) {
	dec := xml.NewDecoder(bytes.NewReader(picture))
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("not well formed: %v\n%s", err, picture)
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		switch start.Name.Local {
		case "svg", "g", "title", "style", "defs", "marker", "path", "rect", "text":
		default:
			t.Fatalf("the picture has an element <%s>\n%s", start.Name.Local, picture)
		}
		for _, a := range start.Attr {
			if strings.HasPrefix(a.Name.Local, "on") || strings.Contains(a.Name.Local, "href") {
				t.Fatalf("the picture has an attribute %s", a.Name.Local)
			}
		}
	}
}

func TestDepth(t *testing.T) {
	for depth, want := range map[int]int{0: 10, 1: 5, 2: 10, 7: 10} {
		if got := len(newDrawing(protection(), depth).leafs); got != want {
			t.Errorf("depth %d: got %d nodes, want %d", depth, got, want)
		}
	}
}

// TestEdges finds the wires of every depth.
func TestEdges(t *testing.T) {
	for depth, want := range map[int][]string{
		1: {"root.0 LATENCY root.2", "root.1 SETPOINT root.2", "root.2 IS_OVERLOAD root.3", "root.4 SMOOTH root.4 looped"},
		2: {
			"root.0 LATENCY root.2.0", "root.2.0 SIGNAL root.2.2", "root.1 SETPOINT root.2.2", "root.2.1 OBSERVED root.2.2",
			"root.2.4 OVER root.2.3 looped", "root.2.2 LM root.2.4", "root.2.3 I root.2.4", "root.2.2 LM root.2.5", "root.4 SMOOTH root.4 looped",
		},
	} {
		var got []string
		for _, e := range connect(newDrawing(protection(), depth).leafs) {
			text := e.from.ID + " " + e.label + " " + e.to.ID
			if e.looped {
				text += " looped"
			}
			got = append(got, text)
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("depth %d: got\n%s\nwant\n%s", depth, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// TestCrossing: a composite that lists no ports has those of its parts that reach outside.
func TestCrossing(t *testing.T) {
	c := Circuit{Components: []Component{
		{ID: "root.0", Kind: "load_ramp"},
		{ID: "root.0.0", Parent: "root.0", In: []Port{wired("a", "root", "A"), wired("b", "root.0", "B")}, Out: []Port{wired("c", "root.0", "B")}},
		{ID: "root.0.1", Parent: "root.0", In: []Port{wired("a", "root", "A"), wired("x", "root.0", "B")}, Out: []Port{wired("c", "root", "C")}},
	}}
	n := newDrawing(c, 1).top[0]
	if len(n.In) != 1 || n.In[0].Signal != "A" || len(n.Out) != 1 || n.Out[0].Signal != "C" {
		t.Errorf("got %v and %v", n.In, n.Out)
	}
}

func TestParentsInACircle(t *testing.T) {
	c := Circuit{Components: []Component{{ID: "a", Parent: "b"}, {ID: "b", Parent: "a"}, {ID: "c", Parent: "c"}, {ID: "d", Parent: "gone"}}}
	if got := len(newDrawing(c, 0).leafs); got != 2 {
		t.Errorf("got %d nodes, want the 2 outside of the circle", got)
	}
}

// drawn makes circuits of any wiring.
func drawn(t *rapid.T) Circuit {
	n := rapid.IntRange(0, 30).Draw(t, "components")
	name := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"A", "B", "C", "D", "E"}))
	var c Circuit
	for i := range n {
		comp := Component{ID: fmt.Sprintf("root.%d", i), Kind: name.Draw(t, "kind"), Description: name.Draw(t, "description"), Status: name.Draw(t, "status")}
		if i > 0 && rapid.Bool().Draw(t, "nested") {
			comp.Parent = fmt.Sprintf("root.%d", rapid.IntRange(0, i-1).Draw(t, "parent"))
		}
		port := rapid.Custom(func(t *rapid.T) Port {
			p := Port{Name: name.Draw(t, "port"), Looped: rapid.Bool().Draw(t, "looped")}
			if rapid.Bool().Draw(t, "constant") {
				v := rapid.Float64().Draw(t, "value")
				p.Constant = &v
				return p
			}
			p.Signal, p.Circuit = name.Draw(t, "signal"), rapid.SampledFrom([]string{"root", comp.Parent}).Draw(t, "circuit")
			return p
		})
		comp.In = rapid.SliceOfN(port, 0, 4).Draw(t, "in")
		comp.Out = rapid.SliceOfN(port, 0, 3).Draw(t, "out")
		c.Components = append(c.Components, comp)
	}
	return c
}

// TestAnyCircuit: whatever the wiring and the names, pictures are well formed, boxes of one scope do not
// overlap and lie within the picture.
func TestAnyCircuit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, depth := drawn(t), rapid.IntRange(0, 4).Draw(t, "depth")
		picture, err := SVG(c, depth)
		if err != nil {
			t.Fatalf("%v", err)
		}
		checkXML(t, picture)
		checkMermaid(t, string(Mermaid(c, depth)))
		s, err := layOut(newDrawing(c, depth).top)
		if err != nil {
			t.Fatalf("%v", err)
		}
		checkPlaces(t, s)
	})
}

func checkPlaces(t *rapid.T, s *scope) {
	const slack = 1e-6
	for i, a := range s.boxes {
		if a.x < -slack || a.y < -slack || a.x+a.w > s.w+slack || a.y+a.h > s.h+slack {
			t.Fatalf("%s lies outside: %+v of %g x %g", a.node.ID, *a, s.w, s.h)
		}
		for _, b := range s.boxes[:i] {
			if a.x < b.x+b.w-slack && b.x < a.x+a.w-slack && a.y < b.y+b.h-slack && b.y < a.y+a.h-slack {
				t.Fatalf("%s and %s overlap", a.node.ID, b.node.ID)
			}
		}
		if a.inner != nil {
			checkPlaces(t, a.inner)
		}
	}
}

// checkMermaid takes every quoted text out and refuses what is left when it is not ours.
func checkMermaid(t interface{ Fatalf(string, ...any) }, text string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		parts := strings.Split(line, `"`)
		if len(parts)%2 == 0 {
			t.Fatalf("a quote is not closed: %q", line)
		}
		for i := 1; i < len(parts); i += 2 {
			for _, r := range strings.ReplaceAll(parts[i], "<br/>", "") {
				if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(" _-.,:/+=()%…·→#;", r) {
					t.Fatalf("%q in a text may mean something to Mermaid: %q", r, line)
				}
			}
			parts[i] = ""
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, c := range hostile().Components {
		f.Add(c.Kind, c.Out[0].Signal)
	}
	f.Fuzz(func(t *testing.T, kind, name string) {
		c := Circuit{Title: name, Components: []Component{
			{ID: "root.0", Kind: kind, Description: name, Status: name, Out: []Port{wired(kind, "root", name)}},
			{ID: kind, Kind: name, In: []Port{wired(name, "root", name)}},
		}}
		picture, err := SVG(c, 0)
		if err != nil {
			t.Fatal(err)
		}
		checkXML(t, picture)
		checkMermaid(t, string(Mermaid(c, 0)))
		checkDOT(t, string(DOT(c, 0)))
	})
}

// checkDOT walks through the text as Graphviz does and refuses an end within a string or a label.
func checkDOT(t interface{ Fatalf(string, ...any) }, text string) {
	quoted, angle := false, 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case angle == 0 && c == '"':
			quoted = !quoted
		case quoted && c == '\n':
			t.Fatalf("a line ends within a string: %q", text)
		case !quoted && c == '<':
			angle++
		case !quoted && c == '>' && (angle > 0 && (i == 0 || text[i-1] != '-')):
			angle--
		}
	}
	if quoted || angle != 0 {
		t.Fatalf("a string or a label does not end: %q", text)
	}
}

// TestManyComponents bounds the time: 300 components are more than anybody reads.
func TestManyComponents(t *testing.T) {
	var c Circuit
	for i := range 300 {
		comp := Component{ID: fmt.Sprintf("root.%d", i), Kind: "max", Out: []Port{wired("output", "root", fmt.Sprintf("S%d", i))}}
		for _, j := range []int{i / 2, i * 7 % 300, i - 1} {
			comp.In = append(comp.In, Port{Name: "in", Signal: fmt.Sprintf("S%d", j), Circuit: "root", Looped: j >= i})
		}
		c.Components = append(c.Components, comp)
	}
	if _, err := SVG(c, 1); err != nil {
		t.Fatal(err)
	}
}
