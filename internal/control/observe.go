// SPDX-License-Identifier: Apache-2.0

package control

import (
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/setpoint"
)

// share is the part of a total over a sliding window of ticks, from two counters that never fall.
type share struct {
	samples []sample // a ring
	next    int      // where the next sample goes
	count   int      // samples there are
}

type sample struct{ part, total float64 }

// newShare returns a share over a window, which is at least one tick.
func newShare(window, interval time.Duration) share {
	ticks := max(1, int((window+interval-1)/interval))
	return share{samples: make([]sample, ticks+1)}
}

// add takes the counters as of this tick and returns part/total of what came in the window, 0..1; invalid
// when nothing came. The first counters are where counting starts, and so are smaller ones than before.
func (s *share) add(part, total float64) float64 {
	n := len(s.samples)
	if s.count > 0 {
		if last := s.samples[(s.next+n-1)%n]; part < last.part || total < last.total {
			s.count = 0
		}
	}
	s.samples[s.next] = sample{part, total}
	s.next = (s.next + 1) % n
	s.count = min(s.count+1, n)
	oldest := s.samples[(s.next+n-s.count)%n]
	came := total - oldest.total
	if !(came > 0) {
		return circuit.Invalid()
	}
	return min((part-oldest.part)/came, 1) // what waited before the window may be admitted in it
}

// forget starts anew.
func (s *share) forget() { s.count = 0 }

// asked counts the tokens that a load scheduler was asked for, as far as its multiplier is about them.
//
// While flows are turned away or wait, that is what would have come at the rate that multipliers are relative
// to, not what came: a surge would make the part admitted smaller than the multiplier, and AIMD would cut it
// twice. While none are, it is what was admitted: all of it. Whether some were is told second by second; in
// less time, chance would have it.
type asked struct {
	settled                  float64 // tokens of the seconds before
	accepted, rejected, base float64 // counters when this second began
	seconds                  time.Duration
	waiting, begun           bool
}

// add takes an observation and returns the tokens so far; they fall when counters did.
func (a *asked) add(s *setpoint.Observation, interval time.Duration) float64 {
	if !a.begun || s.AcceptedTokens < a.accepted || s.RejectedTokens < a.rejected || s.BaseTokens < a.base {
		*a = asked{accepted: s.AcceptedTokens, rejected: s.RejectedTokens, base: s.BaseTokens, begun: true}
		return 0
	}
	a.waiting = a.waiting || s.Waiting > 0
	tokens := s.AcceptedTokens - a.accepted
	if a.waiting || s.RejectedTokens > a.rejected {
		tokens = max(tokens, s.BaseTokens-a.base)
	}
	total := a.settled + tokens
	if a.seconds += interval; a.seconds >= time.Second {
		*a = asked{settled: total, accepted: s.AcceptedTokens, rejected: s.RejectedTokens, base: s.BaseTokens, begun: true}
	}
	return total
}

// observer is an observerNode at work.
type observer struct {
	*observerNode
	ref          setpoint.Ref
	interval     time.Duration
	accept, load share
	asked        asked
	seen         setpoint.Observation
}

func newObserver(o *observerNode, policy string, interval time.Duration) observer {
	return observer{
		observerNode: o, ref: setpoint.Ref{Policy: policy, Component: o.component}, interval: interval,
		accept: newShare(acceptWindow, interval), load: newShare(loadWindow, interval),
	}
}

// take sets the inputs from what was seen.
func (o *observer) take() {
	s := &o.seen
	if o.observerNode.accept != nil {
		o.observerNode.accept.Value = 100 * o.accept.add(float64(s.Accepted), float64(s.Accepted+s.Rejected))
	}
	if o.observerNode.load != nil {
		o.observerNode.load.Value = o.load.add(s.AcceptedTokens, o.asked.add(s, o.interval))
	}
	if o.feed != nil {
		o.feed.Feed(s)
	}
}

// fresh tells that there was one observation.
func (o *observer) fresh() bool { return max(o.accept.count, o.load.count) == 1 }

// blind sets the inputs when there is nothing to see.
func (o *observer) blind() {
	if o.observerNode.accept != nil {
		o.observerNode.accept.Value = circuit.Invalid()
		o.accept.forget()
	}
	if o.observerNode.load != nil {
		o.observerNode.load.Value = circuit.Invalid()
		o.load.forget()
		o.asked = asked{}
	}
}
