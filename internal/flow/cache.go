// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-project/sluice/internal/cache"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/sched"
)

// CacheQuery asks for values while a flow is decided. It must not change until the verdict is known.
//
// The caches are asked after the stages that are cheap or hold slots, and before quota and load schedulers: a
// result that is there spares the flow those, and stays admitted by what came before. A flow that waits for the
// result of another one (CoalesceWait, CoalesceStale) holds its slots meanwhile. It waits no longer than in a
// queue; when that time is over it goes on without the result, with whatever time is left.
type CacheQuery struct {
	// ResultKey is scoped to the control point; "": none. GlobalKeys are not. Both are scoped to the tenant.
	ResultKey  string
	GlobalKeys []string
	// Coalesce says what happens when another flow computes the missing result already.
	Coalesce Coalesce
}

// Coalesce says how flows that miss the same result key share the work.
type Coalesce = cache.Coalesce

// The ways.
const (
	CoalesceNone  = cache.CoalesceNone  // each computes
	CoalesceWait  = cache.CoalesceWait  // one computes, the others wait
	CoalesceStale = cache.CoalesceStale // the others get the value that expired last; without, they wait
)

// CacheStatus is the answer for one key.
type CacheStatus uint8

// The statuses.
const (
	CacheNone CacheStatus = iota // not asked for
	CacheHit
	CacheMiss
	CacheStale
	CacheError
)

// String is the stable code.
func (s CacheStatus) String() string { return [...]string{"", "hit", "miss", "stale", "error"}[s] }

var cacheStatuses = [...]CacheStatus{
	cache.Hit: CacheHit, cache.Miss: CacheMiss, cache.Stale: CacheStale, cache.Failed: CacheError,
}

// CacheValue is the answer for one key. The value must not be changed.
type CacheValue struct {
	Status CacheStatus
	Value  []byte
	Error  string
}

// NewCacheValue translates an answer of the caches.
func NewCacheValue(a cache.Answer) CacheValue {
	v := CacheValue{Status: cacheStatuses[a.Status], Value: a.Value}
	if a.Err != nil {
		v.Error = a.Err.Error()
	}
	return v
}

// CacheResult is what the caches answered a flow.
type CacheResult struct {
	Result CacheValue
	Global map[string]CacheValue
	// Leader tells that this flow was chosen to compute the missing result. It should store the result, then end.
	// If it ends without, the next flow that waits is chosen; a leader with NoEnd keeps the others waiting until
	// it has stored a result, or caches.coalesce_timeout has passed.
	Leader bool
	// Tenant is whose values these are.
	Tenant string
}

// Cached is what the caches answered; nil when they were not asked, or the flow was denied. It is valid until the
// flow is freed.
func (f *Flow) Cached() *CacheResult {
	if f.lookup == nil || !f.Verdict.Admitted {
		return nil
	}
	return &f.lookup.result
}

// lookup is what a flow asks of the caches. It is pooled apart from flows, because most ask for nothing.
type lookup struct {
	flow   *Flow
	query  CacheQuery
	key    cache.Key // of the result
	state  lookupState
	waiter cache.Waiter
	lead   cache.Lead
	result CacheResult
}

type lookupState uint8

const (
	lookupTodo lookupState = iota
	lookupWaits
	lookupDone
)

var lookups = sync.Pool{New: func() any { return new(lookup) }}

var (
	_ cache.Resumer = (*lookup)(nil)
	_ waitingPlace  = (*lookup)(nil)
)

// askCaches prepares a look-up. The name of the control point is the one of the request: control points beyond
// those counted one by one share a controlPoint, but not their results.
func (f *Flow) askCaches(r *Request) {
	l := lookups.Get().(*lookup)
	l.flow, l.query = f, *r.Cache
	if c := f.engine.cfg.Cache; c != nil && c.TenantLabel() != "" {
		l.result.Tenant = f.tenant(r, c.TenantLabel())
	}
	l.key = cache.ResultKey(l.result.Tenant, r.ControlPoint, l.query.ResultKey)
	f.lookup = l
}

// tenant reads a label with the precedence of all labels: classifiers, then the caller, then the HTTP request.
func (f *Flow) tenant(r *Request, key string) string {
	derived := f.Derived()
	for i := len(derived) - 1; i >= 0; i-- {
		if derived[i].Key == key {
			return derived[i].Value
		}
	}
	text, ok := r.Labels[key]
	if !ok && r.HTTP != nil {
		text, _ = r.HTTP.Label(key)
	}
	return text
}

// coalesceMargin is how long before the flow's deadline it stops to wait for a result, so that it can still be
// decided.
const coalesceMargin = 10 * time.Millisecond

// lookUp asks the caches, or goes on when waiting for a result is over. It returns stageEnough when the result
// is there.
func (f *Flow) lookUp(now limit.Instant, wakes *sched.Wakes) stageResult {
	l, c := f.lookup, f.engine.cfg.Cache
	switch {
	case c == nil:
		l.notReady()
		return stagePassed
	case l.state == lookupWaits:
		f.Verdict.Waited += l.waiter.Waited
		if l.waiter.Closed {
			f.deny(ShuttingDown, nil, now, wakes)
			return stageDenied
		}
	case l.query.ResultKey == "":
	case l.query.Coalesce == CoalesceNone:
		l.waiter.Answer = c.Lookup(context.Background(), l.key, now)
	default:
		if res := f.joinFlight(now, wakes); res != stagePassed {
			return res
		}
	}
	l.state = lookupDone
	if l.query.ResultKey != "" {
		a := &l.waiter.Answer
		l.lead, l.result.Leader = a.Lead, a.Lead != 0
		l.result.Result = NewCacheValue(*a)
	}
	if names := l.query.GlobalKeys; len(names) > 0 {
		l.result.Global = make(map[string]CacheValue, min(len(names), cache.MaxGlobalKeys))
		c.LookupGlobal(context.Background(), l.result.Tenant, names, len(l.result.Result.Value), now,
			func(name string, a cache.Answer) { l.result.Global[name] = NewCacheValue(a) })
	}
	if s := l.result.Result.Status; s == CacheHit || s == CacheStale {
		return stageEnough
	}
	return stagePassed
}

// joinFlight asks for the result together with other flows.
func (f *Flow) joinFlight(now limit.Instant, wakes *sched.Wakes) stageResult {
	l, w := f.lookup, &f.lookup.waiter
	w.Deadline, w.Resumer = f.waitUntil(now, coalesceMargin, 0), l
	f.waiter.Resumer = f // for Wakes
	f.mu.Lock()
	if f.cancelled {
		f.mu.Unlock()
		f.deny(Cancelled, nil, now, wakes)
		return stageDenied
	}
	out := f.engine.cfg.Cache.Join(context.Background(), l.key, l.query.Coalesce, w, now)
	if out == cache.Pending {
		l.state = lookupWaits
		f.waitsAt(l)
		f.mu.Unlock()
		return stageWaits
	}
	f.mu.Unlock()
	if out == cache.Refused {
		f.deny(ShuttingDown, nil, now, wakes)
		return stageDenied
	}
	return stagePassed
}

// notReady answers every key when there are no caches.
func (l *lookup) notReady() {
	l.state = lookupDone
	none := NewCacheValue(cache.Answer{Status: cache.Failed, Err: cache.ErrNotReady})
	if l.query.ResultKey != "" {
		l.result.Result = none
	}
	for i, name := range l.query.GlobalKeys {
		if i == 0 {
			l.result.Global = make(map[string]CacheValue)
		}
		if i < cache.MaxGlobalKeys {
			l.result.Global[name] = none
		}
	}
}

// Resumed implements cache.Resumer.
func (l *lookup) Resumed(*cache.Waiter) {
	var wakes sched.Wakes
	l.flow.Resume(&l.flow.waiter, &wakes)
	wakes.Run()
}

// cancelWait implements waitingPlace.
func (l *lookup) cancelWait(f *Flow, now limit.Instant, _ *sched.Wakes) bool {
	if !f.engine.cfg.Cache.Cancel(&l.waiter, now) {
		return false
	}
	f.Verdict.Waited += l.waiter.Waited
	return true
}

// at implements waitingPlace.
func (l *lookup) at(*Flow) *stage { return nil }

// leave gives up the lead of a flow that will not run.
func (l *lookup) leave(now limit.Instant, wakes *sched.Wakes) {
	l.flow.engine.leave(l.lead, now, wakes)
	l.lead = 0
}

// leave ends a lead; the flow that leads from now on, if any, goes to wakes.
func (e *Engine) leave(lead cache.Lead, now limit.Instant, wakes *sched.Wakes) {
	if lead == 0 || e.cfg.Cache == nil {
		return
	}
	if next := e.cfg.Cache.Leave(lead, now); next != nil {
		wakes.Add(&next.Resumer.(*lookup).flow.waiter)
	}
}

func (l *lookup) free() {
	*l = lookup{}
	lookups.Put(l)
}
