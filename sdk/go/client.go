// SPDX-License-Identifier: Apache-2.0

package sluice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/sluice-project/sluice/api/codec"
	cachev1 "github.com/sluice-project/sluice/api/gen/sluice/cache/v1"
	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

var (
	// ErrUnavailable is wrapped by Flow.Err when the server could not be asked, or did not answer.
	ErrUnavailable = errors.New("sluice: server unavailable")
	// ErrClosed is wrapped by Flow.Err when the client was closed before the flow had its verdict.
	ErrClosed = errors.New("sluice: client closed")
)

// closeGrace is how long Close waits for the server to confirm the last Ends.
const closeGrace = time.Second

// Client asks one Sluice server, or one cluster behind one address. Make it once with NewClient and
// share it: all methods may be called concurrently. A nil Client fails open.
//
// Lock order: mu is the only lock of a client; nothing waits, logs or sends while holding it.
type Client struct {
	addr               string
	failClosed         bool
	unary              bool
	maxWaiting         int
	unavailableTimeout time.Duration
	log                *slog.Logger
	conn               *grpc.ClientConn
	rpc                flowv1.FlowServiceClient
	caches             cachev1.CacheServiceClient
	shapes             *shapeTable
	spare              sync.Pool // answered calls: nothing refers to them any more

	ctx     context.Context // ends the goroutines
	cancel  context.CancelFunc
	asking  context.Context // ends earlier than ctx: unary calls for flows
	mute    context.CancelFunc
	running sync.WaitGroup
	wake    chan struct{} // 1: there is something to send
	drained chan struct{} // closed when Close has nothing left to wait for
	stopped chan struct{} // closed when Close is done

	mu        sync.Mutex
	closed    bool
	drainDone bool
	lastID    uint64
	waiting   int              // flows whose caller waits, asked for on the stream or by a call
	queue     []*call          // to be sent, oldest first; may hold calls that are done
	dead      int              // calls in queue that are done
	asked     map[uint64]*call // sent on the stream and not answered
	abandoned int              // calls in asked whose caller has gone
	cancels   []uint64         // to be sent
	ends      endQueue         // to be sent
	sentEnds  []unconfirmed    // sent and not confirmed, oldest first
	delivery  int              // Ends being delivered by unary calls
	link      link
}

// Stats is a snapshot of a client, for metrics and debug pages.
type Stats struct {
	// Connected says whether the server is reachable now.
	Connected bool
	// Waiting is the number of flows that wait for a verdict.
	Waiting int
	// QueuedEnds is the number of Ends that the server has not confirmed.
	QueuedEnds int
	// DroppedEnds counts the Ends that were given up because the server stayed away too long. Their
	// slots stay taken until the limiter's max_inflight_duration has passed.
	DroppedEnds uint64
}

// NewClient makes a client of the server at addr: "host:port", "http://host:port" or
// "https://host:port". Empty means $SLUICE_SERVER, or 127.0.0.1:8080. It connects in the background, so
// it does not wait and does not fail because the server is away: an error means that addr or an option
// is wrong. Close the client when done.
func NewClient(addr string, opts ...Option) (*Client, error) {
	s := settings{
		token:              os.Getenv("SLUICE_TOKEN"),
		maxWaiting:         defaultMaxWaiting,
		unavailableTimeout: defaultUnavailableTimeout,
	}
	for _, opt := range opts {
		if opt != nil {
			opt(&s)
		}
	}
	if s.maxWaiting < 1 || s.maxWaiting > maxMaxWaiting {
		return nil, fmt.Errorf("sluice: WithMaxWaiting(%d): want 1 to %d", s.maxWaiting, maxMaxWaiting)
	}
	if s.unavailableTimeout < 0 {
		return nil, fmt.Errorf("sluice: WithUnavailableTimeout(%v): want 0 or more", s.unavailableTimeout)
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	addr = cmp.Or(addr, os.Getenv("SLUICE_SERVER"), defaultAddr)
	conn, err := dial(addr, &s)
	if err != nil {
		return nil, err
	}
	if s.token != "" && s.tls == nil && !onThisMachine(addr) {
		s.log.Warn("the token for the Sluice server travels unencrypted; use an https:// address or WithTLS", "server", addr)
	}
	return start(addr, conn, &s), nil
}

// start runs the goroutines of a new client.
func start(addr string, conn *grpc.ClientConn, s *settings) *Client {
	c := &Client{
		addr:               addr,
		failClosed:         s.failClosed,
		unary:              s.unary,
		maxWaiting:         s.maxWaiting,
		unavailableTimeout: s.unavailableTimeout,
		log:                s.log,
		conn:               conn,
		rpc:                flowv1.NewFlowServiceClient(conn),
		caches:             cachev1.NewCacheServiceClient(conn),
		shapes:             newShapeTable(),
		wake:               make(chan struct{}, 1),
		drained:            make(chan struct{}),
		stopped:            make(chan struct{}),
		asked:              make(map[uint64]*call),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.asking, c.mute = context.WithCancel(c.ctx)
	c.link.changed = make(chan struct{})
	c.mu.Lock()
	c.linkLostLocked(errors.New("not connected yet"), true)
	c.mu.Unlock()
	if c.unary {
		c.running.Go(c.watchConnection)
		for range endSenders {
			c.running.Go(c.deliverEnds)
		}
	} else {
		c.running.Go(c.runStream)
	}
	return c
}

// callOptions go with every call: the faster codec of the API, which is registered nowhere.
var callOptions = []grpc.CallOption{grpc.ForceCodecV2(codec.Codec{})}

// StartFlow asks whether a flow may run at the control point, and waits while the flow is queued: until
// the deadline of ctx, until its cancellation, or for WithQueueTimeout. It never returns nil. When the
// server cannot be asked the flow is decided without it, at the latest after the time of
// WithUnavailableTimeout; see Flow.Err. A server that took the flow and fell silent counts as away when
// the time to wait is over.
//
// A flow that runs must be ended with Flow.End, unless it was started WithNoEnd. labels may be changed
// after StartFlow has returned.
func (c *Client) StartFlow(ctx context.Context, controlPoint string, labels Labels, opts ...FlowOption) *Flow {
	var o flowOptions
	for _, opt := range opts {
		if opt != nil {
			o = opt(o)
		}
	}
	f := &Flow{client: c, controlPoint: controlPoint}
	if c == nil {
		f.decideWithout(fmt.Errorf("%w: the client is nil", ErrUnavailable), o.rampMode)
		return f
	}
	if ctx == nil {
		ctx = context.Background()
	}
	shape, values, size, err := c.shapes.find(controlPoint, labels, o)
	switch {
	case err != nil:
		f.deny(ReasonInvalidRequest, err.Error(), 400, codes.InvalidArgument)
	case ctx.Err() != nil:
		f.denyDone(ctx.Err())
	case shape == nil || o.explain || o.cached || c.unary:
		c.startUnary(ctx, f, controlPoint, labels, o)
	default:
		c.startStream(ctx, f, shape, values, size, o)
	}
	return f
}

// Stats tells how the client is doing.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.ends.len() + c.delivery
	for _, m := range c.sentEnds {
		n += len(m.ends)
	}
	return Stats{Connected: c.link.up, Waiting: c.waiting, QueuedEnds: n, DroppedEnds: c.ends.dropped}
}

// Close ends the client: flows that wait are decided at once as if the server were away, Ends that are
// queued are delivered if the server answers within a second, and all goroutines stop. Flows that still
// run can no longer be ended. Calling it again waits for the first call. The error is always nil.
func (c *Client) Close() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		<-c.stopped
		return nil
	}
	c.closed = true
	for _, call := range c.queue {
		c.finishLocked(call, answer{}, ErrClosed)
	}
	c.queue, c.dead = nil, 0
	for _, call := range c.asked {
		c.abandonLocked(call, ErrClosed)
	}
	c.changedLocked()
	c.checkDrainedLocked()
	c.mu.Unlock()
	c.mute()
	c.signal()
	grace := time.NewTimer(closeGrace)
	defer grace.Stop()
	select {
	case <-c.drained:
	case <-grace.C:
	}
	c.cancel()
	c.running.Wait()
	c.mu.Lock()
	c.stopLinkTimerLocked()
	lost := c.ends.len()
	c.mu.Unlock()
	if lost > 0 {
		c.log.Warn("ends were not delivered before the client was closed", "count", lost)
	}
	_ = c.conn.Close() // it only fails when closed twice
	close(c.stopped)
	return nil
}

// checkDrainedLocked tells a waiting Close when nothing is left to deliver, or when it cannot be.
func (c *Client) checkDrainedLocked() {
	if !c.closed || c.drainDone {
		return
	}
	empty := c.ends.len() == 0 && len(c.sentEnds) == 0 && len(c.cancels) == 0 && c.abandoned == 0 && c.delivery == 0
	if empty || c.link.away {
		c.drainDone = true
		close(c.drained)
	}
}

// signal tells the sender that there is something to send.
func (c *Client) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// queueEnd takes an End for delivery.
func (c *Client) queueEnd(end *flowv1.EndRequest) EndResult {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ClientClosed
	}
	c.ends.push(end)
	c.mu.Unlock()
	c.signal()
	return Ended
}
