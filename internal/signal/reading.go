// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"errors"
	"math"
	"time"
)

// Query is what a component wants to know.
type Query struct {
	// Expr is PromQL. Its result is a scalar or a vector of one element, unless ByLabel is set.
	Expr string
	// Interval is the time from one evaluation to the next: they are due at its multiples. At least 10 ms.
	Interval time.Duration
	// Policy and Component say whose query it is, in logs.
	Policy, Component string
	// ByLabel, when set, makes the reading a table: the value of this label of each element of the vector to
	// the element's value. Elements without the label have the key "".
	ByLabel string
}

// Reading is the latest answer to a query. It is not changed any more: a copy is cheap.
type Reading struct {
	// Value is NaN while there is none: before the first answer, after a failure, and when the answer is NaN.
	// It can be infinite. With ByLabel it is the number of elements.
	Value float64
	// ByLabel is the table of a query with ByLabel, nil when there is no answer. Do not change it.
	ByLabel map[string]float64
	// At is the time the answer is about; zero before the first.
	At time.Time
	// Err is why Value is NaN, as a *Error; nil when it is not.
	Err error
	// Evaluations counts the answers so far, failures included.
	Evaluations uint64
	// LastDuration is how long the last evaluation took.
	LastDuration time.Duration
}

// Valid reports whether there is a value.
func (r Reading) Valid() bool { return !math.IsNaN(r.Value) }

// Kind is why there is no value.
type Kind int

// The kinds.
const (
	// KindPending is before the first answer.
	KindPending Kind = iota + 1
	// KindEmpty is a query that selects nothing.
	KindEmpty
	// KindMany is a vector of more than one element.
	KindMany
	// KindNotANumber is NaN, such as a division by zero or a quantile of no observations, or a histogram.
	KindNotANumber
	// KindInvalid is a query that cannot be evaluated.
	KindInvalid
	// KindTimeout is a query that took too long.
	KindTimeout
	// KindTooLarge is a query that reads too many samples.
	KindTooLarge
	// KindUnreachable is a remote server that does not answer, or not usefully.
	KindUnreachable
	// KindClosed is a service that has been closed, or whose storage failed.
	KindClosed
)

var kindNames = [...]string{
	KindPending: "pending", KindEmpty: "empty", KindMany: "many-valued", KindNotANumber: "not a number", KindInvalid: "invalid",
	KindTimeout: "timeout", KindTooLarge: "too large", KindUnreachable: "unreachable", KindClosed: "closed",
}

// String is what metrics and statuses call it.
func (k Kind) String() string {
	if k < KindPending || int(k) >= len(kindNames) {
		return "unknown"
	}
	return kindNames[k]
}

// Error is why a query has no value.
type Error struct {
	Kind Kind
	// Text says it to people.
	Text string
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

// KindOf is the kind of an error of this package; 0 for others and nil.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return 0
}

var errPending = &Error{KindPending, "the query has not been answered yet"}
