// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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

// TestTapTellsVerdicts: flows are shown when they are decided, at once or after they waited, with the verdict.
func TestTapTellsVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, slotSpec(ConcurrencyScheduler, 1, "cp", "", 1))
		var got []Sample
		var mu sync.Mutex
		var late atomic.Int64
		stop := e.Tap("cp", "", label.Expr{}, 100, func(s Sample) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, s)
		})
		defer stop()
		first := wait(t.Context(), e, "cp", "n", "first")
		ctx, leave := context.WithCancel(t.Context())
		impatient, done := context.WithTimeout(t.Context(), 2*time.Second)
		defer done()
		began := time.Now()
		for name, ctx := range map[string]context.Context{"patient": t.Context(), "leaves": ctx, "impatient": impatient} {
			go func() {
				if f := wait(ctx, e, "cp", "n", name); f.Admitted() {
					f.End(Outcome{})
				} else {
					f.Free()
				}
			}()
		}
		synctest.Wait()
		if len(got) != 1 || e.heldBytes.Load() < 3*sampleOverhead {
			t.Errorf("%d flows were shown, want the one that is decided; %d bytes wait", len(got), e.heldBytes.Load())
		}
		e.Tap("cp", "", label.Equal("n", "patient"), 100, func(Sample) { late.Add(1) }) // sees flows that wait already
		time.Sleep(time.Second)
		leave()
		time.Sleep(2 * time.Second)
		first.End(Outcome{})
		time.Sleep(time.Second)
		want := []struct {
			name   string
			reason Reason
			waited time.Duration
		}{
			{"first", Admitted, 0},
			{"leaves", Cancelled, time.Second},
			{"impatient", QueueTimeout, 2 * time.Second},
			{"patient", Admitted, 3 * time.Second},
		}
		if len(got) != len(want) || late.Load() != 1 || e.heldBytes.Load() != 0 {
			t.Fatalf("%d and %d flows were shown, want %d and 1; %d bytes are left", len(got), late.Load(), len(want), e.heldBytes.Load())
		}
		for i, w := range want {
			s := got[i]
			if s.Verdict.Reason != w.reason && (w.name != "impatient" || s.Verdict.Reason != Cancelled) || s.Before["n"] != w.name ||
				s.Verdict.Admitted != (w.reason == Admitted) || s.Verdict.Waited != w.waited || !s.Began.Equal(began) {
				t.Errorf("got %v at %v with %+v, want %+v", s.Before, s.Began, s.Verdict, w)
			}
		}
	})
}

// TestTapTellsWhyDenied: the sample knows the limiter and its account, and when to come back.
func TestTapTellsWhyDenied(t *testing.T) {
	e := newEngine(t, rateSpec(7, "cp", "user", label.Expr{}, limit.BucketRule{Capacity: 1, FillAmount: 1, Interval: time.Hour, Continuous: true}))
	var got Sample
	e.Tap("cp", "", label.Expr{}, 100, func(s Sample) { got = s })
	r := &Request{ControlPoint: "cp", Labels: map[string]string{"user": "ann"}, Explain: true}
	e.Start(t.Context(), r).End(Outcome{})
	if v := got.Verdict; !v.Admitted || v.Reason != Admitted || v.Decisions != nil {
		t.Errorf("got %+v, want that it was admitted", v)
	}
	f := e.Start(t.Context(), r)
	v := got.Verdict
	if v.Message() != f.Verdict.Message() || v.RetryAfter != f.Verdict.RetryAfter || v.RetryAfter <= 0 || v.Reason != RateLimited ||
		v.Limiter.Policy != "policy-7" || v.Account() != "user:ann" {
		t.Errorf("got %+v, want %+v", v, f.Verdict)
	}
	if f.sample != nil {
		t.Error("the flow keeps its sample after it was shown")
	}
	f.Free()
}

// TestTapMemoryOfWaiting: samples of flows that wait take little memory, however many do; others are shown all the same.
func TestTapMemoryOfWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, slotSpec(ConcurrencyScheduler, 1, "cp", "", 1))
		var n atomic.Int64
		e.Tap("cp", "", label.Expr{}, 100, func(Sample) { n.Add(1) })
		first := wait(t.Context(), e, "cp")
		body := strings.Repeat("x", maxHeldBytes/4)
		for range 9 {
			go func() {
				wait(t.Context(), e, "cp", "n", body).End(Outcome{})
			}()
		}
		synctest.Wait()
		if held := e.heldBytes.Load(); held > maxHeldBytes || held < maxHeldBytes/2 {
			t.Errorf("%d bytes wait, want at most %d", held, maxHeldBytes)
		}
		first.End(Outcome{})
		synctest.Wait()
		start(e, "cp", "n", body).End(Outcome{})
		if n.Load() != 1+3+1 || e.heldBytes.Load() != 0 {
			t.Errorf("%d flows were shown, want 5; %d bytes are left", n.Load(), e.heldBytes.Load())
		}
	})
}

// TestTapStopsWhileFlowsWait: whoever stops is not called any more.
func TestTapStopsWhileFlowsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, slotSpec(ConcurrencyScheduler, 1, "cp", "", 1))
		first := wait(t.Context(), e, "cp")
		stop := e.Tap("cp", "", label.Expr{}, 100, func(s Sample) { t.Errorf("saw %+v", s) })
		go func() { wait(t.Context(), e, "cp").End(Outcome{}) }()
		synctest.Wait()
		stop()
		first.End(Outcome{})
		synctest.Wait()
		if n := e.heldBytes.Load(); n != 0 {
			t.Errorf("%d bytes are left", n)
		}
	})
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
