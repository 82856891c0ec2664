// SPDX-License-Identifier: Apache-2.0

package screen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
)

// The size of a screen, which counts only when the output is not a terminal that knows its own.
const (
	UsualWidth  = 80
	UsualHeight = 24
)

// Run shows a live view until somebody leaves it, ctx ends, which is no error, or follow fails, whose error
// is returned. follow brings news to the view as long as its context lasts.
func Run(ctx context.Context, in io.Reader, out io.Writer, view tea.Model, follow func(context.Context, func(tea.Msg)) error) (tea.Model, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	options := []tea.ProgramOption{tea.WithContext(ctx), tea.WithOutput(out), tea.WithWindowSize(UsualWidth, UsualHeight)}
	if in != os.Stdin { // else the program finds the keyboard itself, also when Stdin is redirected
		options = append(options, tea.WithInput(in))
	}
	p := tea.NewProgram(view, options...)
	var followErr error
	var wg sync.WaitGroup
	wg.Go(func() {
		if followErr = follow(ctx, p.Send); followErr != nil {
			p.Quit()
		}
	})
	last, err := p.Run()
	stopped := ctx.Err() != nil
	cancel() // releases a Send that nobody receives
	wg.Wait()
	switch {
	case followErr != nil:
		return last, followErr
	case errors.Is(err, tea.ErrInterrupted), stopped && !errors.Is(err, tea.ErrProgramPanic):
		return last, nil
	case err != nil:
		return last, fmt.Errorf("show the live view: %w", err)
	}
	return last, nil
}

// Between two attempts: doubles from the first to the last while nothing comes.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Follow attempts to follow a server, again and again, until ctx ends, which is no error. attempt calls came
// with everything that comes; away is told why an attempt ended. It gives up, with the error of the attempt,
// only when the very first one says that trying again cannot help.
func Follow(ctx context.Context, attempt func(came func()) error, away func(error), hopeless func(error) bool) error {
	pause, seen := firstPause, false
	for ctx.Err() == nil {
		err := attempt(func() { pause, seen = firstPause, true })
		if ctx.Err() != nil {
			break
		}
		if !seen && hopeless(err) {
			return err
		}
		away(err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
	return nil //nolint:nilerr // what fails when ctx ends is no error
}
