// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math"
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/circuit/component"
	"github.com/sluice-project/sluice/internal/setpoint"
)

// Static is a policy whose limits never change.
type Static Limits

// NoLimit is the policy of letting everything pass.
var NoLimit = Static{math.Inf(1), math.Inf(1)}

// Interval implements Policy.
func (Static) Interval() float64 { return 1 }

// Tick implements Policy.
func (s Static) Tick(float64, *setpoint.Observation) Limits { return Limits(s) }

// Adaptive is the policy of the component ConcurrencyController.
type Adaptive struct {
	interval   time.Duration
	tick       circuit.Tick
	controller *component.ConcurrencyController
	in, out    [2]float64
}

// NewAdaptive returns an Adaptive as a document without parameters has it.
func NewAdaptive(interval time.Duration) *Adaptive {
	return &Adaptive{
		interval:   interval,
		controller: component.NewConcurrencyController(component.ConcurrencyConfig{Min: 1, Max: 10000, Initial: 20}),
		tick:       circuit.Tick{Interval: interval},
		in:         [2]float64{circuit.Invalid()},
	}
}

// Interval implements Policy.
func (a *Adaptive) Interval() float64 { return a.interval.Seconds() }

// Tick implements Policy.
func (a *Adaptive) Tick(now float64, seen *setpoint.Observation) Limits {
	a.tick.Now = time.Unix(0, int64(now*1e9))
	a.controller.Feed(seen)
	a.out = [2]float64{circuit.Invalid(), circuit.Invalid()}
	a.controller.Step(&a.tick, a.in[:1], a.out[:])
	a.tick.Count++
	return Limits{Concurrency: a.out[0], Rate: math.Inf(1)}
}

// AIMD is the AIMD load scheduler steered by average latency: a rate limit that is cut in proportion when
// latency is over a multiple of its long-term average, and raised slowly otherwise.
type AIMD struct {
	period  int // ticks from one decision to the next
	lag     int // ticks that samples are old
	short   int // ticks of the short average
	window  int // ticks that the incoming rate is averaged over
	growth  float64
	usual   float64 // long-term average before the run, in seconds
	ticks   int
	history []setpoint.Observation
	extra   float64 // what is added to the observed load multiplier
	rate    float64 // what the limit is relative to, per second
	limits  Limits
}

const (
	tolerance     = 1.25
	longTerm      = 1800.0
	increment     = 0.025 // per ten seconds
	maxMultiplier = 2.0
	minGradient   = 0.1
)

// NewApertureAIMD is AIMD as Aperture 2 has it: metrics are scraped and decisions made every ten seconds,
// averages and rates are over 30 seconds. usual is the average latency in the half hour before, in seconds.
func NewApertureAIMD(usual float64) *AIMD {
	return &AIMD{period: 10, lag: 5, short: 30, window: 30, growth: math.Inf(1), usual: usual, extra: maxMultiplier, limits: Limits(NoLimit)}
}

// NewAIMD is AIMD as this project has it: a decision every second, on the averages of the last five.
func NewAIMD(usual float64) *AIMD {
	return &AIMD{period: 1, short: 5, window: 10, growth: 0.05, usual: usual, extra: maxMultiplier, limits: Limits(NoLimit)}
}

// Interval implements Policy.
func (*AIMD) Interval() float64 { return 1 }

// Tick implements Policy.
func (a *AIMD) Tick(_ float64, seen *setpoint.Observation) Limits {
	o := *seen
	o.Durations = nil
	a.history = append(a.history, o)
	a.ticks++
	if a.ticks%a.period != 0 || a.ticks <= a.lag+1 {
		return a.limits
	}
	last := a.history[len(a.history)-1-a.lag]
	before := a.history[max(0, len(a.history)-1-a.lag-a.short)]
	if last.Ended == before.Ended {
		return a.limits
	}
	signal := (last.DurationSum - before.DurationSum) / float64(last.Ended-before.Ended)
	// The average of the half hour has flows from before the run, which came as fast as those since.
	share := min(1, float64(a.ticks)/longTerm)
	setpointNow := tolerance * (a.usual*(1-share) + last.DurationSum/float64(last.Ended)*share)
	a.decide(signal, setpointNow)
	return a.limits
}

func (a *AIMD) decide(signal, setpoint float64) {
	last, before := a.history[len(a.history)-1], a.history[max(0, len(a.history)-1-a.window)]
	seconds := float64(min(a.window, len(a.history)-1))
	incoming := (last.IncomingTokens - before.IncomingTokens) / seconds
	observed := min(1, (last.AcceptedTokens-before.AcceptedTokens)/max(1, last.IncomingTokens-before.IncomingTokens))
	var multiplier float64
	if signal > setpoint {
		multiplier = observed * min(1, max(minGradient, setpoint/signal))
		a.extra = 0
	} else {
		a.extra = min(maxMultiplier, a.extra+increment*float64(a.period)/10)
		multiplier = observed + a.extra
	}
	if multiplier >= maxMultiplier {
		a.limits, a.rate = Limits(NoLimit), 0
		return
	}
	if a.rate > 0 && multiplier < 1 {
		incoming = min(incoming, a.rate*(1+a.growth*float64(a.period)))
	}
	a.rate = incoming
	a.limits = Limits{Concurrency: math.Inf(1), Rate: multiplier * incoming}
}

// sampled is what the limits of Netflix's concurrency-limits share: a new limit for each window of a second
// that has ten samples, from their average. Bounds are opened up to those of Adaptive.
type sampled struct {
	limit    float64
	sum      float64
	n        int
	most     int
	dropped  bool
	closesAt float64
	update   func(seconds float64, inFlight int, dropped bool)
}

const (
	sampleWindow = 1.0
	samples      = 10
	lowest       = 1
	highest      = 10000
	initial      = 20
)

// Interval implements Policy. The limit is looked at often, because it moves with the samples.
func (*sampled) Interval() float64 { return 0.1 }

// Tick implements Policy.
func (s *sampled) Tick(float64, *setpoint.Observation) Limits {
	return Limits{Concurrency: math.Floor(s.limit), Rate: math.Inf(1)}
}

// Sample implements Sampler.
func (s *sampled) Sample(now, seconds float64, inFlight int, failed bool) {
	if failed {
		s.dropped = true
	} else {
		s.sum += seconds
		s.n++
	}
	s.most = max(s.most, inFlight)
	if now < s.closesAt || s.n < samples {
		return
	}
	s.update(s.sum/float64(s.n), s.most, s.dropped)
	s.limit = min(highest, max(lowest, s.limit))
	s.sum, s.n, s.most, s.dropped, s.closesAt = 0, 0, 0, false, now+sampleWindow
}

// NewGradient2 is the policy Gradient2 of github.com/Netflix/concurrency-limits with its default settings,
// after its description: the limit follows the ratio of a long-term average of latency, with a tolerance,
// to the latest.
func NewGradient2() Sampler {
	const tolerance, smoothing, queue, warmup, window, recovery = 1.5, 0.2, 4, 10, 600.0, 0.95
	s := &sampled{limit: initial, closesAt: sampleWindow}
	long, n := 0.0, 0
	s.update = func(short float64, inFlight int, _ bool) {
		if n < warmup {
			n++
			long += (short - long) / float64(n)
		} else {
			long += (short - long) * 2 / (window + 1)
		}
		if long/short > 2 {
			long *= recovery
		}
		if float64(inFlight) < s.limit/2 {
			return
		}
		gradient := min(1, max(0.5, tolerance*long/short))
		s.limit += smoothing * (s.limit*gradient + queue - s.limit)
	}
	return s
}

// NewVegas is the policy Vegas of github.com/Netflix/concurrency-limits with its default settings, after
// its description: TCP Vegas (Brakmo, 1994), whose idea of the latency without a queue is the shortest seen
// since the last probe.
func NewVegas() Sampler {
	const probeEvery = 30
	s := &sampled{limit: initial, closesAt: sampleWindow}
	base, sinceProbe := math.Inf(1), 0.0
	s.update = func(short float64, inFlight int, dropped bool) {
		if sinceProbe++; sinceProbe >= probeEvery*s.limit {
			base, sinceProbe = short, 0
			return
		}
		if short < base {
			base = short
			return
		}
		root := max(1, math.Floor(math.Log10(s.limit)))
		queue := math.Ceil(s.limit * (1 - base/short))
		switch {
		case dropped:
			s.limit -= root
		case float64(inFlight)*2 < s.limit:
		case queue <= root:
			s.limit += 6 * root
		case queue < 3*root:
			s.limit += root
		case queue > 6*root:
			s.limit -= root
		}
	}
	return s
}
