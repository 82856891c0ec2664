// SPDX-License-Identifier: Apache-2.0

// Package sluicetest is a small Sluice server in memory, for the tests of the client.
package sluicetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	cachev1 "github.com/sluice-project/sluice/api/gen/sluice/cache/v1"
	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

// Addr is the address clients use with Server.Dial; nothing listens there.
const Addr = "127.0.0.1:8080"

// Start is a flow as the server sees it, however it was asked for.
type Start struct {
	ControlPoint    string
	Labels          map[string]string
	Services        []string
	NoEnd           bool
	RampMode        bool
	Explain         bool
	Unary           bool
	QueueTimeout    time.Duration
	HasQueueTimeout bool
}

// Server decides flows. Set the exported fields before Listen; the methods may be called concurrently.
type Server struct {
	// Deny answers a denial, or nil to admit the flow as soon as a slot is free. Nil denies none.
	Deny func(Start) *flowv1.StartResponse
	// Slots bounds the flows in flight. Less than zero means no bound; zero holds all flows until
	// Release or AddSlots.
	Slots int
	// IgnoreCancels leaves cancelled flows in the queue, as if the cancellation arrived too late.
	IgnoreCancels bool
	// Refuse fails every call with this error.
	Refuse error
	// MinPingTime is how often clients may ping; zero means 5 minutes, the default of grpc-go.
	MinPingTime time.Duration
	// Silent takes flows and never answers.
	Silent bool

	mu        sync.Mutex
	listener  *bufconn.Listener
	grpc      *grpc.Server
	lastID    uint64
	queue     []*held
	open      map[string]bool // tokens admitted and not ended
	admitted  int
	ends      []*flowv1.EndRequest
	starts    []Start
	batches   []int // flows per stream message
	metadata  []metadata.MD
	conns     int
	values    map[string][]byte // of the caches
	computing map[string]bool   // keys that a flow leads
}

// held is a flow in the queue.
type held struct {
	noEnd  bool
	stream any // the stream it came on; nil for unary calls
	id     uint64
	since  time.Time
	timer  *time.Timer
	answer func(*flowv1.StreamVerdict)
}

// Listen starts, or starts again, to accept connections.
func (s *Server) Listen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = make(map[string]bool)
	}
	s.listener = bufconn.Listen(1 << 20)
	// As a Sluice server is set up; the default of grpc-go breaks connections that ping twice a minute.
	s.grpc = grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: s.MinPingTime}))
	flowv1.RegisterFlowServiceServer(s.grpc, service{s: s})
	cachev1.RegisterCacheServiceServer(s.grpc, caches{s: s})
	go func(g *grpc.Server, l net.Listener) { _ = g.Serve(l) }(s.grpc, s.listener)
}

// Vanish breaks all connections and accepts no new ones.
func (s *Server) Vanish() {
	s.mu.Lock()
	g, l := s.grpc, s.listener
	s.grpc, s.listener = nil, nil
	s.mu.Unlock()
	if g != nil {
		_ = l.Close()
		g.Stop()
	}
}

// Dial connects to the server, for grpc.WithContextDialer.
func (s *Server) Dial(ctx context.Context, _ string) (net.Conn, error) {
	s.mu.Lock()
	l := s.listener
	s.conns++
	s.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	return l.DialContext(ctx)
}

// AddSlots lets n more flows be in flight.
func (s *Server) AddSlots(n int) {
	s.mu.Lock()
	s.Slots += n
	run := s.admitQueuedLocked()
	s.mu.Unlock()
	run()
}

// Set changes the exported fields of a running server.
func (s *Server) Set(change func(*Server)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// Queued is the number of flows that wait.
func (s *Server) Queued() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.queue) }

// Open is the number of flows admitted with a token and not ended.
func (s *Server) Open() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.open) }

// Admitted is the number of flows ever admitted.
func (s *Server) Admitted() int { s.mu.Lock(); defer s.mu.Unlock(); return s.admitted }

// Connections is the number of attempts to connect.
func (s *Server) Connections() int { s.mu.Lock(); defer s.mu.Unlock(); return s.conns }

// Ends lists the Ends that arrived.
func (s *Server) Ends() []*flowv1.EndRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ends)
}

// Starts lists the flows that arrived.
func (s *Server) Starts() []Start { s.mu.Lock(); defer s.mu.Unlock(); return slices.Clone(s.starts) }

// Batches lists how many flows each message of a stream carried.
func (s *Server) Batches() []int { s.mu.Lock(); defer s.mu.Unlock(); return slices.Clone(s.batches) }

// Metadata lists the metadata of all calls.
func (s *Server) Metadata() []metadata.MD {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.metadata)
}

// start decides a flow, now or later.
func (s *Server) start(in Start, h *held) {
	s.mu.Lock()
	s.starts = append(s.starts, in)
	if s.Silent {
		s.mu.Unlock()
		return
	}
	if s.Deny != nil {
		if denial := s.Deny(in); denial != nil {
			s.mu.Unlock()
			h.answer(&flowv1.StreamVerdict{Id: h.id, Denial: denial})
			return
		}
	}
	h.since, h.noEnd = time.Now(), in.NoEnd
	s.queue = append(s.queue, h)
	run := s.admitQueuedLocked()
	if in.HasQueueTimeout && slices.Contains(s.queue, h) {
		h.timer = time.AfterFunc(in.QueueTimeout, func() { s.deny(h, "queue_timeout") })
	}
	s.mu.Unlock()
	run()
}

// admitQueuedLocked admits what fits; the result sends the verdicts and is called without the lock.
func (s *Server) admitQueuedLocked() func() {
	var run []func()
	for len(s.queue) > 0 && (s.Slots < 0 || len(s.open) < s.Slots) {
		h := s.queue[0]
		s.queue = s.queue[1:]
		if h.timer != nil {
			h.timer.Stop()
		}
		s.admitted++
		v := &flowv1.StreamVerdict{Id: h.id, Admitted: true, WaitedNanos: int64(time.Since(h.since))}
		if !h.noEnd {
			s.lastID++
			v.Token = fmt.Appendf(nil, "token-%d", s.lastID)
			s.open[string(v.Token)] = true
		}
		run = append(run, func() { h.answer(v) })
	}
	return func() {
		for _, f := range run {
			f()
		}
	}
}

// deny answers a flow that still waits.
func (s *Server) deny(h *held, reason string) {
	s.mu.Lock()
	i := slices.Index(s.queue, h)
	if i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
	}
	s.mu.Unlock()
	if i >= 0 {
		h.answer(&flowv1.StreamVerdict{Id: h.id, Denial: &flowv1.StartResponse{
			Verdict: "deny", Reason: reason, HttpStatus: 503, GrpcCode: int32(codes.ResourceExhausted),
		}})
	}
}

// end ends a flow.
func (s *Server) end(end *flowv1.EndRequest) string {
	s.mu.Lock()
	s.ends = append(s.ends, end)
	known := s.open[string(end.Token)]
	delete(s.open, string(end.Token))
	run := s.admitQueuedLocked()
	s.mu.Unlock()
	run()
	if !known {
		return "already_ended"
	}
	return "ended"
}

func (s *Server) called(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.metadata = append(s.metadata, md)
	return s.Refuse
}

// service is the gRPC side of a Server.
type service struct {
	flowv1.UnimplementedFlowServiceServer
	s *Server
}

// Start implements FlowService.
func (v service) Start(ctx context.Context, r *flowv1.StartRequest) (*flowv1.StartResponse, error) {
	if err := v.s.called(ctx); err != nil {
		return nil, err
	}
	in := Start{
		ControlPoint: r.ControlPoint, Labels: r.Labels, Services: r.Services, NoEnd: r.NoEnd, RampMode: r.RampMode,
		Explain: r.Explain, Unary: true, QueueTimeout: r.QueueTimeout.AsDuration(), HasQueueTimeout: r.QueueTimeout != nil,
	}
	verdicts := make(chan *flowv1.StreamVerdict, 1)
	h := &held{answer: func(v *flowv1.StreamVerdict) { verdicts <- v }}
	v.s.start(in, h)
	select {
	case verdict := <-verdicts:
		if !verdict.Admitted {
			return verdict.Denial, nil
		}
		resp := &flowv1.StartResponse{Verdict: "admit", Reason: "admitted", Token: verdict.Token}
		if r.Cache != nil {
			resp.Cache = v.s.cached(r)
		}
		if r.Explain {
			resp.Decisions = []*flowv1.LimiterDecision{{Policy: "p", Limiter: "root.0", Kind: "rate_limiter", Admitted: true, Tokens: 1}}
		}
		return resp, nil
	case <-ctx.Done():
		v.s.deny(h, "cancelled")
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

// End implements FlowService.
func (v service) End(ctx context.Context, r *flowv1.EndRequest) (*flowv1.EndResponse, error) {
	if err := v.s.called(ctx); err != nil {
		return nil, err
	}
	return &flowv1.EndResponse{Result: v.s.end(r)}, nil
}

// Stream implements FlowService.
func (v service) Stream(stream grpc.BidiStreamingServer[flowv1.StreamRequest, flowv1.StreamResponse]) error {
	if err := v.s.called(stream.Context()); err != nil {
		return err
	}
	c := &conn{s: v.s, stream: stream, shapes: make(map[uint32]*flowv1.Shape), held: make(map[uint64]*held)}
	defer c.closed()
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := c.handle(m); err != nil {
			return err
		}
	}
}

// conn is one stream.
type conn struct {
	s      *Server
	stream grpc.BidiStreamingServer[flowv1.StreamRequest, flowv1.StreamResponse]
	shapes map[uint32]*flowv1.Shape
	held   map[uint64]*held
	send   sync.Mutex
}

func (c *conn) handle(m *flowv1.StreamRequest) error {
	for _, shape := range m.Shapes {
		if len(shape.ControlPoint) > 255 {
			return status.Error(codes.InvalidArgument, "control point is longer than 255 bytes")
		}
		c.shapes[shape.Id] = shape
	}
	if len(m.Starts) > 0 {
		c.s.mu.Lock()
		c.s.batches = append(c.s.batches, len(m.Starts))
		c.s.mu.Unlock()
	}
	for _, start := range m.Starts {
		shape := c.shapes[start.Shape]
		if shape == nil || len(shape.LabelKeys) != len(start.Values) {
			return status.Errorf(codes.InvalidArgument, "flow %d does not fit shape %d", start.Id, start.Shape)
		}
		in := Start{
			ControlPoint: shape.ControlPoint, Labels: make(map[string]string), Services: shape.Services,
			NoEnd: shape.NoEnd, RampMode: shape.RampMode,
			QueueTimeout: time.Duration(start.GetQueueTimeoutNanos()), HasQueueTimeout: start.QueueTimeoutNanos != nil,
		}
		for i, key := range shape.LabelKeys {
			in.Labels[key] = start.Values[i]
		}
		h := &held{stream: c, id: start.Id, answer: c.verdict}
		c.held[start.Id] = h
		c.s.start(in, h)
	}
	for _, end := range m.Ends {
		result := c.s.end(end.End)
		if end.Id != 0 {
			c.answer(&flowv1.StreamResponse{Ends: []*flowv1.StreamEnded{{Id: end.Id, Result: result}}})
		}
	}
	c.s.mu.Lock()
	ignore := c.s.IgnoreCancels
	c.s.mu.Unlock()
	for _, id := range m.Cancels {
		if h := c.held[id]; h != nil && !ignore {
			c.s.deny(h, "cancelled")
		}
	}
	return nil
}

func (c *conn) verdict(v *flowv1.StreamVerdict) {
	c.answer(&flowv1.StreamResponse{Verdicts: []*flowv1.StreamVerdict{v}})
}

func (c *conn) answer(m *flowv1.StreamResponse) {
	c.send.Lock()
	defer c.send.Unlock()
	_ = c.stream.Send(m) // a broken stream is noticed by Recv
}

// closed denies the flows that still wait on the stream.
func (c *conn) closed() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.queue = slices.DeleteFunc(c.s.queue, func(h *held) bool { return h.stream == c })
	clear(c.held)
}

// Tokens lists the tokens of the flows in flight.
func (s *Server) Tokens() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.open))
}
