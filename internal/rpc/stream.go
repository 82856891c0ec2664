// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/limit"
)

// Bounds of one stream.
const (
	maxShapes       = 4096
	maxWaitingFlows = 100_000 // per stream, with those decided that the client has not read yet
	maxBatch        = 65_536  // starts and ends of one message
)

// messageStream is what a gRPC and a connect stream have in common.
type messageStream interface {
	SendMsg(m any) error
	RecvMsg(m any) error
}

// Stream implements FlowServiceServer.
func (s *FlowService) Stream(stream flowv1.FlowService_StreamServer) error {
	return s.serve(stream.Context(), stream)
}

// serve handles one stream. Flows decided at once are answered in the message that answers their batch;
// those that wait are answered by a second goroutine, in batches of what has come together.
func (s *FlowService) serve(ctx context.Context, ms messageStream) error {
	c := newFlowStream(ctx, s.engine, ms)
	var wg sync.WaitGroup
	wg.Go(c.sendLate)
	err := c.receive()
	c.cancelAll()
	close(c.done)
	wg.Wait()
	return err
}

func newFlowStream(ctx context.Context, engine *flow.Engine, ms messageStream) *flowStream {
	return &flowStream{
		engine: engine, ctx: ctx, ms: ms,
		shapes: make(map[uint32]*streamShape), waiting: make(map[uint64]*flow.Flow),
		late: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

type streamShape struct {
	*flow.Shape
	noEnd, ramp bool
}

// flowStream is the state of one stream.
type flowStream struct {
	engine *flow.Engine
	ctx    context.Context
	ms     messageStream
	shapes map[uint32]*streamShape // of the receiving goroutine
	now    batch                   // of the receiving goroutine
	// everWaited spares the lock where nothing waits; of the receiving goroutine.
	everWaited bool

	sendMu sync.Mutex // one SendMsg at a time

	mu      sync.Mutex
	waiting map[uint64]*flow.Flow
	early   []*flow.Flow // decided before Begin could return
	decided []*flow.Flow
	closed  bool
	late    chan struct{}
	done    chan struct{}
}

// batch is a response under construction, with memory that is reused.
type batch struct {
	resp     flowv1.StreamResponse
	verdicts []flowv1.StreamVerdict
	tokens   []byte
}

// room makes space for n verdicts that stay where they are until reset.
func (b *batch) room(n int) {
	b.resp.Verdicts, b.resp.Ends = b.resp.Verdicts[:0], b.resp.Ends[:0]
	b.tokens = b.tokens[:0]
	if cap(b.verdicts) < n {
		b.verdicts = make([]flowv1.StreamVerdict, 0, n)
	}
	b.verdicts = b.verdicts[:0]
}

func (b *batch) add(f *flow.Flow, noEnd bool) {
	b.verdicts = append(b.verdicts, flowv1.StreamVerdict{})
	v := &b.verdicts[len(b.verdicts)-1]
	v.Id, v.Admitted, v.WaitedNanos = f.Tag, f.Admitted(), int64(f.Verdict.Waited)
	switch {
	case !v.Admitted:
		v.Denial = toAPIVerdict(f)
	case !noEnd:
		from := len(b.tokens)
		b.tokens = f.Seal(b.tokens)
		v.Token = b.tokens[from:len(b.tokens):len(b.tokens)]
	}
	b.resp.Verdicts = append(b.resp.Verdicts, v)
}

func (b *batch) empty() bool { return len(b.resp.Verdicts) == 0 && len(b.resp.Ends) == 0 }

func (c *flowStream) receive() error {
	var in flowv1.StreamRequest
	for {
		in.ResetVT()
		if err := c.ms.RecvMsg(&in); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := c.handle(&in); err != nil {
			return err
		}
	}
}

func (c *flowStream) handle(in *flowv1.StreamRequest) error {
	if len(in.Starts)+len(in.Ends) > maxBatch {
		return status.Errorf(codes.InvalidArgument, "a message has %d starts and ends; expected at most %d", len(in.Starts)+len(in.Ends), maxBatch)
	}
	for _, sh := range in.Shapes {
		if err := c.addShape(sh); err != nil {
			return err
		}
	}
	for _, id := range in.Cancels {
		c.cancel(id)
	}
	c.now.room(len(in.Starts))
	now := c.engine.Now()
	for _, st := range in.Starts {
		if err := c.start(st, now); err != nil {
			c.giveUpNow()
			return err
		}
	}
	for _, end := range in.Ends {
		c.end(end)
	}
	if c.now.empty() {
		return nil
	}
	if err := c.send(&c.now); err != nil {
		c.giveUpNow()
		return err
	}
	return nil
}

// giveUpNow ends the flows admitted by a message that will not be answered: nobody has their tokens.
func (c *flowStream) giveUpNow() {
	none := 0.0
	for _, v := range c.now.resp.Verdicts {
		if len(v.Token) > 0 {
			// The only error is an invalid token, and this one was sealed here a moment ago.
			_, _ = c.engine.EndToken(v.Token, &flow.Outcome{Failed: true, Tokens: &none})
		}
	}
}

func (c *flowStream) send(b *batch) error {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	return c.ms.SendMsg(&b.resp)
}

func (c *flowStream) addShape(in *flowv1.Shape) error {
	if len(c.shapes) >= maxShapes && c.shapes[in.Id] == nil {
		return status.Errorf(codes.ResourceExhausted, "a stream may define %d shapes; reuse ids", maxShapes)
	}
	sh, err := flow.NewShape(in.ControlPoint, in.LabelKeys, in.Services)
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "shape %d: %v", in.Id, err)
	}
	c.shapes[in.Id] = &streamShape{sh, in.NoEnd, in.RampMode}
	return nil
}

func (c *flowStream) start(in *flowv1.StreamStart, now limit.Instant) error {
	shape := c.shapes[in.Shape]
	if shape == nil {
		return status.Errorf(codes.InvalidArgument, "start %d refers to shape %d, which this stream has not defined", in.Id, in.Shape)
	}
	r := flow.Request{
		Shape: shape.Shape, Values: in.Values, QueueTimeout: -1, NoEnd: shape.noEnd,
		RampMode: shape.ramp, Tag: in.Id, Now: now,
	}
	if in.QueueTimeoutNanos != nil {
		r.QueueTimeout = max(0, time.Duration(*in.QueueTimeoutNanos))
	}
	if c.everWaited {
		if err := c.checkRoom(in.Id); err != nil {
			return err
		}
	}
	f, pending := c.engine.Begin(context.Background(), &r, c)
	if !pending {
		c.now.add(f, shape.noEnd)
		f.Free()
		return nil
	}
	c.everWaited = true
	c.mu.Lock()
	if i := indexOf(c.early, f); i >= 0 {
		c.early = append(c.early[:i], c.early[i+1:]...)
		c.decided = append(c.decided, f)
		c.signalLocked()
	} else {
		c.waiting[in.Id] = f
	}
	c.mu.Unlock()
	return nil
}

func indexOf(list []*flow.Flow, f *flow.Flow) int {
	for i, x := range list {
		if x == f {
			return i
		}
	}
	return -1
}

// checkRoom refuses what would make the stream hold too much, or two flows of one id.
func (c *flowStream) checkRoom(id uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting[id] != nil {
		return status.Errorf(codes.InvalidArgument, "id %d is in use by a flow that waits; ids must be unique among waiting flows", id)
	}
	if len(c.waiting)+len(c.decided) >= maxWaitingFlows {
		return status.Errorf(codes.ResourceExhausted, "%d flows of this stream are waiting or have verdicts that the client has not read; "+
			"that is as many as may: read the answers, or use more streams", maxWaitingFlows)
	}
	return nil
}

// Decided implements flow.Listener.
func (c *flowStream) Decided(f *flow.Flow) {
	c.mu.Lock()
	known := c.waiting[f.Tag] == f
	switch {
	case known && !c.closed:
		delete(c.waiting, f.Tag)
		c.decided = append(c.decided, f)
		c.signalLocked()
	case !known && !c.closed:
		c.early = append(c.early, f)
	}
	closed := c.closed
	c.mu.Unlock()
	if closed {
		giveUp(f)
	}
}

// giveUp ends a flow whose verdict nobody will hear.
func giveUp(f *flow.Flow) {
	if f.Admitted() {
		f.Abort()
	} else {
		f.Free()
	}
}

func (c *flowStream) signalLocked() {
	select {
	case c.late <- struct{}{}:
	default:
	}
}

// sendLate answers flows that had to wait, until the stream is done.
func (c *flowStream) sendLate() {
	var b batch
	var flows []*flow.Flow
	for {
		select {
		case <-c.late:
		case <-c.done:
			c.abandon()
			return
		}
		c.mu.Lock()
		flows, c.decided = c.decided, flows[:0]
		c.mu.Unlock()
		b.room(len(flows))
		for _, f := range flows {
			b.add(f, f.NoEnd())
		}
		err := c.send(&b)
		for i, f := range flows {
			if err != nil {
				giveUp(f) // the stream is gone: the client will never know that it may run
			} else {
				f.Free()
			}
			flows[i] = nil
		}
	}
}

// abandon gives up flows that were decided when nobody could be told any more.
func (c *flowStream) abandon() {
	c.mu.Lock()
	left := c.decided
	c.decided = nil
	c.mu.Unlock()
	for _, f := range left {
		giveUp(f)
	}
}

func (c *flowStream) cancel(id uint64) {
	var wakes flow.Wakes
	c.mu.Lock()
	if f := c.waiting[id]; f != nil && f.Cancel(&wakes) {
		delete(c.waiting, id)
		c.decided = append(c.decided, f)
		c.signalLocked()
	}
	c.mu.Unlock()
	wakes.Run()
}

// cancelAll ends the wait of every flow, because the client has gone. Flows about to be decided are
// given up when they are.
func (c *flowStream) cancelAll() {
	var wakes flow.Wakes
	c.mu.Lock()
	c.closed = true
	for _, f := range c.waiting {
		if f.Cancel(&wakes) {
			f.Free()
		}
	}
	c.waiting = nil
	c.mu.Unlock()
	wakes.Run()
}

func (c *flowStream) end(in *flowv1.StreamEnd) {
	result := "invalid_token"
	if in.End != nil {
		if o, err := fromAPIOutcome(in.End); err != nil {
			result = "invalid_request"
		} else if r, err := c.engine.EndToken(in.End.Token, &o); err == nil {
			result = r.String()
		}
	}
	if in.Id != 0 {
		c.now.resp.Ends = append(c.now.resp.Ends, &flowv1.StreamEnded{Id: in.Id, Result: result})
	}
}
