// SPDX-License-Identifier: Apache-2.0

package circuit

// findLoops decides which in ports read the tick before. reads[v][p] is the node that in port p of node v
// reads from, or -1.
//
// What Compile promises comes to this: v reads u of the tick before when u is not before v, and a way along
// signals leads from v to u past no node before v. For as long as there is a node before v on every such
// circle, that one is the first of its strongly connected component and takes care of it.
func findLoops(reads [][]int) (looped [][]bool) {
	looped = make([][]bool, len(reads))
	readers := make([][]int, len(reads))
	for v := range reads {
		looped[v] = make([]bool, len(reads[v]))
		for _, u := range reads[v] {
			if u >= 0 {
				readers[u] = append(readers[u], v)
			}
		}
	}
	seen, wanted := make([]int, len(reads)), make([]int, len(reads)) // by node: v+1 of the last v they are of
	var path []int
	for v := range reads {
		left := 0 // producers to look for
		for _, u := range reads[v] {
			if u >= v && wanted[u] != v+1 {
				wanted[u] = v + 1
				left++
			}
		}
		if left == 0 {
			continue
		}
		seen[v] = v + 1
		for path = append(path[:0], v); len(path) > 0 && left > 0; {
			u := path[len(path)-1]
			path = path[:len(path)-1]
			if wanted[u] == v+1 {
				left--
			}
			for _, w := range readers[u] {
				if w > v && seen[w] != v+1 {
					seen[w] = v + 1
					path = append(path, w)
				}
			}
		}
		for port, u := range reads[v] {
			looped[v][port] = u >= v && seen[u] == v+1
		}
	}
	return looped
}

// order is the order in which nodes run: of those that have nothing to wait for, the first runs next (Kahn's
// algorithm).
//
// A looped port has to be read before its producer runs, or it would see this tick's value: that is
// something to wait for, too, in the other direction. It closes no circle: with the node that reads the tick
// before first, then what is left of its strongly connected component, part by part, an order exists.
func order(reads [][]int, looped [][]bool) []int {
	n := len(reads)
	waits, before := make([]int, n), make([][]int, n) // before[v]: nodes that wait for v
	for v := range reads {
		for port, w := range reads[v] {
			switch {
			case w < 0 || w == v:
			case looped[v][port]:
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
