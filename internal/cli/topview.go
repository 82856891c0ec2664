// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"

	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"
)

// topState is what the screen shows. Rendering it is a function of the state and the size.
type topState struct {
	server string
	now    *observev1.Overview // the latest reading; nil: none yet
	before *observev1.Overview // the one before, for rates
	lost   error               // why there is no connection; nil: there is one
	paused bool
	page   int // of topPages
	offset int // rows scrolled
}

// add takes a new reading.
func (s *topState) add(o *observev1.Overview) {
	if s.now != nil && counters(o) < counters(s.now) {
		s.now = nil // the server has started again: rates begin anew
	}
	s.before, s.now, s.lost = s.now, o, nil
}

func counters(o *observev1.Overview) (sum uint64) {
	for _, p := range o.GetControlPoints() {
		sum += p.GetAdmitted() + p.GetDenied() + p.GetUnmatched()
	}
	return sum
}

// seconds between the two readings; 0 with only one.
func (s *topState) seconds() float64 {
	if s.before == nil || s.now == nil {
		return 0
	}
	return s.now.GetTime().AsTime().Sub(s.before.GetTime().AsTime()).Seconds()
}

func (s *topState) rate(now, before uint64) float64 {
	if t := s.seconds(); t > 0 && now >= before {
		return float64(now-before) / t
	}
	return 0
}

// section is one table of the screen.
type section struct {
	title string
	heads []column
	rows  [][]string
	hot   []bool // rows to point out
}

type column struct {
	name  string
	left  bool // text, else a figure
	grows bool
}

func text(name string) column   { return column{name: name, left: true, grows: true} }
func word(name string) column   { return column{name: name, left: true} }
func figure(name string) column { return column{name: name} }

var topPages = []string{"Overview", "Control points", "Limiters", "Queues", "Accounts"}

func (s *topState) sections() []section {
	return []section{s.points(), s.limiters(), s.queues(), s.accounts()}
}

func (s *topState) points() section {
	out := section{title: topPages[1], heads: []column{
		text("CONTROL POINT"), figure("ADMIT/s"), figure("DENY/s"), figure("NO POLICY/s"), figure("WAITING"), figure("ADMIT %"),
	}}
	before := map[string]*observev1.ControlPoint{}
	for _, p := range s.before.GetControlPoints() {
		before[p.GetName()] = p
	}
	type rated struct {
		row  []string
		busy float64
		hot  bool
	}
	var rows []rated
	for _, p := range s.now.GetControlPoints() {
		b := before[p.GetName()]
		admit := s.rate(p.GetAdmitted(), b.GetAdmitted())
		deny := s.rate(p.GetDenied(), b.GetDenied())
		free := s.rate(p.GetUnmatched(), b.GetUnmatched())
		share := "-"
		if all := admit + deny + free; all > 0 {
			share = number((admit + free) / all * 100)
		}
		rows = append(rows, rated{[]string{
			p.GetName(), number(admit), number(deny), number(free), number(float64(p.GetWaiting())), share,
		}, admit + deny + free, deny > 0})
	}
	slices.SortStableFunc(rows, func(a, b rated) int { return cmp.Compare(b.busy, a.busy) })
	for _, r := range rows {
		out.rows, out.hot = append(out.rows, r.row), append(out.hot, r.hot)
	}
	return out
}

func limiterKey(policy, component string) string { return policy + "\x00" + component }

func (s *topState) limiters() section {
	out := section{title: topPages[2], heads: []column{
		text("LIMITER"), word("KIND"), figure("ADMIT/s"), figure("DENY/s"), figure("IN FLIGHT"), figure("CAPACITY"), figure("FILL/s"), figure("KEYS"),
	}}
	before := map[string]*observev1.Limiter{}
	for _, l := range s.before.GetLimiters() {
		before[limiterKey(l.GetPolicy(), l.GetComponent())] = l
	}
	for _, l := range s.now.GetLimiters() {
		b := before[limiterKey(l.GetPolicy(), l.GetComponent())]
		deny := s.rate(l.GetDenied(), b.GetDenied())
		flight, fill := "-", "-"
		if l.GetFillPerSecond() > 0 {
			fill = number(l.GetFillPerSecond())
		} else {
			flight = number(l.GetInFlight())
		}
		out.rows = append(out.rows, []string{
			l.GetPolicy() + " " + l.GetComponent(), l.GetKind(), number(s.rate(l.GetAdmitted(), b.GetAdmitted())), number(deny),
			flight, number(l.GetCapacity()), fill, number(float64(l.GetAccounts())),
		})
		out.hot = append(out.hot, deny > 0)
	}
	return out
}

func (s *topState) queues() section {
	out := section{title: topPages[3], heads: []column{
		text("WORKLOAD"), text("LIMITER"), figure("PRIORITY"), figure("WAITING"), figure("TOKENS"), figure("ADMIT/s"), figure("DENY/s"), figure("WAIT"), figure("MAX WAIT"),
	}}
	before := map[string]*observev1.Workload{}
	for _, l := range s.before.GetLimiters() {
		for _, w := range l.GetWorkloads() {
			before[limiterKey(l.GetPolicy(), l.GetComponent())+"\x00"+w.GetName()] = w
		}
	}
	for _, l := range s.now.GetLimiters() {
		for _, w := range l.GetWorkloads() {
			b := before[limiterKey(l.GetPolicy(), l.GetComponent())+"\x00"+w.GetName()]
			wait := "-"
			if n := w.GetAdmitted() - b.GetAdmitted(); n > 0 && w.GetAdmitted() >= b.GetAdmitted() {
				wait = seconds((w.GetWaitSecondsTotal() - b.GetWaitSecondsTotal()) / float64(n))
			}
			out.rows = append(out.rows, []string{
				w.GetName(), l.GetPolicy() + " " + l.GetComponent(), number(w.GetPriority()), number(float64(w.GetWaiting())),
				number(w.GetWaitingTokens()), number(s.rate(w.GetAdmitted(), b.GetAdmitted())), number(s.rate(w.GetDenied(), b.GetDenied())),
				wait, seconds(w.GetWaitSecondsMax()),
			})
			out.hot = append(out.hot, w.GetWaiting() > 0)
		}
	}
	return out
}

// barWidth is how many characters a bar has.
const barWidth = 10

func (s *topState) accounts() section {
	out := section{title: topPages[4], heads: []column{
		text("ACCOUNT"), text("LIMITER"), word("USED"), figure("%"), figure("OF"), figure("WAITING"),
	}}
	for _, a := range s.now.GetAccounts() {
		share := 0.0
		if a.GetLimit() > 0 {
			share = min(max(a.GetUsed()/a.GetLimit(), 0), 1)
		}
		out.rows = append(out.rows, []string{
			a.GetAccount(), a.GetPolicy() + " " + a.GetComponent(), bar(share), fmt.Sprintf("%.0f", share*100),
			number(a.GetUsed()) + "/" + number(a.GetLimit()), number(float64(a.GetWaiting())),
		})
		out.hot = append(out.hot, share >= 0.9)
	}
	return out
}

// bar shows a share of 0 to 1 in eighths of a character.
func bar(share float64) string {
	eighths := int(share*barWidth*8 + 0.5)
	out := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		out += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return out + strings.Repeat("·", barWidth-len([]rune(out)))
}

var (
	styleTitle  = lipgloss.NewStyle().Bold(true)
	styleHead   = lipgloss.NewStyle().Faint(true)
	styleHot    = lipgloss.NewStyle().Foreground(lipgloss.Color("3")) // yellow, in the palette of the terminal
	styleLost   = lipgloss.NewStyle().Foreground(lipgloss.Color("1")).Bold(true)
	styleActive = lipgloss.NewStyle().Reverse(true)
)

// render draws the screen.
func (s *topState) render(width, height int) string {
	if width < 20 || height < 6 {
		return "sluice top needs a larger window"
	}
	lines := []string{s.status(width), s.tabs(width), ""}
	room := height - len(lines)
	switch {
	case s.now == nil && s.lost == nil:
		lines = append(lines, "waiting for the server…")
	case s.now == nil:
	case s.page == 0:
		s.offset = 0
		lines = append(lines, overviewLines(s.sections(), width, room)...)
	default:
		sec := s.sections()[s.page-1]
		s.offset = min(max(s.offset, 0), max(len(sec.rows)-(room-2), 0))
		lines = append(lines, sec.lines(width, room, s.offset)...)
	}
	return strings.Join(lines[:min(len(lines), height)], "\n")
}

// status is the first line: the server and its totals.
func (s *topState) status(width int) string {
	left := "sluice " + strings.TrimPrefix(s.server, "http://")
	if s.lost != nil {
		return styleLost.Render(fit(left+"  "+clean(s.lost.Error()), width, true))
	}
	var admitted, denied, waiting float64
	sec := s.points()
	before := map[string]*observev1.ControlPoint{}
	for _, p := range s.before.GetControlPoints() {
		before[p.GetName()] = p
	}
	for _, p := range s.now.GetControlPoints() {
		b := before[p.GetName()]
		admitted += s.rate(p.GetAdmitted()+p.GetUnmatched(), b.GetAdmitted()+b.GetUnmatched())
		denied += s.rate(p.GetDenied(), b.GetDenied())
		waiting += float64(p.GetWaiting())
	}
	text := fmt.Sprintf("%s  %s  admit %s/s  deny %s/s  waiting %s  %s", left, s.now.GetTime().AsTime().Local().Format("15:04:05"),
		number(admitted), number(denied), number(waiting), plural(len(sec.rows), "control point"))
	if s.paused {
		text += "  PAUSED"
	}
	return styleTitle.Render(fit(text, width, true))
}

func (s *topState) tabs(width int) string {
	var out []string
	used := 0
	for i, name := range topPages {
		label := " " + name + " "
		if used += lipgloss.Width(label); used > width {
			break
		}
		if i == s.page {
			label = styleActive.Render(label)
		}
		out = append(out, label)
	}
	line := strings.Join(out, "")
	if help := "tab ↑↓ p q"; used+2+lipgloss.Width(help) <= width {
		line += styleHead.Render(fit(help, width-used, false))
	}
	return line
}

// overviewLines gives every section its part of the room: what short ones leave goes to the others.
func overviewLines(sections []section, width, room int) []string {
	const frame = 3 // title, heads, empty line
	left := room - frame*len(sections) + 1
	grant := make([]int, len(sections))
	for given := true; given && left > 0; {
		given = false
		for i, sec := range sections {
			if left > 0 && grant[i] < max(len(sec.rows), 1) {
				grant[i]++
				left--
				given = true
			}
		}
	}
	var lines []string
	for i, sec := range sections {
		if grant[i] == 0 {
			continue // no room: it has a page of its own
		}
		lines = append(lines, sec.lines(width, grant[i]+2, 0)...)
		lines = append(lines, "")
	}
	return lines
}

// lines draws a section in so many lines, the rows before offset left out.
func (s section) lines(width, room, offset int) []string {
	shown := s.rows[min(offset, len(s.rows)):]
	shown = shown[:min(len(shown), max(room-2, 0))]
	title := s.title
	if len(shown) < len(s.rows) {
		title += fmt.Sprintf(" (%d–%d of %d)", offset+1, offset+len(shown), len(s.rows))
	}
	if len(s.rows) == 0 {
		return []string{styleTitle.Render(fit(title, width, true)), styleHead.Render("none")}
	}
	widths := s.widths(shown, width)
	heads := make([]string, len(s.heads))
	for i, h := range s.heads {
		heads[i] = h.name
	}
	out := []string{styleTitle.Render(fit(title, width, true)), styleHead.Render(s.line(heads, widths))}
	for i, row := range shown {
		line := s.line(row, widths)
		if s.hot[offset+i] {
			line = styleHot.Render(line)
		}
		out = append(out, line)
	}
	return out
}

// widths shares the width: figures get what they need, text what is left. A column that is 0 wide is
// left out.
func (s section) widths(rows [][]string, width int) []int {
	need := make([]int, len(s.heads))
	for i, h := range s.heads {
		need[i] = lipgloss.Width(h.name)
		for _, r := range rows {
			need[i] = max(need[i], lipgloss.Width(clean(r[i])))
		}
	}
	const gap, least = 2, 8
	total := func() (sum int) {
		for _, n := range need {
			if n > 0 {
				sum += n + gap
			}
		}
		return sum - gap
	}
	for total() > width { // first narrow the widest text, then drop columns from the right
		widest := -1
		for i, h := range s.heads {
			if h.grows && need[i] > least && (widest < 0 || need[i] > need[widest]) {
				widest = i
			}
		}
		if widest >= 0 {
			need[widest]--
			continue
		}
		last := len(need) - 1
		for last > 0 && need[last] == 0 {
			last--
		}
		if last == 0 {
			need[0] = width
			break
		}
		need[last] = 0
	}
	return need
}

func (s section) line(cells []string, widths []int) string {
	var out []string
	for i, c := range cells {
		if widths[i] > 0 {
			out = append(out, fit(clean(c), widths[i], s.heads[i].left))
		}
	}
	return strings.TrimRight(strings.Join(out, "  "), " ")
}

// fit makes text exactly so many cells wide.
func fit(text string, width int, left bool) string {
	if lipgloss.Width(text) > width {
		var out strings.Builder
		used := 0
		for _, r := range text {
			w := lipgloss.Width(string(r))
			if used+w > width-1 {
				break
			}
			used += w
			out.WriteRune(r)
		}
		text = out.String() + "…"
	}
	pad := strings.Repeat(" ", max(width-lipgloss.Width(text), 0))
	if left {
		return text + pad
	}
	return pad + text
}

// plain draws everything without a terminal: all rows, no styles, wide.
func (s *topState) plain() string {
	const wide = 160
	var out strings.Builder
	for i, sec := range s.sections() {
		if i > 0 {
			out.WriteByte('\n')
		}
		out.WriteString(sec.title + "\n")
		if len(sec.rows) == 0 {
			out.WriteString("none\n")
			continue
		}
		widths := sec.widths(sec.rows, wide)
		heads := make([]string, len(sec.heads))
		for j, h := range sec.heads {
			heads[j] = h.name
		}
		out.WriteString(sec.line(heads, widths) + "\n")
		for _, row := range sec.rows {
			out.WriteString(sec.line(row, widths) + "\n")
		}
	}
	return out.String()
}
