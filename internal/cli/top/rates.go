// SPDX-License-Identifier: Apache-2.0

package top

import (
	"math"
	"time"

	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"
)

// reading is a number that may be unknown, for example a rate before the second overview.
type reading struct {
	value float64
	known bool
}

// frame is what one refresh shows: an overview, with counters turned into rates.
type frame struct {
	at                  time.Time     // of the overview, zero when the server did not say
	over                time.Duration // between the two overviews; 0 when rates are unknown
	admitRate, denyRate reading       // flows per second over all control points
	waiting             int64
	points              []point
	limiters            []limiter
	workloads           []workload
	accounts            []*observev1.Account
}

// point is a control point. Rates are flows per second.
type point struct {
	*observev1.ControlPoint
	admitRate, denyRate, unmatchedRate reading
}

// limiter is a component. Rates are flows per second.
type limiter struct {
	*observev1.Limiter
	admitRate, denyRate reading
}

// workload is a class of flows of one scheduler. Rates are flows per second.
type workload struct {
	*observev1.Workload
	policy, component   string
	admitRate, denyRate reading
	meanWait            reading // seconds, of the flows admitted between the two overviews
	share               reading // of the flows its scheduler admitted between the two overviews, 0 to 1
}

type limiterKey struct{ policy, component, kind string }

type workloadKey struct {
	limiterKey
	name string
}

func keyOf(l *observev1.Limiter) limiterKey {
	return limiterKey{l.GetPolicy(), l.GetComponent(), l.GetKind()}
}

// before is where the counters of the earlier overview are found. A row that it lacks began at zero
// since: the server omits what was never used, and a new policy counts from its start.
type before struct {
	seconds   float64 // between the overviews; 0: rates are unknown
	points    map[string]*observev1.ControlPoint
	limiters  map[limiterKey]*observev1.Limiter
	workloads map[workloadKey]*observev1.Workload
}

func newBefore(prev, next *observev1.Overview) before {
	b := before{
		points:    make(map[string]*observev1.ControlPoint),
		limiters:  make(map[limiterKey]*observev1.Limiter),
		workloads: make(map[workloadKey]*observev1.Workload),
	}
	if prev.GetTime() != nil && next.GetTime() != nil {
		b.seconds = max(0, next.GetTime().AsTime().Sub(prev.GetTime().AsTime()).Seconds())
	}
	for _, p := range prev.GetControlPoints() {
		b.points[p.GetName()] = p
	}
	for _, l := range prev.GetLimiters() {
		b.limiters[keyOf(l)] = l
		for _, w := range l.GetWorkloads() {
			b.workloads[workloadKey{keyOf(l), w.GetName()}] = w
		}
	}
	return b
}

// rate is events per second; unknown when the time between the overviews is.
func (b before) rate(prev, next uint64) reading {
	if b.seconds <= 0 {
		return reading{}
	}
	return reading{float64(increase(prev, next)) / b.seconds, true}
}

// increase is the growth of a counter. One that fell was reset in between, by a restart or a new policy:
// what it shows now is the growth since, and the part before the reset is lost.
func increase[N uint64 | float64](prev, next N) N {
	if next < prev {
		return next
	}
	return next - prev
}

// compare makes a frame from two successive overviews. prev is nil for the first one: rates are unknown.
func compare(prev, next *observev1.Overview) frame {
	b := newBefore(prev, next)
	f := frame{over: time.Duration(b.seconds * float64(time.Second)), accounts: next.GetAccounts()}
	if next.GetTime() != nil {
		f.at = next.GetTime().AsTime()
	}
	for _, p := range next.GetControlPoints() {
		old := b.points[p.GetName()]
		row := point{
			ControlPoint:  p,
			admitRate:     b.rate(old.GetAdmitted(), p.GetAdmitted()),
			denyRate:      b.rate(old.GetDenied(), p.GetDenied()),
			unmatchedRate: b.rate(old.GetUnmatched(), p.GetUnmatched()),
		}
		f.points = append(f.points, row)
		f.admitRate.value += row.admitRate.value
		f.denyRate.value += row.denyRate.value
		f.waiting += p.GetWaiting()
	}
	f.admitRate.known, f.denyRate.known = b.seconds > 0, b.seconds > 0
	for _, l := range next.GetLimiters() {
		old := b.limiters[keyOf(l)]
		f.limiters = append(f.limiters, limiter{
			Limiter:   l,
			admitRate: b.rate(old.GetAdmitted(), l.GetAdmitted()),
			denyRate:  b.rate(old.GetDenied(), l.GetDenied()),
		})
		f.workloads = append(f.workloads, compareWorkloads(b, l)...)
	}
	return f
}

func compareWorkloads(b before, l *observev1.Limiter) []workload {
	rows := make([]workload, 0, len(l.GetWorkloads()))
	var all float64
	for _, w := range l.GetWorkloads() {
		old := b.workloads[workloadKey{keyOf(l), w.GetName()}]
		row := workload{
			Workload: w, policy: l.GetPolicy(), component: l.GetComponent(),
			admitRate: b.rate(old.GetAdmitted(), w.GetAdmitted()),
			denyRate:  b.rate(old.GetDenied(), w.GetDenied()),
		}
		row.meanWait = meanWait(b, old, w)
		all += row.admitRate.value
		rows = append(rows, row)
	}
	if all > 0 {
		for i := range rows {
			rows[i].share = reading{rows[i].admitRate.value / all, true}
		}
	}
	return rows
}

// meanWait is unknown when no flow was admitted between the overviews. The two counters are reset
// together, but the total may not have grown yet when the count has, so either falling is a reset.
func meanWait(b before, old, w *observev1.Workload) reading {
	if b.seconds <= 0 {
		return reading{}
	}
	flows, seconds := w.GetAdmitted(), w.GetWaitSecondsTotal()
	if flows >= old.GetAdmitted() && seconds >= old.GetWaitSecondsTotal() {
		flows -= old.GetAdmitted()
		seconds -= old.GetWaitSecondsTotal()
	}
	mean := seconds / float64(flows)
	if flows == 0 || math.IsNaN(mean) || mean < 0 {
		return reading{}
	}
	return reading{mean, true}
}
