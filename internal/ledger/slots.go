// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
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
}

// Slots implements Authority.
func (m *Memory) Slots(id LimiterID, rule SlotRule) Slots {
	m.setsMu.Lock()
	defer m.setsMu.Unlock()
	set := m.slots[id]
	if set == nil {
		set = &memorySlots{m: m, id: id}
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
	c, err := s.take(key, n, now)
	if err != nil && key != overflowKey {
		s.m.shared.Add(1)
		return s.take(overflowKey, n, now)
	}
	return c, err
}

func (s *memorySlots) take(key string, n float64, now limit.Instant) (Charge, error) {
	m, rule := s.m, s.rule.Load()
	c := Charge{Limit: rule.Max}
	h := hash(m.seed, s.id, key)
	sh := m.shardOf(h)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	i, _ := m.findLocked(sh, h, typSlots, s.id, key)
	held := 0.0
	if i != noRecord {
		m.expireLocked(sh, m.arena.at(i), now)
		held = m.arena.at(i).a
	}
	c.Remaining = max(0, rule.Max-held)
	if n > rule.Max {
		c.Wait = limit.Never
		return c, nil
	}
	if held+n > rule.Max {
		c.Wait = m.nextExpiry(m.arena.at(i), now)
		return c, nil
	}
	var err error
	if i == noRecord {
		if i, err = m.createLocked(sh, h, typSlots, s.id, key); err != nil {
			return c, err
		}
		s.count.Add(1)
	}
	c.Slot, err = m.holdLocked(sh, i, n, now.Add(rule.MaxInFlight))
	if err != nil {
		return c, err
	}
	c.OK = true
	c.Remaining -= n
	return c, nil
}

// holdLocked records n slots held for an account. REQUIRES sh.mu.
func (m *Memory) holdLocked(sh *shard, account uint32, n float64, until limit.Instant) (SlotID, error) {
	i, err := m.allocLocked(sh)
	if err != nil {
		return 0, err
	}
	acc, r := m.arena.at(account), m.arena.at(i)
	*r = record{
		limiter: acc.limiter, a: n, t: int64(until), account: account,
		serial: m.serial.Add(1) & serialMask,
	}
	r.sum = r.checksum(typHeld)
	r.typ = typHeld
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

// dropLocked frees a held slot. REQUIRES sh.mu.
func (m *Memory) dropLocked(sh *shard, acc *record, i uint32) {
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
	if _, at := findHeldLocked(sh, r.serial, i); len(sh.table.entries) > 0 {
		sh.table.removeAt(at)
	}
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
	return s.release(key, id) || s.release(overflowKey, id)
}

func (s *memorySlots) release(key string, id SlotID) bool {
	m := s.m
	h := hash(m.seed, s.id, key)
	sh := m.shardOf(h)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	i, _ := m.findLocked(sh, h, typSlots, s.id, key)
	if i == noRecord {
		return false
	}
	serial := uint64(id >> indexBits)
	held, _ := findHeldLocked(sh, serial, uint32(id&maxRecords))
	if held == noRecord {
		return false
	}
	if r := m.arena.at(held); r.typ != typHeld || r.serial != serial || r.account != i {
		return false
	}
	m.dropLocked(sh, m.arena.at(i), held)
	return true
}

// Level implements Slots.
func (s *memorySlots) Level(key string, now limit.Instant) Charge {
	m, rule := s.m, s.rule.Load()
	h := hash(m.seed, s.id, key)
	sh := m.shardOf(h)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c := Charge{Limit: rule.Max, Remaining: rule.Max, Wait: limit.Never}
	if i, _ := m.findLocked(sh, h, typSlots, s.id, key); i != noRecord {
		acc := m.arena.at(i)
		m.expireLocked(sh, acc, now)
		c.Remaining, c.Wait = max(0, rule.Max-acc.a), m.nextExpiry(acc, now)
	}
	return c
}

// Expire implements Slots.
func (s *memorySlots) Expire(key string, now limit.Instant) time.Duration {
	return s.Level(key, now).Wait
}

// Len is the number of accounts.
func (s *memorySlots) Len() int64 { return s.count.Load() }
