// SPDX-License-Identifier: Apache-2.0

// Package setpoint is the message between the planes: what a circuit asks an actuator of the data plane to
// do (Setpoint), and what the data plane has seen at that actuator (Observation).
//
// All types are plain values.
package setpoint

import (
	"math"
	"time"
)

// Ref names an actuator: a component of a policy that acts on flows.
type Ref struct {
	Policy string
	// Component is the id in the document, such as root.3; never that of a part it was expanded into.
	Component string
}

// Setpoint is what one actuator should do until the next one comes. Which of the numbers count depends on
// the kind of the actuator; the others are 0.
type Setpoint struct {
	Ref
	// Hash of the policy the circuit was compiled from. An actuator of another hash ignores the setpoint.
	Hash string
	// Version orders the setpoints of one actuator and hash: an older one never replaces a newer one.
	Version uint64
	// Expires is when the actuator falls back to letting everything pass; zero: never.
	Expires time.Time
	// PassThrough lets every flow pass: a port that has to be known is not.
	PassThrough bool

	// BucketCapacity and FillAmount are the rule of rate limiters and quota schedulers, in tokens; at least 0.
	BucketCapacity, FillAmount float64
	// MaxConcurrency is the limit of concurrency limiters and schedulers, in slots; at least 0.
	MaxConcurrency float64
	// LoadMultiplier is for load schedulers: admitted load relative to arriving load; at least 0.
	LoadMultiplier float64
	// WorkloadTokens is for load schedulers: what a flow of a workload costs, by the name of the workload.
	// Workloads that are missing keep the tokens of the document.
	WorkloadTokens map[string]float64
	// AcceptPercentage is for samplers: 0..100.
	AcceptPercentage float64
	// PassThroughValues is for samplers: values of the session label that always pass.
	PassThroughValues []string
}

// Observation is what the data plane has seen at one actuator. Counters count from when the actuator came
// into force and never fall while it stays.
type Observation struct {
	// Accepted and Rejected count flows that came to the actuator, by the verdict on the whole flow; flows
	// that passed for lack of a label or because of pass-through are among the accepted.
	Accepted, Rejected uint64
	// IncomingTokens, AcceptedTokens and RejectedTokens count tokens asked for.
	IncomingTokens, AcceptedTokens, RejectedTokens float64
	// BaseTokens is for load schedulers: the tokens that would have come at the rate that load multipliers are
	// relative to. It grows like IncomingTokens while nothing is throttled, and slower while surges and retries
	// come that do not count. 0 elsewhere.
	BaseTokens float64
	// Ended counts admitted flows that have ended, Failed those among them whose work failed. These and what
	// follows are known of actuators that schedule; the durations, DurationMin and InFlightPeak only of limits
	// that find themselves, for which InFlight is known also while everything passes.
	Ended, Failed uint64
	// DurationSum is the sum of the work of the ended flows, in seconds, without their time in queues.
	DurationSum float64
	// DurationMin is the shortest work of a flow that ended since the observation before, in seconds; 0: none
	// ended.
	DurationMin float64
	// Durations counts ended flows by the length of their work: see DurationBound. nil where the actuator
	// does not measure it.
	Durations []uint64
	// InFlight is the slots held now, and InFlightPeak the most held since the observation before.
	InFlight, InFlightPeak float64
	// Waiting is the number of flows in the queue now.
	Waiting int
}

// DurationBuckets is the length of Observation.Durations.
const DurationBuckets = 96

// DurationBound is the upper bound of a bucket of Observation.Durations, in seconds: 100 µs · 2^(i/4), up to
// about 24 minutes. The last bucket has everything longer, too.
func DurationBound(i int) float64 { return 100e-6 * math.Exp2(float64(i)/4) }

// DurationBucket is the bucket of a duration in seconds.
func DurationBucket(seconds float64) int {
	if !(seconds > 100e-6) {
		return 0
	}
	return int(min(DurationBuckets-1, math.Ceil(4*math.Log2(seconds/100e-6))))
}
