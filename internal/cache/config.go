// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"fmt"
	"time"

	"github.com/sluice-project/sluice/internal/limit"
)

// Bounds that are not settings.
const (
	// MaxKeyBytes is the longest key, and the longest tenant.
	MaxKeyBytes = 1024
	// MaxControlPointBytes is the longest control point.
	MaxControlPointBytes = 255
	// MaxGlobalKeys is how many global keys one request may name.
	MaxGlobalKeys = 64
	// MaxTTL is the longest time that a value is fresh, and the one of values that come without.
	MaxTTL = 7 * 24 * time.Hour
	// MaxAnswerBytes bounds the values of one answer together: clients of gRPC take messages of 4 MiB.
	MaxAnswerBytes = 3 << 20
	// MaxWaiters is how many flows may wait for one key, and MaxAllWaiters for all keys together.
	MaxWaiters    = 10_000
	MaxAllWaiters = 100_000
	// MaxFlights is how many keys may be computed at the same time with others to wait for them; flows that
	// miss further keys compute without. A key takes about 300 bytes.
	MaxFlights = 100_000
)

// Config configures a Cache. Start from DefaultConfig.
type Config struct {
	// MaxBytes bounds what values, keys and their bookkeeping take in memory; at least 1 MiB.
	MaxBytes int64
	// MaxValueBytes is the longest value that is kept, 1 to MaxAnswerBytes, and no more than MaxBytes.
	MaxValueBytes int
	// TenantLabel is the label of flows whose value separates tenants; "": there is one tenant, "".
	TenantLabel string
	// CoalesceTimeout is how long a flow may take to compute a value that others wait for, before the next of
	// them is chosen; more than 0.
	CoalesceTimeout time.Duration
	// StaleFor is how long a value is kept after it has expired, for flows that take it stale; never longer
	// than it was fresh. 0: not at all.
	StaleFor time.Duration

	// Store keeps the values; nil: a Memory of MaxBytes.
	Store Store
	// Now is the clock; nil: the time of day. Flows and caches should share one.
	Now func() limit.Instant
}

// DefaultConfig returns the settings that count unless told.
func DefaultConfig() Config {
	return Config{
		MaxBytes: 64 << 20, MaxValueBytes: 1 << 20, CoalesceTimeout: 30 * time.Second, StaleFor: 5 * time.Minute,
	}
}

// Validate reports every setting that makes no sense.
func (c *Config) Validate() error {
	var errs []error
	complain := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	complain(c.MaxBytes < 1<<20, "max_bytes: got %d, want at least 1048576 (1 MiB)", c.MaxBytes)
	complain(c.MaxValueBytes < 1 || c.MaxValueBytes > MaxAnswerBytes,
		"max_value_bytes: got %d, want 1 to %d", c.MaxValueBytes, MaxAnswerBytes)
	complain(int64(c.MaxValueBytes) > c.MaxBytes,
		"max_value_bytes: got %d, want no more than max_bytes, %d", c.MaxValueBytes, c.MaxBytes)
	complain(c.CoalesceTimeout <= 0, "coalesce_timeout: got %s, want more than 0s", c.CoalesceTimeout)
	complain(c.StaleFor < 0, "stale_for: got %s, want 0s or more", c.StaleFor)
	return errors.Join(errs...)
}
