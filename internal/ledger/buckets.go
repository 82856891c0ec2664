// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/sluice-project/sluice/internal/limit"
)

// memoryBuckets are the token buckets of one limiter in a Memory.
type memoryBuckets struct {
	m     *Memory
	id    LimiterID
	count atomic.Int64
	// sharing tells that keys may have been charged to the shared account since it was full last. It is
	// set while their shards are locked, and cleared while the shared account's is.
	sharing atomic.Bool
	rules   [shardCount]*limit.BucketRule // each needs the lock of its shard

	mu   sync.Mutex // locked before shards
	rule limit.BucketRule
}

// overflowKey is the account that new keys share when there is no room for their own. A key that gets
// room later starts with what the shared account has left, so nobody gains by having shared. No label
// value should be equal to it: it is not valid UTF-8.
const overflowKey = "\xff(shared)"

// Buckets implements Authority.
func (m *Memory) Buckets(id LimiterID, rule limit.BucketRule) Buckets {
	m.setsMu.Lock()
	set := m.buckets[id]
	if set == nil {
		set = &memoryBuckets{m: m, id: id, rule: rule}
		for i := range set.rules {
			set.rules[i] = &rule
		}
		found := m.takeFound(id, typBucket)
		set.count.Store(found.count.Load())
		set.sharing.Store(found.sharing)
		m.buckets[id] = set
		m.setsMu.Unlock()
		return set
	}
	m.setsMu.Unlock()
	set.Configure(rule)
	return set
}

// Configure implements Buckets. One shard after the other gets the new rule, so that takes go on.
func (b *memoryBuckets) Configure(rule limit.BucketRule) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rule == rule {
		return
	}
	b.rule = rule
	for i := range b.m.shards {
		b.configureShard(&b.m.shards[i], &rule)
	}
}

func (b *memoryBuckets) configureShard(s *shard, rule *limit.BucketRule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, now := b.rules[s.number], b.m.Now()
	for _, e := range s.table.entries {
		if e == 0 {
			continue
		}
		r := b.m.arena.at(uint32(e))
		if r.typ == typBucket && r.limiter == uint64(b.id) {
			bucket := r.bucket()
			bucket.Rebase(old, rule, now)
			r.setBucket(bucket)
		}
	}
	b.rules[s.number] = rule
}

// Take implements Buckets. It never returns an error unless there is no room even for a shared account.
func (b *memoryBuckets) Take(_ context.Context, key string, n float64, now limit.Instant) (Charge, error) {
	m := b.m
	h := hash(m.seed, b.id, key)
	s := m.shardOf(h)
	s.mu.Lock()
	i, _ := m.findLocked(s, h, typBucket, b.id, key)
	if i == noRecord {
		rule := b.rules[s.number]
		if n > rule.Capacity || !limit.ValidTokens(n) { // do not create accounts for what can never be
			s.mu.Unlock()
			return Charge{Wait: limit.Never, Remaining: rule.Capacity, Limit: rule.Capacity}, nil
		}
		i = b.createLocked(s, h, key)
	}
	if i != noRecord {
		c := b.chargeLocked(s, i, n, now)
		s.mu.Unlock()
		return c, nil
	}
	s.mu.Unlock()
	var c Charge
	err := b.shared(h, key, now, func(s *shard, i uint32) { c = b.chargeLocked(s, i, n, now) })
	return c, err
}

// createLocked adds a full account unless there is no room, or keys may have shared one: see shared.
func (b *memoryBuckets) createLocked(s *shard, h uint64, key string) uint32 {
	if b.sharing.Load() {
		return noRecord
	}
	i, err := b.m.createLocked(s, h, &newAccount{id: setID{b.id, typBucket}, key: key, keep: b.m.arena.reserve()})
	if err != nil {
		return noRecord
	}
	b.count.Add(1)
	return i
}

func (b *memoryBuckets) chargeLocked(s *shard, i uint32, n float64, now limit.Instant) Charge {
	rule, r := b.rules[s.number], b.m.arena.at(i)
	c := Charge{Limit: rule.Capacity}
	bucket := r.bucket()
	c.Wait, c.OK = bucket.Take(rule, now, n)
	r.setBucket(bucket)
	if c.OK {
		c.Remaining = max(0, bucket.Available)
	} else {
		c.Remaining = max(0, bucket.Level(rule, now))
	}
	return c
}

// shared calls f with the account of a key that has none, its shard locked: with a new one if there is
// room, which starts like the shared account; otherwise with the shared account.
func (b *memoryBuckets) shared(h uint64, key string, now limit.Instant, f func(s *shard, i uint32)) error {
	m, set := b.m, setID{b.id, typBucket}
	ho := hash(m.seed, b.id, overflowKey)
	s, so := m.shardOf(h), m.shardOf(ho)
	lockBoth(s, so)
	defer unlockBoth(s, so)
	if i, _ := m.findLocked(s, h, typBucket, b.id, key); i != noRecord { // somebody was faster
		f(s, i)
		return nil
	}
	var start limit.Bucket
	over, _ := m.findLocked(so, ho, typBucket, b.id, overflowKey)
	if over != noRecord {
		start = m.arena.at(over).bucket()
		start.Rebase(b.rules[so.number], b.rules[s.number], now) // a Configure may be half done
		if start.Full(b.rules[s.number], now) {
			start = limit.Bucket{}
		}
	}
	i, err := m.createLocked(s, h, &newAccount{set, key, start, m.arena.reserve(), over})
	switch {
	case err == nil:
		b.sharing.Store(start != limit.Bucket{})
		b.count.Add(1)
	case over != noRecord:
		b.sharing.Store(true)
		m.shared.Add(1)
		s, i = so, over
	default:
		if i, err = m.createLocked(so, ho, &newAccount{id: set, key: overflowKey}); err != nil {
			return err
		}
		s = so
		b.sharing.Store(true)
		b.count.Add(1)
		m.shared.Add(1)
	}
	f(s, i)
	return nil
}

// Give implements Buckets. Giving to an account that is as good as new changes nothing. What a key was
// charged while it shared an account is not given back.
func (b *memoryBuckets) Give(key string, n float64, now limit.Instant) {
	m := b.m
	h := hash(m.seed, b.id, key)
	s := m.shardOf(h)
	s.mu.Lock()
	i, _ := m.findLocked(s, h, typBucket, b.id, key)
	if i == noRecord && n < 0 {
		i = b.createLocked(s, h, key)
	}
	if i != noRecord {
		b.giveLocked(s, i, n, now)
	}
	s.mu.Unlock()
	if i == noRecord && n < 0 {
		// The error, no room even for a shared account, is what the next Take returns.
		_ = b.shared(h, key, now, func(s *shard, i uint32) { b.giveLocked(s, i, n, now) })
	}
}

func (b *memoryBuckets) giveLocked(s *shard, i uint32, n float64, now limit.Instant) {
	r := b.m.arena.at(i)
	bucket := r.bucket()
	bucket.Give(b.rules[s.number], now, n)
	r.setBucket(bucket)
}

// Level implements Buckets.
func (b *memoryBuckets) Level(key string, now limit.Instant) Charge {
	m := b.m
	h := hash(m.seed, b.id, key)
	s := m.shardOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	rule := b.rules[s.number]
	c := Charge{Limit: rule.Capacity, Remaining: rule.Capacity}
	if i, _ := m.findLocked(s, h, typBucket, b.id, key); i != noRecord {
		bucket := m.arena.at(i).bucket()
		c.Remaining = max(0, bucket.Level(rule, now))
	}
	return c
}

// Len is the number of accounts.
func (b *memoryBuckets) Len() int64 { return b.count.Load() }
