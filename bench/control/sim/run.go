// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math"
	"math/rand/v2"

	"github.com/sluice-project/sluice/internal/setpoint"
	"github.com/sluice-project/sluice/internal/wfq"
)

// Client is a kind of client. Clients are many: each flow comes regardless of what happened to others.
type Client struct {
	Name string
	// Rate is how many new flows come per second.
	Rate Curve
	// Priority is the weight in the queue; 0: 1.
	Priority float64
	// Timeout is when the client gives up, in seconds; what is done later is wasted. 0: never.
	Timeout float64
	// Retries is how often the client tries again, Backoff seconds after it was denied or gave up.
	Retries int
	Backoff float64
}

// Limits is what a policy lets through.
type Limits struct {
	// Concurrency is the most flows in the service at a time; infinite: any number.
	Concurrency float64
	// Rate is the most flows per second; infinite: any number.
	Rate float64
}

// Policy moves limits.
type Policy interface {
	// Interval is the time between ticks, in seconds.
	Interval() float64
	// Tick looks at what has been seen and returns the limits until the next tick. Counters never fall.
	Tick(now float64, seen *setpoint.Observation) Limits
}

// Sampler is a Policy that is told about every flow that ends.
type Sampler interface {
	Policy
	// Sample is told how long a flow was in the service, how many were when it came, and whether it failed.
	Sample(now, seconds float64, inFlight int, failed bool)
}

const (
	queueLength = 20000
	binSeconds  = 0.1
)

type flow struct {
	client  int32
	retries int32
	born    float64 // when its client asked, this time
	started float64
	work    float64
	at      int32 // in flight when it started
	state   uint8
	fails   bool
	handle  wfq.Handle
}

const (
	waiting uint8 = iota
	running
	left // the client has gone; the service does not know
	over
)

type eventKind uint8

const (
	arrive  eventKind = iota // of a client
	retry                    // of a flow of a client
	done                     // something in the service
	hung                     // the end of a flow that hung
	giveUp                   // the client of a flow
	unqueue                  // a flow waited too long
	tick
	look // at the curves
	refill
)

type event struct {
	at   float64
	kind eventKind
	n    int32
	flow *flow
}

// agenda is a heap of events.
type agenda []event

func (a *agenda) push(e event) {
	h := append(*a, e)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if h[up].at <= e.at {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = e
	*a = h
}

func (a *agenda) pop() event {
	h := *a
	top, last := h[0], h[len(h)-1]
	h[len(h)-1] = event{}
	h = h[:len(h)-1]
	for i := 0; len(h) > 0; {
		down := 2*i + 1
		if down+1 < len(h) && h[down+1].at < h[down].at {
			down++
		}
		if down >= len(h) || h[down].at >= last.at {
			h[i] = last
			break
		}
		h[i] = h[down]
		i = down
	}
	*a = h
	return top
}

type world struct {
	*Scenario
	policy   Policy
	sampler  Sampler // nil: the policy is none
	rand     *rand.Rand
	now      float64
	agenda   agenda
	shop     workshop
	limits   Limits
	queue    wfq.Queue[*flow]
	keys     []wfq.ClassKey
	inFlight int
	tokens   float64
	filled   float64 // when tokens was right
	refill   bool    // an event is on its way
	seen     setpoint.Observation
	result   Result
}

// Run simulates a scenario with a policy.
func Run(s *Scenario, p Policy, seed uint64) *Result {
	w := &world{Scenario: s, policy: p, rand: rand.New(rand.NewPCG(seed, 1))}
	w.sampler, _ = p.(Sampler)
	w.shop.Service, w.shop.scheduled = &s.Service, math.Inf(1)
	w.shop.refresh()
	w.seen.Durations = make([]uint64, setpoint.DurationBuckets)
	w.result.init(s)
	for i, c := range s.Clients {
		w.keys = append(w.keys, wfq.ClassKey{Workload: c.Name, Priority: max(c.Priority, 1e-9)})
		if c.Priority == 0 {
			w.keys[i].Priority = 1
		}
		w.agenda.push(event{at: w.gap(i), kind: arrive, n: int32(i)})
	}
	w.limits = p.Tick(0, &w.seen)
	w.agenda.push(event{at: w.Phase * p.Interval(), kind: tick})
	if w.Phase == 0 {
		w.agenda[len(w.agenda)-1].at = p.Interval()
	}
	w.agenda.push(event{kind: look})
	for w.now < s.Length {
		e := w.agenda.pop()
		w.now = e.at
		w.handle(e)
	}
	return &w.result
}

func (w *world) handle(e event) {
	switch e.kind {
	case arrive:
		if w.Clients[e.n].Rate(w.now) > 0 {
			w.arrive(&flow{client: e.n, retries: int32(w.Clients[e.n].Retries)})
		}
		w.agenda.push(event{at: w.now + w.gap(int(e.n)), kind: arrive, n: e.n})
	case retry:
		w.arrive(e.flow)
	case done:
		if e.at != w.shop.scheduled {
			return // there is an earlier one by now
		}
		w.shop.scheduled = math.Inf(1)
		w.shop.advance(w.now)
		w.finish()
	case hung:
		w.end(e.flow)
	case giveUp:
		w.giveUp(e.flow)
	case unqueue:
		if e.flow.state == waiting {
			w.queue.Remove(e.flow.handle)
			w.deny(e.flow)
		}
	case tick:
		w.tick()
	case look:
		w.shop.advance(w.now)
		w.finish()
		w.agenda.push(event{at: w.now + w.Step, kind: look})
	case refill:
		w.refill = false
		w.admit()
	}
}

// gap draws the time to the next arrival.
func (w *world) gap(client int) float64 {
	rate := w.Clients[client].Rate(w.now)
	if rate <= 0 {
		return w.Step
	}
	return min(w.rand.ExpFloat64()/rate, max(w.Step, 20/rate)) // look again after a change of rate
}

func (w *world) tick() {
	w.seen.InFlight, w.seen.Waiting = float64(w.inFlight), w.queue.Len()
	w.fillTokens()
	w.limits = w.policy.Tick(w.now, &w.seen)
	w.seen.DurationMin, w.seen.InFlightPeak = 0, float64(w.inFlight)
	w.result.limit(w.now, w.limits)
	w.agenda.push(event{at: w.now + w.policy.Interval(), kind: tick})
	w.admit()
}

// arrive lets a flow ask.
func (w *world) arrive(f *flow) {
	c := &w.Clients[f.client]
	f.born = w.now
	f.work = w.Service.Work.Draw(w.rand, w.now)
	f.fails = w.rand.Float64() < w.Service.outage(w.now)
	w.seen.IncomingTokens++
	if int(f.retries) == c.Retries {
		w.result.offered(w.now, f.client)
	}
	if c.Timeout > 0 {
		w.agenda.push(event{at: w.now + c.Timeout, kind: giveUp, flow: f})
	}
	if w.queue.Len() >= queueLength {
		w.deny(f)
		return
	}
	f.handle = w.queue.Push(w.keys[f.client], "", 1, f)
	w.admit()
	if f.state == waiting {
		w.agenda.push(event{at: w.now + w.Patience, kind: unqueue, flow: f})
	}
}

func (w *world) fillTokens() {
	if math.IsInf(w.limits.Rate, 1) {
		w.tokens = 0
	} else {
		w.tokens = min(w.tokens+(w.now-w.filled)*w.limits.Rate, max(1, w.limits.Rate))
	}
	w.filled = w.now
}

// admit starts flows as far as the limits let them.
func (w *world) admit() {
	w.fillTokens()
	for w.queue.Len() > 0 && float64(w.inFlight+1) <= w.limits.Concurrency {
		if !math.IsInf(w.limits.Rate, 1) {
			if w.tokens < 1-1e-9 {
				if !w.refill && w.limits.Rate > 0 {
					w.refill = true
					w.agenda.push(event{at: w.now + (1-w.tokens)/w.limits.Rate, kind: refill})
				}
				return
			}
			w.tokens--
		}
		f, _ := w.queue.Pop()
		w.start(f)
	}
}

func (w *world) start(f *flow) {
	w.inFlight++
	f.state, f.started, f.at = running, w.now, int32(w.inFlight)
	w.seen.Accepted++
	w.seen.AcceptedTokens++
	w.seen.InFlightPeak = max(w.seen.InFlightPeak, float64(w.inFlight))
	if f.fails {
		w.agenda.push(event{at: w.now + w.Service.Hang, kind: hung, flow: f})
		return
	}
	w.shop.advance(w.now)
	w.shop.add(f)
	w.schedule()
}

// schedule sees to an event when the service is done with something.
func (w *world) schedule() {
	const rounding = 1e-9
	if at := w.shop.next(); at < w.shop.scheduled-rounding {
		w.shop.scheduled = max(at, w.now)
		w.agenda.push(event{at: w.shop.scheduled, kind: done})
	}
}

// finish ends what the service is done with. REQUIRES the clock of the service to be right.
func (w *world) finish() {
	w.shop.refresh()
	w.shop.fill()
	for f := w.shop.pop(); f != nil; f = w.shop.pop() {
		w.shop.fill()
		w.end(f)
	}
	w.schedule()
}

// end takes a flow out of the service.
func (w *world) end(f *flow) {
	w.inFlight--
	seconds := w.now - f.started
	w.seen.Ended++
	w.seen.DurationSum += seconds
	w.seen.Durations[setpoint.DurationBucket(seconds)]++
	if w.seen.DurationMin == 0 || seconds < w.seen.DurationMin {
		w.seen.DurationMin = seconds
	}
	if f.fails {
		w.seen.Failed++
	}
	if w.sampler != nil {
		w.sampler.Sample(w.now, seconds, int(f.at), f.fails)
	}
	good := !f.fails && f.state == running
	w.result.ended(w.now, f, good)
	if f.fails && f.state == running {
		w.again(f)
	}
	f.state = over
	w.admit()
}

// deny turns a flow away.
func (w *world) deny(f *flow) {
	w.seen.Rejected++
	w.seen.RejectedTokens++
	f.state = over
	w.again(f)
}

// giveUp lets the client of a flow go.
func (w *world) giveUp(f *flow) {
	switch f.state {
	case waiting:
		w.queue.Remove(f.handle)
		w.deny(f)
	case running:
		f.state = left
		w.again(f)
	}
}

// again lets the client of a flow try again if it does.
func (w *world) again(f *flow) {
	if f.retries > 0 {
		backoff := w.Clients[f.client].Backoff * (0.5 + w.rand.Float64())
		w.agenda.push(event{at: w.now + backoff, kind: retry, flow: &flow{client: f.client, retries: f.retries - 1}})
	}
}
