// SPDX-License-Identifier: Apache-2.0

package wfq

// node is what a heap orders: it knows its key and is told its place.
type node interface {
	*class | *lane
	order() (finish float64, seq uint64)
	moved(pos int)
}

func (c *class) order() (float64, uint64) { return c.finish, c.seq }
func (c *class) moved(pos int)            { c.pos = pos }
func (l *lane) order() (float64, uint64)  { return l.finish, l.seq }
func (l *lane) moved(pos int)             { l.pos = pos }

// entry keeps the key beside the pointer, so that comparing touches one array only.
type entry[N node] struct {
	finish float64
	seq    uint64
	node   N
}

// heap is a 4-ary min-heap that tells its nodes where they are. container/heap would cost an interface
// call per comparison, which is most of the time spent here.
type heap[N node] struct {
	s []entry[N]
}

const arity = 4

func (h *heap[N]) len() int   { return len(h.s) }
func (h *heap[N]) at(i int) N { return h.s[i].node }

func (h *heap[N]) push(n N) {
	f, seq := n.order()
	h.s = append(h.s, entry[N]{f, seq, n})
	h.up(len(h.s) - 1)
}

// fix restores the order after the key of the node at i changed.
func (h *heap[N]) fix(i int) {
	h.s[i].finish, h.s[i].seq = h.s[i].node.order()
	if !h.up(i) {
		h.down(i)
	}
}

func (h *heap[N]) remove(i int) {
	last := len(h.s) - 1
	if i != last {
		h.s[i] = h.s[last]
		h.s[i].node.moved(i)
	}
	h.s[last] = entry[N]{}
	h.s = h.s[:last]
	if i != last && !h.up(i) {
		h.down(i)
	}
}

func less[N node](a, b *entry[N]) bool {
	return a.finish < b.finish || a.finish == b.finish && a.seq < b.seq
}

func (h *heap[N]) up(i int) (moved bool) {
	e := h.s[i]
	for i > 0 {
		parent := (i - 1) / arity
		if !less(&e, &h.s[parent]) {
			break
		}
		h.s[i] = h.s[parent]
		h.s[i].node.moved(i)
		i, moved = parent, true
	}
	h.s[i] = e
	e.node.moved(i)
	return moved
}

func (h *heap[N]) down(i int) {
	e := h.s[i]
	n := len(h.s)
	for {
		first := i*arity + 1
		if first >= n {
			break
		}
		best := first
		for c := first + 1; c < min(first+arity, n); c++ {
			if less(&h.s[c], &h.s[best]) {
				best = c
			}
		}
		if !less(&h.s[best], &e) {
			break
		}
		h.s[i] = h.s[best]
		h.s[i].node.moved(i)
		i = best
	}
	h.s[i] = e
	e.node.moved(i)
}
