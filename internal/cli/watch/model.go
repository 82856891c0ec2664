// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"fmt"
	"math"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	controlv1 "github.com/sluice-project/sluice/api/gen/sluice/control/v1"
	"github.com/sluice-project/sluice/internal/cli/screen"
)

// model is the live view: Update takes what happened, View draws it. Both are called by one goroutine.
type model struct {
	cfg   Config
	theme screen.Theme
	zone  *time.Location

	width, height int
	offset        int // first signal shown

	board   *board
	shown   *board // board, or what it was when the view was paused
	past    int    // ticks that were before we came
	circuit *controlv1.Circuit
	alerts  []*controlv1.Alert
	away    error // why the readings are old; nil: they are not
	err     error // why the view ends
}

func newModel(cfg Config, colour bool) model {
	b := &board{wanted: cfg.Signals}
	return model{
		cfg: cfg, theme: screen.NewTheme(colour), zone: time.Local, width: screen.UsualWidth, height: screen.UsualHeight, board: b, shown: b,
	}
}

// Init implements tea.Model.
func (m model) Init() tea.Cmd { return tea.RequestBackgroundColor }

// Update implements tea.Model.
func (m model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.BackgroundColorMsg:
		m.theme = m.theme.On(msg.IsDark())
	case readingsMsg:
		m.away = nil
		before := m.board.ticks
		if m.err = m.board.take(msg.readings); m.err != nil {
			return m, tea.Quit
		}
		if msg.first {
			m.past += m.board.ticks - before
		}
		if m.cfg.Ticks > 0 && m.board.ticks-m.past >= m.cfg.Ticks {
			return m, tea.Quit
		}
	case stateMsg:
		m.circuit, m.alerts = msg.circuit, msg.alerts
	case awayMsg:
		m.away = msg.err
	case tea.KeyPressMsg:
		return m.press(msg.String())
	}
	m.clamp()
	return m, nil
}

// press handles a key, named as in tea.Key.String.
func (m model) press(key string) (tea.Model, tea.Cmd) {
	page := max(1, m.room())
	switch key {
	case "q", "ctrl+c", "esc":
		return m, tea.Quit
	case "p", "space":
		if m.paused() {
			m.shown = m.board
		} else {
			m.shown = m.board.copy()
		}
	case "up", "k":
		m.offset--
	case "down", "j":
		m.offset++
	case "pgup":
		m.offset -= page
	case "pgdown":
		m.offset += page
	case "home", "g":
		m.offset = 0
	case "end", "G":
		m.offset = len(m.shown.lines)
	}
	m.clamp()
	return m, nil
}

func (m model) paused() bool { return m.shown != m.board }

// copy is the board as it is now.
func (b *board) copy() *board {
	c := *b
	c.lines = make([]line, len(b.lines))
	for i, l := range b.lines {
		c.lines[i] = l
		c.lines[i].values = append([]float64(nil), l.values...)
	}
	return &c
}

func (m *model) clamp() { m.offset = max(0, min(m.offset, len(m.shown.lines)-m.room())) }

// maxNotes bounds the lines about alerts and components.
const maxNotes = 6

// notes are the lines about what is not as it should be.
func (m model) notes() []string {
	var out []string
	for _, a := range m.alerts {
		text := fmt.Sprintf("ALERT %s: %s since %s (%s)", screen.Clean(a.GetSeverity()), screen.Clean(a.GetName()),
			a.GetStartTime().AsTime().In(m.zone).Format("15:04:05"), screen.Clean(a.GetComponent()))
		out = append(out, m.theme.Paint(screen.Bad, screen.Shorten(text, m.width)))
	}
	for _, c := range m.circuit.GetComponents() {
		if s := c.GetStatus(); s != "" && s != "running" {
			text := screen.Clean(c.GetId()) + " " + screen.Clean(c.GetKind()) + ": " + screen.Clean(s)
			out = append(out, m.theme.Paint(screen.Warn, screen.Shorten(text, m.width)))
		}
	}
	if more := len(out) - maxNotes; more > 0 {
		out = append(out[:maxNotes-1], m.theme.Paint(screen.Dim, fmt.Sprintf("and %d more", more+1)))
	}
	return out
}

// room is the number of signals that fit: besides status, headings and keys.
func (m model) room() int { return max(0, m.height-3-len(m.notes())) }

// View implements tea.Model.
func (m model) View() tea.View {
	v := tea.NewView(m.draw())
	v.AltScreen = true
	return v
}

// draw is the screen: at most height lines, none wider than width.
func (m model) draw() string {
	lines := append([]string{m.status()}, m.notes()...)
	switch {
	case len(m.shown.lines) == 0 && m.shown.ticks == 0:
		lines = append(lines, m.theme.Paint(screen.Dim, screen.Shorten("waiting for the first tick", m.width)))
	case len(m.shown.lines) == 0:
		lines = append(lines, m.theme.Paint(screen.Dim, screen.Shorten("this policy has no signals; --all also shows those inside of composites", m.width)))
	default:
		lines = append(lines, m.table()...)
	}
	body := max(0, m.height-1)
	lines = lines[:min(len(lines), body)]
	for len(lines) < body {
		lines = append(lines, "")
	}
	if m.height > 0 {
		lines = append(lines, m.keys())
	}
	return strings.Join(lines, "\n")
}

// status is the first line: which policy and tick, or why there is nothing new.
func (m model) status() string {
	if m.away != nil {
		text := fmt.Sprintf("%s: reconnecting to %s… %s", m.cfg.Policy, m.cfg.Server, screen.Clean(m.away.Error()))
		return m.theme.Paint(screen.Bad, screen.Shorten(text, m.width))
	}
	if m.shown.ticks == 0 {
		return m.theme.Paint(screen.Head, screen.Shorten(m.cfg.Policy+": connecting to "+m.cfg.Server+"…", m.width))
	}
	text := fmt.Sprintf("%s  tick %d  %s", m.cfg.Policy, m.shown.tick, m.shown.at.In(m.zone).Format("15:04:05.0"))
	if s := m.circuit.GetIntervalSeconds(); s > 0 {
		text += "  every " + time.Duration(s*float64(time.Second)).String()
	}
	if n := m.circuit.GetSkippedTicks(); n > 0 {
		text += fmt.Sprintf("  %d skipped", n)
	}
	if m.paused() {
		text += "  paused"
	}
	return m.theme.Paint(screen.Head, screen.Shorten(text, m.width))
}

// Widths of columns.
const (
	gap         = "  "
	numberWidth = 9
	nameLeast   = 12
	nameMost    = 44
	sparkLeast  = 8
)

// widths divides the screen: name, sparkline, and whether the least and the greatest value fit.
func (m model) widths() (name, spark int, both bool) {
	name = nameLeast
	for _, l := range m.shown.lines {
		name = max(name, min(lipgloss.Width(screen.Clean(l.name)), nameMost))
	}
	spark = m.width - name - numberWidth - 2*len(gap)
	if with := spark - 2*numberWidth - 2*len(gap); with >= sparkLeast {
		return name, with, true
	}
	if spark < sparkLeast { // a narrow screen: the name gives way first
		name = max(1, min(name, m.width-numberWidth-len(gap)))
		spark = 0
	}
	return name, spark, false
}

func (m model) table() []string {
	name, spark, both := m.widths()
	cells := []string{screen.Pad("SIGNAL", name, false), screen.Pad("NOW", numberWidth, true)}
	if both {
		cells = append(cells, screen.Pad("LEAST", numberWidth, true), screen.Pad("MOST", numberWidth, true))
	}
	if spark > 0 {
		cells = append(cells, screen.Shorten("LAST TICKS", spark))
	}
	out := []string{m.theme.Paint(screen.Dim, screen.Shorten(strings.Join(cells, gap), m.width))}
	for _, l := range m.shown.lines[m.offset:min(len(m.shown.lines), m.offset+m.room())] {
		out = append(out, m.row(l, name, spark, both))
	}
	return out
}

func (m model) row(l line, name, spark int, both bool) string {
	now, tone := l.now(), screen.Plain
	if math.IsNaN(now) {
		tone = screen.Warn
	}
	cells := []string{
		screen.Pad(screen.Shorten(screen.Clean(l.name), name), name, false),
		m.theme.Paint(tone, screen.Pad(screen.Shorten(value(now), numberWidth), numberWidth, true)),
	}
	if both {
		least, most := span(l.values)
		for _, v := range []float64{least, most} {
			text := value(v)
			if math.IsNaN(v) {
				text = screen.Unknown
			}
			cells = append(cells, m.theme.Paint(screen.Dim, screen.Pad(screen.Shorten(text, numberWidth), numberWidth, true)))
		}
	}
	if spark > 0 {
		cells = append(cells, m.theme.Paint(screen.Focus, strings.TrimLeft(sparkline(l.values, spark), " ")))
	}
	return strings.Join(cells, gap)
}

func (m model) keys() string {
	pause := "p pause"
	if m.paused() {
		pause = "p resume"
	}
	where := ""
	if n := len(m.shown.lines); n > m.room() {
		where = fmt.Sprintf("%d to %d of %d", m.offset+1, min(n, m.offset+m.room()), n)
	}
	return m.theme.Paint(screen.Dim, screen.Shorten(strings.TrimRight(strings.Join([]string{"q quit", "↑↓ scroll", pause, where}, gap), " "), m.width))
}
