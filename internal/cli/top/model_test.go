// SPDX-License-Identifier: Apache-2.0

package top

import (
	"errors"
	"fmt"
	"image/color"
	"regexp"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"

	"github.com/sluice-project/sluice/internal/cli/screen"
)

// feed gives messages to a model; a string is a key, as tea.Key.String names it.
func feed(t *testing.T, m model, messages ...any) model {
	t.Helper()
	for _, msg := range messages {
		var next tea.Model
		switch msg := msg.(type) {
		case string:
			next, _ = m.press(msg)
		case *observev1.Overview:
			next, _ = m.Update(overviewMsg{msg})
		default:
			next, _ = m.Update(msg)
		}
		m = next.(model)
	}
	return m
}

func newTestModel(width, height int) model {
	m := newModel("127.0.0.1:8080", time.Second, time.UTC, true)
	m.width, m.height = width, height
	return m
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;]*m")

// plain is the screen without its colours and without the spaces at the ends of lines.
func plain(m model) string {
	lines := strings.Split(escapes.ReplaceAllString(m.draw(), ""), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	return strings.Join(lines, "\n") + "\n"
}

var errRefused = errors.New("connection refused")

func TestViews(t *testing.T) {
	few := []any{overviewAt(0), overviewAt(2)}
	many := []any{manyAt(0), manyAt(2)}
	for _, test := range []struct {
		name          string
		width, height int
		messages      [][]any
	}{
		{"view_80x24", 80, 24, [][]any{few}},
		{"view_140x40", 140, 40, [][]any{few}},
		{"view_60x16_points", 60, 16, [][]any{few}},
		{"view_60x16_limiters", 60, 16, [][]any{few, {"tab"}}},
		{"view_60x16_workloads", 60, 16, [][]any{few, {"3"}}},
		{"view_60x16_accounts", 60, 16, [][]any{few, {"shift+tab"}}},
		{"view_60x16_help", 60, 16, [][]any{few, {"?"}}},
		{"view_80x24_many", 80, 24, [][]any{many, {"s", "4", "down", "down", "down"}}},
		{"view_80x24_first", 80, 24, [][]any{{overviewAt(0)}}},
		{"view_80x24_waiting", 80, 24, nil},
		{"view_80x24_connecting", 80, 24, [][]any{{awayMsg{errRefused}}}},
		{"view_80x24_reconnecting", 80, 24, [][]any{few, {awayMsg{errRefused}}}},
		{"view_80x24_paused", 80, 24, [][]any{few, {"p", overviewAt(5)}}},
		{"view_80x24_empty", 80, 24, [][]any{{&observev1.Overview{}}}},
		{"view_100x30_odd", 100, 30, [][]any{{overviewAt(0), oddOverview()}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newTestModel(test.width, test.height)
			for _, messages := range test.messages {
				m = feed(t, m, messages...)
			}
			golden(t, test.name, plain(m))
		})
	}
}

// On every size of terminal, also one too small for anything, the screen has exactly its lines and no
// cell too much, in every state.
func TestEverySize(t *testing.T) {
	states := map[string][]any{
		"new": nil, "empty": {&observev1.Overview{}}, "many": {manyAt(0), manyAt(2)}, "odd": {oddOverview()},
		"scrolled": {manyAt(0), manyAt(2), "end", "4", "end", "s"}, "help": {manyAt(0), "?"}, "paused": {manyAt(0), "p"},
		"away": {manyAt(0), awayMsg{errors.New("a \x1b[31mred\nerror" + strings.Repeat("!", 500))}}, "never there": {awayMsg{errRefused}},
	}
	for name, messages := range states {
		m := feed(t, newTestModel(80, 24), messages...)
		for width := 0; width <= 200; width = width*5/4 + 1 {
			for _, height := range []int{0, 1, 2, 3, 4, 5, 15, 16, 21, 22, 23, 24, 30, 50} {
				m = feed(t, m, tea.WindowSizeMsg{Width: width, Height: height})
				lines := strings.Split(m.draw(), "\n")
				if len(lines) != max(1, height) {
					t.Fatalf("%s at %dx%d: %d lines", name, width, height, len(lines))
				}
				for _, l := range lines {
					if w := lipgloss.Width(l); w > max(1, width) {
						t.Fatalf("%s at %dx%d: %d cells in %q", name, width, height, w, l)
					}
				}
			}
		}
	}
}

func TestQuit(t *testing.T) {
	for _, key := range []string{"q", "ctrl+c"} {
		_, cmd := newTestModel(80, 24).press(key)
		if cmd == nil {
			t.Fatalf("%s: got no command, want quit", key)
		}
		if _, ok := cmd().(tea.QuitMsg); !ok {
			t.Errorf("%s: got %T, want tea.QuitMsg", key, cmd())
		}
	}
	m := feed(t, newTestModel(80, 24), overviewAt(0), "?")
	if _, cmd := m.press("q"); cmd == nil {
		t.Error("q does not quit from the help")
	}
}

// The names of keys come from Bubble Tea; a change there would make a key dead.
func TestKeyNames(t *testing.T) {
	for want, key := range map[string]tea.Key{
		"q": {Code: 'q', Text: "q"}, "ctrl+c": {Code: 'c', Mod: tea.ModCtrl}, "?": {Code: '?', Text: "?"},
		"tab": {Code: tea.KeyTab}, "shift+tab": {Code: tea.KeyTab, Mod: tea.ModShift}, "space": {Code: tea.KeySpace, Text: " "},
		"up": {Code: tea.KeyUp}, "down": {Code: tea.KeyDown}, "left": {Code: tea.KeyLeft}, "right": {Code: tea.KeyRight},
		"pgup": {Code: tea.KeyPgUp}, "pgdown": {Code: tea.KeyPgDown}, "home": {Code: tea.KeyHome}, "end": {Code: tea.KeyEnd},
		"esc": {Code: tea.KeyEscape},
	} {
		if got := tea.KeyPressMsg(key).String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestPanes(t *testing.T) {
	m := newTestModel(80, 24)
	for _, step := range []struct {
		key  string
		want pane
	}{
		{"tab", limitersPane},
		{"right", workloadsPane},
		{"tab", accountsPane},
		{"tab", pointsPane},
		{"left", accountsPane},
		{"shift+tab", workloadsPane},
		{"1", pointsPane},
		{"4", accountsPane},
		{"x", accountsPane},
	} {
		if m = feed(t, m, step.key); m.focus != step.want {
			t.Fatalf("after %s: got pane %d, want %d", step.key, m.focus, step.want)
		}
	}
}

func TestScroll(t *testing.T) {
	m := feed(t, newTestModel(60, 16), manyAt(0)) // 12 of 43 rows
	for _, step := range []struct {
		key  string
		want int
	}{
		{"up", 0},
		{"down", 1},
		{"j", 2},
		{"k", 1},
		{"pgdown", 13},
		{"pgdown", 25},
		{"pgdown", 31},
		{"down", 31},
		{"pgup", 19},
		{"home", 0},
		{"end", 31},
		{"g", 0},
		{"G", 31},
		{"s", 0},
	} {
		if m = feed(t, m, step.key); m.offsets[pointsPane] != step.want {
			t.Fatalf("after %s: first row is %d, want %d", step.key, m.offsets[pointsPane], step.want)
		}
	}
	m = feed(t, m, "end", overviewAt(1))
	if got := m.offsets[pointsPane]; got != 0 {
		t.Errorf("with 3 rows left, the first row is %d, want 0", got)
	}
}

func TestSort(t *testing.T) {
	m := feed(t, newTestModel(80, 24), overviewAt(0), overviewAt(1))
	first := func() string { return m.tables[m.focus].rows[0][0].text }
	for _, want := range []string{"checkout", "chat-completions", "chat-completions", "chat-completions", "checkout"} {
		if m = feed(t, m, "s"); first() != want {
			t.Fatalf("sort %d: first is %s, want %s", m.sorts[pointsPane], first(), want)
		}
	}
	if m = feed(t, m, overviewAt(2)); first() != "checkout" {
		t.Errorf("the next overview lost the order: first is %s", first())
	}
}

func TestPause(t *testing.T) {
	m := feed(t, newTestModel(80, 24), overviewAt(0), overviewAt(1), "p")
	still := m.frame.at
	m = feed(t, m, overviewAt(2), overviewAt(3))
	if !m.frame.at.Equal(still) {
		t.Errorf("paused, but the screen moved from %s to %s", still, m.frame.at)
	}
	m = feed(t, m, "p")
	if want := t0.Add(3 * time.Second); !m.frame.at.Equal(want) || m.frame.over != time.Second {
		t.Errorf("after the pause: got %s over %s, want %s over 1s", m.frame.at, m.frame.over, want)
	}
	m = feed(t, newTestModel(80, 24), "p", overviewAt(0))
	if !m.shown {
		t.Error("paused before the first overview: got nothing on screen, want that one")
	}
}

func TestAway(t *testing.T) {
	m := feed(t, newTestModel(80, 24), overviewAt(0), overviewAt(1), awayMsg{errRefused})
	if got := plain(m); !strings.Contains(got, "reconnecting to 127.0.0.1:8080… connection refused") || !strings.Contains(got, "chat-completions") {
		t.Errorf("got\n%s\nwant the reason above the last rows", got)
	}
	if m = feed(t, m, overviewAt(9)); strings.Contains(plain(m), "reconnecting") {
		t.Errorf("the server is back, but the screen says\n%s", plain(m))
	}
}

// codes are the parameters of all colour sequences on the screen.
func codes(m model) string {
	return strings.Join(regexp.MustCompile("\x1b\\[[0-9;]*m").FindAllString(m.draw(), -1), " ")
}

func TestColour(t *testing.T) {
	foreground := regexp.MustCompile(`[\[;](3[0-7]|38|9[0-7])[;m]`)
	screens := map[string]bool{}
	for _, colour := range []bool{true, false} {
		for _, background := range []color.Color{nil, color.White, color.Black} {
			m := newTestModel(140, 40)
			m.theme = screen.NewTheme(colour)
			m = feed(t, m, overviewAt(0), overviewAt(1))
			if background != nil {
				m = feed(t, m, tea.BackgroundColorMsg{Color: background})
			}
			if got := foreground.MatchString(codes(m)); got != colour {
				t.Errorf("colour %v on %v: found colour: %v", colour, background, got)
			}
			if colour {
				screens[codes(m)] = true
			}
		}
	}
	if len(screens) != 3 {
		t.Errorf("got %d different screens for unknown, light and dark backgrounds, want 3", len(screens))
	}
}

// Old data is dim: nothing but the focus and the reason keeps a colour.
func TestDimmed(t *testing.T) {
	m := feed(t, newTestModel(140, 40), overviewAt(0), overviewAt(1))
	fresh := codes(m)
	m = feed(t, m, awayMsg{errRefused})
	red := "\x1b[31m"
	if !strings.Contains(fresh, red) {
		t.Fatalf("the denials of fresh data are not red: %q", fresh)
	}
	if got := strings.Count(codes(m), red); got != 1 {
		t.Errorf("got %d red texts, want only the reason", got)
	}
}

func BenchmarkRefresh(b *testing.B) {
	for _, points := range []int{10, 10_000} {
		b.Run(fmt.Sprint(points), func(b *testing.B) {
			prev, next := overviewAt(0), overviewAt(1)
			for i := range points {
				p := &observev1.ControlPoint{Name: fmt.Sprintf("service-%d", i), Admitted: uint64(i)}
				prev.ControlPoints, next.ControlPoints = append(prev.ControlPoints, p), append(next.ControlPoints, p)
			}
			m := newTestModel(140, 40)
			m.last = prev
			for b.Loop() {
				after, _ := m.Update(overviewMsg{next})
				_ = after.(model).draw()
			}
		})
	}
}
