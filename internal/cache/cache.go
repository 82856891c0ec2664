// SPDX-License-Identifier: Apache-2.0

// Package cache keeps results of flows, and values that control points share, for a while.
//
// A result is found by tenant, control point and key, a global value by tenant and key. Values expire, and the
// least useful ones make room for others when memory is full, so whatever is in here may be gone at any time:
// a miss is an answer, never an error.
//
// # Coalescing
//
// Flows that miss the same result can share the work (Join). The first becomes the leader and computes; the
// others wait for the value (CoalesceWait), or take the one that expired last (CoalesceStale). A flight is the
// state of such a key: who leads, until when, and who waits. It ends in one of three ways:
//
//   - a value is stored under the key, by whomever: all who wait get it;
//   - the leader gives up (Leave), or its time is over: the one that waits longest leads from then on, alone,
//     however many wait; without anybody who waits the flight is forgotten;
//   - the cache is closed: nobody waits any more.
//
// Whoever has waited as long as it may goes on with a miss, and does not lead. Flights are those of this
// process: with several servers, each has a leader of its own.
//
// Waiting needs no goroutine: a Waiter is resumed by a call, on the goroutine that stored the value, that gave
// up the lead, or of one timer of the flight.
//
// Lock order: shard.mu is the only lock. The Store is asked and Resumers are called while it is not held.
package cache

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sluice-project/sluice/internal/limit"
)

// Status is the answer for one key.
type Status uint8

// The statuses. Zero is none yet.
const (
	StatusUnspecified Status = iota
	Hit                      // here it is
	Miss                     // there is none
	Stale                    // here is the one that has expired, while another flow computes it anew
	Failed                   // the key makes no sense, or the store could not be asked; count it as a miss
)

// Answer is what there is under a key.
type Answer struct {
	Status Status
	// Value comes with Hit and Stale. It must not be changed.
	Value []byte
	// Err comes with Failed.
	Err error
	// Lead is not 0 for a flow that was chosen to compute the value; see Join.
	Lead Lead
}

// Entry is a value to keep.
type Entry struct {
	// Value is copied.
	Value []byte
	// TTL is how long the value is fresh; more than 0. What is more than MaxTTL counts as MaxTTL.
	TTL time.Duration
	// NoTTL says that the caller gave none: MaxTTL.
	NoTTL bool
}

// Cache is the result cache and the global cache. All methods may be called concurrently, except Close.
type Cache struct {
	cfg    Config
	store  Store
	seed   maphash.Seed
	closed atomic.Bool
	leads  atomic.Uint64 // the last one given, without the shard
	nFlown atomic.Int64  // flights in all shards
	nWaits atomic.Int64  // flows that wait in all of them
	shards [shardCount]shard
	counts counters
}

// New makes a cache. Close it when nobody uses it any more.
func New(cfg Config) (*Cache, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	if cfg.Now == nil {
		cfg.Now = func() limit.Instant { return limit.At(time.Now()) }
	}
	c := &Cache{cfg: cfg, store: cfg.Store, seed: maphash.MakeSeed()}
	if c.store == nil {
		memory, err := NewMemory(cfg.MaxBytes)
		if err != nil {
			return nil, err
		}
		c.store = memory
	}
	// Leads get into flow tokens, which other servers may see: starting anywhere makes it as good as certain
	// that none of theirs is one of ours.
	var start [8]byte
	rand.Read(start[:]) // never fails: crypto/rand ends the process instead
	c.leads.Store(binary.LittleEndian.Uint64(start[:]))
	for i := range c.shards {
		c.shards[i].init()
	}
	return c, nil
}

// TenantLabel is the label of flows whose value separates tenants; "": none.
func (c *Cache) TenantLabel() string { return c.cfg.TenantLabel }

// Now is the clock of the cache.
func (c *Cache) Now() limit.Instant { return c.cfg.Now() }

// Lookup reads a value. A value that has expired is a miss.
func (c *Cache) Lookup(ctx context.Context, k Key, now limit.Instant) Answer {
	a := c.lookup(ctx, k, now)
	c.counts.looked(&k, a.Status)
	return a
}

func (c *Cache) lookup(ctx context.Context, k Key, now limit.Instant) Answer {
	if err := k.check(); err != nil {
		return Answer{Status: Failed, Err: err}
	}
	s, ok, err := c.store.Get(ctx, k, now)
	switch {
	case err != nil:
		return Answer{Status: Failed, Err: err}
	case ok && now < s.Fresh:
		return Answer{Status: Hit, Value: s.Value}
	}
	return Answer{Status: Miss}
}

// errAnswerFull is told about values that do not fit into an answer.
var errAnswerFull = invalid("the values of one answer have more than %d bytes together: ask for this key by itself", MaxAnswerBytes)

// errTooManyKeys is told about keys beyond MaxGlobalKeys.
var errTooManyKeys = invalid("more than %d global cache keys in one request", MaxGlobalKeys)

// LookupGlobal reads the values of global keys and calls each with the answers, in order. used is what the
// answer to the caller holds already, in bytes: values that do not fit beside it are answered with an error, and so
// are keys beyond MaxGlobalKeys. Of those, only as many again are answered at all.
func (c *Cache) LookupGlobal(
	ctx context.Context, tenant string, names []string, used int, now limit.Instant, each func(name string, a Answer),
) {
	for i, name := range names[:min(len(names), 2*MaxGlobalKeys)] {
		k := GlobalKey(tenant, name)
		if i >= MaxGlobalKeys {
			each(name, Answer{Status: Failed, Err: errTooManyKeys})
			continue
		}
		a := c.lookup(ctx, k, now)
		if used += len(a.Value); used > MaxAnswerBytes {
			used -= len(a.Value)
			a = Answer{Status: Failed, Err: errAnswerFull}
		}
		c.counts.looked(&k, a.Status)
		each(name, a)
	}
}

// Upsert keeps a value, in place of the one before. Flows that wait for it go on, before Upsert returns.
func (c *Cache) Upsert(ctx context.Context, k Key, e Entry, now limit.Instant) error {
	err := c.upsert(ctx, k, &e, now)
	c.counts.did(opUpsert, &k, err)
	return err
}

func (c *Cache) upsert(ctx context.Context, k Key, e *Entry, now limit.Instant) error {
	if err := k.check(); err != nil {
		return err
	}
	if len(e.Value) > c.cfg.MaxValueBytes {
		return invalid("cache value has %d bytes; expected at most %d", len(e.Value), c.cfg.MaxValueBytes)
	}
	ttl := min(e.TTL, MaxTTL)
	switch {
	case e.NoTTL:
		ttl = MaxTTL
	case ttl <= 0:
		return invalid("cache ttl is %s; expected more than 0s, or none for %s", e.TTL, MaxTTL)
	}
	s := Stored{Value: slices.Clone(e.Value), Fresh: now.Add(ttl)}
	s.Keep = s.Fresh
	if k.Kind == Result {
		s.Keep = s.Fresh.Add(min(ttl, c.cfg.StaleFor))
	}
	if err := c.store.Set(ctx, k, s, now); err != nil {
		return err
	}
	if k.Kind == Result {
		c.land(k, s.Value, now)
	}
	return nil
}

// Delete forgets a value. Deleting what is not there is no error. A flow that computes the value at the moment
// will still store it.
func (c *Cache) Delete(ctx context.Context, k Key) error {
	err := k.check()
	if err == nil {
		err = c.store.Delete(ctx, k)
	}
	c.counts.did(opDelete, &k, err)
	return err
}

// Close lets nobody wait any more, and releases the store. No other call may be under way or follow, except
// Leave and Cancel.
func (c *Cache) Close() error {
	c.StopWaiting()
	return c.store.Close()
}
