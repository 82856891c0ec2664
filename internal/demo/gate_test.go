// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
)

// flowService admits every flow whose tier is paid and denies the others.
type flowService struct {
	flowv1.UnimplementedFlowServiceServer

	mu    sync.Mutex
	ends  []*flowv1.EndRequest
	auth  []string
	ended chan struct{}
}

func (s *flowService) end(ctx context.Context, end *flowv1.EndRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends = append(s.ends, end)
	md, _ := metadata.FromIncomingContext(ctx)
	s.auth = md.Get("authorization")
	s.ended <- struct{}{}
}

func (s *flowService) Start(_ context.Context, req *flowv1.StartRequest) (*flowv1.StartResponse, error) {
	if !req.GetExplain() {
		return nil, errors.New("want probes only")
	}
	return &flowv1.StartResponse{Verdict: "admit", Reason: reasonNoPolicy, Token: []byte("probe")}, nil
}

func (s *flowService) End(ctx context.Context, req *flowv1.EndRequest) (*flowv1.EndResponse, error) {
	s.end(ctx, req)
	return &flowv1.EndResponse{Result: "ended"}, nil
}

func (s *flowService) Stream(stream flowv1.FlowService_StreamServer) error {
	shapes := map[uint32]*flowv1.Shape{}
	for {
		req, err := stream.Recv()
		if err != nil {
			return nil
		}
		resp := &flowv1.StreamResponse{}
		for _, shape := range req.GetShapes() {
			shapes[shape.GetId()] = shape
		}
		for _, start := range req.GetStarts() {
			v := &flowv1.StreamVerdict{Id: start.GetId(), Admitted: true, Token: []byte("stream"), WaitedNanos: int64(3 * time.Second)}
			for i, key := range shapes[start.GetShape()].GetLabelKeys() {
				if key == "user_tier" && start.GetValues()[i] != "paid" {
					v = &flowv1.StreamVerdict{Id: start.GetId(), Denial: &flowv1.StartResponse{Verdict: "deny", Reason: "queue_timeout", Message: "waited too long"}}
				}
			}
			resp.Verdicts = append(resp.Verdicts, v)
		}
		for _, end := range req.GetEnds() {
			s.end(stream.Context(), end.GetEnd())
			resp.Ends = append(resp.Ends, &flowv1.StreamEnded{Id: end.GetId(), Result: "ended"})
		}
		if err := stream.Send(resp); err != nil {
			return nil
		}
	}
}

func TestSDKGate(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	service := &flowService{ended: make(chan struct{}, 10)}
	server := grpc.NewServer()
	flowv1.RegisterFlowServiceServer(server, service)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		server.Stop()
		<-served
	}()
	g, err := newSDKGate(l.Addr().String(), "secret")
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()

	admitted := g.start(t.Context(), "cp", map[string]string{"user_tier": "paid"})
	if v := admitted.verdict(); !v.run || v.reason != "admitted" || v.waited != 3*time.Second || v.err != nil {
		t.Errorf("paid: got %+v, want it admitted after 3 s", v)
	}
	admitted.end(42, errors.New("failed"))
	<-service.ended
	if end := service.ends[0]; end.GetTokens() != 42 || end.GetStatus() != flowv1.FlowStatus_FLOW_STATUS_ERROR || string(end.GetToken()) != "stream" {
		t.Errorf("end: got %v, want 42 tokens and an error", end)
	}
	if len(service.auth) != 1 || service.auth[0] != "Bearer secret" {
		t.Errorf("authorization %q, want the token", service.auth)
	}

	denied := g.start(t.Context(), "cp", map[string]string{"user_tier": "open_source"})
	if v := denied.verdict(); v.run || v.reason != "queue_timeout" || v.message != "waited too long" {
		t.Errorf("open_source: got %+v, want it denied with the reason", v)
	}
	denied.end(-1, nil)

	unknown := g.start(t.Context(), "cp", map[string]string{"user_tier": "paid"})
	unknown.end(-1, nil)
	<-service.ended
	if end := service.ends[1]; end.Tokens != nil || end.GetStatus() != flowv1.FlowStatus_FLOW_STATUS_OK {
		t.Errorf("end without a count: got %v, want no tokens", end)
	}

	free := g.start(t.Context(), "cp", map[string]string{"user_tier": "paid"})
	free.end(0, nil)
	<-service.ended
	if end := service.ends[2]; end.Tokens == nil || end.GetTokens() != 0 {
		t.Errorf("end of a flow that cost nothing: got %v, want 0 tokens", end)
	}

	if reason, err := g.probe(t.Context(), "cp", nil); reason != reasonNoPolicy || err != nil {
		t.Errorf("probe: got %q, %v; want %q", reason, err, reasonNoPolicy)
	}
	<-service.ended
}

// A server that is not there is said to be, before anything else happens.
func TestRunWithoutServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	err = Run(t.Context(), Config{Name: "mistral", Server: addr, OutputDir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v, want an error that names the address and the cause", err)
	}
}
