// SPDX-License-Identifier: Apache-2.0

// Package meter counts flows in histograms: the flux meters of policies.
//
// A Meter is resolved to a pointer when policies change, so that observing a flow is three atomic
// additions: no look-up, no lock, no allocation. The counters are split in stripes, which keeps cores from
// waiting for each other's cache lines.
package meter

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"sort"
	"sync/atomic"
)

// Attributes of a flow that are not labels. Any other attribute is the label of that name, whose value has
// to be a number.
const (
	// WorkloadDuration is how long the work of the flow took, without its time in queues, in milliseconds.
	WorkloadDuration = "workload_duration_ms"
	// FlowDuration is the time from asking for admission to the end of the flow, in milliseconds.
	FlowDuration = "flow_duration_ms"
)

// Spec is a flux meter of a policy. It does not change after a Meter was made of it.
type Spec struct {
	// Policy and Name tell meters apart: two policies may have meters of one name.
	Policy, Name string
	// Attribute is what is measured: WorkloadDuration, FlowDuration or a label.
	Attribute string
	// Bounds are the upper bounds of the buckets, increasing, finite; MaxBuckets at most. Everything larger
	// is in one bucket more.
	Bounds []float64
}

// MaxBuckets bounds the buckets of one meter.
const MaxBuckets = 1000

// ID names the meter in flow tokens. It is the same in every process; two meters share one with a
// probability of one in four billion.
func (s *Spec) ID() uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(s.Policy))
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(s.Name))
	return h.Sum32()
}

// Same tells whether a meter of one spec can go on under the other: it counts the same things in the same
// buckets.
func (s *Spec) Same(o *Spec) bool {
	return s.Policy == o.Policy && s.Name == o.Name && s.Attribute == o.Attribute && slices.Equal(s.Bounds, o.Bounds)
}

// Validate says what is wrong with a spec.
func (s *Spec) Validate() error {
	switch {
	case s.Policy == "" || s.Name == "":
		return errors.New("a flux meter needs a policy and a name")
	case s.Attribute == "":
		return fmt.Errorf("flux meter %s: attribute_key is empty; expected %s, %s or a label", s.Name, WorkloadDuration, FlowDuration)
	case len(s.Bounds) == 0 || len(s.Bounds) > MaxBuckets:
		return fmt.Errorf("flux meter %s has %d buckets, expected 1 to %d", s.Name, len(s.Bounds), MaxBuckets)
	}
	for i, b := range s.Bounds {
		if math.IsNaN(b) || math.IsInf(b, 0) {
			return fmt.Errorf("flux meter %s: bucket %d ends at %v, expected a finite number", s.Name, i, b)
		}
		if i > 0 && b <= s.Bounds[i-1] {
			return fmt.Errorf("flux meter %s: bucket %d ends at %v, expected more than the %v before it: use larger steps", s.Name, i, b, s.Bounds[i-1])
		}
	}
	return nil
}

// Linear returns bounds of equal distance: start, start+width, …
func Linear(start, width float64, count int) []float64 {
	out := make([]float64, max(0, count))
	for i := range out {
		out[i] = start + float64(i)*width
	}
	return out
}

// Exponential returns bounds that grow by a factor: start, start·factor, …
func Exponential(start, factor float64, count int) []float64 {
	out := make([]float64, max(0, count))
	for i := range out {
		out[i] = start * math.Pow(factor, float64(i))
	}
	return out
}

// ExponentialRange returns bounds that grow by the factor which leads from lowest to highest. With a
// single bucket that is lowest.
func ExponentialRange(lowest, highest float64, count int) []float64 {
	if count <= 1 {
		return Exponential(lowest, 1, count)
	}
	out := Exponential(lowest, math.Pow(highest/lowest, 1/float64(count-1)), count)
	out[count-1] = highest // as asked for, whatever rounding made of it
	return out
}

// Outcome is what became of a flow.
type Outcome uint8

// The outcomes. Zero is none.
const (
	_        Outcome = iota
	OK               // admitted, and its work succeeded
	Failed           // admitted, and its work failed
	Rejected         // not admitted
	outcomes = iota - 1
)

// Meter is a histogram of what one Spec measures. All methods may be called concurrently.
type Meter struct {
	spec  Spec
	cells [outcomes][]cell // by stripe
}

// cell counts flows of one outcome and stripe.
type cell struct {
	buckets []atomic.Uint64 // one more than there are bounds
	sum     atomic.Uint64   // bits of a float64
	invalid atomic.Uint64
	_       [24]byte
}

// New makes a meter with nothing in it. stripes is how many ways its counters are split; at least 1.
func New(spec Spec, stripes int) (*Meter, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	m := &Meter{spec: spec}
	for o := range m.cells {
		m.cells[o] = make([]cell, max(1, stripes))
		for i := range m.cells[o] {
			m.cells[o][i].buckets = make([]atomic.Uint64, len(spec.Bounds)+1)
		}
	}
	return m, nil
}

// Spec is what the meter measures.
func (m *Meter) Spec() *Spec { return &m.spec }

// Observe counts a flow of which the attribute is v. A v that is not finite counts as invalid. The stripe
// must be less than the number of stripes.
func (m *Meter) Observe(stripe int, o Outcome, v float64) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		m.Invalid(stripe, o)
		return
	}
	c := &m.cells[o-1][stripe]
	c.buckets[sort.SearchFloat64s(m.spec.Bounds, v)].Add(1)
	for {
		old := c.sum.Load()
		if c.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// Invalid counts a flow that does not have the attribute, or has text there that is no number.
func (m *Meter) Invalid(stripe int, o Outcome) { m.cells[o-1][stripe].invalid.Add(1) }

// Reading is the histogram of one outcome.
type Reading struct {
	// Buckets has, for each bound, the flows that are not above it, and last all flows.
	Buckets []uint64
	Sum     float64
	Invalid uint64
}

// Read adds up the stripes. Flows that are being observed meanwhile may be in a bucket and not yet in the
// sum.
func (m *Meter) Read(o Outcome) Reading {
	r := Reading{Buckets: make([]uint64, len(m.spec.Bounds)+1)}
	for i := range m.cells[o-1] {
		c := &m.cells[o-1][i]
		for b := range c.buckets {
			r.Buckets[b] += c.buckets[b].Load()
		}
		r.Sum += math.Float64frombits(c.sum.Load())
		r.Invalid += c.invalid.Load()
	}
	for b := 1; b < len(r.Buckets); b++ {
		r.Buckets[b] += r.Buckets[b-1]
	}
	return r
}
