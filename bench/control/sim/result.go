// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math"
	"slices"
)

// Result is what happened in a run.
type Result struct {
	scenario *Scenario
	// Good, Offered and Limit are by tenths of a second: flows that were done in time, flows that came
	// (tries again not counted), and the limit in force at the end; NaN: no tick.
	Good, Offered []float32
	Limit         []float32
	flows         []ended
	byClient      []float64 // done in time within the measured part
}

// ended is a flow that was done in time.
type ended struct {
	at      float32
	service float32 // seconds in the service
	total   float32 // since the client asked
	client  int32
}

func (r *Result) init(s *Scenario) {
	n := int(s.Length/binSeconds) + 2
	*r = Result{
		scenario: s, Good: make([]float32, n), Offered: make([]float32, n), Limit: make([]float32, n),
		byClient: make([]float64, len(s.Clients)),
	}
	for i := range r.Limit {
		r.Limit[i] = float32(math.NaN())
	}
}

func bin(t float64) int { return int(t / binSeconds) }

func (r *Result) offered(now float64, _ int32) { r.Offered[bin(now)]++ }

func (r *Result) limit(now float64, l Limits) {
	v := l.Concurrency
	if math.IsInf(v, 1) {
		v = l.Rate
	}
	r.Limit[bin(now)] = float32(v)
}

func (r *Result) ended(now float64, f *flow, good bool) {
	if !good {
		return
	}
	r.Good[bin(now)]++
	if now >= r.scenario.Warm {
		r.byClient[f.client]++
		r.flows = append(r.flows, ended{float32(now), float32(now - f.started), float32(now - f.born), f.client})
	}
}

// Ideal is how many flows could have been done between two times: what came, or what the service can do.
func (r *Result) Ideal(from, to float64) float64 {
	sum := 0.0
	for b := bin(from); b < bin(to); b++ {
		t := (float64(b) + 0.5) * binSeconds
		rate := 0.0
		for i := range r.scenario.Clients {
			rate += r.scenario.Clients[i].Rate(t)
		}
		sum += binSeconds * min(rate*(1-r.scenario.Service.outage(t)), r.scenario.Service.capacity(t))
	}
	return sum
}

// Done is how many flows were done in time between two times.
func (r *Result) Done(from, to float64) float64 {
	good := 0.0
	for b := bin(from); b < bin(to); b++ {
		good += float64(r.Good[b])
	}
	return good
}

// Goodput is what was done in time between two times, relative to what could have been.
func (r *Result) Goodput(from, to float64) float64 {
	return r.Done(from, to) / max(1, r.Ideal(from, to))
}

// Recovery is how long after a time it took until goodput over the next second stayed within a tenth of the
// ideal for 5 seconds, in seconds; at most until.
func (r *Result) Recovery(at, until float64) float64 {
	const window, stays = 1.0, 5.0
	since := math.Inf(1)
	for t := at; t < min(until, r.scenario.Length-window); t += binSeconds {
		if r.Goodput(t, t+window) < 0.9 {
			since = math.Inf(1)
			continue
		}
		since = min(since, t)
		if t-since >= stays {
			break
		}
	}
	if math.IsInf(since, 1) {
		return until - at
	}
	return since - at
}

// Latency is a quantile of the time that flows done between two times were in the service, and since their
// clients asked, in seconds.
func (r *Result) Latency(q, from, to float64) (service, total float64) {
	var a, b []float32
	for _, f := range r.flows {
		if t := float64(f.at); t >= from && t < to {
			a, b = append(a, f.service), append(b, f.total)
		}
	}
	return quantile(a, q), quantile(b, q)
}

func quantile(v []float32, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	slices.Sort(v)
	return float64(v[min(len(v)-1, int(q*float64(len(v))))])
}

// Limits are the limits in force between two times.
func (r *Result) Limits(from, to float64) []float64 {
	var out []float64
	for b := bin(from); b < bin(to); b++ {
		if v := float64(r.Limit[b]); !math.IsNaN(v) {
			out = append(out, v)
		}
	}
	return out
}

// Oscillation is the standard deviation of the limit between two times, relative to its mean.
func (r *Result) Oscillation(from, to float64) float64 {
	sum, squares, n := 0.0, 0.0, 0.0
	for _, v := range r.Limits(from, to) {
		sum, squares, n = sum+v, squares+v*v, n+1
	}
	mean := sum / n
	return math.Sqrt(max(0, squares/n-mean*mean)) / mean
}

// Share is the part of a client in all that was done in time in the measured part.
func (r *Result) Share(client int) float64 {
	sum := 0.0
	for _, n := range r.byClient {
		sum += n
	}
	return r.byClient[client] / sum
}
