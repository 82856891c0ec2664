// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	controlv1 "github.com/sluice-project/sluice/api/gen/sluice/control/v1"
	"github.com/sluice-project/sluice/internal/cli/screen"
)

var update = flag.Bool("update", false, "write the golden files anew; commit only a difference you can explain")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var signals = []*controlv1.Signal{
	{Name: "LATENCY", Circuit: "root"},
	{Name: "SETPOINT", Circuit: "root"},
	{Name: "IS_OVERLOAD", Circuit: "root"},
	{Name: "LM", Circuit: "root.2"},
	{Name: "LIMIT", Circuit: "root.2"},
	{Name: "\x1b[2Jevil\nname", Circuit: "root"},
}

// frame is the readings of tick n.
func frame(n int) *controlv1.Frame {
	wave := 100 + 80*math.Sin(float64(n)/5)
	overload, lm := 0.0, math.NaN()
	if wave > 120 {
		overload, lm = 1, 120/wave
	}
	limit := math.Inf(1)
	if n%10 > 4 {
		limit = float64(n) * 12_345.678
	}
	return &controlv1.Frame{
		Tick: uint64(n), Time: timestamppb.New(t0.Add(time.Duration(n) * time.Second)), Values: []float64{wave, 120, overload, lm, limit, -0.001234},
	}
}

func readings(from, to int) *controlv1.WatchSignalsResponse {
	r := &controlv1.WatchSignalsResponse{Signals: signals}
	for n := from; n < to; n++ {
		r.Frames = append(r.Frames, frame(n))
	}
	return r
}

func state() stateMsg {
	return stateMsg{
		circuit: &controlv1.Circuit{
			IntervalSeconds: 1, SkippedTicks: 2,
			Components: []*controlv1.CircuitComponent{
				{Id: "root.0", Kind: "promql", Status: "no series matches\x1b[31m"}, {Id: "root.2", Kind: "aimd_load_scheduler", Status: "running"},
			},
		},
		alerts: []*controlv1.Alert{{Name: "load is\nshed", Severity: "crit", Component: "root.2", StartTime: timestamppb.New(t0)}},
	}
}

func testModel(cfg Config) model {
	cfg.Policy, cfg.Server = "checkout", "http://127.0.0.1:8080"
	m := newModel(cfg, false)
	m.zone = time.UTC
	return m
}

func send(m model, messages ...tea.Msg) model {
	for _, msg := range messages {
		next, _ := m.Update(msg)
		m = next.(model)
	}
	return m
}

func TestViews(t *testing.T) {
	size := tea.WindowSizeMsg{Width: 100, Height: 14}
	full := send(testModel(Config{}), size, readingsMsg{readings(0, 50), true}, state())
	other := send(testModel(Config{}), size, readingsMsg{readings(0, 50), true})
	views := map[string]model{
		"connecting": send(testModel(Config{}), size),
		"full":       full,
		"away":       send(full, awayMsg{errors.New("connection refused")}),
		"narrow":     send(full, tea.WindowSizeMsg{Width: 40, Height: 10}),
		"tiny":       send(full, tea.WindowSizeMsg{Width: 12, Height: 3}),
		"scrolled":   send(full, tea.WindowSizeMsg{Width: 100, Height: 8}, tea.KeyPressMsg{Code: 'G', Text: "G"}),
		"wanted":     send(testModel(Config{Signals: []string{"LM", "SETPOINT"}}), size, readingsMsg{readings(0, 30), true}),
		"empty":      send(testModel(Config{}), size, readingsMsg{&controlv1.WatchSignalsResponse{Frames: []*controlv1.Frame{{}}}, true}),
	}
	paused := send(other, tea.KeyPressMsg{Code: 'p', Text: "p"})
	views["paused"] = send(paused, readingsMsg{readings(50, 90), false})
	for name, m := range views {
		golden(t, name, m.draw())
	}
	if resumed := send(views["paused"], tea.KeyPressMsg{Code: 'p', Text: "p"}); !strings.Contains(resumed.draw(), "tick 89") {
		t.Errorf("the view does not go on:\n%s", resumed.draw())
	}
}

// TestEverySize: the screen is never overfull, whatever its size.
func TestEverySize(t *testing.T) {
	full := send(testModel(Config{}), readingsMsg{readings(0, 400), true}, state())
	for w := range 130 {
		for h := range 16 {
			text := send(full, tea.WindowSizeMsg{Width: w, Height: h}).draw()
			lines := strings.Split(text, "\n")
			if len(lines) > max(1, h) {
				t.Fatalf("%dx%d: %d lines", w, h, len(lines))
			}
			for _, l := range lines {
				if lipgloss.Width(l) > max(w, numberWidth+len(gap)+1) {
					t.Fatalf("%dx%d: a line is %d wide: %q", w, h, lipgloss.Width(l), l)
				}
				if strings.Contains(l, "\x1b[2J") || strings.Contains(l, "\x1b[31m") {
					t.Fatalf("%dx%d: a text from outside moves the cursor: %q", w, h, l)
				}
			}
		}
	}
}

func TestReplacedPolicy(t *testing.T) {
	m := send(testModel(Config{}), readingsMsg{readings(0, 5), true})
	other := &controlv1.WatchSignalsResponse{
		Signals: []*controlv1.Signal{{Name: "OTHER", Circuit: "root"}},
		Frames:  []*controlv1.Frame{{Tick: 0, Time: timestamppb.New(t0), Values: []float64{7}}},
	}
	m = send(m, readingsMsg{other, false})
	if got := m.board.lines; len(got) != 1 || got[0].name != "OTHER" || got[0].now() != 7 {
		t.Errorf("got %+v", got)
	}
}

func TestUnknownSignal(t *testing.T) {
	m, cmd := testModel(Config{Signals: []string{"LATENCi"}}).Update(readingsMsg{readings(0, 1), true})
	if err := m.(model).err; cmd == nil || err == nil || err.Error() != `there is no signal "LATENCi"; did you mean "LATENCY"?` {
		t.Errorf("got %v", err)
	}
}

func TestTicksEnd(t *testing.T) {
	m := send(testModel(Config{Ticks: 2}), readingsMsg{readings(0, 9), true}, readingsMsg{readings(9, 10), false})
	if _, cmd := m.Update(readingsMsg{readings(10, 11), false}); cmd == nil {
		t.Error("the view goes on after the ticks asked for")
	}
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		name, wanted string
		want         bool
	}{
		{"A", "A", true},
		{"root.2/A", "A", true},
		{"root.2/A", "root.2/A", true},
		{"root.2/A", "root.3/A", false},
		{"BA", "A", false},
		{"x/y/A", "A", false},
	} {
		if got := matches(tt.name, tt.wanted); got != tt.want {
			t.Errorf("%s, %s: got %v", tt.name, tt.wanted, got)
		}
	}
}

func TestSparkline(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, tt := range []struct {
		values []float64
		width  int
		want   string
	}{
		{nil, 3, "   "},
		{[]float64{0, 1, 2, 3, 4, 5, 6, 7}, 8, "▁▂▃▄▅▆▇█"},
		{[]float64{9, 0, 7}, 2, "▁█"},
		{[]float64{0, 0}, 2, "▁▁"},
		{[]float64{5, 5}, 3, " ▄▄"},
		{[]float64{nan, 1, inf, 2, -inf}, 5, "·▁↑█↓"},
		{[]float64{-math.MaxFloat64, 0, math.MaxFloat64}, 3, "▄▄▄"},
		{[]float64{1}, 0, ""},
	} {
		got := sparkline(tt.values, tt.width)
		if tt.values != nil && tt.values[0] == -math.MaxFloat64 {
			if n := len([]rune(got)); n != 3 {
				t.Errorf("the largest range: got %q", got)
			}
			continue
		}
		if got != tt.want {
			t.Errorf("%v in %d: got %q, want %q", tt.values, tt.width, got, tt.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOf(rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{nan, inf, -inf, 0}))).Draw(t, "values")
		width := rapid.IntRange(0, 50).Draw(t, "width")
		if got := len([]rune(sparkline(values, width))); got != width {
			t.Fatalf("got %d cells, want %d", got, width)
		}
		for _, v := range values {
			if n := lipgloss.Width(value(v)); n > numberWidth {
				t.Fatalf("%g is %d wide: %s", v, n, value(v))
			}
		}
	})
}

// source sends all of messages, then waits for the end or returns err.
func source(messages []*controlv1.WatchSignalsResponse, err error) Source {
	return Source{
		Watch: func(ctx context.Context, _ int, send func(*controlv1.WatchSignalsResponse)) error {
			for _, m := range messages {
				send(m)
			}
			if err == nil {
				<-ctx.Done()
				return ctx.Err()
			}
			return err
		},
		Circuit: func(context.Context) (*controlv1.Circuit, error) { return state().circuit, nil },
		Alerts:  func(context.Context) ([]*controlv1.Alert, error) { return nil, nil },
	}
}

func TestLines(t *testing.T) {
	var out bytes.Buffer
	cfg := Config{Source: source([]*controlv1.WatchSignalsResponse{readings(0, 3), readings(3, 9)}, nil), Policy: "p", Ticks: 5, Out: &out}
	if err := Run(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	golden(t, "lines", out.String())
	n := 0
	for text := range strings.Lines(out.String()) {
		var got struct {
			Tick    int
			Time    time.Time
			Signals map[string]any
		}
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if got.Tick != n || got.Signals["root.2/LM"] != nil && n == 0 || len(got.Signals) != len(signals) {
			t.Errorf("tick %d: got %+v", n, got)
		}
		n++
	}
	if n != 5 {
		t.Errorf("got %d lines, want 5", n)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestLinesEnd(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	refused := connect.NewError(connect.CodeNotFound, errors.New("no such policy"))
	for _, tt := range []struct {
		name string
		ctx  context.Context //nolint:containedctx // of a test case
		cfg  Config
		want error
	}{
		{"interrupted", cancelled, Config{Source: source(nil, nil), Out: io.Discard}, nil},
		{"refused", t.Context(), Config{Source: source(nil, refused), Out: io.Discard}, refused},
		{"nobody reads", t.Context(), Config{Source: source([]*controlv1.WatchSignalsResponse{readings(0, 1)}, nil), Out: brokenWriter{}}, io.ErrClosedPipe},
		{"ended", t.Context(), Config{Source: Source{Watch: func(context.Context, int, func(*controlv1.WatchSignalsResponse)) error { return nil }}, Out: io.Discard}, errEnded},
	} {
		if err := Run(tt.ctx, tt.cfg); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	err := Run(t.Context(), Config{Source: source([]*controlv1.WatchSignalsResponse{readings(0, 1)}, nil), Signals: []string{"NOPE"}, Out: io.Discard})
	if err == nil || !strings.Contains(err.Error(), `there is no signal "NOPE"`) {
		t.Errorf("got %v", err)
	}
}

// TestFollow: the view comes back by itself, begins the pauses anew after an answer, and gives up on the
// first answer when that cannot change.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var calls atomic.Int32
		cfg := Config{Policy: "p", Source: source(nil, nil)}
		cfg.Source.Watch = func(ctx context.Context, _ int, send func(*controlv1.WatchSignalsResponse)) error {
			if calls.Add(1) == 3 {
				send(readings(0, 1))
				<-ctx.Done()
				return ctx.Err()
			}
			return connect.NewError(connect.CodeUnavailable, errors.New("away"))
		}
		polls := 0
		cfg.Source.Circuit = func(ctx context.Context) (*controlv1.Circuit, error) {
			if calls.Load() == 3 {
				if polls++; polls == 3 { // the network is gone: nothing answers
					<-ctx.Done()
					return nil, ctx.Err()
				}
			}
			return &controlv1.Circuit{}, nil
		}
		var away, seen int
		err := follow(ctx, cfg, func(msg tea.Msg) {
			switch msg.(type) {
			case awayMsg:
				away++
			case readingsMsg:
				seen++
			}
		})
		if err != nil || seen != 1 || calls.Load() < 5 || away < 4 {
			t.Errorf("got %v, %d readings in %d calls, away %d times", err, seen, calls.Load(), away)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		refused := connect.NewError(connect.CodeNotFound, errors.New("no such policy"))
		cfg := Config{Policy: "p", Source: source(nil, refused)}
		cfg.Source.Circuit = func(context.Context) (*controlv1.Circuit, error) { return nil, refused }
		if err := follow(t.Context(), cfg, func(tea.Msg) {}); !errors.Is(err, refused) {
			t.Errorf("got %v, want %v", err, refused)
		}
	})
}

func TestLive(t *testing.T) {
	t.Setenv("TERM", "xterm-256color")
	in, keys := io.Pipe()
	defer keys.Close()
	var out bytes.Buffer
	cfg := Config{
		Source: source([]*controlv1.WatchSignalsResponse{readings(0, 3), readings(3, 4)}, nil), Policy: "p", Server: "s", Ticks: 1, Interactive: true, Out: &out, In: in,
	}
	if err := Run(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	cfg.Signals = []string{"NOPE"}
	if err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "NOPE") {
		t.Errorf("got %v", err)
	}
}

func ExampleRun() {
	err := Run(context.Background(), Config{
		Source: source([]*controlv1.WatchSignalsResponse{readings(0, 1)}, nil), Signals: []string{"SETPOINT", "LM"}, Ticks: 1, Out: os.Stdout,
	})
	fmt.Println(err, screen.Unknown)
	// Output:
	// {"tick":0,"time":"2026-03-01T12:00:00Z","signals":{"SETPOINT":120,"root.2/LM":null}}
	// <nil> –
}
