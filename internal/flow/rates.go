// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"sync"
	"time"
)

// Rates are differences of counters that are read every rateEvery.
const (
	rateEvery = 2 * time.Second
	rateSlots = 6 // the oldest reading is 10 to 12 seconds old
)

// rateRing remembers when the counters of control points were read.
type rateRing struct {
	mu    sync.Mutex // also guards pointStats.rate
	times [rateSlots]time.Time
	reads int // how often; the last one is in slot (reads-1) % rateSlots
}

// pointRate are readings of the counters of a control point, in the slots of the ring.
type pointRate struct {
	readings [rateSlots]pointReading
	lastSeen time.Time // as far as readings tell
}

type pointReading struct{ flows, denied uint64 }

func (r *rateRing) last() time.Time { return r.times[(r.reads-1)%rateSlots] }

func (r *rateRing) oldest() int { return max(0, r.reads-rateSlots) % rateSlots }

func (s *pointStats) reading() pointReading {
	denied := s.deniedTotal()
	return pointReading{s.admitted() + s.unmatched.Load() + denied, denied}
}

// takeRatesLocked reads the counters, unless they were read less than a while ago. REQUIRES rates.mu.
func (e *Engine) takeRatesLocked(now time.Time, ago time.Duration) {
	r := &e.rates
	if now.Sub(r.last()) < ago {
		return
	}
	before, next := (r.reads-1)%rateSlots, r.reads%rateSlots
	e.eachPoint(func(s *pointStats) {
		read := s.reading()
		if read.flows != s.rate.readings[before].flows {
			s.rate.lastSeen = now
		}
		s.rate.readings[next] = read
	})
	r.times[next] = now
	r.reads++
}

// viewLocked fills in what counters tell. REQUIRES mu.
func (r *rateRing) viewLocked(s *pointStats, v *PointView, now time.Time) {
	read, from := s.reading(), r.oldest()
	v.Flows, v.Denied, v.LastSeen = read.flows, read.denied, s.rate.lastSeen
	if read.flows != s.rate.readings[(r.reads-1)%rateSlots].flows {
		v.LastSeen = now
	}
	old := s.rate.readings[from]
	elapsed := max(now.Sub(r.times[from]), time.Second).Seconds()
	v.FlowsPerSecond = float64(read.flows-old.flows) / elapsed
	v.DeniedPerSecond = float64(read.denied-min(old.denied, read.denied)) / elapsed
}
