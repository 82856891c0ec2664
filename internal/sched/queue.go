// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"container/heap"
	"time"

	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/wfq"
)

// queue holds the flows that wait for one account. Everything in it needs the shard's mu.
type queue struct {
	s         *Scheduler
	sh        *shard
	key       string
	order     wfq.Queue[*Waiter]
	deadlines deadlines
	timer     *time.Timer
	timerAt   limit.Instant // 0: not set
	limit     float64       // of a full account, when last seen
	ceiling   float64       // what a flow must not be larger than, when last seen
	done      float64       // tokens admitted from this queue
	peak      int           // most flows that ever waited in it
	dead      bool
}

// REQUIRES sh.mu.
func (sh *shard) newQueue(s *Scheduler, key string) *queue {
	q := sh.spare
	if q != nil {
		sh.spare = nil
		q.key, q.dead, q.done, q.timerAt, q.peak = key, false, 0, 0, 0
	} else {
		q = &queue{s: s, sh: sh, key: key}
	}
	sh.queues[key] = q
	return q
}

func (q *queue) push(w *Waiter, now limit.Instant) {
	w.queue, w.queuedAt, w.place = q, now, -1
	w.costThen, w.doneThen = q.order.Cost(), q.done
	if q.order.Len() == 0 {
		q.limit, q.ceiling = w.Grant.Limit, w.Grant.ceiling()
	}
	w.handle = q.order.Push(w.Class, w.Fairness, w.Tokens, w)
	q.peak = max(q.peak, q.order.Len())
	if w.Deadline != 0 {
		heap.Push(&q.deadlines, w)
	}
}

// join queues a flow. One that comes first although others wait already may need less than they do, so
// it is served at once if it can be.
func (q *queue) join(w *Waiter, now limit.Instant) Outcome {
	first := q.order.Len() == 0
	q.push(w, now)
	if first {
		q.rearm(now, w.Grant.Wait) // Take has just refused it
		return Pending
	}
	wait := limit.Never
	if head, _, _ := q.order.Peek(); head == w {
		grant, err := q.s.cfg.Capacity.Take(w.Key, w.Tokens, now)
		if err == nil && grant.OK {
			w.Grant = grant
			q.order.Pop()
			q.leave(w, Granted, now)
			return Granted
		}
		wait = grant.Wait
	}
	q.rearm(now, wait)
	return Pending
}

// leave ends the wait of a flow that is out of the order already.
func (q *queue) leave(w *Waiter, out Outcome, now limit.Instant) {
	if w.place >= 0 {
		heap.Remove(&q.deadlines, w.place)
	}
	w.Outcome, w.Waited, w.queue = out, max(0, now.Sub(w.queuedAt)), nil
	q.s.waiting.Add(-1)
	if out == Granted {
		w.Stats.shift(w.costThen - (q.done - w.doneThen))
		q.done += w.Tokens
	}
	w.Stats.leave(w)
}

// pump ends the waits that are due: first those whose deadline has passed, then, in order, those for
// which there is capacity. An empty queue is dropped.
func (q *queue) pump(now limit.Instant, wakes *Wakes) {
	if q.dead {
		return
	}
	for len(q.deadlines) > 0 && q.deadlines[0].Deadline <= now {
		w := q.deadlines[0]
		q.order.Remove(w.handle)
		q.leave(w, QueueTimeout, now)
		w.RetryAfter, _ = q.s.forecast(q, w, now)
		wakes.add(w)
	}
	for {
		w, _, ok := q.order.Peek()
		if !ok {
			q.drop()
			return
		}
		w.Grant, w.Err = q.s.cfg.Capacity.Take(w.Key, w.Tokens, now)
		q.limit, q.ceiling = w.Grant.Limit, w.Grant.ceiling()
		out := Granted
		switch {
		case w.Err != nil:
			out = Failed
		case !w.Grant.OK && w.Tokens > q.ceiling:
			out = TooLarge // the limit was lowered while it waited
		case !w.Grant.OK:
			q.rearm(now, w.Grant.Wait)
			return
		}
		q.order.Pop()
		q.leave(w, out, now)
		wakes.add(w)
	}
}

// drop removes an empty queue.
func (q *queue) drop() {
	q.dead = true
	q.deadlines = q.deadlines[:0]
	if q.timer != nil {
		q.timer.Stop()
	}
	q.timerAt = 0
	delete(q.sh.queues, q.key)
	if q.sh.spare == nil && q.peak <= 1024 {
		q.key = ""
		q.sh.spare = q
	} else {
		q.order = wfq.Queue[*Waiter]{}
	}
}

// rearm sets the timer to the next moment at which something is due without an event: the first
// deadline, or capacity after wait.
func (q *queue) rearm(now limit.Instant, wait time.Duration) {
	at := limit.Instant(0)
	if wait != limit.Never {
		at = now.Add(max(wait, 1))
	}
	if len(q.deadlines) > 0 && (at == 0 || q.deadlines[0].Deadline < at) {
		at = q.deadlines[0].Deadline
	}
	if q.timerAt != 0 && (at == 0 || q.timerAt <= at) {
		return // fires early enough, or is due and about to; it will be set again then
	}
	q.timerAt = at
	if at == 0 {
		return
	}
	if d := at.Sub(now); q.timer == nil {
		q.timer = time.AfterFunc(d, q.onTimer)
	} else {
		q.timer.Reset(d)
	}
}

func (q *queue) onTimer() {
	var wakes Wakes
	q.sh.mu.Lock()
	now := q.s.cfg.Now()
	q.timerAt = 0
	q.pump(now, &wakes) // may be a later life of this queue; pumping is harmless then
	q.sh.mu.Unlock()
	wakes.Run()
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
