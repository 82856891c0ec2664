// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"fmt"
	"time"

	"github.com/sluice-project/sluice/internal/alert"
	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/setpoint"
	"github.com/sluice-project/sluice/internal/signal"
)

// Subscription is a query that is evaluated now and then; *signal.Subscription is one. Methods may be called
// concurrently, and neither waits.
type Subscription interface {
	// Reading is the latest answer.
	Reading() signal.Reading
	// Close ends it; called once.
	Close()
}

// unit is a program at work: its circuit and what connects it to the outside. It is used by one goroutine at
// a time.
type unit struct {
	program   *Program
	circuit   *circuit.Circuit
	readers   []reader
	observers []observer
	actuators []actuator
	alerters  []alerterNode
	started   bool      // every query was answered once, and everything observed twice
	begin     time.Time // first tick; zero before
}

// reader sets an input from a query.
type reader struct {
	*queryNode
	subscription Subscription // nil: none
	failed       error        // why there is none
}

// newUnit makes the state that a program needs. edit, when not nil, may change the nodes before they are
// compiled.
func newUnit(p *Program, edit func([]circuit.Node)) (*unit, error) {
	e := plan(p.doc)
	if edit != nil {
		edit(e.nodes)
	}
	c, err := circuit.Compile(e.interval, e.nodes)
	if err = errors.Join(append(e.problems, err)...); err != nil {
		return nil, fmt.Errorf("policy %q: %w", p.Policy, err) // a Program has compiled before
	}
	u := &unit{program: p, circuit: c, alerters: e.alerters}
	for i := range e.queries {
		u.readers = append(u.readers, reader{queryNode: &e.queries[i]})
	}
	for i := range e.observers {
		u.observers = append(u.observers, newObserver(&e.observers[i], p.Policy, e.interval))
	}
	for i := range e.actuators {
		if a := &e.actuators[i]; a.driven {
			u.actuators = append(u.actuators, newActuator(a, p.Policy, p.Hash))
		}
	}
	return u, nil
}

// subscribe subscribes to the queries. It goes on after an error: what has failed reads as invalid.
func (u *unit) subscribe(subscribe func(signal.Query) (Subscription, error)) error {
	var problems []error
	try := func(q signal.Query) (Subscription, error) {
		s, err := subscribe(q)
		if err != nil {
			err = fmt.Errorf("policy %q: %s: query: %w", q.Policy, q.Component, err)
			problems = append(problems, err)
			return nil, err
		}
		return s, nil
	}
	for i := range u.readers {
		r := &u.readers[i]
		r.subscription, r.failed = try(r.query)
	}
	for i := range u.actuators {
		if a := &u.actuators[i]; a.tokens.Expr != "" {
			a.subscribed, a.failed = try(a.tokens)
		}
	}
	return errors.Join(problems...)
}

// close ends the subscriptions.
func (u *unit) close() {
	for i := range u.readers {
		if s := u.readers[i].subscription; s != nil {
			s.Close()
		}
	}
	for i := range u.actuators {
		if s := u.actuators[i].subscribed; s != nil {
			s.Close()
		}
	}
}

// read takes the latest answers to the queries over.
func (u *unit) read() {
	for i := range u.readers {
		if r := &u.readers[i]; r.subscription != nil {
			r.input.Value = r.subscription.Reading().Value
		}
	}
	for i := range u.actuators {
		if a := &u.actuators[i]; a.subscribed != nil {
			a.readTokens()
		}
	}
}

// observe takes over what the data plane has seen.
func (u *unit) observe(d DataPlane) {
	for i := range u.observers {
		o := &u.observers[i]
		if d != nil && d.Observe(o.ref, &o.seen) {
			o.take()
			continue
		}
		o.blind()
	}
}

// startTime is how long a circuit may wait for the first answers to its queries.
const startTime = 10 * time.Second

// starting tells that a query has not been answered for the first time yet, be it with an error, or that there
// is only one observation, from which no share can be told.
func (u *unit) starting(now time.Time) bool {
	if u.started {
		return false
	}
	if u.begin.IsZero() {
		u.begin = now
	}
	for i := range u.readers {
		if s := u.readers[i].subscription; s != nil && s.Reading().Evaluations == 0 && now.Sub(u.begin) < startTime {
			return true
		}
	}
	for i := range u.observers {
		if u.observers[i].fresh() {
			return true
		}
	}
	u.started = true
	return false
}

// steer appends the setpoints that have to be sent after a tick.
func (u *unit) steer(now time.Time, to []setpoint.Setpoint) []setpoint.Setpoint {
	starting := u.starting(now)
	for i := range u.actuators {
		a := &u.actuators[i]
		if a.steer(now, u.program.Interval, u.circuit.In(a.node), starting) {
			to = append(to, a.last)
		}
	}
	return to
}

// alerts appends the alerts that are raised on a tick.
func (u *unit) alerts(now time.Time, to []alert.Event) []alert.Event {
	for i := range u.alerters {
		if a := &u.alerters[i]; isTrue(u.circuit.In(a.node)[0]) {
			ev := a.event
			ev.At = now
			to = append(to, ev)
		}
	}
	return to
}
