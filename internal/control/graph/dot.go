// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"strings"
)

// DOT draws a circuit in the language of Graphviz. depth is the number of levels shown, 0: all.
func DOT(c Circuit, depth int) []byte {
	d := newDrawing(c, depth)
	var b strings.Builder
	b.WriteString("digraph circuit {\n")
	b.WriteString("  rankdir=LR; compound=true; fontname=\"Helvetica\"; labelloc=t;\n")
	b.WriteString("  node [shape=plain, fontname=\"Helvetica\", fontsize=11];\n")
	b.WriteString("  edge [fontname=\"Helvetica\", fontsize=10, color=\"#57606a\"];\n")
	if d.title != "" {
		fmt.Fprintf(&b, "  label=%s;\n", dotText(d.title))
	}
	dotNodes(&b, d.top, "  ")
	for _, e := range connect(d.leafs) {
		style := ""
		if e.looped {
			style = ", style=dashed, constraint=false"
		}
		fmt.Fprintf(&b, "  %s:o%d:e -> %s:i%d:w [label=%s%s];\n", e.from.key, e.outPort, e.to.key, e.inPort, dotText(e.label), style)
	}
	b.WriteString("}\n")
	return []byte(b.String())
}

func dotNodes(b *strings.Builder, nodes []*node, indent string) {
	for _, n := range nodes {
		title, description, status := n.lines()
		if !n.open() {
			fmt.Fprintf(b, "%s%s [label=<%s>];\n", indent, n.key, dotTable(n, title, description, status))
			continue
		}
		fmt.Fprintf(b, "%ssubgraph cluster_%s {\n%s  style=rounded; color=\"#8b949e\"; label=%s;\n",
			indent, n.key, indent, dotText(strings.TrimSpace(title+"  "+description)))
		dotNodes(b, n.parts, indent+"  ")
		b.WriteString(indent + "}\n")
	}
}

var dotColours = map[role]string{
	sourceRole: "#ddf4ff", computeRole: "#f6f8fa", actRole: "#dafbe1", alertRole: "#ffebe9", borderRole: "#ffffff",
}

// dotTable is the label of a node: what it is above its ports.
func dotTable(n *node, title, description, status string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<table border="0" cellborder="1" cellspacing="0" color="#8b949e" bgcolor="%s">`, dotColours[n.role()])
	fmt.Fprintf(&b, `<tr><td colspan="2"><b>%s</b></td></tr>`, xmlText(title))
	if description != "" {
		fmt.Fprintf(&b, `<tr><td colspan="2">%s</td></tr>`, xmlText(description))
	}
	if status != "" {
		fmt.Fprintf(&b, `<tr><td colspan="2"><font color="#d1242f">%s</font></td></tr>`, xmlText(status))
	}
	for i := range max(len(n.In), len(n.Out)) {
		in, out := "<td></td>", "<td></td>"
		if i < len(n.In) {
			in = fmt.Sprintf(`<td port="i%d" align="left">%s</td>`, i, xmlText(n.In[i].text()))
		}
		if i < len(n.Out) {
			out = fmt.Sprintf(`<td port="o%d" align="right">%s</td>`, i, xmlText(n.Out[i].text()))
		}
		b.WriteString("<tr>" + in + out + "</tr>")
	}
	b.WriteString("</table>")
	return b.String()
}

// dotText is a quoted string.
func dotText(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(plain(s)) + `"`
}

// xmlText writes text for XML and for the HTML-like labels of Graphviz.
func xmlText(s string) string { return xmlEscapes.Replace(plain(s)) }

var xmlEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#39;", "[", "&#91;", "]", "&#93;")
