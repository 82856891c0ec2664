// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"container/heap"
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-project/sluice/internal/limit"
)

// Coalesce says what happens to flows that miss a result which another flow computes.
type Coalesce uint8

// The ways.
const (
	CoalesceNone  Coalesce = iota // they compute it, too
	CoalesceWait                  // they wait for it
	CoalesceStale                 // they get the value that expired last, and wait when there is none
)

// Lead names the task of computing a value; 0 is none. The task is over when a value has been stored under the
// key, when Leave was called, or when it has taken longer than Config.CoalesceTimeout.
type Lead uint64

// Resumer is told that a Waiter need not wait any more. Resume is called exactly once for every Waiter for which
// Join was Pending, unless Cancel returned true or Leave returned the Waiter. No lock is held.
type Resumer interface {
	Resumed(w *Waiter)
}

// Waiter is one flow that waits for a value. The caller fills in the first group of fields; the cache owns the
// Waiter while it waits. It can be used again afterwards.
type Waiter struct {
	// Deadline is when waiting ends; 0: never. Where hundreds wait for the key already, Join puts it earlier, by at
	// most a tenth of the wait: not all can be told and answer at the same moment.
	Deadline limit.Instant
	// Resumer is told when waiting is over. Required.
	Resumer Resumer

	// Answer is what came of it: a hit, a miss with a Lead, or a miss without when the time was over.
	Answer Answer
	// Closed tells that the cache lets nobody wait any more.
	Closed bool
	// Waited is the time spent.
	Waited time.Duration

	shard      *shard  // of the last Join; the caller's goroutine writes it
	flight     *flight // nil: not waiting
	place      int     // in the heap of deadlines; -1: not there
	since      limit.Instant
	prev, next *Waiter // in the flight, the one that waits longest first
}

// Outcome of a Join.
type Outcome uint8

// The outcomes. Zero is none.
const (
	_        Outcome = iota
	Answered         // Waiter.Answer is the answer
	Pending          // the Waiter waits
	Refused          // it would have to wait, but nobody may any more
)

const shardCount = 16 // of flights; a power of two, and the low bits of a Lead

// shard holds the flights of some keys.
type shard struct {
	// landed counts values stored under keys of the shard. It is counted up before their flights end, so that
	// whoever has read the store before can tell that it should do so again.
	landed atomic.Uint64

	mu      sync.Mutex
	flights map[Key]*flight
	byLead  map[Lead]*flight
	order   flight // sentinel of the ring of flights, in the order in which their leads run out
}

// flight is a result that is being computed.
type flight struct {
	key     Key
	lead    Lead
	leadEnd limit.Instant
	prev    *flight
	next    *flight

	first, last *Waiter
	deadlines   deadlines
	waiting     int
	timer       *time.Timer   // set while flows wait
	timerAt     limit.Instant // 0: not set
	gone        bool
}

func (s *shard) init() {
	s.flights, s.byLead = make(map[Key]*flight), make(map[Lead]*flight)
	s.order.prev, s.order.next = &s.order, &s.order
}

// shard returns the shard of a result and its number.
func (c *Cache) shard(k *Key) (*shard, Lead) {
	i := Lead(maphash.String(c.seed, k.Name) % shardCount)
	return &c.shards[i], i
}

// joinTries bounds how often Join reads the store again because values of other keys came meanwhile.
const joinTries = 3

// Join reads a result, and shares the work when there is none. It never waits: either the answer is in w at
// once, or the Waiter waits and is told. When the answer has a Lead, the caller should compute the value and
// store it, and must call Leave when it is done with that, or will not do it.
func (c *Cache) Join(ctx context.Context, k Key, how Coalesce, w *Waiter, now limit.Instant) Outcome {
	w.Answer, w.Closed, w.Waited, w.shard, w.flight, w.place = Answer{}, false, 0, nil, nil, -1
	out := c.join(ctx, k, how, w, now)
	if out == Answered {
		c.counts.joined(&k, &w.Answer, false)
	}
	return out
}

func (c *Cache) join(ctx context.Context, k Key, how Coalesce, w *Waiter, now limit.Instant) Outcome {
	if how == CoalesceNone {
		w.Answer = c.lookup(ctx, k, now)
		return Answered
	}
	if err := k.check(); err != nil {
		w.Answer = Answer{Status: Failed, Err: err}
		return Answered
	}
	s, index := c.shard(&k)
	for try := 1; ; try++ {
		landed := s.landed.Load()
		stored, ok, err := c.store.Get(ctx, k, now)
		switch {
		case err != nil:
			w.Answer = Answer{Status: Failed, Err: err}
			return Answered
		case ok && now < stored.Fresh:
			w.Answer = Answer{Status: Hit, Value: stored.Value}
			return Answered
		}
		s.mu.Lock()
		if s.landed.Load() != landed && try < joinTries {
			s.mu.Unlock()
			continue
		}
		b := boarding{cache: c, shard: s, index: index, key: k, w: w, now: now}
		out := b.boardLocked(how == CoalesceStale && ok, stored.Value)
		s.mu.Unlock()
		return out
	}
}

// tellTime is about what it takes to decide a flow that need not wait any more, and to answer its caller. toldAtOnce
// are few enough to be answered in the time that callers leave between Deadline and the end of theirs.
const (
	tellTime   = 50 * time.Microsecond
	toldAtOnce = 200
)

// boarding is one flow that missed.
type boarding struct {
	cache *Cache
	shard *shard
	index Lead // of the shard
	key   Key
	w     *Waiter
	now   limit.Instant
}

// boardLocked makes the flow lead, wait, or go on alone. REQUIRES shard.mu.
func (b *boarding) boardLocked(mayStale bool, stale []byte) Outcome {
	s, w := b.shard, b.w
	s.sweepLocked(b.cache, b.now)
	f := s.flights[b.key]
	w.Answer.Status = Miss
	switch {
	case f == nil:
		if b.cache.nFlown.Load() >= MaxFlights {
			return Answered
		}
		f = &flight{key: b.key.clone()}
		b.cache.nFlown.Add(1)
		s.flights[f.key] = f
		w.Answer.Lead = b.cache.leadLocked(s, b.index, f, b.now)
		return Answered
	case mayStale:
		w.Answer = Answer{Status: Stale, Value: stale}
		return Answered
	case w.Deadline != 0 && w.Deadline <= b.now, f.waiting >= MaxWaiters, b.cache.nWaits.Load() >= MaxAllWaiters:
		return Answered
	case b.cache.closed.Load():
		return Refused
	}
	w.shard = s
	if w.Deadline != 0 {
		early := time.Duration(max(0, f.waiting-toldAtOnce)) * tellTime
		w.Deadline = w.Deadline.Add(-min(early, w.Deadline.Sub(b.now)/10))
	}
	b.cache.addLocked(f, w, b.now)
	b.cache.rearmLocked(s, f, b.now)
	return Pending
}

// leadLocked makes a new lead of a flight. REQUIRES the shard's mu.
func (c *Cache) leadLocked(s *shard, index Lead, f *flight, now limit.Instant) Lead {
	if f.lead != 0 {
		delete(s.byLead, f.lead)
		f.unlink()
	}
	f.lead = Lead(c.leads.Add(1))*shardCount | index
	if f.lead == 0 {
		f.lead = Lead(c.leads.Add(1))*shardCount | index
	}
	f.leadEnd = now.Add(c.cfg.CoalesceTimeout)
	s.byLead[f.lead] = f
	f.prev, f.next = s.order.prev, &s.order
	f.prev.next, f.next.prev = f, f
	return f.lead
}

func (f *flight) unlink() { f.prev.next, f.next.prev = f.next, f.prev }

// sweepLocked forgets flights whose lead has run out and for which nobody waits; the others have a timer.
func (s *shard) sweepLocked(c *Cache, now limit.Instant) {
	for f := s.order.next; f != &s.order && f.leadEnd <= now; {
		next := f.next
		if f.waiting == 0 {
			s.endLocked(c, f)
		}
		f = next
	}
}

// sweep forgets the flights of all shards whose lead has run out and for which nobody waits.
func (c *Cache) sweep() {
	now := c.cfg.Now()
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.sweepLocked(c, now)
		s.mu.Unlock()
	}
}

// endLocked forgets a flight. Those who wait are still in its list.
func (s *shard) endLocked(c *Cache, f *flight) {
	f.gone = true
	f.unlink()
	delete(s.flights, f.key)
	delete(s.byLead, f.lead)
	c.nFlown.Add(-1)
	if f.timer != nil {
		f.timer.Stop()
	}
}

// land ends the flight of a key with a value.
func (c *Cache) land(k Key, value []byte, now limit.Instant) {
	s, _ := c.shard(&k)
	s.landed.Add(1)
	s.mu.Lock()
	f := s.flights[k]
	if f == nil {
		s.mu.Unlock()
		return
	}
	s.endLocked(c, f)
	var told list
	for w := f.first; w != nil; w = f.first {
		c.removeLocked(f, w, now)
		w.Answer = Answer{Status: Hit, Value: value}
		told.add(w)
	}
	s.mu.Unlock()
	c.tell(&k, &told)
}

// Leave ends a lead. It returns the Waiter that leads from now on, nil if nobody waits: the caller must tell its
// Resumer, holding no lock. Leaving a lead that is over already changes nothing.
func (c *Cache) Leave(lead Lead, now limit.Instant) *Waiter {
	if lead == 0 {
		return nil
	}
	index := lead % shardCount
	s := &c.shards[index]
	s.mu.Lock()
	f := s.byLead[lead]
	if f == nil {
		s.mu.Unlock()
		return nil
	}
	w := c.passLocked(s, index, f, now)
	s.mu.Unlock()
	if w != nil {
		c.counts.joined(&f.key, &w.Answer, true)
	}
	return w
}

// passLocked passes the lead of a flight on to the Waiter that waits longest, or ends the flight.
func (c *Cache) passLocked(s *shard, index Lead, f *flight, now limit.Instant) *Waiter {
	w := f.first
	if w == nil {
		s.endLocked(c, f)
		return nil
	}
	c.removeLocked(f, w, now)
	w.Answer = Answer{Status: Miss, Lead: c.leadLocked(s, index, f, now)}
	c.counts.passed.Add(1)
	c.rearmLocked(s, f, now)
	return w
}

// Cancel takes a Waiter out because its caller has left. It returns false when waiting is over already: then its
// Resumer has been told or is about to be.
func (c *Cache) Cancel(w *Waiter, now limit.Instant) bool {
	s := w.shard
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := w.flight
	if f == nil {
		return false
	}
	c.removeLocked(f, w, now)
	c.rearmLocked(s, f, now)
	return true
}

// StopWaiting ends the wait of all flows, with Closed, and lets none wait from now on.
func (c *Cache) StopWaiting() {
	c.closed.Store(true)
	now := c.cfg.Now()
	for i := range c.shards {
		s := &c.shards[i]
		var told list
		s.mu.Lock()
		for _, f := range s.flights {
			for w := f.first; w != nil; w = f.first {
				c.removeLocked(f, w, now)
				w.Answer, w.Closed = Answer{Status: Miss}, true
				told.add(w)
			}
			c.rearmLocked(s, f, now)
		}
		s.mu.Unlock()
		c.tell(nil, &told)
	}
}

// tell resumes waiters. A nil key: their answers do not count.
func (c *Cache) tell(k *Key, told *list) {
	for w := told.first; w != nil; {
		next := w.next // from Resumed on, w is not ours
		w.next = nil
		if k != nil {
			c.counts.joined(k, &w.Answer, true)
		}
		w.Resumer.Resumed(w)
		w = next
	}
}

// rearmLocked sets the timer of a flight to the next moment at which something is due without an event. A
// flight for which nobody waits needs none: the next miss in the shard finds that its lead has run out.
func (c *Cache) rearmLocked(s *shard, f *flight, now limit.Instant) {
	if f.waiting == 0 {
		if f.timer != nil {
			f.timer.Stop()
		}
		f.timerAt = 0
		return
	}
	at := f.leadEnd
	if len(f.deadlines) > 0 {
		at = min(at, f.deadlines[0].Deadline)
	}
	if f.timerAt != 0 && f.timerAt <= at {
		return // fires early enough; it will be set again then
	}
	f.timerAt = at
	if d := max(0, at.Sub(now)); f.timer == nil {
		f.timer = time.AfterFunc(d, func() { c.onTimer(s, f) })
	} else {
		f.timer.Reset(d)
	}
}

// onTimer ends waits whose time is over, and a lead whose time is over.
func (c *Cache) onTimer(s *shard, f *flight) {
	now := c.cfg.Now()
	var told list
	s.mu.Lock()
	if f.gone {
		s.mu.Unlock()
		return
	}
	f.timerAt = 0
	for len(f.deadlines) > 0 && f.deadlines[0].Deadline <= now {
		w := f.deadlines[0]
		c.removeLocked(f, w, now)
		w.Answer = Answer{Status: Miss}
		told.add(w)
	}
	c.counts.gaveUp.Add(uint64(told.n))
	if f.leadEnd <= now {
		c.counts.ranOut.Add(1)
		if w := c.passLocked(s, f.lead%shardCount, f, now); w != nil {
			told.add(w)
		}
	} else {
		c.rearmLocked(s, f, now)
	}
	s.mu.Unlock()
	c.tell(&f.key, &told)
}

// list collects waiters that need not wait any more.
type list struct {
	first, last *Waiter
	n           int
}

func (l *list) add(w *Waiter) {
	w.next = nil
	if l.last == nil {
		l.first = w
	} else {
		l.last.next = w
	}
	l.last = w
	l.n++
}

// addLocked makes w the last that waits. REQUIRES the shard's mu.
func (c *Cache) addLocked(f *flight, w *Waiter, now limit.Instant) {
	w.flight, w.since, w.prev, w.next = f, now, f.last, nil
	if f.last == nil {
		f.first = w
	} else {
		f.last.next = w
	}
	f.last = w
	f.waiting++
	c.nWaits.Add(1)
	if w.Deadline != 0 {
		heap.Push(&f.deadlines, w)
	}
}

// removeLocked ends the wait of w. REQUIRES the shard's mu.
func (c *Cache) removeLocked(f *flight, w *Waiter, now limit.Instant) {
	if w.prev == nil {
		f.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		f.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	f.waiting--
	c.nWaits.Add(-1)
	if w.place >= 0 {
		heap.Remove(&f.deadlines, w.place)
	}
	w.Waited = max(0, now.Sub(w.since))
	w.flight, w.prev, w.next = nil, nil, nil
}

// deadlines is a heap of waiters that know their place.
type deadlines []*Waiter

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].Deadline < d[j].Deadline }

func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}

// Push implements heap.Interface.
func (d *deadlines) Push(x any) {
	w := x.(*Waiter)
	w.place = len(*d)
	*d = append(*d, w)
}

// Pop implements heap.Interface.
func (d *deadlines) Pop() any {
	old := *d
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	w.place = -1
	return w
}
