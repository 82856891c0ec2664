// SPDX-License-Identifier: Apache-2.0

// Package limit holds the limiter algorithms as functions of state, time and cost.
//
// Nothing here reads a clock, waits, locks or does I/O: whoever keeps the state (package ledger) brings
// the time and serialises the calls. That lets the same code run in the server, in virtual-time tests
// and in a simulator.
package limit

import (
	"math"
	"time"
)

// Instant is a moment in nanoseconds since the Unix epoch. Who keeps the accounts chooses the clock. It
// should not jump: time that a clock skips counts as passed. Going back never adds tokens.
type Instant int64

// At converts a time to an Instant.
func At(t time.Time) Instant { return Instant(t.UnixNano()) }

// Add returns the instant d later, saturating instead of overflowing.
func (i Instant) Add(d time.Duration) Instant {
	if sum := i + Instant(d); (d >= 0) == (sum >= i) {
		return sum
	}
	if d > 0 {
		return math.MaxInt64
	}
	return math.MinInt64
}

// Sub returns the duration from j to i, saturating instead of overflowing.
func (i Instant) Sub(j Instant) time.Duration {
	if d := i - j; (j <= 0) == (d >= i) {
		return time.Duration(d)
	}
	if j < 0 {
		return math.MaxInt64
	}
	return math.MinInt64
}

// Time converts back to a time.
func (i Instant) Time() time.Time { return time.Unix(0, int64(i)) }

// Never is the wait for something that time alone does not bring.
const Never time.Duration = math.MaxInt64

// MaxTokens bounds every cost and capacity: beyond it float64 arithmetic loses single tokens.
const MaxTokens = 1 << 53

// ValidTokens tells whether n can be charged: finite, not negative and at most MaxTokens.
func ValidTokens(n float64) bool { return n >= 0 && n <= MaxTokens }

// duration converts nanoseconds to a duration, rounding up and saturating at Never.
func duration(ns float64) time.Duration {
	if ns <= 0 {
		return 0
	}
	if ns = math.Ceil(ns); ns >= float64(Never) {
		return Never
	}
	return time.Duration(ns)
}
