// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"

	"github.com/sluice-project/sluice/internal/limit"
)

// Store keeps values. It may forget any of them at any time; it must never return the value of another key, or
// one that was replaced or deleted by a call that had returned before. All methods may be called concurrently.
// Package cachetest is the suite that every Store must pass.
type Store interface {
	// Get returns what is kept under a key, also when it has expired. ok is false when there is nothing, or
	// nothing that is kept any longer at now. The value is shared: neither side may change it.
	Get(ctx context.Context, k Key, now limit.Instant) (s Stored, ok bool, err error)
	// Set keeps a value, replacing the one before. It copies what it needs of the key, and takes over the value.
	Set(ctx context.Context, k Key, s Stored, now limit.Instant) error
	// Delete forgets a value. Deleting what is not there is no error.
	Delete(ctx context.Context, k Key) error
	// Usage tells how much is kept. It may be some moments old.
	Usage() Usage
	// Close releases resources. No other call may be under way or follow.
	Close() error
}

// Stored is a value with its times.
type Stored struct {
	Value []byte
	// Fresh is the instant from which on the value has expired.
	Fresh limit.Instant
	// Keep is the instant from which on it need not be kept any longer; no earlier than Fresh.
	Keep limit.Instant
}

// Usage is how much a Store keeps.
type Usage struct {
	// Entries and Bytes are what is kept now, Bytes with keys and bookkeeping.
	Entries, Bytes int64
	// Evicted counts values that were forgotten to make room.
	Evicted uint64
}
