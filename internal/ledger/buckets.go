// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"sync/atomic"

	"github.com/sluice-project/sluice/internal/limit"
)

// memoryBuckets are the token buckets of one limiter in a Memory.
type memoryBuckets struct {
	m     *Memory
	id    LimiterID
	rule  atomic.Pointer[limit.BucketRule] // written with all shards locked
	count atomic.Int64
}

// overflowKey is the account that new keys share when there is no room for their own. No label value
// can be equal to it: it is not valid UTF-8.
const overflowKey = "\xff(shared)"

// Buckets implements Authority.
func (m *Memory) Buckets(id LimiterID, rule limit.BucketRule) Buckets {
	m.setsMu.Lock()
	set := m.buckets[id]
	if set == nil {
		set = &memoryBuckets{m: m, id: id}
		set.rule.Store(&rule)
		m.buckets[id] = set
		m.setsMu.Unlock()
		return set
	}
	m.setsMu.Unlock()
	set.Configure(rule)
	return set
}

// Configure implements Buckets.
func (b *memoryBuckets) Configure(rule limit.BucketRule) {
	if *b.rule.Load() == rule {
		return
	}
	m := b.m
	for i := range m.shards {
		m.shards[i].mu.Lock()
	}
	old, now := b.rule.Load(), m.Now()
	for i := range m.shards {
		for _, e := range m.shards[i].table.entries {
			if e == 0 {
				continue
			}
			r := m.arena.at(uint32(e))
			if r.typ == typBucket && r.limiter == uint64(b.id) {
				bucket := r.bucket()
				bucket.Rebase(old, &rule, now)
				r.setBucket(bucket)
			}
		}
	}
	b.rule.Store(&rule)
	for i := range m.shards {
		m.shards[i].mu.Unlock()
	}
}

// Take implements Buckets. It never returns an error unless there is no room even for a shared account.
func (b *memoryBuckets) Take(_ context.Context, key string, n float64, now limit.Instant) (Charge, error) {
	c, err := b.take(key, n, now)
	if err != nil && key != overflowKey {
		b.m.shared.Add(1)
		return b.take(overflowKey, n, now)
	}
	return c, err
}

func (b *memoryBuckets) take(key string, n float64, now limit.Instant) (Charge, error) {
	m := b.m
	h := hash(m.seed, b.id, key)
	s := m.shardOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	rule := b.rule.Load()
	c := Charge{Limit: rule.Capacity}
	i, _ := m.findLocked(s, h, typBucket, b.id, key)
	if i == noRecord {
		if n > rule.Capacity { // do not create accounts for what can never be
			c.Wait, c.Remaining = limit.Never, rule.Capacity
			return c, nil
		}
		var err error
		if i, err = m.createLocked(s, h, typBucket, b.id, key); err != nil {
			return c, err
		}
		b.count.Add(1)
	}
	r := m.arena.at(i)
	bucket := r.bucket()
	c.Wait, c.OK = bucket.Take(rule, now, n)
	r.setBucket(bucket)
	if c.OK {
		c.Remaining = max(0, bucket.Available)
	} else {
		c.Remaining = max(0, bucket.Level(rule, now))
	}
	return c, nil
}

// Give implements Buckets. Giving to an account that is as good as new changes nothing.
func (b *memoryBuckets) Give(key string, n float64, now limit.Instant) {
	m := b.m
	h := hash(m.seed, b.id, key)
	s := m.shardOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	i, _ := m.findLocked(s, h, typBucket, b.id, key)
	if i == noRecord {
		if n >= 0 {
			return
		}
		var err error
		if i, err = m.createLocked(s, h, typBucket, b.id, key); err != nil {
			return
		}
		b.count.Add(1)
	}
	r := m.arena.at(i)
	bucket := r.bucket()
	bucket.Give(b.rule.Load(), now, n)
	r.setBucket(bucket)
}

// Level implements Buckets.
func (b *memoryBuckets) Level(key string, now limit.Instant) Charge {
	m := b.m
	h := hash(m.seed, b.id, key)
	s := m.shardOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	rule := b.rule.Load()
	c := Charge{Limit: rule.Capacity, Remaining: rule.Capacity}
	if i, _ := m.findLocked(s, h, typBucket, b.id, key); i != noRecord {
		bucket := m.arena.at(i).bucket()
		c.Remaining = bucket.Level(rule, now)
	}
	return c
}

// Len is the number of accounts.
func (b *memoryBuckets) Len() int64 { return b.count.Load() }
