// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// Mermaid draws a circuit as a flowchart, for Markdown files. depth is the number of levels shown, 0: all.
func Mermaid(c Circuit, depth int) []byte {
	d := newDrawing(c, depth)
	var b strings.Builder
	if d.title != "" {
		fmt.Fprintf(&b, "---\ntitle: \"%s\"\n---\n", mermaidText(d.title))
	}
	b.WriteString("flowchart LR\n")
	mermaidNodes(&b, d.top, "  ")
	for _, e := range connect(d.leafs) {
		arrow := "-->"
		if e.looped {
			arrow = "-.->"
		}
		fmt.Fprintf(&b, "  %s %s|\"%s\"| %s\n", e.from.key, arrow, mermaidEdge(e), e.to.key)
	}
	b.WriteString(mermaidStyles)
	return []byte(b.String())
}

// mermaidEdge is the name of the signal and, where it is not obvious, of the port that reads it.
func mermaidEdge(e edge) string {
	text := mermaidText(e.label)
	if len(e.to.In) > 1 {
		text += " → " + mermaidText(e.to.In[e.inPort].Name)
	}
	return text
}

func mermaidNodes(b *strings.Builder, nodes []*node, indent string) {
	for _, n := range nodes {
		title, description, status := n.lines()
		lines := []string{title}
		if description != "" {
			lines = append(lines, description)
		}
		if status != "" {
			lines = append(lines, status)
		}
		if n.open() {
			fmt.Fprintf(b, "%ssubgraph %s[\"%s\"]\n", indent, n.key, mermaidLines(lines))
			mermaidNodes(b, n.parts, indent+"  ")
			b.WriteString(indent + "end\n")
			continue
		}
		for _, p := range n.In {
			if p.Constant != nil {
				lines = append(lines, p.text())
			}
		}
		shape := [2]string{"[", "]"}
		switch n.role() {
		case sourceRole:
			shape = [2]string{"([", "])"}
		case actRole:
			shape = [2]string{"[[", "]]"}
		case alertRole:
			shape = [2]string{">", "]"}
		}
		fmt.Fprintf(b, "%s%s%s\"%s\"%s:::%s\n", indent, n.key, shape[0], mermaidLines(lines), shape[1], n.role())
	}
}

func mermaidLines(lines []string) string {
	safe := make([]string, len(lines))
	for i, l := range lines {
		safe[i] = mermaidText(l)
	}
	return strings.Join(safe, "<br/>")
}

// mermaidText writes everything that could mean something to Mermaid, HTML or YAML as an entity of
// Mermaid. What may stay is listed, because nobody lists all that may not.
func mermaidText(s string) string {
	var b strings.Builder
	for _, r := range plain(s) {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune(" _-.,:/+=()%…·", r) {
			b.WriteRune(r)
			continue
		}
		b.WriteString("#" + strconv.Itoa(int(r)) + ";")
	}
	return b.String()
}

// mermaidStyles suit light and dark themes: the fill is only a tint.
const mermaidStyles = `  classDef source stroke:#2f81f7,stroke-width:2px
  classDef compute stroke:#8b949e
  classDef act stroke:#2da44e,stroke-width:2px
  classDef alert stroke:#d1242f,stroke-width:2px
  classDef border stroke:#8b949e,stroke-dasharray:3
`
