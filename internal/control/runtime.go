// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/sluice-project/sluice/internal/alert"
	"github.com/sluice-project/sluice/internal/setpoint"
	"github.com/sluice-project/sluice/internal/signal"
)

// DataPlane acts on flows; *flow.Engine is one.
type DataPlane interface {
	// Steer puts setpoints into force. It is called from one goroutine, must not wait and must not keep the
	// slice; the maps and slices in it do not change any more. Setpoints of policies it does not know are to
	// be ignored.
	Steer(setpoints []setpoint.Setpoint)
	// Observe reads what an actuator has seen; false when it does not have it. It is called once per tick for
	// each actuator that a circuit listens to, and must not wait or call the Runtime.
	Observe(ref setpoint.Ref, into *setpoint.Observation) bool
}

// Signals has time series and runs queries; FromService makes one of *signal.Service.
type Signals interface {
	// Collect keeps the metrics of this process as of now.
	Collect(ctx context.Context, now time.Time) error
	// Step runs the queries that are due at now and waits for them, at most wait.
	Step(ctx context.Context, now time.Time, wait time.Duration) (late int)
	// Subscribe has a query run from the next Step on.
	Subscribe(q signal.Query) (Subscription, error)
}

// Alerts tells people; *alert.Center is one.
type Alerts interface {
	// Raise must not wait.
	Raise(ev alert.Event)
}

// ConfigStore keeps dynamic configuration across restarts. Methods are called by one goroutine at a time.
type ConfigStore interface {
	// LoadDynamicConfig returns nil without an error when there is none.
	LoadDynamicConfig(ctx context.Context, policy string) (map[string]any, error)
	SaveDynamicConfig(ctx context.Context, policy string, config map[string]any) error
	// DeleteDynamicConfig is no error when there is none.
	DeleteDynamicConfig(ctx context.Context, policy string) error
}

// Config is for New. The zero value runs circuits that see and do nothing.
type Config struct {
	// DataPlane, Signals, Alerts and Store are what a circuit is connected with; each may be nil.
	DataPlane DataPlane
	Signals   Signals
	Alerts    Alerts
	// Store keeps dynamic configuration; nil: it is lost on a restart.
	Store ConfigStore
	// HistoryTicks is how many ticks of every signal are kept; 0: DefaultHistoryTicks.
	HistoryTicks int
	// HistoryBytes bounds the memory for them, for all policies together; 0: DefaultHistoryBytes. When it is
	// used up, policies that start later keep a minute of ticks.
	HistoryBytes int
	// MaxSignals bounds the signals that are exported as metrics, for all policies together; 0:
	// DefaultMaxSignals.
	MaxSignals int
	// Logger gets what operators should know; nil: nothing is logged.
	Logger *slog.Logger
}

// Defaults of Config.
const (
	DefaultHistoryTicks = 600
	DefaultHistoryBytes = 64 << 20
	DefaultMaxSignals   = 2000
)

const (
	// collectInterval is how often the metrics of this process are kept, unless a query wants them faster.
	collectInterval = time.Second
	// A tick waits for its queries for this part of its interval and at most this long.
	waitPart = 4
	waitMost = 50 * time.Millisecond
)

// ErrNotInForce is returned for a policy that is not in force.
var ErrNotInForce = errors.New("no such policy in force")

// Runtime runs the circuits of the policies in force. All methods may be called concurrently; Run once.
type Runtime struct {
	config  Config
	log     *slog.Logger
	wake    chan struct{} // a policy has to tick at once; capacity 1
	begun   chan struct{} // closed after the first round
	late    atomic.Uint64 // ticks that began without waiting longer for signals
	watched watchers

	changing sync.Mutex                // held by Publish and changes of configuration; taken before mu
	configs  map[string]map[string]any // by policy; guarded by changing

	mu     sync.RWMutex // held while circuits tick, which takes no longer than they compute
	byName map[string]*running
	order  []*running // by policy
	fast   time.Duration
	budget budget

	// Used by Run alone.
	due       []*running
	setpoints []setpoint.Setpoint
	events    []alert.Event
	crashed   []*running
	collected [2]int64 // last slots of collectInterval and fast
	pump      pump
}

// running is a unit and how it does. Except for what newRunning sets, it is guarded by Runtime.mu.
type running struct {
	*unit
	subscribeError error

	gone     bool
	next     time.Time // zero: at once
	at       time.Time // of the tick that is due
	skipped  uint64
	last     time.Time
	took     time.Duration
	tookMost time.Duration
	tookSum  time.Duration
	stopped  string // why it ticks no more; "": it does
	stack    []byte
	ignored  []Notice // about dynamic configuration
	history  history
	sent     uint64  // setpoints
	tallies  []tally // by signal

	// Set before it runs.
	labels   []*dto.LabelPair
	exported []exported
}

// New returns a Runtime without policies.
func New(c Config) *Runtime {
	if c.HistoryTicks <= 0 {
		c.HistoryTicks = DefaultHistoryTicks
	}
	if c.HistoryBytes <= 0 {
		c.HistoryBytes = DefaultHistoryBytes
	}
	if c.MaxSignals <= 0 {
		c.MaxSignals = DefaultMaxSignals
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	const numberBytes = 8
	return &Runtime{
		config: c, log: c.Logger, wake: make(chan struct{}, 1), begun: make(chan struct{}), configs: map[string]map[string]any{},
		byName: map[string]*running{}, budget: budget{left: c.HistoryBytes / numberBytes},
	}
}

// Publish replaces the policies in force. Those whose hash stays go on as they are; others start from
// scratch, with a first tick at once. Publish to the data plane first: it ignores setpoints of policies that
// it does not know.
//
// The error tells of parts that do not work, such as a query that the signals refuse; everything else is in
// force nevertheless. Status has them, too.
func (r *Runtime) Publish(ctx context.Context, programs []*Program) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	var problems []error
	next := make(map[string]*running, len(programs))
	for _, p := range programs {
		if next[p.Policy] != nil {
			problems = append(problems, fmt.Errorf("two policies are called %q; the first one is in force", p.Policy))
			continue
		}
		if old := r.byName[p.Policy]; old != nil && old.program.Hash == p.Hash { // changing guards byName against writers
			next[p.Policy] = old
			continue
		}
		u, err := r.start(ctx, p)
		if err != nil {
			problems = append(problems, err)
		}
		if u != nil {
			next[p.Policy] = u
		}
	}
	for _, u := range r.replace(next) {
		u.close()
	}
	for policy := range r.configs {
		if next[policy] == nil {
			delete(r.configs, policy)
		}
	}
	signalled(r.wake)
	r.watched.notify()
	return errors.Join(problems...)
}

// start makes a program run. It may return both a unit and what does not work in it.
func (r *Runtime) start(ctx context.Context, p *Program) (*running, error) {
	unit, err := newUnit(p, nil)
	if err != nil {
		return nil, err
	}
	u := &running{unit: unit, tallies: make([]tally, len(p.signals))}
	u.label()
	u.history = newHistory(len(p.signals), r.config.HistoryTicks, &r.budget)
	if r.config.Signals == nil {
		u.subscribeError = u.subscribe(func(signal.Query) (Subscription, error) { return nil, errNoSignals })
	} else {
		u.subscribeError = u.subscribe(r.config.Signals.Subscribe)
	}
	return u, errors.Join(u.subscribeError, r.restoreConfig(ctx, u))
}

var errNoSignals = errors.New("this server runs no queries")

// replace puts a set of policies into force and returns those that are not any more.
func (r *Runtime) replace(next map[string]*running) (gone []*running) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, u := range r.byName {
		if next[name] != u {
			u.gone = true
			u.history.release()
			gone = append(gone, u)
		}
	}
	r.byName, r.order, r.fast = next, nil, collectInterval
	for _, u := range next {
		r.order = append(r.order, u)
		for i := range u.readers {
			r.fast = min(r.fast, u.readers[i].query.Interval)
		}
	}
	slices.SortFunc(r.order, func(a, b *running) int { return strings.Compare(a.program.Policy, b.program.Policy) })
	return gone
}

// Run ticks until ctx ends.
func (r *Runtime) Run(ctx context.Context) error {
	r.pump.start(ctx, r.config.Signals, r.log)
	defer r.pump.stop()
	r.round(time.Now())
	close(r.begun)
	timer := time.NewTimer(max(0, time.Until(r.wakeTime(time.Now()))))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-timer.C:
		}
		r.round(time.Now())
		timer.Reset(max(0, time.Until(r.wakeTime(time.Now()))))
	}
}

// Begun is closed when Run has ticked every policy that was in force when it was called: from then on the
// data plane knows their setpoints.
func (r *Runtime) Begun() <-chan struct{} { return r.begun }

// Close ends the subscriptions of all policies. Call it after Run has returned.
func (r *Runtime) Close() {
	_ = r.Publish(context.Background(), nil)
}

// floor is the last multiple of an interval since 1970, which is what ticks are aligned to.
func floor(t time.Time, interval time.Duration) time.Time {
	n := t.UnixNano()
	return time.Unix(0, n-n%int64(interval))
}

// wakeTime is when the next round is due.
func (r *Runtime) wakeTime(now time.Time) time.Time {
	r.mu.RLock()
	defer r.mu.RUnlock()
	next := now.Add(time.Hour)
	if r.config.Signals != nil {
		next = floor(now, collectInterval).Add(collectInterval)
	}
	for _, u := range r.order {
		if u.stopped == "" && u.next.Before(next) {
			next = u.next
		}
	}
	return next
}

// round does everything that is due at a time.
func (r *Runtime) round(now time.Time) {
	at, shortest := r.plan(now)
	r.signals(at, shortest)
	if len(r.due) > 0 {
		r.tick()
		if r.config.DataPlane != nil && len(r.setpoints) > 0 {
			r.config.DataPlane.Steer(r.setpoints)
		}
		if r.config.Alerts != nil {
			for i := range r.events {
				r.config.Alerts.Raise(r.events[i])
			}
		}
		r.watched.notify()
	}
	for _, u := range r.crashed {
		r.log.Error("a circuit has failed and ticks no more; this is a bug: please report it",
			"policy", u.program.Policy, "reason", u.stopped, "stack", string(u.stack))
	}
	r.crashed = r.crashed[:0]
}

// plan finds the policies that are due. at is the time of the newest tick, and shortest the shortest interval
// among them; now and 0 when none is due.
func (r *Runtime) plan(now time.Time) (at time.Time, shortest time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.due = r.due[:0]
	for _, u := range r.order {
		if u.stopped != "" || !u.isDue(now) {
			continue
		}
		r.due = append(r.due, u)
		if interval := u.program.Interval; shortest == 0 || interval < shortest {
			shortest = interval
		}
		if u.at.After(at) {
			at = u.at
		}
	}
	if len(r.due) == 0 {
		at = floor(now, collectInterval)
	}
	return at, shortest
}

// isDue tells whether it is time to tick, and plans the tick after this one. A tick whose time has passed by
// an interval or more is skipped: the newest one is run instead.
func (u *running) isDue(now time.Time) bool {
	interval := u.program.Interval
	slot := floor(now, interval)
	switch {
	case u.next.IsZero():
		u.at = now
		if u.next = slot.Add(interval); u.next.Sub(now) < interval/2 {
			u.next = u.next.Add(interval)
		}
		return true
	case u.next.Sub(now) > 2*interval: // the clock was set back
		u.next = slot.Add(interval)
		return false
	case u.next.After(now):
		return false
	}
	u.skipped += uint64(slot.Sub(u.next) / interval)
	u.at, u.next = slot, slot.Add(interval)
	return true
}

// signals has the metrics of this process kept and the queries run that are due.
func (r *Runtime) signals(at time.Time, shortest time.Duration) {
	if r.config.Signals == nil {
		return
	}
	r.mu.RLock()
	fast := r.fast
	r.mu.RUnlock()
	slots := [2]int64{floor(at, collectInterval).UnixNano(), floor(at, max(fast, time.Millisecond)).UnixNano()}
	j := job{at: at, collect: slots != r.collected, wait: min(shortest/waitPart, waitMost)}
	if len(r.due) == 0 && !j.collect {
		return
	}
	r.collected = slots
	if !r.pump.run(j) {
		r.late.Add(1)
	}
}

// tick ticks the policies that are due.
func (r *Runtime) tick() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setpoints, r.events = r.setpoints[:0], r.events[:0]
	for _, u := range r.due {
		if !u.gone {
			r.tickOne(u)
		}
	}
}

// tickOne ticks one policy. A panic stops that policy and no other.
func (r *Runtime) tickOne(u *running) {
	start := time.Now()
	setpoints, events := len(r.setpoints), len(r.events)
	defer func() {
		if p := recover(); p != nil {
			r.setpoints, r.events = r.setpoints[:setpoints], r.events[:events]
			u.stopped, u.stack = fmt.Sprintf("stopped after an internal error: %v", p), debug.Stack()
			r.crashed = append(r.crashed, u)
		}
	}()
	u.read()
	u.observe(r.config.DataPlane)
	u.circuit.Tick(u.at)
	values := u.circuit.Values()
	u.history.add(u.at, values)
	for i, v := range values {
		u.tallies[i].add(v)
	}
	r.setpoints = u.steer(u.at, r.setpoints)
	u.sent += uint64(len(r.setpoints) - setpoints)
	r.events = u.alerts(u.at, r.events)
	u.last, u.took = u.at, time.Since(start)
	u.tookSum += u.took
	u.tookMost = max(u.tookMost, u.took)
}

// signalled wakes who waits for a channel of capacity 1.
func signalled(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
