// SPDX-License-Identifier: Apache-2.0

// Package meter counts flows in histograms: the flux meters of policies.
//
// A Meter is resolved to a pointer when policies change, so that observing a flow is three atomic
// additions: no lock, no allocation, and no look-up but that of an HTTP status. The counters are split in stripes, which keeps cores from
// waiting for each other's cache lines.
package meter

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
)

// Attributes of every flow. Any other attribute is the label of that name, whose value has to be a number, or a
// number that whoever ends the flow reports under that name.
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
	spec    Spec
	stripes int
	// plain counts flows of which no HTTP status is known, by outcome.
	plain [outcomes]series

	mu       sync.Mutex                           // serialises additions to statuses
	statuses atomic.Pointer[map[statusKey]series] // copied on change; MaxStatuses at most
}

// series are the counters of one combination of labels, by stripe.
type series []cell

// statusKey tells series of flows with an HTTP status apart.
type statusKey struct {
	outcome Outcome
	status  int
}

// MaxStatuses bounds how many HTTP statuses a meter tells apart: whoever reports outcomes chooses them, and each
// costs memory and series. Flows with further ones count as flows without a status.
const MaxStatuses = 64

// cell counts flows of one series and stripe.
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
	m := &Meter{spec: spec, stripes: max(1, stripes)}
	for o := range m.plain {
		m.plain[o] = m.series()
	}
	m.statuses.Store(&map[statusKey]series{})
	return m, nil
}

func (m *Meter) series() series {
	s := make(series, m.stripes)
	for i := range s {
		s[i].buckets = make([]atomic.Uint64, len(m.spec.Bounds)+1)
	}
	return s
}

// of returns the series of a flow. An HTTP status decides about success, whatever else is said: up to 399 it is
// OK. A status that is none, 100 to 599, counts as not known.
func (m *Meter) of(o Outcome, status int) series {
	if status < 100 || status > 599 {
		return m.plain[o-1]
	}
	if o != Rejected {
		if o = OK; status >= 400 {
			o = Failed
		}
	}
	key, all := statusKey{o, status}, *m.statuses.Load()
	if s := all[key]; s != nil {
		return s
	}
	if len(all) >= MaxStatuses {
		return m.plain[o-1]
	}
	return m.add(key)
}

// add makes a series. Beyond MaxStatuses it is the one without a status.
func (m *Meter) add(key statusKey) series {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := *m.statuses.Load()
	if s := all[key]; s != nil {
		return s
	}
	if len(all) >= MaxStatuses {
		return m.plain[key.outcome-1]
	}
	all = maps.Clone(all)
	all[key] = m.series()
	m.statuses.Store(&all)
	return all[key]
}

// Spec is what the meter measures.
func (m *Meter) Spec() *Spec { return &m.spec }

// Observe counts a flow of which the attribute is v. A v that is not finite counts as invalid. status is the HTTP
// status of the flow's work; 0: not known. The stripe must be less than the number of stripes.
func (m *Meter) Observe(stripe int, o Outcome, status int, v float64) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		m.Invalid(stripe, o, status)
		return
	}
	c := &m.of(o, status)[stripe]
	c.buckets[sort.SearchFloat64s(m.spec.Bounds, v)].Add(1)
	for {
		old := c.sum.Load()
		if c.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// Invalid counts a flow that does not have the attribute, or has text there that is no number. status is as for
// Observe.
func (m *Meter) Invalid(stripe int, o Outcome, status int) { m.of(o, status)[stripe].invalid.Add(1) }

// Reading is the histogram of one series.
type Reading struct {
	// Outcome of the flows, and their HTTP Status; 0: not known.
	Outcome Outcome
	Status  int
	// Buckets has, for each bound, the flows that are not above it, and last all flows.
	Buckets []uint64
	Sum     float64
	Invalid uint64
}

// Read returns one series, with its stripes added up; status is as for Observe. Flows that are being observed
// meanwhile may be in a bucket and not yet in the sum. A series that is not there has no flows.
func (m *Meter) Read(o Outcome, status int) Reading {
	s := m.plain[o-1]
	if status != 0 {
		s = (*m.statuses.Load())[statusKey{o, status}]
	}
	return m.read(statusKey{o, status}, s)
}

// ReadAll returns every series: first those without a status, which are always there, then by status.
func (m *Meter) ReadAll() []Reading {
	var out []Reading
	for o := OK; o <= Rejected; o++ {
		out = append(out, m.Read(o, 0))
	}
	all := *m.statuses.Load()
	for _, key := range slices.SortedFunc(maps.Keys(all), func(a, b statusKey) int {
		return cmp.Or(cmp.Compare(a.status, b.status), cmp.Compare(a.outcome, b.outcome))
	}) {
		out = append(out, m.read(key, all[key]))
	}
	return out
}

func (m *Meter) read(key statusKey, s series) Reading {
	r := Reading{Outcome: key.outcome, Status: key.status, Buckets: make([]uint64, len(m.spec.Bounds)+1)}
	for i := range s {
		c := &s[i]
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
