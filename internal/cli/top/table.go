// SPDX-License-Identifier: Apache-2.0

package top

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"

	"github.com/sluice-project/sluice/internal/cli/screen"
)

// gap separates columns.
const gap = "  "

// Cells that a bar may take, without the text beside it.
const (
	shortestBar = 6
	longestBar  = 24
)

// column describes one column of a table.
type column struct {
	head string
	// drop is the order in which columns disappear when the terminal is too narrow, largest first; 0
	// columns stay.
	drop int
	// least is the width below which a text column is dropped rather than shortened, and the width that
	// a number column keeps so that it does not move with every refresh.
	least int
	kind  columnKind
}

type columnKind uint8

const (
	textColumn   columnKind = iota // left, may be shortened
	numberColumn                   // right, sorts by value, largest first
	barColumn                      // a bar and a text, sorts by value, largest first
)

// cell is one field of a row.
type cell struct {
	text  string
	value float64 // sorts numbers; fills bars from 0 to 1; NaN: unknown
	tone  screen.Tone
}

// table is one pane's content.
type table struct {
	title   string
	empty   string // shown instead of rows
	columns []column
	rows    [][]cell
	served  [][]cell // rows in the order of the server, once order was called
	sorts   []int    // columns one can sort by, in the order of the s key; the order of the server comes first
}

// order puts the rows in the order of the server, choice 0, or of the column sorts[choice-1]. Equal and
// unknown values keep the order of the server, the unknown at the end.
func (t *table) order(choice int) {
	if t.served == nil {
		t.served = t.rows
	}
	t.rows = slices.Clone(t.served)
	if choice < 1 || choice > len(t.sorts) {
		return
	}
	i := t.sorts[choice-1]
	slices.SortStableFunc(t.rows, func(a, b []cell) int {
		if t.columns[i].kind == textColumn {
			return cmp.Compare(a[i].text, b[i].text)
		}
		return cmp.Compare(rank(b[i].value), rank(a[i].value))
	})
}

func rank(v float64) float64 {
	if math.IsNaN(v) {
		return math.Inf(-1)
	}
	return v
}

// placed is a column with the width it got.
type placed struct {
	column
	index, width int
	text         int // cells of the widest text
	headWidth    int // cells of the heading, with its sort mark
}

// layout chooses columns and widths for a line of width cells. When even the columns that never drop do
// not fit, the line is longer than asked and the caller cuts it.
func (t table) layout(width int) []placed {
	cols := make([]placed, len(t.columns))
	for i, c := range t.columns {
		cols[i] = t.place(i, c)
	}
	for {
		spare := width - len(gap)*(len(cols)-1)
		for _, c := range cols {
			spare -= c.smallest()
		}
		if spare >= 0 {
			grow(cols, spare)
			return cols
		}
		last := slices.MaxFunc(cols, func(a, b placed) int { return cmp.Compare(a.drop, b.drop) })
		if last.drop == 0 {
			grow(cols, 0)
			return cols
		}
		cols = slices.DeleteFunc(cols, func(c placed) bool { return c.index == last.index })
	}
}

// place gives column i the width at which nothing of it is cut.
func (t table) place(i int, c column) placed {
	p := placed{column: c, index: i, headWidth: lipgloss.Width(c.head)}
	if slices.Contains(t.sorts, i) {
		p.headWidth++ // for the mark
	}
	for _, r := range t.rows {
		p.text = max(p.text, lipgloss.Width(r[i].text))
	}
	p.width = max(p.headWidth, c.least, p.text)
	if c.kind == barColumn {
		p.width = max(p.width, longestBar+1+p.text)
	}
	return p
}

func (c placed) smallest() int {
	switch c.kind {
	case textColumn:
		return min(c.width, c.least)
	case barColumn:
		return max(shortestBar+1+c.text, c.headWidth)
	}
	return c.width
}

// grow gives every column its smallest width and shares the spare cells: first among texts, as equally
// as their need allows, then among bars.
func grow(cols []placed, spare int) {
	for _, kind := range []columnKind{textColumn, barColumn} {
		needs := make([]int, len(cols))
		for i, c := range cols {
			if c.kind == kind {
				needs[i] = c.width - c.smallest()
			}
		}
		for i, n := range shares(spare, needs) {
			if cols[i].kind == kind {
				cols[i].width = cols[i].smallest() + n
				spare -= n
			}
		}
	}
}

// shares divides total by max-min fairness: nobody gets more than its need, and what one does not need
// goes to the others in equal parts, the odd rest to those who come first.
func shares(total int, needs []int) []int {
	got := make([]int, len(needs))
	for total > 0 {
		hungry := 0
		for i, n := range needs {
			if got[i] < n {
				hungry++
			}
		}
		if hungry == 0 {
			break
		}
		each := max(1, total/hungry)
		for i, n := range needs {
			give := max(0, min(each, n-got[i], total))
			got[i] += give
			total -= give
		}
	}
	return got
}

// headings is the line above the rows; the column by which they are sorted carries a mark.
func (t table) headings(cols []placed, choice int, paint painter) string {
	parts := make([]string, len(cols))
	for i, c := range cols {
		head := c.head
		if choice > 0 && choice <= len(t.sorts) && t.sorts[choice-1] == c.index {
			head += "▾"
		}
		head = screen.Shorten(head, c.width)
		parts[i] = paint(screen.Head, screen.Pad(head, c.width, c.kind == numberColumn))
	}
	return strings.TrimRight(strings.Join(parts, gap), " ")
}

// line is one row.
func line(cols []placed, row []cell, paint painter) string {
	parts := make([]string, len(cols))
	for i, c := range cols {
		f := row[c.index]
		if c.kind != barColumn {
			parts[i] = paint(f.tone, screen.Pad(screen.Shorten(f.text, c.width), c.width, c.kind == numberColumn))
			continue
		}
		parts[i] = gauge(f, c, paint)
	}
	return strings.TrimRight(strings.Join(parts, gap), " ")
}

// gauge is a bar with its text; a text alone when the value is unknown, or when no bar fits.
func gauge(f cell, c placed, paint painter) string {
	if math.IsNaN(f.value) {
		return paint(screen.Dim, screen.Pad(f.text, c.width, false))
	}
	filled, rest := bar(f.value, c.width-1-c.text)
	return paint(f.tone, filled) + paint(screen.Dim, rest) + " " + paint(screen.Plain, screen.Pad(f.text, c.text, true))
}

// painter colours a text by its tone. It must not change its width.
type painter func(screen.Tone, string) string

func noPaint(_ screen.Tone, s string) string { return s }
