// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"strings"
)

// SVG draws a circuit as a picture that needs nothing else and follows the reader's preference for light
// or dark. depth is the number of levels shown, 0: all. An error says that the drawing could not be
// arranged; the other formats leave that to their readers.
func SVG(c Circuit, depth int) ([]byte, error) {
	d := newDrawing(c, depth)
	s, err := layOut(d.top)
	if err != nil {
		return nil, err
	}
	top := margin
	if d.title != "" {
		top += titleSpace
	}
	w := max(s.w+2*margin, textWidth(d.title)*1.4+2*margin)
	h := s.h + top + margin
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" role="img">`+"\n", w, h, w, h)
	fmt.Fprintf(&b, "<title>%s</title>\n<style>%s</style>\n", xmlText(titleOf(d.title)), svgStyle)
	b.WriteString(`<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">` +
		`<path class="head" d="M0,0 L8,4 L0,8 z"/></marker></defs>` + "\n")
	b.WriteString(`<rect class="page" width="100%" height="100%"/>` + "\n")
	if d.title != "" {
		fmt.Fprintf(&b, `<text class="name" x="%.0f" y="%.0f">%s</text>`+"\n", margin, margin+12, xmlText(d.title))
	}
	s.draw(&b, margin, top)
	b.WriteString("</svg>\n")
	return []byte(b.String()), nil
}

func titleOf(title string) string {
	if title == "" {
		return "circuit"
	}
	return "circuit of " + title
}

// draw writes boxes, then the wires above them.
func (s *scope) draw(b *strings.Builder, x, y float64) {
	fmt.Fprintf(b, `<g transform="translate(%s,%s)">`+"\n", px(x), px(y))
	wired := map[*box]map[int]bool{}
	for _, w := range s.wires {
		if wired[w.b] == nil {
			wired[w.b] = map[int]bool{}
		}
		wired[w.b][w.inPort] = true
	}
	for _, bx := range s.boxes {
		bx.draw(b, wired[bx])
	}
	for _, w := range s.wires {
		class := "wire"
		if w.looped {
			class = "wire looped"
		}
		fmt.Fprintf(b, `<path class="%s" d="%s"><title>%s</title></path>`+"\n", class, s.path(w), xmlText(w.label))
	}
	b.WriteString("</g>\n")
}

func (bx *box) draw(b *strings.Builder, wired map[int]bool) {
	n := bx.node
	class := string(n.role())
	if bx.inner != nil {
		class += " open"
	}
	title, description, status := n.lines()
	fmt.Fprintf(b, `<g class="%s"><title>%s</title>`+"\n", class, xmlText(strings.TrimSpace(title+" "+description)))
	fmt.Fprintf(b, `<rect class="box" x="%s" y="%s" width="%s" height="%s" rx="6"/>`+"\n", px(bx.x), px(bx.y), px(bx.w), px(bx.h))
	line := 0
	write := func(class, text string) {
		y := bx.y + padding + (float64(line)+0.5)*rowHeight + 4
		fmt.Fprintf(b, `<text class="%s" x="%s" y="%s">%s</text>`+"\n", class, px(bx.x+padding), px(y), xmlText(text))
		line++
	}
	write("kind", title)
	if description != "" {
		write("what", description)
	}
	if status != "" {
		write("status", status)
	}
	for i, p := range n.In {
		fmt.Fprintf(b, `<text x="%s" y="%s">%s</text>`+"\n", px(bx.x+padding), px(bx.portY(i)+4), xmlText(inText(p, wired[i])))
	}
	for i, p := range n.Out {
		fmt.Fprintf(b, `<text class="out" x="%s" y="%s">%s</text>`+"\n", px(bx.x+bx.w-padding), px(bx.portY(i)+4), xmlText(outText(p)))
	}
	if bx.inner != nil {
		rows := max(len(n.In), len(n.Out))
		bx.inner.draw(b, bx.x+padding, bx.y+padding+float64(bx.header+rows)*rowHeight+padding)
	}
	b.WriteString("</g>\n")
}

// path is the way of a wire from an out port to an in port.
func (s *scope) path(w *wire) string {
	x1, y1 := w.a.x+w.a.w, w.a.portY(w.outPort)
	x2, y2 := w.b.x, w.b.portY(w.inPort)
	var b strings.Builder
	fmt.Fprintf(&b, "M%s,%s", px(x1), px(y1))
	if w.backward {
		s.back(&b, w, x1, y1, x2, y2)
		return b.String()
	}
	x, y := x1, y1
	for _, sl := range w.via {
		left, right := s.lefts[sl.column], s.rights[sl.column]
		curve(&b, x, y, left, sl.centre())
		fmt.Fprintf(&b, " L%s,%s", px(right), px(sl.centre()))
		x, y = right, sl.centre()
	}
	curve(&b, x, y, x2, y2)
	return b.String()
}

func curve(b *strings.Builder, x1, y1, x2, y2 float64) {
	middle := (x1 + x2) / 2
	fmt.Fprintf(b, " C%s,%s %s,%s %s,%s", px(middle), px(y1), px(middle), px(y2), px(x2), px(y2))
}

// back goes around below everything.
func (s *scope) back(b *strings.Builder, w *wire, x1, y1, x2, y2 float64) {
	const r = 6.0
	aside := 12 + float64(w.lane%4)*4
	right, left := x1+aside, x2-aside
	bottom := s.h - laneGap*float64(w.lane+1)
	fmt.Fprintf(b, " L%s,%s Q%s,%s %s,%s", px(right-r), px(y1), px(right), px(y1), px(right), px(y1+r))
	fmt.Fprintf(b, " L%s,%s Q%s,%s %s,%s", px(right), px(bottom-r), px(right), px(bottom), px(right-r), px(bottom))
	fmt.Fprintf(b, " L%s,%s Q%s,%s %s,%s", px(left+r), px(bottom), px(left), px(bottom), px(left), px(bottom-r))
	fmt.Fprintf(b, " L%s,%s Q%s,%s %s,%s L%s,%s", px(left), px(y2+r), px(left), px(y2), px(left+r), px(y2), px(x2), px(y2))
}

// px writes a coordinate.
func px(f float64) string {
	text := fmt.Sprintf("%.1f", f)
	return strings.TrimSuffix(text, ".0")
}

// svgStyle has its own colours for both backgrounds; grey on grey suits neither.
const svgStyle = `
.page{fill:#ffffff}
text{font:11px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#1f2328}
.name{font-size:15px;font-weight:bold}
.kind{font-weight:bold}
.what{fill:#57606a}
.status{fill:#cf222e}
.out{text-anchor:end}
.box{fill:#f6f8fa;stroke:#8b949e;stroke-width:1}
.source>.box{fill:#ddf4ff;stroke:#0969da}
.act>.box{fill:#dafbe1;stroke:#1a7f37}
.alert>.box{fill:#ffebe9;stroke:#cf222e}
.border>.box{fill:#ffffff;stroke:#8b949e;stroke-dasharray:3 2}
.open>.box{fill:none;stroke-width:1.5}
.wire{fill:none;stroke:#57606a;stroke-width:1.3;marker-end:url(#arrow)}
.looped{stroke-dasharray:5 4;stroke:#8250df}
.head{fill:#57606a}
@media (prefers-color-scheme:dark){
.page{fill:#0d1117}
text{fill:#e6edf3}
.what{fill:#9da7b3}
.status{fill:#ff7b72}
.box{fill:#161b22;stroke:#6e7681}
.source>.box{fill:#0c2d6b;stroke:#58a6ff}
.act>.box{fill:#0f3d1e;stroke:#3fb950}
.alert>.box{fill:#5d1116;stroke:#ff7b72}
.border>.box{fill:#0d1117}
.open>.box{fill:none}
.wire{stroke:#9da7b3}
.looped{stroke:#d2a8ff}
.head{fill:#9da7b3}
}
`
