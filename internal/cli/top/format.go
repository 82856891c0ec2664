// SPDX-License-Identifier: Apache-2.0

package top

import (
	"fmt"
	"math"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/sluice-project/sluice/internal/cli/screen"
)

// formatRate prints events per second or another quantity that is rarely whole: 0, 0.4, 12.0, 834, 12.3k.
func formatRate(r reading) string {
	if !r.known {
		return screen.Unknown
	}
	if r.value > 0 && r.value < 0.05 {
		return "<0.1"
	}
	if r.value >= 0.05 && r.value < 99.95 {
		return fmt.Sprintf("%.1f", r.value)
	}
	return screen.Number(r.value)
}

// formatSeconds prints a wait: 0, 0.4ms, 12ms, 1.24s, 3m05s, 2h00m.
func formatSeconds(r reading) string {
	switch v := r.value; {
	case !r.known || math.IsNaN(v) || v < 0:
		return screen.Unknown
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
		return screen.Unknown
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
