// SPDX-License-Identifier: Apache-2.0

package sluice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"google.golang.org/grpc/codes"
)

const (
	verdictAdmit = "admit"

	// statusClientClosed is what proxies log for a request whose caller has gone.
	statusClientClosed = 499
	statusUnavailable  = 503

	// reasonShuttingDown is how a server that stops turns away flows that wait. It says nothing about the
	// limit, so it counts as a server that could not be asked.
	reasonShuttingDown = "shutting_down"
)

var errShuttingDown = fmt.Errorf("%w: it is shutting down", ErrUnavailable)

// answerStream takes a verdict that came on the stream.
func (f *Flow) answerStream(a *answer, rampMode bool) {
	f.waited = max(0, a.waited)
	if a.admitted {
		f.admit(a.token)
		return
	}
	if a.denial.GetReason() == reasonShuttingDown {
		f.decideWithout(errShuttingDown, rampMode)
		return
	}
	denial := a.denial
	if denial == nil {
		denial = &flowv1.StartResponse{WaitedSeconds: f.waited.Seconds()}
	}
	f.explain(denial)
}

// answerUnary takes a verdict that came from a call.
func (f *Flow) answerUnary(r *flowv1.StartResponse, rampMode bool) {
	f.waited = seconds(r.WaitedSeconds)
	if r.Reason == reasonShuttingDown {
		f.decideWithout(errShuttingDown, rampMode)
		return
	}
	if r.Verdict == verdictAdmit {
		f.admit(r.Token)
	}
	f.explain(r)
}

func (f *Flow) admit(token []byte) {
	f.admitted, f.token, f.admittedAt = true, token, time.Now()
}

// explain keeps the details of a verdict.
func (f *Flow) explain(r *flowv1.StartResponse) {
	v := &Verdict{
		Admitted:    f.admitted,
		Reason:      r.Reason,
		Message:     r.Message,
		Policy:      r.Policy,
		Limiter:     r.Limiter,
		LimiterKind: r.LimiterKind,
		Account:     r.Account,
		Waited:      cmp.Or(seconds(r.WaitedSeconds), f.waited),
	}
	if f.admitted {
		v.Reason = cmp.Or(v.Reason, "admitted")
	} else {
		v.Reason = cmp.Or(v.Reason, "denied")
		v.HTTPStatus = statusUnavailable
		if 200 <= r.HttpStatus && r.HttpStatus <= 999 { // what net/http can write
			v.HTTPStatus = int(r.HttpStatus)
		}
		v.GRPCCode = codes.Unavailable
		if 0 < r.GrpcCode && r.GrpcCode <= int32(codes.Unauthenticated) {
			v.GRPCCode = codes.Code(r.GrpcCode)
		}
		if r.RetryAfterSeconds != nil && *r.RetryAfterSeconds >= 0 {
			f.retryAfter, f.hasRetry = seconds(*r.RetryAfterSeconds), true
		}
	}
	for _, d := range r.Decisions {
		v.Decisions = append(v.Decisions, Decision{
			Policy: d.Policy, Limiter: d.Limiter, Kind: d.Kind, Account: d.Account, Admitted: d.Admitted,
			Tokens: d.Tokens, Remaining: d.Remaining, Limit: d.Limit, Workload: d.Workload,
			Priority: d.Priority, Waited: seconds(d.WaitedSeconds), Note: d.Note,
		})
	}
	f.detail = v
}

// deny is a denial by this client.
func (f *Flow) deny(reason, message string, httpStatus int, code codes.Code) {
	f.detail = &Verdict{Reason: reason, Message: message, HTTPStatus: httpStatus, GRPCCode: code}
}

// denyDone denies a flow whose context is done.
func (f *Flow) denyDone(err error) {
	if errors.Is(err, context.DeadlineExceeded) {
		f.deny(ReasonQueueTimeout, "the time to wait was over before the flow could run", statusUnavailable, codes.DeadlineExceeded)
		return
	}
	f.deny(ReasonCancelled, "the caller cancelled the flow before it could run", statusClientClosed, codes.Canceled)
}

func (f *Flow) denyFull(limit int) {
	f.deny(ReasonQueueFull, fmt.Sprintf("%d flows wait in this client already", limit), statusUnavailable, codes.ResourceExhausted)
}

// decideWithout decides a flow that the server was not asked about.
func (f *Flow) decideWithout(err error, rampMode bool) {
	f.err = err
	if rampMode || f.client != nil && f.client.failClosed {
		f.deny(ReasonFailClosed, err.Error(), statusUnavailable, codes.Unavailable)
		return
	}
	f.admitted, f.admittedAt = true, time.Now()
	f.detail = &Verdict{Admitted: true, Reason: ReasonFailOpen, Message: err.Error()}
}

// seconds turns the seconds of the API into a duration: not a number and less than zero count as zero,
// and what does not fit as the longest duration.
func seconds(s float64) time.Duration {
	switch {
	case !(s > 0): // also when not a number
		return 0
	case s >= math.MaxInt64/float64(time.Second):
		return math.MaxInt64
	}
	return time.Duration(s * float64(time.Second))
}
