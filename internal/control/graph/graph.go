// SPDX-License-Identifier: Apache-2.0

// Package graph draws circuits: as Mermaid, DOT and SVG.
//
// A drawing shows the components down to a depth. A composite or a nested circuit above that depth is
// opened: a box with its parts in it. At that depth it is one node with its ports. Loops, where a component
// reads what another one produced on the tick before, are dashed.
//
// Names of signals, descriptions and status texts come from users and are shown, never interpreted.
// Functions here may be called concurrently.
package graph

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Circuit is what can be drawn.
type Circuit struct {
	// Title stands above the drawing, usually the name of the policy. It may be empty.
	Title string
	// Components, those of nested circuits and composites in any order, each ID once.
	Components []Component
}

// Component is one component of a circuit.
type Component struct {
	// ID such as root.3.1.
	ID string
	// Kind such as decider.
	Kind string
	// Parent is the ID of the component it is part of; empty or unknown for the outermost ones.
	Parent string
	// Description in a few words; it may be empty.
	Description string
	// Status is shown when it is neither empty nor "running".
	Status  string
	In, Out []Port
}

// Port is a wire of a component.
type Port struct {
	Name string
	// Signal read or produced; empty for a constant and for a port that is not connected.
	Signal string
	// Circuit that the signal belongs to: the ID of a nested circuit, or "root".
	Circuit string
	// Constant that an in port reads; nil for a signal and for a port that is not connected.
	Constant *float64
	// Looped tells that the signal is read as of the tick before.
	Looped bool
}

// signal names a signal of a circuit.
type signal struct{ circuit, name string }

func (p Port) signal() signal { return signal{p.Circuit, p.Signal} }

// text is the port as a node shows it: its name and, for a constant, the number.
func (p Port) text() string {
	switch {
	case p.Constant != nil:
		return p.Name + " = " + number(*p.Constant)
	case p.Signal == "":
		return p.Name + " not connected"
	}
	return p.Name
}

func number(f float64) string {
	switch {
	case math.IsNaN(f):
		return "invalid"
	case math.IsInf(f, 1):
		return "+Inf"
	case math.IsInf(f, -1):
		return "-Inf"
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// node is a component that is drawn.
type node struct {
	Component
	key   string  // safe name in the drawing: n0, n1, …
	parts []*node // shown inside of it, when it is open
}

func (n *node) open() bool { return len(n.parts) > 0 }

// lines are the words above the ports: kind and ID, description, status.
func (n *node) lines() (title, description, status string) {
	title = n.Kind
	if n.ID != "" {
		title += " " + n.ID
	}
	if n.Status != "running" {
		status = n.Status
	}
	return title, n.Description, status
}

// edge is a signal from one node to another. Ports are indices of Out and In.
type edge struct {
	from, to         *node
	outPort, inPort  int
	label            string
	looped, backward bool // backward: against the order of the drawing
}

// drawing is a circuit as it is shown.
type drawing struct {
	title string
	top   []*node
	leafs []*node // that are not open, in order
}

// MaxDepth is more levels than any circuit has: everything is opened.
const MaxDepth = 100

// newDrawing picks what is shown. depth is the number of levels, at least 1; 0 or less shows all.
func newDrawing(c Circuit, depth int) *drawing {
	if depth <= 0 {
		depth = MaxDepth
	}
	d := &drawing{title: c.Title}
	known := map[string]bool{}
	for _, comp := range c.Components {
		known[comp.ID] = true
	}
	children := map[string][]Component{}
	for _, comp := range c.Components {
		parent := comp.Parent
		if !known[parent] || parent == comp.ID {
			parent = ""
		}
		children[parent] = append(children[parent], comp)
	}
	count := 0
	var build func(parent string, level int) []*node
	build = func(parent string, level int) []*node {
		comps := children[parent]
		delete(children, parent) // a circle of parents ends here
		var nodes []*node
		for _, comp := range comps {
			n := &node{Component: comp, key: "n" + strconv.Itoa(count)}
			count++
			if len(n.In)+len(n.Out) == 0 {
				n.In, n.Out = crossing(children, comp.ID)
			}
			if level < depth {
				n.parts = build(comp.ID, level+1)
			}
			if !n.open() {
				d.leafs = append(d.leafs, n)
			}
			nodes = append(nodes, n)
		}
		return nodes
	}
	d.top = build("", 1)
	return d
}

// crossing finds the ports of the parts of a component whose signals are of a circuit around it, for a
// composite that lists no ports itself.
func crossing(children map[string][]Component, id string) (in, out []Port) {
	inside := func(p Port) bool { return p.Circuit == id || strings.HasPrefix(p.Circuit, id+".") }
	seen := map[Port]bool{}
	var visit func(id string, level int)
	visit = func(id string, level int) {
		for _, c := range children[id] {
			for _, p := range c.In {
				bare := Port{Name: p.Name, Signal: p.Signal, Circuit: p.Circuit}
				if p.Signal != "" && !inside(p) && !seen[bare] {
					seen[bare] = true
					in = append(in, p)
				}
			}
			for _, p := range c.Out {
				if p.Signal != "" && !inside(p) {
					out = append(out, p)
				}
			}
			if level < MaxDepth && c.ID != id {
				visit(c.ID, level+1)
			}
		}
	}
	visit(id, 0)
	return in, out
}

// connect finds the edges between nodes: from the one that produces a signal to all that read it.
func connect(nodes []*node) []edge {
	type source struct {
		node *node
		port int
	}
	producers := map[signal]source{}
	for _, n := range nodes {
		for i, p := range n.Out {
			if _, taken := producers[p.signal()]; p.Signal != "" && !taken {
				producers[p.signal()] = source{n, i}
			}
		}
	}
	var edges []edge
	for _, n := range nodes {
		for i, p := range n.In {
			if from, ok := producers[p.signal()]; ok && p.Signal != "" {
				edges = append(edges, edge{from: from.node, to: n, outPort: from.port, inPort: i, label: p.Signal, looped: p.Looped})
			}
		}
	}
	return edges
}

// role groups kinds that look alike.
type role string

// The roles.
const (
	sourceRole  role = "source"  // brings numbers in
	computeRole role = "compute" // turns numbers into others
	actRole     role = "act"     // acts on flows or on replicas
	alertRole   role = "alert"
	borderRole  role = "border" // between a nested circuit and what is around it
)

var roles = map[role][]string{
	sourceRole: {"promql", "variable", "bool_variable", "pulse_generator", "signal_generator", "accept_percentage", "observed_load_multiplier", "input"},
	actRole: {
		"rate_limiter", "quota_scheduler", "concurrency_limiter", "concurrency_scheduler", "adaptive_concurrency_scheduler",
		"load_scheduler", "adaptive_load_scheduler", "aimd_load_scheduler", "aiad_load_scheduler", "range_driven_load_scheduler",
		"sampler", "load_ramp", "auto_scaler", "pod_scaler", "actuator", "load_actuator",
	},
	alertRole:  {"alerter"},
	borderRole: {"nested_signal_ingress", "nested_signal_egress", "nested_circuit"},
}

func (n *node) role() role {
	for r, kinds := range roles {
		if slices.Contains(kinds, n.Kind) {
			return r
		}
	}
	return computeRole
}

// longest bounds the characters of one line of a drawing.
const longest = 60

// plain makes text from users fit for a drawing: one line, printable, and not too long.
func plain(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > longest {
			b.WriteRune('…')
			break
		}
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			r = '·'
		}
		b.WriteRune(r)
	}
	return b.String()
}
