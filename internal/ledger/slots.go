// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"sync/atomic"
	"time"

	"github.com/sluice-project/sluice/internal/limit"
)

// memorySlots are the slots in flight of one limiter in a Memory. Held slots of an account form a list
// in the order of their expiry; with one rule that is the order of taking.
type memorySlots struct {
	m     *Memory
	id    LimiterID
	rule  atomic.Pointer[SlotRule]
	count atomic.Int64
	held  atomic.Uint64 // bits of the slots held in all accounts, a float64
	// sharing tells that slots may be held in the shared account. It is set and cleared while that
	// account's shard is locked.
	sharing atomic.Bool
}

// Slots implements Authority.
func (m *Memory) Slots(id LimiterID, rule SlotRule) Slots {
	m.setsMu.Lock()
	defer m.setsMu.Unlock()
	set := m.slots[id]
	if set == nil {
		set = &memorySlots{m: m, id: id}
		found := m.takeFound(id, typSlots)
		set.count.Store(found.count.Load())
		set.held.Store(math.Float64bits(found.held))
		set.sharing.Store(found.sharing)
		m.slots[id] = set
	}
	set.rule.Store(&rule)
	return set
}

// Configure implements Slots.
func (s *memorySlots) Configure(rule SlotRule) { s.rule.Store(&rule) }

// Take implements Slots. Wait of a refusal is when the slot held longest expires, the latest moment at
// which something must become free.
func (s *memorySlots) Take(_ context.Context, key string, n float64, now limit.Instant) (Charge, error) {
	m := s.m
	if rule := s.rule.Load(); n > rule.Max || !limit.ValidTokens(n) {
		c := s.Level(key, now)
		c.Wait = limit.Never
		return c, nil
	}
	h := hash(m.seed, s.id, key)
	sh := m.shardOf(h)
	sh.mu.Lock()
	i, _ := m.findLocked(sh, h, typSlots, s.id, key)
	if i == noRecord && !s.sharing.Load() {
		var err error
		if i, err = m.createLocked(sh, h, &newAccount{id: setID{s.id, typSlots}, key: key, keep: m.arena.reserve()}); err == nil {
			s.count.Add(1)
		}
	}
	if i != noRecord {
		c, err := s.takeLocked(sh, i, n, 0, now)
		sh.mu.Unlock()
		return c, err
	}
	sh.mu.Unlock()
	return s.takeShared(h, key, n, now)
}

// takeLocked takes slots of account i. An error means that there is no room to record them.
func (s *memorySlots) takeLocked(sh *shard, i uint32, n float64, tag uint64, now limit.Instant) (c Charge, err error) {
	m, rule := s.m, s.rule.Load()
	acc := m.arena.at(i)
	defer s.track(acc, acc.a)
	m.expireLocked(sh, acc, now)
	c = Charge{Limit: rule.Max, Remaining: max(0, rule.Max-acc.a)}
	if acc.a+n > rule.Max {
		c.Wait = m.nextExpiry(acc, now)
		return c, nil
	}
	if c.Slot, err = m.holdLocked(sh, i, n, tag, now.Add(rule.MaxInFlight)); err != nil {
		return c, err
	}
	c.OK = true
	c.Remaining -= n
	return c, nil
}

// takeShared takes slots for a key that has no account: from a new one if there is room, to which what
// the key holds in the shared account moves; otherwise from the shared account.
func (s *memorySlots) takeShared(h uint64, key string, n float64, now limit.Instant) (Charge, error) {
	m, set := s.m, setID{s.id, typSlots}
	ho := hash(m.seed, s.id, overflowKey)
	sh, so := m.shardOf(h), m.shardOf(ho)
	lockBoth(sh, so)
	defer unlockBoth(sh, so)
	tag := tagOf(key)
	if i, _ := m.findLocked(sh, h, typSlots, s.id, key); i != noRecord { // somebody was faster
		return s.takeLocked(sh, i, n, 0, now)
	}
	over, _ := m.findLocked(so, ho, typSlots, s.id, overflowKey)
	i, err := m.createLocked(sh, h, &newAccount{id: set, key: key, keep: m.arena.reserve(), pinned: over})
	if err == nil {
		s.count.Add(1)
		left := over != noRecord && m.adopt(so, over, sh, i, tag)
		s.sharing.Store(left)
		return s.takeLocked(sh, i, n, 0, now)
	}
	m.shared.Add(1)
	if over == noRecord {
		if over, err = m.createLocked(so, ho, &newAccount{id: set, key: overflowKey}); err != nil {
			return Charge{Limit: s.rule.Load().Max}, err
		}
		s.count.Add(1)
	}
	s.sharing.Store(true)
	return s.takeLocked(so, over, n, tag, now)
}

// tagOf tells keys apart in the shared account, over restarts too. Never 0.
func tagOf(key string) uint64 {
	sum := sha256.Sum256([]byte(key))
	return max(1, binary.LittleEndian.Uint64(sum[:]))
}

// adopt moves what a key holds in the shared account to its own, and tells whether anything else is left
// in the shared account. REQUIRES both shards' locks.
func (m *Memory) adopt(so *shard, over uint32, sh *shard, own uint32, tag uint64) (left bool) {
	from, to := m.arena.at(over), m.arena.at(own)
	var next uint32
	for i, _ := ends(from); i != noRecord; i = next {
		r := m.arena.at(i)
		next = r.next
		if r.tag != tag {
			continue
		}
		m.unlinkLocked(so, from, i)
		r.moveTo(own)
		m.link(to, i)
		sh.table.insert(heldHash(r.serial), i)
	}
	head, _ := ends(from)
	return head != noRecord
}

// holdLocked records n slots held for an account. REQUIRES sh.mu.
func (m *Memory) holdLocked(sh *shard, account uint32, n float64, tag uint64, until limit.Instant) (SlotID, error) {
	i, err := m.allocLocked(sh, m.arena.reserve()/2, account)
	if err != nil {
		return 0, err
	}
	acc, r := m.arena.at(account), m.arena.at(i)
	*r = record{
		limiter: acc.limiter, a: n, t: int64(until), account: account, tag: tag,
		serial: m.serial.Add(1) & serialMask,
	}
	r.seal(typHeld, 0)
	m.link(acc, i)
	sh.table.insert(heldHash(r.serial), i)
	return SlotID(r.serial<<indexBits | uint64(i)), nil
}

const serialMask = 1<<(64-indexBits) - 1

// heldHash files a held slot in the table of its account's shard. That a record is in this table is
// what entitles the holder of the shard's lock to read it.
func heldHash(serial uint64) uint64 { return serial * 0x9e3779b97f4a7c15 >> 16 }

// findHeldLocked returns the record of a held slot and its place in the table. REQUIRES sh.mu.
func findHeldLocked(sh *shard, serial uint64, held uint32) (rec uint32, at int) {
	return sh.table.find(heldHash(serial), func(i uint32) bool { return i == held })
}

// An account's t holds the record numbers of its first and last held slot.
func ends(acc *record) (head, tail uint32)      { return uint32(acc.t), uint32(acc.t >> 32) }
func setEnds(acc *record, head, tail uint32)    { acc.t = int64(tail)<<32 | int64(head) }
func (m *Memory) expiry(i uint32) limit.Instant { return limit.Instant(m.arena.at(i).t) }
func (m *Memory) setNext(i uint32, next uint32) { m.arena.at(i).next = next }
func (m *Memory) setPrev(i uint32, prev uint32) { m.arena.at(i).prev = prev }

// link puts held slot i into the list of its account, ordered by expiry: at the end, or, after the rule
// was shortened, a little before.
func (m *Memory) link(acc *record, i uint32) {
	r := m.arena.at(i)
	head, tail := ends(acc)
	after := tail
	for after != noRecord && m.expiry(after) > limit.Instant(r.t) {
		after = m.arena.at(after).prev
	}
	r.prev, r.next = after, head
	if after != noRecord {
		r.next = m.arena.at(after).next
		m.setNext(after, i)
	} else {
		head = i
	}
	if r.next != noRecord {
		m.setPrev(r.next, i)
	} else {
		tail = i
	}
	setEnds(acc, head, tail)
	acc.a += r.a
}

// unlinkLocked takes a held slot out of the list of its account and out of the table. REQUIRES sh.mu.
func (m *Memory) unlinkLocked(sh *shard, acc *record, i uint32) {
	r := m.arena.at(i)
	head, tail := ends(acc)
	if r.prev != noRecord {
		m.setNext(r.prev, r.next)
	} else {
		head = r.next
	}
	if r.next != noRecord {
		m.setPrev(r.next, r.prev)
	} else {
		tail = r.prev
	}
	setEnds(acc, head, tail)
	acc.a -= r.a
	if head == noRecord {
		acc.a = 0 // shed rounding errors
	}
	if found, at := findHeldLocked(sh, r.serial, i); found != noRecord {
		sh.table.removeAt(at)
	}
}

// dropLocked frees a held slot. REQUIRES sh.mu.
func (m *Memory) dropLocked(sh *shard, acc *record, i uint32) {
	m.unlinkLocked(sh, acc, i)
	m.freeLocked(sh, i)
}

func (m *Memory) dropHeldLocked(sh *shard, acc *record) {
	if acc.typ != typSlots {
		return
	}
	for head, _ := ends(acc); head != noRecord; head, _ = ends(acc) {
		m.dropLocked(sh, acc, head)
	}
}

func (m *Memory) expireLocked(sh *shard, acc *record, now limit.Instant) {
	for head, _ := ends(acc); head != noRecord && m.expiry(head) <= now; head, _ = ends(acc) {
		m.dropLocked(sh, acc, head)
	}
}

func (m *Memory) nextExpiry(acc *record, now limit.Instant) time.Duration {
	head, _ := ends(acc)
	if head == noRecord {
		return limit.Never
	}
	return max(0, m.expiry(head).Sub(now))
}

// Release implements Slots.
func (s *memorySlots) Release(key string, id SlotID) bool {
	m := s.m
	sharing := s.sharing.Load() // read first: a slot may move to the key's own account meanwhile
	h := hash(m.seed, s.id, key)
	sh := m.shardOf(h)
	sh.mu.Lock()
	ok := s.releaseLocked(sh, h, key, id, 0)
	sh.mu.Unlock()
	if ok || !sharing {
		return ok
	}
	ho := hash(m.seed, s.id, overflowKey)
	so := m.shardOf(ho)
	lockBoth(sh, so)
	defer unlockBoth(sh, so)
	return s.releaseLocked(sh, h, key, id, 0) || s.releaseLocked(so, ho, overflowKey, id, tagOf(key))
}

// releaseLocked frees slots of an account; of the shared one only those held for the key with that tag.
func (s *memorySlots) releaseLocked(sh *shard, h uint64, key string, id SlotID, tag uint64) bool {
	m := s.m
	i, _ := m.findLocked(sh, h, typSlots, s.id, key)
	if i == noRecord {
		return false
	}
	serial := uint64(id >> indexBits)
	held, _ := findHeldLocked(sh, serial, uint32(id&maxRecords))
	if held == noRecord {
		return false
	}
	r := m.arena.at(held)
	if r.typ != typHeld || r.serial != serial || r.account != i || tag != 0 && r.tag != tag {
		return false
	}
	acc := m.arena.at(i)
	defer s.track(acc, acc.a)
	m.dropLocked(sh, acc, held)
	return true
}

// Level implements Slots. A key without an account that would share one is told about that one.
func (s *memorySlots) Level(key string, now limit.Instant) Charge {
	sharing := s.sharing.Load()
	c, ok := s.level(key, now)
	if !ok && sharing {
		c, _ = s.level(overflowKey, now)
	}
	return c
}

func (s *memorySlots) level(key string, now limit.Instant) (c Charge, ok bool) {
	m := s.m
	h := hash(m.seed, s.id, key)
	sh := m.shardOf(h)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	rule := s.rule.Load()
	c = Charge{Limit: rule.Max, Remaining: rule.Max, Wait: limit.Never}
	i, _ := m.findLocked(sh, h, typSlots, s.id, key)
	if i == noRecord {
		return c, false
	}
	acc := m.arena.at(i)
	defer s.track(acc, acc.a)
	m.expireLocked(sh, acc, now)
	c.Remaining, c.Wait = max(0, rule.Max-acc.a), m.nextExpiry(acc, now)
	return c, true
}

// Expire implements Slots.
func (s *memorySlots) Expire(key string, now limit.Instant) time.Duration {
	return s.Level(key, now).Wait
}

// Len is the number of accounts.
func (s *memorySlots) Len() int64 { return s.count.Load() }

// Held is the number of slots held, in all accounts together. Slots whose time is over count until their
// account is asked for again or the background sweep, see Memory.Run, comes by.
func (s *memorySlots) Held() float64 { return max(0, math.Float64frombits(s.held.Load())) }

// track brings Held up to date after the slots of an account changed from before. REQUIRES the account's
// shard's lock.
func (s *memorySlots) track(acc *record, before float64) {
	d := acc.a - before
	for d != 0 {
		old := s.held.Load()
		if s.held.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+d)) {
			return
		}
	}
}
