// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sluice-project/sluice/internal/meter"
	"github.com/sluice-project/sluice/internal/policy"
)

// MeterSpec is one flux meter of one policy, compiled. It does not change after it was published.
type MeterSpec struct {
	meter.Spec
	// Selectors say which flows are measured: those that match any of them.
	Selectors []Selector
}

// FromFluxMeters compiles the flux meters among the resources of a policy, in the order of their names.
func FromFluxMeters(name string, meters map[string]policy.FluxMeter) ([]*MeterSpec, error) {
	var out []*MeterSpec
	for _, key := range slices.Sorted(maps.Keys(meters)) {
		m := meters[key]
		s := &MeterSpec{Spec: meter.Spec{Policy: name, Name: key, Attribute: m.AttributeKey, Bounds: bounds(&m)}}
		var err error
		if s.Selectors, err = fromSelectors(m.Selectors); err != nil {
			return nil, fmt.Errorf("flux meter %s: %w", key, err)
		}
		if err := s.Validate(); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// defaultBounds are those of a meter that names no buckets, in milliseconds.
var defaultBounds = []float64{5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000}

func bounds(m *policy.FluxMeter) []float64 {
	switch {
	case m.LinearBuckets != nil:
		b := m.LinearBuckets
		return meter.Linear(b.Start, b.Width, int(b.Count))
	case m.ExponentialBuckets != nil:
		b := m.ExponentialBuckets
		return meter.Exponential(b.Start, b.Factor, int(b.Count))
	case m.ExponentialBucketsRange != nil:
		b := m.ExponentialBucketsRange
		return meter.ExponentialRange(b.Min, b.Max, int(b.Count))
	case m.StaticBuckets != nil && len(m.StaticBuckets.Buckets) > 0:
		return slices.Clone(m.StaticBuckets.Buckets)
	}
	return slices.Clone(defaultBounds)
}

// gauge is a flux meter as seen from one control point: its attribute has become a slot.
type gauge struct {
	meter *meter.Meter
	id    uint32
	what  attribute
	slot  int // of the label
}

// attribute says what a meter measures.
type attribute uint8

const (
	attributeWork attribute = iota
	attributeFlow
	attributeLabel
)

func attributeOf(key string) attribute {
	switch key {
	case meter.WorkloadDuration:
		return attributeWork
	case meter.FlowDuration:
		return attributeFlow
	}
	return attributeLabel
}

// eachGauge calls f with the meters that select the flow.
func (f *Flow) eachGauge(do func(*gauge)) {
	if len(f.bits) == 0 { // a request that made no sense was not matched
		return
	}
	first := len(f.point.stages)
	for i := range f.point.gauges {
		if at := first + i; f.bits[at>>6]&(1<<(at&63)) != 0 {
			do(&f.point.gauges[i])
		}
	}
}

// measured reads what a meter measures of an ended flow from its labels; ok is false when there is no
// number.
func (f *Flow) measured(g *gauge) (v float64, ok bool) {
	text := f.values[g.slot]
	if !text.Present {
		return 0, false
	}
	return parseNumber(text.Text)
}

// observeEnd shows an ended flow to the meters that select it.
func (f *Flow) observeEnd(t timing, o meter.Outcome) {
	f.eachGauge(func(g *gauge) {
		v, ok := t.of(g.what), true
		if g.what == attributeLabel {
			v, ok = f.measured(g)
		}
		g.observe(f.stripe, o, v, ok)
	})
}

// observeVerdict shows a flow to its meters that nobody will end: it was denied, or is a NoEnd one. Its
// work has no duration then.
func (f *Flow) observeVerdict(o meter.Outcome) {
	now := f.engine.authority.Now()
	f.eachGauge(func(g *gauge) {
		switch g.what {
		case attributeWork:
			g.meter.Invalid(f.stripe, o)
		case attributeFlow:
			g.observe(f.stripe, o, milliseconds(max(0, now.Sub(f.started))), o == meter.Rejected)
		case attributeLabel:
			v, ok := f.measured(g)
			g.observe(f.stripe, o, v, ok)
		}
	})
}

func (g *gauge) observe(stripe int, o meter.Outcome, v float64, ok bool) {
	if !ok {
		g.meter.Invalid(stripe, o)
		return
	}
	g.meter.Observe(stripe, o, v)
}

// timing is how long an ended flow took.
type timing struct {
	work, flow time.Duration
}

// of is the attribute in milliseconds; 0 for labels.
func (t timing) of(what attribute) float64 {
	switch what {
	case attributeWork:
		return milliseconds(t.work)
	case attributeFlow:
		return milliseconds(t.flow)
	}
	return 0
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// reading is what a flux meter knows of a flow that only its token tells of.
type reading struct {
	meter *meter.Meter
	what  attribute
	value float64 // of a label
	ok    bool    // there is a value
}

func (r *reading) observe(stripe int, t timing, o meter.Outcome) {
	v, ok := t.of(r.what), true
	if r.what == attributeLabel {
		v, ok = r.value, r.ok
	}
	if !ok {
		r.meter.Invalid(stripe, o)
		return
	}
	r.meter.Observe(stripe, o, v)
}
