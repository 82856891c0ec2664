// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sluice-project/sluice/internal/limit"
)

// headerSize is a multiple of every page size in use, because what follows is mapped.
const headerSize = 64 << 10

var fileMagic = [16]byte{'s', 'l', 'u', 'i', 'c', 'e', ' ', 'a', 'c', 'c', 'o', 'u', 'n', 't', 's', 1}

// nativeMark tells the byte order of a file.
const nativeMark = 0x0102030405060708

// header is what the file says about itself. It is written on every sync.
type header struct {
	// chunks that are on disk for certain. There may be more, but never fewer unless the file was cut.
	chunks int
	// clock is a moment before which no account was changed last. The accounts' clock goes on from
	// here when the machine's has been set back: slots and delayed fills would last too long otherwise.
	clock limit.Instant
}

const headerUsed = 44 // magic, mark, chunks, clock, CRC-32

func writeHeader(f *os.File, h header) error {
	var b [headerUsed]byte
	copy(b[:], fileMagic[:])
	binary.NativeEndian.PutUint64(b[16:], nativeMark)
	binary.NativeEndian.PutUint64(b[24:], uint64(h.chunks))
	binary.NativeEndian.PutUint64(b[32:], uint64(h.clock))
	binary.NativeEndian.PutUint32(b[40:], crc32.ChecksumIEEE(b[:40]))
	if _, err := f.WriteAt(b[:], 0); err != nil {
		return fmt.Errorf("write accounts file: %w", err)
	}
	return nil
}

const remedy = "restore it from a backup, or move it away to start with full accounts (limits then start afresh)"

func readHeader(f *os.File) (h header, err error) {
	var b [headerUsed]byte
	if n, err := f.ReadAt(b[:], 0); err != nil {
		return h, fmt.Errorf("cut short after %d bytes; %s", n, remedy)
	}
	switch {
	case [16]byte(b[:16]) != fileMagic:
		return h, fmt.Errorf("not a file of this release of sluice; %s", remedy)
	case binary.NativeEndian.Uint64(b[16:]) != nativeMark:
		return h, fmt.Errorf("written on a machine of another byte order; %s", remedy)
	case binary.NativeEndian.Uint32(b[40:]) != crc32.ChecksumIEEE(b[:40]):
		return h, fmt.Errorf("header is damaged; %s", remedy)
	}
	h.chunks = int(binary.NativeEndian.Uint64(b[24:]))
	h.clock = limit.Instant(binary.NativeEndian.Uint64(b[32:]))
	return h, nil
}

// openArena maps a file, creating it when it does not exist.
func openArena(path string, maxAccounts int) (*arena, header, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createFile(path); err != nil {
			return nil, header{}, fmt.Errorf("create accounts file: %w", err)
		}
		f, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	if err != nil {
		return nil, header{}, fmt.Errorf("open accounts file: %w", err)
	}
	a := newArena(maxAccounts)
	h, err := a.load(f)
	if err != nil {
		errs := []error{fmt.Errorf("accounts file %s: %w", path, err)}
		for _, m := range a.maps {
			errs = append(errs, unmap(m))
		}
		return nil, header{}, errors.Join(append(errs, f.Close())...)
	}
	a.file = f
	return a, h, nil
}

// createFile makes a file with one chunk, or none: whatever happens, there is never a file that looks
// as if its contents had been lost.
func createFile(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, headerSize+chunkSize), 0); err != nil {
		return err
	}
	if err := errors.Join(writeHeader(f, header{chunks: 1}), f.Sync()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (a *arena) load(f *os.File) (header, error) {
	if err := lockFile(f); err != nil {
		return header{}, fmt.Errorf("in use by another process: %w", err)
	}
	h, err := readHeader(f)
	if err != nil {
		return h, err
	}
	info, err := f.Stat()
	if err != nil {
		return h, err
	}
	// A crash or a full disk while growing leaves part of a chunk, which nothing used yet.
	n := int((info.Size() - headerSize) / chunkSize)
	if info.Size() < headerSize+chunkSize || n < h.chunks {
		return h, fmt.Errorf("cut short: %d bytes, want at least %d; %s",
			info.Size(), headerSize+int64(h.chunks)*chunkSize, remedy)
	}
	a.file = f
	for i := range n {
		if err := a.mapChunk(headerSize + int64(i)*chunkSize); err != nil {
			return h, err
		}
	}
	a.next = a.len()
	h.chunks = n
	return h, nil
}
