// SPDX-License-Identifier: Apache-2.0

package top

import (
	"context"
	"errors"
	"fmt"
	"time"

	tea "charm.land/bubbletea/v2"
	"connectrpc.com/connect"

	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"
	"github.com/sluice-project/sluice/internal/cli/screen"
)

// patience is how long an overview may be overdue before the connection counts as broken: a server that
// lost its network sends nothing, not even an end.
const patience = 10 * time.Second

// overviewMsg brings an overview.
type overviewMsg struct{ overview *observev1.Overview }

// awayMsg says that the server is away, and why. We try again by ourselves.
type awayMsg struct{ err error }

// errEnded stands for a stream that ended without an error.
var errEnded = errors.New("the server ended the stream")

// follow watches until ctx ends, which is no error, and emits overviewMsg and awayMsg. It gives up only
// when the very first answer says that trying again cannot help.
func follow(ctx context.Context, cfg Config, emit func(tea.Msg)) error {
	err := screen.Follow(ctx, func(came func()) error {
		return watch(ctx, cfg, func(o *observev1.Overview) {
			came()
			emit(overviewMsg{o})
		})
	}, func(err error) { emit(awayMsg{err}) }, hopeless)
	if err != nil {
		return fmt.Errorf("watch %s: %w", cfg.Server, err)
	}
	return nil
}

// watch calls Watch once, and ends it when it is silent for too long. It returns an error unless ctx
// ended.
func watch(parent context.Context, cfg Config, send func(*observev1.Overview)) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	silent := time.AfterFunc(patience, func() {
		cancel(errors.New("no answer in time"))
	})
	defer silent.Stop()
	err := cfg.Watch(ctx, cfg.Interval, func(o *observev1.Overview) {
		if o == nil {
			return
		}
		silent.Reset(cfg.Interval + patience)
		send(o)
	})
	switch {
	case parent.Err() != nil:
		return context.Cause(parent)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil:
		return errEnded
	}
	return err
}

// hopeless reports an answer that stays the same however often we ask. It counts only before the first
// overview: later a proxy may give any answer while the server behind it restarts.
func hopeless(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnauthenticated, connect.CodePermissionDenied, connect.CodeInvalidArgument, connect.CodeUnimplemented:
		return true
	}
	return false
}
