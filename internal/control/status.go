// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"slices"
	"time"
)

// Status is how a policy does.
type Status struct {
	Policy, Hash string
	// Interval is the time from one tick to the next.
	Interval time.Duration
	// Ticks counts ticks, and Skipped those that were left out because the one before took too long, since
	// the circuit started.
	Ticks, Skipped uint64
	// LastTick is the time of the last tick; zero before the first.
	LastTick time.Time
	// LastDuration is how long the last tick took, and SlowestDuration the slowest.
	LastDuration, SlowestDuration time.Duration
	// Stopped says why the circuit ticks no more; "" while it does.
	Stopped string
	// Notices are about parts that wait for something, and about dynamic configuration that is ignored.
	Notices []Notice
	// Components are all components, as in Program.Components.
	Components []ComponentStatus
}

// ComponentStatus is a component and how it does.
type ComponentStatus struct {
	ComponentView
	// Status is running, or why it is not, or what is wrong.
	Status string
}

// Running is the status of a component that does its work.
const Running = "running"

// Policies are the names of the policies in force, sorted.
func (r *Runtime) Policies() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	names := make([]string, len(r.order))
	for i, u := range r.order {
		names[i] = u.program.Policy
	}
	return names
}

// Status says how a policy does. The error is ErrNotInForce.
func (r *Runtime) Status(policy string) (Status, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	u := r.byName[policy]
	if u == nil {
		return Status{}, fmt.Errorf("policy %q: %w", policy, ErrNotInForce)
	}
	p := u.program
	return Status{
		Policy: p.Policy, Hash: p.Hash, Interval: p.Interval,
		Ticks: u.circuit.Count(), Skipped: u.skipped, LastTick: u.last,
		LastDuration: u.took, SlowestDuration: u.tookMost, Stopped: u.stopped,
		Notices: slices.Concat(p.Waiting, u.ignored), Components: u.components(),
	}, nil
}

func (u *running) components() []ComponentStatus {
	wrong := map[string]string{}
	for _, n := range u.program.Waiting {
		if n.Component != "" {
			wrong[n.Component] = n.Text
		}
	}
	for i := range u.readers {
		q := &u.readers[i]
		if err := problemOf(q.subscription, q.failed); err != nil {
			wrong[q.query.Component] = err.Error()
		}
	}
	for i := range u.actuators {
		a := &u.actuators[i]
		if a.tokens.Expr == "" {
			continue
		}
		if err := problemOf(a.subscribed, a.failed); err != nil {
			wrong[a.component] = "the tokens of workloads are those of the document: " + err.Error()
		}
	}
	out := make([]ComponentStatus, len(u.program.views))
	for i, v := range u.program.views {
		status := Running
		switch text := wrong[v.ID]; {
		case text != "":
			status = text
		case u.stopped != "":
			status = u.stopped
		}
		out[i] = ComponentStatus{ComponentView: v, Status: status}
	}
	return out
}

// problemOf says why a query has no answer.
func problemOf(s Subscription, failed error) error {
	if s == nil {
		return failed
	}
	return s.Reading().Err
}
