// SPDX-License-Identifier: Apache-2.0

package script

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Table has readings: one row per tick from 0, one column per signal.
type Table struct {
	Signals []string
	Rows    [][]float64
}

// around is how many ticks before a failure are shown with it.
const around = 4

// Around prints the ticks up to a tick, and the one after it, with a mark at the tick itself.
func (t *Table) Around(tick int) string {
	return t.print(max(0, tick-around), min(len(t.Rows), tick+2), tick)
}

// String prints all ticks.
func (t *Table) String() string { return t.print(0, len(t.Rows), -1) }

func (t *Table) print(from, to, mark int) string {
	cells := [][]string{{"tick"}}
	for _, s := range t.Signals {
		cells[0] = append(cells[0], printable(s))
	}
	for tick := from; tick < to; tick++ {
		row := []string{strconv.Itoa(tick)}
		for _, v := range t.Rows[tick] {
			row = append(row, number(v))
		}
		cells = append(cells, row)
	}
	widths := make([]int, len(cells[0]))
	for _, row := range cells {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	for i, row := range cells {
		if i > 0 && from+i-1 == mark {
			b.WriteString("> ")
		} else {
			b.WriteString("  ")
		}
		for j, c := range row {
			if j > 0 {
				b.WriteString("  ")
			}
			b.WriteString(strings.Repeat(" ", widths[j]-utf8.RuneCountInString(c)) + c)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// printable keeps what is chosen by users from moving the cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '·'
	}, s)
}
