// SPDX-License-Identifier: Apache-2.0

package sluice

import (
	"context"
	"errors"
	"fmt"
	"time"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	// endSenders is how many Ends a client made WithUnary delivers at the same time.
	endSenders = 4

	// endTimeout bounds the delivery of one End, after which it is tried again.
	endTimeout = 5 * time.Second
)

// startUnary asks for a flow in a call of its own.
func (c *Client) startUnary(ctx context.Context, f *Flow, controlPoint string, labels Labels, o flowOptions) {
	if err := c.enter(); err != nil {
		if errors.Is(err, errQueueFull) {
			f.denyFull(c.maxWaiting)
		} else {
			f.decideWithout(err, o.rampMode)
		}
		return
	}
	defer c.leave()
	asked := time.Now()
	resp, err := c.callStart(ctx, controlPoint, labels, o)
	switch {
	case err == nil:
		f.answerUnary(resp, o.rampMode)
		f.answerCache(resp.Cache, o)
	case status.Code(err) == codes.InvalidArgument:
		f.deny(ReasonInvalidRequest, status.Convert(err).Message(), 400, codes.InvalidArgument)
	case errors.Is(ctx.Err(), context.Canceled):
		f.denyDone(context.Canceled)
	case status.Code(err) == codes.DeadlineExceeded && c.heardSince(asked):
		f.denyDone(context.DeadlineExceeded)
	case c.isClosed():
		f.decideWithout(ErrClosed, o.rampMode)
	case errors.Is(err, ErrUnavailable):
		f.decideWithout(err, o.rampMode)
	default:
		f.decideWithout(fmt.Errorf("%w: %s: %w", ErrUnavailable, c.addr, err), o.rampMode)
	}
}

// callStart makes the call, and again if the connection broke: as with streams, not after two that broke
// soon.
func (c *Client) callStart(ctx context.Context, controlPoint string, labels Labels, o flowOptions) (*flowv1.StartResponse, error) {
	req := startRequest(controlPoint, labels, o)
	began := time.Now()
	// The caller's outgoing metadata is meant for its own servers.
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(ctx, nil))
	defer cancel()
	defer context.AfterFunc(c.asking, cancel)()
	if o.hasQueueTimeout {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, c.unavailableTimeout+o.queueTimeout+answerGrace)
		defer stop()
	}
	for again := true; ; {
		if err := c.awaitLink(ctx); err != nil {
			return nil, err
		}
		sent := time.Now()
		req.QueueTimeout = queueTimeout(ctx, o, began, sent)
		resp, err := c.rpc.Start(ctx, req, callOptions...)
		if err == nil {
			c.mu.Lock()
			c.link.lastHeard = time.Now()
			c.mu.Unlock()
			return resp, nil
		}
		lasted := time.Since(sent) >= healthyAfter
		if status.Code(err) != codes.Unavailable || ctx.Err() != nil || !again && !lasted {
			return nil, err
		}
		again = lasted
	}
}

// queueTimeout is how long the server may let the flow wait; nil means until the call is cancelled.
func queueTimeout(ctx context.Context, o flowOptions, began, now time.Time) *durationpb.Duration {
	left, bounded := max(0, o.queueTimeout-now.Sub(began)), o.hasQueueTimeout
	if deadline, ok := ctx.Deadline(); ok {
		left, bounded = earlier(left, bounded, untilDeadline(deadline, now)), true
	}
	if !bounded {
		return nil
	}
	return durationpb.New(left)
}

func startRequest(controlPoint string, labels Labels, o flowOptions) *flowv1.StartRequest {
	req := &flowv1.StartRequest{
		ControlPoint: controlPoint,
		Services:     o.services,
		NoEnd:        o.noEnd,
		Explain:      o.explain,
		RampMode:     o.rampMode,
		Cache:        o.cacheLookup(),
		Labels:       make(map[string]string, len(labels)),
	}
	for key, value := range labels {
		req.Labels[key] = validValue(value)
	}
	return req
}

// enter counts a flow that waits in a call of its own.
func (c *Client) enter() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return ErrClosed
	case c.waiting < c.maxWaiting:
		c.waiting++
		return nil
	case c.link.up:
		return errQueueFull
	}
	return c.unavailableLocked()
}

func (c *Client) leave() {
	c.mu.Lock()
	c.waiting--
	c.mu.Unlock()
}

func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// heardSince says whether the server answered anything after t.
func (c *Client) heardSince(t time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link.lastHeard.After(t)
}

// deliverEnds delivers Ends one by one until the client is closed.
func (c *Client) deliverEnds() {
	for failed := 0; c.ctx.Err() == nil; {
		end := c.takeEnd()
		if end == nil {
			select {
			case <-c.wake:
			case <-c.ctx.Done():
			}
			continue
		}
		err := c.awaitLinkForever()
		if err == nil {
			ctx, cancel := context.WithTimeout(c.ctx, endTimeout)
			_, err = c.rpc.End(ctx, end, callOptions...)
			cancel()
		}
		again := retryEnd(err)
		c.endDelivered(end, again)
		if again {
			sleep(c.ctx, fullJitter(failed, connectBaseDelay, connectMaxDelay))
			failed++
		} else {
			failed = 0
		}
	}
}

// takeEnd takes one End for delivery, and wakes another sender if there are more.
func (c *Client) takeEnd() *flowv1.EndRequest {
	c.mu.Lock()
	ends := c.ends.pop(1)
	more := c.ends.len() > 0
	c.delivery += len(ends)
	c.mu.Unlock()
	if more {
		c.signal()
	}
	if len(ends) == 0 {
		return nil
	}
	return ends[0]
}

// endDelivered settles an End that was taken; again puts it back.
func (c *Client) endDelivered(end *flowv1.EndRequest, again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.delivery--
	if again {
		c.ends.requeue([]*flowv1.EndRequest{end})
	}
	c.checkDrainedLocked()
}

// awaitLinkForever waits until the server can be reached. It fails only when the client stops.
func (c *Client) awaitLinkForever() error {
	for {
		c.mu.Lock()
		up, changed := c.link.up, c.link.changed
		c.mu.Unlock()
		if up {
			return nil
		}
		select {
		case <-changed:
		case <-c.ctx.Done():
			return c.ctx.Err()
		}
	}
}

// retryEnd says whether a failed End may succeed later.
func retryEnd(err error) bool {
	switch status.Code(err) {
	case codes.OK, codes.InvalidArgument, codes.NotFound, codes.Unimplemented, codes.FailedPrecondition, codes.OutOfRange:
		return false
	}
	return true
}
