// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-project/sluice/internal/limit"
)

// Config configures a Memory.
type Config struct {
	// Dir is where accounts are kept over restarts; "" keeps them in memory only.
	Dir string
	// MaxAccounts bounds accounts and held slots together; at 64 bytes a record and about 15 for the
	// hash table. When it is reached, accounts that are as good as new are forgotten; if there are none,
	// new keys of a limiter share one account, which limits them more than asked for, never less. The
	// same happens while the disk is full. 0: DefaultMaxAccounts; at most 16 million. A file that holds
	// more keeps them.
	MaxAccounts int
	// Logger; nil: slog.Default().
	Logger *slog.Logger
}

// DefaultMaxAccounts is enough for a million tenants with three limits each; 320 MiB when all exist.
const DefaultMaxAccounts = 4 << 20

// FileName is the name of the accounts file in the data directory.
const FileName = "accounts.sluice"

// Memory is the authority of a single process.
type Memory struct {
	arena  *arena
	seed   maphash.Seed
	shards [shardCount]shard
	logger *slog.Logger

	batch   uint32    // how many free records a shard takes from the arena at a time
	start   time.Time // carries the monotonic clock
	base    limit.Instant
	serial  atomic.Uint64
	shared  atomic.Uint64 // takes charged to a shared overflow account
	behind  atomic.Bool   // some buckets may have to catch up with their rule
	setsMu  sync.RWMutex
	buckets map[LimiterID]*memoryBuckets
	slots   map[LimiterID]*memorySlots
	found   map[setID]*foundSet // of a file: sets not announced yet
}

// setID names the accounts of a limiter of one type.
type setID struct {
	limiter LimiterID
	typ     uint8
}

// foundSet is what a file says about the accounts of a limiter.
type foundSet struct {
	count   atomic.Int64
	held    float64 // slots held in all accounts
	sharing bool    // there is a shared account
}

var _ Authority = (*Memory)(nil)

// NewMemory opens the authority. With a directory, accounts are as they were when the last process
// stopped, however it stopped. A damaged file is an error, never an empty ledger.
func NewMemory(cfg Config) (*Memory, error) {
	if cfg.MaxAccounts <= 0 {
		cfg.MaxAccounts = DefaultMaxAccounts
	}
	m := &Memory{
		seed:    maphash.MakeSeed(),
		logger:  cmp.Or(cfg.Logger, slog.Default()),
		start:   time.Now(),
		buckets: make(map[LimiterID]*memoryBuckets),
		slots:   make(map[LimiterID]*memorySlots),
		found:   make(map[setID]*foundSet),
		batch:   uint32(min(16, 1+cfg.MaxAccounts/(16*shardCount))),
	}
	m.base = limit.At(m.start)
	m.serial.Store(rand.Uint64())
	for i := range m.shards {
		m.shards[i].number = i
	}
	if cfg.Dir == "" {
		m.arena = newArena(cfg.MaxAccounts)
		return m, nil
	}
	path := filepath.Join(cfg.Dir, FileName)
	a, head, err := openArena(path, cfg.MaxAccounts)
	if err != nil {
		return nil, err
	}
	m.arena = a
	m.base = max(m.base, head.clock)
	if err := m.restore(); err != nil {
		return nil, errors.Join(fmt.Errorf("accounts file %s: %w", path, err), a.close(head.clock))
	}
	return m, nil
}

// Now is the time of the accounts: wall-clock time at the start, then the monotonic clock, so that
// setting the clock changes no limit. After a restart it goes on from where it was if the machine's clock
// has been set back.
func (m *Memory) Now() limit.Instant { return m.base.Add(time.Since(m.start)) }

// restore rebuilds tables, free lists and the order of held slots from the records.
func (m *Memory) restore() error {
	a := m.arena
	var held []uint32
	for i := a.len(); i > 0; i-- { // downwards, so that low records are reused first
		r := a.at(i)
		if !r.sane() {
			return fmt.Errorf("record %d is damaged; %s", i, remedy)
		}
		switch r.typ {
		case typFree:
			if i <= a.max {
				a.free = append(a.free, i)
			}
		case typHeld:
			held = append(held, i)
		default:
			if r.typ == typSlots {
				r.a, r.t = 0, 0
			}
			m.noteFound(r)
			h := m.hashRecord(r)
			m.shardOf(h).table.insert(h, i)
		}
	}
	slices.SortFunc(held, func(x, y uint32) int { return cmp.Compare(a.at(x).t, a.at(y).t) })
	lost := 0
	for _, i := range held {
		r := a.at(i)
		if r.account == noRecord || r.account > a.len() {
			return fmt.Errorf("record %d is damaged; %s", i, remedy)
		}
		acc := a.at(r.account)
		if acc.typ != typSlots || acc.limiter != r.limiter {
			r.setMark(mark{})
			a.free = append(a.free, i)
			lost++
			continue
		}
		m.link(acc, i)
		m.found[setID{LimiterID(r.limiter), typSlots}].held += r.a
		m.shardOf(m.hashRecord(acc)).table.insert(heldHash(r.serial), i)
	}
	if lost > 0 {
		m.logger.Warn("a power failure lost accounts of the last second; slots held in them are free again",
			slog.Int("slots", lost))
	}
	return nil
}

func (m *Memory) noteFound(r *record) {
	id := setID{LimiterID(r.limiter), r.typ}
	f := m.found[id]
	if f == nil {
		f = new(foundSet)
		m.found[id] = f
	}
	f.count.Add(1)
	f.sharing = f.sharing || r.klen == uint8(len(overflowKey)) && r.key() == overflowKey
}

// takeFound returns what a file said about a set, once. REQUIRES setsMu.
func (m *Memory) takeFound(limiter LimiterID, typ uint8) *foundSet {
	id := setID{limiter, typ}
	f := m.found[id]
	if f == nil {
		return new(foundSet)
	}
	delete(m.found, id)
	return f
}

func (m *Memory) hashRecord(r *record) uint64 {
	if r.klen == longKey {
		id := identity{*r.keyBytes(), longKey}
		return hashLong(m.seed, LimiterID(r.limiter), &id)
	}
	return hash(m.seed, LimiterID(r.limiter), r.key())
}

func (m *Memory) shardOf(h uint64) *shard { return &m.shards[h>>(64-6)] }

// findLocked returns the record of an account and its place in the table. REQUIRES s.mu.
func (m *Memory) findLocked(s *shard, h uint64, typ uint8, id LimiterID, key string) (uint32, int) {
	if len(key) > maxInline {
		long := identify(key)
		return s.table.find(h, func(i uint32) bool { return m.arena.at(i).is(typ, id, &long) })
	}
	return s.table.find(h, func(i uint32) bool {
		r := m.arena.at(i)
		return r.typ == typ && r.limiter == uint64(id) && int(r.klen) == len(key) &&
			string(r.keyBytes()[:len(key)]) == key
	})
}

// newAccount says what createLocked makes.
type newAccount struct {
	id     setID
	key    string
	bucket limit.Bucket // its state, if it is a bucket
	keep   uint32       // how many records must stay free
	pinned uint32       // a record that must not be forgotten for it; noRecord: none
}

// createLocked adds an account that findLocked did not find. REQUIRES s.mu.
func (m *Memory) createLocked(s *shard, h uint64, a *newAccount) (uint32, error) {
	i, err := m.allocLocked(s, a.keep, a.pinned)
	if err != nil {
		return noRecord, err
	}
	r := m.arena.at(i)
	*r = record{}
	r.setBucket(a.bucket)
	ident := identify(a.key)
	r.sealAccount(a.id.typ, a.id.limiter, &ident)
	s.table.insert(h, i)
	return i, nil
}

// allocLocked returns a free record, forgetting accounts that are as good as new if there is none.
// REQUIRES s.mu.
func (m *Memory) allocLocked(s *shard, keep, pinned uint32) (uint32, error) {
	if len(s.free) == 0 {
		n := m.batch
		if keep < m.arena.reserve() {
			n = 1 // what comes from the reserve is for this caller only
		}
		var err error
		if s.free, err = m.arena.alloc(s.free, n, keep); err != nil {
			if m.makeRoomLocked(s, pinned) == 0 {
				return noRecord, err
			}
			if s.free, err = m.arena.alloc(s.free, 1, keep); err != nil {
				return noRecord, err
			}
		}
	}
	i := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return i, nil
}

func (m *Memory) freeLocked(s *shard, i uint32) {
	m.arena.at(i).setMark(mark{})
	if m.arena.low.Load() {
		m.arena.release(i)
		return
	}
	s.free = append(s.free, i)
	if n := int(m.batch); len(s.free) > 4*n {
		m.arena.release(s.free[2*n:]...)
		s.free = s.free[:2*n]
	}
}

// Entries of a table that one sweep looks at: in the background, and when there is no room.
const (
	sweepSoft = 256
	sweepHard = 1024
)

// makeRoomLocked sweeps for a new account, its own shard first and then those that nobody is using. When
// that was in vain, the next ones do without: a flood of new keys must not make every take as slow as a
// sweep. REQUIRES s.mu.
func (m *Memory) makeRoomLocked(s *shard, pinned uint32) (freed int) {
	if s.skip > 0 {
		s.skip--
		return 0
	}
	left, now := sweepHard, m.Now()
	for i := range m.shards {
		o := &m.shards[(s.number+i)%shardCount]
		if o != s && !o.mu.TryLock() { // waiting here could be forever: see the lock order
			continue
		}
		freed += m.sweepLocked(o, left, pinned, now) + len(o.free)
		m.arena.release(o.free...)
		o.free = o.free[:0]
		left -= len(o.table.entries)
		if o != s {
			o.mu.Unlock()
		}
		if freed > 0 || left <= 0 {
			return freed
		}
	}
	s.skip = 64
	return 0
}

// sweepLocked forgets accounts that are as good as new. REQUIRES s.mu.
func (m *Memory) sweepLocked(s *shard, n int, pinned uint32, now limit.Instant) (freed int) {
	m.setsMu.RLock()
	defer m.setsMu.RUnlock()
	t := &s.table
	for range min(n, len(t.entries)) {
		s.hand = (s.hand + 1) & (len(t.entries) - 1)
		i := uint32(t.entries[s.hand])
		if i == noRecord || i == pinned {
			continue
		}
		r := m.arena.at(i)
		if r.typ == typSlots && r.t != 0 {
			m.expireIdle(s, r, now) // moves entries: this account is forgotten when the sweep comes again
			continue
		}
		if m.forgettable(s, r, now) {
			m.countAccount(r, -1)
			t.removeAt(s.hand)
			m.freeLocked(s, i)
			freed++
		}
	}
	return freed
}

// expireIdle frees slots whose time is over in an account that nobody asks for. REQUIRES setsMu and s.mu.
func (m *Memory) expireIdle(s *shard, acc *record, now limit.Instant) {
	before := acc.a
	m.expireLocked(s, acc, now)
	if set := m.slots[LimiterID(acc.limiter)]; set != nil {
		set.track(acc, before)
	}
}

// forgettable REQUIRES setsMu and the lock of the record's shard, s.
func (m *Memory) forgettable(s *shard, r *record, now limit.Instant) bool {
	switch r.typ {
	case typSlots:
		return r.t == 0 // nothing held
	case typBucket:
		set := m.buckets[LimiterID(r.limiter)]
		if set == nil {
			return false // the limiter may be announced later; Forget drops it for good
		}
		b := r.bucket()
		set.rules[s.number].catchUp(&b)
		return b.Full(&set.rules[s.number].BucketRule, now)
	}
	return false
}

// countAccount REQUIRES setsMu.
func (m *Memory) countAccount(r *record, delta int64) {
	if set := m.buckets[LimiterID(r.limiter)]; set != nil && r.typ == typBucket {
		set.count.Add(delta)
	}
	if set := m.slots[LimiterID(r.limiter)]; set != nil && r.typ == typSlots {
		set.count.Add(delta)
	}
	if f := m.found[setID{LimiterID(r.limiter), r.typ}]; f != nil {
		f.count.Add(delta)
	}
}

// Run forgets idle accounts, brings buckets up to date with changed rules, and writes the file to disk, about every second, until ctx ends. Without it
// nothing is lost when the process is killed, but a power failure would lose more.
func (m *Memory) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		m.catchUpAll()
		for i := range m.shards {
			s := &m.shards[i]
			s.mu.Lock()
			m.sweepLocked(s, sweepSoft, noRecord, m.Now())
			s.mu.Unlock()
		}
		if err := m.arena.sync(m.Now()); err != nil {
			m.logger.Error("write accounts to disk; new keys may have to share accounts", slog.Any("error", err))
		}
	}
}

// Forget implements Authority.
func (m *Memory) Forget(id LimiterID) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		m.forgetLocked(s, id)
		s.mu.Unlock()
	}
	m.setsMu.Lock()
	delete(m.buckets, id)
	delete(m.slots, id)
	delete(m.found, setID{id, typBucket})
	delete(m.found, setID{id, typSlots})
	m.setsMu.Unlock()
}

// Unannounced returns the limiters that the file has accounts of and that nobody has asked for since the
// start, in no order. Whoever knows that they are gone for good should Forget them: nothing else does.
func (m *Memory) Unannounced() []LimiterID {
	m.setsMu.RLock()
	defer m.setsMu.RUnlock()
	var ids []LimiterID
	for id := range m.found {
		if !slices.Contains(ids, id.limiter) {
			ids = append(ids, id.limiter)
		}
	}
	return ids
}

func (m *Memory) forgetLocked(s *shard, id LimiterID) {
	var gone []uint32
	for _, e := range s.table.entries {
		if i := uint32(e); i != noRecord && m.arena.at(i).limiter == uint64(id) && m.arena.at(i).typ != typHeld {
			gone = append(gone, i)
		}
	}
	for _, i := range gone {
		r := m.arena.at(i)
		m.dropHeldLocked(s, r)
		_, at := s.table.find(m.hashRecord(r), func(rec uint32) bool { return rec == i })
		s.table.removeAt(at)
		m.freeLocked(s, i)
	}
}

// Close implements Authority.
func (m *Memory) Close() error {
	m.catchUpAll()
	return m.arena.close(m.Now())
}

// SharedTakes counts takes that were charged to a shared account for want of room.
func (m *Memory) SharedTakes() uint64 { return m.shared.Load() }

// Each calls f with every account, in no order, holding a lock: f must be quick and must not call back.
func (m *Memory) Each(f func(Account)) {
	now := m.Now()
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		for _, e := range s.table.entries {
			if e != 0 {
				if acc, ok := m.read(s, m.arena.at(uint32(e)), now); ok {
					f(acc)
				}
			}
		}
		s.mu.Unlock()
	}
}

func (m *Memory) read(s *shard, r *record, now limit.Instant) (Account, bool) {
	if r.typ == typHeld {
		return Account{}, false
	}
	acc := Account{Limiter: LimiterID(r.limiter), Key: r.key()}
	if acc.Key == overflowKey {
		acc.Key = "(shared)"
	}
	m.setsMu.RLock()
	defer m.setsMu.RUnlock()
	switch r.typ {
	case typBucket:
		set := m.buckets[acc.Limiter]
		if set == nil {
			return acc, false
		}
		rule, b := set.rules[s.number], r.bucket()
		rule.catchUp(&b)
		acc.Kind, acc.Limit = KindBucket, rule.Capacity
		acc.Used = rule.Capacity - b.Level(&rule.BucketRule, now)
	case typSlots:
		set := m.slots[acc.Limiter]
		if set == nil {
			return acc, false
		}
		acc.Kind, acc.Limit, acc.Used = KindSlots, set.rule.Load().Max, r.a
	}
	return acc, true
}
