// SPDX-License-Identifier: Apache-2.0

package component

import (
	"math"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/setpoint"
)

// ConcurrencyController finds how many flows a service can work on at once, and gives that number out as
// the limit of a concurrency scheduler in front of it. It needs no setpoint.
//
// What it knows comes from Feed, called once before each Step with the observation of the actuator, whose
// Durations have to be measured. A Step without Feed, which is one for an actuator that is not there,
// repeats the outputs. The first Feed, and one whose counters fell, are only where counting begins.
//
// The limit is in slots, a whole number from Min to Max, and is valid from the first tick on. is_overload is
// 1 while flows are held back by a limit that has been found, rather than one that is still growing.
// While overload_confirmation is valid and 0, the limit is at least twice what was in flight at the most, and
// nothing is an overload.
//
// # How it works
//
// Up to the number of flows that a service really works on at once, the time of each is the same, and
// throughput grows with the limit. Beyond it throughput stays and every time grows as the limit does,
// because flows wait inside the service. So the time a flow takes without waiting (the base) and the
// throughput give the number by Little's law, as bandwidth and delay do in BBR (Cardwell et al., 2016);
// and whether times follow the limit tells on which side of it the limit is, as in failsafe-go's adaptive
// limiter and Uber's Cinnamon, which correlate the two. Here the correlation is not waited for, but caused:
//
//   - The limit is kept a little higher (headroom) than needed. The short standing queue inside the service
//     is how more capacity is noticed: it vanishes, and the limit doubles.
//   - Now and then the limit goes below what is needed for a moment, and what flows take then is the base.
//     A base that is too high puts even that limit into the queue, where times are shorter than the base
//     says, so that it can only get better: there is no drift, which is what long-term averages suffer from
//     (Netflix concurrency-limits, gradient2).
//   - When times rise by themselves, either the service works on fewer flows or it is slower on each. The
//     limit is cut and set back while times are compared, until a sequential test (Wald, 1945) knows
//     whether times follow. If they do, flows were waiting, and the limit is cut. If they do not, cutting
//     would only cost throughput: the base is what flows take now.
//
// "Time" is a mean of logarithms, which rare slow flows hardly move. Failed flows cost slots but are no
// result, so time is counted per flow that did not fail: time-outs, however constant, look slow.
//
// In: overload_confirmation. Out: max_concurrency, is_overload.
type ConcurrencyController struct {
	config ConcurrencyConfig
	seen   setpoint.Observation // counters of the last Feed; Durations is not used
	counts [setpoint.DurationBuckets]uint64
	begun  bool      // seen is valid
	fed    bool      // since the last Step
	now    sightings // this tick
	window sightings // since the limit was changed or times were measured
	settle int64     // ticks until what ends was started under the limit in force

	limit   float64
	base    float64 // logarithm of the time without waiting
	known   bool    // base is valid
	spread  float64 // standard error of the logarithm of time, of one flow
	renewal float64 // of the last measurement
	shape   float64 // logarithm of what time is relative to the arithmetic mean
	found   bool    // times have followed the limit once, so that it is not just growing
	grew    float64 // the limit before it was raised, until times are as they should be; 0: it was not
	grewAt  float64 // what d was then
	grown   int     // how often it was raised in a row
	again   bool    // a trial has just ended where it began
	much    float64 // a limit that was too much lately
	muchFor int     // measurements until it is forgotten
	mode    mode
	trial   trial
	calm    int     // measurements since something was done
	usual   float64 // how much longer than the base flows take when all is calm, as a logarithm
	usualAt float64 // the limit that was so at
	probe   int     // calm measurements until the next probe
	alive   float64 // the limit before everything began to fail; 0: not so
	over    bool
	free    float64 // a limit that holds nothing back, while it should not; 0: it may
}

// ConcurrencyConfig configures a ConcurrencyController.
type ConcurrencyConfig struct {
	// Min and Max bound the limit, in slots: 1 <= Min <= Max.
	Min, Max float64
	// Initial is the limit to begin with. It is brought into the bounds.
	Initial float64
}

// mode is what a measurement is for.
type mode uint8

const (
	hold    mode = iota // nothing in particular
	lowered             // whether times fell after the limit did
	raised              // whether they rise when it is back
	probing             // the base
)

// trial compares times under two limits.
type trial struct {
	high, low     float64 // limits
	lnHigh, lnLow float64 // logarithms of times
	varHigh       float64 // their variances
	varLow        float64
	usual         float64 // how much longer than the base flows took before the trial, as a logarithm
	mixed         bool    // lnHigh may be of before and after a change
	odds          float64 // logarithm of the odds that times follow the limit
	rounds        int
}

const (
	// headroom is the part of the limit that is meant to wait inside the service, so that more capacity is
	// noticed; at least one flow. Less is not told from noise at once, more is waiting for nothing.
	headroom = 0.2
	// minEnded and maxError say when a measurement is good enough: enough flows have ended, and the error
	// of the logarithm of their time is small.
	// At once or to say how times vary, it takes more.
	minEnded  = 8
	manyEnded = 50
	maxError  = 0.05
	// otherError is what is added to the error: flows that end together are not independent.
	otherError = 0.02
	// surprise is the difference, in errors, that ends a measurement at once.
	surprise = 5
	// doubt is how many errors a time may be off before something is done.
	doubt = 3
	// cutBy is what remains of the limit when times rise by themselves.
	cutBy = 0.6
	// sure are the log odds at which a trial ends (about twenty to one), and maxRounds how many comparisons
	// it may take.
	sure, maxRounds = 3, 8
	// firstProbe and lastProbe are the least and the most measurements between probes. A probe that finds
	// the base as it was doubles the number.
	firstProbe, lastProbe = 6, 48
	// patience is how long a good measurement may take; a fair one will do after that. In renewals.
	patience = 4
	// mixture is the part of a tick in which flows may end that were started under an earlier limit.
	mixture = 0.3
	// recently is for how many measurements a limit that was too much is remembered.
	recently = 5
	// below is how far under the number needed a probe goes, and farBelow the same while no probe has
	// confirmed the base.
	below, farBelow = 0.95, 0.75
	// recall is how much of the difference that one measurement makes to the base counts.
	recall = 0.3
	// deadShare is the share of results from which on a service is alive; deadLimit how far the limit falls
	// while it is not.
	deadShare, deadLimit = 0.2, 0.125
)

// NewConcurrencyController returns a ConcurrencyController.
func NewConcurrencyController(c ConcurrencyConfig) *ConcurrencyController {
	k := &ConcurrencyController{config: c, probe: firstProbe}
	k.set(c.Initial)
	k.settle = 0
	return k
}

// Feed takes what has been seen at the actuator up to now. It keeps nothing of o.
func (c *ConcurrencyController) Feed(o *setpoint.Observation) {
	c.fed = true
	again := !c.begun || o.Ended < c.seen.Ended || o.Rejected < c.seen.Rejected || o.DurationSum < c.seen.DurationSum
	for i := range min(len(o.Durations), len(c.counts)) {
		if !again && o.Durations[i] > c.counts[i] {
			c.now.counts[i] += o.Durations[i] - c.counts[i]
		}
		c.counts[i] = o.Durations[i]
	}
	if again {
		c.now, c.window = sightings{}, sightings{}
	} else {
		c.now.add(&c.seen, o, c.limit)
	}
	c.begun = true
	c.seen = *o
	c.seen.Durations = nil
}

// Step implements circuit.Component.
func (c *ConcurrencyController) Step(t *circuit.Tick, in, out []float64) {
	if c.fed {
		c.fed = false
		c.tick(t.Interval.Seconds(), truthOf(in[0]) == no)
	}
	out[0], out[1] = max(c.limit, c.free), reading(c.over)
}

// tick looks at what the window has.
func (c *ConcurrencyController) tick(interval float64, free bool) {
	held, peak := c.now.held, c.now.peak
	c.now.seconds, c.now.ticks = interval, 1
	if held {
		c.now.heldTicks = 1
	}
	c.window.merge(&c.now)
	c.now = sightings{}
	if c.settle > 0 {
		c.settle--
		c.window = sightings{}
	} else if m, ok := c.measure(); ok {
		before := c.limit
		c.renewal = m.renewal
		m.held = m.held && c.free == 0
		c.act(&m)
		c.window = sightings{}
		if c.limit != before {
			c.settle = int64(min(maxTicks, math.Ceil(m.renewal/interval-mixture)))
		}
	}
	c.over = held && c.found && c.grew == 0 && !free
	c.free = 0
	if free {
		c.free = clamp(math.Ceil(2*peak), c.config.Min, c.config.Max)
	}
}

// set brings the limit to a whole number within the bounds.
func (c *ConcurrencyController) set(limit float64) {
	c.limit = clamp(math.Round(limit), c.config.Min, c.config.Max)
}

// act decides on the limit after a measurement.
func (c *ConcurrencyController) act(m *measurement) {
	if c.failing(m) {
		return
	}
	if !c.known {
		c.base, c.known = m.ln, true
	}
	if !m.held {
		c.quiet(m)
		return
	}
	switch c.mode {
	case lowered:
		c.judgeLow(m)
	case raised:
		c.judgeHigh(m)
	case probing:
		c.probed(m)
	default:
		c.regulate(m)
	}
}

// failing lowers the limit while nothing succeeds, for nothing is lost by that, and sets it back when
// something does. It reports whether the measurement says no more than that.
func (c *ConcurrencyController) failing(m *measurement) bool {
	switch {
	case m.good > 0 && c.alive == 0:
		return false
	case m.good < deadShare:
		if c.alive == 0 {
			c.alive = c.limit
			if c.mode != hold {
				c.alive, c.mode = c.trial.high, hold
			}
		}
		c.set(max(c.alive*deadLimit, c.limit*cutBy))
	default:
		c.set(c.alive)
		c.alive, c.calm = 0, 0
	}
	return true
}

// quiet learns the base while the limit is not in the way, and what the limit would be while it is not in
// force.
func (c *ConcurrencyController) quiet(m *measurement) {
	if c.mode != hold {
		c.set(c.trial.high)
		c.mode = hold
	}
	c.calm = 0
	d := m.ln - c.base
	if m.used > c.limit+1 { // more than the limit: it is not in force
		need := m.used * math.Exp(-max(0, d))
		c.set(need * math.Exp(room(math.Round(need))))
		return
	}
	if d < 0 || m.used < 0.7*c.limit/(1+headroom) {
		c.base += recall * d
	}
}

// room is how much longer flows should take than the base, as a logarithm.
func room(need float64) float64 { return math.Log1p(max(headroom, 1/max(1, need))) }

// most is how much longer than the base flows may take before something is done about it, as a logarithm.
func (c *ConcurrencyController) most(room float64, m *measurement) float64 {
	return max(room, c.usual) + max(0.05, doubt*m.err)
}

// regulate keeps the limit where flows wait a little.
func (c *ConcurrencyController) regulate(m *measurement) {
	if c.muchFor--; c.muchFor <= 0 {
		c.much = 0
	}
	d := m.ln - c.base
	if d < -doubt*m.err {
		// The service is faster. If no less waits than before, this is the base; a probe will tell.
		c.base, c.probe, c.calm = m.ln-c.usual, firstProbe, firstProbe/2
		c.grew, c.grown = 0, 0
		return
	}
	need := c.limit * math.Exp(-max(0, d))
	room := room(math.Round(need))
	switch {
	case d > c.most(room, m):
		c.cut(m, d, room, need)
	case (d < room-max(2*m.err, room/2) || d < room+2*m.err && !c.found) && m.used > c.limit/2:
		c.grow(d, room, d < c.usual-2*m.err)
	default:
		c.grew, c.grown = 0, 0
		c.calm++
		c.again = c.again && c.calm < 3
		c.usual += recall * (min(max(0, d), 1.5*room) - c.usual)
		c.usualAt = c.limit
		if c.calm >= c.probe || c.calm > 3 && d > 1.5*room+m.err {
			depth := below
			if c.probe == firstProbe {
				depth = farBelow
			}
			c.startProbe(m, depth*need)
		}
	}
}

// grow raises the limit: by half of the headroom first, then or when flows suddenly
// do not wait any more twofold, but no more than half of the way to what was too much lately.
func (c *ConcurrencyController) grow(d, room float64, sudden bool) {
	next := 2 * c.limit
	if c.found && !(sudden && c.limit >= 0.9*c.usualAt) {
		next = c.limit * min(2, math.Exp(room/2*math.Pow(3, float64(c.grown))))
	}
	if c.much > c.limit && next >= c.much {
		next = math.Sqrt(c.limit * c.much)
	}
	before := c.limit
	c.set(max(c.limit+1, next))
	if c.limit == c.much {
		c.limit = before
		return
	}
	c.grew, c.grewAt, c.calm = before, d, 0
	c.grown++
}

// cut lowers the limit. What rose because the limit was raised is put right at once. Otherwise a trial
// begins.
func (c *ConcurrencyController) cut(m *measurement, d, room, need float64) {
	c.calm = 0
	if c.grew > 0 {
		c.found, c.much, c.muchFor = true, c.limit, recently
		c.set(between(c.grew, c.limit, c.grewAt, d, room))
		c.grew, c.grown = 0, 0
		return
	}
	low := max(c.config.Min, math.Floor(max(need, cutBy*c.limit)))
	if low >= c.limit { // nothing to compare with, and nothing to lose by believing it
		c.base += recall * d
		return
	}
	c.trial = trial{high: c.limit, low: low, lnHigh: m.ln, varHigh: m.err * m.err, mixed: true, usual: c.usual}
	c.mode = lowered
	c.set(low)
}

// weigh adds a comparison to the odds. If flows wait, times fall as the limit does; if they only take longer,
// they fall by what they waited before.
func (t *trial) weigh() {
	wait := math.Log(t.high / t.low)
	longer := min(t.usual, 0.6*wait)
	t.odds += (t.lnHigh - t.lnLow - (wait+longer)/2) * (wait - longer) / (t.varHigh + t.varLow)
	t.rounds++
}

// trust is how much of a difference to the base counts: most of it when it is not noise.
func (*ConcurrencyController) trust(d, err float64) float64 {
	if math.Abs(d) < 2*err {
		return recall
	}
	return (1 + recall) / 2
}

// judgeLow compares times after the limit was lowered.
func (c *ConcurrencyController) judgeLow(m *measurement) {
	t := &c.trial
	t.lnLow, t.varLow = m.ln, m.err*m.err
	t.weigh()
	switch {
	case t.odds > sure:
		c.follow(m)
	case !t.mixed && t.odds < -sure:
		c.believe()
	default:
		if t.mixed {
			t.mixed, t.odds, t.rounds = false, 0, 0
		}
		c.mode = raised
		c.set(t.high)
	}
}

// judgeHigh compares times after the limit was set back.
func (c *ConcurrencyController) judgeHigh(m *measurement) {
	t := &c.trial
	t.lnHigh, t.varHigh = m.ln, m.err*m.err
	t.weigh()
	d := m.ln - c.base
	switch {
	case d < c.most(room(math.Round(c.limit*math.Exp(-max(0, d)))), m):
		c.mode = hold // it has passed
	case t.odds > sure || t.rounds >= maxRounds && t.odds > 0:
		c.follow(m)
	case t.odds < -sure || t.rounds >= maxRounds:
		c.believe()
	default:
		c.mode = lowered
		c.set(t.low)
	}
}

// follow ends a trial: times follow the limit, so there is a queue, and the limit may be cut.
func (c *ConcurrencyController) follow(m *measurement) {
	c.mode, c.found = hold, true
	d := m.ln - c.base
	need := c.limit * math.Exp(-max(0, d))
	room := room(math.Round(need))
	t := &c.trial
	switch fell := t.lnHigh - t.lnLow; {
	case d >= room/2:
		c.set(max(need*math.Exp(room), cutBy*t.low))
	case !c.again || fell > 1.5*math.Log(t.high/t.low): // perhaps what it was is over
		c.again = true
		c.set(t.high)
	default:
		c.base += c.trust(d, m.err) * d
		c.set(min(t.high, t.low*math.Exp(room-d)))
	}
}

// believe ends a trial: times do not follow the limit, so they are the new base.
func (c *ConcurrencyController) believe() {
	t := &c.trial
	longer := min(t.usual, 0.6*math.Log(t.high/t.low))
	c.base = (t.lnLow*t.varHigh + (t.lnHigh-longer)*t.varLow) / (t.varLow + t.varHigh)
	c.mode, c.probe, c.calm = hold, firstProbe, 0
	c.found, c.much = false, 0
	c.set(t.high)
}

// startProbe lowers the limit under what is needed.
func (c *ConcurrencyController) startProbe(m *measurement, low float64) {
	low = max(c.config.Min, math.Floor(low))
	c.calm = 0
	if low >= c.limit {
		return
	}
	c.trial = trial{high: c.limit, low: low, lnHigh: m.ln, varHigh: m.err * m.err}
	c.mode = probing
	c.set(low)
}

// probed learns the base from a probe. While times were waiting even then, it goes on downwards.
func (c *ConcurrencyController) probed(m *measurement) {
	t := &c.trial
	d := m.ln - c.base
	fell := t.lnHigh - m.ln
	if fell > 2*math.Log(t.high/t.low) && t.low < t.high { // more than a queue explains: the service is faster
		c.mode, c.base, c.probe = hold, m.ln, firstProbe
		c.set(t.high)
		return
	}
	if d < -doubt*m.err && fell > 0.6*math.Log(t.high/t.low) && t.low > c.config.Min {
		c.base, c.probe = m.ln, firstProbe
		*t = trial{high: t.low, low: max(c.config.Min, math.Floor(0.75*t.low)), lnHigh: m.ln, varHigh: m.err * m.err}
		c.set(t.low)
		return
	}
	c.mode = hold
	if math.Abs(d) < doubt*m.err {
		c.probe = min(2*c.probe, lastProbe)
	} else {
		c.probe = firstProbe
	}
	c.base += c.trust(d, m.err) * d
	c.set(between(t.low, t.high, m.ln-c.base, t.lnHigh-c.base, room(t.low)))
}

// between is the limit from low to high at which times would be as much longer than the base as they
// should, given how much longer they are at both, as logarithms.
func between(low, high, atLow, atHigh, should float64) float64 {
	if atHigh <= should || atHigh <= atLow {
		return high
	}
	return low * math.Pow(high/low, clamp((should-atLow)/(atHigh-atLow), 0, 1))
}

// sightings adds up what happened.
type sightings struct {
	ended, failed uint64
	sum           float64 // of the times of flows, in seconds
	counts        [setpoint.DurationBuckets]uint64
	seconds       float64
	inFlight      float64 // sum over ticks
	peak          float64
	ticks         int
	heldTicks     int  // ticks with held
	held          bool // flows had to wait for the limit, or were turned away
}

// add adds what was seen since before.
func (w *sightings) add(before, o *setpoint.Observation, limit float64) {
	w.ended += o.Ended - before.Ended
	w.failed += max(o.Failed, before.Failed) - before.Failed
	w.sum += o.DurationSum - before.DurationSum
	w.inFlight = o.InFlight
	w.peak = max(w.peak, o.InFlightPeak, o.InFlight)
	w.held = w.held || w.peak > limit-1 && (o.Waiting > 0 || o.Rejected > before.Rejected)
}

// merge adds a later window. Times from before the limit was reached say nothing about the limit: they are
// forgotten when it is.
func (w *sightings) merge(next *sightings) {
	if next.held && w.heldTicks == 0 {
		*w = *next
		return
	}
	for i, n := range next.counts {
		w.counts[i] += n
	}
	w.ended += next.ended
	w.failed += next.failed
	w.sum += next.sum
	w.seconds += next.seconds
	w.inFlight += next.inFlight
	w.peak = max(w.peak, next.peak)
	w.ticks += next.ticks
	w.heldTicks += next.heldTicks
}

// times is the logarithm of a mean of the times, and its standard error. It is the square of the mean of
// the roots, which rare slow flows move less than the mean. The buckets only give it its shape: it is scaled
// so that the mean would be right.
//
// renewal is how long it takes until most slots have been given back once, in seconds: the mean time of
// flows, weighted by time.
func (w *sightings) times() (ln, err, renewal float64) {
	n, roots, total, squares := 0.0, 0.0, 0.0, 0.0
	for i, count := range w.counts {
		if count > 0 {
			mid, k := setpoint.DurationBound(i)*bucketMiddle, float64(count)
			n, roots, total, squares = n+k, roots+k*math.Sqrt(mid), total+k*mid, squares+k*mid*mid
		}
	}
	mean := w.sum / float64(w.ended)
	if n == 0 { // not measured: assume an exponential distribution
		return math.Log(mean), 1 / math.Sqrt(float64(w.ended)), 2 * mean
	}
	squared := roots * roots / n
	return math.Log(squared * mean / total), 2 * math.Sqrt(max(0, total/squared-1)/n), squares / total * mean * n / total
}

// bucketMiddle is the geometric middle of a bucket of durations, relative to its upper bound.
const bucketMiddle = 0.917

// measurement is what a window says.
type measurement struct {
	ln      float64 // logarithm of the time per result, in seconds; +Inf: no results
	err     float64 // its standard error
	mean    float64 // of the time of flows, in seconds
	renewal float64 // how long it takes until a change of the limit shows, in seconds
	good    float64 // share of flows that did not fail
	used    float64 // flows in the service on average
	held    bool    // the limit was in the way, at least half of the time
}

// fewFail is the share of failed flows up to which time is counted per flow rather than per result.
const fewFail = 0.02

// measure reads the window, if it is worth it.
func (c *ConcurrencyController) measure() (m measurement, ok bool) {
	w := &c.window
	if w.ended < minEnded || !(w.sum > 0) {
		return m, false
	}
	n := float64(w.ended)
	m = measurement{mean: w.sum / n, good: 1 - float64(min(w.failed, w.ended))/n, held: 2*w.heldTicks >= w.ticks && w.heldTicks > 0}
	m.used = w.sum / w.seconds
	if m.mean > w.seconds/2 {
		m.used = w.inFlight / float64(w.ticks)
	}
	m.ln, m.err, m.renewal = w.times()
	if w.seconds < max(m.renewal, c.renewal) || !c.known && w.seconds < 3*m.renewal { // the short ones come first
		return m, m.good == 0
	}
	spread := m.err * math.Sqrt(n)
	if n >= manyEnded {
		c.spread += recall * (spread - c.spread)
	}
	m.err = max(spread, c.spread) / math.Sqrt(n) // few flows may be alike by chance
	m.err *= math.Sqrt(1 + m.renewal/w.seconds)  // flows that were there together are alike
	if 1-m.good > fewFail {
		// Failures may be much shorter or longer than results. What counts is the time in slots per result.
		m.ln = max(m.ln, math.Log(m.mean)+c.shape) - math.Log(m.good)
		m.err = math.Hypot(m.err, math.Sqrt((1-m.good)/max(m.good*n, 1)))
	} else {
		d := m.ln - math.Log(m.mean)
		if !c.known {
			c.shape = d
		}
		c.shape += recall * (d - c.shape)
	}
	m.err = math.Hypot(m.err, otherError)
	enough := maxError
	if !m.held || !c.found || c.mode == lowered || c.mode == raised || w.seconds > patience*m.renewal {
		enough *= 2 // trials weigh the error
	}
	return m, m.err <= enough || c.alive > 0 || c.known && n >= manyEnded && math.Abs(m.ln-c.base-c.usual) > surprise*m.err
}
