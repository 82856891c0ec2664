// SPDX-License-Identifier: Apache-2.0

package circuit

import "slices"

// order decides on the order in which nodes run. reads[i][p] is the node that in port p of node i reads
// from, or -1. It sets looped[i][p] for ports that read the tick before.
//
// A looped port has to be read before its producer runs, or it would see this tick's value: those are
// edges of the graph, too, in the other direction. They close no circle: with the node that reads the tick
// before first, then what is left of its strongly connected component, part by part, an order exists.
func order(n int, reads [][]int, looped [][]bool) []int {
	l := loops{reads: reads, looped: looped, part: make([]int, n), state: make([]visit, n), next: make([]int, n)}
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	for work := [][]int{all}; len(work) > 0; {
		nodes := work[len(work)-1]
		work = work[:len(work)-1]
		for _, part := range l.split(nodes) {
			if rest := l.cut(part); len(rest) > 0 {
				work = append(work, rest)
			}
		}
	}
	return l.sort()
}

// loops finds strongly connected components of parts of a graph.
type loops struct {
	reads  [][]int
	looped [][]bool
	// part tells which nodes are looked at: those with the number current.
	part    []int
	current int

	// Tarjan's algorithm, without recursion: a chain of nodes may be as long as a document.
	state []visit
	next  []int // in port to follow next
	stack []int
	path  []int
	count int
}

// visit is what Tarjan's algorithm knows about a node; zero: not visited.
type visit struct {
	index, low int
	onStack    bool
}

// edge returns the node that a port reads from in this tick, within the part looked at.
func (l *loops) edge(node, port int) (int, bool) {
	from := l.reads[node][port]
	return from, from >= 0 && !l.looped[node][port] && l.part[from] == l.current
}

// split returns the strongly connected components of the graph of nodes that have a circle in them.
func (l *loops) split(nodes []int) (parts [][]int) {
	l.current++
	for _, v := range nodes {
		l.part[v], l.state[v], l.next[v] = l.current, visit{}, 0
	}
	l.count = 0
	for _, v := range nodes {
		if l.state[v].index == 0 {
			l.enter(v)
		}
		for len(l.path) > 0 {
			if part := l.advance(); part != nil {
				parts = append(parts, part)
			}
		}
	}
	return parts
}

func (l *loops) enter(v int) {
	l.count++
	l.state[v] = visit{index: l.count, low: l.count, onStack: true}
	l.stack = append(l.stack, v)
	l.path = append(l.path, v)
}

// advance follows one edge from the end of the path, or leaves it. It returns a component with a circle
// when one is complete.
func (l *loops) advance() []int {
	v := l.path[len(l.path)-1]
	for l.next[v] < len(l.reads[v]) {
		port := l.next[v]
		l.next[v]++
		w, ok := l.edge(v, port)
		switch {
		case !ok:
		case l.state[w].index == 0:
			l.enter(w)
			return nil
		case l.state[w].onStack:
			l.state[v].low = min(l.state[v].low, l.state[w].index)
		}
	}
	l.path = l.path[:len(l.path)-1]
	if len(l.path) > 0 {
		before := l.path[len(l.path)-1]
		l.state[before].low = min(l.state[before].low, l.state[v].low)
	}
	if l.state[v].low != l.state[v].index {
		return nil
	}
	at := len(l.stack) - 1
	for l.stack[at] != v {
		at--
	}
	part := slices.Clone(l.stack[at:])
	l.stack = l.stack[:at]
	for _, w := range part {
		l.state[w].onStack = false
	}
	if len(part) == 1 && !l.readsItself(v) {
		return nil
	}
	return part
}

func (l *loops) readsItself(v int) bool {
	for port := range l.reads[v] {
		if w, ok := l.edge(v, port); ok && w == v {
			return true
		}
	}
	return false
}

// cut lets the first node of a strongly connected component read the others of the tick before, and
// returns the others.
func (l *loops) cut(part []int) []int {
	slices.Sort(part)
	l.current++
	for _, v := range part {
		l.part[v] = l.current
	}
	first := part[0]
	for port := range l.reads[first] {
		if _, ok := l.edge(first, port); ok {
			l.looped[first][port] = true
		}
	}
	return part[1:]
}

// sort is Kahn's algorithm: of the nodes that have nothing to wait for, the lowest runs next.
func (l *loops) sort() []int {
	n := len(l.reads)
	waits, before := make([]int, n), make([][]int, n) // before[v]: nodes that wait for v
	for v := range l.reads {
		for port, w := range l.reads[v] {
			switch {
			case w < 0 || w == v:
			case l.looped[v][port]:
				before[v] = append(before[v], w)
				waits[w]++
			default:
				before[w] = append(before[w], v)
				waits[v]++
			}
		}
	}
	var ready lowest
	for v := range n {
		if waits[v] == 0 {
			ready.push(v)
		}
	}
	sorted := make([]int, 0, n)
	for len(ready) > 0 {
		v := ready.pop()
		sorted = append(sorted, v)
		for _, w := range before[v] {
			if waits[w]--; waits[w] == 0 {
				ready.push(w)
			}
		}
	}
	return sorted
}

// lowest is a heap whose first number is the lowest.
type lowest []int

func (h *lowest) push(v int) {
	*h = append(*h, v)
	s := *h
	for i := len(s) - 1; i > 0; {
		parent := (i - 1) / 2
		if s[parent] <= s[i] {
			return
		}
		s[parent], s[i] = s[i], s[parent]
		i = parent
	}
}

func (h *lowest) pop() int {
	s := *h
	v, last := s[0], len(s)-1
	s[0] = s[last]
	s = s[:last]
	*h = s
	for i := 0; ; {
		child := 2*i + 1
		if child+1 < len(s) && s[child+1] < s[child] {
			child++
		}
		if child >= len(s) || s[i] <= s[child] {
			return v
		}
		s[i], s[child] = s[child], s[i]
		i = child
	}
}
