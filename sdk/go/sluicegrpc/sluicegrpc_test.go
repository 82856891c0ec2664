// SPDX-License-Identifier: Apache-2.0

package sluicegrpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	sluice "github.com/sluice-project/sluice/sdk/go"
	"github.com/sluice-project/sluice/sdk/go/internal/sluicetest"
	"github.com/sluice-project/sluice/sdk/go/sluicegrpc"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// app is the service that the interceptors guard; the flow API lends its shape.
type app struct {
	flowv1.UnimplementedFlowServiceServer
	fail error
}

func (a *app) Start(ctx context.Context, _ *flowv1.StartRequest) (*flowv1.StartResponse, error) {
	if a.fail != nil {
		return nil, a.fail
	}
	return &flowv1.StartResponse{Verdict: fmt.Sprint(sluice.FlowFrom(ctx).ShouldRun())}, nil
}

func (a *app) Stream(stream grpc.BidiStreamingServer[flowv1.StreamRequest, flowv1.StreamResponse]) error {
	for {
		if _, err := stream.Recv(); err != nil {
			if errors.Is(err, io.EOF) {
				return a.fail
			}
			return err
		}
		if err := stream.Send(&flowv1.StreamResponse{}); err != nil {
			return err
		}
	}
}

// world is a Sluice server, its client, and an application with interceptors on one side.
type world struct {
	sluice *sluicetest.Server
	client *sluice.Client
	app    *app
	rpc    flowv1.FlowServiceClient
}

// inWorld runs a test in virtual time.
func inWorld(t *testing.T, s *sluicetest.Server, onServer bool, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s.Listen()
		c, err := sluice.NewClient(sluicetest.Addr, sluice.WithDialOptions(grpc.WithContextDialer(s.Dial)))
		if err != nil {
			t.Fatal(err)
		}
		ignore := sluicegrpc.WithIgnoredMethods(flowv1.FlowService_End_FullMethodName)
		dial := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
		var serve []grpc.ServerOption
		if onServer {
			serve = []grpc.ServerOption{
				grpc.UnaryInterceptor(sluicegrpc.UnaryServerInterceptor(c, "rpc", ignore)),
				grpc.StreamInterceptor(sluicegrpc.StreamServerInterceptor(c, "rpc", ignore)),
			}
		} else {
			dial = append(dial, grpc.WithUnaryInterceptor(sluicegrpc.UnaryClientInterceptor(c, "rpc", ignore)),
				grpc.WithStreamInterceptor(sluicegrpc.StreamClientInterceptor(c, "rpc", ignore)))
		}
		l := bufconn.Listen(1 << 16)
		g := grpc.NewServer(serve...)
		w := &world{sluice: s, client: c, app: &app{}}
		flowv1.RegisterFlowServiceServer(g, w.app)
		go g.Serve(l)
		dial = append(dial, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
		conn, err := grpc.NewClient("passthrough:///app", dial...)
		if err != nil {
			t.Fatal(err)
		}
		w.rpc = flowv1.NewFlowServiceClient(conn)
		test(t, w)
		conn.Close()
		g.Stop()
		c.Close()
		s.Vanish()
		synctest.Wait()
	})
}

// bothSides runs a test with the interceptors on the server and on the client.
func bothSides(t *testing.T, test func(t *testing.T, onServer bool)) {
	t.Run("server", func(t *testing.T) { test(t, true) })
	t.Run("client", func(t *testing.T) { test(t, false) })
}

// wantEnds says how the flows ended so far, all of them.
func wantEnds(t *testing.T, w *world, want ...flowv1.FlowStatus) {
	t.Helper()
	synctest.Wait()
	var got []flowv1.FlowStatus
	for _, e := range w.sluice.Ends() {
		got = append(got, e.Status)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || w.sluice.Open() != 0 {
		t.Errorf("flows ended as %v, want %v; %d open", got, want, w.sluice.Open())
	}
}

const (
	ok     = flowv1.FlowStatus_FLOW_STATUS_OK
	failed = flowv1.FlowStatus_FLOW_STATUS_ERROR
)

func TestUnary(t *testing.T) {
	bothSides(t, func(t *testing.T, onServer bool) {
		inWorld(t, &sluicetest.Server{Slots: -1}, onServer, func(t *testing.T, w *world) {
			resp, err := w.rpc.Start(t.Context(), &flowv1.StartRequest{})
			if err != nil || onServer && resp.Verdict != "true" {
				t.Fatalf("got %v, %v", resp, err)
			}
			if in := w.sluice.Starts()[0]; in.ControlPoint != "rpc" || in.Labels["rpc.method"] != flowv1.FlowService_Start_FullMethodName {
				t.Errorf("flow %+v", in)
			}
			w.app.fail = status.Error(codes.NotFound, "no such thing")
			if _, err := w.rpc.Start(t.Context(), &flowv1.StartRequest{}); status.Code(err) != codes.NotFound {
				t.Errorf("got %v", err)
			}
			w.app.fail = status.Error(codes.Internal, "broken")
			w.rpc.Start(t.Context(), &flowv1.StartRequest{})
			if onServer { // not finding something is no failure of the server
				wantEnds(t, w, ok, ok, failed)
			} else {
				wantEnds(t, w, ok, failed, failed)
			}
			w.rpc.End(t.Context(), &flowv1.EndRequest{})
			if n := len(w.sluice.Starts()); n != 3 {
				t.Errorf("%d flows, want none for the ignored method", n)
			}
		})
	})
}

func TestStream(t *testing.T) {
	bothSides(t, func(t *testing.T, onServer bool) {
		inWorld(t, &sluicetest.Server{Slots: -1}, onServer, func(t *testing.T, w *world) {
			for _, w.app.fail = range []error{nil, status.Error(codes.Internal, "broken")} {
				stream, err := w.rpc.Stream(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for range 3 {
					stream.Send(&flowv1.StreamRequest{})
					if _, err := stream.Recv(); err != nil {
						t.Fatal(err)
					}
				}
				if w.sluice.Open() != 1 {
					t.Errorf("%d flows open during the stream, want 1", w.sluice.Open())
				}
				stream.CloseSend()
				stream.Recv()
				synctest.Wait()
			}
			wantEnds(t, w, ok, failed)
			ctx, cancel := context.WithCancel(t.Context())
			if _, err := w.rpc.Stream(ctx); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			cancel()
			if onServer { // a caller that goes away is no failure of the server
				wantEnds(t, w, ok, failed, ok)
			} else {
				wantEnds(t, w, ok, failed, failed)
			}
		})
	})
}

func TestDenied(t *testing.T) {
	bothSides(t, func(t *testing.T, onServer bool) {
		s := &sluicetest.Server{Deny: func(sluicetest.Start) *flowv1.StartResponse {
			return &flowv1.StartResponse{
				Verdict: "deny", Reason: "rate_limited", Message: "too fast", Policy: "login", Limiter: "root.0",
				GrpcCode: int32(codes.ResourceExhausted), RetryAfterSeconds: proto.Float64(1.5),
			}
		}}
		inWorld(t, s, onServer, func(t *testing.T, w *world) {
			_, unary := w.rpc.Start(t.Context(), &flowv1.StartRequest{})
			stream, streaming := w.rpc.Stream(t.Context())
			if streaming == nil {
				_, streaming = stream.Recv()
			}
			for _, err := range []error{unary, streaming} {
				st := status.Convert(err)
				if st.Code() != codes.ResourceExhausted || st.Message() != "too fast" || len(st.Details()) != 2 {
					t.Fatalf("got %v with %v", err, st.Details())
				}
				retry, _ := st.Details()[0].(*errdetails.RetryInfo)
				info, _ := st.Details()[1].(*errdetails.ErrorInfo)
				if retry.GetRetryDelay().AsDuration() != 1500*time.Millisecond || info.GetReason() != "rate_limited" || info.GetMetadata()["policy"] != "login" {
					t.Errorf("details %v", st.Details())
				}
			}
		})
	})
}

func TestPanic(t *testing.T) {
	inWorld(t, &sluicetest.Server{Slots: -1}, true, func(t *testing.T, w *world) {
		intercept := sluicegrpc.UnaryServerInterceptor(w.client, "rpc", nil, sluicegrpc.WithFlowOptions(sluice.WithQueueTimeout(0)),
			sluicegrpc.WithLabels(func(_ context.Context, m string) sluice.Labels { return sluice.Labels{"m": m} }))
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was lost")
				}
			}()
			intercept(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/a/b"}, func(context.Context, any) (any, error) { panic("x") })
		}()
		wantEnds(t, w, failed)
		if in := w.sluice.Starts()[0]; in.Labels["m"] != "/a/b" || !in.HasQueueTimeout {
			t.Errorf("flow %+v", in)
		}
	})
}

func TestDeniedStatusHidesTheServer(t *testing.T) {
	var c *sluice.Client
	f := c.StartFlow(t.Context(), "rpc", nil, sluice.WithRampMode())
	if st := sluicegrpc.DeniedStatus(f); st.Code() != codes.Unavailable || st.Message() != "load management is unavailable" {
		t.Errorf("got %v", st)
	}
	if st := sluicegrpc.DeniedStatus(c.StartFlow(t.Context(), "rpc", nil)); st.Code() != codes.OK {
		t.Errorf("got %v for a flow that may run", st)
	}
}
