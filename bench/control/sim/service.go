// SPDX-License-Identifier: Apache-2.0

// Package sim simulates services, their clients and a limit between them, in virtual time: to compare ways of
// finding the limit. A run is a function of its scenario, its policy and its seed.
package sim

import (
	"container/heap"
	"math"
	"math/rand/v2"
)

// Curve is a number that changes over time, in seconds since the run began. It should change at multiples
// of Scenario.Step only, which is how often it is looked at.
type Curve func(t float64) float64

// Constant is a Curve that stays.
func Constant(v float64) Curve { return func(float64) float64 { return v } }

// Steps is a Curve that begins with first and is pairs[i+1] from the time pairs[i] on.
func Steps(first float64, pairs ...float64) Curve {
	return func(t float64) float64 {
		v := first
		for i := 0; i+1 < len(pairs) && t >= pairs[i]; i += 2 {
			v = pairs[i+1]
		}
		return v
	}
}

// Line is a Curve that goes from a to b between the times from and to.
func Line(a, b, from, to float64) Curve {
	return func(t float64) float64 {
		return a + (b-a)*min(1, max(0, (t-from)/(to-from)))
	}
}

// Work is how long flows take at speed 1, in seconds.
type Work struct {
	// Mean is the mean at a time.
	Mean Curve
	// Draw draws a flow's.
	Draw func(r *rand.Rand, t float64) float64
}

// Exponential is Work of which much is short and some is long.
func Exponential(mean float64) Work {
	return Work{Constant(mean), func(r *rand.Rand, _ float64) float64 { return mean * r.ExpFloat64() }}
}

// Fixed is Work that always takes the same.
func Fixed(mean float64) Work {
	return Work{Constant(mean), func(*rand.Rand, float64) float64 { return mean }}
}

// Lognormal is Work with a tail: sigma is the standard deviation of the logarithm.
func Lognormal(mean, sigma float64) Work {
	mu := math.Log(mean) - sigma*sigma/2
	return Work{Constant(mean), func(r *rand.Rand, _ float64) float64 { return math.Exp(mu + sigma*r.NormFloat64()) }}
}

// Bimodal is Work that is short but for a share of long.
func Bimodal(short, long float64, share Curve) Work {
	return Work{
		func(t float64) float64 { return short + (long-short)*share(t) },
		func(r *rand.Rand, t float64) float64 {
			v := short
			if r.Float64() < share(t) {
				v = long
			}
			return v * (0.8 + 0.4*r.Float64())
		},
	}
}

// Service is a service that works on a number of flows at once and makes others wait, or slows all down.
type Service struct {
	// Workers is how many flows it works on at full speed: its true concurrency. 0: it stands still.
	Workers Curve
	// Speed is how fast each worker is; nil: 1. 0: it stands still, as in a pause of the garbage collector.
	Speed Curve
	Work  Work
	// Sharing makes flows beyond Workers share the speed, as on a processor; else they wait in line, as for
	// the connections of a pool.
	Sharing bool
	// Thrash is what flows beyond the workers cost: speed is divided by 1 + Thrash · (flows/workers − 1).
	Thrash float64
	// Outage is the share of flows that need something that does not answer: they hang for Hang seconds,
	// hold no worker, and fail. nil: none.
	Outage Curve
	Hang   float64
}

// capacity is how many flows per second the service can do.
func (s *Service) capacity(t float64) float64 {
	return s.Workers(t) * s.speed(t) / s.Work.Mean(t)
}

func (s *Service) speed(t float64) float64 {
	if s.Speed == nil {
		return 1
	}
	return s.Speed(t)
}

func (s *Service) outage(t float64) float64 {
	if s.Outage == nil {
		return 0
	}
	return s.Outage(t)
}

// job is a flow in the service.
type job struct {
	flow *flow
	ends float64 // on the clock of the workers
}

type jobs []job

func (j jobs) Len() int           { return len(j) }
func (j jobs) Less(a, b int) bool { return j[a].ends < j[b].ends }
func (j jobs) Swap(a, b int)      { j[a], j[b] = j[b], j[a] }
func (j *jobs) Push(x any)        { *j = append(*j, x.(job)) }
func (j *jobs) Pop() any {
	last := (*j)[len(*j)-1]
	*j = (*j)[:len(*j)-1]
	return last
}

// workshop is a Service at work. Workers have a clock of their own, which runs as fast as they do.
type workshop struct {
	*Service
	clock, rate, at float64 // clock of the workers, how fast it runs, and when that was so
	workers         int
	busy            jobs
	line            []*flow // wait inside the service
	lineHead        int
	scheduled       float64 // when the event for the next end comes
}

// advance brings the clock of the workers to now.
func (w *workshop) advance(now float64) {
	w.clock += (now - w.at) * w.rate
	w.at = now
}

// refresh looks at the curves and sets the pace. REQUIRES advance.
func (w *workshop) refresh() {
	c := w.Workers(w.at)
	w.workers = int(math.Round(c))
	w.rate = w.speed(w.at)
	if n := float64(len(w.busy)); w.Sharing && n > c {
		w.rate *= c / n
	}
	over := float64(len(w.busy)+len(w.line)-w.lineHead)/max(c, 1) - 1
	if w.Thrash > 0 && over > 0 {
		w.rate /= 1 + w.Thrash*over
	}
}

// add gives the service a flow. REQUIRES advance.
func (w *workshop) add(f *flow) {
	if w.Sharing || len(w.busy) < w.workers {
		heap.Push(&w.busy, job{f, w.clock + f.work})
	} else {
		w.line = append(w.line, f)
	}
	w.refresh()
}

// fill gives idle workers something to do. REQUIRES advance.
func (w *workshop) fill() {
	for !w.Sharing && len(w.busy) < w.workers && w.lineHead < len(w.line) {
		f := w.line[w.lineHead]
		w.line[w.lineHead] = nil
		w.lineHead++
		heap.Push(&w.busy, job{f, w.clock + f.work})
	}
	if w.lineHead == len(w.line) {
		w.line, w.lineHead = w.line[:0], 0
	}
	w.refresh()
}

// pop takes a flow out that is done by now, if there is one. REQUIRES advance.
func (w *workshop) pop() *flow {
	const rounding = 1e-9
	if len(w.busy) == 0 || w.busy[0].ends > w.clock+rounding {
		return nil
	}
	return heap.Pop(&w.busy).(job).flow
}

// next is when the next flow will be done; infinite: none.
func (w *workshop) next() float64 {
	if len(w.busy) == 0 || w.rate <= 0 {
		return math.Inf(1)
	}
	return w.at + max(0, w.busy[0].ends-w.clock)/w.rate
}
