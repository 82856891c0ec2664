// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/label"
)

// ClassifierSpec is one classifier of one policy, compiled. It does not change after it was published.
type ClassifierSpec struct {
	// Policy, Hash and Index name the classifier for people.
	Policy, Hash string
	Index        int
	// Selectors say which HTTP flows it looks at, by their labels before classification.
	Selectors []Selector
	// Rules make the labels.
	Rules classify.Ruleset
}

// ClassifierResult tells how one classifier that looked at a flow did; Err is nil when it did well.
type ClassifierResult struct {
	Classifier *ClassifierSpec
	Err        *classify.Error
}

// classifierKey names a classifier.
type classifierKey struct {
	policy string
	index  int
}

func (s *ClassifierSpec) key() classifierKey { return classifierKey{s.Policy, s.Index} }

func (s *ClassifierSpec) validate() error {
	switch {
	case s.Policy == "" || s.Index < 0:
		return errors.New("a classifier needs a policy and an index of 0 or more")
	case s.Rules == nil:
		return fmt.Errorf("policy %s, classifier %d: it has no rules", s.Policy, s.Index)
	}
	return nil
}

func checkClassifiers(specs []*ClassifierSpec) (errs []error) {
	seen := make(map[classifierKey]bool, len(specs))
	for _, s := range specs {
		if err := s.validate(); err != nil {
			errs = append(errs, err)
		} else if seen[s.key()] {
			errs = append(errs, fmt.Errorf("policy %s has two classifiers %d", s.Policy, s.Index))
		}
		seen[s.key()] = true
	}
	return errs
}

// classifier is the running part of a ClassifierSpec: its counts go on across edits.
type classifier struct {
	spec   *ClassifierSpec
	counts *classifierCounts
}

// classifierCounts counts evaluations by result. Good ones, which are the most, are split in stripes.
type classifierCounts struct {
	good     []stripedCount
	bad      [classify.Codes]atomic.Uint64 // by classify.Code
	panicked sync.Once                     // logged
}

type stripedCount struct {
	n atomic.Uint64
	_ [56]byte
}

func (c *classifierCounts) total(code classify.Code) (n uint64) {
	if code != classify.CodeNone {
		return c.bad[code].Load()
	}
	for i := range c.good {
		n += c.good[i].n.Load()
	}
	return n
}

// classifiersLocked finds or makes the running parts of classifiers, in the order in which they run. REQUIRES
// Engine.mu.
func (e *Engine) classifiersLocked(specs []*ClassifierSpec) []classifier {
	out := make([]classifier, len(specs))
	for i, s := range specs {
		out[i] = classifier{s, e.classifiers[s.key()]}
		if out[i].counts == nil {
			out[i].counts = &classifierCounts{good: make([]stripedCount, stripes)}
		}
	}
	slices.SortFunc(out, func(a, b classifier) int {
		return cmp.Or(cmp.Compare(a.spec.Policy, b.spec.Policy), cmp.Compare(a.spec.Index, b.spec.Index))
	})
	return out
}

// classification is what a flow has of classifiers. It is pooled apart from flows, because most have none.
type classification struct {
	derived []classify.Label
	results []ClassifierResult

	// While classifiers run:
	request *classify.Request
	labels  map[string]string
	input   classify.Input
	find    func(key string) (string, bool) // methods of this one, made once
	each    func(f func(key, value string))
}

var classifications = sync.Pool{New: func() any {
	c := new(classification)
	c.find, c.each = c.label, c.eachLabel
	return c
}}

// maxPooled bounds the memory that waits for use in pools.
const maxPooled = 64

func (c *classification) free() {
	if cap(c.derived) > maxPooled || cap(c.results) > maxPooled {
		return
	}
	clear(c.derived)
	clear(c.results)
	c.derived, c.results = c.derived[:0], c.results[:0]
	classifications.Put(c)
}

// label finds a label as it is before classification.
func (c *classification) label(key string) (string, bool) { return before(c.labels, c.request, key) }

func (c *classification) eachLabel(f func(key, value string)) { eachBefore(c.labels, c.request, f) }

// before finds a label of a flow before classification: explicit ones win over those of the HTTP request.
func before(labels map[string]string, r *classify.Request, key string) (string, bool) {
	if text, ok := labels[key]; ok {
		return text, true
	}
	return r.Label(key)
}

func eachBefore(labels map[string]string, r *classify.Request, f func(key, value string)) {
	r.EachLabel(func(key, value string, _ bool) {
		if _, explicit := labels[key]; !explicit {
			f(key, value)
		}
	})
	for key, value := range labels {
		f(key, value)
	}
}

// classify runs the classifiers that select an HTTP flow, one after the other, and lets the labels they make
// overwrite those that the flow came with.
func (f *Flow) classify(r *Request) {
	p := f.point
	p.early.match(f.values, f.services, f.bits)
	for i := range p.classifiers {
		if f.bits[i>>6]&(1<<(i&63)) == 0 {
			continue
		}
		if f.class == nil {
			f.class = classifications.Get().(*classification)
			f.class.request, f.class.labels = r.HTTP, r.Labels
			f.class.input = classify.Input{Request: r.HTTP, Label: f.class.find, EachLabel: f.class.each}
		}
		f.evaluate(&p.classifiers[i])
	}
	if c := f.class; c != nil && c.input.Malformed() != 0 {
		f.engine.malformed.note(c.input.Malformed())
	}
	if c := f.class; c != nil { // a flow may wait for long, and needs none of this any more
		c.request, c.labels, c.input = nil, nil, classify.Input{}
	}
	clear(f.bits)
}

// malformedCounts counts HTTP flows by the parts of their requests that are not what they should be.
type malformedCounts [len(malformedParts)]atomic.Uint64

// malformedParts are the stable names, by bit of classify.Malformed; baggage comes last.
var malformedParts = [...]string{"json", "jwt", "body", "argument", "baggage"}

func (c *malformedCounts) note(parts classify.Malformed) {
	for i := range c {
		if parts&(1<<i) != 0 {
			c[i].Add(1)
		}
	}
}

// noteBaggage counts a request of whose baggage something was ignored.
func (c *malformedCounts) noteBaggage(r *classify.Request) {
	if r.IgnoredBaggage() > 0 {
		c[len(c)-1].Add(1)
	}
}

// evaluate runs one classifier.
func (f *Flow) evaluate(c *classifier) {
	class := f.class
	first := len(class.derived)
	err := f.rules(c)
	class.results = append(class.results, ClassifierResult{c.spec, err})
	if err != nil {
		c.counts.bad[err.Code].Add(1)
		return
	}
	c.counts.good[f.stripe].n.Add(1)
	for _, l := range class.derived[first:] {
		if slot, ok := f.point.slots[l.Key]; ok {
			f.values[slot] = label.Value{Text: l.Value, Present: true}
		}
	}
}

// rules evaluates the rules of a classifier. They are written by users, read what strangers send and run in
// libraries: a panic in there costs this one its labels, not everybody the server.
func (f *Flow) rules(c *classifier) (problem *classify.Error) {
	defer func() {
		if r := recover(); r != nil {
			c.counts.panicked.Do(func() {
				f.engine.logger.Error("a classifier panicked; please report this; further times are counted and not logged",
					"policy", c.spec.Policy, "index", c.spec.Index, "panic", r)
			})
			problem = &classify.Error{Code: classify.CodeEvalFailed, Message: "internal error; the log of the server says more"}
		}
	}()
	derived, err := c.spec.Rules.Eval(&f.class.input, f.class.derived)
	if err == nil {
		f.class.derived = derived
		return nil
	}
	return problemOf(err)
}

func problemOf(err error) *classify.Error {
	var p *classify.Error
	if !errors.As(err, &p) {
		return &classify.Error{Code: classify.CodeEvalFailed, Message: err.Error()}
	}
	if p.Code == classify.CodeNone || p.Code >= classify.Codes {
		return &classify.Error{Code: classify.CodeEvalFailed, Message: p.Message}
	}
	return p
}

// Derived are the labels that classifiers made, in the order of classifiers; the last one of a key counts. It is
// valid until the flow is freed.
func (f *Flow) Derived() []classify.Label {
	if f.class == nil {
		return nil
	}
	return f.class.derived
}

// Classifiers tells how the classifiers did that looked at the flow. It is valid until the flow is freed.
func (f *Flow) Classifiers() []ClassifierResult {
	if f.class == nil {
		return nil
	}
	return f.class.results
}
