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
	rules   [shardCount]*bucketRules // each needs the lock of its shard

	mu   sync.Mutex // locked before shards
	rule limit.BucketRule
}

// bucketRules are the rule in force and those before it under which buckets may still have to be accounted
// for: a change of rule is as cheap as that, and each bucket catches up when it is asked for next, or when
// Run comes by. Immutable.
type bucketRules struct {
	limit.BucketRule
	since limit.Instant // when it replaced older
	older *bucketRules  // nil: every bucket has caught up with this rule
	depth int
	// ripe is from when on no bucket has a FilledAt in the future: an older rule delayed the initial fill.
	ripe limit.Instant
}

// maxRules bounds the rules a bucket may have to catch up with: the next change visits all buckets.
const maxRules = 256

// catchUp accounts for what filled under older rules.
func (r *bucketRules) catchUp(b *limit.Bucket) {
	if r.older == nil || b.FilledAt == 0 || b.FilledAt >= r.since {
		return
	}
	r.older.catchUp(b)
	b.Rebase(&r.older.BucketRule, &r.BucketRule, r.since)
}

// replaced returns the rules after a change, or nil when buckets have to be visited: only in a bucket that
// fills steadily does FilledAt tell under which rules it has been.
func (r *bucketRules) replaced(rule *limit.BucketRule, now limit.Instant) *bucketRules {
	steady := steady(&r.BucketRule) && steady(rule)
	if !steady || r.depth >= maxRules || now < r.ripe {
		return nil
	}
	return &bucketRules{BucketRule: *rule, since: max(now, r.since), older: r, depth: r.depth + 1, ripe: r.ripe}
}

// steady tells whether a bucket under the rule fills from now on, all the time.
func steady(r *limit.BucketRule) bool {
	return r.Continuous && !r.DelayInitialFill && !r.FixedWindow
}

// alone are the rules once every bucket has caught up.
func (r *bucketRules) alone() *bucketRules {
	return &bucketRules{BucketRule: r.BucketRule, since: r.since}
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
		first := &bucketRules{BucketRule: rule}
		for i := range set.rules {
			set.rules[i] = first
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
	now := b.m.Now()
	var was, next *bucketRules // most often the same for all shards
	for i := range b.m.shards {
		s := &b.m.shards[i]
		s.mu.Lock()
		if old := b.rules[i]; old != was || next == nil {
			was, next = old, old.replaced(&rule, now)
		}
		if next != nil {
			b.rules[i] = next
		} else {
			b.visitLocked(s, &rule)
		}
		s.mu.Unlock()
	}
	b.m.behind.Store(true)
}

// visitLocked puts a rule into force for every bucket of a shard. REQUIRES s.mu.
func (b *memoryBuckets) visitLocked(s *shard, rule *limit.BucketRule) {
	old, now := b.rules[s.number], b.m.Now()
	for _, e := range s.table.entries {
		if e == 0 {
			continue
		}
		r := b.m.arena.at(uint32(e))
		if r.typ == typBucket && r.limiter == uint64(b.id) {
			bucket := r.bucket()
			old.catchUp(&bucket)
			bucket.Rebase(&old.BucketRule, rule, now)
			r.setBucket(bucket)
		}
	}
	ripe := old.ripe
	if old.DelayInitialFill {
		ripe = max(ripe, now.Add(old.TimeToFill()))
	}
	b.rules[s.number] = &bucketRules{BucketRule: *rule, since: now, ripe: ripe}
}

// catchUpAll makes every bucket catch up with its rule, so that the file says what is there.
func (m *Memory) catchUpAll() {
	if !m.behind.Swap(false) {
		return
	}
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		m.catchUpLocked(s)
		s.mu.Unlock()
	}
}

// catchUpLocked REQUIRES s.mu.
func (m *Memory) catchUpLocked(s *shard) {
	m.setsMu.RLock()
	defer m.setsMu.RUnlock()
	for _, e := range s.table.entries {
		if e == 0 {
			continue
		}
		r := m.arena.at(uint32(e))
		if r.typ != typBucket {
			continue
		}
		if set := m.buckets[LimiterID(r.limiter)]; set != nil && set.rules[s.number].older != nil {
			bucket := r.bucket()
			set.rules[s.number].catchUp(&bucket)
			r.setBucket(bucket)
		}
	}
	for _, set := range m.buckets {
		if rules := set.rules[s.number]; rules.older != nil {
			set.rules[s.number] = rules.alone()
		}
	}
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
		if n > rule.Capacity && !rule.CountRefused || !limit.ValidTokens(n) { // do not create accounts for what can never be
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
	rules, r := b.rules[s.number], b.m.arena.at(i)
	rule := &rules.BucketRule
	c := Charge{Limit: rule.Capacity}
	bucket := r.bucket()
	rules.catchUp(&bucket)
	now = max(now, rules.since) // who read the clock before the rule changed came after it
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
		b.rules[so.number].catchUp(&start)
		start.Rebase(&b.rules[so.number].BucketRule, &b.rules[s.number].BucketRule, now) // a Configure may be half done
		if start.Full(&b.rules[s.number].BucketRule, now) {
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
	rules, bucket := b.rules[s.number], r.bucket()
	rules.catchUp(&bucket)
	bucket.Give(&rules.BucketRule, max(now, rules.since), n)
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
		rule.catchUp(&bucket)
		c.Remaining = max(0, bucket.Level(&rule.BucketRule, now))
	}
	return c
}

// Len is the number of accounts.
func (b *memoryBuckets) Len() int64 { return b.count.Load() }
