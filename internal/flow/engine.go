// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"cmp"
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-project/sluice/internal/cache"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/meter"
	"github.com/sluice-project/sluice/internal/sched"
)

// Config configures an Engine.
type Config struct {
	// Authority keeps the accounts. Required.
	Authority ledger.Authority
	// TokenKey seals flow tokens; 32 bytes, the same on all servers that may end each other's flows, and
	// kept over restarts. Required.
	TokenKey []byte
	// MaxWaiting bounds the flows waiting at one limiter; 0: sched.DefaultMaxWaiting.
	MaxWaiting int
	// MaxControlPoints bounds the control points counted one by one; 0: DefaultMaxControlPoints.
	MaxControlPoints int
	// AgentGroup is the group of this server: selectors of other groups do not count. "": it is in every group.
	AgentGroup string
	// Cache answers look-ups; nil: it answers that it is not ready. It should have the clock of the Authority.
	Cache *cache.Cache
	// Logger; nil: slog.Default().
	Logger *slog.Logger
}

// DefaultMaxControlPoints is how many control points have figures of their own. Those beyond that no
// policy names share one.
const DefaultMaxControlPoints = 10_000

// Engine decides flows. All methods may be called concurrently.
type Engine struct {
	authority ledger.Authority
	cfg       Config
	logger    *slog.Logger
	malformed malformedCounts
	snapshot  atomic.Pointer[snapshot]
	pool      sync.Pool
	sealer    cipher.AEAD
	nonce     nonceSource
	endedSet  endedSet
	opened    time.Time

	mu       sync.Mutex                                    // serialises changes of limiters
	limiters atomic.Pointer[map[ledger.LimiterID]*limiter] // copied on change; retired ones included
	meters   map[meterKey]*meter.Meter                     // those of the snapshot
	// classifiers are the counts of those of the snapshot.
	classifiers map[classifierKey]*classifierCounts

	points   sync.Map // name -> *pointStats
	nPoints  atomic.Int64
	stripe   atomic.Int64
	overflow *controlPoint

	tapping   sync.Mutex             // serialises changes of taps
	taps      atomic.Pointer[[]*tap] // copied on change; nil: nobody watches
	heldBytes atomic.Int64           // of samples of flows that wait, about
	seenBytes atomic.Int64           // that pointSeen of all control points take, about
	rates     rateRing
}

// New makes an engine without limiters: it admits everything.
func New(cfg Config) (*Engine, error) {
	if cfg.Authority == nil {
		return nil, errors.New("flow: Config needs an Authority")
	}
	sealer, err := newSealer(cfg.TokenKey)
	if err != nil {
		return nil, err
	}
	if cfg.MaxControlPoints <= 0 {
		cfg.MaxControlPoints = DefaultMaxControlPoints
	}
	e := &Engine{
		authority: cfg.Authority, cfg: cfg, sealer: sealer, opened: time.Now(),
		logger: cmp.Or(cfg.Logger, slog.Default()),
	}
	e.limiters.Store(&map[ledger.LimiterID]*limiter{})
	e.nonce.init()
	e.rates.times[0], e.rates.reads = e.opened, 1
	e.pool.New = func() any {
		f := &Flow{stripe: int(e.stripe.Add(1)) & (stripes - 1), unseen: gap()}
		f.values, f.bits, f.charges = f.valueBuf[:0], f.bitsBuf[:0], f.chargeBuf[:0]
		return f
	}
	e.snapshot.Store(&snapshot{points: map[string]*controlPoint{}})
	e.overflow = &controlPoint{name: "(other)", stats: newPointStats("(other)")}
	return e, nil
}

// Check tells whether Publish would take a set.
func (e *Engine) Check(set Set) error {
	limiters, meters := set.Limiters, set.Meters
	seen := make(map[ledger.LimiterID]*LimiterSpec, len(limiters))
	var errs []error
	for _, s := range limiters {
		if other := seen[s.ID]; other != nil {
			errs = append(errs, fmt.Errorf("limiters %s %s and %s %s have the same id %x",
				s.Policy, s.Component, other.Policy, other.Component, s.ID))
		}
		seen[s.ID] = s
		if err := s.validate(); err != nil {
			errs = append(errs, fmt.Errorf("policy %s, %s: %w", s.Policy, s.Component, err))
		}
	}
	byID := make(map[uint32]*MeterSpec, len(meters))
	for _, s := range meters {
		if other := byID[s.ID()]; other != nil {
			errs = append(errs, fmt.Errorf("flux meters %s of policy %s and %s of policy %s cannot be told apart in flow tokens: give one of them another name",
				s.Name, s.Policy, other.Name, other.Policy))
		}
		byID[s.ID()] = s
		if err := s.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("policy %s: %w", s.Policy, err))
		}
	}
	return errors.Join(append(errs, checkClassifiers(set.Classifiers)...)...)
}

func (s *LimiterSpec) validate() error {
	switch {
	case s.ID == 0:
		return errors.New("limiter without id")
	case s.Kind == KindUnspecified || int(s.Kind) >= len(kindNames):
		return errors.New("limiter of unknown kind")
	case s.Kind.schedules() != (s.Scheduler != nil):
		return errors.New("scheduler parameters do not suit the kind")
	case s.Kind.samples() != (s.Sample != nil):
		return errors.New("sampler parameters do not suit the kind")
	case s.Kind.holdsSlots() && s.Slots.MaxInFlight <= 0:
		return errors.New("max_inflight_duration must be more than 0")
	case s.Kind.hasBucket() && s.Bucket.Interval <= 0:
		return errors.New("interval must be more than 0")
	case !s.Driven && (s.Kind == LoadScheduler || s.Kind == AdaptiveConcurrencyScheduler):
		return errors.New("the kind needs setpoints, so Driven must be set")
	case s.LimitBy != "" && s.Kind == LoadScheduler:
		return errors.New("a load scheduler has no accounts by label")
	}
	return nil
}

// Publish puts a set of limiters, flux meters and classifiers into force, replacing all before. Limiters whose id
// stays keep their accounts and queues, classifiers and meters that stay the same their counts; flows that wait at a limiter
// that is gone go on waiting under its last rule. On an error nothing changes.
func (e *Engine) Publish(set Set) error {
	if err := e.Check(set); err != nil {
		return err
	}
	var wakes sched.Wakes
	e.mu.Lock()
	err := e.publishLocked(set, &wakes)
	e.mu.Unlock()
	wakes.Run()
	return err
}

func (e *Engine) publishLocked(set Set, wakes *sched.Wakes) error {
	running, err := e.metersLocked(set.Meters)
	if err != nil {
		return err
	}
	states, err := e.statesLocked(set.Limiters, wakes)
	if err != nil {
		return err
	}
	p := publication{
		limiters: states, specs: set.Meters, meters: running, classifiers: e.classifiersLocked(set.Classifiers),
		group: e.cfg.AgentGroup, stats: e.pointStats,
	}
	e.snapshot.Store(p.build())
	e.classifiers = make(map[classifierKey]*classifierCounts, len(p.classifiers))
	for _, c := range p.classifiers {
		e.classifiers[c.spec.key()] = c.counts
	}
	e.meters = make(map[meterKey]*meter.Meter, len(running))
	for _, m := range running {
		e.meters[meterKey{m.Spec().Policy, m.Spec().Name}] = m
	}
	return nil
}

// meterKey names a flux meter.
type meterKey struct{ policy, name string }

// metersLocked finds or makes the meters of specs, in their order.
func (e *Engine) metersLocked(specs []*MeterSpec) ([]*meter.Meter, error) {
	out := make([]*meter.Meter, len(specs))
	for i, s := range specs {
		if m := e.meters[meterKey{s.Policy, s.Name}]; m != nil && m.Spec().Same(&s.Spec) {
			out[i] = m
			continue
		}
		var err error
		if out[i], err = meter.New(s.Spec, stripes); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (e *Engine) statesLocked(specs []*LimiterSpec, wakes *sched.Wakes) ([]*limiter, error) {
	now := e.authority.Now()
	states := make([]*limiter, 0, len(specs))
	all := maps.Clone(*e.limiters.Load())
	for _, spec := range specs {
		l := all[spec.ID]
		if l == nil || l.kind != spec.Kind {
			var err error
			if l, err = newLimiter(spec, e.authority, e.cfg.MaxWaiting); err != nil {
				return nil, err
			}
			all[spec.ID] = l
		}
		states = append(states, l)
	}
	keep := make(map[ledger.LimiterID]bool, len(specs))
	for i, spec := range specs {
		keep[spec.ID] = true
		if l := states[i]; l.published != spec || l.retiredAt.Load() != 0 {
			l.configure(spec, now, wakes)
		}
	}
	for id, l := range all {
		if !keep[id] && l.retiredAt.Load() == 0 {
			l.retiredAt.Store(time.Now().UnixNano())
		}
	}
	e.limiters.Store(&all)
	return states, nil
}

// keepRetired is how long the accounts of a limiter outlive it, so that putting a policy back does not
// give its quotas back.
const keepRetired = time.Hour

// Run forgets the accounts of limiters that are long gone, and keeps the rates of control points, until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	forget, rates := time.NewTicker(time.Minute), time.NewTicker(rateEvery)
	defer forget.Stop()
	defer rates.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-forget.C:
			e.forgetRetired(time.Now())
		case <-rates.C:
			e.rates.mu.Lock()
			e.takeRatesLocked(time.Now(), rateEvery/2)
			e.rates.mu.Unlock()
		}
	}
}

func (e *Engine) forgetRetired(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := maps.Clone(*e.limiters.Load())
	defer e.limiters.Store(&all)
	if lister, ok := e.authority.(interface{ Unannounced() []ledger.LimiterID }); ok && now.Sub(e.opened) > keepRetired {
		for _, id := range lister.Unannounced() { // limiters that were gone before this process started
			e.authority.Forget(id)
		}
	}
	for id, l := range all {
		at := l.retiredAt.Load()
		if at == 0 || now.Sub(time.Unix(0, at)) < keepRetired || l.queue != nil && l.queue.Waiting() > 0 {
			continue
		}
		delete(all, id)
		e.authority.Forget(id)
	}
}

// Close denies every flow that waits, and every one that would have to.
func (e *Engine) Close() {
	for _, l := range *e.limiters.Load() {
		if l.queue != nil {
			var wakes sched.Wakes
			l.queue.Close(&wakes)
			wakes.Run()
		}
	}
	if e.cfg.Cache != nil {
		e.cfg.Cache.StopWaiting()
	}
}

// Now is the clock of the accounts.
func (e *Engine) Now() limit.Instant { return e.authority.Now() }

// pointFor returns a control point; one that no policy names has no stages but is counted.
func (e *Engine) pointFor(s *snapshot, name string) *controlPoint {
	if p := s.points[name]; p != nil {
		return p
	}
	if stats, ok := e.points.Load(name); ok {
		return stats.(*pointStats).bare
	}
	if e.nPoints.Load() >= int64(e.cfg.MaxControlPoints) {
		return e.overflow
	}
	return e.pointStats(name).bare
}

func (e *Engine) pointStats(name string) *pointStats {
	if s, ok := e.points.Load(name); ok {
		return s.(*pointStats)
	}
	s, loaded := e.points.LoadOrStore(name, newPointStats(name))
	if !loaded {
		e.nPoints.Add(1)
	}
	return s.(*pointStats)
}
