// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"cmp"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/sluice-project/sluice/internal/limit"
)

// PointView is what is known about a control point that flows have passed.
type PointView struct {
	// Name of the control point. Those beyond Config.MaxControlPoints are one with the name "(other)".
	Name string
	// HTTP tells that some flow had the attributes of an HTTP request.
	HTTP bool
	// Services that flows belonged to, in the order of their names; some 32 of them when there are more.
	Services []string
	// Flows decided since the server started, and those of them that were denied.
	Flows, Denied uint64
	// FlowsPerSecond and DeniedPerSecond are averages of the last 10 to 12 seconds, or since the server started.
	FlowsPerSecond, DeniedPerSecond float64
	// Policies whose limiters, flux meters or classifiers select flows here, in the order of their names.
	Policies []string
	// Labels of a sample of the flows, in the order of their keys.
	Labels []LabelView
	// LastSeen is when the last flow was decided, 2 seconds late at most.
	LastSeen time.Time
}

// LabelView is a label that flows of a sample carried, or that classifiers made of them.
type LabelView struct {
	Key string
	// Values are some of its values, the latest first, valid UTF-8 and cut to 64 bytes. HTTP headers, and what else
	// is kept out of analytics, have none: they may be secrets.
	Values []string
	// Distinct is how many different values there were; AtLeast tells that there were more.
	Distinct int
	AtLeast  bool
	// Share of the flows of the sample that carried the label, 0..1.
	Share float64
}

// Bounds on what is remembered of the flows of a control point. The first flows are looked at one by one, and of
// the others one in sampleEvery, but not more often than every samplePause.
const (
	firstSamples     = 64
	sampleEvery      = 64 // on average
	samplePause      = time.Millisecond
	maxSeenServices  = 32
	maxSeenKeys      = 64
	maxSeenValues    = 16
	maxSeenValueSize = 64
	maxSeenKeySize   = 128
	forgetAfter      = 16       // samples without a key that makes room for another one
	maxSeenLabels    = 256      // looked at in one flow
	maxSeenBytes     = 32 << 20 // of all control points together
	seenOverhead     = 64       // bytes for one text, besides itself, about
)

// pointSeen is what was seen of the flows of a control point.
type pointSeen struct {
	http atomic.Bool
	warm atomic.Bool // the first flows were looked at

	mu       sync.Mutex
	samples  uint64
	pause    limit.Instant // end of the pause after the last one
	services []string
	keys     map[string]*keySeen
}

// keySeen is what was seen of a label.
type keySeen struct {
	count, last uint64   // samples with the label; the last of them
	values      []string // the latest first
	more        bool     // than values
}

// watched tells whether somebody has to see a flow that begins, besides those that are looked at from time to time.
func (f *Flow) watched(r *Request) bool {
	seen := &f.point.stats.seen
	return !seen.warm.Load() || r.HTTP != nil && !seen.http.Load() || f.engine.taps.Load() != nil
}

// notice lets whoever watches see a flow that begins.
func (f *Flow) notice(r *Request) {
	seen := &f.point.stats.seen
	if taps := f.engine.taps.Load(); taps != nil {
		f.sampleFor(r, *taps)
	}
	if r.HTTP != nil && !seen.http.Load() {
		seen.http.Store(true)
	}
	due := f.unseen <= 0
	if due {
		f.unseen = gap()
	}
	if due || !seen.warm.Load() {
		f.remember(r, seen)
	}
}

// gap is how many flows pass until one is looked at: sampleEvery on average, and at random, because flows may come in
// a pattern. It is geometric, which has no memory, because Flows that are pooled may get lost at any time.
func gap() int32 {
	return 1 + int32(math.Log(1-rand.Float64())/math.Log1p(-1.0/sampleEvery))
}

// remember adds a flow to the sample. It waits for nobody: when another flow is being added, this one is not.
func (f *Flow) remember(r *Request, seen *pointSeen) {
	if !seen.mu.TryLock() {
		return
	}
	defer seen.mu.Unlock()
	if f.started < seen.pause && seen.samples >= firstSamples {
		return
	}
	seen.pause = f.started.Add(samplePause)
	if seen.samples++; seen.samples >= firstSamples && !seen.warm.Load() {
		seen.warm.Store(true)
	}
	for _, s := range f.services {
		if len(seen.services) < maxSeenServices && len(s) <= MaxControlPointLen && !slices.Contains(seen.services, s) {
			seen.services = append(seen.services, strings.Clone(s))
		}
	}
	n, budget := 0, &f.engine.seenBytes
	f.eachLabel(r, func(key, value string, public bool) {
		if n++; n <= maxSeenLabels {
			seen.label(key, value, public, budget)
		}
	})
	for _, l := range f.Derived() {
		if n++; n <= maxSeenLabels {
			seen.label(l.Key, l.Value, l.Telemetry, budget)
		}
	}
}

// label adds a label of a flow. REQUIRES mu.
func (s *pointSeen) label(key, value string, public bool, budget *atomic.Int64) {
	k := s.keys[key]
	if k == nil {
		if k = s.key(key, budget); k == nil {
			return
		}
	}
	if k.last != s.samples { // a classifier may make a label that is there already
		k.count++
		k.last = s.samples
	}
	if !public {
		return
	}
	value = cut(value)
	if i := slices.Index(k.values, value); i >= 0 {
		copy(k.values[1:i+1], k.values[:i])
		k.values[0] = value
		return
	}
	if len(k.values) == maxSeenValues {
		k.more = true
		last := len(k.values) - 1
		budget.Add(-int64(len(k.values[last]) + seenOverhead))
		k.values = k.values[:last]
	}
	if budget.Load() < maxSeenBytes {
		budget.Add(int64(len(value) + seenOverhead))
		k.values = slices.Insert(k.values, 0, strings.Clone(value))
	}
}

// key makes room for a key; nil when there is none. REQUIRES mu.
func (s *pointSeen) key(key string, budget *atomic.Int64) *keySeen {
	if len(key) > maxSeenKeySize || budget.Load() >= maxSeenBytes {
		return nil
	}
	if len(s.keys) >= maxSeenKeys && !s.forget(budget) {
		return nil
	}
	if s.keys == nil {
		s.keys = make(map[string]*keySeen)
	}
	k := new(keySeen)
	s.keys[strings.Clone(key)] = k
	budget.Add(int64(len(key) + 2*seenOverhead))
	return k
}

// forget drops the key that was seen least, of those that were not seen of late. REQUIRES mu.
func (s *pointSeen) forget(budget *atomic.Int64) bool {
	least := ""
	for key, k := range s.keys {
		if s.samples-k.last >= forgetAfter && (least == "" || k.count < s.keys[least].count) {
			least = key
		}
	}
	k := s.keys[least]
	if k == nil {
		return false
	}
	size := len(least) + 2*seenOverhead
	for _, v := range k.values {
		size += len(v) + seenOverhead
	}
	budget.Add(-int64(size))
	delete(s.keys, least)
	return true
}

// cut makes a text valid UTF-8 that is not too long.
func cut(s string) string {
	if len(s) > maxSeenValueSize {
		end := maxSeenValueSize
		for end > maxSeenValueSize-utf8.UTFMax && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
	}
	return strings.ToValidUTF8(s, "?")
}

func (s *pointSeen) view(v *PointView, labels bool) {
	v.HTTP = s.http.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	v.Services = slices.Sorted(slices.Values(s.services))
	if !labels {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(s.keys)) {
		k := s.keys[key]
		v.Labels = append(v.Labels, LabelView{
			Key: strings.ToValidUTF8(key, "?"), Values: slices.Clone(k.values),
			Distinct: len(k.values), AtLeast: k.more, Share: float64(k.count) / float64(s.samples),
		})
	}
}

// Points lists the control points that flows have passed and whose name begins with prefix, busiest first, with
// what their labels are if asked for.
func (e *Engine) Points(prefix string, labels bool) []PointView {
	now := time.Now()
	snap := e.snapshot.Load()
	e.rates.mu.Lock()
	defer e.rates.mu.Unlock()
	e.takeRatesLocked(now, rateEvery*3/2) // Run was faster, unless it does not run
	var out []PointView
	e.eachPoint(func(s *pointStats) {
		if !strings.HasPrefix(s.name, prefix) {
			return
		}
		v := PointView{Name: s.name}
		e.rates.viewLocked(s, &v, now)
		if v.Flows == 0 {
			return
		}
		if p := snap.points[s.name]; p != nil {
			v.Policies = p.policies()
		}
		s.seen.view(&v, labels)
		out = append(out, v)
	})
	slices.SortFunc(out, func(a, b PointView) int {
		return cmp.Or(cmp.Compare(b.FlowsPerSecond, a.FlowsPerSecond), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// policies that select flows here, by name.
func (p *controlPoint) policies() []string {
	names := make(map[string]bool)
	for i := range p.stages {
		names[p.stages[i].spec.Policy] = true
	}
	for i := range p.gauges {
		names[p.gauges[i].meter.Spec().Policy] = true
	}
	for i := range p.classifiers {
		names[p.classifiers[i].spec.Policy] = true
	}
	return slices.Sorted(maps.Keys(names))
}
