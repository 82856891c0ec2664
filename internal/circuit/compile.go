// SPDX-License-Identifier: Apache-2.0

package circuit

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Compile wires nodes up and decides on the order in which they run. It keeps nodes and their components,
// which belong to the circuit from then on.
//
// Errors name the node and the port: an interval that is not more than 0, a signal that nothing produces,
// a signal that two out ports produce. All of them are in the one error returned.
//
// A node without a component reads its ports and leaves the signals it produces, if any, invalid.
//
// Loops: of every set of nodes that read each other's signals in a circle (a strongly connected component
// of the graph), the node that comes first in nodes reads from the others what they gave out in the tick
// before; in the first tick that is invalid. What is then still a circle is treated in the same way.
func Compile(interval time.Duration, nodes []Node) (*Circuit, error) {
	c := &Circuit{interval: interval, nodes: nodes, index: map[Signal]int{}}
	var problems []error
	if interval <= 0 {
		problems = append(problems, fmt.Errorf("evaluation interval: got %s, want more than 0s", interval))
	}
	producers, errs := c.produce()
	problems = append(problems, errs...)
	problems = append(problems, c.connect()...)
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	reads := c.reads(producers)
	c.looped = findLoops(reads)
	c.assemble(order(reads, c.looped))
	return c, nil
}

// produce gives every signal a slot, those of one node side by side, and returns the node that produces it.
func (c *Circuit) produce() (producers []int, problems []error) {
	for i := range c.nodes {
		for _, out := range c.nodes[i].Out {
			if out.Signal.Name == "" {
				continue
			}
			if slot, taken := c.index[out.Signal]; taken {
				problems = append(problems, fmt.Errorf("%s (%s): out port %q: signal %s has a producer already, %s; choose another name",
					c.nodes[i].ID, c.nodes[i].Kind, out.Port, out.Signal, c.nodes[producers[slot]].ID))
				continue
			}
			c.index[out.Signal] = len(c.signals)
			c.signals = append(c.signals, out.Signal)
			producers = append(producers, i)
		}
	}
	return producers, problems
}

// connect refuses in ports that read signals without a producer.
func (c *Circuit) connect() (problems []error) {
	for i := range c.nodes {
		for _, in := range c.nodes[i].In {
			if _, known := c.index[in.Signal]; !known && in.Signal.Name != "" {
				problems = append(problems, fmt.Errorf("%s (%s): in port %q: no component produces the signal %s",
					c.nodes[i].ID, c.nodes[i].Kind, in.Port, in.Signal))
			}
		}
	}
	return problems
}

// reads returns for each in port of each node the node it reads from, or -1 for a constant.
func (c *Circuit) reads(producers []int) [][]int {
	reads := make([][]int, len(c.nodes))
	for i := range c.nodes {
		reads[i] = make([]int, len(c.nodes[i].In))
		for j, in := range c.nodes[i].In {
			reads[i][j] = -1
			if in.Signal.Name != "" {
				reads[i][j] = producers[c.index[in.Signal]]
			}
		}
	}
	return reads
}

// assemble lays the memory of the circuit out and turns nodes into steps, in the order given.
func (c *Circuit) assemble(order []int) {
	ins, outs, wires := 0, 0, 0
	for i := range c.nodes {
		ins += len(c.nodes[i].In)
		outs += len(c.nodes[i].Out)
		wires += len(c.nodes[i].In) + len(c.nodes[i].Out)
	}
	c.values = invalid(len(c.signals))
	inputs, scratch, all := invalid(ins), invalid(outs), make([]wire, 0, wires)
	c.in = make([][]float64, len(c.nodes))
	c.steps = make([]step, 0, len(order))
	for _, i := range order { // in this order, so that a tick goes through memory once
		n := &c.nodes[i]
		s := step{component: n.Component}
		s.in, inputs = cut(inputs, len(n.In))
		c.in[i] = s.in
		from := len(all)
		for j, in := range n.In {
			if in.Signal.Name == "" {
				s.in[j] = in.Constant
				continue
			}
			all = append(all, wire{port: int32(j), slot: int32(c.index[in.Signal])})
		}
		s.reads = all[from:len(all):len(all)]
		from = len(all)
		for j, out := range n.Out {
			if out.Signal.Name != "" {
				all = append(all, wire{port: int32(j), slot: int32(c.index[out.Signal])})
			}
		}
		if writes := all[from:]; len(writes) > 0 && len(writes) == len(n.Out) { // write to the slots themselves
			first := int(writes[0].slot)
			s.out = c.values[first : first+len(n.Out) : first+len(n.Out)]
			all = all[:from]
		} else {
			s.out, scratch = cut(scratch, len(n.Out))
			s.writes = all[from:len(all):len(all)]
		}
		c.steps = append(c.steps, s)
	}
}

// cut takes n numbers from the front.
func cut(from []float64, n int) (front, rest []float64) { return from[:n:n], from[n:] }

func invalid(n int) []float64 {
	s := make([]float64, n)
	for i := range s {
		s[i] = math.NaN()
	}
	return s
}
