// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"math"
	"slices"
	"time"
)

// Results is what a demo measured; results.json holds it. Every field that ends in _seconds, except
// clock_seconds, is story time: what the clock showed, times Scale.
type Results struct {
	// Demo is the name of the demo.
	Demo string `json:"demo"`
	// Command repeats the run.
	Command string `json:"command"`
	// Seed and Scale it ran with.
	Seed  uint64  `json:"seed"`
	Scale float64 `json:"scale"`
	// StartTime is when it began.
	StartTime time.Time `json:"start_time"`
	// ClockSeconds is how long it took by the clock, not in story time.
	ClockSeconds float64 `json:"clock_seconds"`
	// Complete is false when the run was stopped early.
	Complete bool `json:"complete"`
	// Notes are things the reader should know about this run.
	Notes []string `json:"notes"`
	// Phases in the order they ran: "without" and "with".
	Phases []Phase `json:"phases"`
}

// Phase is one half of a demo.
type Phase struct {
	// Name is "without" or "with" (the policy).
	Name string `json:"name"`
	// Planned is how many requests the users meant to make.
	Planned int `json:"planned"`
	// Completed requests got their whole answer.
	Completed int `json:"completed"`
	// Denied requests were refused by Sluice, Failed ones by the service or by an error on the way; both
	// are lost.
	Denied int `json:"denied"`
	Failed int `json:"failed"`
	// Interrupted requests were under way or not yet made when the run was stopped.
	Interrupted int `json:"interrupted"`
	// Unguarded requests ran because the server did not answer and the SDK fails open.
	Unguarded int `json:"unguarded"`
	// Refusals counts the 429 answers of the service, by the limit that was reached: "requests" or
	// "tokens". Only for services with a quota.
	Refusals map[string]int `json:"refusals,omitempty"`
	// DurationSeconds is from the first request to the last answer.
	DurationSeconds float64 `json:"duration_seconds"`
	// PeakInFlight is the most requests the service worked on at once, counted by the service.
	PeakInFlight int `json:"peak_in_flight"`
	// Tiers in the order of their priority.
	Tiers []Tier `json:"tiers"`
	// Samples are the requests, in the order they ended.
	Samples []Sample `json:"samples"`
	// InFlight is how many requests the service worked on over time, counted by the service.
	InFlight []Count `json:"in_flight"`
	// Answers are the answers of the service over time; only for services with a quota.
	Answers []Bin `json:"answers,omitempty"`
}

// Tier sums up the completed requests of one group of users.
type Tier struct {
	// Name as in the user_tier label.
	Name string `json:"name"`
	// Completed and Lost requests.
	Completed int `json:"completed"`
	Lost      int `json:"lost"`
	// WaitSeconds is latency minus the time the same request takes on an idle service.
	WaitSeconds Summary `json:"wait_seconds"`
	// QueueSeconds is the part of it spent in Sluice's queues, as the server reported it.
	QueueSeconds Summary `json:"queue_seconds"`
	// LatencySeconds is from asking for permission to the end of the answer.
	LatencySeconds Summary `json:"latency_seconds"`
}

// Sample is one request.
type Sample struct {
	User string `json:"user"`
	Tier string `json:"tier"`
	// Outcome is "ok", "denied" or "failed".
	Outcome string `json:"outcome"`
	// Reason says why a request was lost.
	Reason string `json:"reason,omitempty"`
	// StartSeconds is when the user asked, from the start of the phase.
	StartSeconds float64 `json:"start_seconds"`
	// See Tier.
	WaitSeconds    float64 `json:"wait_seconds"`
	QueueSeconds   float64 `json:"queue_seconds"`
	LatencySeconds float64 `json:"latency_seconds"`
	// Refusals counts the 429 answers this request met.
	Refusals int `json:"refusals"`
	// Tokens is what the request really used, as the service counted it.
	Tokens int `json:"tokens"`
	// Unguarded requests ran although the server gave no verdict.
	Unguarded bool `json:"unguarded,omitempty"`
}

// Count is a number that holds from a moment on.
type Count struct {
	AtSeconds float64 `json:"at_seconds"`
	N         int     `json:"n"`
}

// Bin counts answers in BinSeconds of time.
type Bin struct {
	AtSeconds float64 `json:"at_seconds"`
	Accepted  int     `json:"accepted"`
	Refused   int     `json:"refused"`
}

// BinSeconds is the width of a Bin.
const BinSeconds = 5.0

// Summary describes a set of values. All zero for an empty set.
type Summary struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	Max  float64 `json:"max"`
}

// summarize sorts values.
func summarize(values []float64) Summary {
	if len(values) == 0 {
		return Summary{}
	}
	slices.Sort(values)
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return Summary{
		Mean: sum / float64(len(values)),
		P50:  percentile(values, 0.50),
		P95:  percentile(values, 0.95),
		Max:  values[len(values)-1],
	}
}

// percentile returns the smallest of the sorted values that at least a share q of them does not exceed
// (nearest rank): always a value that was measured.
func percentile(sorted []float64, q float64) float64 {
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// tiersOf sums up samples by tier, in the given order.
func tiersOf(samples []Sample, names []string) []Tier {
	tiers := make([]Tier, len(names))
	for i, name := range names {
		t := Tier{Name: name}
		var wait, queue, latency []float64
		for _, s := range samples {
			switch {
			case s.Tier != name:
			case s.Outcome != outcomeOK:
				t.Lost++
			default:
				wait = append(wait, s.WaitSeconds)
				queue = append(queue, s.QueueSeconds)
				latency = append(latency, s.LatencySeconds)
			}
		}
		t.Completed = len(wait)
		t.WaitSeconds, t.QueueSeconds, t.LatencySeconds = summarize(wait), summarize(queue), summarize(latency)
		tiers[i] = t
	}
	return tiers
}

// What became of a request.
const (
	outcomeOK     = "ok"
	outcomeDenied = "denied"
	outcomeFailed = "failed"
)

// Lost counts the requests that never got their answer.
func (p *Phase) Lost() int { return p.Denied + p.Failed }

// Refused counts the 429 answers of the service.
func (p *Phase) Refused() int { return p.Refusals["requests"] + p.Refusals["tokens"] }

// binsOf counts moments in bins of BinSeconds.
func binsOf(c clock, begin time.Time, accepted []time.Time, refused []refusal) []Bin {
	var bins []Bin
	at := func(t time.Time) *Bin {
		i := max(0, int(c.story(t.Sub(begin))/BinSeconds))
		for len(bins) <= i {
			bins = append(bins, Bin{AtSeconds: float64(len(bins)) * BinSeconds})
		}
		return &bins[i]
	}
	for _, t := range accepted {
		at(t).Accepted++
	}
	for _, r := range refused {
		at(r.at).Refused++
	}
	return bins
}
