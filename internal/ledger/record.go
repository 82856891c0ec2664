// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"crypto/sha256"
	"math"
	"sync/atomic"
	"unsafe"

	"github.com/sluice-project/sluice/internal/limit"
)

// A record is one account or one held slot: 64 bytes, one cache line, and the unit of the file format.
// The file is a header page followed by records; everything else (hash tables, free lists, sums) is
// rebuilt from the records at start. Byte order is the machine's; the header tells.
//
// Crash safety. kill -9 stops the process between two machine instructions, and the pages stay in the
// kernel's cache. Every update is ordered so that what is lost by stopping in between is lost by the
// client, who got no answer, and never by the limit: a bucket moves FilledAt forward before it changes
// Available, and a slot is linked (typ set) after its fields are.
type record struct {
	limiter uint64
	// a is, by typ: tokens available; slots held by the account; slots held by one flow.
	a float64
	// t is, by typ: filled up to; head and tail of the held slots (not kept over a restart); expiry.
	t int64
	// account, prev and next (1 + index; 0: none) link a held slot; serial is part of its SlotID. For an
	// account these 36 bytes are the key.
	account, prev, next uint32
	_                   uint32
	serial              uint64
	_                   [12]byte
	typ                 uint8
	klen                uint8
	sum                 uint16
}

const recordSize = 64

var _ [recordSize]byte = [unsafe.Sizeof(record{})]byte{}

// Record types.
const (
	typFree   = 0
	typBucket = 1
	typSlots  = 2 // an account of slots
	typHeld   = 3 // slots held by one flow
)

// maxInline is the longest key kept as it is; of longer keys a record keeps the beginning and a hash.
const maxInline = 36

const (
	longKey    = 255 // klen of a key that is hashed
	longPrefix = 20  // bytes of a long key kept for display; the other 16 are its SHA-256
)

// identity is a key in the form in which records keep and compare it.
type identity struct {
	b    [maxInline]byte
	klen uint8
}

func identify(key string) (id identity) {
	if len(key) <= maxInline {
		copy(id.b[:], key)
		id.klen = uint8(len(key))
		return id
	}
	id.klen = longKey
	copy(id.b[:longPrefix], key)
	sum := sha256.Sum256([]byte(key))
	copy(id.b[longPrefix:], sum[:maxInline-longPrefix])
	return id
}

func (r *record) keyBytes() *[maxInline]byte { return (*[maxInline]byte)(unsafe.Pointer(&r.account)) }

func (r *record) is(typ uint8, limiter LimiterID, id *identity) bool {
	return r.typ == typ && r.limiter == uint64(limiter) && r.klen == id.klen && *r.keyBytes() == id.b
}

// key returns the key for people.
func (r *record) key() string {
	b := r.keyBytes()
	if r.klen == longKey {
		return string(b[:longPrefix]) + "…"
	}
	return string(b[:min(r.klen, maxInline)])
}

// seal stores who the record belongs to, with a checksum over what never changes.
func (r *record) seal(typ uint8, limiter LimiterID, id *identity) {
	r.limiter = uint64(limiter)
	*r.keyBytes() = id.b
	r.klen = id.klen
	r.sum = r.checksum(typ)
	r.typ = typ
}

// checksum mixes the identity of a record into 16 bits: enough to notice a damaged file, cheap enough
// for every held slot (a CRC costs an allocation here).
func (r *record) checksum(typ uint8) uint16 {
	const mix = 0x9e3779b97f4a7c15
	h := (r.limiter ^ uint64(typ)<<8 ^ uint64(r.klen)) * mix
	if typ != typHeld { // links of held slots change
		key := r.keyBytes()
		for i := 0; i+8 <= maxInline; i += 8 {
			h = (h ^ h>>29 ^ *(*uint64)(unsafe.Pointer(&key[i]))) * mix
		}
		h = (h ^ h>>29 ^ uint64(*(*uint32)(unsafe.Pointer(&key[maxInline-4])))) * mix
	}
	return uint16(h >> 48)
}

// sane tells whether a record read from a file can be what we wrote.
func (r *record) sane() bool {
	if r.typ == typFree {
		return true
	}
	if r.typ > typHeld || r.limiter == 0 || r.sum != r.checksum(r.typ) || r.t < 0 && r.typ != typSlots {
		return false
	}
	if r.klen > maxInline && r.klen != longKey {
		return false
	}
	return !math.IsNaN(r.a) && r.a >= -limit.MaxTokens && r.a <= limit.MaxTokens
}

func (r *record) bucket() limit.Bucket {
	return limit.Bucket{Available: r.a, FilledAt: limit.Instant(r.t)}
}

// setBucket stores the time first: a process killed in between loses filling, it does not gain it. The
// atomic store keeps the order in the machine code.
func (r *record) setBucket(b limit.Bucket) {
	atomic.StoreInt64(&r.t, int64(b.FilledAt))
	r.a = b.Available
}
