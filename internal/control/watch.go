// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"sync"

	"github.com/sluice-project/sluice/internal/circuit"
)

// Update is what has happened to the signals of a policy since the update before.
type Update struct {
	// Signals are set in the first update and when the policy was replaced by another version: what frames
	// are about from now on.
	Signals []circuit.Signal
	// Frames are the readings, oldest first. There may be none.
	Frames []Frame
	// Missed is the number of frames before these that were gone before they could be sent: the receiver is
	// too slow.
	Missed uint64
}

// watchers are the goroutines in Watch.
type watchers struct {
	mu  sync.Mutex
	all map[chan struct{}]struct{} // each of capacity 1
}

func (w *watchers) enter() chan struct{} {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[chan struct{}]struct{}{}
	}
	w.all[c] = struct{}{}
	return c
}

func (w *watchers) leave(c chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, c)
}

// notify lets all watchers look whether there is something for them.
func (w *watchers) notify() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.all {
		signalled(c)
	}
}

// Watch sends the readings of a policy: those of past ticks, at most past of them and all that are kept when
// past is not more than 0, and then each tick as it happens. It returns when ctx ends, when send fails, or
// with ErrNotInForce when the policy is not in force any more. send may take its time: it holds nothing up.
func (r *Runtime) Watch(ctx context.Context, policy string, past int, send func(Update) error) error {
	wake := r.watched.enter()
	defer r.watched.leave(wake)
	var of *running
	var next uint64
	for {
		update, u, ok := r.update(policy, of, next, past)
		if !ok {
			return fmt.Errorf("policy %q: %w", policy, ErrNotInForce)
		}
		if u != of {
			of, next = u, 0
		}
		if n := len(update.Frames); n > 0 {
			next = update.Frames[n-1].Tick + 1
		}
		if update.Signals != nil || len(update.Frames) > 0 {
			if err := send(update); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		}
	}
}

// update collects what a watcher has not seen. of is the version that it has seen last, next the number of
// its next frame.
func (r *Runtime) update(policy string, of *running, next uint64, past int) (Update, *running, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	u := r.byName[policy]
	switch {
	case u == nil:
		return Update{}, nil, false
	case of == nil:
		return Update{Signals: u.program.signals, Frames: u.history.last(past)}, u, true
	case u != of:
		return Update{Signals: u.program.signals, Frames: u.history.since(0)}, u, true
	}
	missed := uint64(0)
	if oldest := u.history.oldest(); oldest > next {
		missed = oldest - next
	}
	return Update{Frames: u.history.since(next), Missed: missed}, u, true
}

// History returns the readings of the last n ticks of a policy, oldest first, all that are kept when n is not
// more than 0; and what signals they are of. The error is ErrNotInForce.
func (r *Runtime) History(policy string, n int) ([]circuit.Signal, []Frame, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	u := r.byName[policy]
	if u == nil {
		return nil, nil, fmt.Errorf("policy %q: %w", policy, ErrNotInForce)
	}
	return u.program.signals, u.history.last(n), nil
}
