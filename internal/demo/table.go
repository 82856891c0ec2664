// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"strconv"
	"strings"
)

// row is one line of the table of results: a label and one cell per phase and column.
type row struct {
	label string
	cells []string
}

// rows turns results into the table that terminal and report show. Seconds are of the story.
func rows(res *Results) []row {
	var out []row
	each := func(label string, cell func(p *Phase) string) {
		r := row{label: label}
		for i := range res.Phases {
			r.cells = append(r.cells, cell(&res.Phases[i]))
		}
		out = append(out, r)
	}
	for t := range tierCount(res) {
		name := res.Phases[0].Tiers[t].Name
		for _, m := range measures {
			each(name+", "+m.label, func(p *Phase) string { return m.of(&p.Tiers[t]).String() })
		}
		each(name+", completed / lost", func(p *Phase) string {
			return fmt.Sprintf("%d / %d", p.Tiers[t].Completed, p.Tiers[t].Lost)
		})
	}
	each("all, completed of planned", func(p *Phase) string { return fmt.Sprintf("%d of %d", p.Completed, p.Planned) })
	each("all, lost (denied + failed)", func(p *Phase) string { return fmt.Sprintf("%d (%d + %d)", p.Lost(), p.Denied, p.Failed) })
	if hasQuota(res) {
		each("answers 429 (requests + tokens)", func(p *Phase) string {
			return fmt.Sprintf("%d (%d + %d)", p.Refused(), p.Refusals["requests"], p.Refusals["tokens"])
		})
	}
	each("peak in flight", func(p *Phase) string { return strconv.Itoa(p.PeakInFlight) })
	each("all done after", func(p *Phase) string { return seconds(p.DurationSeconds) })
	return out
}

// measures are the distributions a table shows per tier.
var measures = []struct {
	label string
	of    func(*Tier) Summary
}{
	{"wait", func(t *Tier) Summary { return t.WaitSeconds }},
	{"of it in Sluice's queue", func(t *Tier) Summary { return t.QueueSeconds }},
	{"latency", func(t *Tier) Summary { return t.LatencySeconds }},
}

func tierCount(res *Results) int {
	if len(res.Phases) == 0 {
		return 0
	}
	return len(res.Phases[0].Tiers)
}

func hasQuota(res *Results) bool {
	for _, p := range res.Phases {
		if p.Answers != nil {
			return true
		}
	}
	return false
}

// String shows median, 95th percentile and maximum.
func (s Summary) String() string {
	return seconds(s.P50) + " / " + seconds(s.P95) + " / " + seconds(s.Max)
}

// seconds shows story time with three significant digits or so.
func seconds(s float64) string {
	switch {
	case s >= 100:
		return fmt.Sprintf("%.0f s", s)
	case s >= 10:
		return fmt.Sprintf("%.1f s", s)
	default:
		return fmt.Sprintf("%.2f s", s)
	}
}

// table prints the results for a terminal.
func table(res *Results) string {
	head := row{label: "seconds of the story, p50 / p95 / max"}
	for _, p := range res.Phases {
		head.cells = append(head.cells, phaseNames[p.Name])
	}
	return aligned(append([]row{head}, rows(res)...))
}

// aligned prints rows in columns.
func aligned(all []row) string {
	var widths []int
	for _, r := range all {
		for i, c := range append([]string{r.label}, r.cells...) {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len(c))
		}
	}
	var b strings.Builder
	for _, r := range all {
		fmt.Fprintf(&b, "%-*s", widths[0], r.label)
		for i, c := range r.cells {
			fmt.Fprintf(&b, "   %*s", widths[i+1], c)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// shellQuote makes a word safe to paste into a POSIX shell.
func shellQuote(s string) string {
	const safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@%"
	if s != "" && strings.Trim(s, safe) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
