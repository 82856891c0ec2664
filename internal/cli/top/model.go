// SPDX-License-Identifier: Apache-2.0

package top

import (
	"time"

	tea "charm.land/bubbletea/v2"

	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"

	"github.com/sluice-project/sluice/internal/cli/screen"
)

// model is the live view: Update takes what happened, View draws it. Both are called by one goroutine.
type model struct {
	server   string
	interval time.Duration
	zone     *time.Location
	theme    screen.Theme

	width, height int

	last    *observev1.Overview // newest, also while paused, so that rates never span the pause
	newest  frame               // made from last
	shown   bool                // an overview came
	tables  [panes]table        // of the frame on screen: newest, or the one at the pause
	frame   frame
	away    error // why the data is old; nil: it is not
	paused  bool
	help    bool
	focus   pane
	sorts   [panes]int // choice per table, see table.sorts
	offsets [panes]int // first visible row
}

func newModel(server string, interval time.Duration, zone *time.Location, colour bool) model {
	return model{
		server: server, interval: interval, zone: zone, theme: screen.NewTheme(colour), width: screen.UsualWidth, height: screen.UsualHeight,
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
	case overviewMsg:
		m.newest = compare(m.last, msg.overview)
		m.last, m.away = msg.overview, nil
		if !m.paused || !m.shown {
			m.show()
		}
	case awayMsg:
		m.away = msg.err
	case tea.KeyPressMsg:
		return m.press(msg.String())
	}
	m.clampOffsets()
	return m, nil
}

// show puts the newest frame on screen.
func (m *model) show() {
	m.shown, m.frame, m.tables = true, m.newest, tables(m.newest)
	for i := range m.tables {
		m.sort(pane(i))
	}
}

func (m *model) sort(p pane) { m.tables[p].order(m.sorts[p]) }

// press handles a key, named as in tea.Key.String.
func (m model) press(key string) (tea.Model, tea.Cmd) {
	switch key {
	case "q", "ctrl+c":
		return m, tea.Quit
	case "?":
		m.help = !m.help
	case "esc":
		m.help = false
	case "tab", "right":
		m.focus = (m.focus + 1) % panes
	case "shift+tab", "left":
		m.focus = (m.focus + panes - 1) % panes
	case "1", "2", "3", "4":
		m.focus = pane(key[0] - '1')
	case "s":
		m.sorts[m.focus] = (m.sorts[m.focus] + 1) % (len(m.tables[m.focus].sorts) + 1)
		m.sort(m.focus)
		m.offsets[m.focus] = 0
	case "p", "space":
		m.paused = !m.paused
		if !m.paused && m.last != nil {
			m.show()
		}
	default:
		m.scroll(key)
	}
	m.clampOffsets()
	return m, nil
}

// scroll moves the focused table.
func (m *model) scroll(key string) {
	offset, page := &m.offsets[m.focus], max(1, m.visible()[m.focus])
	switch key {
	case "up", "k":
		*offset--
	case "down", "j":
		*offset++
	case "pgup":
		*offset -= page
	case "pgdown":
		*offset += page
	case "home", "g":
		*offset = 0
	case "end", "G":
		*offset = len(m.tables[m.focus].rows)
	}
}

// clampOffsets keeps the last row at the bottom of its pane, also when rows went away or the terminal grew.
func (m *model) clampOffsets() {
	for i, n := range m.visible() {
		m.offsets[i] = max(0, min(m.offsets[i], len(m.tables[i].rows)-n))
	}
}

// Lines that are not rows.
const (
	chromeLines = 2 // status and keys
	tabLines    = 1 // when one pane is shown at a time
	titleLines  = 2 // title and headings of a pane
	fewestRows  = 3 // with room for less in every pane, one pane is shown at a time
)

// stacked reports whether all panes are on screen; otherwise only the focused one is.
func (m model) stacked() bool {
	return m.height >= chromeLines+int(panes)*(titleLines+fewestRows)
}

// visible is the number of rows each pane shows; 0 for those not on screen.
func (m model) visible() [panes]int {
	var rows [panes]int
	if !m.stacked() {
		rows[m.focus] = max(0, m.height-chromeLines-tabLines-1)
		return rows
	}
	needs := make([]int, panes)
	for i, t := range m.tables {
		needs[i] = max(1, len(t.rows))
	}
	copy(rows[:], shares(m.height-chromeLines-int(panes)*titleLines, needs))
	return rows
}
