// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/label"
)

// Sample is a flow as a preview shows it. Several taps may be shown the same one, so it must not be changed.
type Sample struct {
	Services []string
	// Before and After are the labels before and after classification.
	Before, After map[string]string
	Classifiers   []ClassifierResult
	// HTTP is set for HTTP flows. It must not be changed. Its methods are for the call of seen only; its fields may
	// be read later.
	HTTP *classify.Request
	// Began is when the flow came.
	Began time.Time
	// Verdict is the answer, without Decisions. Values of labels in it are as they came, also where they are secrets.
	Verdict Verdict
}

// Bytes is how much memory the texts of the sample take at most, so that whoever keeps samples can bound them.
func (s *Sample) Bytes() int {
	n := textBytes(s.Before) + len(s.Verdict.Key) + len(s.Verdict.Detail)
	if s.HTTP != nil {
		n += len(s.HTTP.Body) + len(s.HTTP.Path) + textBytes(s.HTTP.Headers)
	}
	for key, value := range s.After {
		if before, ok := s.Before[key]; !ok || len(before) != len(value) {
			n += len(key) + len(value)
		}
	}
	return n
}

func textBytes(m map[string]string) (n int) {
	for key, value := range m {
		n += len(key) + len(value)
	}
	return n
}

// MaxTaps bounds how many taps there can be at once: each costs the flows that it watches copies of their labels.
const MaxTaps = 16

// maxHeldBytes bounds what samples of flows that wait take at once. The samples of further ones are dropped.
const maxHeldBytes = 16 << 20

// sampleOverhead is what a sample without texts takes, about.
const sampleOverhead = 512

// pendingSample is a sample of a flow whose verdict is not known.
type pendingSample struct {
	Sample
	point string
	held  int64 // bytes that count in Engine.heldBytes; 0 unless the flow waits
}

// tap watches the flows of one control point.
type tap struct {
	point, service string
	match          label.Predicate // on labels after classification
	keys           []string        // that match reads; the index is the slot
	left           atomic.Int64    // flows still to be shown
	seen           func(Sample)
}

// Tap calls seen with flows of a control point as they are decided, with the verdict, until stop is called or limit
// flows were seen; those that do not match the service ("": any) or the expression, which reads labels after
// classification, are not counted. A flow that waits is shown when it has waited, or when its caller has left; if some
// tap watched it when it began, and samples of flows that wait do not take too much memory. Requests that make no
// sense at all, which have no labels to speak of, are not shown.
//
// seen is called on the goroutine that decides the flow, before its caller knows the verdict, and on several at once: it
// must not block, and takes no locks that are held while Flow.Cancel is called. It may still be called once by each of
// them just after stop. When there are MaxTaps already, or limit is less than 1, seen is
// never called; see Taps. stop may be called at any time, more than once.
func (e *Engine) Tap(point, service string, match label.Expr, limit int, seen func(Sample)) (stop func()) {
	t := &tap{point: point, service: service, seen: seen}
	slots := make(map[string]int)
	t.match = match.Bind(func(key string) int {
		slot, ok := slots[key]
		if !ok {
			slot = len(t.keys)
			slots[key], t.keys = slot, append(t.keys, key)
		}
		return slot
	})
	t.left.Store(int64(limit))
	e.tapping.Lock()
	defer e.tapping.Unlock()
	all := e.tapsNow()
	if len(all) >= MaxTaps || limit < 1 {
		return func() {}
	}
	all = append(slices.Clone(all), t)
	e.taps.Store(&all)
	return func() { e.untap(t) }
}

// Taps is how many taps there are now.
func (e *Engine) Taps() int { return len(e.tapsNow()) }

func (e *Engine) tapsNow() []*tap {
	if all := e.taps.Load(); all != nil {
		return *all
	}
	return nil
}

func (e *Engine) untap(t *tap) {
	e.tapping.Lock()
	defer e.tapping.Unlock()
	all := slices.DeleteFunc(slices.Clone(e.tapsNow()), func(o *tap) bool { return o == t })
	if len(all) == 0 {
		e.taps.Store(nil)
		return
	}
	e.taps.Store(&all)
}

// sampleFor keeps a sample of a flow that begins, if a tap watches it.
func (f *Flow) sampleFor(r *Request, taps []*tap) {
	point := r.ControlPoint
	if r.Shape != nil {
		point = r.Shape.point
	}
	var s *pendingSample
	for _, t := range taps {
		if !t.watches(point, f.services) {
			continue
		}
		if s == nil {
			s = &pendingSample{Sample: f.sampleOf(r), point: point}
		}
		if t.wants(s.After) {
			f.sample = s
			return
		}
	}
}

// keepSample counts the sample of a flow that begins to wait, or drops it when there are too many. REQUIRES Flow.mu.
func (f *Flow) keepSample() {
	s := f.sample
	s.held = int64(s.Bytes() + sampleOverhead)
	if f.engine.heldBytes.Add(s.held) > maxHeldBytes {
		f.engine.heldBytes.Add(-s.held)
		f.sample = nil
	}
}

// show shows a flow whose verdict is known to the taps that watch it now.
func (f *Flow) show() {
	s := f.sample
	f.sample = nil
	if s.held != 0 {
		f.engine.heldBytes.Add(-s.held)
	}
	s.Verdict = f.Verdict
	s.Verdict.Decisions = nil
	for _, t := range f.engine.tapsNow() {
		if !t.watches(s.point, s.Services) || !t.wants(s.After) {
			continue
		}
		left := t.left.Add(-1)
		if left >= 0 {
			t.seen(s.Sample)
		}
		if left == 0 {
			f.engine.untap(t)
		}
	}
}

// watches tells whether the tap has to see flows like this one, but for their labels.
func (t *tap) watches(point string, services []string) bool {
	return t.point == point && (t.service == "" || slices.Contains(services, t.service)) && t.left.Load() > 0
}

func (t *tap) wants(labels map[string]string) bool {
	values := make(label.Values, len(t.keys))
	for i, key := range t.keys {
		text, ok := labels[key]
		values[i] = label.Value{Text: text, Present: ok}
	}
	return t.match.Match(values)
}

// sampleOf copies what a preview shows of a flow that begins.
func (f *Flow) sampleOf(r *Request) Sample {
	s := Sample{Services: slices.Clone(f.services), Before: make(map[string]string), HTTP: r.HTTP, Began: time.Now()}
	f.eachLabel(r, func(key, value string, _ bool) { s.Before[key] = value })
	s.After = s.Before
	if derived := f.Derived(); len(derived) > 0 {
		s.After = maps.Clone(s.Before)
		for _, l := range derived {
			s.After[l.Key] = l.Value
		}
	}
	s.Classifiers = slices.Clone(f.Classifiers())
	return s
}

// eachLabel calls do with every label that a flow came with; public tells whether its value may be shown in
// analytics. With a Shape that has a key twice, the last call counts.
func (f *Flow) eachLabel(r *Request, do func(key, value string, public bool)) {
	if r.Shape != nil {
		for i, key := range r.Shape.keys {
			do(key, r.Values[i], true)
		}
		return
	}
	if r.HTTP != nil {
		r.HTTP.EachLabel(func(key, value string, telemetry bool) {
			if _, explicit := r.Labels[key]; !explicit {
				do(key, value, telemetry)
			}
		})
	}
	for key, value := range r.Labels {
		do(key, value, true)
	}
}
