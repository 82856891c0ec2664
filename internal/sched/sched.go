// SPDX-License-Identifier: Apache-2.0

// Package sched makes flows wait for capacity, in the order of package wfq.
//
// A Scheduler serves one limiter: one queue per account, which exists only while flows wait in it. A
// flow that finds no queue and enough capacity never waits. Others are queued and resumed by the event
// that lets them go on: a release of slots, the refill of a bucket, an expiry, a changed limit. Nothing
// polls.
//
// Waiting needs no goroutine: a Waiter is resumed by a call, on the goroutine that freed the capacity.
// That is how one connection can have ten thousand flows waiting. Callers that want to block do so on a
// channel that their Resumer fills.
//
// Deadlines are kept honestly: a flow that by present knowledge cannot be served before its deadline is
// denied at once with the time after which a retry has a chance.
//
// Lock order: shard.mu, then whatever Capacity locks. Resumers are called with no lock held.
package sched

import (
	"errors"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/wfq"
)

// Capacity is what flows wait for: the accounts of one limiter. Its methods are called with a lock
// held; they must not wait for anything else, and must not call the Scheduler.
type Capacity interface {
	// Take charges n tokens to an account if it has them.
	Take(key string, n float64, now limit.Instant) (Grant, error)
	// Forecast tells when tokens in total will have come to an account: expect is the best guess, after
	// which a retry makes sense; atLeast is how long it takes even when things go well, 0 if unknown.
	Forecast(key string, tokens float64, now limit.Instant) (expect, atLeast time.Duration)
}

// Grant is the answer of a Capacity.
type Grant struct {
	OK bool
	// Wait is, for a refusal, after how long to ask again; limit.Never when only an event helps.
	Wait time.Duration
	// Slot is what the flow holds, for its release; 0 when there is nothing to release.
	Slot uint64
	// Remaining tokens of the account, and the Limit of a full one.
	Remaining, Limit float64
	// Free tells that nothing was charged: everything passes at the moment.
	Free bool
	// Moves tells that the limit changes all the time, so that a flow which is larger than it may wait.
	Moves bool
}

// ceiling is what a flow that waits must not be larger than.
func (g *Grant) ceiling() float64 {
	if g.Moves {
		return math.Inf(1)
	}
	return g.Limit
}

// Outcome is what became of a Waiter.
type Outcome uint8

// The outcomes. Zero is none yet and never a success.
const (
	Pending Outcome = iota // waiting, or not asked yet
	Granted
	QueueTimeout // waited as long as it was allowed to
	NoTime       // cannot be served before its deadline, so it did not wait
	QueueFull    // too many wait already
	TooLarge     // needs more than a full account holds
	Cancelled    // the caller left
	Closed       // the scheduler was closed
	Failed       // the capacity could not be asked; see Waiter.Err
)

// Resumer is told that a Waiter has left the queue. Resume is called exactly once for every Waiter for
// which Admit returned Pending, unless Cancel returned true. No lock is held. It should be quick;
// waiters that it frees itself go to wakes, not into a nested call.
type Resumer interface {
	Resume(w *Waiter, wakes *Wakes)
}

// Waiter is one flow at one scheduler. The caller fills in the first group of fields; the scheduler owns
// the Waiter from Admit until the outcome is known. It can be used again afterwards.
type Waiter struct {
	// Key is the account.
	Key string
	// Tokens is the cost; valid by limit.ValidTokens.
	Tokens float64
	// Class and Fairness place the flow in the queue. The priority must be finite and more than 0.
	Class    wfq.ClassKey
	Fairness string
	// Deadline is when waiting ends; 0: never.
	Deadline limit.Instant
	// Stats are the figures of the workload; see Scheduler.Workload. Required.
	Stats *Workload
	// Resumer is told the outcome when Admit returned Pending.
	Resumer Resumer

	// Outcome, Grant, Waited and Err are the answer. RetryAfter is set for denials that have one; 0:
	// unknown or pointless.
	Outcome    Outcome
	Grant      Grant
	Waited     time.Duration
	RetryAfter time.Duration
	Err        error

	queue    *queue
	handle   wfq.Handle
	place    int // in the heap of deadlines; -1: not there
	queuedAt limit.Instant
	costThen float64 // tokens in the queue when this one joined
	doneThen float64 // tokens the queue had admitted when this one joined
	next     *Waiter // in a Wakes
}

// Wakes collects waiters that have left a queue until it is safe to tell them. The zero Wakes is empty.
type Wakes struct{ head, tail *Waiter }

// Add makes Run resume a waiter that waits for something else than a Scheduler; its Resumer must be set.
func (ws *Wakes) Add(w *Waiter) { ws.add(w) }

func (ws *Wakes) add(w *Waiter) {
	w.next = nil
	if ws.tail == nil {
		ws.head = w
	} else {
		ws.tail.next = w
	}
	ws.tail = w
}

// Run resumes the waiters collected, and those that they free in turn, until none is left. The caller
// must hold no lock.
func (ws *Wakes) Run() {
	for ws.head != nil {
		w := ws.head
		ws.head, w.next = w.next, nil
		if ws.head == nil {
			ws.tail = nil
		}
		w.Resumer.Resume(w, ws)
	}
}

// Config configures a Scheduler.
type Config struct {
	// Capacity is what flows wait for. Required.
	Capacity Capacity
	// Now is the clock of the accounts. Required.
	Now func() limit.Instant
	// MaxWaiting bounds the flows waiting in all queues together; 0: DefaultMaxWaiting.
	MaxWaiting int
}

// DefaultMaxWaiting is how many flows may wait at one scheduler; at about 500 bytes each they take 50 MB.
const DefaultMaxWaiting = 100_000

const shardCount = 16

// Scheduler makes the flows of one limiter wait. All methods may be called concurrently.
type Scheduler struct {
	cfg     Config
	seed    maphash.Seed
	waiting atomic.Int64
	closed  atomic.Bool
	shards  [shardCount]shard

	workloadsMu sync.RWMutex
	workloads   map[string]*Workload
}

type shard struct {
	mu     sync.Mutex
	queues map[string]*queue
	spare  *queue
}

// New makes a scheduler without queues.
func New(cfg Config) (*Scheduler, error) {
	if cfg.Capacity == nil || cfg.Now == nil {
		return nil, errors.New("sched: Config needs Capacity and Now")
	}
	if cfg.MaxWaiting <= 0 {
		cfg.MaxWaiting = DefaultMaxWaiting
	}
	s := &Scheduler{cfg: cfg, seed: maphash.MakeSeed(), workloads: make(map[string]*Workload)}
	for i := range s.shards {
		s.shards[i].queues = make(map[string]*queue)
	}
	return s, nil
}

func (s *Scheduler) shard(key string) *shard {
	if key == "" {
		return &s.shards[0]
	}
	return &s.shards[maphash.String(s.seed, key)%shardCount]
}

// Admit asks for capacity. It never waits: the outcome is known at once, or Pending and told later.
func (s *Scheduler) Admit(w *Waiter, now limit.Instant) Outcome {
	w.Outcome, w.Waited, w.RetryAfter, w.Err, w.queue = Pending, 0, 0, nil, nil
	sh := s.shard(w.Key)
	sh.mu.Lock()
	q := sh.queues[w.Key]
	if q == nil {
		if s.tryLocked(w, now) {
			sh.mu.Unlock()
			w.Stats.count(w)
			return w.Outcome
		}
	}
	if out := s.refusal(q, w, now); out != Pending {
		w.Outcome = out
		sh.mu.Unlock()
		w.Stats.count(w)
		return out
	}
	if q == nil {
		q = sh.newQueue(s, w.Key)
	}
	s.waiting.Add(1)
	w.Stats.join(w)
	out := q.join(w, now)
	sh.mu.Unlock()
	return out
}

// tryLocked takes capacity without a queue; true when that decided the outcome. REQUIRES the shard's mu.
func (s *Scheduler) tryLocked(w *Waiter, now limit.Instant) bool {
	w.Grant, w.Err = s.cfg.Capacity.Take(w.Key, w.Tokens, now)
	switch {
	case w.Err != nil:
		w.Outcome = Failed
	case w.Grant.OK:
		w.Outcome = Granted
	case w.Tokens > w.Grant.ceiling():
		w.Outcome = TooLarge
	}
	return w.Outcome != Pending
}

// refusal decides whether a flow may join the queue; q is nil when there is none yet.
func (s *Scheduler) refusal(q *queue, w *Waiter, now limit.Instant) Outcome {
	if q != nil {
		w.Grant = Grant{Wait: limit.Never, Limit: q.limit}
		if w.Tokens > q.ceiling {
			return TooLarge
		}
	}
	full := s.waiting.Load() >= int64(s.cfg.MaxWaiting) || s.closed.Load()
	if w.Deadline == 0 && !full {
		return Pending
	}
	expect, atLeast := s.forecast(q, w, now)
	w.RetryAfter = expect
	switch {
	case s.closed.Load():
		w.RetryAfter = 0
		return Closed
	case full:
		return QueueFull
	case w.Deadline <= now:
		return QueueTimeout
	case now.Add(atLeast) > w.Deadline:
		return NoTime
	}
	w.RetryAfter = 0
	return Pending
}

// forecastClasses bounds the work of a forecast.
const forecastClasses = 64

func (s *Scheduler) forecast(q *queue, w *Waiter, now limit.Instant) (expect, atLeast time.Duration) {
	ahead := 0.0
	if q != nil {
		ahead = q.order.Ahead(w.Class, w.Fairness, w.Tokens, forecastClasses)
	}
	return s.cfg.Capacity.Forecast(w.Key, ahead+w.Tokens, now)
}

// Cancel takes a waiter out of its queue because its caller has left. It returns false when the outcome
// is known already: then Resume has been called or is about to be.
func (s *Scheduler) Cancel(w *Waiter, now limit.Instant, wakes *Wakes) bool {
	sh := s.shard(w.Key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	q := w.queue
	if q == nil || w.Outcome != Pending {
		return false
	}
	q.order.Remove(w.handle)
	q.leave(w, Cancelled, now)
	q.pump(now, wakes) // the next one may need less
	return true
}

// Freed tells that capacity of an account may have become available.
func (s *Scheduler) Freed(key string, now limit.Instant, wakes *Wakes) {
	sh := s.shard(key)
	sh.mu.Lock()
	if q := sh.queues[key]; q != nil {
		q.pump(now, wakes)
	}
	sh.mu.Unlock()
}

// FreedAll tells that capacity of any account may have become available, as after a change of limits.
func (s *Scheduler) FreedAll(now limit.Instant, wakes *Wakes) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for _, q := range sh.queues {
			q.pump(now, wakes)
		}
		sh.mu.Unlock()
	}
}

// Waiting is the number of flows in all queues.
func (s *Scheduler) Waiting() int { return int(s.waiting.Load()) }

// Close denies all flows that wait, and from now on every flow that would have to.
func (s *Scheduler) Close(wakes *Wakes) {
	s.closed.Store(true)
	now := s.cfg.Now()
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for _, q := range sh.queues {
			for w, ok := q.order.Pop(); ok; w, ok = q.order.Pop() {
				q.leave(w, Closed, now)
				wakes.add(w)
			}
			q.drop()
		}
		sh.mu.Unlock()
	}
}

// Queued describes one waiting flow, for debug pages.
type Queued struct {
	Key, Workload, Fairness string
	Priority, Tokens        float64
	Waited, Left            time.Duration // Left is limit.Never without a deadline
}

// Each calls f with waiting flows, at most so many of them, holding a lock: f must be quick and must not
// call back.
func (s *Scheduler) Each(most int, f func(Queued)) {
	now := s.cfg.Now()
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for _, q := range sh.queues {
			q.order.Each(func(k wfq.ClassKey, fair string, cost float64, w *Waiter) {
				if most--; most < 0 {
					return
				}
				left := limit.Never
				if w.Deadline != 0 {
					left = w.Deadline.Sub(now)
				}
				f(Queued{q.key, k.Workload, fair, k.Priority, cost, now.Sub(w.queuedAt), left})
			})
		}
		sh.mu.Unlock()
		if most < 0 {
			return
		}
	}
}

// WaitingAt is the number of flows waiting for one account.
func (s *Scheduler) WaitingAt(key string) int {
	sh := s.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if q := sh.queues[key]; q != nil {
		return q.order.Len()
	}
	return 0
}
