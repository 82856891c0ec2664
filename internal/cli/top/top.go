// SPDX-License-Identifier: Apache-2.0

// Package top is called by the top command: it shows what a server is doing now, live in a terminal or
// once as plain text.
//
// The parts, in the order data flows: follow keeps a stream of overviews open, compare turns two
// overviews into rates, tables arranges a frame in rows, and the model (live) or snapshot (once) prints
// them. Everything but follow and the two entries is a function of its arguments.
package top

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	tea "charm.land/bubbletea/v2"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/observe/v1/observev1connect"

	"github.com/sluice-project/sluice/internal/cli/screen"
)

// Bounds of Config.Interval.
const (
	DefaultInterval = time.Second
	MinInterval     = 100 * time.Millisecond // the server refuses less
)

// Config says what to show and where. Watch and Out are required.
type Config struct {
	// Watch streams overviews to send, the first at once and then one per interval, until ctx ends or
	// the server goes away. It must return when ctx ends and must not call send after it returned. Run
	// never calls it twice at the same time, and calls it again, after a pause, when it returns.
	Watch    func(ctx context.Context, interval time.Duration, send func(*observev1.Overview)) error
	Server   string        // the name of the server in texts
	Interval time.Duration // between two overviews, at least MinInterval; 0: DefaultInterval
	Once     bool          // print one snapshot and return
	// Interactive means that Out is a terminal and In its keyboard; false means Once.
	Interactive bool
	Out         io.Writer
	In          io.Reader // nil: no keyboard; the view ends with ctx
}

func (c Config) withDefaults() Config {
	if c.Interval == 0 {
		c.Interval = DefaultInterval
	}
	c.Server = screen.Clean(c.Server)
	return c
}

func (c Config) validate() error {
	var errs []error
	if c.Watch == nil {
		errs = append(errs, errors.New("watch: got nil, want a function"))
	}
	if c.Out == nil {
		errs = append(errs, errors.New("out: got nil, want a writer"))
	}
	if c.Interval < MinInterval {
		errs = append(errs, fmt.Errorf("interval: got %s, want at least %s", c.Interval, MinInterval))
	}
	return errors.Join(errs...)
}

// Run shows the server until ctx ends or the user quits, both of which are no error; or prints one
// snapshot, one interval after the first overview so that its rates are real. Without a terminal, or
// with Once, a server that does not answer is an error; in the live view it is one only when trying
// again cannot help, for example because a token is refused. Run reads NO_COLOR and TERM.
func Run(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return err
	}
	if cfg.Once || !cfg.Interactive {
		return printSnapshot(ctx, cfg)
	}
	return runLive(ctx, cfg)
}

func runLive(ctx context.Context, cfg Config) error {
	m := newModel(cfg.Server, cfg.Interval, time.Local, os.Getenv("NO_COLOR") == "")
	_, err := screen.Run(ctx, cfg.In, cfg.Out, m, func(ctx context.Context, emit func(tea.Msg)) error {
		return follow(ctx, cfg, emit)
	})
	return err
}

// watchedAccounts is how many accounts the live view can scroll through. The server visits every account
// for any number of them.
const watchedAccounts = 100

// WatchClient adapts a client for Config.Watch.
func WatchClient(c observev1connect.ObserveServiceClient) func(context.Context, time.Duration, func(*observev1.Overview)) error {
	return func(ctx context.Context, interval time.Duration, send func(*observev1.Overview)) error {
		stream, err := c.WatchOverview(ctx, connect.NewRequest(&observev1.WatchOverviewRequest{
			TopAccounts: watchedAccounts, Interval: durationpb.New(interval),
		}))
		if err != nil {
			return err
		}
		defer stream.Close() //nolint:errcheck // the stream is over, whatever closing says
		for stream.Receive() {
			send(stream.Msg().GetOverview())
		}
		return stream.Err()
	}
}
