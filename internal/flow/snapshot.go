// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"cmp"
	"maps"
	"slices"

	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/meter"
	"github.com/sluice-project/sluice/internal/setpoint"
)

// snapshot is everything a decision reads, immutable. A flow sees one snapshot from start to end.
type snapshot struct {
	points map[string]*controlPoint
	states []*limiter
	// classifiers in force, in the order of running.
	classifiers []classifier
	byRef       map[setpoint.Ref]*limiter
	meters      []*meter.Meter
	byID        map[uint32]*meter.Meter
}

// controlPoint holds the stages of one control point and what finds the ones that apply to a flow.
type controlPoint struct {
	name  string
	stats *pointStats
	keys  []string       // label keys that anything here reads; the index is the slot
	slots map[string]int // of keys
	early matcher        // finds the classifiers that look at a flow
	late  matcher        // finds the stages and flux meters that apply to it

	classifiers []classifier // in the order of running
	stages      []stage      // in the order of deciding
	ramps       int          // how many of them, at the beginning, admit flows in ramp mode
	cacheAt     int          // how many of them come before the caches are asked
	gauges      []gauge      // flux meters; selected by the bits that follow those of the stages
	words       int          // of the bit set that a flow needs
}

// matcher finds what selects a flow. Selectors with an equality are found by it; the others are tried one by one.
type matcher struct {
	indexed []equality
	always  []selector
}

// equality finds selectors by the value of one label.
type equality struct {
	slot    int
	byValue map[string][]selector
}

type selector struct {
	service string
	match   label.Predicate
	bit     int // of the classifier or the stage, or of the flux meter after the last stage
}

// stage is one limiter as seen from one control point: labels have become slots.
type stage struct {
	limiter *limiter
	spec    *LimiterSpec // as published; see limiter.inForce

	key, tokens                  int // slots; noSlot: not configured
	priority, workload, fairness int
	workloads                    []workload
	fallback                     workload
}

type workload struct {
	spec  *WorkloadSpec
	match label.Predicate
	bin   *bin
}

const noSlot = -1

// publication is what a snapshot is built of.
type publication struct {
	limiters []*limiter
	specs    []*MeterSpec
	meters   []*meter.Meter // of specs
	// classifiers in the order of running.
	classifiers []classifier
	group       string // of this server; "": every one
	stats       func(point string) *pointStats
}

// build makes the snapshot. REQUIRES Engine.mu, for limiter.published.
func (p *publication) build() *snapshot {
	snap := &snapshot{
		points: make(map[string]*controlPoint), states: p.limiters, meters: p.meters, classifiers: p.classifiers,
		byRef: make(map[setpoint.Ref]*limiter, len(p.limiters)), byID: make(map[uint32]*meter.Meter, len(p.meters)),
	}
	p.limiters = slices.Clone(p.limiters)
	slices.SortStableFunc(p.limiters, func(a, b *limiter) int {
		x, y := a.published, b.published
		return cmp.Or(cmp.Compare(x.rank(), y.rank()), cmp.Compare(x.Policy, y.Policy), compareIDs(x.Component, y.Component))
	})
	names := make(map[string]bool)
	add := func(list []Selector) {
		for i := range list {
			if p.ours(&list[i]) {
				names[list[i].ControlPoint] = true
			}
		}
	}
	for _, l := range p.limiters {
		snap.byRef[setpoint.Ref{Policy: l.published.Policy, Component: l.published.Component}] = l
		add(l.published.Selectors)
	}
	for i, s := range p.specs {
		snap.byID[s.ID()] = p.meters[i]
		add(s.Selectors)
	}
	for _, c := range p.classifiers {
		add(c.spec.Selectors)
	}
	for name := range maps.Keys(names) {
		snap.points[name] = p.point(name)
	}
	return snap
}

// compareIDs orders component ids like root.2 before root.10.
func compareIDs(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// ours tells whether a selector is for the group of this server.
func (p *publication) ours(s *Selector) bool {
	return p.group == "" || s.AgentGroup == "" || s.AgentGroup == p.group
}

// selects tells whether one of the selectors is for a control point of this server.
func (p *publication) selects(list []Selector, point string) bool {
	return slices.ContainsFunc(list, func(s Selector) bool { return s.ControlPoint == point && p.ours(&s) })
}

// pointBuilder numbers the labels that a control point reads.
type pointBuilder struct {
	*controlPoint
	from *publication
}

func (p *publication) point(name string) *controlPoint {
	b := pointBuilder{&controlPoint{name: name, stats: p.stats(name), slots: make(map[string]int)}, p}
	for _, c := range p.classifiers {
		if p.selects(c.spec.Selectors, name) {
			b.classifiers = append(b.classifiers, c)
		}
	}
	early := b.matcher(&b.early)
	for i, c := range b.classifiers {
		early.add(c.spec.Selectors, i)
	}
	late := b.matcher(&b.late)
	for _, l := range p.limiters {
		spec := l.published
		if !p.selects(spec.Selectors, name) {
			continue
		}
		if spec.ramp() {
			b.ramps++
		}
		late.add(spec.Selectors, len(b.stages))
		b.stages = append(b.stages, buildStage(l, spec, b.slot))
		if spec.rank() < QuotaScheduler {
			b.cacheAt = len(b.stages)
		}
	}
	for i, spec := range p.specs {
		if !p.selects(spec.Selectors, name) {
			continue
		}
		g := gauge{meter: p.meters[i], id: spec.ID(), what: attributeOf(spec.Attribute), slot: noSlot}
		if g.what == attributeLabel {
			g.slot = b.slot(spec.Attribute)
		}
		late.add(spec.Selectors, len(b.stages)+len(b.gauges))
		b.gauges = append(b.gauges, g)
	}
	b.words = (max(len(b.classifiers), len(b.stages)+len(b.gauges)) + 63) / 64
	return b.controlPoint
}

func (b *pointBuilder) slot(key string) int {
	if i, ok := b.slots[key]; ok {
		return i
	}
	b.slots[key] = len(b.keys)
	b.keys = append(b.keys, key)
	return b.slots[key]
}

// matcherBuilder fills a matcher.
type matcherBuilder struct {
	*pointBuilder
	into   *matcher
	bySlot map[int]int // slot -> index in indexed
}

func (b *pointBuilder) matcher(into *matcher) matcherBuilder {
	return matcherBuilder{b, into, make(map[int]int)}
}

// add makes flows that any of the selectors matches set a bit.
func (b *matcherBuilder) add(list []Selector, bit int) {
	for i := range list {
		sel := &list[i]
		if sel.ControlPoint != b.name || !b.from.ours(sel) {
			continue
		}
		s := selector{service: sel.Service, match: sel.Match.Bind(b.slot), bit: bit}
		key, text, ok := sel.Match.Required()
		if !ok {
			b.into.always = append(b.into.always, s)
			continue
		}
		slot := b.slot(key)
		at, ok := b.bySlot[slot]
		if !ok {
			at = len(b.into.indexed)
			b.bySlot[slot] = at
			b.into.indexed = append(b.into.indexed, equality{slot, make(map[string][]selector)})
		}
		b.into.indexed[at].byValue[text] = append(b.into.indexed[at].byValue[text], s)
	}
}

func buildStage(l *limiter, spec *LimiterSpec, slot func(string) int) stage {
	optional := func(key string) int {
		if key == "" {
			return noSlot
		}
		return slot(key)
	}
	st := stage{
		limiter: l, spec: spec,
		key: optional(spec.LimitBy), tokens: optional(spec.TokensKey),
		priority: noSlot, workload: noSlot, fairness: noSlot,
	}
	if s := spec.Scheduler; s != nil {
		st.priority, st.workload, st.fairness = optional(s.PriorityKey), optional(s.WorkloadKey), optional(s.FairnessKey)
		for i := range s.Workloads {
			w := &s.Workloads[i]
			st.workloads = append(st.workloads, workload{w, w.Match.Bind(slot), l.workload(w.Name)})
		}
		st.fallback = workload{spec: &s.Default, bin: l.workload(s.Default.Name)}
	}
	return st
}

// match marks what selects a flow in the bit set.
func (m *matcher) match(v label.Values, services []string, bits []uint64) {
	for i := range m.always {
		m.always[i].mark(v, services, bits)
	}
	for i := range m.indexed {
		e := &m.indexed[i]
		if !v[e.slot].Present {
			continue
		}
		list := e.byValue[v[e.slot].Text]
		for j := range list {
			list[j].mark(v, services, bits)
		}
	}
}

func (s *selector) mark(v label.Values, services []string, bits []uint64) {
	if s.service != "" && !slices.Contains(services, s.service) {
		return
	}
	if s.match.Match(v) {
		bits[s.bit>>6] |= 1 << (s.bit & 63)
	}
}

// Prioritisation bounds: a client may carry its priority in a label, but not the whole queue with it.
const (
	minPriority = 1e-3
	maxPriority = 1e6
)

// selected tells whether a stage applies.
func (p *controlPoint) selected(bits []uint64) bool {
	for i := range p.stages {
		if bits[i>>6]&(1<<(i&63)) != 0 {
			return true
		}
	}
	return false
}

// rampIn tells whether a stage that admits flows in ramp mode applies.
func (p *controlPoint) rampIn(bits []uint64) bool {
	for i := range p.ramps {
		if bits[i>>6]&(1<<(i&63)) != 0 {
			return true
		}
	}
	return false
}

// assign finds the workload of a flow at a scheduling stage and fills in the waiter. It returns what the
// flow costs if it does not say so itself.
func (st *stage) assign(f *Flow, now limit.Instant) (tokens float64) {
	w := &f.waiter
	in := &st.fallback
	for i := range st.workloads {
		if st.workloads[i].match.Match(f.values) {
			in = &st.workloads[i]
			break
		}
	}
	f.stageBin = in.bin
	w.Class.Workload, w.Class.Priority = in.spec.Name, in.spec.Priority
	if v := f.value(st.workload); v.Text != "" {
		w.Class.Workload = shorten(v.Text)
		f.stageBin = st.limiter.workload(w.Class.Workload)
	}
	w.Stats = f.stageBin.sched
	if v := f.value(st.priority); v.Present {
		if p, ok := parseNumber(v.Text); ok && p > 0 {
			w.Class.Priority = min(max(p, minPriority), maxPriority)
		}
	}
	w.Fairness = ""
	if v := f.value(st.fairness); v.Present {
		w.Fairness = shorten(v.Text)
	}
	w.Deadline = f.waitUntil(now, st.spec.Scheduler.Margin, in.spec.QueueTimeout)
	if in.spec.NoWait {
		w.Deadline = now
	}
	if st.limiter.load != nil {
		if price := f.stageBin.price.load(); price > 0 {
			return price
		}
	}
	return in.spec.Tokens
}
