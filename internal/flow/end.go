// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"time"

	"github.com/sluice-project/sluice/internal/cache"
	"github.com/sluice-project/sluice/internal/limit"
)

// Outcome reports how the work of a flow went.
type Outcome struct {
	// Failed tells that the work did not succeed.
	Failed bool
	// Duration of the work itself; 0: not known, then the time since admission counts.
	Duration time.Duration
	// Tokens is the true cost for limiters whose cost came from a label; nil: the estimate was right.
	Tokens *float64
	// TokensByLabel is the true cost by label key; it wins over Tokens.
	TokensByLabel map[string]float64
	// HTTPStatus of the work, for flux meters: 100 to 599; anything else: not known. They take a flow with a status
	// of up to 399 as a good one, whatever Failed says.
	HTTPStatus int
	// Attributes are further numbers for flux meters: what they measure that no label of the flow told when it
	// started. meter.WorkloadDuration and meter.FlowDuration, in milliseconds, replace what the clock says;
	// Duration wins over the former.
	Attributes map[string]float64
}

// actual returns the true cost of a charge, if the outcome tells it and it makes sense.
func (o *Outcome) actual(c *charge) (n float64, known bool) {
	if c.flags&chargeCarried == 0 {
		return 0, false
	}
	if n, known = o.TokensByLabel[c.limiter.spec.Load().TokensKey]; !known && o.Tokens != nil {
		n, known = *o.Tokens, true
	}
	return n, known && limit.ValidTokens(n)
}

// End ends an admitted flow and frees it. It returns false when slots had expired before.
func (f *Flow) End(o Outcome) bool {
	h := holding{stats: f.point.stats, charges: f.charges, started: f.started, waited: f.Verdict.Waited, stripe: f.stripe}
	if len(f.point.gauges) > 0 && !f.noEnd {
		h.flow = f
	}
	if f.lookup != nil {
		h.lead = f.lookup.lead
	}
	ok := f.engine.end(&h, &o, &f.wakes)
	f.Free()
	return ok
}

// holding is what a flow that runs has to give back, and what wants to know how it went.
type holding struct {
	stats   *pointStats
	charges []charge
	started limit.Instant
	waited  time.Duration
	stripe  int
	lead    cache.Lead
	flow    *Flow      // if flux meters should read it, and it is there
	token   *openToken // if it is not; it has what flux meters have read already
}

// longestWork bounds durations, so that a wrong one does not spoil sums.
const longestWork = 7 * 24 * time.Hour

// end releases and settles charges, and resumes the flows that go on because of it. The wakes must be
// empty.
func (e *Engine) end(h *holding, o *Outcome, wakes *Wakes) bool {
	now := e.authority.Now()
	age := max(0, now.Sub(h.started))
	held := max(0, age-h.waited)
	work := held
	if o.Duration > 0 || len(o.Attributes) > 0 {
		work = o.workTime(held)
	}
	ok := true
	for i := len(h.charges) - 1; i >= 0; i-- {
		c := &h.charges[i]
		if c.limiter.queue != nil {
			c.bin.end(h.stripe, work, o.Failed)
			if w := c.limiter.work; w != nil {
				w.observe(h.stripe, work)
			}
		}
		n, known := o.actual(c)
		if !c.limiter.settle(c, n, known, held, now, wakes) {
			ok = false
		}
	}
	h.stats.ended(h.stripe, o.Failed, work)
	if h.flow != nil || h.token != nil {
		h.observe(o, work, age)
	}
	if h.lead != 0 {
		e.leave(h.lead, now, wakes)
	}
	wakes.Run()
	return ok
}
