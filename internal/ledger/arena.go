// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"
)

const (
	chunkBits    = 14
	chunkRecords = 1 << chunkBits
	chunkSize    = chunkRecords * recordSize // 1 MiB: what the file grows by
	headerSize   = 4096
	indexBits    = 24 // of a record in a SlotID
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

	mu   sync.Mutex
	maps [][]byte
	free []uint32
	next uint32 // first record never handed out
}

var fileMagic = [16]byte{'s', 'l', 'u', 'i', 'c', 'e', ' ', 'a', 'c', 'c', 'o', 'u', 'n', 't', 's', 1}

// nativeMark tells the byte order of a file.
const nativeMark = 0x0102030405060708

func newArena(maxAccounts int) *arena {
	a := &arena{max: uint32(min(maxAccounts, maxRecords))}
	a.chunks.Store(new([]*chunk))
	return a
}

// openArena maps a file, creating it when it does not exist.
func openArena(path string, maxAccounts int) (*arena, error) {
	a := newArena(maxAccounts)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open accounts: %w", err)
	}
	a.file = f
	if err := a.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("accounts file %s: %w", path, err), a.close())
	}
	return a, nil
}

func (a *arena) load() error {
	info, err := a.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return a.writeHeader()
	}
	var head [headerSize]byte
	if _, err := io.ReadFull(a.file, head[:]); err != nil {
		return fmt.Errorf("truncated header: %w; %s", err, remedy)
	}
	switch {
	case [16]byte(head[:16]) != fileMagic:
		return fmt.Errorf("not a file of this release of sluice; %s", remedy)
	case binary.NativeEndian.Uint64(head[16:]) != nativeMark:
		return fmt.Errorf("written on a machine of another byte order; %s", remedy)
	case (info.Size()-headerSize)%chunkSize != 0:
		// A crash or a full disk while growing leaves part of a chunk that nothing used yet.
		if err := a.file.Truncate(info.Size() - (info.Size()-headerSize)%chunkSize); err != nil {
			return err
		}
	}
	for off := int64(headerSize); off+chunkSize <= info.Size(); off += chunkSize {
		if err := a.mapChunk(off); err != nil {
			return err
		}
	}
	a.next = uint32(len(*a.chunks.Load())) << chunkBits
	return nil
}

const remedy = "restore it from a backup, or move it away to start with full accounts (limits then start afresh)"

func (a *arena) writeHeader() error {
	var head [headerSize]byte
	copy(head[:], fileMagic[:])
	binary.NativeEndian.PutUint64(head[16:], nativeMark)
	if _, err := a.file.WriteAt(head[:], 0); err != nil {
		return err
	}
	if err := a.grow(); err != nil {
		return err
	}
	return a.file.Sync()
}

// grow adds a chunk. Writing zeros, instead of truncating the file to a larger size, makes a full disk
// an error here and not a crash at the first store to the page.
func (a *arena) grow() error {
	chunks := *a.chunks.Load()
	if a.file == nil {
		chunks = append(chunks[:len(chunks):len(chunks)], new(chunk))
		a.chunks.Store(&chunks)
		return nil
	}
	off := headerSize + int64(len(chunks))*chunkSize
	if _, err := a.file.WriteAt(make([]byte, chunkSize), off); err != nil {
		return fmt.Errorf("grow accounts file: %w", err)
	}
	return a.mapChunk(off)
}

func (a *arena) mapChunk(off int64) error {
	m, err := mapFile(a.file, off, chunkSize)
	if err != nil {
		return fmt.Errorf("map accounts file: %w", err)
	}
	a.maps = append(a.maps, m)
	chunks := *a.chunks.Load()
	chunks = append(chunks[:len(chunks):len(chunks)], (*chunk)(unsafe.Pointer(unsafe.SliceData(m))))
	a.chunks.Store(&chunks)
	return nil
}

// at returns record i, counted from 1.
func (a *arena) at(i uint32) *record {
	i--
	return &(*a.chunks.Load())[i>>chunkBits][i&(chunkRecords-1)]
}

// len is the number of records ever mapped.
func (a *arena) len() uint32 { return uint32(len(*a.chunks.Load())) << chunkBits }

// alloc appends up to n free records to dst, at least one unless it fails.
func (a *arena) alloc(dst []uint32, n int) ([]uint32, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if k := min(n, len(a.free)); k > 0 {
		dst = append(dst, a.free[len(a.free)-k:]...)
		a.free = a.free[:len(a.free)-k]
		return dst, nil
	}
	if a.next >= a.max {
		return dst, ErrFull
	}
	if a.next >= a.len() {
		if err := a.grow(); err != nil {
			return dst, errors.Join(ErrFull, err)
		}
	}
	for range min(uint32(n), a.max-a.next, a.len()-a.next) {
		a.next++
		dst = append(dst, a.next)
	}
	return dst, nil
}

func (a *arena) release(records []uint32) {
	a.mu.Lock()
	a.free = append(a.free, records...)
	a.mu.Unlock()
}

func (a *arena) sync() error {
	if a.file == nil {
		return nil
	}
	return a.file.Sync() // writes dirty mapped pages too
}

func (a *arena) close() error {
	if a.file == nil {
		return nil
	}
	errs := []error{a.file.Sync()}
	for _, m := range a.maps {
		errs = append(errs, unmap(m))
	}
	return errors.Join(append(errs, a.file.Close())...)
}
