// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/meter"
)

func onePoint(t *testing.T, e *Engine, name string) PointView {
	t.Helper()
	for _, v := range e.Points(name, true) {
		if v.Name == name {
			return v
		}
	}
	t.Fatalf("no control point %s", name)
	return PointView{}
}

func labelOf(t *testing.T, v PointView, key string) LabelView {
	t.Helper()
	for _, l := range v.Labels {
		if l.Key == key {
			return l
		}
	}
	t.Fatalf("no label %s at %s: %v", key, v.Name, v.Labels)
	return LabelView{}
}

func TestPoints(t *testing.T) {
	e := newEngine(t)
	meterOf := meterSpec("meters", "m", meter.FlowDuration, label.Expr{})
	publish(t, e, Set{
		Limiters: []*LimiterSpec{
			rateSpec(1, "cp", "user", label.Expr{}, limit.BucketRule{Interval: time.Second, Capacity: 1}),
			rateSpec(2, "quiet", "", label.Expr{}, wide), // no flow comes there
		},
		Meters:      []*MeterSpec{meterOf},
		Classifiers: []*ClassifierSpec{classifierSpec("classifiers", 0, label.Expr{}, always("tier", "gold"))},
	})
	if v := e.Points("", true); len(v) != 0 {
		t.Errorf("before the first flow there are %v", v)
	}
	for i := range 4 {
		r := Request{ControlPoint: "cp", Labels: map[string]string{"user": "alice"}, Services: []string{"shop", fmt.Sprint("s", i%2)}}
		if i == 3 {
			r.HTTP = &classify.Request{Method: "GET", Headers: map[string]string{"authorization": "Bearer secret"}}
		}
		e.Start(context.Background(), &r).Free()
	}
	start(e, "cp-2").Free()
	v := onePoint(t, e, "cp")
	if !v.HTTP || v.Flows != 4 || v.Denied != 3 || time.Since(v.LastSeen) > time.Minute {
		t.Errorf("%+v", v)
	}
	if !slices.Equal(v.Services, []string{"s0", "s1", "shop"}) || !slices.Equal(v.Policies, []string{"classifiers", "meters", "policy-1"}) {
		t.Errorf("services %v, policies %v", v.Services, v.Policies)
	}
	if l := labelOf(t, v, "user"); l.Share != 1 || !slices.Equal(l.Values, []string{"alice"}) || l.Distinct != 1 || l.AtLeast {
		t.Errorf("user: %+v", l)
	}
	if l := labelOf(t, v, "tier"); l.Share != 0.25 || !slices.Equal(l.Values, []string{"gold"}) {
		t.Errorf("tier: %+v", l)
	}
	if l := labelOf(t, v, "http.request.header.authorization"); len(l.Values) != 0 || l.Distinct != 0 || l.Share != 0.25 {
		t.Errorf("a secret is shown: %+v", l)
	}
	if v := onePoint(t, e, "cp-2"); v.HTTP || v.Flows != 1 || v.Policies != nil || v.Services != nil {
		t.Errorf("%+v", v)
	}
	if v := e.Points("cp-", false); len(v) != 1 || v[0].Labels != nil {
		t.Errorf("by prefix: %+v", v)
	}
}

func TestPointRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- e.Run(ctx) }()
		publish(t, e, Set{Limiters: []*LimiterSpec{rateSpec(1, "cp", "user", label.Expr{}, limit.BucketRule{Interval: time.Hour, Capacity: 1})}})
		flows := func(d time.Duration) {
			for range d / (100 * time.Millisecond) {
				time.Sleep(100 * time.Millisecond)
				start(e, "cp").Free()
				start(e, "cp", "user", "x").Free() // denied, but for the first
			}
		}
		began := time.Now()
		flows(time.Second)
		if v := onePoint(t, e, "cp"); math.Abs(v.FlowsPerSecond-20) > 0.1 || math.Abs(v.DeniedPerSecond-9) > 0.1 {
			t.Errorf("after a second: %+v", v)
		}
		flows(59 * time.Second)
		v := onePoint(t, e, "cp")
		if math.Abs(v.FlowsPerSecond-20) > 0.5 || math.Abs(v.DeniedPerSecond-10) > 0.5 || v.Flows != 1200 {
			t.Errorf("after a minute: %+v", v)
		}
		if age := time.Since(v.LastSeen); age > rateEvery {
			t.Errorf("last seen %v ago", age)
		}
		last := time.Now()
		start(e, "busier").Free()
		time.Sleep(6 * time.Second)
		if v := onePoint(t, e, "cp"); v.FlowsPerSecond < 8 || v.FlowsPerSecond > 12 {
			t.Errorf("6 seconds after the last flow: %+v", v)
		}
		time.Sleep(10 * time.Minute)
		v = onePoint(t, e, "cp")
		if v.FlowsPerSecond != 0 || v.LastSeen.Sub(last) > rateEvery || v.LastSeen.Before(last) {
			t.Errorf("long after: %+v, the last flow was at %v", v, last.Sub(began))
		}
		for range 30 {
			start(e, "late").Free()
		}
		if all := e.Points("", false); all[0].Name != "late" || all[1].Name != "busier" || all[0].FlowsPerSecond < 2.4 || all[0].FlowsPerSecond > 3.1 {
			t.Errorf("busiest first: %+v", all)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestPointRatesWithoutRun: Points alone reads rates often enough for itself.
func TestPointRatesWithoutRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t)
		for range 60 {
			time.Sleep(time.Second)
			start(e, "cp").Free()
			e.Points("", false)
		}
		if v := onePoint(t, e, "cp"); math.Abs(v.FlowsPerSecond-1) > 0.1 {
			t.Errorf("%+v", v)
		}
	})
}

// TestSampleIsFair: flows that come in turns are all looked at, at about one in sampleEvery, and every value of a
// label in proportion.
func TestSampleIsFair(t *testing.T) {
	e := newEngine(t)
	const n = 64_000
	for i := range n {
		r := Request{ControlPoint: fmt.Sprint("cp", i%4), Now: limit.Instant(i+1) * limit.Instant(samplePause)}
		e.Start(t.Context(), &r).Free()
	}
	for i := range 4 {
		samples := e.pointStats(fmt.Sprint("cp", i)).seen.samples
		want := firstSamples + (n/4-firstSamples)/sampleEvery
		if d := int(samples) - want; d < -80 || d > 80 { // five standard deviations
			t.Errorf("cp%d: %d flows looked at, want about %d", i, samples, want)
		}
	}
}

// TestSeenIsBounded: whatever flows carry, what is remembered of them stays small.
func TestSeenIsBounded(t *testing.T) {
	e := newEngine(t)
	rng := rand.New(rand.NewPCG(1, 5))
	for i := range 3000 {
		labels := map[string]string{
			"always":                              fmt.Sprint("value-", i),
			strings.Repeat("k", maxSeenKeySize+1): "x",
			"long":                                strings.Repeat("é", 1000) + fmt.Sprint(i),
			"odd":                                 "\xff\x00\r\n" + fmt.Sprint(i%3),
			"\xffkey":                             "",
		}
		for range rng.IntN(500) * (i & 1) {
			labels[fmt.Sprint("random-", rng.IntN(1_000_000))] = fmt.Sprint(rng.Int())
		}
		services := []string{fmt.Sprint("service-", i), strings.Repeat("s", 1000)}
		e.Start(context.Background(), &Request{ControlPoint: "cp", Labels: labels, Services: services}).Free()
	}
	start(e, "odd", "long", strings.Repeat("é", 1000), "odd", "\xff\x00\r\n", strings.Repeat("k", maxSeenKeySize+1), "x").Free()
	v := onePoint(t, e, "odd")
	if l := labelOf(t, v, "long"); l.Values[0] != strings.Repeat("é", 32) {
		t.Errorf("%+v", l)
	}
	if l := labelOf(t, v, "odd"); l.Values[0] != "?\x00\r\n" || len(v.Labels) != 2 {
		t.Errorf("%+v", v.Labels)
	}
	v = onePoint(t, e, "cp")
	if len(v.Services) != maxSeenServices || len(v.Labels) > maxSeenKeys {
		t.Errorf("%d services, %d labels", len(v.Services), len(v.Labels))
	}
	for _, l := range v.Labels {
		if len(l.Values) > maxSeenValues || len(l.Values) != l.Distinct || l.Share < 0 || l.Share > 1 || !utf8.ValidString(l.Key) {
			t.Errorf("%+v", l)
		}
		for _, value := range l.Values {
			if len(value) > maxSeenValueSize || !utf8.ValidString(value) {
				t.Errorf("label %s has the value %q", l.Key, value)
			}
		}
	}
	if l := labelOf(t, v, "always"); !l.AtLeast || l.Distinct != maxSeenValues || l.Share < 0.2 { // it is not always among the labels looked at
		t.Errorf("%+v", l)
	}
	size := int64(0)
	for _, name := range []string{"cp", "odd"} {
		for key, k := range e.pointStats(name).seen.keys {
			size += int64(len(key) + 2*seenOverhead)
			for _, value := range k.values {
				size += int64(len(value) + seenOverhead)
			}
		}
	}
	if got := e.seenBytes.Load(); got != size {
		t.Errorf("%d bytes are accounted for, %d are there", got, size)
	}
}

// TestSeenBudget: when what all control points remember is large enough, nothing is added.
func TestSeenBudget(t *testing.T) {
	e := newEngine(t)
	e.seenBytes.Store(maxSeenBytes)
	start(e, "cp", "a", "b").Free()
	if v := onePoint(t, e, "cp"); len(v.Labels) != 0 || v.Flows != 1 {
		t.Errorf("%+v", v)
	}
	e.seenBytes.Store(0)
	start(e, "cp", "a", "b").Free()
	if v := onePoint(t, e, "cp"); len(v.Labels) != 1 || v.Labels[0].Share != 0.5 {
		t.Errorf("%+v", v)
	}
}

func TestLatestValuesFirst(t *testing.T) {
	e := newEngine(t)
	for _, v := range []string{"a", "b", "c", "a", "a"} {
		start(e, "cp", "k", v).Free()
	}
	if l := labelOf(t, onePoint(t, e, "cp"), "k"); !slices.Equal(l.Values, []string{"a", "c", "b"}) {
		t.Errorf("%v", l.Values)
	}
}

// TestWatchingConcurrently is for the race detector.
func TestWatchingConcurrently(t *testing.T) {
	e := newEngine(t)
	set := Set{
		Limiters:    []*LimiterSpec{rateSpec(1, "cp", "tier", label.Expr{}, wide)},
		Classifiers: []*ClassifierSpec{classifierSpec("p", 0, label.Expr{}, always("tier", "gold"))},
	}
	publish(t, e, set)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				r := Request{ControlPoint: "cp", Labels: map[string]string{"g": fmt.Sprint(g, i)}, HTTP: &classify.Request{Method: "GET"}}
				f := e.Start(context.Background(), &r)
				if len(f.Derived()) != 1 {
					t.Error("no label")
				}
				token := f.Seal(nil)
				f.Free()
				if _, err := e.ReleaseToken(token); err != nil {
					t.Error(err)
				}
				if _, err := e.EndToken(token, &Outcome{HTTPStatus: 200 + i%5}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			e.Points("", true)
			stop := e.Tap("cp", "", label.Equal("tier", "gold"), 10, func(Sample) {})
			if err := e.Publish(set); err != nil {
				t.Error(err)
			}
			stop()
		}
	})
	wg.Wait()
}

func FuzzCut(f *testing.F) {
	for _, s := range []string{"", "plain", strings.Repeat("é", 40), strings.Repeat("a", 62) + "€uro", strings.Repeat("\xff", 70), strings.Repeat("a", 61) + "\xf0\x9f\x98\x80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := cut(s)
		if len(got) > maxSeenValueSize || !utf8.ValidString(got) {
			t.Errorf("%q becomes %q", s, got)
		}
		if utf8.ValidString(s) && !strings.HasPrefix(s, got) {
			t.Errorf("%q is no beginning of %q", got, s)
		}
		if utf8.ValidString(s) && len(s) > maxSeenValueSize && len(got) < maxSeenValueSize-3 {
			t.Errorf("%q is shorter than it need be", got)
		}
	})
}
