// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"hash/maphash"
	"sync"
)

const shardCount = 64

// shard holds a share of the accounts. Everything in it, and every record of its accounts, needs mu.
// Lock order: memoryBuckets.mu, shards by their number, Memory.setsMu, the arena's. Nothing is waited for or
// called out to while holding one, and no I/O is done but growing the file.
type shard struct {
	mu     sync.Mutex
	number int // place in Memory.shards; never changes
	table  table
	free   []uint32
	hand   int      // where the sweep goes on
	skip   int      // vain sweeps still to be spared
	_      [40]byte // two cache lines each
}

// lockBoth locks the shards of two accounts, which may be one.
func lockBoth(a, b *shard) {
	if a.number > b.number {
		a, b = b, a
	}
	a.mu.Lock()
	if a != b {
		b.mu.Lock()
	}
}

func unlockBoth(a, b *shard) {
	a.mu.Unlock()
	if a != b {
		b.mu.Unlock()
	}
}

// table finds records by hash: open addressing with linear probing, 8 bytes an entry, of which the
// upper half is a tag that spares most visits to the records. The runtime's map would take three times
// the memory, which is what bounds the number of tenants.
type table struct {
	entries []uint64 // tag<<32 | record; 0: empty
	count   int
}

func entryOf(hash uint64, rec uint32) uint64 { return hash<<32 | uint64(rec) }

func (t *table) home(e uint64) int { return int(mix32(uint32(e>>32))) & (len(t.entries) - 1) }

// mix32 spreads the tag over the table (finaliser of MurmurHash3, public domain).
func mix32(x uint32) uint32 {
	x ^= x >> 16
	x *= 0x85ebca6b
	x ^= x >> 13
	x *= 0xc2b2ae35
	return x ^ x>>16
}

// find returns the record for which is answers true, and its place; 0 if there is none.
func (t *table) find(hash uint64, is func(rec uint32) bool) (rec uint32, at int) {
	if len(t.entries) == 0 {
		return noRecord, 0
	}
	tag := hash << 32
	for at = t.home(tag); ; at = (at + 1) & (len(t.entries) - 1) {
		e := t.entries[at]
		if e == 0 {
			return noRecord, at
		}
		if e&^0xffffffff == tag && is(uint32(e)) {
			return uint32(e), at
		}
	}
}

func (t *table) insert(hash uint64, rec uint32) {
	if (t.count+1)*8 > len(t.entries)*7 {
		t.grow()
	}
	t.put(entryOf(hash, rec))
	t.count++
}

func (t *table) put(e uint64) {
	at := t.home(e)
	for t.entries[at] != 0 {
		at = (at + 1) & (len(t.entries) - 1)
	}
	t.entries[at] = e
}

func (t *table) grow() {
	old := t.entries
	t.entries = make([]uint64, max(16, 2*len(old)))
	for _, e := range old {
		if e != 0 {
			t.put(e)
		}
	}
}

// removeAt empties a place and closes the gap, so that no tombstones are needed.
func (t *table) removeAt(at int) {
	mask := len(t.entries) - 1
	t.count--
	for next := (at + 1) & mask; ; next = (next + 1) & mask {
		e := t.entries[next]
		if e == 0 {
			break
		}
		if home := t.home(e); (next-home)&mask >= (next-at)&mask {
			t.entries[at] = e
			at = next
		}
	}
	t.entries[at] = 0
}

// hash of an account; shards use its upper bits, tables its lower 32.
func hash(seed maphash.Seed, limiter LimiterID, key string) uint64 {
	if len(key) > maxInline {
		id := identify(key)
		return hashLong(seed, limiter, &id)
	}
	return mixLimiter(maphash.String(seed, key), limiter)
}

func hashLong(seed maphash.Seed, limiter LimiterID, id *identity) uint64 {
	return mixLimiter(maphash.Bytes(seed, id.b[:]), limiter)
}

func mixLimiter(h uint64, limiter LimiterID) uint64 {
	h ^= uint64(limiter) * 0x9e3779b97f4a7c15
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	return h ^ h>>29
}
