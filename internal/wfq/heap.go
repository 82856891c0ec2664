// SPDX-License-Identifier: Apache-2.0

package wfq

// heap is a 4-ary min-heap of classes or lanes, known by their index. Where each one is goes into an
// array of the queue's, so that sifting touches two dense arrays and no node.
type heap struct {
	s []entry
}

// entry keeps the key beside the index, so that comparing touches one array only.
type entry struct {
	finish float64
	seq    uint64
	node   int32
}

func (a *entry) less(b *entry) bool {
	return a.finish < b.finish || a.finish == b.finish && a.seq < b.seq
}

const arity = 4

func (h *heap) push(e entry, pos []int32) {
	h.s = append(h.s, e)
	h.up(len(h.s)-1, pos)
}

// fix restores the order after the finish of the node at i became another.
func (h *heap) fix(i int32, finish float64, pos []int32) {
	h.s[i].finish = finish
	if !h.up(int(i), pos) {
		h.down(int(i), pos)
	}
}

func (h *heap) remove(i int32, pos []int32) {
	last := len(h.s) - 1
	h.s[i] = h.s[last]
	h.s = h.s[:last]
	if int(i) != last && !h.up(int(i), pos) {
		h.down(int(i), pos)
	}
}

func (h *heap) up(i int, pos []int32) (moved bool) {
	e := h.s[i]
	for i > 0 {
		parent := (i - 1) / arity
		if !e.less(&h.s[parent]) {
			break
		}
		h.s[i] = h.s[parent]
		pos[h.s[i].node] = int32(i)
		i, moved = parent, true
	}
	h.s[i] = e
	pos[e.node] = int32(i)
	return moved
}

func (h *heap) down(i int, pos []int32) {
	s := h.s
	e := s[i]
	for {
		first := i*arity + 1
		if first >= len(s) {
			break
		}
		best := first
		for c := first + 1; c < min(first+arity, len(s)); c++ {
			if s[c].less(&s[best]) {
				best = c
			}
		}
		if !s[best].less(&e) {
			break
		}
		s[i] = s[best]
		pos[s[i].node] = int32(i)
		i = best
	}
	s[i] = e
	pos[e.node] = int32(i)
}
