// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"fmt"
	"math"
	"strconv"
	"strings"
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
	var policies, limits strings.Builder
	count := 0
	add := func(d *Decision, denied bool) {
		if count == maxHeaderItems || !d.hasLimit() {
			return
		}
		if count++; count > 1 {
			policies.WriteString(", ")
			limits.WriteString(", ")
		}
		name := headerString(d.Limiter.Policy + "/" + d.Limiter.Component)
		policies.WriteString(name)
		d.writePolicy(&policies)
		limits.WriteString(name)
		v.writeLimit(&limits, d, denied)
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
		set("RateLimit-Policy", policies.String())
		set("RateLimit", limits.String())
	}
	if !v.Admitted && v.RetryAfter > 0 {
		set("Retry-After", strconv.FormatInt(wholeSeconds(v.RetryAfter), 10))
	}
}

// hasLimit tells whether there is a number that a client could make use of.
func (d *Decision) hasLimit() bool {
	return d.Charged && (d.Limiter.Kind.hasBucket() || d.Limiter.Kind.holdsSlots())
}

// writePolicy writes the parameters of an item of RateLimit-Policy.
func (d *Decision) writePolicy(b *strings.Builder) {
	if d.Limiter.Kind.holdsSlots() {
		fmt.Fprintf(b, `;q=%d;qu="concurrent-requests"`, headerInteger(d.Limit))
		return
	}
	quota, window := d.Limit, int64(0)
	if fill := d.Limiter.Bucket.TimeToFill(); fill > 0 && fill != limit.Never {
		window = wholeSeconds(fill)
		if fill < time.Second {
			quota /= fill.Seconds()
		}
	}
	fmt.Fprintf(b, ";q=%d", headerInteger(quota))
	if window > 0 {
		fmt.Fprintf(b, ";w=%d", window)
	}
}

// writeLimit writes the parameters of an item of RateLimit.
func (v *Verdict) writeLimit(b *strings.Builder, d *Decision, denied bool) {
	left := d.Remaining
	if !v.Admitted && d.Admitted {
		left = min(d.Limit, left+d.Tokens) // it was given back
	}
	fmt.Fprintf(b, ";r=%d", headerInteger(left))
	wait := v.RetryAfter
	if !denied {
		wait = d.gains(left)
	}
	if wait > 0 && wait != limit.Never {
		fmt.Fprintf(b, ";t=%d", wholeSeconds(wait))
	}
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

// wholeSeconds rounds up, to 1 at least.
func wholeSeconds(d time.Duration) int64 {
	n := int64(d / time.Second)
	if d%time.Second > 0 {
		n++
	}
	return max(n, 1)
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

// headerString writes a String of structured fields (RFC 9651, section 3.3.3). It has no room for anything but
// printable ASCII: other bytes, and the percent sign, are percent-encoded.
func headerString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~' || c == '%':
			fmt.Fprintf(&b, "%%%02X", c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
