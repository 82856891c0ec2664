// SPDX-License-Identifier: Apache-2.0

package sluice

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
)

const (
	// maxBatch bounds the Starts, and the Ends, of one message. Past 64 a message costs little more than
	// its content; 256 keeps one message below a millisecond of work for the server.
	maxBatch = 256

	// maxBatchBytes bounds the label text of one message, which with the largest flow added stays below
	// the 4 MiB that gRPC servers accept.
	maxBatchBytes = 1 << 20

	// maxCancels bounds the cancellations of one message.
	maxCancels = 4096

	// maxKept bounds the verdicts of a message whose memory is kept for the next one.
	maxKept = 1024

	// answerGrace is how long past its queue time-out a flow waits for the answer, before the server
	// counts as silent. It covers the way there and back and a busy moment of either side.
	answerGrace = time.Second

	// healthyAfter is how long a stream must have lasted without an answer for its end to count as a
	// new outage. Streams that end sooner are refused ones, and opened again more and more slowly.
	healthyAfter = time.Second
)

type callState uint8

const (
	callQueued    callState = iota // in Client.queue
	callAsked                      // in Client.asked; the caller waits
	callAbandoned                  // in Client.asked; the caller has gone, an admission must be ended
	callDone                       // answer or err is set
)

// call is a flow on its way through the stream.
type call struct {
	shape    *shape
	values   []string
	size     int           // bytes of text
	deadline time.Time     // of the context; zero: none
	maxQueue time.Duration // see flowOptions.queueTimeout
	hasMax   bool
	started  time.Time
	done     chan struct{} // 1; signalled once, when the state becomes callDone

	// Client.mu guards these until done.
	id     uint64
	state  callState
	resent bool // it was on a stream that broke; a second one that breaks soon after may be its fault
	sentAt time.Time
	answer answer
	err    error
}

// answer is the server's verdict on a call. The zero value is none.
type answer struct {
	given    bool
	admitted bool
	token    []byte
	waited   time.Duration
	denial   *flowv1.StartResponse
}

// Why a caller stops waiting for its call, besides ErrClosed and errors of the link.
var (
	errCallerGone  = errors.New("the context was cancelled")
	errNoTimeLeft  = errors.New("the time to wait is over")
	errQueueFull   = errors.New("too many flows wait in this client")
	errNotSent     = errors.New("the flow could not be sent before the time to wait was over")
	errNotAnswered = errors.New("the server took the flow and did not answer in time")
	errStreamEnded = errors.New("the server closed the stream")
)

// startStream asks for a flow on the stream and waits for the verdict.
func (c *Client) startStream(ctx context.Context, f *Flow, s *shape, values []string, size int, o flowOptions) {
	call := c.newCall()
	call.shape, call.values, call.size = s, values, size
	call.maxQueue, call.hasMax = o.queueTimeout, o.hasQueueTimeout
	call.started = time.Now()
	call.deadline, _ = ctx.Deadline()
	if c.enqueue(call) {
		c.signal()
		c.await(ctx, call)
	}
	switch {
	case call.answer.given:
		f.answerStream(&call.answer, o.rampMode)
		c.recycle(call)
	case errors.Is(call.err, errCallerGone):
		f.denyDone(context.Canceled)
	case errors.Is(call.err, errNoTimeLeft):
		f.denyDone(context.DeadlineExceeded)
	case errors.Is(call.err, errQueueFull):
		f.denyFull(c.maxWaiting)
	default:
		f.decideWithout(call.err, o.rampMode)
	}
}

// newCall returns a call that is like new.
func (c *Client) newCall() *call {
	if used, ok := c.spare.Get().(*call); ok {
		return used
	}
	return &call{done: make(chan struct{}, 1)}
}

// recycle gives back an answered call.
func (c *Client) recycle(used *call) {
	select {
	case <-used.done: // the context was done at the same moment, so nobody took the signal
	default:
	}
	*used = call{done: used.done}
	c.spare.Put(used)
}

// enqueue takes a call for sending. False means that it is decided already.
func (c *Client) enqueue(call *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		call.err = ErrClosed
	case c.link.away:
		call.err = c.unavailableLocked()
	case c.waiting < c.maxWaiting:
		c.waiting++
		c.lastID++
		call.id = c.lastID
		c.queue = append(c.queue, call)
		return true
	case c.link.up:
		call.err = errQueueFull
	default:
		call.err = c.unavailableLocked()
	}
	return false
}

// await waits until the call is done.
func (c *Client) await(ctx context.Context, call *call) {
	var over <-chan time.Time
	if call.hasMax {
		timer := time.NewTimer(call.maxQueue + answerGrace)
		defer timer.Stop()
		over = timer.C
	}
	why := errNoTimeLeft
	select {
	case <-call.done:
		return
	case <-over:
	case <-ctx.Done():
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			why = errCallerGone
		}
	}
	c.mu.Lock()
	c.abandonLocked(call, why)
	c.mu.Unlock()
	c.signal()
}

// abandonLocked ends the wait for a call whose verdict may still come.
func (c *Client) abandonLocked(call *call, why error) {
	switch call.state {
	case callQueued:
		if why == errNoTimeLeft && !(c.link.up && c.link.lastHeard.After(call.started)) { //nolint:errorlint // our own value, not wrapped
			why = fmt.Errorf("%w: %s: %w", ErrUnavailable, c.addr, errNotSent)
		}
		c.finishLocked(call, answer{}, why)
		c.dead++
		if c.dead > 1024 && c.dead > len(c.queue)/2 {
			c.queue = slices.DeleteFunc(c.queue, isDone)
			c.dead = 0
		}
	case callAsked:
		if why == errNoTimeLeft && !c.link.lastHeard.After(call.sentAt) { //nolint:errorlint // as above
			why = fmt.Errorf("%w: %s: %w", ErrUnavailable, c.addr, errNotAnswered)
		}
		c.finishLocked(call, answer{}, why)
		call.state = callAbandoned
		c.abandoned++
		c.cancels = append(c.cancels, call.id)
	}
}

func isDone(call *call) bool { return call.state == callDone }

// finishLocked decides a call whose caller waits. It does nothing for one that is decided already.
func (c *Client) finishLocked(call *call, a answer, err error) {
	if call.state != callQueued && call.state != callAsked {
		return
	}
	call.answer, call.err, call.state = a, err, callDone
	c.waiting--
	call.done <- struct{}{}
}

// runStream keeps a stream open until the client is closed.
func (c *Client) runStream() {
	refused := 0
	for c.ctx.Err() == nil {
		opened := time.Now()
		ctx, cancel := context.WithCancelCause(c.ctx)
		stream, err := c.rpc.Stream(ctx, callOptions...)
		heard := false
		if err == nil {
			heard, err = c.serve(ctx, cancel, stream)
		}
		cancel(nil)
		if c.ctx.Err() != nil {
			return
		}
		healthy := heard || stream != nil && time.Since(opened) >= healthyAfter
		c.streamLost(err, healthy)
		switch {
		case healthy:
			refused = 0
		case stream == nil && c.conn.GetState() == connectivity.TransientFailure:
			c.conn.WaitForStateChange(c.ctx, connectivity.TransientFailure) // gRPC has its own backoff
		default:
			sleep(c.ctx, fullJitter(refused, connectBaseDelay, connectMaxDelay))
			refused++
		}
	}
}

// serve sends and receives until the stream breaks. It says whether the server answered anything.
func (c *Client) serve(ctx context.Context, cancel context.CancelCauseFunc, stream bidi) (heard bool, err error) {
	c.linkUp()
	received := make(chan struct{})
	go func() {
		defer close(received)
		m := new(flowv1.StreamResponse)
		for {
			if m.ResetVT(); cap(m.Verdicts) > maxKept {
				m = new(flowv1.StreamResponse)
			}
			err := stream.RecvMsg(m)
			if err != nil {
				if errors.Is(err, io.EOF) {
					err = errStreamEnded
				}
				cancel(err)
				return
			}
			if !heard {
				heard = true
				c.linkProven()
			}
			if err := c.deliver(m); err != nil {
				cancel(err)
				return
			}
		}
	}()
	c.send(ctx, stream)
	<-received
	return heard, context.Cause(ctx)
}

type bidi = grpc.BidiStreamingClient[flowv1.StreamRequest, flowv1.StreamResponse]

// send sends whatever is queued until the stream breaks; the receiver then knows why.
func (c *Client) send(ctx context.Context, stream bidi) {
	known := make(map[*shape]bool) // to the server, on this stream
	var scratch batch
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		// Let the flows that are about to start join this message. Without it the sender runs as soon as
		// the first one waits, and every message carries one flow.
		runtime.Gosched()
		for c.take(&scratch) {
			err := stream.Send(scratch.message(known))
			clear(scratch.calls) // they belong to their callers again
			if err != nil {
				return
			}
			runtime.Gosched()
		}
	}
}

// batch is what goes into one message.
type batch struct {
	calls   []*call
	ends    []*flowv1.EndRequest
	endsID  uint64 // the id of the last End
	cancels []uint64
	now     time.Time
}

// take moves the oldest work into b; false when there is none.
func (c *Client) take(b *batch) bool {
	b.calls, b.ends, b.cancels = b.calls[:0], nil, nil
	b.now = time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	n, size := 0, 0
	for _, call := range c.queue {
		if len(b.calls) == maxBatch || size > maxBatchBytes {
			break
		}
		n++
		if call.state != callQueued {
			c.dead--
			continue
		}
		size += call.size
		call.state, call.sentAt = callAsked, b.now
		c.asked[call.id] = call
		b.calls = append(b.calls, call)
	}
	clear(c.queue[:n])
	if n == len(c.queue) {
		c.queue = c.queue[:0]
	} else {
		c.queue = c.queue[n:]
	}
	if b.ends = c.ends.pop(maxBatch); len(b.ends) > 0 {
		c.lastID++
		b.endsID = c.lastID
		c.sentEnds = append(c.sentEnds, unconfirmed{b.endsID, b.ends})
		if len(c.sentEnds) > maxUnconfirmed {
			c.sentEnds = slices.Delete(c.sentEnds, 0, 1)
		}
	}
	if n := min(len(c.cancels), maxCancels); n > 0 {
		b.cancels = slices.Clone(c.cancels[:n])
		c.cancels = slices.Delete(c.cancels, 0, n)
	}
	return len(b.calls) > 0 || len(b.ends) > 0 || len(b.cancels) > 0
}

// message writes the batch down. Shapes the server does not know yet come first. The message is new
// each time because gRPC may keep it.
func (b *batch) message(known map[*shape]bool) *flowv1.StreamRequest {
	m := &flowv1.StreamRequest{Cancels: b.cancels}
	if n := len(b.calls); n > 0 {
		starts := make([]flowv1.StreamStart, n)
		m.Starts = make([]*flowv1.StreamStart, n)
		for i, call := range b.calls {
			if !known[call.shape] {
				known[call.shape] = true
				m.Shapes = append(m.Shapes, call.shape.message())
			}
			start := &starts[i]
			start.Id, start.Shape, start.Values = call.id, call.shape.id, call.values
			if left, bounded := call.queueTime(b.now); bounded {
				nanos := int64(left)
				start.QueueTimeoutNanos = &nanos
			}
			m.Starts[i] = start
		}
	}
	if n := len(b.ends); n > 0 {
		ends := make([]flowv1.StreamEnd, n)
		m.Ends = make([]*flowv1.StreamEnd, n)
		for i, end := range b.ends {
			ends[i].End = end
			m.Ends[i] = &ends[i]
		}
		ends[n-1].Id = b.endsID
	}
	return m
}

// queueTime is how long the server may let the call wait; false means until it is cancelled.
func (call *call) queueTime(now time.Time) (time.Duration, bool) {
	left, bounded := call.maxQueue, call.hasMax
	if bounded && call.resent {
		left -= now.Sub(call.started)
	}
	if !call.deadline.IsZero() {
		left, bounded = earlier(left, bounded, untilDeadline(call.deadline, now)), true
	}
	return max(left, 0), bounded
}

// untilDeadline is the time to spend in queues so that the answer arrives before the deadline: a tenth,
// between 1 ms and 20 ms, is kept for the way back.
func untilDeadline(deadline, now time.Time) time.Duration {
	left := deadline.Sub(now)
	return max(0, left-min(max(left/10, time.Millisecond), 20*time.Millisecond))
}

// earlier is the smaller of b and, if it is bounded, a.
func earlier(a time.Duration, bounded bool, b time.Duration) time.Duration {
	if bounded {
		return min(a, b)
	}
	return b
}

// deliver hands answers to the calls that wait for them. The error says that the stream is of no use.
func (c *Client) deliver(m *flowv1.StreamResponse) error {
	c.mu.Lock()
	c.link.lastHeard = time.Now()
	end := false
	for _, v := range m.Verdicts {
		call := c.asked[v.Id]
		if call == nil {
			continue // not ours, or answered twice: its token may belong to a flow that runs
		}
		delete(c.asked, v.Id)
		if call.state == callAbandoned {
			c.abandoned--
			if v.Admitted && len(v.Token) > 0 { // nobody will run it
				c.ends.push(&flowv1.EndRequest{Token: bytes.Clone(v.Token)})
				end = true
			}
			continue
		}
		c.finishLocked(call, answer{
			given: true, admitted: v.Admitted, token: bytes.Clone(v.Token), // v is reused for the next message
			waited: time.Duration(v.WaitedNanos), denial: v.Denial,
		}, nil)
	}
	for _, e := range m.Ends {
		c.sentEnds = slices.DeleteFunc(c.sentEnds, func(u unconfirmed) bool { return u.id == e.Id })
	}
	silent := c.abandoned > c.maxWaiting
	c.checkDrainedLocked()
	c.mu.Unlock()
	if end {
		c.signal()
	}
	if silent {
		return fmt.Errorf("%d cancelled flows are not answered", c.maxWaiting)
	}
	return nil
}

// streamLost decides what becomes of the work that was on a stream that broke.
func (c *Client) streamLost(err error, healthy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	var again []*call
	for _, call := range c.asked {
		switch {
		case call.state == callAbandoned: // the server denies what still waits on a closed stream
			c.abandoned--
		case c.closed || final(err) || call.resent && now.Sub(call.sentAt) < healthyAfter:
			c.finishLocked(call, answer{}, fmt.Errorf("%w: %s: %w", ErrUnavailable, c.addr, err))
		default:
			call.state, call.resent = callQueued, true
			again = append(again, call)
		}
	}
	clear(c.asked)
	c.cancels = nil
	slices.SortFunc(again, func(a, b *call) int { return cmp.Compare(a.id, b.id) })
	c.queue = append(again, c.queue...)
	for _, m := range slices.Backward(c.sentEnds) {
		c.ends.requeue(m.ends)
	}
	c.sentEnds = nil
	c.linkLostLocked(err, healthy)
	c.checkDrainedLocked()
}

// final says whether asking the same server again would give the same error.
func final(err error) bool {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented, codes.InvalidArgument:
		return true
	}
	return false
}
