// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"
)

func newTop(g *globals) *cobra.Command {
	var once bool
	interval := time.Second
	accounts := 100
	c := &cobra.Command{
		Use:   "top",
		Short: "Watch flows, queues and limits live",
		Long: `Watch the server: flows admitted and denied per second at each control point, queues and
waits of each workload, what is in flight, and the accounts closest to their limit.

Keys: tab and arrows left and right change the page, up and down scroll, p pauses, q
quits. When the output is no terminal, or with --once, one snapshot is printed.`,
		Example: "  sluice top\n  sluice top --once\n  sluice top --once -o json | jq .accounts",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkOutput(g.output); err != nil {
				return err
			}
			if interval < 100*time.Millisecond {
				return fmt.Errorf("--interval: got %s, want at least 100ms", interval)
			}
			if accounts < 1 || accounts > 1000 {
				return fmt.Errorf("--accounts: got %d, want 1 to 1000", accounts)
			}
			r, err := g.connect()
			if err != nil {
				return err
			}
			in := &observev1.WatchOverviewRequest{TopAccounts: int32(accounts), Interval: durationpb.New(interval)}
			if once || !g.env.Terminal || g.output != "table" {
				return topOnce(c.Context(), g, r, in)
			}
			return topLive(c.Context(), g, r, in)
		},
	}
	c.Flags().BoolVar(&once, "once", false, "print one snapshot and exit")
	c.Flags().DurationVar(&interval, "interval", interval, "time between two readings")
	c.Flags().IntVar(&accounts, "accounts", accounts, "how many accounts to read, those closest to their limit first")
	return c
}

// topOnce prints one snapshot. Two readings make the rates; JSON has the counters as they are.
func topOnce(ctx context.Context, g *globals, r *remote, in *observev1.WatchOverviewRequest) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout+2*in.Interval.AsDuration())
	defer cancel()
	stream, err := r.observe.WatchOverview(ctx, connect.NewRequest(in))
	if err != nil {
		return r.explain(err)
	}
	defer func() { _ = stream.Close() }() // read to where it matters
	state := topState{server: r.base}
	want := 2
	if g.output != "table" {
		want = 1
	}
	for range want {
		if !stream.Receive() {
			if err := stream.Err(); err != nil {
				return r.explain(err)
			}
			return errors.New("the server ended the answer early; try again")
		}
		state.add(stream.Msg().GetOverview())
	}
	if want == 2 {
		fmt.Fprint(g.env.Stdout, state.plain())
		return nil
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(state.now)
	if err != nil {
		return err
	}
	return printJSON(g.env.Stdout, g.output, text)
}

// Messages to the screen.
type (
	overviewMsg struct{ overview *observev1.Overview }
	lostMsg     struct{ err error }
)

// reconnectPause is how long to wait before asking a server again that went away.
const reconnectPause = time.Second

// topLive runs the screen until the user leaves it.
func topLive(ctx context.Context, g *globals, r *remote, in *observev1.WatchOverviewRequest) error {
	ctx, cancel := context.WithCancel(ctx)
	program := tea.NewProgram(&topModel{state: topState{server: r.base}},
		tea.WithContext(ctx), tea.WithInput(g.env.Stdin), tea.WithOutput(g.env.Stdout), tea.WithEnvironment(g.env.Environ))
	var feeding sync.WaitGroup
	feeding.Go(func() { feed(ctx, r, in, program.Send) })
	_, err := program.Run()
	cancel()
	feeding.Wait()
	if errors.Is(err, tea.ErrProgramKilled) || errors.Is(err, tea.ErrInterrupted) {
		return nil // the user, or a signal, asked for it
	}
	return err
}

// feed sends readings to the screen, and connects again when the server went away.
func feed(ctx context.Context, r *remote, in *observev1.WatchOverviewRequest, send func(tea.Msg)) {
	for ctx.Err() == nil {
		err := watch(ctx, r, in, send)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("the server ended the connection")
		}
		send(lostMsg{r.explain(err)})
		select {
		case <-ctx.Done():
		case <-time.After(reconnectPause):
		}
	}
}

func watch(ctx context.Context, r *remote, in *observev1.WatchOverviewRequest, send func(tea.Msg)) error {
	stream, err := r.observe.WatchOverview(ctx, connect.NewRequest(in))
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }() // its error is that of Err
	for stream.Receive() {
		send(overviewMsg{stream.Msg().GetOverview()})
	}
	return stream.Err()
}

// topModel is the screen.
type topModel struct {
	state         topState
	width, height int
	paused        bool
}

var _ tea.Model = (*topModel)(nil)

// Init implements tea.Model.
func (m *topModel) Init() tea.Cmd { return nil }

// Update implements tea.Model.
func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case overviewMsg:
		if !m.paused {
			m.state.add(msg.overview)
		}
	case lostMsg:
		m.state.lost = msg.err
	case tea.KeyPressMsg:
		return m, m.press(msg.String())
	}
	return m, nil
}

func (m *topModel) press(key string) tea.Cmd {
	s := &m.state
	switch key {
	case "q", "esc", "ctrl+c":
		return tea.Quit
	case "p", "space":
		m.paused = !m.paused
		s.paused = m.paused
	case "tab", "right", "l":
		s.page, s.offset = (s.page+1)%len(topPages), 0
	case "shift+tab", "left", "h":
		s.page, s.offset = (s.page+len(topPages)-1)%len(topPages), 0
	case "down", "j":
		s.offset++
	case "up", "k":
		s.offset--
	case "pgdown":
		s.offset += max(m.height-5, 1)
	case "pgup":
		s.offset -= max(m.height-5, 1)
	case "home", "g":
		s.offset = 0
	}
	return nil
}

// View implements tea.Model.
func (m *topModel) View() tea.View {
	v := tea.NewView(m.state.render(m.width, m.height))
	v.AltScreen = true
	v.WindowTitle = "sluice top"
	return v
}
