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
// it would start from V anyway. Memory is bounded by what is queued.
package wfq

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
	items   []item[T]
	free    int32 // 1 + index of the first free item; 0: none
	classes map[ClassKey]*class
	heap    heap[*class]
	v       float64 // virtual time: the finish of the item popped last
	seq     uint64
	len     int
	cost    float64
	spare   []*class
	spareF  []*lane
}

type item[T any] struct {
	value      T
	cost       float64
	lane       *lane
	prev, next int32 // within the lane; 1 + index, 0: none; next also links the free list
	gen        uint32
}

// lane is the FIFO of one fairness key of one class.
type lane struct {
	key        string
	class      *class
	head, tail int32 // 1 + index
	finish     float64
	start      float64
	seq        uint64
	pos        int
	cost       float64
}

// class is a set of lanes that share a weight.
type class struct {
	key    ClassKey
	lanes  map[string]*lane
	heap   heap[*lane]
	v      float64 // virtual time within the class
	start  float64 // virtual start of the head
	finish float64 // virtual finish of the head
	seq    uint64
	pos    int
	len    int
	cost   float64
}

// Len is the number of items queued.
func (q *Queue[T]) Len() int { return q.len }

// Cost is the sum of the costs of the items queued.
func (q *Queue[T]) Cost() float64 { return q.cost }

// ClassLen is the number of items queued in a class, and ClassCost below the sum of their costs.
func (q *Queue[T]) ClassLen(k ClassKey) int {
	if c := q.classes[k]; c != nil {
		return c.len
	}
	return 0
}

// Push queues an item. The cost must be finite and not negative.
func (q *Queue[T]) Push(key ClassKey, fairness string, cost float64, value T) Handle {
	i := q.alloc()
	it := &q.items[i-1]
	it.value, it.cost = value, cost
	c := q.classes[key]
	newClass := c == nil
	if newClass {
		c = q.addClass(key)
	}
	l := c.lanes[fairness]
	newLane := l == nil
	if newLane {
		l = q.addLane(c, fairness)
	}
	it.lane, it.prev, it.next = l, l.tail, 0
	if l.tail != 0 {
		q.items[l.tail-1].next = i
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
		l.start = c.v
		l.finish = l.start + cost
		c.heap.push(l)
	}
	switch {
	case newClass:
		c.start = q.v
		c.finish = c.start + q.headCost(c)/key.Priority
		q.heap.push(c)
	case newLane && c.heap.at(0) == l:
		q.reschedule(c) // the class has a new head
	}
	return Handle{i, it.gen}
}

// Peek returns the item that Pop would return.
func (q *Queue[T]) Peek() (value T, cost float64, ok bool) {
	if q.len == 0 {
		return value, 0, false
	}
	it := &q.items[q.heap.at(0).heap.at(0).head-1]
	return it.value, it.cost, true
}

// Pop removes the item whose turn it is.
func (q *Queue[T]) Pop() (value T, ok bool) {
	if q.len == 0 {
		return value, false
	}
	c := q.heap.at(0)
	l := c.heap.at(0)
	i := l.head
	value = q.items[i-1].value
	q.v = max(q.v, c.finish)
	c.v = max(c.v, l.finish)
	c.start = q.v
	l.start = c.v
	q.unlink(i)
	if q.len == 0 { // start afresh, so that virtual time stays small
		q.v = 0
	}
	return value, true
}

// Remove takes an item out of the queue before its turn. It costs nobody else anything: the virtual
// time does not advance. It returns false for a handle that is no longer queued.
func (q *Queue[T]) Remove(h Handle) (value T, ok bool) {
	if !q.valid(h) {
		return value, false
	}
	value = q.items[h.index-1].value
	q.unlink(h.index)
	return value, true
}

func (q *Queue[T]) valid(h Handle) bool {
	return h.index > 0 && int(h.index) <= len(q.items) &&
		q.items[h.index-1].gen == h.gen && q.items[h.index-1].lane != nil
}

// Ahead estimates, for an item of that cost if it were pushed now, the tokens that will be popped
// before it when nothing else arrives: the backlog of its own class in front of it, and what the other
// classes are due until its virtual finish. At most limit other classes are looked at; the rest are
// taken to be due their whole backlog.
func (q *Queue[T]) Ahead(key ClassKey, fairness string, cost float64, limit int) float64 {
	if q.len == 0 {
		return 0
	}
	own, start := 0.0, q.v
	c := q.classes[key]
	if c != nil {
		start = c.start
		laneCost := 0.0
		if l := c.lanes[fairness]; l != nil {
			laneCost = l.cost
		}
		lanes := float64(len(c.lanes))
		own = min(c.cost, (laneCost+cost)*lanes)
		if laneCost == 0 {
			own = min(c.cost, cost*lanes)
		}
	}
	finish := start + (own+cost)/key.Priority
	ahead := own
	for i := range q.heap.len() {
		d := q.heap.at(i)
		if d == c {
			continue
		}
		if i >= limit {
			return q.cost
		}
		ahead += min(d.cost, max(0, finish-d.start)*d.key.Priority)
	}
	return ahead
}

// Each calls f with every item queued, class by class and lane by lane, not in the order of service.
func (q *Queue[T]) Each(f func(key ClassKey, fairness string, cost float64, value T)) {
	for i := range q.heap.len() {
		c := q.heap.at(i)
		for j := range c.heap.len() {
			l := c.heap.at(j)
			for k := l.head; k != 0; k = q.items[k-1].next {
				it := &q.items[k-1]
				f(c.key, l.key, it.cost, it.value)
			}
		}
	}
}

// unlink takes item i (1-based) out of its lane and brings lane, class and queue up to date.
func (q *Queue[T]) unlink(i int32) {
	it := &q.items[i-1]
	l := it.lane
	c := l.class
	wasHead := l.head == i
	if it.prev != 0 {
		q.items[it.prev-1].next = it.next
	} else {
		l.head = it.next
	}
	if it.next != 0 {
		q.items[it.next-1].prev = it.prev
	} else {
		l.tail = it.prev
	}
	l.cost -= it.cost
	c.cost -= it.cost
	c.len--
	q.cost -= it.cost
	q.len--
	q.release(i)
	if q.len == 0 {
		q.cost = 0 // shed rounding errors
	}
	if !wasHead {
		return
	}
	if l.head == 0 {
		c.heap.remove(l.pos)
		q.dropLane(c, l)
	} else {
		l.finish = l.start + q.items[l.head-1].cost
		c.heap.fix(l.pos)
	}
	if c.len == 0 {
		q.heap.remove(c.pos)
		q.dropClass(c)
		return
	}
	q.reschedule(c)
}

// reschedule recomputes the finish of a class after its head changed.
func (q *Queue[T]) reschedule(c *class) {
	c.finish = c.start + q.headCost(c)/c.key.Priority
	q.heap.fix(c.pos)
}

func (q *Queue[T]) headCost(c *class) float64 { return q.items[c.heap.at(0).head-1].cost }

func (q *Queue[T]) alloc() int32 {
	if q.free == 0 {
		q.items = append(q.items, item[T]{gen: 1})
		return int32(len(q.items))
	}
	i := q.free
	q.free = q.items[i-1].next
	return i
}

func (q *Queue[T]) release(i int32) {
	it := &q.items[i-1]
	*it = item[T]{gen: it.gen + 1, next: q.free}
	q.free = i
}

// maxSpare bounds the empty classes and lanes kept for reuse.
const maxSpare = 64

func (q *Queue[T]) addClass(key ClassKey) *class {
	if q.classes == nil {
		q.classes = make(map[ClassKey]*class)
	}
	c := &class{lanes: make(map[string]*lane, 1)}
	if n := len(q.spare); n > 0 {
		c, q.spare = q.spare[n-1], q.spare[:n-1]
	}
	q.seq++
	c.key, c.seq = key, q.seq
	q.classes[key] = c
	return c
}

func (q *Queue[T]) dropClass(c *class) {
	delete(q.classes, c.key)
	if len(q.spare) < maxSpare && len(c.lanes) == 0 && cap(c.heap.s) <= maxSpare {
		*c = class{lanes: c.lanes, heap: c.heap}
		q.spare = append(q.spare, c)
	}
}

func (q *Queue[T]) addLane(c *class, key string) *lane {
	l := new(lane)
	if n := len(q.spareF); n > 0 {
		l, q.spareF = q.spareF[n-1], q.spareF[:n-1]
	}
	q.seq++
	l.key, l.class, l.seq = key, c, q.seq
	c.lanes[key] = l
	return l
}

func (q *Queue[T]) dropLane(c *class, l *lane) {
	delete(c.lanes, l.key)
	*l = lane{}
	if len(q.spareF) < maxSpare {
		q.spareF = append(q.spareF, l)
	}
}
