// SPDX-License-Identifier: Apache-2.0

// Package wfq is a weighted-fair queue: it decides who is next, and nothing else. It has no lock, no
// clock and no notion of capacity.
//
// Flows queue in classes (a workload at a priority); within a class, flows with different fairness keys
// take equal turns; within a fairness key they are first in, first out. Order is by virtual finish time
// as in self-clocked fair queueing (S. J. Golestani, "A Self-Clocked Fair Queueing Scheme for Broadband
// Applications", INFOCOM 1994): a flow finishes at max(V, finish of the one before) + cost / weight, the
// smallest finish goes first and its finish becomes the new V. Compared with true WFQ it needs no
// simulation of a fluid server, costs O(log active classes) and keeps the same long-run shares. Equal
// finish times go to whoever became active first.
//
// A class or key that has nothing queued is forgotten at once: V never runs behind its last finish, so
// it would start from V anyway. Memory is bounded by the most that was ever queued at a time.
package wfq

import (
	"hash/maphash"
	"math"
)

// ClassKey names a class: flows of one workload at one priority share a weight.
type ClassKey struct {
	// Workload is any name; "" is a name too.
	Workload string
	// Priority is the weight: a class of priority 5 gets five times the tokens of one of priority 1
	// while both have flows waiting. It must be finite and more than 0.
	Priority float64
}

// Handle names a queued item until it leaves the queue; afterwards it is refused. The zero Handle is
// never valid.
type Handle struct {
	index int32
	gen   uint32
}

// Queue orders items of type T. The zero Queue is empty and ready. It must not be used by two
// goroutines at once.
type Queue[T any] struct {
	items    pool[item[T]]
	lanes    pool[lane]
	classes  pool[class]
	laneOf   table // by class and fairness key
	classOf  table
	lanePos  []int32 // place of a lane in the heap of its class
	classPos []int32 // place of a class in heap
	heap     heap    // of classes
	seed     maphash.Seed
	v        float64 // virtual time: the finish of the item popped last
	seq      uint64
	len      int
	cost     float64
}

type item[T any] struct {
	value      T
	cost       float64
	lane       int32
	prev, next int32 // within the lane
	gen        uint32
}

// lane is the FIFO of one fairness key of one class.
type lane struct {
	key        string
	class      int32
	head, tail int32 // items
	hash       uint32
	start      float64 // virtual start of the head, by the class's time
	cost       float64
}

// class is a set of lanes that share a weight.
type class struct {
	key   ClassKey
	heap  heap    // of lanes
	v     float64 // virtual time within the class
	start float64 // virtual start of the head
	cost  float64
	len   int
	top   int32 // the lane whose turn it is: heap.s[0]
	hash  uint32
}

// none is the index of nothing.
const none = -1

// pool hands out places in an array and reuses them.
type pool[E any] struct {
	s    []E
	free []int32
}

// get returns a place; what was in it before is still there.
func (p *pool[E]) get() int32 {
	if n := len(p.free); n > 0 {
		i := p.free[n-1]
		p.free = p.free[:n-1]
		return i
	}
	var zero E
	p.s = append(p.s, zero)
	return int32(len(p.s) - 1)
}

func (p *pool[E]) put(i int32) { p.free = append(p.free, i) }

// Len is the number of items queued.
func (q *Queue[T]) Len() int { return q.len }

// Cost is the sum of the costs of the items queued.
func (q *Queue[T]) Cost() float64 { return q.cost }

// ClassLen is the number of items queued in a class.
func (q *Queue[T]) ClassLen(k ClassKey) int {
	if q.len == 0 {
		return 0
	}
	if c := q.findClass(k, q.hashClass(k)); c != none {
		return q.classes.s[c].len
	}
	return 0
}

// Push queues an item. The cost must be finite and not negative.
func (q *Queue[T]) Push(key ClassKey, fairness string, cost float64, value T) Handle {
	if q.laneOf.entries == nil {
		q.seed, q.laneOf, q.classOf = maphash.MakeSeed(), newTable(), newTable()
	}
	i := q.items.get()
	it := &q.items.s[i]
	hc := q.hashClass(key)
	hl := q.hashLane(hc, fairness)
	n := q.findLane(key, fairness, hl)
	newLane, newClass := n == none, false
	if newLane {
		c := q.findClass(key, hc)
		if newClass = c == none; newClass {
			c = q.addClass(key, hc)
		}
		n = q.addLane(c, fairness, hl)
	}
	l := &q.lanes.s[n]
	c := &q.classes.s[l.class]
	it.value, it.cost, it.lane, it.prev, it.next = value, cost, n, l.tail, none
	it.gen++ // odd: queued
	if l.tail != none {
		q.items.s[l.tail].next = i
	} else {
		l.head = i
	}
	l.tail = i
	l.cost += cost
	c.len++
	c.cost += cost
	q.len++
	q.cost += cost
	if newLane {
		q.seq++
		c.heap.push(entry{l.start + cost, q.seq, n}, q.lanePos)
		q.newTop(l.class, newClass)
	}
	return Handle{i + 1, it.gen}
}

// newTop brings the class's place in the heap up to date after its lanes changed.
func (q *Queue[T]) newTop(i int32, newClass bool) {
	c := &q.classes.s[i]
	c.top = c.heap.s[0].node
	finish := c.start + q.items.s[q.lanes.s[c.top].head].cost/c.key.Priority
	if newClass {
		q.seq++
		q.heap.push(entry{finish, q.seq, i}, q.classPos)
		return
	}
	if at := q.classPos[i]; q.heap.s[at].finish != finish {
		q.heap.fix(at, finish, q.classPos)
	}
}

// Peek returns the item that Pop would return.
func (q *Queue[T]) Peek() (value T, cost float64, ok bool) {
	if q.len == 0 {
		return value, 0, false
	}
	it := &q.items.s[q.lanes.s[q.classes.s[q.heap.s[0].node].top].head]
	return it.value, it.cost, true
}

// Pop removes the item whose turn it is.
func (q *Queue[T]) Pop() (value T, ok bool) {
	if q.len == 0 {
		return value, false
	}
	c := &q.classes.s[q.heap.s[0].node]
	l := &q.lanes.s[c.top]
	i := l.head
	value = q.items.s[i].value
	q.v = max(q.v, q.heap.s[0].finish)
	c.v = max(c.v, c.heap.s[0].finish)
	c.start, l.start = q.v, c.v
	if c.v > maxVirtual {
		q.rewindClass(c)
	}
	if q.v > maxVirtual {
		q.rewind()
	}
	q.unlink(i)
	return value, true
}

// maxVirtual bounds virtual time, which would lose the fine digits of small costs otherwise: at 2^32,
// float64 still tells a millionth from nothing.
const maxVirtual = 1 << 32

// rewind sets virtual time back to 0. The order stays: all finishes move by the same amount.
func (q *Queue[T]) rewind() {
	for i := range q.heap.s {
		e := &q.heap.s[i]
		e.finish -= q.v
		q.classes.s[e.node].start -= q.v
	}
	q.v = 0
}

func (q *Queue[T]) rewindClass(c *class) {
	for i := range c.heap.s {
		e := &c.heap.s[i]
		e.finish -= c.v
		q.lanes.s[e.node].start -= c.v
	}
	c.v = 0
}

// Remove takes an item out of the queue before its turn. It costs nobody else anything: the virtual
// time does not advance. It returns false for a handle that is no longer queued.
func (q *Queue[T]) Remove(h Handle) (value T, ok bool) {
	i := h.index - 1
	if i < 0 || int(i) >= len(q.items.s) || q.items.s[i].gen != h.gen || h.gen&1 == 0 {
		return value, false
	}
	value = q.items.s[i].value
	q.unlink(i)
	return value, true
}

// Ahead estimates, for an item of that cost if it were pushed now, the tokens that will be popped
// before it when nothing else arrives: the backlog of its own key, what the other keys of its class are
// due until its virtual finish, and what the other classes are due until then. It is off by about one
// item for each of them. At most limit keys and limit classes are looked at; where there are more, all
// that they have queued is taken to be ahead.
func (q *Queue[T]) Ahead(key ClassKey, fairness string, cost float64, limit int) float64 {
	if q.len == 0 {
		return 0
	}
	hc := q.hashClass(key)
	own, start := 0.0, q.v
	mine := q.findClass(key, hc)
	if mine != none {
		start = q.classes.s[mine].start
		own = q.aheadInClass(mine, q.findLane(key, fairness, q.hashLane(hc, fairness)), cost, limit)
	}
	if len(q.heap.s) > limit+1 {
		return q.cost - q.classCost(mine) + own
	}
	finish := start + (own+cost)/key.Priority
	ahead := own
	for i := range q.heap.s {
		if n := q.heap.s[i].node; n != mine {
			c := &q.classes.s[n]
			ahead += min(c.cost, max(0, finish-c.start)*c.key.Priority)
		}
	}
	return ahead
}

func (q *Queue[T]) aheadInClass(class, mine int32, cost float64, limit int) float64 {
	c := &q.classes.s[class]
	if len(c.heap.s) > limit+1 {
		return c.cost
	}
	own, finish := 0.0, c.v+cost
	if mine != none {
		l := &q.lanes.s[mine]
		own = l.cost
		finish = l.start + own + cost
	}
	for i := range c.heap.s {
		if n := c.heap.s[i].node; n != mine {
			l := &q.lanes.s[n]
			own += min(l.cost, max(0, finish-l.start))
		}
	}
	return own
}

func (q *Queue[T]) classCost(c int32) float64 {
	if c == none {
		return 0
	}
	return q.classes.s[c].cost
}

// Each calls f with every item queued, class by class and lane by lane, not in the order of service. f
// must not change the queue.
func (q *Queue[T]) Each(f func(key ClassKey, fairness string, cost float64, value T)) {
	for i := range q.heap.s {
		c := &q.classes.s[q.heap.s[i].node]
		for j := range c.heap.s {
			l := &q.lanes.s[c.heap.s[j].node]
			for k := l.head; k != none; k = q.items.s[k].next {
				it := &q.items.s[k]
				f(c.key, l.key, it.cost, it.value)
			}
		}
	}
}

// unlink takes an item out of its lane and brings lane, class and queue up to date.
func (q *Queue[T]) unlink(i int32) {
	it := &q.items.s[i]
	n := it.lane
	l := &q.lanes.s[n]
	c := &q.classes.s[l.class]
	wasHead := l.head == i
	if it.prev != none {
		q.items.s[it.prev].next = it.next
	} else {
		l.head = it.next
	}
	if it.next != none {
		q.items.s[it.next].prev = it.prev
	} else {
		l.tail = it.prev
	}
	l.cost -= it.cost
	c.cost -= it.cost
	c.len--
	q.cost -= it.cost
	q.len--
	*it = item[T]{gen: it.gen + 1}
	q.items.put(i)
	if q.len == 0 {
		q.cost, q.v = 0, 0 // shed rounding errors
	}
	if !wasHead {
		return
	}
	at := l.class
	if l.head == none {
		c.heap.remove(q.lanePos[n], q.lanePos)
		q.dropLane(n)
	} else {
		c.heap.fix(q.lanePos[n], l.start+q.items.s[l.head].cost, q.lanePos)
	}
	if c.len == 0 {
		q.heap.remove(q.classPos[at], q.classPos)
		q.dropClass(at)
		return
	}
	q.newTop(at, false)
}

func (q *Queue[T]) hashClass(k ClassKey) uint32 {
	return mix(maphash.String(q.seed, k.Workload) ^ math.Float64bits(k.Priority))
}

func (q *Queue[T]) hashLane(class uint32, fairness string) uint32 {
	if fairness == "" {
		return ^class
	}
	return mix(maphash.String(q.seed, fairness) + uint64(class))
}

func mix(h uint64) uint32 { return uint32(h * 0x9e3779b97f4a7c15 >> 32) }

func (q *Queue[T]) findClass(k ClassKey, hash uint32) int32 {
	t := &q.classOf
	for at := t.home(uint64(hash) << 32); t.entries[at] != 0; at = t.next(at) {
		if e := t.entries[at]; uint32(e>>32) == hash && q.classes.s[uint32(e)-1].key == k {
			return int32(uint32(e) - 1)
		}
	}
	return none
}

func (q *Queue[T]) findLane(k ClassKey, fairness string, hash uint32) int32 {
	t := &q.laneOf
	for at := t.home(uint64(hash) << 32); t.entries[at] != 0; at = t.next(at) {
		if e := t.entries[at]; uint32(e>>32) == hash {
			l := &q.lanes.s[uint32(e)-1]
			if l.key == fairness && q.classes.s[l.class].key == k {
				return int32(uint32(e) - 1)
			}
		}
	}
	return none
}

func (q *Queue[T]) addClass(key ClassKey, hash uint32) int32 {
	i := q.classes.get()
	if int(i) == len(q.classPos) {
		q.classPos = append(q.classPos, 0)
	}
	c := &q.classes.s[i]
	*c = class{key: key, heap: c.heap, start: q.v, hash: hash}
	q.classOf.insert(hash, i)
	return i
}

// maxSpare bounds the heap that an unused class keeps for its next use.
const maxSpare = 64

func (q *Queue[T]) dropClass(i int32) {
	c := &q.classes.s[i]
	q.classOf.remove(c.hash, i)
	h := c.heap
	if cap(h.s) > maxSpare {
		h.s = nil
	}
	*c = class{heap: h}
	q.classes.put(i)
}

// addLane adds a lane to a class, not yet to its heap.
func (q *Queue[T]) addLane(class int32, key string, hash uint32) int32 {
	i := q.lanes.get()
	if int(i) == len(q.lanePos) {
		q.lanePos = append(q.lanePos, 0)
	}
	q.lanes.s[i] = lane{key: key, class: class, head: none, tail: none, hash: hash, start: q.classes.s[class].v}
	q.laneOf.insert(hash, i)
	return i
}

func (q *Queue[T]) dropLane(i int32) {
	q.laneOf.remove(q.lanes.s[i].hash, i)
	q.lanes.s[i] = lane{}
	q.lanes.put(i)
}
