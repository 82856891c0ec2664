// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	minInterval = 10 * time.Millisecond
	// A query that took longer than slowAfter runs among the slow ones the next time, so that it keeps no
	// quick one waiting; a new one starts there. slowLane is how many slow ones run at a time. Those that
	// failed in a costly way are among themselves until they succeed, as many at a time.
	slowAfter = 100 * time.Millisecond
	slowLane  = 2
	// A query that finds nothing yet is asked again after emptyPause, or after emptyShare times as long as it
	// took, even if its interval is longer: a policy that averages over half an hour should not be blind for
	// another half a minute once there is something to average.
	emptyPause = time.Second
	emptyShare = 20
)

// pauses is how long a query that fails pauses at most: it begins with two intervals and doubles. The other
// failures cost nothing.
var pauses = map[Kind]time.Duration{
	KindTimeout:     time.Minute,
	KindTooLarge:    time.Minute,
	KindUnreachable: 15 * time.Second,
}

// answer is the result of a query.
type answer struct {
	scalar   bool
	elements []element
}

// element is one element of a vector; of a scalar only the value counts.
type element struct {
	labels    func(name string) string
	value     float64
	histogram bool
}

// evaluator evaluates a query for a time.
type evaluator func(ctx context.Context, expr string, at time.Time) (answer, error)

// board has the queries of policies and their latest readings.
type board struct {
	log      *slog.Logger
	metrics  *metrics
	evaluate evaluator
	timeout  time.Duration
	enforced map[string]string
	ctx      context.Context //nolint:containedctx // of evaluations, which outlive the Step that starts them
	cancel   context.CancelFunc
	running  sync.WaitGroup
	quick    lane
	slow     lane
	sick     lane
	failing  reminder

	mu          sync.Mutex
	evaluations map[evaluationKey]*evaluation
	closed      bool
}

type evaluationKey struct {
	expr, byLabel string
	interval      time.Duration
}

// evaluation is a query that is evaluated regularly, for all its subscriptions.
type evaluation struct {
	key               evaluationKey
	policy, component string // of the first subscription
	reading           atomic.Pointer[Reading]

	// Guarded by board.mu.
	users    int
	running  bool
	planned  time.Time // when it was due last
	next     time.Time // when it is due next
	failures int       // costly ones in a row
	slow     bool
}

// Subscription reads the answers to a query.
type Subscription struct {
	board *board
	e     *evaluation
	once  sync.Once
}

func newBoard(ctx context.Context, c Config, m *metrics, evaluate evaluator) *board {
	b := &board{
		log: c.Logger, metrics: m, evaluate: evaluate, timeout: c.QueryTimeout, enforced: c.EnforceLabels,
		evaluations: map[evaluationKey]*evaluation{},
	}
	b.ctx, b.cancel = context.WithCancel(context.WithoutCancel(ctx))
	b.quick.most, b.slow.most, b.sick.most = c.MaxConcurrent, slowLane, slowLane
	return b
}

// Subscribe has a query evaluated from the next Step on, until the subscription is closed. Equal queries with
// the same interval are evaluated once. The error says what is wrong with the query.
func (s *Service) Subscribe(q Query) (*Subscription, error) {
	expr, problem := parse(q.Expr)
	if problem != nil {
		return nil, problem
	}
	if q.Interval < minInterval {
		return nil, &Error{KindInvalid, fmt.Sprintf("the interval of the query is %v, want at least %v", q.Interval, minInterval)}
	}
	text, err := enforce(expr, s.board.enforced)
	if err != nil {
		return nil, &Error{KindInvalid, err.Error()}
	}
	return s.board.subscribe(evaluationKey{expr: text, byLabel: q.ByLabel, interval: q.Interval}, q), nil
}

func (b *board) subscribe(key evaluationKey, q Query) *Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.evaluations[key]
	if e == nil {
		e = &evaluation{key: key, policy: q.Policy, component: q.Component, slow: true}
		e.reading.Store(&Reading{Value: math.NaN(), Err: errPending})
		b.evaluations[key] = e
	}
	e.users++
	return &Subscription{board: b, e: e}
}

// Close ends the subscription. Its reading stays as it is.
func (s *Subscription) Close() {
	s.once.Do(func() {
		s.board.mu.Lock()
		defer s.board.mu.Unlock()
		if s.e.users--; s.e.users == 0 {
			delete(s.board.evaluations, s.e.key)
		}
	})
}

// Reading is the latest answer. It does not wait or allocate.
func (s *Subscription) Reading() Reading { return *s.e.reading.Load() }

// Step starts the queries that are due at now, for the time now, and waits until they are done, but at most
// wait and not longer than ctx. What is not done by then is published when it is, and not started again
// before. It returns how many are late.
func (s *Service) Step(ctx context.Context, now time.Time, wait time.Duration) (late int) {
	return s.board.step(ctx, now, wait)
}

func (b *board) step(ctx context.Context, now time.Time, wait time.Duration) int {
	due := b.take(now)
	if len(due) == 0 {
		return 0
	}
	jobs := &batch{done: make(chan struct{})}
	jobs.left.Store(int64(len(due)))
	for _, e := range due {
		b.laneOf(e).start(&b.running, func() {
			defer b.running.Done()
			defer jobs.finish()
			b.run(e, now)
		})
	}
	if wait > 0 {
		jobs.wait(ctx, wait)
	}
	late := int(jobs.left.Load())
	b.metrics.late.Add(float64(late))
	return late
}

// laneOf is where a query runs that take has returned.
func (b *board) laneOf(e *evaluation) *lane {
	switch {
	case e.failures > 0:
		return &b.sick
	case e.slow:
		return &b.slow
	}
	return &b.quick
}

// take marks the queries that are due at now as running.
func (b *board) take(now time.Time) (due []*evaluation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	for _, e := range b.evaluations {
		if now.Before(e.next) && !now.Before(e.planned) { // the clock may step back
			continue
		}
		e.planned, e.next = now, now.Truncate(e.key.interval).Add(e.key.interval)
		if e.running {
			b.metrics.skipped.Inc()
			continue
		}
		e.running = true
		due = append(due, e)
	}
	b.running.Add(len(due))
	return due
}

// run evaluates a query and publishes the reading.
func (b *board) run(e *evaluation, at time.Time) {
	ctx, cancel := context.WithTimeout(b.ctx, b.timeout)
	defer cancel()
	begin := time.Now()
	a, err := b.evaluate(ctx, e.key.expr, at)
	took := time.Since(begin)
	if err != nil && ctx.Err() != nil && b.ctx.Err() == nil {
		err = &Error{KindTimeout, fmt.Sprintf("the query took longer than %v", b.timeout)}
	}
	r := a.reading(e.key.byLabel, err)
	r.At, r.LastDuration, r.Evaluations = at, took, e.reading.Load().Evaluations+1
	e.reading.Store(&r)
	b.metrics.query.Observe(took.Seconds())
	kind := KindOf(r.Err)
	if kind != 0 {
		b.metrics.failures.WithLabelValues(kind.String()).Inc()
	}
	b.ran(e, at, took, kind)
	if pauses[kind] > 0 {
		b.failing.warn(b.log, "a query of a policy fails", "policy", e.policy, "component", e.component, "query", e.key.expr, "error", r.Err)
	}
}

// ran plans the next evaluation of a query.
func (b *board) ran(e *evaluation, at time.Time, took time.Duration, kind Kind) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.running, e.slow = false, took > slowAfter
	most, costly := pauses[kind]
	if !costly {
		e.failures = 0
		if soon := at.Add(max(emptyPause, emptyShare*took)); (kind == KindEmpty || kind == KindNotANumber) && soon.Before(e.next) {
			e.next = soon
		}
		return
	}
	e.failures = min(e.failures+1, 10)
	pause := min(e.key.interval<<e.failures, most)
	if next := at.Add(pause); next.After(e.next) {
		e.next = next
	}
}

// close stops all evaluations and waits for them.
func (b *board) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.cancel()
	b.running.Wait()
}

func (b *board) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.evaluations)
}

// reading turns an answer into a reading.
func (a answer) reading(byLabel string, err error) Reading {
	r := Reading{Value: math.NaN()}
	switch {
	case err != nil:
		r.Err = err
		if KindOf(err) == 0 {
			r.Err = &Error{KindInvalid, err.Error()}
		}
	case byLabel != "":
		r.table(a, byLabel)
	case len(a.elements) == 0:
		r.Err = &Error{KindEmpty, "the query selects nothing now"}
	case len(a.elements) > 1:
		r.Err = &Error{KindMany, fmt.Sprintf("the query gives %d values, want one: sum, average or select them", len(a.elements))}
	case a.elements[0].histogram:
		r.Err = &Error{KindNotANumber, "the query gives a histogram, want a number: use a function such as histogram_quantile(0.99, ...)"}
	case math.IsNaN(a.elements[0].value):
		r.Err = &Error{KindNotANumber, "the query gives NaN: a division of nothing by nothing, or a quantile of no observations"}
	default:
		r.Value = a.elements[0].value
	}
	return r
}

// table fills in the table of a query with ByLabel.
func (r *Reading) table(a answer, by string) {
	if a.scalar {
		r.Err = &Error{KindInvalid, fmt.Sprintf("the query gives a single number, want a vector with the label %q", by)}
		return
	}
	t := make(map[string]float64, len(a.elements))
	for _, e := range a.elements {
		if e.histogram {
			continue
		}
		key := e.labels(by)
		if _, ok := t[key]; ok {
			r.Err = &Error{KindMany, fmt.Sprintf("the query gives more than one value for %s=%q: aggregate by (%s)", by, key, by)}
			return
		}
		t[key] = e.value
	}
	r.Value, r.ByLabel = float64(len(t)), t
}

// batch is the evaluations of one Step.
type batch struct {
	left atomic.Int64
	done chan struct{}
}

func (b *batch) finish() {
	if b.left.Add(-1) == 0 {
		close(b.done)
	}
}

func (b *batch) wait(ctx context.Context, most time.Duration) {
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-b.done:
	case <-t.C:
	case <-ctx.Done():
	}
}

// lane runs jobs in their order, a number of them at a time.
type lane struct {
	most    int
	mu      sync.Mutex
	busy    int
	pending []func()
}

// start runs a job as soon as there is room. It does not wait.
func (l *lane) start(workers *sync.WaitGroup, job func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy >= l.most {
		l.pending = append(l.pending, job)
		return
	}
	l.busy++
	workers.Go(func() {
		for job != nil {
			job()
			job = l.next()
		}
	})
}

// next is the next job; nil ends the worker.
func (l *lane) next() func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) == 0 {
		l.busy--
		return nil
	}
	job := l.pending[0]
	l.pending[0] = nil
	l.pending = l.pending[1:]
	return job
}
