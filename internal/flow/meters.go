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

// measured reads what a meter measures of a flow from its labels as they were at the start. known is false when
// there is no such label, and then the outcome may tell; ok is false when there is no number.
func (f *Flow) measured(g *gauge) (v float64, known, ok bool) {
	text := f.values[g.slot]
	if !text.Present {
		return 0, false, false
	}
	v, ok = parseNumber(text.Text)
	return v, true, ok
}

// observeEnd shows an ended flow to the meters that select it.
func (f *Flow) observeEnd(e *ending) {
	f.eachGauge(func(g *gauge) {
		r := reading{meter: g.meter, what: g.what}
		if g.what == attributeLabel {
			r.value, r.known, r.ok = f.measured(g)
		}
		r.observe(f.stripe, e)
	})
}

// observeVerdict shows a flow to its meters that nobody will end: it was denied, or is a NoEnd one. Its
// work has no duration then.
func (f *Flow) observeVerdict(o meter.Outcome) {
	now := f.engine.authority.Now()
	f.eachGauge(func(g *gauge) {
		v, ok := 0.0, false
		switch g.what {
		case attributeFlow:
			v, ok = milliseconds(max(0, now.Sub(f.started))), o == meter.Rejected
		case attributeLabel:
			v, _, ok = f.measured(g)
		}
		if !ok {
			g.meter.Invalid(f.stripe, o, 0)
			return
		}
		g.meter.Observe(f.stripe, o, 0, v)
	})
}

// ending is what flux meters see of the end of a flow.
type ending struct {
	work, flow time.Duration
	outcome    meter.Outcome
	status     int // HTTP; 0: not known
	attributes map[string]float64
}

// workTime is how long the work of a flow took that held what it was charged for that long. What the outcome says
// wins.
func (o *Outcome) workTime(held time.Duration) time.Duration {
	if o.Duration > 0 {
		return min(o.Duration, longestWork)
	}
	if len(o.Attributes) > 0 {
		if d, ok := duration(o.Attributes[meter.WorkloadDuration]); ok {
			return d
		}
	}
	return held
}

// observe shows an ended flow to its meters. age is the time since it was asked for.
func (h *holding) observe(o *Outcome, work, age time.Duration) {
	e := ending{work: work, flow: age, outcome: meter.OK, status: o.HTTPStatus, attributes: o.Attributes}
	if d, ok := duration(o.Attributes[meter.FlowDuration]); ok {
		e.flow = d
	}
	if o.Failed {
		e.outcome = meter.Failed
	}
	if h.flow != nil {
		h.flow.observeEnd(&e)
	}
	if h.token != nil {
		for i := range h.token.read {
			h.token.read[i].observe(h.stripe, &e)
		}
	}
}

// duration reads milliseconds; ok is false for what is no duration, and for 0, which says nothing.
func duration(ms float64) (d time.Duration, ok bool) {
	if !(ms > 0) {
		return 0, false
	}
	if ms >= milliseconds(longestWork) {
		return longestWork, true
	}
	return time.Duration(ms * float64(time.Millisecond)), true
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// reading is what a flux meter knows of a flow before its end.
type reading struct {
	meter *meter.Meter
	what  attribute
	value float64 // of a label
	known bool    // the label is there
	ok    bool    // and is a number
}

func (r *reading) observe(stripe int, e *ending) {
	v, ok := 0.0, true
	switch r.what {
	case attributeWork:
		v = milliseconds(e.work)
	case attributeFlow:
		v = milliseconds(e.flow)
	case attributeLabel:
		if v, ok = r.value, r.ok; !r.known {
			v, ok = e.attributes[r.meter.Spec().Attribute]
		}
	}
	if !ok {
		r.meter.Invalid(stripe, e.outcome, e.status)
		return
	}
	r.meter.Observe(stripe, e.outcome, e.status, v)
}
