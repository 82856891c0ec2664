// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"cmp"
	"maps"
	"slices"

	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/sched"
)

// snapshot is everything a decision reads, immutable. A flow sees one snapshot from start to end.
type snapshot struct {
	points map[string]*controlPoint
	states []*limiter
}

// controlPoint holds the stages of one control point and what finds the ones that apply to a flow.
type controlPoint struct {
	name  string
	stats *pointStats
	keys  []string // label keys that anything here reads; the index is the slot
	// Selectors with an equality are found by it; the others are tried one by one.
	indexed []equality
	always  []selector
	stages  []stage // in the order of deciding
}

// equality finds selectors by the value of one label.
type equality struct {
	slot    int
	byValue map[string][]selector
}

type selector struct {
	service string
	match   label.Predicate
	stage   int
}

// stage is one limiter as seen from one control point: labels have become slots.
type stage struct {
	limiter *limiter
	spec    *LimiterSpec

	key, tokens                  int // slots; noSlot: not configured
	priority, workload, fairness int
	workloads                    []workload
	fallback                     workload
}

type workload struct {
	spec  *WorkloadSpec
	match label.Predicate
	stats *sched.Workload
}

const noSlot = -1

func buildSnapshot(states []*limiter, stats func(string) *pointStats) *snapshot {
	snap := &snapshot{points: make(map[string]*controlPoint), states: states}
	order := slices.Clone(states)
	slices.SortStableFunc(order, func(a, b *limiter) int {
		x, y := a.spec.Load(), b.spec.Load()
		return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Policy, y.Policy), compareIDs(x.Component, y.Component))
	})
	names := make(map[string]bool)
	for _, l := range order {
		for _, sel := range l.spec.Load().Selectors {
			names[sel.ControlPoint] = true
		}
	}
	for name := range maps.Keys(names) {
		snap.points[name] = buildPoint(name, order, stats(name))
	}
	return snap
}

// compareIDs orders component ids like root.2 before root.10.
func compareIDs(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

func buildPoint(name string, limiters []*limiter, stats *pointStats) *controlPoint {
	p := &controlPoint{name: name, stats: stats}
	slots := make(map[string]int)
	slot := func(key string) int {
		if i, ok := slots[key]; ok {
			return i
		}
		slots[key] = len(p.keys)
		p.keys = append(p.keys, key)
		return slots[key]
	}
	byValue := make(map[int]int) // slot -> index in p.indexed
	for _, l := range limiters {
		spec := l.spec.Load()
		stageIndex := -1
		for _, sel := range spec.Selectors {
			if sel.ControlPoint != name {
				continue
			}
			if stageIndex < 0 {
				stageIndex = len(p.stages)
				p.stages = append(p.stages, buildStage(l, spec, slot))
			}
			s := selector{service: sel.Service, match: sel.Match.Bind(slot), stage: stageIndex}
			key, text, ok := sel.Match.Required()
			if !ok {
				p.always = append(p.always, s)
				continue
			}
			at, ok := byValue[slot(key)]
			if !ok {
				at = len(p.indexed)
				byValue[slot(key)] = at
				p.indexed = append(p.indexed, equality{slot(key), make(map[string][]selector)})
			}
			p.indexed[at].byValue[text] = append(p.indexed[at].byValue[text], s)
		}
	}
	return p
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
			st.workloads = append(st.workloads, workload{w, w.Match.Bind(slot), l.queue.Workload(w.Name)})
		}
		st.fallback = workload{spec: &s.Default, stats: l.queue.Workload(s.Default.Name)}
	}
	return st
}

// match marks the stages that apply to a flow in the bit set.
func (p *controlPoint) match(v label.Values, services []string, bits []uint64) {
	for i := range p.always {
		p.always[i].mark(v, services, bits)
	}
	for i := range p.indexed {
		e := &p.indexed[i]
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
		bits[s.stage>>6] |= 1 << (s.stage & 63)
	}
}

// Prioritisation bounds: a client may carry its priority in a label, but not the whole queue with it.
const (
	minPriority = 1e-3
	maxPriority = 1e6
)

// classify finds the workload of a flow at a scheduling stage and fills in the waiter.
func (st *stage) classify(f *Flow, now limit.Instant) (tokens float64) {
	w := &f.waiter
	in := &st.fallback
	for i := range st.workloads {
		if st.workloads[i].match.Match(f.values) {
			in = &st.workloads[i]
			break
		}
	}
	w.Stats, w.Class.Workload, w.Class.Priority = in.stats, in.spec.Name, in.spec.Priority
	if v := f.value(st.workload); v.Text != "" {
		w.Class.Workload = shorten(v.Text)
		w.Stats = st.limiter.queue.Workload(w.Class.Workload)
	}
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
	return in.spec.Tokens
}
