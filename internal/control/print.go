// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"strings"

	"github.com/sluice-project/sluice/internal/policy"
)

// String prints the program for people: every component with its wires, then what dynamic configuration can
// change and what is waiting. A port reads NAME, circuit/NAME or a number; ~ marks the tick before, - a port
// that is not connected.
func (p *Program) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "policy %s, a tick every %s\n", p.Policy, policy.Duration(p.Interval))
	for i := range p.views {
		v := &p.views[i]
		b.WriteString(strings.Repeat("  ", strings.Count(v.ID, ".")-1) + v.String() + "\n")
	}
	for _, k := range p.Keys {
		fmt.Fprintf(&b, "key %s: %s, read by %s: %s\n", k.Key, k.Type, k.Component, k.Description)
	}
	for _, n := range p.Waiting {
		about := n.Component
		if about == "" {
			about = "policy"
		}
		fmt.Fprintf(&b, "%s: %s\n", about, n.Text)
	}
	return b.String()
}

// String prints a component on one line.
func (v *ComponentView) String() string {
	var b strings.Builder
	b.WriteString(v.ID + " " + v.Kind)
	if v.Description != "" {
		b.WriteString(" (" + v.Description + ")")
	}
	if len(v.In) > 0 {
		b.WriteString(":")
	}
	for _, p := range v.In {
		b.WriteString(" " + p.Name + "=" + p.source())
	}
	if len(v.Out) > 0 {
		b.WriteString(" →")
	}
	for _, p := range v.Out {
		b.WriteString(" " + p.Name + "=" + p.source())
	}
	return b.String()
}

// source is what a port is connected to.
func (p *PortView) source() string {
	switch {
	case p.Constant != nil:
		return number(*p.Constant)
	case p.Signal == "":
		return "-"
	}
	name := p.Signal
	if p.Circuit != "" && p.Circuit != "root" {
		name = p.Circuit + "/" + name
	}
	if p.Looped {
		name = "~" + name
	}
	return name
}
