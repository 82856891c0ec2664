// SPDX-License-Identifier: Apache-2.0

package circuit

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Circuit is a compiled circuit and its state. It is used by one goroutine at a time.
type Circuit struct {
	interval time.Duration
	nodes    []Node
	signals  []Signal
	index    map[Signal]int
	looped   [][]bool
	config   map[string]any // what the components are configured with

	tick   Tick
	steps  []step
	values []float64   // by signal
	in     [][]float64 // by node
}

// step is a node, ready to run.
type step struct {
	component Component
	in, out   []float64
	reads     []wire // signals to copy to in before
	writes    []wire // signals to copy from out afterwards; none when out is where they are
}

// wire connects a port with a signal.
type wire struct{ port, slot int32 }

// Tick runs every node once. now is the time of the tick; the caller sees to it that it does not step back.
// It does not allocate.
func (c *Circuit) Tick(now time.Time) {
	c.tick.Now, c.tick.Interval = now, c.interval
	for i := range c.steps {
		s := &c.steps[i]
		for _, w := range s.reads {
			s.in[w.port] = c.values[w.slot]
		}
		if s.component == nil {
			continue
		}
		for j := range s.out {
			s.out[j] = math.NaN()
		}
		s.component.Step(&c.tick, s.in, s.out)
		for _, w := range s.writes {
			c.values[w.slot] = s.out[w.port]
		}
	}
	c.tick.Count++
}

// Count is the number of ticks so far.
func (c *Circuit) Count() uint64 { return c.tick.Count }

// Interval is the time from one tick to the next.
func (c *Circuit) Interval() time.Duration { return c.interval }

// Nodes are the nodes that the circuit was compiled from. The caller must not change them.
func (c *Circuit) Nodes() []Node { return c.nodes }

// Signals are the signals of the circuit, in the order of Values. The caller must not change them.
func (c *Circuit) Signals() []Signal { return c.signals }

// Index finds a signal in Signals and Values.
func (c *Circuit) Index(s Signal) (int, bool) {
	i, ok := c.index[s]
	return i, ok
}

// Values are the readings of the last tick, in the order of Signals; NaN before the first. The slice is
// the circuit's own: copy what has to outlive the next tick, and do not change it.
func (c *Circuit) Values() []float64 { return c.values }

// In is what a node, by its position in Nodes, read in the last tick, in the order of its in ports. The
// slice is the circuit's own, like that of Values.
func (c *Circuit) In(node int) []float64 { return c.in[node] }

// Looped reports whether an in port, by its position in the ports of a node, reads the tick before.
func (c *Circuit) Looped(node, port int) bool { return c.looped[node][port] }

// Configure gives dynamic configuration to every component that is Configurable. When one of them refuses
// it, all keep what they had, and the error names every node that refused. Values that lookup returned
// must not be changed afterwards.
func (c *Circuit) Configure(lookup func(key string) (value any, ok bool)) error {
	config := map[string]any{}
	problems := c.configure(func(key string) (any, bool) {
		value, ok := lookup(key)
		if ok {
			config[key] = value
		}
		return value, ok
	})
	if len(problems) == 0 {
		c.config = config
		return nil
	}
	before := c.configure(func(key string) (any, bool) {
		value, ok := c.config[key]
		return value, ok
	})
	return errors.Join(append(problems, before...)...) // before is empty: it was accepted once
}

func (c *Circuit) configure(lookup func(key string) (any, bool)) (problems []error) {
	for i := range c.nodes {
		if component, ok := c.nodes[i].Component.(Configurable); ok {
			if err := component.Configure(lookup); err != nil {
				problems = append(problems, fmt.Errorf("%s (%s): %w", c.nodes[i].ID, c.nodes[i].Kind, err))
			}
		}
	}
	return problems
}
