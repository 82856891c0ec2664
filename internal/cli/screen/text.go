// SPDX-License-Identifier: Apache-2.0

// Package screen has what the live views of the command line share: text that is fit for a terminal,
// numbers in a few cells, tones that suit light and dark terminals, and what runs a view and keeps it
// connected. All of it may be called concurrently.
package screen

import (
	"fmt"
	"math"
	"strings"
	"unicode"

	"charm.land/lipgloss/v2"
)

// Unknown stands for a number we do not have.
const Unknown = "–"

// LongestName bounds the runes of a name: names come from labels that clients choose.
const LongestName = 200

// Clean makes a text from outside fit for a terminal: one line, nothing that moves the cursor, changes
// the direction of writing or is invisible, and not too long.
func Clean(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > LongestName {
			b.WriteRune('…')
			break
		}
		if !unicode.IsPrint(r) {
			r = '·'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Shorten cuts s to width cells and marks the cut with "…". s has no escape sequences.
func Shorten(s string, width int) string {
	switch {
	case width <= 0:
		return ""
	case lipgloss.Width(s) <= width:
		return s
	case width == 1:
		return "…"
	}
	return lipgloss.NewStyle().Inline(true).MaxWidth(width-1).Render(s) + "…"
}

// Pad fills s with spaces to width cells, on the left when right is set.
func Pad(s string, width int, right bool) string {
	gap := strings.Repeat(" ", max(0, width-lipgloss.Width(s)))
	if right {
		return gap + s
	}
	return s + gap
}

// Number prints a quantity in at most six characters, exactly when it is whole and below 10,000.
func Number(v float64) string {
	switch size := math.Abs(v); {
	case math.IsNaN(v):
		return Unknown
	case math.IsInf(v, 1):
		return "∞"
	case math.IsInf(v, -1):
		return "-∞"
	case size < 99.95 && v != math.Trunc(v):
		return fmt.Sprintf("%.1f", v)
	case size < 9999.5:
		return fmt.Sprintf("%.0f", v)
	case size >= 999.5e12:
		return fmt.Sprintf("%.0e", v)
	}
	for _, unit := range []string{"k", "M", "G", "T"} {
		v /= 1000
		switch size := math.Abs(v); {
		case size < 99.95:
			return fmt.Sprintf("%.1f%s", v, unit)
		case size < 999.5:
			return fmt.Sprintf("%.0f%s", v, unit)
		}
	}
	return fmt.Sprintf("%.0e", v*1e12)
}
