// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
	"fmt"
	"time"

	tea "charm.land/bubbletea/v2"
	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	controlv1 "github.com/sluice-project/sluice/api/gen/sluice/control/v1"
	"github.com/sluice-project/sluice/internal/cli/screen"
)

type (
	// readingsMsg brings readings.
	readingsMsg struct {
		readings *controlv1.WatchSignalsResponse
		first    bool // of this connection: what was shown before is repeated
	}
	// stateMsg brings the state of components and alerts.
	stateMsg struct {
		circuit *controlv1.Circuit
		alerts  []*controlv1.Alert
	}
	// awayMsg says that the server is away, and why. We try again by ourselves.
	awayMsg struct{ err error }
)

// errEnded stands for a stream that ended without an error.
var errEnded = errors.New("the server ended the stream")

// follow emits what comes until ctx ends, which is no error. It gives up only when the very first answer
// says that trying again cannot help.
func follow(ctx context.Context, cfg Config, emit func(tea.Msg)) error {
	err := screen.Follow(ctx, func(came func()) error {
		return attempt(ctx, cfg, func(msg tea.Msg) {
			came()
			emit(msg)
		})
	}, func(err error) { emit(awayMsg{err}) }, hopeless)
	if err != nil {
		return fmt.Errorf("watch policy %s: %w", cfg.Policy, err)
	}
	return nil
}

// attempt watches, and looks at components and alerts beside it, until one of the two fails. A server that
// lost its network sends nothing, not even an end, but does not answer questions either.
func attempt(ctx context.Context, cfg Config, emit func(tea.Msg)) error {
	group, ctx := errgroup.WithContext(ctx)
	messages := make(chan tea.Msg)
	send := func(msg tea.Msg) {
		select {
		case messages <- msg:
		case <-ctx.Done():
		}
	}
	group.Go(func() error {
		first := true
		err := cfg.Source.Watch(ctx, kept, func(r *controlv1.WatchSignalsResponse) {
			send(readingsMsg{r, first})
			first = false
		})
		if err == nil {
			err = errEnded
		}
		return err
	})
	group.Go(func() error { return poll(ctx, cfg, send) })
	done := make(chan error, 1)
	go func() { done <- group.Wait() }()
	for {
		select {
		case msg := <-messages:
			emit(msg)
		case err := <-done:
			return err
		}
	}
}

// answerIn is how long the server may take to answer a question.
const answerIn = 10 * time.Second

func poll(ctx context.Context, cfg Config, send func(tea.Msg)) error {
	for {
		if err := ask(ctx, cfg, send); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollInterval):
		}
	}
}

func ask(ctx context.Context, cfg Config, send func(tea.Msg)) error {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	circuit, err := cfg.Source.Circuit(ctx)
	if err != nil {
		return err
	}
	alerts, err := cfg.Source.Alerts(ctx)
	if err != nil {
		return err
	}
	send(stateMsg{circuit, alerts})
	return nil
}

// hopeless reports an answer that stays the same however often we ask. It counts only before the first
// readings: later a policy may be gone for the moment in which it is replaced.
func hopeless(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnauthenticated, connect.CodePermissionDenied, connect.CodeInvalidArgument, connect.CodeUnimplemented,
		connect.CodeNotFound, connect.CodeFailedPrecondition:
		return true
	}
	return false
}
