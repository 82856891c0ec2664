// SPDX-License-Identifier: Apache-2.0

package top

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"

	"charm.land/lipgloss/v2"
)

// unknown stands for a number we do not have.
const unknown = "–"

// longestName bounds the runes of a name: names come from labels that clients choose.
const longestName = 200

// clean makes a text from outside fit for a terminal: one line, nothing that moves the cursor, changes
// the direction of writing or is invisible, and not too long.
func clean(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > longestName {
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

// shorten cuts s to width cells and marks the cut with "…". s has no escape sequences.
func shorten(s string, width int) string {
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

// pad fills s with spaces to width cells, on the left when right is set.
func pad(s string, width int, right bool) string {
	gap := strings.Repeat(" ", max(0, width-lipgloss.Width(s)))
	if right {
		return gap + s
	}
	return s + gap
}

// formatRate prints events per second or another quantity that is rarely whole: 0, 0.4, 12.0, 834, 12.3k.
func formatRate(r reading) string {
	if !r.known {
		return unknown
	}
	if r.value > 0 && r.value < 0.05 {
		return "<0.1"
	}
	if r.value >= 0.05 && r.value < 99.95 {
		return fmt.Sprintf("%.1f", r.value)
	}
	return formatNumber(r.value)
}

// formatNumber prints a quantity in at most six characters, exactly when it is whole and below 10,000.
func formatNumber(v float64) string {
	switch size := math.Abs(v); {
	case math.IsNaN(v):
		return unknown
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

// formatSeconds prints a wait: 0, 0.4ms, 12ms, 1.24s, 3m05s, 2h00m.
func formatSeconds(r reading) string {
	switch v := r.value; {
	case !r.known || math.IsNaN(v) || v < 0:
		return unknown
	case v == 0:
		return "0"
	case v < 0.00995:
		return fmt.Sprintf("%.1fms", v*1000)
	case v < 0.9995:
		return fmt.Sprintf("%.0fms", v*1000)
	case v < 59.995:
		return fmt.Sprintf("%.2fs", v)
	case v < 3599.5:
		d := time.Duration(math.Round(v)) * time.Second
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case v < 1e8:
		d := time.Duration(math.Round(v/60)) * time.Minute
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return "∞"
}

// formatShare prints a ratio as a percentage. It says 100% only for a whole, and 0% only for nothing.
func formatShare(r reading) string {
	switch percent := r.value * 100; {
	case !r.known || math.IsNaN(percent):
		return unknown
	case percent > 999:
		return ">999%"
	case percent > 0 && percent < 1:
		return "<1%"
	case percent > 99 && percent < 100:
		return "99%"
	default:
		return fmt.Sprintf("%.0f%%", max(0, percent))
	}
}

// bar draws a ratio from 0 to 1 in width cells: the filled part, in eighths of a cell, and the rest.
func bar(ratio float64, width int) (filled, rest string) {
	if width <= 0 {
		return "", ""
	}
	if math.IsNaN(ratio) {
		ratio = 0
	}
	eighths := int(math.Round(min(max(ratio, 0), 1) * float64(width) * 8))
	if ratio > 0 {
		eighths = max(eighths, 1) // little is not nothing
	}
	filled = strings.Repeat("█", eighths/8)
	if part := eighths % 8; part > 0 {
		filled += string([]rune("▏▎▍▌▋▊▉")[part-1])
	}
	return filled, strings.Repeat("░", max(0, width-lipgloss.Width(filled)))
}
