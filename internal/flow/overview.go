// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/sched"
)

// Overview is the state of the data plane at one moment. Counters count from the start of the process.
type Overview struct {
	Time     time.Time
	Points   []PointOverview
	Limiters []LimiterOverview
	Accounts []AccountOverview // those closest to their limit first
}

// PointOverview counts the flows of one control point.
type PointOverview struct {
	Name                        string
	Admitted, Denied, Unmatched uint64
	Failed                      uint64
	Waiting                     int64
	DeniedByReason              map[Reason]uint64
}

// LimiterOverview is the state of one limiter.
type LimiterOverview struct {
	Spec             *LimiterSpec
	Admitted, Denied uint64
	TokensAdmitted   float64
	TokensDenied     float64
	LabelMissing     uint64
	// PassedThrough counts admitted flows that the limiter did not decide about, LabelMissing and Failed
	// included.
	PassedThrough uint64
	Failed        uint64
	InFlight      float64
	Accounts      int64
	Waiting       int
	Workloads     []sched.WorkloadSnapshot // by name
}

// AccountOverview is a reading of one account.
type AccountOverview struct {
	Spec        *LimiterSpec
	Account     string
	Used, Limit float64
	Waiting     int
}

// Overview reads the present state, with at most topAccounts accounts. It visits every account when
// topAccounts is not 0.
func (e *Engine) Overview(topAccounts int) *Overview {
	o := &Overview{Time: time.Now()}
	e.eachPoint(func(s *pointStats) { o.Points = append(o.Points, s.overview()) })
	slices.SortFunc(o.Points, func(a, b PointOverview) int { return cmp.Compare(a.Name, b.Name) })
	for _, l := range e.snapshot.Load().states {
		o.Limiters = append(o.Limiters, l.overview())
	}
	slices.SortFunc(o.Limiters, func(a, b LimiterOverview) int {
		return cmp.Or(cmp.Compare(a.Spec.Policy, b.Spec.Policy), compareIDs(a.Spec.Component, b.Spec.Component))
	})
	if topAccounts > 0 {
		o.Accounts = e.topAccounts(topAccounts)
	}
	return o
}

func (e *Engine) eachPoint(f func(*pointStats)) {
	e.points.Range(func(_, v any) bool {
		f(v.(*pointStats))
		return true
	})
	f(e.overflow.stats)
}

func (s *pointStats) overview() PointOverview {
	o := PointOverview{
		Name: s.name, Admitted: s.admitted(), Denied: s.deniedTotal(), Unmatched: s.unmatched.Load(),
		Failed: s.failed.Load(), Waiting: s.waiting.Load(), DeniedByReason: make(map[Reason]uint64),
	}
	for r := range s.denied {
		if n := s.denied[r].Load(); n > 0 {
			o.DeniedByReason[Reason(r)] = n
		}
	}
	return o
}

// counter is what a ledger may tell about a limiter beyond its accounts.
type counter interface{ Len() int64 }

type holder interface{ Held() float64 }

func (l *limiter) overview() LimiterOverview {
	t := l.totals()
	o := LimiterOverview{
		Spec: l.spec.Load(), Admitted: t.accepted + t.dropped, Denied: t.denied,
		PassedThrough: t.free, TokensAdmitted: t.tokens + t.tokensDropped, TokensDenied: t.tokensDenied,
		LabelMissing: l.labelMissing.Load(), Failed: l.failed.Load(),
	}
	var accounts any = l.buckets
	if l.slots != nil {
		accounts = l.slots
	}
	if c, ok := accounts.(counter); ok {
		o.Accounts = c.Len()
	}
	if h, ok := accounts.(holder); ok {
		o.InFlight = h.Held()
	}
	if l.queue != nil {
		o.Waiting = l.queue.Waiting()
		o.Workloads = l.queue.Workloads()
		slices.SortFunc(o.Workloads, func(a, b sched.WorkloadSnapshot) int { return cmp.Compare(a.Name, b.Name) })
	}
	return o
}

// accountLister is a ledger that can list its accounts.
type accountLister interface{ Each(func(ledger.Account)) }

func (e *Engine) topAccounts(n int) []AccountOverview {
	lister, ok := e.authority.(accountLister)
	if !ok {
		return nil
	}
	limiters := *e.limiters.Load()
	var top fullest
	lister.Each(func(a ledger.Account) {
		l := limiters[a.Limiter]
		if a.Limit <= 0 || a.Used <= 0 || l == nil {
			return
		}
		if spec := l.spec.Load(); spec.Driven && spec.PassThrough {
			return // there is no limit to be close to
		}
		share := a.Used / a.Limit
		if len(top) < n {
			heap.Push(&top, ranked{share, a})
		} else if share > top[0].share {
			top[0] = ranked{share, a}
			heap.Fix(&top, 0)
		}
	})
	slices.SortFunc(top, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(b.share, a.share), cmp.Compare(a.Limiter, b.Limiter), cmp.Compare(a.Key, b.Key))
	})
	out := make([]AccountOverview, len(top))
	for i, r := range top {
		l := limiters[r.Limiter]
		spec := l.spec.Load()
		out[i] = AccountOverview{Spec: spec, Account: accountName(spec, r.Key), Used: r.Used, Limit: r.Limit}
		if l.queue != nil {
			out[i].Waiting = l.queue.WaitingAt(r.Key)
		}
	}
	return out
}

// fullest is a heap with the account that is least close to its limit on top.
type fullest []ranked

type ranked struct {
	share float64
	ledger.Account
}

func (f fullest) Len() int           { return len(f) }
func (f fullest) Less(i, j int) bool { return f[i].share < f[j].share }
func (f fullest) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }

// Push implements heap.Interface.
func (f *fullest) Push(x any) { *f = append(*f, x.(ranked)) }

// Pop implements heap.Interface.
func (f *fullest) Pop() any {
	old := *f
	x := old[len(old)-1]
	*f = old[:len(old)-1]
	return x
}

// QueuedFlow is one waiting flow, for debug pages.
type QueuedFlow struct {
	Spec *LimiterSpec
	sched.Queued
}

// Queued lists flows that wait, at most so many of them.
func (e *Engine) Queued(most int) []QueuedFlow {
	var out []QueuedFlow
	for _, l := range *e.limiters.Load() {
		if l.queue == nil || len(out) >= most {
			continue
		}
		l.queue.Each(most-len(out), func(q sched.Queued) {
			q.Key, q.Workload, q.Fairness = label.Printable(q.Key), label.Printable(q.Workload), label.Printable(q.Fairness)
			out = append(out, QueuedFlow{l.spec.Load(), q})
		})
	}
	return out
}
