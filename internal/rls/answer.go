// SPDX-License-Identifier: Apache-2.0

package rls

import (
	"math"
	"strconv"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/limit"
)

// answer is the status of one descriptor, in one piece of memory.
type answer struct {
	status rlsv3.RateLimitResponse_DescriptorStatus
	limit  rlsv3.RateLimitResponse_RateLimit
	reset  durationpb.Duration
}

// reply is a response and what most of them need, in one piece of memory.
type reply struct {
	response rlsv3.RateLimitResponse
	headers  [3]corev3.HeaderValue
	added    [3]*corev3.HeaderValue
	answers  [1]answer
	statuses [1]*rlsv3.RateLimitResponse_DescriptorStatus
}

// answer makes the response. Nothing in it refers to the flows.
func (d *Door) answer(flows []*flow.Flow) *rlsv3.RateLimitResponse {
	now := d.config.Engine.Now()
	r := &reply{}
	out, answers := &r.response, r.answers[:]
	out.OverallCode, out.Statuses = rlsv3.RateLimitResponse_OK, r.statuses[:]
	if len(flows) > len(answers) {
		answers = make([]answer, len(flows))
		out.Statuses = make([]*rlsv3.RateLimitResponse_DescriptorStatus, len(flows))
	}
	tightest, short := -1, math.Inf(1)
	for i, f := range flows {
		a := &answers[i]
		out.Statuses[i] = &a.status
		room := a.fill(&f.Verdict, now, &d.names)
		if a.status.Code == rlsv3.RateLimitResponse_OVER_LIMIT {
			out.OverallCode = rlsv3.RateLimitResponse_OVER_LIMIT
		}
		if room < short {
			tightest, short = i, room
		}
	}
	if tightest >= 0 {
		d.headers(r, &flows[tightest].Verdict, &answers[tightest].status)
	}
	return out
}

// fill says what a verdict means. It returns how much room is left: less than 0 for a denial, less the longer it
// lasts; otherwise the free part of the limit; +Inf where there is none.
func (a *answer) fill(v *flow.Verdict, now limit.Instant, names *limitNames) (room float64) {
	a.status.Code = rlsv3.RateLimitResponse_OK
	if !v.Admitted {
		a.status.Code = rlsv3.RateLimitResponse_OVER_LIMIT
		a.setReset(v.RetryAfter)
		room = -1 - v.RetryAfter.Seconds()
	} else {
		room = math.Inf(1)
	}
	d := decisive(v)
	if d == nil {
		return room
	}
	bucket := &d.Limiter.Bucket
	a.setLimit(d.Limiter, names)
	if v.Admitted {
		a.status.LimitRemaining = whole(d.Remaining)
		a.setReset(bucket.FullIn(d.Remaining, now))
		if d.Limit > 0 {
			room = d.Remaining / d.Limit
		}
	} else if v.RetryAfter == 0 {
		a.setReset(bucket.FullIn(d.Remaining, now))
	}
	return room
}

// decisive is the decision of a rate limit that clients should know of: the one that denied, else the one with the
// smallest part of its limit left; nil when there is none.
func decisive(v *flow.Verdict) *flow.Decision {
	var found *flow.Decision
	least := math.Inf(1)
	for i := range v.Decisions {
		d := &v.Decisions[i]
		if k := d.Limiter.Kind; !d.Charged || k != flow.RateLimiter && k != flow.QuotaScheduler {
			continue
		}
		if !d.Admitted {
			return d
		}
		if part := d.Remaining / max(d.Limit, math.SmallestNonzeroFloat64); part < least {
			found, least = d, part
		}
	}
	if !v.Admitted {
		return nil // something else denied; what this one has left is not the reason
	}
	return found
}

// units are the units of limits by length, the longest first.
var units = []struct {
	length time.Duration
	unit   rlsv3.RateLimitResponse_RateLimit_Unit
}{
	{365 * 24 * time.Hour, rlsv3.RateLimitResponse_RateLimit_YEAR},
	{30 * 24 * time.Hour, rlsv3.RateLimitResponse_RateLimit_MONTH},
	{7 * 24 * time.Hour, rlsv3.RateLimitResponse_RateLimit_WEEK},
	{24 * time.Hour, rlsv3.RateLimitResponse_RateLimit_DAY},
	{time.Hour, rlsv3.RateLimitResponse_RateLimit_HOUR},
	{time.Minute, rlsv3.RateLimitResponse_RateLimit_MINUTE},
	{time.Second, rlsv3.RateLimitResponse_RateLimit_SECOND},
}

// setLimit says which limit it was, where the protocol has words for it: a whole number of tokens in a whole number of
// a unit.
func (a *answer) setLimit(spec *flow.LimiterSpec, names *limitNames) {
	b := &spec.Bucket
	n := b.FillAmount
	if b.FixedWindow {
		n = b.Capacity
	}
	if n != math.Trunc(n) || n < 0 || n > math.MaxUint32 {
		return
	}
	for _, u := range units {
		if b.Interval%u.length != 0 {
			continue
		}
		times := b.Interval / u.length
		if times > math.MaxUint32 {
			return
		}
		a.limit.Name, a.limit.RequestsPerUnit, a.limit.Unit = names.of(spec), uint32(n), u.unit
		if times > 1 {
			a.limit.UnitMultiplier = wrapperspb.UInt32(uint32(times))
		}
		a.status.CurrentLimit = &a.limit
		return
	}
}

// limitNames remembers names of limits, which would else be made for every answer. The zero limitNames is ready.
type limitNames [64]atomic.Pointer[limitName]

type limitName struct{ policy, component, name string }

func (n *limitNames) of(spec *flow.LimiterSpec) string {
	place := &n[uint64(spec.ID)%uint64(len(n))]
	if known := place.Load(); known != nil && known.policy == spec.Policy && known.component == spec.Component {
		return known.name
	}
	made := &limitName{spec.Policy, spec.Component, spec.Policy + "/" + spec.Component}
	place.Store(made)
	return made.name
}

// setReset says when the limit is as good as new, in whole seconds, rounded up.
func (a *answer) setReset(after time.Duration) {
	if after <= 0 || after == limit.Never {
		return
	}
	a.reset.Seconds = int64(math.Ceil(after.Seconds()))
	a.status.DurationUntilReset = &a.reset
}

// whole rounds down to what the protocol can say.
func whole(n float64) uint32 { return uint32(min(max(n, 0), math.MaxUint32)) }

// headers asks Envoy to tell the client about the limit that is closest.
func (d *Door) headers(r *reply, v *flow.Verdict, s *rlsv3.RateLimitResponse_DescriptorStatus) {
	out := &r.response
	out.ResponseHeadersToAdd = r.added[:0]
	add := func(name, value string) {
		var h *corev3.HeaderValue
		if n := len(out.ResponseHeadersToAdd); n < len(r.headers) {
			h = &r.headers[n]
		} else {
			h = new(corev3.HeaderValue)
		}
		h.Key, h.Value = name, value
		out.ResponseHeadersToAdd = append(out.ResponseHeadersToAdd, h)
	}
	if h := d.config.Headers; h == HeadersDraft || h == HeadersBoth {
		v.RateLimitHeaders(add)
	}
	if h := d.config.Headers; (h == HeadersLegacy || h == HeadersBoth) && s.GetCurrentLimit() != nil {
		add("x-ratelimit-limit", strconv.FormatUint(uint64(s.GetCurrentLimit().GetRequestsPerUnit()), 10))
		add("x-ratelimit-remaining", strconv.FormatUint(uint64(s.GetLimitRemaining()), 10))
		add("x-ratelimit-reset", strconv.FormatInt(s.GetDurationUntilReset().GetSeconds(), 10))
	}
}
