// SPDX-License-Identifier: Apache-2.0

package sluice

import (
	"net/http"
	"sync/atomic"
	"time"
	"unicode/utf8"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Labels is what is known about a flow: user, tier, cost. Keys, control points and services must be
// valid UTF-8 or the flow is denied with the reason "invalid_request"; in values, each run of invalid
// bytes is replaced by U+FFFD. All together may be 1 MiB.
type Labels map[string]string

// Reasons that this package gives itself. All others come from the server.
const (
	// ReasonFailOpen admits a flow because the server could not be asked.
	ReasonFailOpen = "fail_open"
	// ReasonFailClosed denies a flow because the server could not be asked.
	ReasonFailClosed = "fail_closed"
	// ReasonCancelled denies a flow because its context was cancelled.
	ReasonCancelled = "cancelled"
	// ReasonQueueTimeout denies a flow because its time to wait was over.
	ReasonQueueTimeout = "queue_timeout"
	// ReasonQueueFull denies a flow because too many wait, here or in the server.
	ReasonQueueFull = "queue_full"
	// ReasonInvalidRequest denies a flow that could not be described to the server.
	ReasonInvalidRequest = "invalid_request"
)

// Verdict is the answer to a flow. The zero value is a denial.
type Verdict struct {
	// Admitted says whether the flow may run. It is what Flow.ShouldRun returns.
	Admitted bool
	// Reason is a stable code: "admitted", "no_policy", "rate_limited", "concurrency_limited",
	// "queue_timeout", "fail_open" and so on. Through the stream the server does not tell "no_policy"
	// from "admitted"; WithExplain and WithUnary do.
	Reason string
	// Message says the same in one sentence. Empty for plain admissions.
	Message string
	// Policy, Limiter, LimiterKind and Account say what denied, for example policy "login", component
	// "root.0", "rate_limiter", "user_id:alice". Empty when admitted or when this client decided.
	Policy, Limiter, LimiterKind, Account string
	// HTTPStatus is the status that suits a denial; 0 when admitted.
	HTTPStatus int
	// GRPCCode is the status code that suits a denial; OK when admitted.
	GRPCCode codes.Code
	// Waited is the time spent in queues of the server.
	Waited time.Duration
	// Decisions says what every limiter decided; only with WithExplain.
	Decisions []Decision
}

// Decision is the answer of one limiter to a flow.
type Decision struct {
	// Policy, Limiter, Kind and Account say who decided about what.
	Policy, Limiter, Kind, Account string
	// Admitted says whether this limiter let the flow pass.
	Admitted bool
	// Tokens is what the flow costs here, Remaining what is left after it, Limit what a full account
	// holds, all in tokens.
	Tokens, Remaining, Limit float64
	// Workload and Priority are how a scheduler ranked the flow.
	Workload string
	Priority float64
	// Waited is the time spent in this limiter's queue.
	Waited time.Duration
	// Note says why the limiter did not count the flow, for example "label_missing".
	Note string
}

// EndResult says what End did. The zero value is never returned.
type EndResult uint8

const (
	// Ended says that the report is on its way to the server.
	Ended EndResult = iota + 1
	// AlreadyEnded says that End was called before on this flow. Nothing was done.
	AlreadyEnded
	// NothingToEnd says that the server holds nothing for this flow: it was denied, ran without the
	// server or was started WithNoEnd.
	NothingToEnd
	// ClientClosed says that the client was closed before, so the report cannot be sent.
	ClientClosed
)

// String names the result in lower case, for example "already_ended".
func (r EndResult) String() string {
	switch r {
	case Ended:
		return "ended"
	case AlreadyEnded:
		return "already_ended"
	case NothingToEnd:
		return "nothing_to_end"
	case ClientClosed:
		return "client_closed"
	}
	return "unspecified"
}

// maxDuration is the longest work that a server accepts in a report.
const maxDuration = 365 * 24 * time.Hour

// Flow is one unit of work for which permission was asked. It comes from Client.StartFlow; the zero
// value should not run. All methods may be called concurrently.
type Flow struct {
	client       *Client
	controlPoint string
	admitted     bool
	waited       time.Duration
	admittedAt   time.Time // when the work began, so that queueing is no part of its duration
	token        []byte    // empty: nothing to end
	detail       *Verdict  // nil for plain admissions, to keep the common flow small
	retryAfter   time.Duration
	hasRetry     bool
	cache        *flowCache // nil: not asked, or not answered
	err          error
	ended        atomic.Bool
}

// ShouldRun says whether the work may run now.
func (f *Flow) ShouldRun() bool { return f.admitted }

// Err is not nil when the server could not be asked. ShouldRun then follows the choice between fail
// open and fail closed. It wraps ErrUnavailable or ErrClosed, and the cause.
func (f *Flow) Err() error { return f.err }

// Verdict is the whole answer.
func (f *Flow) Verdict() Verdict {
	if f.detail != nil {
		return *f.detail
	}
	if !f.admitted {
		return Verdict{}
	}
	return Verdict{Admitted: true, Reason: "admitted", Waited: f.waited}
}

// RetryAfter says when a new attempt has a chance. False means that the time is not known or that
// waiting does not help.
func (f *Flow) RetryAfter() (time.Duration, bool) { return f.retryAfter, f.hasRetry }

// HTTPStatus is the HTTP status for the caller's own answer: 200 when the flow may run, else the one of
// the verdict, 503 when it has none.
func (f *Flow) HTTPStatus() int {
	if f.admitted {
		return http.StatusOK
	}
	if f.detail != nil && f.detail.HTTPStatus != 0 {
		return f.detail.HTTPStatus
	}
	return http.StatusServiceUnavailable
}

// End reports that the work is over, which frees the slots it held and settles its cost. It never
// waits: the report is queued and sent in the background, again if the connection breaks. The first
// call counts; calling it for a flow that did not run is harmless.
func (f *Flow) End(opts ...EndOption) EndResult {
	if f.ended.Swap(true) {
		return AlreadyEnded
	}
	if len(f.token) == 0 {
		return NothingToEnd
	}
	report := new(struct { // one allocation for both
		req  flowv1.EndRequest
		took durationpb.Duration
	})
	took := min(time.Since(f.admittedAt), maxDuration)
	report.took.Seconds, report.took.Nanos = int64(took/time.Second), int32(took%time.Second)
	req := &report.req
	req.Token, req.Duration = f.token, &report.took
	var o endOptions
	for _, opt := range opts {
		if opt != nil {
			o = opt(o)
		}
	}
	o.fill(req)
	return f.client.queueEnd(req)
}

func (o endOptions) fill(req *flowv1.EndRequest) {
	switch o.status {
	case StatusOK:
		req.Status = flowv1.FlowStatus_FLOW_STATUS_OK
	case StatusError:
		req.Status = flowv1.FlowStatus_FLOW_STATUS_ERROR
	}
	if o.hasTokens {
		tokens := o.tokens
		req.Tokens = &tokens
	}
	for key, n := range o.tokensByLabel {
		if !validTokens(n) || !utf8.ValidString(key) {
			continue
		}
		if req.TokensByLabel == nil {
			req.TokensByLabel = make(map[string]float64, len(o.tokensByLabel))
		}
		req.TokensByLabel[key] = n
	}
}

// validTokens says whether n can be a cost. A server refuses an End with anything else, and the flow
// would stay open.
func validTokens(n float64) bool { return 0 <= n && n <= 1<<53 }
