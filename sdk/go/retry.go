// SPDX-License-Identifier: Apache-2.0

package sluice

import (
	"cmp"
	"context"
	"fmt"
	"time"
)

// RetryPolicy says how often and how fast Retry tries again. Zero fields mean the defaults named here.
type RetryPolicy struct {
	// MaxAttempts bounds the attempts, the first one included. Zero means 4; less than zero means no
	// bound but the context.
	MaxAttempts int
	// BaseDelay is the longest wait before the second attempt; it doubles with each further one. The
	// real wait is a random part of it. Zero means 100 ms.
	BaseDelay time.Duration
	// MaxDelay bounds that wait. Zero means 10 s.
	MaxDelay time.Duration
	// MaxRetryAfter is the longest RetryAfter of a denial to wait out; a denial with a longer one is
	// final. Zero means one minute.
	MaxRetryAfter time.Duration
	// RetryError says whether an error of the work itself is worth a new attempt, which asks for
	// permission again. Nil means that no error is.
	RetryError func(error) bool
}

// DeniedError is the error of work that was not permitted.
type DeniedError struct {
	// ControlPoint is where the flow was denied.
	ControlPoint string
	// Verdict says why.
	Verdict Verdict
	// RetryAfter is when a new attempt has a chance; meaningful when HasRetryAfter.
	RetryAfter time.Duration
	// HasRetryAfter says whether the server knows such a time.
	HasRetryAfter bool
}

// Denied returns the error that says why the flow may not run, or nil if it may.
func (f *Flow) Denied() error {
	if f.admitted {
		return nil
	}
	return f.denied()
}

func (f *Flow) denied() *DeniedError {
	return &DeniedError{ControlPoint: f.controlPoint, Verdict: f.Verdict(), RetryAfter: f.retryAfter, HasRetryAfter: f.hasRetry}
}

// Error says what was denied, why and when to try again.
func (e *DeniedError) Error() string {
	text := fmt.Sprintf("sluice: %s denied (%s)", e.ControlPoint, cmp.Or(e.Verdict.Reason, "no reason given"))
	if e.Verdict.Message != "" {
		text += ": " + e.Verdict.Message
	}
	if e.HasRetryAfter {
		text += fmt.Sprintf(", retry after %v", e.RetryAfter)
	}
	return text
}

// Retry runs fn as a flow, and tries again when the flow is denied: after a random time that grows with
// each attempt, and not before the denial's RetryAfter. fn may report its true cost through FlowFrom.
// The flow ends when fn returns or panics.
//
// Retry returns nil when fn succeeded, the error of fn when it failed, and a *DeniedError when the flow
// was denied for the last time: attempts used up, the context over before the next one could start,
// or a denial that a later attempt cannot change, such as "invalid_request".
func (c *Client) Retry(ctx context.Context, controlPoint string, labels Labels, policy RetryPolicy, fn func(ctx context.Context) error, opts ...FlowOption) error {
	return policy.run(ctx, func() (*DeniedError, error) {
		return attempt(ctx, c, controlPoint, labels, fn, opts)
	})
}

// attempt runs fn once if it is permitted.
func attempt(ctx context.Context, c *Client, controlPoint string, labels Labels, fn func(ctx context.Context) error, opts []FlowOption) (denied *DeniedError, err error) {
	flow := c.StartFlow(ctx, controlPoint, labels, opts...)
	if !flow.ShouldRun() {
		return flow.denied(), nil
	}
	returned := false
	defer func() {
		if !returned { // fn panics
			flow.End(WithStatus(StatusError))
			return
		}
		flow.End(WithError(err))
	}()
	err = fn(ContextWithFlow(ctx, flow))
	returned = true
	return nil, err
}

// run calls try until it succeeds or another call makes no sense.
func (p RetryPolicy) run(ctx context.Context, try func() (*DeniedError, error)) error {
	p.MaxAttempts = cmp.Or(p.MaxAttempts, 4)
	p.BaseDelay = cmp.Or(max(p.BaseDelay, 0), 100*time.Millisecond)
	p.MaxDelay = cmp.Or(max(p.MaxDelay, 0), 10*time.Second)
	p.MaxRetryAfter = cmp.Or(max(p.MaxRetryAfter, 0), time.Minute)
	for n := 0; ; n++ {
		denied, err := try()
		wait, again := p.wait(n, denied, err)
		if denied != nil {
			err = denied
		}
		if err == nil || !again || n+1 == p.MaxAttempts || ctx.Err() != nil {
			return err
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
			return err
		}
		if sleep(ctx, wait); ctx.Err() != nil {
			return err
		}
	}
}

// wait is the time before the attempt after n; false when there should be none. With a RetryAfter the
// jitter comes on top, so that all who were told the same time do not return at once.
func (p RetryPolicy) wait(n int, denied *DeniedError, err error) (time.Duration, bool) {
	jitter := fullJitter(n, p.BaseDelay, p.MaxDelay)
	switch {
	case denied == nil:
		return jitter, err != nil && p.RetryError != nil && p.RetryError(err)
	case lasting(denied.Verdict.Reason):
		return 0, false
	case denied.HasRetryAfter:
		return denied.RetryAfter + jitter, denied.RetryAfter <= p.MaxRetryAfter
	}
	return jitter, true
}

// lasting says whether a denial stays the same however often one asks.
func lasting(reason string) bool {
	return reason == ReasonInvalidRequest || reason == ReasonCancelled || reason == "too_large"
}

type flowKey struct{}

// ContextWithFlow returns a context that carries the flow, for FlowFrom.
func ContextWithFlow(ctx context.Context, f *Flow) context.Context {
	return context.WithValue(ctx, flowKey{}, f)
}

// FlowFrom returns the flow that Retry or a middleware started around the caller, so that the work can
// report its true cost with End. Outside of one it returns a flow that should not run; ending it is
// harmless.
func FlowFrom(ctx context.Context) *Flow {
	if f, ok := ctx.Value(flowKey{}).(*Flow); ok && f != nil {
		return f
	}
	return new(Flow)
}
