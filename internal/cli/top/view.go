// SPDX-License-Identifier: Apache-2.0

package top

import (
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"github.com/sluice-project/sluice/internal/cli/screen"
)

// View implements tea.Model.
func (m model) View() tea.View {
	v := tea.NewView(m.draw())
	v.AltScreen = true
	return v
}

// draw is the screen: exactly height lines, none wider than width.
func (m model) draw() string {
	lines := []string{m.status()}
	switch {
	case m.help:
		lines = append(lines, helpLines...)
	case !m.shown:
		lines = append(lines, "", "waiting for the first answer")
	case m.stacked():
		for p, n := range m.visible() {
			lines = append(lines, m.title(pane(p), n))
			lines = append(lines, m.rows(pane(p), n)...)
		}
	default:
		lines = append(lines, m.tabs())
		lines = append(lines, m.rows(m.focus, m.visible()[m.focus])...)
	}
	body := max(0, m.height-1)
	lines = lines[:min(len(lines), body)]
	for len(lines) < body {
		lines = append(lines, "")
	}
	if m.height > 0 {
		lines = append(lines, m.keys())
	}
	for i, l := range lines {
		if lipgloss.Width(l) > m.width {
			lines[i] = lipgloss.NewStyle().Inline(true).MaxWidth(max(1, m.width)).Render(l)
		}
	}
	return strings.Join(lines, "\n")
}

// paint colours the body: all of it is dim while the data is old.
func (m model) paint(t screen.Tone, s string) string {
	if m.away != nil && t != screen.Focus {
		t = screen.Dim
	}
	return m.theme.Paint(t, s)
}

// status is the first line: who, when, how much; or why there is nothing new.
func (m model) status() string {
	if m.away != nil {
		verb := "connecting"
		if m.shown {
			verb = "reconnecting"
		}
		s := fmt.Sprintf("%s to %s… %s", verb, m.server, screen.Clean(m.away.Error()))
		return m.theme.Paint(screen.Bad, screen.Shorten(s, m.width))
	}
	if !m.shown {
		return m.theme.Paint(screen.Head, screen.Shorten("connecting to "+m.server+"…", m.width))
	}
	left, right := screen.Shorten(totals(m.frame), m.width), stamp(m.frame.at, m.zone, "15:04:05")
	tone := screen.Dim
	if m.paused {
		right, tone = "paused", screen.Warn
	}
	if long := right + " every " + m.interval.String(); !m.paused && m.width >= fullStatus {
		right = long
	}
	room := m.width - lipgloss.Width(left) - lipgloss.Width(right) - len(gap)
	middle := ""
	if m.width >= fullStatus && room > len(gap) {
		middle = gap + screen.Shorten(m.server, room-len(gap))
	}
	if room < 0 {
		right = ""
	}
	return m.theme.Paint(screen.Head, left) + m.theme.Paint(screen.Plain, middle) +
		strings.Repeat(" ", max(0, len(gap)+room-lipgloss.Width(middle))) + m.theme.Paint(tone, right)
}

// fullStatus is the width from which the first line names the server and the interval.
const fullStatus = 72

// name is what a pane is called, with how much of it is seen.
func (m model) name(p pane, visible int) string {
	t := m.tables[p]
	first, last := m.offsets[p]+1, min(m.offsets[p]+visible, len(t.rows))
	if last-first+1 >= len(t.rows) {
		return fmt.Sprintf("%s (%d)", t.title, len(t.rows))
	}
	return fmt.Sprintf("%s (%d to %d of %d)", t.title, first, last, len(t.rows))
}

// title is the line above a pane.
func (m model) title(p pane, visible int) string {
	name, tone := " "+m.name(p, visible)+" ", screen.Dim
	if p == m.focus {
		tone = screen.Focus
	}
	rule := strings.Repeat("─", max(0, m.width-lipgloss.Width(name)-2))
	return m.paint(tone, screen.Shorten("──"+name+rule, m.width))
}

// shortTitles are the names of the panes on tabs.
var shortTitles = [panes]string{"Points", "Limiters", "Workloads", "Accounts"}

// tabs names all panes when one is shown at a time.
func (m model) tabs() string {
	parts := make([]string, panes)
	for i, name := range shortTitles {
		label, tone := fmt.Sprintf("%s %d", name, len(m.tables[i].rows)), screen.Dim
		if pane(i) == m.focus {
			label, tone = "["+label+"]", screen.Focus
		}
		parts[i] = m.paint(tone, label)
	}
	return strings.Join(parts, gap)
}

// rows are the headings and n rows of a pane.
func (m model) rows(p pane, n int) []string {
	t := m.tables[p]
	cols := t.layout(m.width)
	out := []string{t.headings(cols, m.sorts[p], m.paint)}
	if len(t.rows) == 0 {
		out = append(out, m.paint(screen.Dim, t.empty))
	}
	for _, r := range t.rows[m.offsets[p]:min(m.offsets[p]+n, len(t.rows))] {
		out = append(out, line(cols, r, m.paint))
	}
	return out[:min(len(out), n+1)]
}

// keys is the last line.
func (m model) keys() string {
	pause := "p pause"
	if m.paused {
		pause = "p resume"
	}
	keys := []string{"q quit", "tab pane", "↑↓ scroll", "s sort", pause, "? help"}
	return m.theme.Paint(screen.Dim, screen.Shorten(strings.Join(keys, gap), m.width))
}

// helpLines fit 60 x 16.
var helpLines = []string{
	"",
	"q, Ctrl-C        quit",
	"Tab, → / ←, 1-4  next, previous, or that pane",
	"↑ ↓ PgUp PgDn    scroll the pane; Home, End: its ends",
	"s                sort the pane by its next column (▾)",
	"p, Space         pause and resume",
	"",
	"ADMIT/S, DENY/S  flows per second since the last refresh",
	"UNMATCHED/S      admitted, no policy selects them",
	"IN FLIGHT        tokens, of the room of all accounts",
	"WAIT             mean of those admitted since then",
	"MAX WAIT         longest within the last minute",
	"SHARE            of the flows its scheduler admits",
}
