// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/sched"
	"github.com/sluice-project/sluice/internal/setpoint"
)

// Steer puts setpoints into force. Those for actuators that are not there, are not driven or have another
// hash, and those older than the one in force, change nothing: publish a policy before its circuit sends
// setpoints. Flows that wait go on as far as the new numbers let them. Numbers that make no sense are
// brought into range, and one that is not a number lets everything pass.
//
// Steer takes no lock that a decision waits for, except while a limiter's accounts are told a new rule.
func (e *Engine) Steer(setpoints []setpoint.Setpoint) {
	var wakes sched.Wakes
	now := e.authority.Now()
	refs := e.snapshot.Load().byRef
	for i := range setpoints {
		sp := &setpoints[i]
		l := refs[sp.Ref]
		if l == nil || !l.steer(sp, now) || l.queue == nil {
			continue
		}
		if l.queue.Waiting() == 0 && l.spec.Load().LimitBy == "" {
			l.queue.Freed("", now, &wakes) // a flow may be about to wait, having been refused under the old numbers
		} else {
			l.queue.FreedAll(now, &wakes)
		}
		wakes.Run()
	}
}

// steer puts one setpoint into force and tells whether it did.
func (l *limiter) steer(sp *setpoint.Setpoint, now limit.Instant) bool {
	l.steering.Lock()
	defer l.steering.Unlock()
	cur := l.spec.Load()
	if !cur.Driven || sp.Hash != cur.Hash || sp.Hash == l.setHash && sp.Version < l.setVersion {
		return false
	}
	l.setHash, l.setVersion = sp.Hash, sp.Version
	lapses := limit.Instant(0)
	if !sp.Expires.IsZero() {
		lapses = max(1, now.Add(time.Until(sp.Expires)))
	}
	next := *cur
	next.PassThrough = sp.PassThrough || lapses != 0 && lapses <= now
	if !next.PassThrough {
		next.PassThrough = !l.numbers(&next, sp, now)
	}
	if next.PassThrough {
		lapses = 0
		l.passLocked(&next, sp, now)
	} else {
		l.known = true
	}
	l.announce(&next)
	l.spec.Store(&next)
	l.lapses.Store(int64(lapses))
	return true
}

// numbers brings the numbers of a setpoint into a spec. It returns false when one of them is none. REQUIRES
// steering.
func (l *limiter) numbers(spec *LimiterSpec, sp *setpoint.Setpoint, now limit.Instant) bool {
	ok := true
	number := func(v, most float64) float64 {
		ok = ok && !math.IsNaN(v)
		return min(max(v, 0), most)
	}
	switch {
	case spec.Kind.hasBucket():
		capacity, fill := number(sp.BucketCapacity, limit.MaxTokens), number(sp.FillAmount, limit.MaxTokens)
		if ok {
			spec.Bucket.Capacity, spec.Bucket.FillAmount = capacity, fill
		}
	case spec.Kind.holdsSlots():
		if slots := number(sp.MaxConcurrency, limit.MaxTokens); ok {
			spec.Slots.Max = slots
		}
	case spec.Kind == LoadScheduler:
		if lm := number(sp.LoadMultiplier, maxMultiplier); ok {
			l.reprice(sp.WorkloadTokens, now)
			spec.Bucket = l.load.steer(lm, now)
		}
	case spec.Sample != nil:
		if p := number(sp.AcceptPercentage, 100); ok {
			spec.Sample = spec.Sample.with(p, sp.PassThroughValues)
		}
	}
	return ok
}

// passLocked makes a spec let everything pass; values of samplers that always pass still count. REQUIRES
// steering.
func (l *limiter) passLocked(spec *LimiterSpec, sp *setpoint.Setpoint, now limit.Instant) {
	spec.PassThrough = true
	switch {
	case l.load != nil:
		l.load.pass(now)
		spec.Bucket = limit.BucketRule{}
		if sp != nil {
			l.reprice(sp.WorkloadTokens, now)
		}
	case spec.Sample != nil && sp != nil:
		spec.Sample = spec.Sample.with(spec.Sample.Percentage, sp.PassThroughValues)
	}
}

// with is the spec with a percentage and values that always pass. It is the same one if nothing changes.
func (s *SampleSpec) with(p float64, pass []string) *SampleSpec {
	if s.Percentage == p && slices.Equal(s.PassValues, pass) {
		return s
	}
	next := *s
	next.set(p)
	if !slices.Equal(s.PassValues, pass) {
		next.setPass(pass)
	}
	return &next
}

// inForce is the spec whose numbers count at an instant.
func (l *limiter) inForce(now limit.Instant) *LimiterSpec {
	if at := l.lapses.Load(); at != 0 && int64(now) >= at {
		l.lapse(now)
	}
	return l.spec.Load()
}

// lapse lets everything pass because no setpoint came in time. Flows that wait have timers that end no
// later.
func (l *limiter) lapse(now limit.Instant) {
	l.steering.Lock()
	defer l.steering.Unlock()
	at := l.lapses.Load()
	if at == 0 || int64(now) < at { // another one has come, or somebody was faster
		return
	}
	next := *l.spec.Load()
	l.passLocked(&next, nil, now)
	l.announce(&next)
	l.spec.Store(&next)
	l.lapses.Store(0)
}

// merge makes the spec in force of one that is published: a driven limiter keeps the numbers it has.
// REQUIRES steering, unless the limiter is new.
func (l *limiter) merge(spec *LimiterSpec) *LimiterSpec {
	next := *spec
	if spec.Sample != nil {
		next.Sample = spec.Sample.compiled()
	}
	was := l.spec.Load()
	if !spec.Driven {
		if was != nil && was.Driven {
			l.setHash, l.setVersion = "", 0
			l.lapses.Store(0)
		}
		l.known = l.known || !spec.PassThrough
		return &next
	}
	next.PassThrough = true
	if was == nil || !l.known {
		return &next
	}
	next.PassThrough = was.PassThrough
	next.Bucket.Capacity, next.Bucket.FillAmount = was.Bucket.Capacity, was.Bucket.FillAmount
	next.Slots.Max = was.Slots.Max
	if l.load != nil {
		next.Bucket = was.Bucket
	}
	if next.Sample != nil {
		next.Sample.set(was.Sample.Percentage)
	}
	return &next
}

// announcement is what the ledger should be told about the numbers of a spec. A bucket whose numbers are
// not known yet keeps what is in it; a limit that finds itself needs to know what is in flight, also while
// everything passes. REQUIRES steering.
func (l *limiter) announcement(spec *LimiterSpec) announced {
	a := announced{spec.Bucket, spec.Slots}
	if spec.Driven && !l.known {
		a.bucket.Capacity, a.bucket.FillAmount = limit.MaxTokens, 0
	}
	if spec.Kind == AdaptiveConcurrencyScheduler && spec.PassThrough {
		a.slots.Max = limit.MaxTokens
	}
	return a
}

// announce tells the ledger about the numbers of a spec, if they are new, before it comes into force.
// REQUIRES steering.
func (l *limiter) announce(spec *LimiterSpec) {
	a := l.announcement(spec)
	if a == l.announced {
		return
	}
	l.announced = a
	if l.slots != nil {
		l.slots.Configure(a.slots)
	} else if l.buckets != nil {
		l.buckets.Configure(a.bucket)
	}
}

// reprice makes the flows of workloads cost what a setpoint says. What came before counts in the new
// prices, so that the load stays comparable with itself. REQUIRES steering.
func (l *limiter) reprice(tokens map[string]float64, now limit.Instant) {
	ws := &l.workloads
	ws.mu.Lock()
	if maps.Equal(tokens, ws.asked) {
		ws.mu.Unlock()
		return
	}
	ws.asked, ws.prices = maps.Clone(tokens), make(map[string]float64, len(tokens))
	for name, n := range tokens {
		if limit.ValidTokens(n) && n > 0 {
			ws.prices[name] = n
		}
	}
	before, after := 0.0, 0.0
	for name, b := range ws.byName {
		was := b.price.load()
		next := ws.prices[name]
		b.price.store(next)
		flows := b.pricedSince()
		before += flows * b.cost(was, l.spec.Load().Scheduler)
		after += flows * b.cost(next, l.spec.Load().Scheduler)
	}
	ws.mu.Unlock()
	if before > 0 {
		l.load.rescale(after/before, now)
	}
}

// pricedSince counts the flows that came since it was called before and cost what the workload says.
func (b *bin) pricedSince() float64 {
	total := 0.0
	for i := range b.hot {
		total += float64(b.hot[i].priced.Load())
	}
	since := total - b.pricedArrivals
	b.pricedArrivals = total
	return since
}

// cost is what a flow of the workload costs at a price; 0: as the document says.
func (b *bin) cost(price float64, s *SchedulerSpec) float64 {
	if price > 0 {
		return price
	}
	for i := range s.Workloads {
		if s.Workloads[i].Name == b.name {
			return s.Workloads[i].Tokens
		}
	}
	return s.Default.Tokens
}

// Observe reads what has been seen at an actuator; false if there is none of that name. It allocates
// nothing, except for the histogram of an actuator that measures one, the first time. The shortest
// duration and the most slots held are those since the last call, so there should be one caller.
func (e *Engine) Observe(ref setpoint.Ref, into *setpoint.Observation) bool {
	l := e.snapshot.Load().byRef[ref]
	if l == nil {
		return false
	}
	t := l.totals()
	durations := into.Durations
	*into = setpoint.Observation{
		Accepted: t.acceptedFlows(), Rejected: t.rejectedFlows(),
		AcceptedTokens: t.acceptedTokens(), RejectedTokens: t.rejectedTokens(),
		Ended: t.ended, Failed: t.failed, DurationSum: t.work.Seconds(),
	}
	into.IncomingTokens = into.AcceptedTokens + into.RejectedTokens
	if l.load != nil {
		into.IncomingTokens, into.BaseTokens = l.load.incoming(), l.load.baseTokens(e.authority.Now())
	}
	if l.queue != nil {
		into.Waiting = l.queue.Waiting()
	}
	if h, ok := l.slots.(holder); ok {
		into.InFlight = h.Held()
	}
	if l.work != nil {
		l.work.read(into, durations)
	}
	return true
}
