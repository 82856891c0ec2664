// SPDX-License-Identifier: Apache-2.0

package sluice_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	sluice "github.com/sluice-project/sluice/sdk/go"
	"github.com/sluice-project/sluice/sdk/go/internal/sluicetest"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inBubble runs a test in virtual time with a server and a client of it. The connection is in memory, so
// that virtual time moves on whenever all wait. A goroutine that outlives Close fails the bubble.
func inBubble(t *testing.T, s *sluicetest.Server, test func(t *testing.T, c *sluice.Client), opts ...sluice.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s.Listen()
		c := newClient(t, s, opts...)
		test(t, c)
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		s.Vanish()
		synctest.Wait()
	})
}

func newClient(t testing.TB, s *sluicetest.Server, opts ...sluice.Option) *sluice.Client {
	t.Helper()
	c, err := sluice.NewClient(sluicetest.Addr, append([]sluice.Option{sluice.WithDialOptions(grpc.WithContextDialer(s.Dial))}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// bothWays runs a test through the stream and through unary calls.
func bothWays(t *testing.T, test func(t *testing.T, opts ...sluice.Option)) {
	t.Run("stream", func(t *testing.T) { test(t) })
	t.Run("unary", func(t *testing.T) { test(t, sluice.WithUnary()) })
}

func wantReason(t *testing.T, f *sluice.Flow, reason string) {
	t.Helper()
	if v := f.Verdict(); v.Reason != reason || v.Admitted != f.ShouldRun() {
		t.Errorf("got %+v (err %v), want reason %q", v, f.Err(), reason)
	}
}

func TestAdmitAndEnd(t *testing.T) {
	bothWays(t, func(t *testing.T, opts ...sluice.Option) {
		s := &sluicetest.Server{Slots: -1}
		inBubble(t, s, func(t *testing.T, c *sluice.Client) {
			f := c.StartFlow(t.Context(), "checkout", sluice.Labels{"user_id": "alice", "tier": "gold"})
			if !f.ShouldRun() || f.Err() != nil || f.HTTPStatus() != 200 || f.Denied() != nil {
				t.Fatalf("got %+v, err %v, want an admission", f.Verdict(), f.Err())
			}
			wantReason(t, f, "admitted")
			got := s.Starts()[0]
			if got.ControlPoint != "checkout" || len(got.Labels) != 2 || got.Labels["user_id"] != "alice" || got.Labels["tier"] != "gold" {
				t.Errorf("the server saw %+v", got)
			}
			if got.HasQueueTimeout {
				t.Errorf("the server saw a queue time-out of %v, want none", got.QueueTimeout)
			}
			time.Sleep(3 * time.Second)
			if r := f.End(sluice.WithError(errors.New("broken")), sluice.WithTokens(7)); r != sluice.Ended {
				t.Errorf("End: got %v, want ended", r)
			}
			if r := f.End(); r != sluice.AlreadyEnded {
				t.Errorf("second End: got %v, want already_ended", r)
			}
			synctest.Wait()
			ends := s.Ends()
			if len(ends) != 1 || s.Open() != 0 {
				t.Fatalf("got %d ends and %d open flows, want 1 and 0", len(ends), s.Open())
			}
			e := ends[0]
			if e.Status != flowv1.FlowStatus_FLOW_STATUS_ERROR || e.GetTokens() != 7 || e.Duration.AsDuration() != 3*time.Second {
				t.Errorf("End carried %v", e)
			}
			if n := c.Stats().QueuedEnds; n != 0 {
				t.Errorf("%d ends not confirmed", n)
			}
		}, opts...)
	})
}

func TestDurationLeavesOutQueueing(t *testing.T) {
	bothWays(t, func(t *testing.T, opts ...sluice.Option) {
		s := &sluicetest.Server{}
		inBubble(t, s, func(t *testing.T, c *sluice.Client) {
			time.AfterFunc(10*time.Second, func() { s.AddSlots(1) })
			f := c.StartFlow(t.Context(), "checkout", nil)
			if len(opts) == 0 && f.Verdict().Waited != 10*time.Second {
				t.Errorf("waited %v, want 10s", f.Verdict().Waited)
			}
			time.Sleep(2 * time.Second)
			f.End()
			synctest.Wait()
			if d := s.Ends()[0].Duration.AsDuration(); d != 2*time.Second {
				t.Errorf("duration %v, want 2s", d)
			}
		}, opts...)
	})
}

func TestDenial(t *testing.T) {
	bothWays(t, func(t *testing.T, opts ...sluice.Option) {
		s := &sluicetest.Server{Slots: -1, Deny: func(sluicetest.Start) *flowv1.StartResponse {
			return &flowv1.StartResponse{
				Verdict: "deny", Reason: "rate_limited", Message: "too fast", Policy: "login", Limiter: "root.0",
				LimiterKind: "rate_limiter", Account: "user_id:alice", RetryAfterSeconds: proto.Float64(1.5),
				HttpStatus: 429, GrpcCode: int32(codes.ResourceExhausted), WaitedSeconds: 0.25,
			}
		}}
		inBubble(t, s, func(t *testing.T, c *sluice.Client) {
			f := c.StartFlow(t.Context(), "login", sluice.Labels{"user_id": "alice"})
			want := "{Admitted:false Reason:rate_limited Message:too fast Policy:login Limiter:root.0 LimiterKind:rate_limiter " +
				"Account:user_id:alice HTTPStatus:429 GRPCCode:ResourceExhausted Waited:250ms Decisions:[]}"
			if got := fmt.Sprintf("%+v", f.Verdict()); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if d, ok := f.RetryAfter(); d != 1500*time.Millisecond || !ok {
				t.Errorf("retry after %v, %v, want 1.5s", d, ok)
			}
			if f.ShouldRun() || f.Err() != nil || f.HTTPStatus() != 429 {
				t.Errorf("should run %v, err %v, status %d", f.ShouldRun(), f.Err(), f.HTTPStatus())
			}
			wantError := "sluice: login denied (rate_limited): too fast, retry after 1.5s"
			if err := f.Denied(); err == nil || err.Error() != wantError {
				t.Errorf("got %v, want %s", err, wantError)
			}
			if r := f.End(); r != sluice.NothingToEnd {
				t.Errorf("End: got %v, want nothing_to_end", r)
			}
		}, opts...)
	})
}

// TestStrangeDenials: whatever the server leaves out or makes up, a denial stays one and is usable.
func TestStrangeDenials(t *testing.T) {
	for _, denial := range []*flowv1.StartResponse{
		{},
		{HttpStatus: -5, GrpcCode: 99, RetryAfterSeconds: proto.Float64(math.NaN()), WaitedSeconds: math.Inf(1)},
		{HttpStatus: 99_999, GrpcCode: -1, RetryAfterSeconds: proto.Float64(-1), WaitedSeconds: -1},
		{Reason: "admitted", Message: "no", Token: []byte("token")},
	} {
		bothWays(t, func(t *testing.T, opts ...sluice.Option) {
			s := &sluicetest.Server{Slots: -1, Deny: func(sluicetest.Start) *flowv1.StartResponse { return denial }}
			inBubble(t, s, func(t *testing.T, c *sluice.Client) {
				f := c.StartFlow(t.Context(), "login", nil)
				if _, ok := f.RetryAfter(); ok || f.ShouldRun() || f.HTTPStatus() != 503 || f.Verdict().GRPCCode != codes.Unavailable {
					t.Errorf("%v: got %+v", denial, f.Verdict())
				}
				if f.Denied() == nil || f.Verdict().Waited < 0 {
					t.Errorf("%v: got %+v", denial, f.Verdict())
				}
			}, opts...)
		})
	}
}

func TestFlowOptions(t *testing.T) {
	bothWays(t, func(t *testing.T, opts ...sluice.Option) {
		s := &sluicetest.Server{Slots: -1}
		inBubble(t, s, func(t *testing.T, c *sluice.Client) {
			ctx := t.Context()
			c.StartFlow(ctx, "a", nil, sluice.WithServices("web", "api"))
			f := c.StartFlow(ctx, "a", nil, sluice.WithNoEnd(), nil)
			if r := f.End(); r != sluice.NothingToEnd {
				t.Errorf("End of a flow without end: %v", r)
			}
			c.StartFlow(ctx, "a", nil, sluice.WithRampMode())
			c.StartFlow(ctx, "a", nil, sluice.WithQueueTimeout(0))
			c.StartFlow(ctx, "a", nil, sluice.WithQueueTimeout(-time.Second))
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			c.StartFlow(ctx, "a", nil)
			c.StartFlow(ctx, "a", nil, sluice.WithQueueTimeout(time.Millisecond))
			c.StartFlow(ctx, "a", nil, sluice.WithQueueTimeout(time.Hour))
			got := s.Starts()
			if fmt.Sprint(got[0].Services) != "[web api]" || !got[1].NoEnd || got[0].NoEnd || !got[2].RampMode || got[0].RampMode {
				t.Errorf("the server saw %+v", got[:3])
			}
			for i, want := range []time.Duration{0, 0, 980 * time.Millisecond, time.Millisecond, 980 * time.Millisecond} {
				if g := got[3+i]; !g.HasQueueTimeout || g.QueueTimeout != want {
					t.Errorf("flow %d: queue time-out %v, %v, want %v", 3+i, g.QueueTimeout, g.HasQueueTimeout, want)
				}
			}
			for i, g := range got {
				if g.Unary != (len(opts) > 0) {
					t.Errorf("flow %d: unary is %v", i, g.Unary)
				}
			}
		}, opts...)
	})
}

func TestExplainGoesUnary(t *testing.T) {
	s := &sluicetest.Server{Slots: -1}
	inBubble(t, s, func(t *testing.T, c *sluice.Client) {
		f := c.StartFlow(t.Context(), "a", nil, sluice.WithExplain())
		d := f.Verdict().Decisions
		if len(d) != 1 || d[0].Kind != "rate_limiter" || !d[0].Admitted || d[0].Tokens != 1 {
			t.Errorf("decisions %+v", d)
		}
		if g := s.Starts()[0]; !g.Explain || !g.Unary {
			t.Errorf("the server saw %+v", g)
		}
		f.End()
		synctest.Wait()
		if s.Open() != 0 {
			t.Error("the flow is still open")
		}
	})
}

// TestShapesAreBounded: label keys that never repeat fall back to unary calls, and stay right.
func TestShapesAreBounded(t *testing.T) {
	s := &sluicetest.Server{Slots: -1}
	inBubble(t, s, func(t *testing.T, c *sluice.Client) {
		unary := 0
		for i := range 1100 {
			c.StartFlow(t.Context(), "a", sluice.Labels{fmt.Sprint("user-", i): "x"}).End()
		}
		many := make(sluice.Labels)
		for i := range 1000 {
			many[fmt.Sprint("key-", i)] = fmt.Sprint(i)
		}
		c.StartFlow(t.Context(), "b", many).End()
		for i, g := range s.Starts()[:1100] {
			if g.Labels[fmt.Sprint("user-", i)] != "x" || len(g.Labels) != 1 {
				t.Fatalf("flow %d has labels %v", i, g.Labels)
			}
			if g.Unary {
				unary++
			}
		}
		if unary != 1100-1024 {
			t.Errorf("%d unary flows, want %d", unary, 1100-1024)
		}
		if last := s.Starts()[1100]; !last.Unary || last.Labels["key-999"] != "999" || len(last.Labels) != 1000 {
			t.Errorf("the flow with 1000 labels arrived with %d, unary %v", len(last.Labels), last.Unary)
		}
	})
}

func TestHostileInput(t *testing.T) {
	bothWays(t, func(t *testing.T, opts ...sluice.Option) {
		s := &sluicetest.Server{Slots: -1}
		inBubble(t, s, func(t *testing.T, c *sluice.Client) {
			ctx := t.Context()
			huge := strings.Repeat("x", 1<<20)
			for name, f := range map[string]*sluice.Flow{
				"no control point":       c.StartFlow(ctx, "", nil),
				"control point not UTF8": c.StartFlow(ctx, "\xff", nil),
				"key not UTF8":           c.StartFlow(ctx, "a", sluice.Labels{"\xff": "x"}),
				"service not UTF8":       c.StartFlow(ctx, "a", nil, sluice.WithServices("\xff")),
				"huge value":             c.StartFlow(ctx, "a", sluice.Labels{"k": huge}),
				"huge control point":     c.StartFlow(ctx, huge+"x", nil),
			} {
				if f.ShouldRun() || f.Verdict().Reason != "invalid_request" || f.HTTPStatus() != 400 || f.Verdict().GRPCCode != codes.InvalidArgument || f.Err() != nil {
					t.Errorf("%s: got %+v, err %v", name, f.Verdict(), f.Err())
				}
			}
			if n := len(s.Starts()); n != 0 {
				t.Fatalf("%d invalid flows reached the server", n)
			}
			wide := c.StartFlow(ctx, "a", sluice.Labels{"k": huge[:64<<10], "bad": "a\xff\xfeb", "empty": ""})
			if got := s.Starts()[0].Labels; !wide.ShouldRun() || got["bad"] != "a\uFFFDb" || len(got["k"]) != 64<<10 || len(got) != 3 {
				t.Errorf("got %+v", wide.Verdict())
			}
			wide.End(sluice.WithTokens(math.NaN()), sluice.WithStatus(77),
				sluice.WithTokensByLabel(map[string]float64{"in": 3, "nan": math.NaN(), "neg": -1, "inf": math.Inf(1), "huge": 1e300, "\xff": 1}), nil)
			synctest.Wait()
			e := s.Ends()[0]
			if e.Tokens != nil || len(e.TokensByLabel) != 1 || e.TokensByLabel["in"] != 3 || e.Status != flowv1.FlowStatus_FLOW_STATUS_UNSPECIFIED {
				t.Errorf("End carried %v", e)
			}
			//lint:ignore SA1012 a nil context must not panic either
			if f := c.StartFlow(nil, "a", nil); !f.ShouldRun() { //nolint:staticcheck // see above
				t.Errorf("nil context: %+v", f.Verdict())
			}
		}, opts...)
	})
}

func TestNilClientFailsOpen(t *testing.T) {
	var c *sluice.Client
	f := c.StartFlow(t.Context(), "a", nil)
	if !f.ShouldRun() || !errors.Is(f.Err(), sluice.ErrUnavailable) || f.End() != sluice.NothingToEnd || c.Close() != nil {
		t.Errorf("got %+v, err %v", f.Verdict(), f.Err())
	}
	if c.StartFlow(t.Context(), "a", nil, sluice.WithRampMode()).ShouldRun() {
		t.Error("a flow in ramp mode ran")
	}
	var zero sluice.Flow
	if zero.ShouldRun() || zero.Verdict().Admitted || zero.HTTPStatus() != 503 || zero.End() != sluice.NothingToEnd {
		t.Error("the zero flow may run")
	}
}

func TestServerAway(t *testing.T) {
	bothWays(t, func(t *testing.T, opts ...sluice.Option) {
		for _, closed := range []bool{false, true} {
			opts := opts
			if closed {
				opts = append(opts, sluice.WithFailClosed())
			}
			synctest.Test(t, func(t *testing.T) {
				s := &sluicetest.Server{Slots: -1}
				c := newClient(t, s, opts...)
				defer s.Vanish()
				defer c.Close()
				began := time.Now()
				f := c.StartFlow(t.Context(), "a", nil)
				if took := time.Since(began); took != 100*time.Millisecond {
					t.Errorf("the first flow took %v, want 100ms", took)
				}
				if f.ShouldRun() == closed || !errors.Is(f.Err(), sluice.ErrUnavailable) {
					t.Errorf("closed %v: got %+v, err %v", closed, f.Verdict(), f.Err())
				}
				if f.End() != sluice.NothingToEnd {
					t.Error("there is something to end")
				}
				began = time.Now()
				f = c.StartFlow(t.Context(), "a", nil, sluice.WithRampMode())
				wantReason(t, f, sluice.ReasonFailClosed)
				f = c.StartFlow(t.Context(), "a", nil, sluice.WithExplain())
				if f.ShouldRun() == closed || f.Err() == nil {
					t.Errorf("explain: got %+v", f.Verdict())
				}
				if took := time.Since(began); took != 0 {
					t.Errorf("later flows took %v, want nothing", took)
				}
				s.Listen()
				time.Sleep(6 * time.Second) // the longest back-off
				f = c.StartFlow(t.Context(), "a", nil)
				wantReason(t, f, "admitted")
			})
		}
	})
}

func TestUnavailableTimeoutZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sluicetest.Server{}
		c := newClient(t, s, sluice.WithUnavailableTimeout(0))
		defer c.Close()
		began := time.Now()
		f := c.StartFlow(t.Context(), "a", nil)
		if took := time.Since(began); took != 0 || f.Err() == nil || !strings.Contains(f.Err().Error(), sluicetest.Addr) {
			t.Errorf("took %v, err %v", took, f.Err())
		}
	})
}

// TestShortOutage: flows wait for a server that comes back in time.
func TestShortOutage(t *testing.T) {
	bothWays(t, func(t *testing.T, opts ...sluice.Option) {
		s := &sluicetest.Server{Slots: -1}
		inBubble(t, s, func(t *testing.T, c *sluice.Client) {
			wantReason(t, c.StartFlow(t.Context(), "a", nil), "admitted")
			s.Vanish()
			synctest.Wait()
			time.AfterFunc(10*time.Millisecond, s.Listen)
			f := c.StartFlow(t.Context(), "a", nil)
			wantReason(t, f, "admitted")
			if r := f.End(); r != sluice.Ended {
				t.Errorf("End: %v", r)
			}
		}, opts...)
	})
}

// TestVanishMidWait: waiting flows are asked for again once, and decided without the server after that.
func TestVanishMidWait(t *testing.T) {
	bothWays(t, func(t *testing.T, opts ...sluice.Option) {
		s := &sluicetest.Server{MinPingTime: 10 * time.Second}
		inBubble(t, s, func(t *testing.T, c *sluice.Client) {
			flows := make(chan *sluice.Flow)
			go func() { flows <- c.StartFlow(context.Background(), "a", nil) }()
			time.Sleep(time.Hour)
			if n := s.Connections(); n != 1 {
				t.Errorf("%d connections while a flow waits, want 1", n)
			}
			s.Vanish()
			s.Listen()
			time.Sleep(time.Second)
			if n := s.Queued(); n < 1 {
				t.Fatalf("%d flows wait after a restart, want 1", n)
			}
			s.AddSlots(1)
			f := <-flows
			wantReason(t, f, "admitted")
			f.End()

			s.Set(func(s *sluicetest.Server) { s.Slots = 0 })
			go func() { flows <- c.StartFlow(context.Background(), "a", nil) }()
			time.Sleep(time.Hour)
			began := time.Now()
			s.Vanish()
			f = <-flows
			wantReason(t, f, sluice.ReasonFailOpen)
			if took := time.Since(began); took > 100*time.Millisecond {
				t.Errorf("took %v, want 100ms at most", took)
			}
		}, opts...)
	})
}

// TestPingsUnwelcome: a server with grpc-go's own ping policy breaks idle connections a few times until
// the client has learnt; a waiting flow survives that.
func TestPingsUnwelcome(t *testing.T) {
	s := &sluicetest.Server{}
	inBubble(t, s, func(t *testing.T, c *sluice.Client) {
		time.AfterFunc(24*time.Hour, func() { s.AddSlots(1) })
		f := c.StartFlow(t.Context(), "a", nil)
		wantReason(t, f, "admitted")
		f.End()
		if n := s.Connections(); n < 2 || n > 6 {
			t.Errorf("%d connections in a day, want 2 to 6", n)
		}
	})
}

// TestEndsSurviveOutage: Ends that were queued, or sent into a dying connection, arrive later.
func TestEndsSurviveOutage(t *testing.T) {
	bothWays(t, func(t *testing.T, opts ...sluice.Option) {
		s := &sluicetest.Server{Slots: -1}
		inBubble(t, s, func(t *testing.T, c *sluice.Client) {
			var flows []*sluice.Flow
			for range 1000 {
				flows = append(flows, c.StartFlow(t.Context(), "a", nil))
			}
			for i, f := range flows {
				if i == 500 {
					s.Vanish()
				}
				if r := f.End(); r != sluice.Ended {
					t.Fatalf("End: %v", r)
				}
			}
			time.Sleep(time.Minute)
			s.Listen()
			time.Sleep(time.Minute)
			if n := s.Open(); n != 0 {
				t.Errorf("%d flows are still open", n)
			}
			if st := c.Stats(); st.QueuedEnds != 0 || st.DroppedEnds != 0 || !st.Connected {
				t.Errorf("stats %+v", st)
			}
		}, opts...)
	})
}

func TestCancelWhileWaiting(t *testing.T) {
	bothWays(t, func(t *testing.T, opts ...sluice.Option) {
		s := &sluicetest.Server{}
		inBubble(t, s, func(t *testing.T, c *sluice.Client) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			began := time.Now()
			f := c.StartFlow(ctx, "a", nil)
			if took := time.Since(began); took != time.Second {
				t.Errorf("returned after %v, want 1s", took)
			}
			wantReason(t, f, sluice.ReasonCancelled)
			if f.ShouldRun() || f.Err() != nil {
				t.Errorf("got %+v, err %v", f.Verdict(), f.Err())
			}
			synctest.Wait()
			if n := s.Queued(); n != 0 {
				t.Errorf("%d flows still wait in the server", n)
			}
			wantReason(t, c.StartFlow(ctx, "a", nil), sluice.ReasonCancelled)
		}, opts...)
	})
}

// TestLateAdmission: the server admits a flow whose caller has gone; its slot must come back.
func TestLateAdmission(t *testing.T) {
	s := &sluicetest.Server{IgnoreCancels: true}
	inBubble(t, s, func(t *testing.T, c *sluice.Client) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		f := c.StartFlow(ctx, "a", nil, sluice.WithServices("x"))
		if f.ShouldRun() {
			t.Fatalf("got %+v, want a denial", f.Verdict())
		}
		s.AddSlots(1)
		synctest.Wait()
		if s.Open() != 0 {
			t.Errorf("admitted %d, still open %v", s.Admitted(), s.Tokens())
		}
	})
}

func TestDeadline(t *testing.T) {
	bothWays(t, func(t *testing.T, opts ...sluice.Option) {
		s := &sluicetest.Server{}
		inBubble(t, s, func(t *testing.T, c *sluice.Client) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began := time.Now()
			f := c.StartFlow(ctx, "a", nil)
			wantReason(t, f, sluice.ReasonQueueTimeout)
			if took := time.Since(began); took != 980*time.Millisecond || f.ShouldRun() || f.Err() != nil {
				t.Errorf("took %v, want the server's answer after 980ms; err %v", took, f.Err())
			}
			time.Sleep(time.Second)
			wantReason(t, c.StartFlow(ctx, "a", nil), sluice.ReasonQueueTimeout)
			began = time.Now()
			f = c.StartFlow(t.Context(), "a", nil, sluice.WithQueueTimeout(5*time.Second))
			wantReason(t, f, sluice.ReasonQueueTimeout)
			if took := time.Since(began); took != 5*time.Second {
				t.Errorf("took %v, want 5s", took)
			}
		}, opts...)
	})
}

// TestSilentServer: a server that takes flows and does not answer counts as away.
func TestSilentServer(t *testing.T) {
	bothWays(t, func(t *testing.T, opts ...sluice.Option) {
		s := &sluicetest.Server{Silent: true}
		inBubble(t, s, func(t *testing.T, c *sluice.Client) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began := time.Now()
			f := c.StartFlow(ctx, "a", nil)
			if took := time.Since(began); took != time.Second {
				t.Errorf("took %v, want 1s", took)
			}
			wantReason(t, f, sluice.ReasonFailOpen)
			began = time.Now()
			f = c.StartFlow(t.Context(), "a", nil, sluice.WithQueueTimeout(0))
			if took := time.Since(began); took < time.Second || took > 1200*time.Millisecond {
				t.Errorf("took %v, want about 1s", took)
			}
			wantReason(t, f, sluice.ReasonFailOpen)
		}, opts...)
	})
}

// TestRefused: a server that refuses the client is asked more and more slowly, and flows do not wait
// for it.
func TestRefused(t *testing.T) {
	bothWays(t, func(t *testing.T, opts ...sluice.Option) {
		var log bytes.Buffer
		s := &sluicetest.Server{Refuse: status.Error(codes.Unauthenticated, "bad token")}
		inBubble(t, s, func(t *testing.T, c *sluice.Client) {
			f := c.StartFlow(t.Context(), "a", nil)
			if status.Code(f.Err()) != codes.Unauthenticated || !strings.Contains(fmt.Sprint(f.Err()), "bad token") || !f.ShouldRun() {
				t.Errorf("err %v, want the server's", f.Err())
			}
			time.Sleep(time.Hour)
			if n := len(s.Metadata()); n > 4000 {
				t.Errorf("asked %d times in an hour", n)
			}
			began := time.Now()
			f = c.StartFlow(t.Context(), "a", nil)
			if took := time.Since(began); took > 0 || f.Err() == nil {
				t.Errorf("took %v, err %v", took, f.Err())
			}
			s.Set(func(s *sluicetest.Server) { s.Refuse, s.Slots = nil, -1 })
			time.Sleep(6 * time.Second)
			wantReason(t, c.StartFlow(t.Context(), "a", nil), "admitted")
		}, append(opts, sluice.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))...)
		if lines := strings.Count(log.String(), "\n"); lines > 2 {
			t.Errorf("%d lines of log:\n%s", lines, log.String())
		}
	})
}

func TestMetadata(t *testing.T) {
	bothWays(t, func(t *testing.T, opts ...sluice.Option) {
		s := &sluicetest.Server{Slots: -1}
		inBubble(t, s, func(t *testing.T, c *sluice.Client) {
			ctx := metadata.AppendToOutgoingContext(t.Context(), "secret", "for others", "authorization", "Bearer other")
			c.StartFlow(ctx, "a", nil)
			c.StartFlow(ctx, "a", nil, sluice.WithExplain())
			for _, md := range s.Metadata() {
				if got := fmt.Sprint(md["authorization"]); got != "[Bearer t0ken]" || len(md["secret"]) != 0 {
					t.Errorf("authorization %s, secret %v", got, md["secret"])
				}
				if ua := fmt.Sprint(md["user-agent"]); !strings.Contains(ua, "sluice-go/") {
					t.Errorf("user agent %s", ua)
				}
			}
			if md, _ := metadata.FromOutgoingContext(ctx); len(md["secret"]) != 1 {
				t.Error("the caller's metadata was changed")
			}
		}, append(opts, sluice.WithToken("t0ken"))...)
	})
}

func TestMaxWaiting(t *testing.T) {
	bothWays(t, func(t *testing.T, opts ...sluice.Option) {
		s := &sluicetest.Server{}
		inBubble(t, s, func(t *testing.T, c *sluice.Client) {
			flows := make(chan *sluice.Flow)
			for range 3 {
				go func() { flows <- c.StartFlow(context.Background(), "a", nil) }()
			}
			synctest.Wait()
			if n := c.Stats().Waiting; n != 3 {
				t.Errorf("%d wait, want 3", n)
			}
			f := c.StartFlow(t.Context(), "a", nil)
			wantReason(t, f, sluice.ReasonQueueFull)
			if f.ShouldRun() || f.Err() != nil {
				t.Errorf("got %+v, err %v", f.Verdict(), f.Err())
			}
			s.AddSlots(3)
			for range 3 {
				(<-flows).End()
			}
		}, append(opts, sluice.WithMaxWaiting(3))...)
	})
}

func TestTenThousandWait(t *testing.T) {
	const n = 10_000
	s := &sluicetest.Server{Slots: -1}
	inBubble(t, s, func(t *testing.T, c *sluice.Client) {
		c.StartFlow(t.Context(), "a", nil).End()
		synctest.Wait()
		s.Set(func(s *sluicetest.Server) { s.Slots = 0 })
		flows := make(chan *sluice.Flow)
		ctx, cancel := context.WithCancel(context.Background())
		for i := range n {
			ctx := ctx
			if i%2 == 0 {
				ctx = context.Background()
			}
			go func() { flows <- c.StartFlow(ctx, "a", sluice.Labels{"user_id": fmt.Sprint(i % 100)}) }()
		}
		synctest.Wait()
		if got := s.Queued(); got != n {
			t.Fatalf("%d flows wait in the server, want %d", got, n)
		}
		largest := 0
		for _, b := range s.Batches() {
			largest = max(largest, b)
		}
		if largest < 64 || largest > 256 {
			t.Errorf("the largest message carried %d flows, want 64 to 256", largest)
		}
		cancel()
		for range n / 2 {
			wantReason(t, <-flows, sluice.ReasonCancelled)
		}
		synctest.Wait()
		if got := s.Queued(); got != n/2 {
			t.Fatalf("%d flows wait in the server, want %d", got, n/2)
		}
		s.AddSlots(n)
		for range n / 2 {
			(<-flows).End()
		}
		synctest.Wait()
		if s.Open() != 0 || c.Stats().Waiting != 0 {
			t.Errorf("%d flows open, %d waiting", s.Open(), c.Stats().Waiting)
		}
	})
}

func TestCloseWhileWaiting(t *testing.T) {
	bothWays(t, func(t *testing.T, opts ...sluice.Option) {
		s := &sluicetest.Server{Slots: 1}
		inBubble(t, s, func(t *testing.T, c *sluice.Client) {
			first := c.StartFlow(t.Context(), "a", nil)
			flows := make(chan *sluice.Flow)
			for range 10 {
				go func() { flows <- c.StartFlow(context.Background(), "a", nil) }()
			}
			synctest.Wait()
			first.End() // admits one more, whose verdict races with Close
			go c.Close()
			began := time.Now()
			c.Close()
			if took := time.Since(began); took > time.Second {
				t.Errorf("Close took %v", took)
			}
			for range 10 {
				if f := <-flows; errors.Is(f.Err(), sluice.ErrClosed) != (f.Verdict().Reason == sluice.ReasonFailOpen) {
					t.Errorf("got %+v, err %v", f.Verdict(), f.Err())
				} else if f.Err() == nil {
					if r := f.End(); r != sluice.ClientClosed {
						t.Errorf("End: %v", r)
					}
				}
			}
			f := c.StartFlow(t.Context(), "a", nil)
			if !errors.Is(f.Err(), sluice.ErrClosed) {
				t.Errorf("after Close: err %v", f.Err())
			}
			synctest.Wait()
			if s.Queued() != 0 {
				t.Errorf("%d flows still wait in the server", s.Queued())
			}
		}, opts...)
	})
}

// TestCloseDeliversEnds is the short program: start, work, end, close.
func TestCloseDeliversEnds(t *testing.T) {
	bothWays(t, func(t *testing.T, opts ...sluice.Option) {
		s := &sluicetest.Server{Slots: -1}
		inBubble(t, s, func(t *testing.T, c *sluice.Client) {
			var flows []*sluice.Flow
			for range 1000 {
				flows = append(flows, c.StartFlow(t.Context(), "a", nil))
			}
			for _, f := range flows {
				f.End()
			}
			began := time.Now()
			c.Close()
			if took := time.Since(began); s.Open() != 0 || took != 0 {
				t.Errorf("%d flows open after Close, which took %v", s.Open(), took)
			}
		}, opts...)
	})
}

func TestNewClientRefuses(t *testing.T) {
	t.Setenv("SLUICE_SERVER", "")
	for addr, want := range map[string]string{
		"localhost":           `sluice: server address "localhost": want host:port, for example 127.0.0.1:8080`,
		":8080":               "want host:port",
		"ftp://a:1":           `got scheme "ftp", want http or https`,
		"http://":             "want only scheme, host and port",
		"https://a:1/path":    "want only scheme, host and port",
		"http://user:pw@a:80": "want only scheme, host and port",
		"http://a:x":          "invalid port",
	} {
		if _, err := sluice.NewClient(addr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", addr, err, want)
		}
	}
	for want, opt := range map[string]sluice.Option{
		"sluice: WithMaxWaiting(0): want 1 to 100000":          sluice.WithMaxWaiting(0),
		"sluice: WithUnavailableTimeout(-1ns): want 0 or more": sluice.WithUnavailableTimeout(-1),
	} {
		if _, err := sluice.NewClient("", opt); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	for _, addr := range []string{"", "localhost:1", "http://localhost", "https://[::1]:8443/", "unix:///tmp/x", "dns:///a:1"} {
		c, err := sluice.NewClient(addr, nil, sluice.WithToken("x"), sluice.WithTLS(nil))
		if err != nil {
			t.Errorf("%q: %v", addr, err)
			continue
		}
		c.Close()
	}
}
