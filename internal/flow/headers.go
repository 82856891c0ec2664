// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"math"
	"strconv"
	"time"

	"github.com/sluice-project/sluice/internal/limit"
)

// maxHeaderItems bounds how many limits the headers of one answer tell about.
const maxHeaderItems = 8

// RateLimitHeaders calls set with the headers that tell an HTTP client about its limits, at most once each:
// RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-10), and for denials that a retry helps,
// Retry-After. It reads Decisions, so ask for them with Request.Explain.
//
// Each limit that was asked is one item, named "policy/component"; the one that denied comes first, the others
// follow in the order of deciding, 8 at most. Samplers have no limit; the limit of a load scheduler is that of the
// moment for everybody together, so that no client could make use of it: neither has an item. The numbers are
// tokens, rounded down:
//
//   - q is what a full account holds, and w the seconds, rounded up, in which an empty one becomes full. When that
//     takes less than a second, q is what the account gains in one, and w is 1. Limits of flows in flight have the
//     quota unit "concurrent-requests" and no w.
//   - r is what is left in the account of this flow; for a denied flow without what it did not get after all.
//   - t is when the account has more than r, in seconds rounded up: for the limit that denied, when there is what
//     the flow asked for, so that Retry-After is the same; else when the account has gained one token, or when a
//     fixed window ends; for limits that fill step by step, when the next step is due at the latest. It is left
//     out when it is not known, and when the account is full.
//
// Retry-After is whole seconds, rounded up, 1 at least.
func (v *Verdict) RateLimitHeaders(set func(name, value string)) {
	var buffers [2][192]byte // one limit fits; this is asked for with every answer of some doors
	policies, limits := buffers[0][:0], buffers[1][:0]
	count := 0
	add := func(d *Decision, denied bool) {
		if count == maxHeaderItems || !d.hasLimit() {
			return
		}
		if count++; count > 1 {
			policies, limits = append(policies, ", "...), append(limits, ", "...)
		}
		policies = d.appendPolicy(d.appendName(policies))
		limits = v.appendLimit(d.appendName(limits), d, denied)
	}
	last := len(v.Decisions) - 1
	denied := !v.Admitted && last >= 0 && !v.Decisions[last].Admitted
	if denied { // the one that denies is the last that is asked
		add(&v.Decisions[last], true)
		last--
	}
	for i := range v.Decisions[:last+1] {
		add(&v.Decisions[i], false)
	}
	if count > 0 {
		set("RateLimit-Policy", string(policies))
		set("RateLimit", string(limits))
	}
	if !v.Admitted && v.RetryAfter > 0 {
		set("Retry-After", strconv.FormatInt(wholeSeconds(v.RetryAfter), 10))
	}
}

// hasLimit tells whether there is a number that a client could make use of.
func (d *Decision) hasLimit() bool {
	return d.Charged && (d.Limiter.Kind.hasBucket() || d.Limiter.Kind.holdsSlots())
}

// appendName writes the name of the limit as a String of structured fields.
func (d *Decision) appendName(b []byte) []byte {
	b = appendHeaderText(append(b, '"'), d.Limiter.Policy)
	b = appendHeaderText(append(b, '/'), d.Limiter.Component)
	return append(b, '"')
}

// appendPolicy writes the parameters of an item of RateLimit-Policy.
func (d *Decision) appendPolicy(b []byte) []byte {
	if d.Limiter.Kind.holdsSlots() {
		return append(appendParameter(b, ";q=", headerInteger(d.Limit)), `;qu="concurrent-requests"`...)
	}
	quota, window := d.Limit, int64(0)
	if fill := d.Limiter.Bucket.TimeToFill(); fill > 0 && fill != limit.Never {
		window = wholeSeconds(fill)
		if fill < time.Second {
			quota /= fill.Seconds()
		}
	}
	b = appendParameter(b, ";q=", headerInteger(quota))
	if window > 0 {
		b = appendParameter(b, ";w=", window)
	}
	return b
}

// appendLimit writes the parameters of an item of RateLimit.
func (v *Verdict) appendLimit(b []byte, d *Decision, denied bool) []byte {
	left := d.Remaining
	if !v.Admitted && d.Admitted {
		left = min(d.Limit, left+d.Tokens) // it was given back
	}
	b = appendParameter(b, ";r=", headerInteger(left))
	wait := v.RetryAfter
	if !denied {
		wait = d.gains(left)
	}
	if wait > 0 && wait != limit.Never {
		b = appendParameter(b, ";t=", wholeSeconds(wait))
	}
	return b
}

func appendParameter(b []byte, name string, value int64) []byte {
	return strconv.AppendInt(append(b, name...), value, 10)
}

// gains is when an account with so much left has more; 0: not known, or never.
func (d *Decision) gains(left float64) time.Duration {
	r := &d.Limiter.Bucket
	switch {
	case d.Limiter.Kind.holdsSlots() || left >= d.Limit:
		return 0
	case r.FixedWindow:
		return d.Resets
	case r.FillAmount <= 0:
		return 0
	case !r.Continuous:
		return r.Interval
	}
	missing := min(math.Floor(left)+1, d.Limit) - left
	return max(1, seconds(missing/r.FillAmount*r.Interval.Seconds()))
}

// wholeSeconds rounds up.
func wholeSeconds(d time.Duration) int64 {
	n := int64(d / time.Second)
	if d%time.Second > 0 {
		n++
	}
	return n
}

// maxHeaderInteger is the largest Integer of structured fields (RFC 9651, section 3.3.1).
const maxHeaderInteger = 999_999_999_999_999

func headerInteger(n float64) int64 {
	switch {
	case !(n > 0):
		return 0
	case n >= maxHeaderInteger:
		return maxHeaderInteger
	}
	return int64(n)
}

// appendHeaderText writes what is inside a String of structured fields (RFC 9651, section 3.3.3). It has no room for
// anything but printable ASCII: other bytes, and the percent sign, are percent-encoded.
func appendHeaderText(b []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c > '~' || c == '%':
			b = append(b, '%', digits[c>>4], digits[c&15])
		default:
			b = append(b, c)
		}
	}
	return b
}
