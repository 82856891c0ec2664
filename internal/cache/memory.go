// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/sluice-project/sluice/internal/limit"
)

// entryOverhead is what an entry takes besides its texts and its value; TestMemoryIsBounded measures it.
const entryOverhead = 256

// Memory keeps values in this process. When there are too many, those used least and longest ago make room
// (W-TinyLFU), which may well be the newest. For moments it may keep more than its bound: what is being written.
type Memory struct {
	entries *otter.Cache[Key, kept]
	evicted atomic.Uint64
}

var _ Store = (*Memory)(nil)

// kept is a value in a Memory.
type kept struct {
	Stored
	keepFor time.Duration
}

// NewMemory makes an empty Memory of at most so many bytes.
func NewMemory(maxBytes int64) (*Memory, error) {
	if maxBytes <= 0 {
		return nil, fmt.Errorf("cache: a memory of %d bytes; want more than 0", maxBytes)
	}
	m := &Memory{}
	var err error
	m.entries, err = otter.New(&otter.Options[Key, kept]{
		MaximumWeight:    uint64(maxBytes),
		Weigher:          weigh,
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[Key, kept]) time.Duration { return e.Value.keepFor }),
		OnAtomicDeletion: func(e otter.DeletionEvent[Key, kept]) {
			if e.Cause == otter.CauseOverflow {
				m.evicted.Add(1)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	return m, nil
}

func weigh(k Key, v kept) uint32 {
	return uint32(entryOverhead + len(k.Tenant) + len(k.ControlPoint) + len(k.Name) + cap(v.Value))
}

// Get implements Store. It allocates nothing.
func (m *Memory) Get(_ context.Context, k Key, now limit.Instant) (Stored, bool, error) {
	v, ok := m.entries.GetIfPresent(k)
	if !ok || now >= v.Keep {
		return Stored{}, false, nil
	}
	return v.Stored, true, nil
}

// Set implements Store.
func (m *Memory) Set(_ context.Context, k Key, s Stored, now limit.Instant) error {
	m.entries.Set(k.clone(), kept{s, max(1, s.Keep.Sub(now))})
	return nil
}

// Delete implements Store.
func (m *Memory) Delete(_ context.Context, k Key) error {
	m.entries.Invalidate(k)
	return nil
}

// Usage implements Store.
func (m *Memory) Usage() Usage {
	return Usage{
		Entries: int64(m.entries.EstimatedSize()), Bytes: int64(m.entries.WeightedSize()), Evicted: m.evicted.Load(),
	}
}

// Close implements Store.
func (m *Memory) Close() error {
	m.entries.StopAllGoroutines()
	m.entries.InvalidateAll()
	return nil
}
