// SPDX-License-Identifier: Apache-2.0

package wfq

import "slices"

// reference is the queue written for reading, not for speed: no heaps, no maps, no reuse. The rules are
// those of the package comment.
type reference struct {
	classes []*refClass // in the order of becoming active
	v       float64
}

type refClass struct {
	key      ClassKey
	lanes    []*refLane // in the order of becoming active
	start, v float64
}

type refLane struct {
	key   string
	items []refItem
	start float64
}

type refItem struct {
	cost float64
	id   int
}

func (l *refLane) finish() float64 { return l.start + l.items[0].cost }

func (c *refClass) next() *refLane {
	return slices.MinFunc(c.lanes, func(a, b *refLane) int { return compare(a.finish(), b.finish()) })
}

func (c *refClass) finish() float64 { return c.start + c.next().items[0].cost/c.key.Priority }

func (r *reference) next() *refClass {
	return slices.MinFunc(r.classes, func(a, b *refClass) int { return compare(a.finish(), b.finish()) })
}

// compare: slices.MinFunc returns the first of equals, which is who became active first.
func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (r *reference) push(key ClassKey, fairness string, cost float64, id int) {
	i := slices.IndexFunc(r.classes, func(c *refClass) bool { return c.key == key })
	if i < 0 {
		i = len(r.classes)
		r.classes = append(r.classes, &refClass{key: key, start: r.v})
	}
	c := r.classes[i]
	j := slices.IndexFunc(c.lanes, func(l *refLane) bool { return l.key == fairness })
	if j < 0 {
		j = len(c.lanes)
		c.lanes = append(c.lanes, &refLane{key: fairness, start: c.v})
	}
	c.lanes[j].items = append(c.lanes[j].items, refItem{cost, id})
}

func (r *reference) pop() (id int, ok bool) {
	if len(r.classes) == 0 {
		return 0, false
	}
	c := r.next()
	l := c.next()
	r.v = max(r.v, c.finish())
	c.v = max(c.v, l.finish())
	c.start, l.start = r.v, c.v
	id = l.items[0].id
	r.remove(id)
	return id, true
}

func (r *reference) remove(id int) bool {
	for _, c := range r.classes {
		for _, l := range c.lanes {
			if i := slices.IndexFunc(l.items, func(it refItem) bool { return it.id == id }); i >= 0 {
				l.items = slices.Delete(l.items, i, i+1)
				r.tidy()
				return true
			}
		}
	}
	return false
}

func (r *reference) tidy() {
	for _, c := range r.classes {
		c.lanes = slices.DeleteFunc(c.lanes, func(l *refLane) bool { return len(l.items) == 0 })
	}
	r.classes = slices.DeleteFunc(r.classes, func(c *refClass) bool { return len(c.lanes) == 0 })
	if len(r.classes) == 0 {
		r.v = 0
	}
}

func (r *reference) len() (n int) {
	for _, c := range r.classes {
		for _, l := range c.lanes {
			n += len(l.items)
		}
	}
	return n
}
