// SPDX-License-Identifier: Apache-2.0

package top

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	tea "charm.land/bubbletea/v2"
	"connectrpc.com/connect"

	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"
)

type watchFunc = func(context.Context, time.Duration, func(*observev1.Overview)) error

// every sends n overviews, one per interval, and then ends with err; n < 0: until ctx ends.
func every(n int, err error) watchFunc {
	return func(ctx context.Context, interval time.Duration, send func(*observev1.Overview)) error {
		for i := 0; i != n; i++ {
			if i > 0 {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(interval):
				}
			}
			send(overviewAt(uint64(i)))
		}
		return err
	}
}

// silent sends n overviews and then nothing, as a server does that lost its network.
func silent(n int) watchFunc {
	return func(ctx context.Context, interval time.Duration, send func(*observev1.Overview)) error {
		if err := every(n, nil)(ctx, interval, send); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
}

// script calls one function after the other, and the last again and again.
func script(calls ...watchFunc) watchFunc {
	n := -1
	return func(ctx context.Context, interval time.Duration, send func(*observev1.Overview)) error {
		n = min(n+1, len(calls)-1)
		return calls[n](ctx, interval, send)
	}
}

var (
	errUnavailable = connect.NewError(connect.CodeUnavailable, errRefused)
	errNoToken     = fmt.Errorf("call: %w", connect.NewError(connect.CodeUnauthenticated, errors.New("no token")))
)

type followCase struct {
	name  string
	watch watchFunc
	until time.Duration
	want  string // what was emitted when, in milliseconds
	err   string
}

func followCases() []followCase {
	return []followCase{
		{
			name: "steady", watch: every(-1, nil), until: 2500 * time.Millisecond,
			want: "0 overview, 1000 overview, 2000 overview",
		},
		{
			name: "never there: the pause doubles up to its bound", watch: every(0, errUnavailable), until: 14 * time.Second,
			want: "0 away, 250 away, 750 away, 1750 away, 3750 away, 7750 away, 12750 away",
		},
		{
			name: "back again: the pause starts anew", until: 3 * time.Second,
			watch: script(every(0, errUnavailable), every(0, errUnavailable), every(1, errUnavailable), every(0, errUnavailable), every(-1, nil)),
			want:  "0 away, 250 away, 750 overview, 750 away, 1000 away, 1500 overview, 2500 overview",
		},
		{
			name: "ends without an error", watch: script(every(1, nil), every(-1, nil)), until: time.Second,
			want: "0 overview, 0 away, 250 overview",
		},
		{
			name: "silent after two", watch: script(silent(2), every(-1, nil)), until: 13 * time.Second,
			want: "0 overview, 1000 overview, 12000 away, 12250 overview",
		},
		{
			name: "silent from the start", watch: silent(0), until: 11 * time.Second,
			want: "10000 away",
		},
		{
			name: "refused for good", watch: every(0, errNoToken), until: time.Minute,
			err: "watch example:8080: call: unauthenticated: no token",
		},
		{
			name: "refused after it worked", watch: script(every(1, errNoToken), every(-1, nil)), until: time.Second,
			want: "0 overview, 0 away, 250 overview",
		},
		{
			name: "an overview that is none", until: time.Second,
			watch: func(ctx context.Context, _ time.Duration, send func(*observev1.Overview)) error {
				send(nil)
				<-ctx.Done()
				return ctx.Err()
			},
		},
	}
}

func TestFollow(t *testing.T) {
	for _, test := range followCases() {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), test.until)
				defer cancel()
				start := time.Now()
				var got []string
				err := follow(ctx, Config{Watch: test.watch, Server: "example:8080", Interval: time.Second}, func(msg tea.Msg) {
					kind := strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%T", msg), "top."), "Msg")
					got = append(got, fmt.Sprintf("%d %s", time.Since(start).Milliseconds(), kind))
				})
				if s := strings.Join(got, ", "); s != test.want {
					t.Errorf("got  %s\nwant %s", s, test.want)
				}
				if s := fmt.Sprint(err); s != test.err && (err != nil || test.err != "") {
					t.Errorf("got error %s, want %q", s, test.err)
				}
			})
		})
	}
}

// The reason that reaches the screen is the one that says most.
func TestFollowReasons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		var got []string
		watch := script(every(0, errRefused), every(0, nil), silent(0))
		err := follow(ctx, Config{Watch: watch, Interval: time.Second}, func(msg tea.Msg) {
			got = append(got, msg.(awayMsg).err.Error())
		})
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"connection refused", "the server ended the stream", "no answer in time", "no answer in time"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
