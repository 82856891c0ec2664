// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/sluice-project/sluice/internal/limit"
)

const (
	chunkBits    = 14
	chunkRecords = 1 << chunkBits
	chunkSize    = chunkRecords * recordSize // 1 MiB: what the file grows by
	indexBits    = 24                        // of a record in a SlotID
	maxRecords   = 1<<indexBits - 1
	noRecord     = 0 // indexes are stored plus one
)

type chunk [chunkRecords]record

// arena hands out records, from the heap or from a memory-mapped file. A record stays where it is as
// long as the arena lives.
type arena struct {
	file   *os.File // nil: heap
	max    uint32
	chunks atomic.Pointer[[]*chunk]
	// low is set while only the reserve is left: who frees a record then gives it back at once.
	low atomic.Bool

	mu      sync.Mutex
	maps    [][]byte
	free    []uint32
	next    uint32 // first record never handed out
	growErr error  // why the file did not grow; it is not tried again before the next sync
}

func newArena(maxAccounts int) *arena {
	a := &arena{max: uint32(min(maxAccounts, maxRecords))}
	a.chunks.Store(new([]*chunk))
	return a
}

// reserve is the number of records that new accounts leave alone: half of them for the slots that flows
// hold, half for the accounts that keys share when there is no room for their own.
func (a *arena) reserve() uint32 { return min(1024, a.max/8) }

// grow adds a chunk. Writing zeros, instead of truncating the file to a larger size, makes a full disk
// an error here and not a crash at the first store to the page. REQUIRES mu.
func (a *arena) grow() error {
	if a.growErr != nil {
		return a.growErr
	}
	if a.file == nil {
		a.add(new(chunk))
		return nil
	}
	off := headerSize + int64(len(*a.chunks.Load()))*chunkSize
	if _, err := a.file.WriteAt(make([]byte, chunkSize), off); err != nil {
		a.growErr = fmt.Errorf("grow accounts file: %w", err)
		return a.growErr
	}
	if err := a.mapChunk(off); err != nil {
		a.growErr = err
		return err
	}
	return nil
}

func (a *arena) mapChunk(off int64) error {
	m, err := mapFile(a.file, off, chunkSize)
	if err != nil {
		return fmt.Errorf("map accounts file: %w", err)
	}
	a.maps = append(a.maps, m)
	a.add((*chunk)(unsafe.Pointer(unsafe.SliceData(m))))
	return nil
}

func (a *arena) add(c *chunk) {
	chunks := *a.chunks.Load()
	chunks = append(chunks[:len(chunks):len(chunks)], c)
	a.chunks.Store(&chunks)
}

// at returns record i, counted from 1.
func (a *arena) at(i uint32) *record {
	i--
	return &(*a.chunks.Load())[i>>chunkBits][i&(chunkRecords-1)]
}

// len is the number of records mapped.
func (a *arena) len() uint32 { return uint32(len(*a.chunks.Load())) << chunkBits }

// available is the number of records that can be handed out without growing. REQUIRES mu.
func (a *arena) available() uint32 {
	return uint32(len(a.free)) + max(a.next, min(a.max, a.len())) - a.next
}

// alloc appends up to n free records to dst, at least one unless it fails, and leaves keep records for
// those who need them more.
func (a *arena) alloc(dst []uint32, n, keep uint32) ([]uint32, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var err error
	if a.available() <= keep && a.len() < a.max {
		err = a.grow()
	}
	left := a.available()
	if left <= keep {
		a.low.Store(true)
		return dst, errors.Join(ErrFull, err)
	}
	for range min(n, left-keep) {
		if k := len(a.free); k > 0 {
			dst = append(dst, a.free[k-1])
			a.free = a.free[:k-1]
			continue
		}
		a.next++
		dst = append(dst, a.next)
	}
	return dst, nil
}

func (a *arena) release(records ...uint32) {
	a.mu.Lock()
	a.free = append(a.free, records...)
	if a.available() > 2*a.reserve() {
		a.low.Store(false)
	}
	a.mu.Unlock()
}

// sync writes everything to disk and lets the file grow again, ahead of need if it can. It returns
// what keeps it from growing, or from being written.
func (a *arena) sync(now limit.Instant) error {
	if a.file == nil {
		return nil
	}
	a.mu.Lock()
	n := len(*a.chunks.Load())
	var growErr error
	a.growErr = nil
	if a.available() < chunkRecords/2 && a.len() < a.max {
		growErr = a.grow()
	}
	a.mu.Unlock()
	if err := a.file.Sync(); err != nil { // writes dirty mapped pages too
		return errors.Join(growErr, fmt.Errorf("write accounts file: %w", err))
	}
	return errors.Join(growErr, writeHeader(a.file, header{chunks: n, clock: now}))
}

func (a *arena) close(now limit.Instant) error {
	if a.file == nil {
		return nil
	}
	errs := []error{a.sync(now), a.file.Sync()}
	for _, m := range a.maps {
		errs = append(errs, unmap(m))
	}
	return errors.Join(append(errs, a.file.Close())...)
}
