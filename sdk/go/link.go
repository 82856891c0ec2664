// SPDX-License-Identifier: Apache-2.0

package sluice

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/connectivity"
)

// link is what the client knows about its way to the server. Client.mu guards it.
//
//	down ── connected ──▶ up ── lost ──▶ down
//	down ── unavailableTimeout since the start of the outage ──▶ down and away
//
// While it is down flows wait; when it is away they are decided without the server, at once.
type link struct {
	up        bool
	away      bool
	announced bool // the log says that it is away
	downSince time.Time
	lastHeard time.Time // when the server last answered anything
	cause     error     // why it is down
	timer     *time.Timer
	changed   chan struct{} // closed, and replaced, when up, away or Client.closed change
}

// linkUp notes that the server can be reached.
func (c *Client) linkUp() {
	c.mu.Lock()
	c.link.up, c.link.away, c.link.cause = true, false, nil
	c.stopLinkTimerLocked()
	c.changedLocked()
	c.mu.Unlock()
	c.signal()
}

// linkProven notes that the server really answers; a stream that is refused opens, too.
func (c *Client) linkProven() {
	c.mu.Lock()
	announced := c.link.announced
	c.link.announced = false
	c.mu.Unlock()
	if announced {
		c.log.Info("the Sluice server is back", "server", c.addr)
	}
}

// linkLostLocked notes that the server cannot be reached. fresh starts a new outage: flows may again
// wait for the whole unavailableTimeout.
func (c *Client) linkLostLocked(cause error, fresh bool) {
	now := time.Now()
	c.link.up, c.link.cause = false, cause
	if fresh {
		c.link.downSince = now
	}
	c.stopLinkTimerLocked()
	left := c.link.downSince.Add(c.unavailableTimeout).Sub(now)
	c.link.timer = time.AfterFunc(max(left, 0), c.outageLasts)
	c.changedLocked()
}

// outageLasts is called when flows have waited long enough for the server.
func (c *Client) outageLasts() {
	c.mu.Lock()
	if c.link.up || c.link.away || c.closed && c.drainDone {
		c.mu.Unlock()
		return
	}
	c.link.away = true
	for _, call := range c.queue {
		c.finishLocked(call, answer{}, c.unavailableLocked())
	}
	c.queue, c.dead = nil, 0
	c.changedLocked()
	c.checkDrainedLocked()
	cause, announced := c.link.cause, c.link.announced
	c.link.announced = true
	c.mu.Unlock()
	if announced {
		return
	}
	c.log.Warn("the Sluice server is away; flows are decided without it", "server", c.addr, "fail_closed", c.failClosed, "error", cause)
}

func (c *Client) stopLinkTimerLocked() {
	if c.link.timer != nil {
		c.link.timer.Stop()
		c.link.timer = nil
	}
}

func (c *Client) changedLocked() {
	close(c.link.changed)
	c.link.changed = make(chan struct{})
}

// unavailableLocked is the error of a flow that the server was not asked about.
func (c *Client) unavailableLocked() error {
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, c.addr, c.link.cause)
}

// awaitLink waits until the server can be reached, or says why it cannot.
func (c *Client) awaitLink(ctx context.Context) error {
	for {
		c.mu.Lock()
		up, away, closed, changed := c.link.up, c.link.away, c.closed, c.link.changed
		var err error
		if !up {
			err = c.unavailableLocked()
		}
		c.mu.Unlock()
		switch {
		case closed:
			return ErrClosed
		case up:
			return nil
		case away:
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return err
		}
	}
}

// watchConnection keeps the link of a client that opens no stream.
func (c *Client) watchConnection() {
	up := false
	for c.ctx.Err() == nil {
		state := c.conn.GetState()
		switch {
		case state == connectivity.Ready:
			up = true
			c.linkUp()
			c.linkProven()
		case up:
			up = false
			c.mu.Lock()
			c.linkLostLocked(fmt.Errorf("connection is %v", state), true)
			c.mu.Unlock()
		default:
			c.mu.Lock()
			c.link.cause = fmt.Errorf("connection is %v", state)
			c.mu.Unlock()
		}
		if state == connectivity.Idle {
			c.conn.Connect()
		}
		c.conn.WaitForStateChange(c.ctx, state)
	}
}

// sleep waits for d, or until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// fullJitter is a random time up to base doubled with every attempt after the first (attempt 0), at most
// limit. That spreads callers better than a fixed time with some noise.
func fullJitter(attempt int, base, limit time.Duration) time.Duration {
	ceiling := limit
	if attempt < 32 && base <= limit>>attempt {
		ceiling = base << attempt
	}
	if ceiling <= 0 {
		return 0
	}
	return rand.N(ceiling) + 1
}
