// SPDX-License-Identifier: Apache-2.0

// Package watch is called by the policy watch command: it shows the signals of a circuit as they change,
// live in a terminal, or as one line of JSON per tick.
//
// follow keeps the stream of readings open and asks for the state of components and alerts beside it; board
// keeps the last readings; the model (live) or the printer (lines) shows them. Everything but follow and
// the entries is a function of its arguments.
package watch

import (
	"context"
	"io"
	"math"
	"os"
	"strconv"
	"time"

	tea "charm.land/bubbletea/v2"
	"connectrpc.com/connect"

	controlv1 "github.com/sluice-project/sluice/api/gen/sluice/control/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/control/v1/controlv1connect"
	"github.com/sluice-project/sluice/internal/cli/screen"
)

// Source is where readings come from. All fields are required.
type Source struct {
	// Watch streams readings to send until ctx ends or the server goes away: at most past ticks that were,
	// then every new one. It must return when ctx ends and must not call send after it returned. It is called
	// again, after a pause, when it returns.
	Watch func(ctx context.Context, past int, send func(*controlv1.WatchSignalsResponse)) error
	// Circuit reads the components and how they do.
	Circuit func(ctx context.Context) (*controlv1.Circuit, error)
	// Alerts reads the alerts that fire.
	Alerts func(ctx context.Context) ([]*controlv1.Alert, error)
}

// Config says what to show and where.
type Config struct {
	Source Source
	// Policy and Server are their names in texts.
	Policy, Server string
	// Signals are the names of those to show, of any circuit or as circuit/name; none: all that are sent.
	Signals []string
	// Ticks is after how many new ticks to end; 0: never.
	Ticks int
	// Interactive means that Out is a terminal and In its keyboard; false prints lines.
	Interactive bool
	Out         io.Writer
	In          io.Reader
}

// Run shows readings until ctx ends, the user quits or Ticks have come, all of which are no error. Lines
// end with an error when the server goes away; the live view tries again unless that cannot help.
func Run(ctx context.Context, cfg Config) error {
	cfg.Policy, cfg.Server = screen.Clean(cfg.Policy), screen.Clean(cfg.Server)
	if !cfg.Interactive {
		return printLines(ctx, cfg)
	}
	return runLive(ctx, cfg)
}

func runLive(ctx context.Context, cfg Config) error {
	m := newModel(cfg, os.Getenv("NO_COLOR") == "")
	final, err := screen.Run(ctx, cfg.In, cfg.Out, m, func(ctx context.Context, emit func(tea.Msg)) error {
		return follow(ctx, cfg, emit)
	})
	if last, ok := final.(model); ok && last.err != nil {
		return last.err
	}
	return err
}

// Client adapts a client for Config.Source. all also shows the signals inside of nested circuits and
// composites.
func Client(c controlv1connect.ControlServiceClient, policy string, all bool) Source {
	return Source{
		Watch: func(ctx context.Context, past int, send func(*controlv1.WatchSignalsResponse)) error {
			stream, err := c.WatchSignals(ctx, connect.NewRequest(&controlv1.WatchSignalsRequest{Policy: policy, Ticks: int32(past), All: all}))
			if err != nil {
				return err
			}
			defer stream.Close() //nolint:errcheck // the stream is over, whatever closing says
			for stream.Receive() {
				send(stream.Msg())
			}
			return stream.Err()
		},
		Circuit: func(ctx context.Context) (*controlv1.Circuit, error) {
			got, err := c.GetCircuit(ctx, connect.NewRequest(&controlv1.GetCircuitRequest{Policy: policy}))
			if err != nil {
				return nil, err
			}
			return got.Msg.GetCircuit(), nil
		},
		Alerts: func(ctx context.Context) ([]*controlv1.Alert, error) {
			got, err := c.ListAlerts(ctx, connect.NewRequest(&controlv1.ListAlertsRequest{Policy: policy, State: "firing", PageSize: 20}))
			if err != nil {
				return nil, err
			}
			return got.Msg.GetAlerts(), nil
		},
	}
}

// signalName is how people name a signal: alone in the outermost circuit, else circuit/name.
func signalName(s *controlv1.Signal) string {
	if c := s.GetCircuit(); c != "" && c != "root" {
		return c + "/" + s.GetName()
	}
	return s.GetName()
}

// value prints a reading with up to four digits, in at most numberWidth cells.
func value(v float64) string {
	switch size := math.Abs(v); {
	case math.IsNaN(v):
		return "invalid"
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	case size >= 10_000:
		return screen.Number(v)
	case v == math.Trunc(v):
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	if text := strconv.FormatFloat(v, 'g', 4, 64); len(text) <= numberWidth {
		return text
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

// pollInterval is the time between two looks at components and alerts.
const pollInterval = 2 * time.Second
