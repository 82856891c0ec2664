// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/nulab/autog"
	autograph "github.com/nulab/autog/graph"
)

// Sizes, in pixels. Text is in a font of fixed width, whose characters are 0.6 em wide in practice.
const (
	charWidth  = 6.7 // of 11 px, rounded up
	rowHeight  = 16.0
	padding    = 8.0
	portGap    = 18.0 // between the in ports and the out ports of a node
	columnGap  = 64.0
	nodeGap    = 22.0
	laneGap    = 9.0 // between wires that run backward
	margin     = 20.0
	titleSpace = 28.0
)

// box is a node with its place.
type box struct {
	node       *node
	x, y, w, h float64
	header     int // lines above the ports
	inner      *scope
}

// scope is a set of boxes side by side and the wires between them, in coordinates of its own.
type scope struct {
	boxes         []*box
	wires         []*wire
	lefts, rights []float64 // ends of the columns
	w, h          float64
}

// wire is an edge with its way.
type wire struct {
	edge
	a, b *box
	via  []*slot // in the columns that it passes
	lane int     // of a wire that runs backward, from 0
}

// slot is a place in a column: of a box, or of a wire that passes.
type slot struct {
	box       *box
	column    int
	order     float64
	h, y      float64 // y is of the top
	neighbour []*slot
}

func (s *slot) centre() float64 { return s.y + s.h/2 }

// layOut arranges nodes from left to right. The error is about the library that finds the columns.
func layOut(nodes []*node) (*scope, error) {
	s := &scope{}
	at := map[*node]*box{}
	for _, n := range nodes {
		b := &box{node: n}
		if n.open() {
			inner, err := layOut(n.parts)
			if err != nil {
				return nil, err
			}
			b.inner = inner
		}
		at[n] = b
		s.boxes = append(s.boxes, b)
	}
	edges := connect(nodes)
	markBackward(edges)
	wired := map[*node]map[int]bool{}
	for _, e := range edges {
		s.wires = append(s.wires, &wire{edge: e, a: at[e.from], b: at[e.to]})
		if wired[e.to] == nil {
			wired[e.to] = map[int]bool{}
		}
		wired[e.to][e.inPort] = true
	}
	for _, b := range s.boxes {
		b.measure(wired[b.node])
	}
	columns, err := s.columns()
	if err != nil {
		return nil, err
	}
	s.place(columns)
	return s, nil
}

// markBackward decides which edges run against the direction of the drawing: those read on the next tick,
// and those that would close a circle.
func markBackward(edges []edge) {
	next := map[*node][]*edge{}
	var starts []*node
	for i := range edges {
		e := &edges[i]
		if e.backward = e.looped || e.from == e.to; !e.backward {
			if next[e.from] == nil {
				starts = append(starts, e.from)
			}
			next[e.from] = append(next[e.from], e)
		}
	}
	const open, done = 1, 2
	state := map[*node]int{}
	var visit func(n *node)
	visit = func(n *node) {
		state[n] = open
		for _, e := range next[n] {
			switch state[e.to] {
			case open:
				e.backward = true
			case 0:
				visit(e.to)
			}
		}
		state[n] = done
	}
	for _, n := range starts {
		if state[n] == 0 {
			visit(n)
		}
	}
}

// inText is what a box says of an in port: also the signal, when no wire shows where it comes from.
func inText(p Port, wired bool) string {
	if p.Signal != "" && !wired {
		return p.Name + ": " + p.Signal
	}
	return p.text()
}

// outText is what a box says of an out port: the name of the signal is what people know.
func outText(p Port) string {
	switch {
	case p.Signal == "":
		return p.Name
	case p.Name == "" || p.Name == "output" || p.Name == "signal":
		return p.Signal
	}
	return p.Name + ": " + p.Signal
}

func textWidth(s string) float64 { return float64(cells(plain(s))) * charWidth }

// cells counts characters, those of East Asian scripts and emoji twice.
func cells(s string) int {
	n := utf8.RuneCountInString(s)
	for _, r := range s {
		if r >= 0x1100 && (r <= 0x115F || r >= 0x2E80 && r <= 0xA4CF || r >= 0xAC00 && r <= 0xD7A3 || r >= 0xF900 && r <= 0xFAFF ||
			r >= 0xFE30 && r <= 0xFE6F || r >= 0xFF00 && r <= 0xFF60 || r >= 0x1F300 && r <= 0x1FAFF || r >= 0x20000) {
			n++
		}
	}
	return n
}

// measure sizes a box. wired are the in ports that wires lead to.
func (b *box) measure(wired map[int]bool) {
	n := b.node
	title, description, status := n.lines()
	b.header = 1
	b.w = textWidth(title) * 1.1 // bold
	for _, line := range []string{description, status} {
		if line != "" {
			b.header++
			b.w = max(b.w, textWidth(line))
		}
	}
	rows := max(len(n.In), len(n.Out))
	for i := range rows {
		w := 0.0
		if i < len(n.In) {
			w = textWidth(inText(n.In[i], wired[i]))
		}
		if i < len(n.Out) {
			w += portGap + textWidth(outText(n.Out[i]))
		}
		b.w = max(b.w, w)
	}
	b.w += 2 * padding
	b.h = 2*padding + float64(b.header+rows)*rowHeight
	if b.inner != nil {
		b.w = max(b.w, b.inner.w+2*padding)
		b.h += b.inner.h + padding
	}
}

// portY is the height of a port in its box.
func (b *box) portY(port int) float64 {
	return b.y + padding + (float64(b.header+port)+0.5)*rowHeight
}

// layering is one layout at a time: the library keeps a global.
var layering sync.Mutex

// manyNodes is when the thorough way to find columns takes too long: it is cubic.
const manyNodes = 40

// order asks the library for the column and the order within it of every box that a forward wire touches.
func (s *scope) order() (places map[int][2]float64, err error) {
	index := map[*box]int{}
	for i, b := range s.boxes {
		index[b] = i
	}
	var source autograph.EdgeSlice
	seen := map[[2]int]bool{}
	for _, w := range s.wires {
		pair := [2]int{index[w.a], index[w.b]}
		if !w.backward && !seen[pair] { // the library does not take two edges between the same nodes
			seen[pair] = true
			source = append(source, []string{strconv.Itoa(pair[0]), strconv.Itoa(pair[1])})
		}
	}
	places = map[int][2]float64{}
	if len(source) == 0 {
		return places, nil
	}
	layering.Lock()
	defer layering.Unlock()
	defer func() {
		if p := recover(); p != nil { // it panics on what it does not expect
			err = fmt.Errorf("arrange the drawing: %v; use the format dot or mermaid", p)
		}
	}()
	layers := autog.LayeringNetworkSimplex
	if len(s.boxes) > manyNodes {
		layers = autog.LayeringLongestPath
	}
	laid := autog.Layout(source, autog.WithCycleBreaking(autog.CycleBreakingDepthFirst), autog.WithLayering(layers),
		autog.WithPositioning(autog.PositioningVAlign), autog.WithEdgeRouting(autog.EdgeRoutingNoop),
		autog.WithNodeFixedSize(1, 1), autog.WithLayerSpacing(1), autog.WithNodeSpacing(1))
	for _, n := range laid.Nodes {
		i, err := strconv.Atoi(n.ID)
		if err != nil {
			return nil, fmt.Errorf("arrange the drawing: %w", err)
		}
		places[i] = [2]float64{n.X, n.Y}
	}
	return places, nil
}

// columns puts every box into a slot of a column, and long wires into slots of those between.
func (s *scope) columns() ([][]*slot, error) {
	places, err := s.order()
	if err != nil {
		return nil, err
	}
	var ranks []float64
	last := 0.0
	for _, p := range places {
		ranks = append(ranks, p[1])
		last = max(last, p[0])
	}
	slices.Sort(ranks)
	ranks = slices.Compact(ranks)
	columns := make([][]*slot, max(1, len(ranks)))
	at := map[*box]*slot{}
	for i, b := range s.boxes {
		p, connected := places[i]
		sl := &slot{box: b, h: b.h, order: p[0]}
		if connected {
			sl.column, _ = slices.BinarySearch(ranks, p[1])
		} else { // below the others
			last++
			sl.order = last
		}
		at[b] = sl
		columns[sl.column] = append(columns[sl.column], sl)
	}
	lane := 0
	for _, w := range s.wires {
		a, b := at[w.a], at[w.b]
		if w.backward || a.column >= b.column {
			w.backward = true
			w.lane = lane
			lane++
			continue
		}
		before := a
		for c := a.column + 1; c < b.column; c++ {
			part := float64(c-a.column) / float64(b.column-a.column)
			sl := &slot{column: c, order: a.order + part*(b.order-a.order), h: 2}
			columns[c] = append(columns[c], sl)
			w.via = append(w.via, sl)
			before.neighbour, sl.neighbour = append(before.neighbour, sl), append(sl.neighbour, before)
			before = sl
		}
		before.neighbour, b.neighbour = append(before.neighbour, b), append(b.neighbour, before)
	}
	for _, c := range columns {
		slices.SortStableFunc(c, func(a, b *slot) int { return cmp.Compare(a.order, b.order) })
	}
	return columns, nil
}

// sweeps is how often the heights are adapted to the neighbours; more changes nothing that one sees.
const sweeps = 12

// place gives boxes their coordinates.
func (s *scope) place(columns [][]*slot) {
	for _, c := range columns {
		y := 0.0
		for _, sl := range c {
			sl.y = y
			y += sl.h + nodeGap
		}
	}
	for i := range sweeps {
		for j := range columns {
			if i%2 == 1 {
				j = len(columns) - 1 - j
			}
			settle(columns[j])
		}
	}
	top, bottom := math.Inf(1), 0.0
	for _, c := range columns {
		for _, sl := range c {
			top = min(top, sl.y)
		}
	}
	x := s.leftRoom()
	for _, c := range columns {
		width := 0.0
		for _, sl := range c {
			if sl.box != nil {
				width = max(width, sl.box.w)
			}
		}
		for _, sl := range c {
			if sl.y -= top; sl.box != nil {
				sl.box.x, sl.box.y = x, sl.y
				bottom = max(bottom, sl.y+sl.h)
			}
		}
		s.lefts, s.rights = append(s.lefts, x), append(s.rights, x+width)
		x += width + columnGap
	}
	lanes := 0
	for _, w := range s.wires {
		if w.backward {
			lanes = max(lanes, w.lane+1)
		}
	}
	s.w, s.h = x-columnGap+s.leftRoom(), bottom
	if lanes > 0 {
		s.h += float64(lanes+1) * laneGap
	}
}

// leftRoom is the room beside the outer columns, for wires that run backward.
func (s *scope) leftRoom() float64 {
	if slices.ContainsFunc(s.wires, func(w *wire) bool { return w.backward }) {
		return columnGap / 2
	}
	return 0
}

// settle moves the slots of one column towards the mean of their neighbours, in their order and without
// overlaps, with the least squares of moves: the pool adjacent violators algorithm.
func settle(column []*slot) {
	type block struct{ sum, weight float64 } // wanted tops relative to the place in the column
	var blocks []block
	var counts []int
	offset := 0.0
	offsets := make([]float64, len(column))
	for i, sl := range column {
		offsets[i] = offset
		offset += sl.h + nodeGap
		want := sl.y
		if len(sl.neighbour) > 0 {
			mean := 0.0
			for _, n := range sl.neighbour {
				mean += n.centre()
			}
			want = mean/float64(len(sl.neighbour)) - sl.h/2
		}
		b, n := block{sum: want - offsets[i], weight: 1}, 1
		for len(blocks) > 0 && blocks[len(blocks)-1].sum/blocks[len(blocks)-1].weight >= b.sum/b.weight {
			last := len(blocks) - 1
			b.sum, b.weight, n = b.sum+blocks[last].sum, b.weight+blocks[last].weight, n+counts[last]
			blocks, counts = blocks[:last], counts[:last]
		}
		blocks, counts = append(blocks, b), append(counts, n)
	}
	i := 0
	for j, b := range blocks {
		for range counts[j] {
			column[i].y = b.sum/b.weight + offsets[i]
			i++
		}
	}
}
