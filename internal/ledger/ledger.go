// SPDX-License-Identifier: Apache-2.0

// Package ledger keeps the accounts that limits are charged to.
//
// An account is (limiter, label value); its kind is a token bucket or slots in flight. An Authority is
// where the accounts live. Memory is the authority of one process: sharded, bounded, and, given a data
// directory, in a memory-mapped file, so that kill -9 at any moment gives nothing back. Every authority
// passes the suite in package ledgertest.
package ledger

import (
	"context"
	"errors"
	"time"

	"github.com/sluice-project/sluice/internal/limit"
)

// LimiterID names a limiter for as long as its accounts live, across edits and restarts. Never 0.
type LimiterID uint64

// ErrFull is returned when an account cannot be created because the authority holds as many as it may
// and none can be forgotten.
var ErrFull = errors.New("ledger: no room for another account")

// Authority keeps accounts. All methods may be called concurrently.
type Authority interface {
	// Buckets returns the token buckets of a limiter, creating none. The same limiter always gets the
	// same accounts; the rule replaces the one in force, with what has filled so far accounted for
	// under the old one.
	Buckets(id LimiterID, rule limit.BucketRule) Buckets
	// Slots returns the slots in flight of a limiter.
	Slots(id LimiterID, rule SlotRule) Slots
	// Forget drops the accounts of a limiter that is gone for good.
	Forget(id LimiterID)
	// Now is the clock that the accounts are kept by.
	Now() limit.Instant
	// Close makes everything durable and releases resources. No other call may be under way or follow.
	Close() error
}

// Buckets are the token buckets of one limiter.
type Buckets interface {
	// Take charges n tokens to an account if it has them, and changes nothing if not. n must be valid
	// (limit.ValidTokens). An error means that the authority could not decide.
	Take(ctx context.Context, key string, n float64, now limit.Instant) (Charge, error)
	// Give hands back n tokens taken before, or charges -n more without asking.
	Give(key string, n float64, now limit.Instant)
	// Level reads an account without creating it.
	Level(key string, now limit.Instant) Charge
	// Configure replaces the rule.
	Configure(rule limit.BucketRule)
}

// Charge is the answer to a Take.
type Charge struct {
	OK bool
	// Wait is, for a refusal, when the tokens will be there if nobody else takes any; limit.Never when
	// time alone does not bring them.
	Wait time.Duration
	// Remaining tokens after the take; never negative.
	Remaining float64
	// Limit is what a full account holds.
	Limit float64
	// Slot identifies what was taken from Slots, for Release. 0: nothing to release.
	Slot SlotID
}

// SlotRule says how many slots an account has and for how long one may be held.
type SlotRule struct {
	// Max is the number of slots, 0..limit.MaxTokens.
	Max float64
	// MaxInFlight is after how long a slot whose release never came is taken as released. More than 0.
	MaxInFlight time.Duration
}

// SlotID names slots held by one flow. Never 0; not reused for a different flow while anyone may still
// release it.
type SlotID uint64

// Slots are the slots in flight of one limiter.
type Slots interface {
	// Take holds n slots if so many are free, and changes nothing if not.
	Take(ctx context.Context, key string, n float64, now limit.Instant) (Charge, error)
	// Release frees slots. It returns false when they are not held: released before, or expired.
	Release(key string, id SlotID) bool
	// Level reads an account without creating it; Wait is when the next slot expires, limit.Never if
	// none is held.
	Level(key string, now limit.Instant) Charge
	// Expire frees the slots of an account that have been held too long and tells when the next one
	// will have been; limit.Never if none is held.
	Expire(key string, now limit.Instant) time.Duration
	// Configure replaces the rule. Slots already held keep their expiry.
	Configure(rule SlotRule)
}

// Account is a reading of one account.
type Account struct {
	Limiter LimiterID
	Kind    Kind
	// Key is the label value; of long keys only the beginning, followed by "…".
	Key string
	// Used tokens: missing from the bucket, or in flight.
	Used float64
	// Limit is what a full account holds.
	Limit float64
}

// Kind is the kind of an account.
type Kind uint8

// The kinds of accounts.
const (
	KindUnspecified Kind = iota
	KindBucket
	KindSlots
)
