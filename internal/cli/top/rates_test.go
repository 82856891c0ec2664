// SPDX-License-Identifier: Apache-2.0

package top

import (
	"math"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"
)

func onePoint(at time.Duration, admitted, denied uint64) *observev1.Overview {
	return &observev1.Overview{
		Time:          timestamppb.New(t0.Add(at)),
		ControlPoints: []*observev1.ControlPoint{{Name: "a", Admitted: admitted, Denied: denied}},
	}
}

func TestRates(t *testing.T) {
	const s = time.Second
	unknown := reading{}
	per := func(v float64) reading { return reading{v, true} }
	noTime := onePoint(0, 10, 10)
	noTime.Time = nil
	for _, test := range []struct {
		name             string
		prev, next       *observev1.Overview
		admitted, denied reading
	}{
		{"first overview", nil, onePoint(0, 10, 1), unknown, unknown},
		{"one second", onePoint(0, 10, 1), onePoint(s, 15, 1), per(5), per(0)},
		{"half a second", onePoint(0, 10, 1), onePoint(s/2, 15, 2), per(10), per(2)},
		{"a long gap", onePoint(0, 10, 1), onePoint(100*s, 510, 1), per(5), per(0)},
		{"restart", onePoint(0, 1000, 100), onePoint(s, 7, 0), per(7), per(0)},
		{"restart that only one counter shows", onePoint(0, 1000, 1), onePoint(s, 7, 3), per(7), per(2)},
		{"new control point", &observev1.Overview{Time: timestamppb.New(t0)}, onePoint(2*s, 8, 0), per(4), per(0)},
		{"the same instant", onePoint(0, 10, 1), onePoint(0, 15, 1), unknown, unknown},
		{"clock stepped back", onePoint(s, 10, 1), onePoint(0, 15, 1), unknown, unknown},
		{"no time before", noTime, onePoint(s, 15, 1), unknown, unknown},
		{"no time after", onePoint(s, 15, 1), noTime, unknown, unknown},
		{"largest counter", onePoint(0, 0, 0), onePoint(s, math.MaxUint64, 0), per(math.MaxUint64), per(0)},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := compare(test.prev, test.next)
			got := f.points[0]
			if got.admitRate != test.admitted || got.denyRate != test.denied {
				t.Errorf("got %v admitted and %v denied, want %v and %v", got.admitRate, got.denyRate, test.admitted, test.denied)
			}
			if f.admitRate != test.admitted || f.denyRate != test.denied {
				t.Errorf("got totals %v and %v, want those of the only control point", f.admitRate, f.denyRate)
			}
		})
	}
}

func TestWorkloadRates(t *testing.T) {
	f := compare(overviewAt(0), overviewAt(2))
	if len(f.workloads) != 3 {
		t.Fatalf("got %d workloads, want 3", len(f.workloads))
	}
	for i, want := range []struct{ admit, share, wait reading }{
		{reading{15, true}, reading{0.75, true}, reading{0.1, true}},
		{reading{5, true}, reading{0.25, true}, reading{1.24, true}},
		{reading{0, true}, reading{0, true}, reading{}},
	} {
		got := f.workloads[i]
		if got.admitRate != want.admit || got.share != want.share || !near(got.meanWait, want.wait) {
			t.Errorf("%s: got %v, share %v, wait %v; want %v", got.GetName(), got.admitRate, got.share, got.meanWait, want)
		}
	}
}

func near(a, b reading) bool { return a.known == b.known && math.Abs(a.value-b.value) < 1e-9 }

func TestMeanWait(t *testing.T) {
	w := func(flows uint64, seconds float64) *observev1.Workload {
		return &observev1.Workload{Admitted: flows, WaitSecondsTotal: seconds}
	}
	for _, test := range []struct {
		name      string
		old, next *observev1.Workload
		want      reading
	}{
		{"some waited", w(10, 5), w(14, 7), reading{0.5, true}},
		{"nobody waited", w(10, 5), w(14, 5), reading{0, true}},
		{"nobody admitted", w(10, 5), w(10, 5), reading{}},
		{"new workload", nil, w(4, 2), reading{0.5, true}},
		{"restart", w(100, 500), w(4, 2), reading{0.5, true}},
		{"restart, more flows since than before", w(3, 500), w(4, 2), reading{0.5, true}},
		{"restart, longer waits since than before", w(100, 1), w(4, 2), reading{0.5, true}},
		{"restart, nothing since", w(100, 500), w(0, 0), reading{}},
		{"not a number", w(0, 0), w(1, math.NaN()), reading{}},
		{"negative", w(0, 0), w(1, -1), reading{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := meanWait(before{seconds: 1}, test.old, test.next); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
			if got := meanWait(before{}, test.old, test.next); got.known {
				t.Errorf("got %v without a time between the overviews, want unknown", got)
			}
		})
	}
}

// A limiter that came back with another kind is another limiter: its counters began at zero.
func TestChangedKind(t *testing.T) {
	prev := overviewAt(0)
	next := proto.CloneOf(prev)
	next.Time = timestamppb.New(t0.Add(time.Second))
	next.Limiters[1].Kind = "quota_scheduler"
	next.Limiters[1].Admitted = prev.Limiters[1].Admitted + 5
	if got, want := compare(prev, next).limiters[1].admitRate.value, float64(next.Limiters[1].Admitted); got != want {
		t.Errorf("got %g admitted per second, want %g", got, want)
	}
}

// Whatever two overviews say, no rate is negative and the shares of a scheduler add up to one.
func TestRatesProperty(t *testing.T) {
	overview := rapid.Custom(func(t *rapid.T) *observev1.Overview {
		o := onePoint(time.Duration(rapid.Int64Range(0, 1e12).Draw(t, "at")), rapid.Uint64().Draw(t, "admitted"), rapid.Uint64().Draw(t, "denied"))
		l := &observev1.Limiter{}
		for _, name := range rapid.SliceOfN(rapid.StringMatching("[a-c]"), 0, 4).Draw(t, "workloads") {
			l.Workloads = append(l.Workloads, &observev1.Workload{
				Name: name, Admitted: rapid.Uint64Range(0, 1000).Draw(t, "flows"),
				WaitSecondsTotal: rapid.Float64().Draw(t, "seconds"),
			})
		}
		o.Limiters = append(o.Limiters, l)
		return o
	})
	rapid.Check(t, func(t *rapid.T) {
		f := compare(overview.Draw(t, "prev"), overview.Draw(t, "next"))
		for _, p := range f.points {
			if p.admitRate.value < 0 || p.denyRate.value < 0 {
				t.Fatalf("negative rate %v or %v", p.admitRate, p.denyRate)
			}
		}
		var sum float64
		shared := false
		for _, w := range f.workloads {
			if w.admitRate.value < 0 || w.meanWait.value < 0 {
				t.Fatalf("negative rate %v or wait %v", w.admitRate, w.meanWait)
			}
			sum += w.share.value
			shared = shared || w.share.known
		}
		if shared && math.Abs(sum-1) > 1e-9 {
			t.Fatalf("shares add up to %g, want 1", sum)
		}
	})
}
