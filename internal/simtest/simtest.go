// SPDX-License-Identifier: Apache-2.0

// Package simtest has simulated clients and the reference fair share that schedulers are compared with.
// Only tests import it.
//
// Time is virtual and everything is deterministic: the same load gives the same report.
package simtest

import (
	"container/heap"
	"slices"
	"time"

	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/wfq"
)

// Claim is what one party asks of a shared capacity.
type Claim struct {
	Weight float64 // more than 0
	Demand float64 // what it would use if it were alone; not negative
}

// FairShare divides a capacity by weighted max-min fairness: nobody gets more than it demands, and what
// one leaves is shared by the others in proportion to their weights. It is computed by filling up, not
// by queueing, so that it can judge a queue.
func FairShare(capacity float64, claims []Claim) []float64 {
	share := make([]float64, len(claims))
	open := make([]int, 0, len(claims))
	for i := range claims {
		open = append(open, i)
	}
	for len(open) > 0 && capacity > 0 {
		weights := 0.0
		for _, i := range open {
			weights += claims[i].Weight
		}
		level := capacity / weights
		content := func(i int) bool { return claims[i].Demand <= level*claims[i].Weight }
		if !slices.ContainsFunc(open, content) {
			for _, i := range open {
				share[i] = level * claims[i].Weight
			}
			break
		}
		for _, i := range open {
			if content(i) {
				share[i] = claims[i].Demand
				capacity -= share[i]
			}
		}
		open = slices.DeleteFunc(open, content)
	}
	return share
}

// Group is a number of equal clients. Each makes its calls one after the other: it asks, waits for its
// turn, is served, thinks, and asks again.
type Group struct {
	Class   wfq.ClassKey
	Clients int
	// Keys: each client has a fairness key of its own; otherwise all share "".
	Keys  bool
	Calls int // of each client; 0: without end
	// Cost of a call in tokens; it matters for order, and under a bucket for capacity.
	Cost float64
	// Service is how long a call holds its slot; 0 under a bucket.
	Service time.Duration
	Think   time.Duration
	// Start is when the first client starts, and Stagger how long after one the next does.
	Start, Stagger time.Duration
}

// Result is what became of one group.
type Result struct {
	Calls  int
	Tokens float64
	Wait   time.Duration // of all calls together
	Last   time.Duration // when the last call ended, since the start
}

// MeanWait is the mean wait of a call.
func (r Result) MeanWait() time.Duration { return r.Wait / time.Duration(max(1, r.Calls)) }

// Server is what the clients share: either slots, or a bucket.
type Server struct {
	Slots  int               // calls served at once
	Bucket *limit.BucketRule // nil: slots
}

// Run lets the groups call the server for as long as they want, at most until the given time, and
// reports on each. peak is the largest number of calls served at once.
func Run(server Server, groups []Group, until time.Duration) (results []Result, peak int) {
	s := &sim{server: server, groups: groups, results: make([]Result, len(groups))}
	for g := range groups {
		for c := range groups[g].Clients {
			at := groups[g].Start + time.Duration(c)*groups[g].Stagger
			s.at(at, func() { s.ask(client{group: g, number: c}) })
		}
	}
	for s.events.Len() > 0 {
		e := heap.Pop(&s.events).(event)
		if e.at > until {
			break
		}
		s.now = e.at
		e.do()
	}
	return s.results, s.peak
}

type client struct {
	group, number, done int
	asked               time.Duration
}

type sim struct {
	server  Server
	groups  []Group
	results []Result
	events  events
	seq     int
	now     time.Duration
	queue   wfq.Queue[client]
	busy    int
	peak    int
	bucket  limit.Bucket
	waking  bool // an event for the bucket's next tokens is on its way
}

func (s *sim) at(t time.Duration, do func()) {
	s.seq++
	heap.Push(&s.events, event{t, s.seq, do})
}

func (s *sim) ask(c client) {
	g := &s.groups[c.group]
	c.asked = s.now
	key := ""
	if g.Keys {
		key = string(rune('a' + c.number))
	}
	s.queue.Push(g.Class, key, g.Cost, c)
	// Everybody who asks at this instant is queued before anybody is served.
	s.at(s.now, s.serve)
}

func (s *sim) serve() {
	for {
		_, cost, ok := s.queue.Peek()
		if !ok || !s.admit(cost) {
			return
		}
		c, _ := s.queue.Pop()
		g, r := &s.groups[c.group], &s.results[c.group]
		r.Calls++
		r.Tokens += cost
		r.Wait += s.now - c.asked
		s.at(s.now+g.Service, func() { s.end(c) })
	}
}

func (s *sim) admit(cost float64) bool {
	if s.server.Bucket == nil {
		if s.busy == s.server.Slots {
			return false
		}
		s.busy++
		s.peak = max(s.peak, s.busy)
		return true
	}
	wait, ok := s.bucket.Take(s.server.Bucket, limit.Instant(1+s.now), cost)
	if !ok && !s.waking && wait != limit.Never {
		s.waking = true
		s.at(s.now+wait, func() {
			s.waking = false
			s.serve()
		})
	}
	return ok
}

func (s *sim) end(c client) {
	g := &s.groups[c.group]
	s.results[c.group].Last = s.now
	c.done++
	if c.done != g.Calls {
		s.at(s.now+g.Think, func() { s.ask(c) })
	}
	if s.server.Bucket == nil {
		s.busy--
		s.at(s.now, s.serve)
	}
}

type event struct {
	at  time.Duration
	seq int
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}
