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
// Available; and a record comes into being, and ends, by the one store of its mark.
//
// Damage. The mark holds a checksum over all that never changes in a record, so a damaged file is refused
// at start. Not covered are the two numbers of a bucket, which change with every take: damage there
// cannot be told from a take, and makes a bucket emptier or, at most, full.
type record struct {
	limiter uint64
	// a is, by typ: tokens available; slots held by the account; slots held by one flow.
	a float64
	// t is, by typ: filled up to; head and tail of the held slots (not kept over a restart); expiry.
	t int64
	// account, prev and next (1 + index; 0: none) link a held slot; serial is part of its SlotID; tag is
	// of the key that a slot of the shared account is held for. For an account these 36 bytes are the key.
	account, prev, next uint32
	_                   uint32
	serial              uint64
	tag                 uint64
	_                   [4]byte
	mark
}

// mark says what a record is. All zero: the record is free.
type mark struct {
	typ  uint8
	klen uint8 // of an account: length of its key, or longKey; of a held slot: see moving
	sum  uint16
}

// setMark writes the mark with one store, after all the stores before it.
func (r *record) setMark(m mark) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&r.mark)), *(*uint32)(unsafe.Pointer(&m)))
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
	sum := sha256.Sum256(unsafe.Slice(unsafe.StringData(key), len(key))) // a conversion would allocate
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

// sealAccount makes the record an account. Its numbers must be stored already.
func (r *record) sealAccount(typ uint8, limiter LimiterID, id *identity) {
	r.limiter = uint64(limiter)
	*r.keyBytes() = id.b
	r.seal(typ, id.klen)
}

func (r *record) seal(typ, klen uint8) { r.setMark(mark{typ, klen, r.checksum(typ, klen)}) }

// moving is the klen of a held slot whose account is being changed: its checksum leaves the account out.
const moving = 1

// moveTo gives a held slot to another account, so that it is valid at every moment.
func (r *record) moveTo(account uint32) {
	r.seal(typHeld, moving)
	atomic.StoreUint32(&r.account, account)
	r.seal(typHeld, 0)
}

// checksum mixes what never changes in a record into 16 bits, not 0: enough to notice a damaged file,
// cheap enough for every held slot (a CRC costs an allocation here).
func (r *record) checksum(typ, klen uint8) uint16 {
	h := fold(r.limiter, uint64(typ)<<8^uint64(klen))
	if typ == typHeld {
		h = fold(fold(fold(fold(h, math.Float64bits(r.a)), uint64(r.t)), r.serial), r.tag)
		if klen != moving {
			h = fold(h, uint64(r.account))
		}
	} else {
		key := r.keyBytes()
		for i := 0; i+8 <= maxInline; i += 8 {
			h = fold(h, *(*uint64)(unsafe.Pointer(&key[i])))
		}
		h = fold(h, uint64(*(*uint32)(unsafe.Pointer(&key[maxInline-4]))))
	}
	return max(1, uint16(h>>48))
}

func fold(h, x uint64) uint64 { return (h ^ h>>29 ^ x) * 0x9e3779b97f4a7c15 }

// sane tells whether a record read from a file can be what we wrote.
func (r *record) sane() bool {
	if r.mark == (mark{}) {
		return true
	}
	switch r.typ {
	case typBucket:
		if math.IsNaN(r.a) || math.Abs(r.a) > limit.MaxTokens || r.t < 0 {
			return false
		}
		fallthrough
	case typSlots:
		if r.klen > maxInline && r.klen != longKey {
			return false
		}
	case typHeld:
		if r.klen > moving {
			return false
		}
	default:
		return false
	}
	return r.sum == r.checksum(r.typ, r.klen)
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
