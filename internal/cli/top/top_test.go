// SPDX-License-Identifier: Apache-2.0

package top

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/observe/v1/observev1connect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConfigErrors(t *testing.T) {
	err := Run(t.Context(), Config{Interval: time.Millisecond})
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{
		"watch: got nil, want a function", "out: got nil, want a writer", "interval: got 1ms, want at least 100ms",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want it to say %q", err, want)
		}
	}
	if err := Run(t.Context(), Config{Watch: every(0, nil), Out: io.Discard, Interval: -time.Second}); err == nil {
		t.Error("a negative interval is accepted")
	}
}

func TestOnce(t *testing.T) {
	refused := connect.NewError(connect.CodeUnavailable, errRefused)
	for _, test := range []struct {
		name  string
		watch watchFunc
		after time.Duration
		err   string
	}{
		{name: "two answers", watch: every(-1, nil), after: 2 * time.Second},
		{name: "ends after two", watch: every(2, refused), after: 2 * time.Second},
		{name: "refused", watch: every(0, refused), err: "watch server: unavailable: connection refused"},
		{
			name: "one answer", watch: every(1, nil),
			err: "watch server: rates need two answers, only one came: the server ended the stream",
		},
		{name: "silent", watch: silent(0), after: 10 * time.Second, err: "watch server: no answer in time"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				start := time.Now()
				err := Run(t.Context(), Config{
					Watch: test.watch, Server: "server", Interval: 2 * time.Second, Once: true, Interactive: true, Out: &out,
				})
				if took := time.Since(start); took != test.after {
					t.Errorf("took %s, want %s", took, test.after)
				}
				switch {
				case test.err == "" && err != nil:
					t.Errorf("got error %q, want none", err)
				case test.err != "" && (err == nil || err.Error() != test.err):
					t.Errorf("got error %v, want %q", err, test.err)
				case test.err == "" && out.String() != snapshot("server", compare(overviewAt(0), overviewAt(1))):
					t.Errorf("got\n%s", out.String())
				case test.err != "" && out.Len() > 0:
					t.Errorf("got an error and\n%s", out.String())
				}
			})
		})
	}
}

func TestOnceStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := Run(ctx, Config{Watch: silent(1), Out: io.Discard})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
	})
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestOnceCannotPrint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if err := Run(t.Context(), Config{Watch: every(-1, nil), Out: brokenWriter{}}); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("got %v, want %v", err, io.ErrClosedPipe)
		}
	})
}

// terminal collects output and says when a text came by.
type terminal struct {
	text string
	seen chan struct{}

	mu   sync.Mutex
	all  strings.Builder
	once bool
}

func newTerminal(text string) *terminal { return &terminal{text: text, seen: make(chan struct{})} }

func (s *terminal) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all.Write(p)
	if !s.once && strings.Contains(s.all.String(), s.text) {
		s.once = true
		close(s.seen)
	}
	return len(p), nil
}

// live runs the live view as a terminal would, and returns what Run returned after act.
func live(t *testing.T, ctx context.Context, watch watchFunc, text string, act func(keys io.Writer)) error {
	t.Helper()
	t.Setenv("TERM", "xterm-256color")
	in, keys := io.Pipe()
	defer keys.Close()
	out, done := newTerminal(text), make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{Watch: watch, Server: "server", Interactive: true, Out: out, In: in})
	}()
	select {
	case <-out.seen:
		act(keys)
	case err := <-done:
		return err
	}
	return <-done
}

func TestLiveQuit(t *testing.T) {
	err := live(t, t.Context(), silent(1), "q quit", func(keys io.Writer) {
		if _, err := io.WriteString(keys, "q"); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLiveStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := live(t, ctx, silent(1), "q quit", func(io.Writer) { cancel() }); err != nil {
		t.Error(err)
	}
}

func TestLiveRefused(t *testing.T) {
	refused := connect.NewError(connect.CodePermissionDenied, errors.New("the token may not observe"))
	err := live(t, t.Context(), every(0, refused), "never", func(io.Writer) {})
	if want := "watch server: permission_denied: the token may not observe"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
}

// observer is a server that sends two overviews and then err.
type observer struct {
	observev1connect.UnimplementedObserveServiceHandler
	err error
	got chan *observev1.WatchOverviewRequest
}

func (o *observer) WatchOverview(_ context.Context, in *connect.Request[observev1.WatchOverviewRequest], s *connect.ServerStream[observev1.WatchOverviewResponse]) error {
	o.got <- in.Msg
	for n := range uint64(2) {
		if err := s.Send(&observev1.WatchOverviewResponse{Overview: overviewAt(n)}); err != nil {
			return err
		}
	}
	return o.err
}

func TestWatchClient(t *testing.T) {
	for _, option := range []connect.ClientOption{connect.WithGRPCWeb(), connect.WithProtoJSON(), connect.WithSendGzip()} {
		o := &observer{err: connect.NewError(connect.CodeUnavailable, errRefused), got: make(chan *observev1.WatchOverviewRequest, 1)}
		mux := http.NewServeMux()
		mux.Handle(observev1connect.NewObserveServiceHandler(o))
		server := httptest.NewServer(mux)
		watch := WatchClient(observev1connect.NewObserveServiceClient(server.Client(), server.URL, option))
		var times []time.Time
		err := watch(t.Context(), 3*time.Second, func(o *observev1.Overview) { times = append(times, o.GetTime().AsTime()) })
		server.Close()
		if connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("got error %v, want %s", err, connect.CodeUnavailable)
		}
		if len(times) != 2 || !times[0].Equal(t0) || !times[1].Equal(t0.Add(time.Second)) {
			t.Errorf("got overviews of %v, want two", times)
		}
		in := <-o.got
		if in.GetInterval().AsDuration() != 3*time.Second || in.GetTopAccounts() != watchedAccounts {
			t.Errorf("asked for %v", in)
		}
	}
}

func TestWatchClientAway(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	address := server.URL
	server.Close()
	client := &http.Client{Transport: &http.Transport{}}
	err := WatchClient(observev1connect.NewObserveServiceClient(client, address))(t.Context(), time.Second, func(*observev1.Overview) {
		t.Error("got an overview from nobody")
	})
	if connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("got %v, want %s", err, connect.CodeUnavailable)
	}
}
