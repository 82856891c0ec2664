// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/setpoint"
)

const (
	// resend is the longest time between two setpoints of an actuator, unless ticks are further apart: a
	// data plane that has missed one, or started anew, has it then.
	resend = 5 * time.Second
	// lease is how long a setpoint that expires is good for, at least five ticks. It is the time after which
	// load schedulers and adaptive limits let everything pass when control has died.
	lease = 10 * time.Second
)

// actuator is an actuatorNode at work.
type actuator struct {
	*actuatorNode
	last       setpoint.Setpoint
	lastPass   uint64 // generation of pass that last has
	sent       time.Time
	newTokens  bool
	subscribed Subscription // for tokens; nil: none
	evaluation uint64       // of the tokens that last has
	failed     error        // why there is no subscription
}

func newActuator(a *actuatorNode, policy, hash string) actuator {
	return actuator{actuatorNode: a, last: setpoint.Setpoint{
		Ref: setpoint.Ref{Policy: policy, Component: a.component}, Hash: hash,
	}}
}

// steer turns the readings of the ports into a setpoint, and tells whether it has to be sent: it is the first
// one, another one than before, or it is time to send it again. Load multipliers that throttle are always
// sent: what they are relative to moves. While starting, nothing is sent that would only say that nothing is
// known yet: after an edit of the policy, what the data plane does until then is better.
func (a *actuator) steer(now time.Time, interval time.Duration, in []float64, starting bool) bool {
	sp := setpoint.Setpoint{Ref: a.last.Ref, Hash: a.last.Hash}
	a.numbers(&sp, in)
	if starting && a.last.Version == 0 && sp.PassThrough {
		return false
	}
	sp.WorkloadTokens, sp.PassThroughValues = a.last.WorkloadTokens, a.last.PassThroughValues
	changed := a.last.Version == 0 || a.newTokens || sp.PassThrough != a.last.PassThrough ||
		sp.BucketCapacity != a.last.BucketCapacity || sp.FillAmount != a.last.FillAmount ||
		sp.MaxConcurrency != a.last.MaxConcurrency || sp.AcceptPercentage != a.last.AcceptPercentage ||
		a.act == actLoad && !sp.PassThrough || now.Sub(a.sent) >= resend || now.Before(a.sent)
	if a.pass != nil && a.pass.generation != a.lastPass {
		sp.PassThroughValues, a.lastPass = a.pass.values, a.pass.generation
		changed = true
	}
	if !changed {
		return false
	}
	a.newTokens = false
	// Versions go up across restarts, too.
	sp.Version = max(a.last.Version+1, uint64(max(0, now.UnixNano())))
	if a.expires {
		sp.Expires = now.Add(max(lease, 5*interval))
	}
	a.last, a.sent = sp, now
	return true
}

// numbers fills in what the ports ask for.
func (a *actuator) numbers(sp *setpoint.Setpoint, in []float64) {
	switch a.act {
	case actBucket:
		sp.BucketCapacity, sp.FillAmount = amount(in[0]), amount(in[1])
		sp.PassThrough = !circuit.Valid(in[0]) || !circuit.Valid(in[1]) || isTrue(in[2])
	case actSlots:
		sp.MaxConcurrency = amount(in[0])
		sp.PassThrough = !circuit.Valid(in[0]) || isTrue(in[1])
	case actLoad:
		sp.LoadMultiplier = amount(in[0])
		sp.PassThrough = !circuit.Valid(in[0])
	case actSample:
		switch {
		case circuit.Valid(in[0]):
			sp.AcceptPercentage = min(max(in[0], 0), 100)
		case !a.ramp:
			sp.AcceptPercentage, sp.PassThrough = 100, true
		}
	}
	if sp.PassThrough { // so that numbers nobody uses make no difference
		sp.BucketCapacity, sp.FillAmount, sp.MaxConcurrency, sp.LoadMultiplier = 0, 0, 0, 0
	}
}

// mostTokens is the largest number of tokens or slots that can be counted one by one.
const mostTokens = 1 << 53

// amount makes a number of tokens or slots of a reading; 0 of an invalid one.
func amount(v float64) float64 {
	if !circuit.Valid(v) {
		return 0
	}
	return min(max(v, 0), mostTokens)
}

func isTrue(v float64) bool { return circuit.Valid(v) && v != 0 }

// readTokens takes the tokens of workloads over when there is an answer since the last time. It makes a new
// map: the data plane keeps the one it was sent. A failed query changes nothing.
func (a *actuator) readTokens() {
	r := a.subscribed.Reading()
	if r.Evaluations == a.evaluation {
		return
	}
	a.evaluation = r.Evaluations
	if r.Err != nil {
		return
	}
	tokens := make(map[string]float64, len(r.ByLabel))
	for workload, v := range r.ByLabel {
		if workload != "" && v > 0 && v <= mostTokens { // neither NaN
			tokens[workload] = v
		}
	}
	if same := len(tokens) == len(a.last.WorkloadTokens) && !slices.ContainsFunc(keys(tokens), func(k string) bool {
		return tokens[k] != a.last.WorkloadTokens[k]
	}); !same {
		a.last.WorkloadTokens, a.newTokens = tokens, true
	}
}

func keys(m map[string]float64) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

// passValues are the values of the session label that a sampler always admits. As the component of the
// actuator it takes them from dynamic configuration.
type passValues struct {
	static     []string
	key        string
	values     []string
	generation uint64 // changes with values; at least 1
}

var _ circuit.Configurable = (*passValues)(nil)

func newPassValues(static []string, key string) *passValues {
	return &passValues{static: static, key: key, values: static, generation: 1}
}

// Step implements circuit.Component.
func (*passValues) Step(*circuit.Tick, []float64, []float64) {}

// Configure implements circuit.Configurable.
func (p *passValues) Configure(lookup func(string) (any, bool)) error {
	values := p.static
	if p.key != "" {
		if value, ok := lookup(p.key); ok {
			var err error
			if values, err = listOfStrings(p.key, value); err != nil {
				return err
			}
		}
	}
	if !slices.Equal(values, p.values) {
		p.values, p.generation = values, p.generation+1
	}
	return nil
}

func listOfStrings(key string, value any) ([]string, error) {
	refuse := func(got string) error {
		return &fielderr.Error{
			Path: key, Got: got, Want: `a list of texts, such as ["alice", "bob"]`,
			Hint: "correct the value, or delete the key to go back to that of the policy",
		}
	}
	switch list := value.(type) {
	case []string:
		return slices.Clone(list), nil
	case []any:
		out := make([]string, len(list))
		for i, v := range list {
			text, ok := v.(string)
			if !ok {
				return nil, refuse(fmt.Sprintf("%v as element %d of the list", v, i))
			}
			out[i] = text
		}
		return out, nil
	}
	return nil, refuse(fmt.Sprintf("%v", value))
}
