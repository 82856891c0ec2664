// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/sched"
)

// Reason says why a flow was admitted or denied. The strings are stable: they are part of the API.
type Reason uint8

// The reasons. Zero is none and never a success.
const (
	ReasonUnspecified  Reason = iota
	Admitted                  // every limiter let it pass
	NoPolicy                  // no limiter selects it
	RateLimited               // a token bucket lacks tokens
	ConcurrencyLimited        // too many are in flight
	QueueTimeout              // it waited as long as it was allowed to
	DeadlineTooShort          // it cannot be served before its deadline, so it did not wait
	QueueFull                 // too many wait already
	TooLarge                  // it asks for more than a full account holds
	Cancelled                 // the caller left
	InvalidRequest            // it carries something that makes no sense
	NotSampled                // a sampler or load ramp does not let it in, or a flow in ramp mode meets none
	ShuttingDown              // the server is stopping and cannot keep it waiting
)

var reasonNames = [...]string{
	"", "admitted", "no_policy", "rate_limited", "concurrency_limited", "queue_timeout",
	"deadline_too_short", "queue_full", "too_large", "cancelled", "invalid_request", "not_sampled", "shutting_down",
}

// String is the stable code.
func (r Reason) String() string { return reasonNames[r] }

// Reasons lists the stable codes, for references.
func Reasons() []string { return reasonNames[1:] }

var queueReasons = [...]Reason{
	sched.QueueTimeout: QueueTimeout, sched.NoTime: DeadlineTooShort, sched.QueueFull: QueueFull,
	sched.TooLarge: TooLarge, sched.Cancelled: Cancelled, sched.Closed: ShuttingDown,
}

// Verdict is the answer to one flow.
type Verdict struct {
	Admitted bool
	Reason   Reason
	// Detail says more about an invalid request.
	Detail string
	// Limiter is the one that denied; nil when none did.
	Limiter *LimiterSpec
	// Key is the label value of the account that was short.
	Key string
	// Tokens asked for, Remaining in the account, and the Limit of a full one.
	Tokens, Remaining, Limit float64
	// Waited is the time spent in queues.
	Waited time.Duration
	// RetryAfter is when a retry has a chance; 0: waiting does not help, or it is not known.
	RetryAfter time.Duration
	// Decisions tells what every limiter that was asked decided, if Request.Explain asked for it.
	Decisions []Decision
}

// Decision is the answer of one limiter.
type Decision struct {
	Limiter                  *LimiterSpec
	Key                      string
	Admitted                 bool
	Tokens, Remaining, Limit float64
	Workload                 string
	Priority                 float64
	Waited                   time.Duration
	// Resets is how long the present window of a limiter with fixed windows still lasts.
	Resets time.Duration
	// Charged tells that an account was asked. Otherwise Note says why not: "label_missing",
	// "pass_through", "pass_through_value", "error". Samplers have no accounts and charge nothing.
	Charged bool
	// Note may also say why the flow cost what it did: "tokens_label_missing", "tokens_not_a_number".
	Note string
}

// Account names the account for people; "" when none was charged.
func (d *Decision) Account() string {
	if !d.Charged {
		return ""
	}
	return accountName(d.Limiter, d.Key)
}

// HTTPStatus is the status that suits the verdict: 200 for a flow that may run.
func (v *Verdict) HTTPStatus() int {
	switch {
	case v.Admitted:
		return 200
	case v.Reason == InvalidRequest:
		return 400
	case v.Reason == ShuttingDown:
		return 503
	case v.Limiter != nil && v.Limiter.DeniedStatus != 0:
		return v.Limiter.DeniedStatus
	case v.Reason == NotSampled:
		return 403
	}
	return 503
}

// Account names the account for people: "default" when there is one for all.
func (v *Verdict) Account() string {
	if v.Limiter == nil {
		return ""
	}
	return accountName(v.Limiter, v.Key)
}

func accountName(spec *LimiterSpec, key string) string {
	if spec.LimitBy == "" {
		return "default"
	}
	return label.Printable(spec.LimitBy) + ":" + label.Printable(key)
}

// Message says the same in one plain sentence.
func (v *Verdict) Message() string {
	switch v.Reason {
	case Admitted:
		if v.Waited > 0 {
			return "admitted after " + short(v.Waited) + " in the queue"
		}
		return "admitted"
	case NoPolicy:
		return "admitted: no policy selects this flow"
	case InvalidRequest:
		return "invalid request: " + v.Detail
	case Cancelled:
		return "the caller left while the flow was waiting"
	case ShuttingDown:
		return "the server is stopping and cannot keep the flow waiting; ask again"
	}
	if v.Limiter == nil {
		if v.Reason == NotSampled {
			return "the flow is in ramp mode, and no load ramp selects it"
		}
		return v.Reason.String()
	}
	if v.Reason == NotSampled {
		return v.sampled()
	}
	msg := fmt.Sprintf("policy %s, %s %s, account %s: %s", v.Limiter.Policy,
		strings.ReplaceAll(v.Limiter.Kind.String(), "_", " "), v.Limiter.Component, v.Account(), v.why())
	if v.RetryAfter > 0 {
		msg += "; retry in " + short(v.RetryAfter)
	}
	return msg
}

// sampled tells why a sampler denied.
func (v *Verdict) sampled() string {
	s := v.Limiter
	who := fmt.Sprintf("policy %s, %s %s", s.Policy, strings.ReplaceAll(s.Kind.String(), "_", " "), s.Component)
	if s.PassThrough {
		return who + ": how many flows to let in is not known (yet), so none is"
	}
	text := who + ": lets in " + number(s.Sample.Percentage) + " % of the flows"
	if s.LimitBy != "" && v.Key != "" {
		return text + ", and not " + label.Printable(s.LimitBy) + " " + label.Printable(v.Key)
	}
	return text + ", and not this one"
}

func (v *Verdict) why() string {
	switch v.Reason {
	case TooLarge:
		return fmt.Sprintf("asks for %s but the limit is %s, so it can never be admitted", tokens(v.Tokens), number(v.Limit))
	case QueueFull:
		return "too many flows are waiting already"
	case DeadlineTooShort:
		return "would not be served before its deadline (" + v.Limiter.rate() + ")"
	case QueueTimeout:
		if v.Waited == 0 {
			return "no capacity now, and it may not wait (" + v.Limiter.rate() + ")"
		}
		return "no capacity within " + short(v.Waited) + " of waiting (" + v.Limiter.rate() + ")"
	}
	return fmt.Sprintf("%s asked, %s left (%s)", tokens(v.Tokens), number(v.Remaining), v.Limiter.rate())
}

// rate describes the limit.
func (s *LimiterSpec) rate() string {
	switch {
	case s.Kind.holdsSlots():
		return "limit " + number(s.Slots.Max) + " in flight"
	case s.Kind == LoadScheduler:
		return "load is limited to " + number(s.Bucket.FillAmount) + " tokens per second"
	case s.Kind.samples():
		return number(s.Sample.Percentage) + " % of the flows"
	}
	return fmt.Sprintf("limit %s per %s, burst %s", number(s.Bucket.FillAmount), short(s.Bucket.Interval), number(s.Bucket.Capacity))
}

func tokens(n float64) string {
	if n == 1 {
		return "1 token"
	}
	return number(n) + " tokens"
}

func number(n float64) string {
	if n == math.Trunc(n) {
		return strconv.FormatFloat(n, 'f', -1, 64)
	}
	return strconv.FormatFloat(n, 'g', 4, 64)
}

// short prints a duration for people: three significant digits.
func short(d time.Duration) string {
	if d == limit.Never {
		return "never"
	}
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d >= 100*unit {
			return d.Round(unit).String()
		}
		if d >= unit {
			return d.Round(unit / 100).String()
		}
	}
	return d.String()
}
