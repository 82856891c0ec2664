// SPDX-License-Identifier: Apache-2.0

package alert

import (
	"container/heap"
	"container/list"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Config is for New. The zero value is good: alerts are kept in memory and delivered to nobody.
type Config struct {
	// Targets are told of every change.
	Targets []Target
	// Store keeps alerts across restarts; nil: they are lost.
	Store Store
	// Keep is how many alerts are kept, firing ones included; 0: DefaultKeep. When all of them fire, new
	// alerts are refused and counted; otherwise the one that has been over for the longest is forgotten.
	Keep int
	// QueueSize is how many alerts may wait for one target; 0: DefaultQueueSize. Beyond it the one that has
	// waited longest is dropped and counted.
	QueueSize int
	// PolicyURL returns where people can look at a policy, for links in alerts; nil or empty: no link.
	PolicyURL func(policy string) string
	// Logger gets what operators have to know; nil: no log.
	Logger *slog.Logger
	// Transport carries requests to targets; nil: one of its own, which follows HTTP_PROXY and the like.
	Transport http.RoundTripper
}

// Bounds and times of a Center.
const (
	// DefaultKeep takes about 10 MB of memory when it is used up, and as much disk.
	DefaultKeep = 10_000
	// DefaultQueueSize lets every alert wait for every target.
	DefaultQueueSize = 10_000
	// ResendInterval is the time after which an Alertmanager is told again of an alert that fires. It
	// takes one for over when it has not heard of it for four times as long: then this server is dead.
	ResendInterval = time.Minute
	// RestartGrace is how long alerts that fired before a restart last at least: by then every circuit
	// knows whether it would raise them again.
	RestartGrace = 30 * time.Second
)

// Center keeps alerts and delivers them. All methods may be called concurrently, but Load must return
// before Raise and Run are called.
type Center struct {
	config   Config
	log      *slog.Logger
	seed     maphash.Seed
	couriers []*courier
	wake     chan struct{} // a record became due earlier; capacity 1
	unsaved  chan struct{} // dirty has something; capacity 1

	mu       sync.Mutex
	lastID   int64
	firing   map[uint64]*record // by hash, chained by next
	byLabels map[string]*record // the same records, by key
	due      dueHeap            // the same records
	resolved list.List          // of *record, the one that ended first in front
	dirty    map[int64]*record  // not saved as they are
	counts   counts
}

// counts are since start.
type counts struct {
	fired         [3]uint64 // by severity, in the order of severities
	refused       uint64
	historyErrors uint64
}

// New makes a Center. Its errors are about targets.
func New(config Config) (*Center, error) {
	if config.Keep <= 0 {
		config.Keep = DefaultKeep
	}
	if config.QueueSize <= 0 {
		config.QueueSize = DefaultQueueSize
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Transport == nil {
		config.Transport = newTransport()
	}
	c := &Center{
		config: config, log: config.Logger, seed: maphash.MakeSeed(),
		wake: make(chan struct{}, 1), unsaved: make(chan struct{}, 1),
		firing: map[uint64]*record{}, byLabels: map[string]*record{}, dirty: map[int64]*record{},
	}
	names := map[string]bool{}
	var errs []error
	for _, t := range config.Targets {
		err := t.Validate()
		if err == nil && names[t.Name] {
			err = fmt.Errorf("two targets are called %q; give each a name of its own", t.Name)
		}
		names[t.Name] = true
		errs = append(errs, err)
		c.couriers = append(c.couriers, newCourier(c, t))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("alerts: %w", err)
	}
	return c, nil
}

// newTransport is for targets only, so that nothing else waits for connections to a dead one.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: sendTimeout / 2}).DialContext,
		TLSHandshakeTimeout: sendTimeout / 2,
		MaxIdleConnsPerHost: 1,
		IdleConnTimeout:     2 * ResendInterval,
		ForceAttemptHTTP2:   true,
	}
}

// Raise says that something is wrong now. It never waits, and does not allocate while the alert fires.
func (c *Center) Raise(ev Event) {
	now := time.Now()
	hash := c.hash(&ev)
	c.mu.Lock()
	for r := c.firing[hash]; r != nil; r = r.next {
		if r.matches(&ev) {
			r.raise(&ev, now)
			c.mu.Unlock()
			return
		}
	}
	c.mu.Unlock()
	c.begin(ev, hash, now)
}

// begin makes an alert of an event, or recognizes an alert that fires already: one of before a restart, or
// one whose channels or timeout have changed.
func (c *Center) begin(ev Event, hash uint64, now time.Time) {
	labels := labelsOf(ev)
	key := identity(labels)
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.byLabels[key]; r != nil {
		c.unhash(r)
		r.adopt(ev, now)
		c.rehash(r, hash)
		c.assign(r)
		c.reschedule(r)
		c.touch(r)
		return
	}
	if !c.makeRoom() {
		c.counts.refused++
		return
	}
	c.lastID++
	r := &record{key: key, version: 1, alert: Alert{
		ID: c.lastID, Name: labels["alertname"], Severity: labels["severity"], Policy: cleanText(ev.Policy),
		Component: cleanText(ev.Component), State: Firing, Labels: labels, Start: eventTime(&ev, now),
	}}
	r.adopt(ev, now)
	c.rehash(r, hash)
	c.byLabels[key] = r
	c.assign(r)
	r.due = r.nextDue()
	heap.Push(&c.due, r)
	c.counts.fired[severityIndex(r.alert.Severity)]++
	c.touch(r)
	signal(c.wake)
}

// makeRoom forgets a resolved alert when there are as many as are kept. It reports whether there is room.
func (c *Center) makeRoom() bool {
	if len(c.due)+c.resolved.Len() < c.config.Keep {
		return true
	}
	front := c.resolved.Front()
	if front == nil {
		return false
	}
	c.resolved.Remove(front)
	return true
}

// rehash makes a record known by the hash of its source; unhash undoes it.
func (c *Center) rehash(r *record, hash uint64) {
	r.hash, r.next = hash, c.firing[hash]
	c.firing[hash] = r
}

func (c *Center) unhash(r *record) {
	first := c.firing[r.hash]
	switch {
	case first == nil: // a record of before the restart was never raised
	case first == r && r.next == nil:
		delete(c.firing, r.hash)
	case first == r:
		c.firing[r.hash] = r.next
	default:
		for p := first; p.next != nil; p = p.next {
			if p.next == r {
				p.next = r.next
				break
			}
		}
	}
	r.next = nil
}

// reschedule makes the center look at a record in time; only needed when that may be earlier than before.
func (c *Center) reschedule(r *record) {
	r.due = r.nextDue()
	heap.Fix(&c.due, r.place)
	signal(c.wake)
}

// touch has the history keep what has changed.
func (c *Center) touch(r *record) {
	if c.config.Store == nil {
		return
	}
	c.dirty[r.alert.ID] = r
	if len(c.dirty) > 2*c.config.Keep {
		c.forgetDirty()
	}
	signal(c.unsaved)
}

// assign queues a record for the couriers of its channels that do not know its state.
func (c *Center) assign(r *record) {
	for _, k := range c.couriersOf(r.alert.Channels) {
		d := r.deliveryOf(k)
		if d == nil {
			d = &delivery{record: r, courier: k}
			r.deliveries = append(r.deliveries, d)
		}
		if d.told != r.version {
			c.enqueue(d)
		}
		if k.resends() && r.resend.IsZero() {
			r.resend = time.Now().Add(ResendInterval)
		}
	}
}

func (r *record) deliveryOf(k *courier) *delivery {
	for _, d := range r.deliveries {
		if d.courier == k {
			return d
		}
	}
	return nil
}

// couriersOf chooses by channel. Channels that name no target at all count as none: a name that is wrong
// must not silence an alert.
func (c *Center) couriersOf(channels []string) []*courier {
	var named, others []*courier
	for _, k := range c.couriers {
		switch {
		case slices.Contains(channels, k.target.Name):
			named = append(named, k)
		case !k.target.OnlyNamed:
			others = append(others, k)
		}
	}
	if len(named) > 0 {
		return named
	}
	return others
}

// Run resolves and delivers alerts until ctx ends; then it saves what it has not yet, waits for everything
// it started, and returns nil. What targets do not know by then, they learn after the next Load.
func (c *Center) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	for _, k := range c.couriers {
		parts.Go(func() { k.run(ctx) })
	}
	if c.config.Store != nil {
		parts.Go(func() { c.keepHistory(ctx) })
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			parts.Wait()
			c.saveLast(ctx)
			return nil
		case <-timer.C:
		case <-c.wake:
		}
		timer.Reset(c.advance(time.Now()))
	}
}

// advance resolves and re-sends what is due, and returns how long nothing else will be.
func (c *Center) advance(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.due) > 0 {
		r := c.due[0]
		if now.Before(r.due) {
			return r.due.Sub(now)
		}
		if !now.Before(r.until) {
			c.resolve(r, now)
			continue
		}
		if !r.resend.IsZero() && !now.Before(r.resend) {
			for _, d := range r.deliveries {
				if d.courier.resends() {
					c.enqueue(d)
				}
			}
			r.resend = now.Add(ResendInterval)
		}
		r.due = r.nextDue()
		heap.Fix(&c.due, 0)
	}
	return time.Hour // until the next wake
}

// resolve ends a firing record.
func (c *Center) resolve(r *record, now time.Time) {
	heap.Remove(&c.due, r.place)
	c.unhash(r)
	delete(c.byLabels, r.key)
	r.alert.State, r.alert.End = Resolved, plain(now)
	r.source = Event{}
	r.version++
	for _, d := range r.deliveries {
		c.enqueue(d)
	}
	c.resolved.PushBack(r)
	c.touch(r)
}

// signal wakes a reader of a channel with capacity 1.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
