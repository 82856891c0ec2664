// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// OverloadResults is what the overload demo measured; its results.json holds it. All times are of the clock.
type OverloadResults struct {
	// Demo is "overload".
	Demo string `json:"demo"`
	// Command repeats the demo.
	Command string `json:"command"`
	// Seed it ran with.
	Seed uint64 `json:"seed"`
	// StartTime is when it began, ClockSeconds how long it took.
	StartTime    time.Time `json:"start_time"`
	ClockSeconds float64   `json:"clock_seconds"`
	// Complete is false when the demo was stopped early.
	Complete bool `json:"complete"`
	// Notes are things the reader should know about these runs.
	Notes []string `json:"notes"`
	// Capacity is what the service can answer per second.
	Capacity float64 `json:"capacity_per_second"`
	// BeforeSeconds, DuringSeconds and AfterSeconds are how long the load was at base, at the surge, and at
	// base again.
	BeforeSeconds float64 `json:"before_seconds"`
	DuringSeconds float64 `json:"during_seconds"`
	AfterSeconds  float64 `json:"after_seconds"`
	// Runs in the order they were made.
	Runs []OverloadRun `json:"runs"`
}

// OverloadRun is the whole story under one policy.
type OverloadRun struct {
	// Name is "none", "static", "average-latency" or "adaptive"; Title is for people.
	Name  string `json:"name"`
	Title string `json:"title"`
	// Before, During and After the surge.
	Before OverloadPeriod `json:"before"`
	During OverloadPeriod `json:"during"`
	After  OverloadPeriod `json:"after"`
	// ReactionSeconds is from the begin of the surge to the second from which on things were well: in at
	// least nine of ten seconds that were left of it, goodput was at least 90 % of the capacity or the p99
	// of what was let in was less than twice that of before. Absent: never.
	ReactionSeconds *float64 `json:"reaction_seconds,omitempty"`
	// RecoverySeconds is from the end of the surge to the second from which on, in at least nine of ten
	// seconds, at least 95 % of who asked got a good answer. Absent: not in this run.
	RecoverySeconds *float64 `json:"recovery_seconds,omitempty"`
	// PeakQueue is the most requests that waited for a worker of the service.
	PeakQueue int `json:"peak_queue"`
	// Seconds are the run second by second.
	Seconds []OverloadSecond `json:"seconds"`
}

// OverloadPeriod sums up a part of a run.
type OverloadPeriod struct {
	// Asked counts users who asked, Good those among them who had a good answer in time.
	Asked int `json:"asked"`
	Good  int `json:"good"`
	// Late counts users whose answer came, but too late; Lost those who got none.
	Late int `json:"late"`
	Lost int `json:"lost"`
	// Goodput is good answers per second.
	Goodput float64 `json:"goodput_per_second"`
	// Guests and Subscribers are the parts of them that had a good answer, 0..1.
	Guests      float64 `json:"guests_good_ratio"`
	Subscribers float64 `json:"subscribers_good_ratio"`
	// Attempts counts requests sent, second attempts included; Denied those that Sluice denied in time.
	Attempts int `json:"attempts"`
	Denied   int `json:"denied"`
	// P50 and P99 are how long good answers took, from when the user asked.
	P50 float64 `json:"p50_seconds"`
	P99 float64 `json:"p99_seconds"`
	// ServiceP99 is how long the service took for what was let in, its queue included. Requests it never
	// finished count as long as they were there.
	ServiceP99 float64 `json:"service_p99_seconds"`
}

// OverloadSecond is one second, by when users asked and requests were let in.
type OverloadSecond struct {
	Asked           int     `json:"asked"`
	Good            int     `json:"good"`
	GoodGuests      int     `json:"good_guests"`
	GoodSubscribers int     `json:"good_subscribers"`
	Denied          int     `json:"denied"`
	ServiceP99      float64 `json:"service_p99_seconds"`
}

// overloadAnswer is what became of one user.
type overloadAnswer struct {
	at, took time.Duration
	tier     string
	attempts int
	denied   int // of the attempts
	ok       bool
}

// overloadLog collects what happens in one run.
type overloadLog struct {
	scenario overloadScenario
	service  *overloadService
	begin    time.Time

	mu      sync.Mutex
	answers []overloadAnswer
	denials int
	recent  int // good answers since progress was asked for
	shown   time.Time
}

func (l *overloadLog) answered(a overloadAnswer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers = append(l.answers, a)
	l.denials += a.denied
	if l.good(a) {
		l.recent++
	}
}

func (l *overloadLog) good(a overloadAnswer) bool { return a.ok && a.took <= l.scenario.Useful }

// progress says how it goes, in a few words.
func (l *overloadLog) progress() string {
	l.mu.Lock()
	now := time.Now()
	if l.shown.IsZero() {
		l.shown = l.begin
	}
	rate := float64(l.recent) / max(now.Sub(l.shown).Seconds(), 1e-3)
	l.recent, l.shown = 0, now
	denied := l.denials
	l.mu.Unlock()
	l.service.mu.Lock()
	defer l.service.mu.Unlock()
	return fmt.Sprintf("goodput %3.0f/s  denied %5d  in the service %4d", rate, denied, l.service.queue)
}

// result sums a run up when it is over.
func (l *overloadLog) result(v overloadVariant) OverloadRun {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.service.mu.Lock()
	defer l.service.mu.Unlock()
	s, end := l.scenario, time.Since(l.begin)
	spans := slices.Clone(l.service.served)
	for i := range spans {
		if spans[i].took < 0 {
			spans[i].took = end - spans[i].at
		}
	}
	run := OverloadRun{
		Name: v.name, Title: v.title, PeakQueue: l.service.peak, Seconds: l.seconds(spans),
		Before: l.period(spans, 0, s.Before),
		During: l.period(spans, s.Before, s.Before+s.During),
		After:  l.period(spans, s.Before+s.During, s.duration()),
	}
	from, to := int(s.Before.Seconds()), int((s.Before + s.During).Seconds())
	run.ReactionSeconds = settled(run.Seconds[from:to], func(b OverloadSecond) bool {
		return float64(b.Good) >= 0.9*s.capacity() || b.ServiceP99 < 2*run.Before.ServiceP99
	})
	run.RecoverySeconds = settled(run.Seconds[to:], func(b OverloadSecond) bool {
		return float64(b.Good) >= 0.95*float64(b.Asked)
	})
	return run
}

// settled returns the first second from which on at least nine of ten are well, of at least three that are
// left; nil when there is none.
func settled(seconds []OverloadSecond, well func(OverloadSecond) bool) *float64 {
	for from := 0; from+3 <= len(seconds); from++ {
		bad := 0
		for _, b := range seconds[from:] {
			if !well(b) {
				bad++
			}
		}
		if well(seconds[from]) && 10*bad <= len(seconds)-from {
			at := float64(from)
			return &at
		}
	}
	return nil
}

// seconds cuts a run into seconds. What happens after the last one belongs to it.
func (l *overloadLog) seconds(spans []span) []OverloadSecond {
	out := make([]OverloadSecond, int(l.scenario.duration().Seconds()))
	for _, a := range l.answers {
		b := &out[perSecond(a.at, len(out))]
		b.Asked++
		b.Denied += a.denied
		if !l.good(a) {
			continue
		}
		b.Good++
		if a.tier == guestTier {
			b.GoodGuests++
		} else {
			b.GoodSubscribers++
		}
	}
	took := make([][]float64, len(out))
	for _, s := range spans {
		i := perSecond(s.at, len(out))
		took[i] = append(took[i], s.took.Seconds())
	}
	for i := range out {
		out[i].ServiceP99 = quantile(took[i], 0.99)
	}
	return out
}

// period sums up everybody who asked from one moment to another.
func (l *overloadLog) period(spans []span, from, to time.Duration) OverloadPeriod {
	within := func(at time.Duration) bool { return at >= from && (at < to || to == l.scenario.duration()) }
	var p OverloadPeriod
	var took, service []float64
	asked, good := map[string]int{}, map[string]int{}
	for _, a := range l.answers {
		if !within(a.at) {
			continue
		}
		p.Asked++
		p.Attempts += a.attempts
		p.Denied += a.denied
		asked[a.tier]++
		switch {
		case l.good(a):
			p.Good++
			good[a.tier]++
			took = append(took, a.took.Seconds())
		case a.ok:
			p.Late++
		default:
			p.Lost++
		}
	}
	for _, s := range spans {
		if within(s.at) {
			service = append(service, s.took.Seconds())
		}
	}
	p.Goodput = float64(p.Good) / (to - from).Seconds()
	p.Guests = ratio(good[guestTier], asked[guestTier])
	p.Subscribers = ratio(good[subscriberTier], asked[subscriberTier])
	p.P50, p.P99, p.ServiceP99 = quantile(took, 0.5), quantile(took, 0.99), quantile(service, 0.99)
	return p
}

func ratio(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// quantile sorts values; 0 when there are none.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return percentile(values, q)
}
