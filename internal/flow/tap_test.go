// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/limit"
)

func TestTap(t *testing.T) {
	e := newEngine(t)
	publish(t, e, Set{
		Limiters:    []*LimiterSpec{rateSpec(1, "cp", "", label.Expr{}, limit.BucketRule{Interval: 1})}, // denies all
		Classifiers: []*ClassifierSpec{classifierSpec("p", 0, label.Expr{}, always("tier", "gold"))},
	})
	var got []Sample
	stop := e.Tap("cp", "shop", label.Equal("tier", "gold"), 10, func(s Sample) { got = append(got, s) })
	http := &classify.Request{Method: "PUT"}
	for _, r := range []*Request{
		{ControlPoint: "cp", Services: []string{"x", "shop"}, Labels: map[string]string{"tier": "free", "a": "b"}, HTTP: http},
		{ControlPoint: "cp", Services: []string{"x"}, HTTP: http},                                                // of another service
		{ControlPoint: "cp", Services: []string{"shop"}, Labels: map[string]string{"tier": "silver"}},            // not classified
		{ControlPoint: "else", Services: []string{"shop"}, HTTP: http},                                           // elsewhere
		{ControlPoint: "cp", Services: []string{"shop"}, HTTP: http, Labels: make(map[string]string, MaxLabels)}, // fits
		{Services: []string{"shop"}, HTTP: http},                                                                 // makes no sense
	} {
		e.Start(context.Background(), r).Free()
	}
	shape, err := NewShape("cp", []string{"tier", "n"}, []string{"shop"})
	if err != nil {
		t.Fatal(err)
	}
	e.Start(context.Background(), &Request{Shape: shape, Values: []string{"gold", "7"}}).Free()
	e.Start(context.Background(), &Request{Shape: shape, Values: []string{"gold"}}).Free() // makes no sense
	if len(got) != 3 {
		t.Fatalf("%d flows seen, want 3: %+v", len(got), got)
	}
	first := got[0]
	if first.Before["tier"] != "free" || first.Before["a"] != "b" || first.Before["http.method"] != "PUT" {
		t.Errorf("before: %v", first.Before)
	}
	want := maps.Clone(first.Before)
	want["tier"] = "gold"
	if !maps.Equal(first.After, want) {
		t.Errorf("after: %v, want %v", first.After, want)
	}
	if !slices.Equal(first.Services, []string{"x", "shop"}) || first.HTTP != http || len(first.Classifiers) != 1 {
		t.Errorf("%+v", first)
	}
	if last := got[2]; !maps.Equal(last.After, map[string]string{"tier": "gold", "n": "7"}) || last.HTTP != nil || !maps.Equal(last.Before, last.After) {
		t.Errorf("a flow with a shape: %+v", last)
	}
	stop()
	stop()
	if e.taps.Load() != nil {
		t.Error("somebody watches still")
	}
}

// TestTapLimit: a tap sees as many flows as it asked for and not one more, also of many goroutines, and goes away.
func TestTapLimit(t *testing.T) {
	e := newEngine(t)
	var seen, other atomic.Int64
	stop := e.Tap("cp", "", label.Expr{}, 1<<30, func(Sample) { other.Add(1) })
	e.Tap("cp", "", label.Expr{}, 100, func(Sample) { seen.Add(1) })
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				start(e, "cp").End(Outcome{})
			}
		})
	}
	wg.Wait()
	if seen.Load() != 100 || other.Load() != 2000 || e.Taps() != 1 {
		t.Errorf("saw %d, want 100, and %d, want 2000; %d taps are left", seen.Load(), other.Load(), e.Taps())
	}
	stop()
	if e.Taps() != 0 {
		t.Errorf("%d taps are left", e.Taps())
	}
}

func TestTapsAreBounded(t *testing.T) {
	e := newEngine(t)
	var stops []func()
	var seen [MaxTaps + 2]int
	for i := range MaxTaps + 1 {
		stops = append(stops, e.Tap("cp", "", label.Expr{}, 5, func(Sample) { seen[i]++ }))
	}
	start(e, "cp").Free()
	if e.Taps() != MaxTaps || seen[MaxTaps] != 0 || seen[MaxTaps-1] != 1 {
		t.Errorf("%d taps, %v", e.Taps(), seen)
	}
	stops[3]()
	stops[MaxTaps]() // of the one that was not taken
	e.Tap("cp", "", label.Expr{}, 0, func(Sample) { seen[MaxTaps+1]++ })
	if e.Taps() != MaxTaps-1 {
		t.Errorf("%d taps", e.Taps())
	}
	e.Tap("cp", "", label.Expr{}, 5, func(Sample) { seen[MaxTaps+1]++ })
	start(e, "cp").Free()
	if seen[3] != 1 || seen[4] != 2 || seen[MaxTaps+1] != 1 {
		t.Errorf("%v", seen)
	}
}

// TestTapMayStopItself: seen may call stop, and start and stop taps.
func TestTapMayStopItself(t *testing.T) {
	e := newEngine(t)
	n := 0
	var stop func()
	stop = e.Tap("cp", "", label.Expr{}, 100, func(Sample) {
		n++
		stop()
		e.Tap("cp", "", label.Expr{}, 1, func(Sample) { n += 10 })
	})
	for range 3 {
		start(e, "cp").Free()
	}
	if n != 11 {
		t.Errorf("%d, want one call of each", n)
	}
}

// TestFlowsOfTheOverflow: control points beyond those that are counted can be watched by their names.
func TestTapOfTheOverflow(t *testing.T) {
	cfg := newEngine(t).cfg
	cfg.MaxControlPoints = 1
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	start(e, "first").Free()
	n := 0
	e.Tap("second", "", label.Expr{}, 10, func(Sample) { n++ })
	start(e, "second").Free()
	start(e, "third").Free()
	if n != 1 {
		t.Errorf("%d flows seen, want 1", n)
	}
}

func BenchmarkTap(b *testing.B) {
	for _, taps := range []int{0, 1, MaxTaps} {
		b.Run(fmt.Sprint("taps=", taps), func(b *testing.B) {
			e := newEngine(b)
			for range taps {
				e.Tap("elsewhere", "", label.Expr{}, 1<<40, func(Sample) {})
			}
			runStartEnd(b, e, []string{"user"}, nil)
		})
	}
}
