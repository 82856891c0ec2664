// SPDX-License-Identifier: Apache-2.0

// Package flow is the data plane: it decides one flow at a time.
//
// Policies are compiled into one immutable snapshot behind an atomic pointer: control point → selectors
// → stages in a fixed order. Before them, classifiers make labels of what flows of HTTP requests carry. A flow
// sees one snapshot from start to end. The first denial wins, and every stage passed before undoes what it
// charged, in reverse order, before the answer is given. Limiters live as long as their id does, so that their
// counts and queues survive edits.
//
// A decision allocates nothing when it admits, takes no global lock, and costs one look-up per label
// that a policy of its control point reads.
package flow

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/meter"
	"github.com/sluice-project/sluice/internal/sched"
)

// Request describes one flow.
type Request struct {
	// ControlPoint is where the flow passes. Required, unless Shape is given.
	ControlPoint string
	// Labels are what is known about the flow.
	Labels map[string]string
	// Shape and Values replace ControlPoint, Labels and Services where many flows look alike: the values
	// are in the order of the shape's keys.
	Shape  *Shape
	Values []string
	// Services the caller belongs to.
	Services []string
	// QueueTimeout bounds the time in queues, on top of the context's deadline; negative: no bound.
	QueueTimeout time.Duration
	// NoEnd says that End will not be called; slots free themselves when their time is over.
	NoEnd bool
	// Explain fills Verdict.Decisions.
	Explain bool
	// RampMode lets the flow run only if some load ramp, or sampler in ramp mode, selects it, and all that do
	// admit it. Flows without it are sampled by load ramps just the same, but need none.
	RampMode bool
	// HTTP makes it an HTTP flow: labels are made of the request, those of Labels win over them, and classifiers
	// look at it and win over both. It must not change while the flow is decided. Not with a Shape.
	HTTP *classify.Request
	// Cache asks for cached values; nil: none. Not with a Shape.
	Cache *CacheQuery
	// Tag is handed to the Flow.
	Tag uint64
	// Now spares reading the clock for flows that came together; 0: read it. See Engine.Now.
	Now limit.Instant
}

// Listener is told the verdict on a flow that had to wait. Decided is called once, with no lock held,
// on any goroutine; it must not block.
type Listener interface{ Decided(f *Flow) }

// charge is what a flow holds of one account, or that it passed a limiter without a charge.
type charge struct {
	limiter *limiter
	bin     *bin // where it is counted
	key     string
	tokens  float64
	slot    ledger.SlotID
	flags   chargeFlags
}

type chargeFlags uint8

const (
	chargeCarried chargeFlags = 1 << iota // the cost came from a label, so that End can correct it
	chargeEmpty                           // there is nothing to give back
	chargeFree                            // the limiter let it pass without deciding
)

// inlineCharges is how many charges a Flow holds without allocating.
const inlineCharges = 6

// Flow is one flow from Start to End. Flows are pooled: after Free or End it must not be touched. Its
// methods are not for concurrent use, except Cancel.
type Flow struct {
	// Verdict is the answer, once it is known.
	Verdict Verdict
	// Tag is the caller's.
	Tag uint64

	engine   *Engine
	snap     *snapshot
	point    *controlPoint
	values   label.Values
	services []string
	class    *classification // nil: no classifier looked at the flow
	lookup   *lookup         // nil: the caches are not asked
	sample   *pendingSample  // nil: nobody watches; only until the verdict is known
	bits     []uint64
	started  limit.Instant
	deadline limit.Instant // 0: none
	next     int           // stage to decide next
	noEnd    bool
	explain  bool
	ramp     bool
	charges  []charge
	waiter   sched.Waiter
	listener Listener
	wakes    Wakes
	stripe   int   // of counters; flows of one core share it, mostly, because pools are per core
	unseen   int32 // flows until one is looked at; see notice
	counted  bool  // in the control point's waiting figure

	mu        sync.Mutex   // guards what Cancel and Resume share
	waitingAt waitingPlace // nil: nowhere
	cancelled bool

	ready       chan struct{} // for Start; nil in flows that never blocked
	chargeBuf   [inlineCharges]charge
	valueBuf    [12]label.Value
	bitsBuf     [2]uint64
	stageBin    *bin    // of the stage being decided, also while the flow waits there
	stageTokens float64 // likewise
	stageCarry  bool    // they came from a label
	costNote    string  // why they did not
}

var _ sched.Resumer = (*Flow)(nil)

// Admitted tells whether the flow may run.
func (f *Flow) Admitted() bool { return f.Verdict.Admitted }

// ControlPoint is the name of the control point.
func (f *Flow) ControlPoint() string { return f.point.name }

// NoEnd is as the request said.
func (f *Flow) NoEnd() bool { return f.noEnd }

func (f *Flow) value(slot int) label.Value {
	if slot == noSlot {
		return label.Value{}
	}
	return f.values[slot]
}

// waitUntil is the deadline of a wait: the caller's less the margin, and no later than the queue
// time-out. 0: none.
func (f *Flow) waitUntil(now limit.Instant, margin, timeout time.Duration) limit.Instant {
	at := f.deadline
	if at != 0 {
		at = max(at.Add(-margin), 1)
	}
	if timeout > 0 {
		if t := now.Add(timeout); at == 0 || t < at {
			at = t
		}
	}
	return at
}

// Start decides a flow, waiting for capacity where a policy says so until ctx ends. The answer is in
// Verdict. A flow that was admitted must be ended with End (or its token sealed and the Flow freed);
// one that was denied must be freed.
func (e *Engine) Start(ctx context.Context, r *Request) *Flow {
	f, pending := e.Begin(ctx, r, nil)
	if !pending {
		return f
	}
	select {
	case <-f.ready:
	case <-ctx.Done():
		var wakes Wakes
		if !f.Cancel(&wakes) {
			<-f.ready
		}
		wakes.Run()
	}
	return f
}

// Begin is Start without waiting. When pending is true the verdict is still open and listener will be
// told; from then on the flow may be touched only by Listener.Decided and Cancel. The context's deadline
// bounds the wait; its cancellation does not, call Cancel for that.
func (e *Engine) Begin(ctx context.Context, r *Request, listener Listener) (f *Flow, pending bool) {
	f = e.pool.Get().(*Flow)
	now := r.Now
	if now == 0 {
		now = e.authority.Now()
	}
	f.engine, f.started, f.listener = e, now, listener
	f.noEnd, f.explain, f.ramp, f.services, f.Tag = r.NoEnd, r.Explain, r.RampMode, r.Services, r.Tag
	if listener == nil && f.ready == nil {
		f.ready = make(chan struct{}, 1)
	}
	if deadline, ok := ctx.Deadline(); ok {
		f.deadline = max(now.Add(time.Until(deadline)), 1)
	}
	if r.QueueTimeout >= 0 {
		if t := now.Add(r.QueueTimeout); f.deadline == 0 || t < f.deadline {
			f.deadline = t
		}
	}
	f.snap = e.snapshot.Load()
	if f.resolve(r) { // else the verdict says why not
		if f.unseen--; f.unseen <= 0 || f.watched(r) {
			f.notice(r)
		}
		if !f.run(now, nil) {
			return f, true
		}
	}
	f.finish()
	return f, false
}

// Wakes collects flows that a call has freed, to be resumed with Run when no lock is held.
type Wakes = sched.Wakes

// resolve finds the control point and the labels that it reads. It returns false for a request that
// makes no sense, with the verdict set.
func (f *Flow) resolve(r *Request) bool {
	if r.Shape != nil {
		f.services = r.Shape.services
		return r.Shape.resolve(f, r.Values)
	}
	if detail := checkRequest(r); detail != "" {
		f.point = f.engine.pointFor(f.snap, r.ControlPoint)
		f.Verdict.Reason, f.Verdict.Detail = InvalidRequest, detail
		return false
	}
	f.point = f.engine.pointFor(f.snap, r.ControlPoint)
	f.sizeTo(f.point)
	for i, key := range f.point.keys {
		text, ok := r.Labels[key]
		if !ok && r.HTTP != nil {
			text, ok = r.HTTP.Label(key)
		}
		f.values[i] = label.Value{Text: text, Present: ok}
	}
	if r.HTTP != nil {
		f.engine.malformed.noteBaggage(r.HTTP)
	}
	if r.HTTP != nil && len(f.point.classifiers) > 0 {
		f.classify(r)
	}
	if r.Cache != nil {
		f.askCaches(r)
	}
	return true
}

func (f *Flow) sizeTo(p *controlPoint) {
	f.values = sized(f.values, len(p.keys))
	f.bits = sized(f.bits, p.words)
	clear(f.bits)
	f.next = 0
}

// sized makes a slice n long; its elements are whatever they were.
func sized[T any](s []T, n int) []T {
	if n <= cap(s) {
		return s[:n]
	}
	return make([]T, n)
}

// Bounds on requests; beyond them a request is refused as invalid.
const (
	MaxControlPointLen = 255
	MaxLabels          = 4096
)

func checkRequest(r *Request) string {
	switch {
	case r.ControlPoint == "":
		return "control_point is empty"
	case len(r.ControlPoint) > MaxControlPointLen:
		return "control_point is longer than 255 bytes"
	case len(r.Labels) > MaxLabels:
		return "more than 4096 labels"
	case r.HTTP != nil && len(r.Labels)+len(r.HTTP.Headers) > MaxLabels:
		return "more than 4096 labels and HTTP headers"
	}
	return ""
}

// run decides stages from f.next on. It returns false when the flow has to wait.
func (f *Flow) run(now limit.Instant, wakes *sched.Wakes) (decided bool) {
	p := f.point
	if f.next == 0 {
		p.late.match(f.values, f.services, f.bits)
		if f.ramp && !p.rampIn(f.bits) {
			f.deny(NotSampled, nil, now, wakes)
			return true
		}
	}
	if f.lookup != nil && f.lookup.state != lookupDone {
		if res := f.runToCaches(now, wakes); res != stagePassed {
			return res != stageWaits
		}
	}
	if res := f.runTo(len(p.stages), now, wakes); res != stagePassed {
		return res != stageWaits
	}
	f.admit(f.next > 0)
	return true
}

// runToCaches decides the stages before the caches are asked, and asks them. A flow that needs no more is admitted.
func (f *Flow) runToCaches(now limit.Instant, wakes *sched.Wakes) stageResult {
	res := f.runTo(f.point.cacheAt, now, wakes)
	if res == stagePassed {
		res = f.lookUp(now, wakes)
	}
	if res == stageEnough {
		f.admit(f.point.selected(f.bits))
	}
	return res
}

// admit sets the verdict; matched tells whether a stage selects the flow.
func (f *Flow) admit(matched bool) {
	f.Verdict.Admitted = true
	f.Verdict.Reason = Admitted
	if !matched {
		f.Verdict.Reason = NoPolicy
	}
}

// runTo decides the stages from f.next to before end.
func (f *Flow) runTo(end int, now limit.Instant, wakes *sched.Wakes) stageResult {
	p := f.point
	for i := f.next; i < end; i++ {
		if f.bits[i>>6]&(1<<(i&63)) == 0 {
			continue
		}
		f.next = i + 1
		if res := f.decide(&p.stages[i], now, wakes); res != stagePassed {
			return res
		}
	}
	return stagePassed
}

type stageResult uint8

const (
	stagePassed stageResult = iota
	stageDenied
	stageWaits
	stageEnough // the rest need not be asked
)

func (f *Flow) decide(st *stage, now limit.Instant, wakes *sched.Wakes) stageResult {
	l, spec := st.limiter, st.spec
	if spec.Driven || spec.Sample != nil {
		spec = l.inForce(now)
	}
	f.stageTokens, f.stageCarry, f.stageBin = 1, false, l.own
	if spec.Sample != nil {
		return f.sampleAt(st, spec, now, wakes)
	}
	if spec.PassThrough && l.load == nil && l.work == nil {
		f.passFree(st, 0, "pass_through")
		return stagePassed
	}
	key := ""
	if st.key != noSlot {
		v := f.values[st.key]
		if !v.Present {
			l.labelMissing.Add(1)
			f.passFree(st, 0, "label_missing")
			return stagePassed
		}
		key = shorten(v.Text)
	}
	if spec.Kind.schedules() {
		f.stageTokens = st.assign(f, now)
	}
	if !f.cost(st) {
		if !spec.PassThrough || l.load == nil {
			f.Verdict.Key = key
			f.deny(InvalidRequest, st, now, wakes)
			return stageDenied
		}
		f.Verdict.Detail = ""
	}
	if l.load != nil {
		l.load.arrive(f.stripe, f.stageTokens, now)
		if !f.stageCarry {
			f.stageBin.hot[f.stripe].priced.Add(1)
		}
		if spec.PassThrough {
			f.passFree(st, f.stageTokens, "pass_through")
			return stagePassed
		}
	}
	if spec.Kind.schedules() {
		return f.queueAt(st, key, now, wakes)
	}
	return f.takeAt(st, key, now, wakes)
}

// cost reads the tokens of the flow from its label. It returns false for a number that makes no sense;
// text that is no number at all is ignored, as it always was.
func (f *Flow) cost(st *stage) bool {
	f.costNote = ""
	v := f.value(st.tokens)
	if !v.Present {
		if st.tokens != noSlot {
			f.costNote = "tokens_label_missing"
		}
		return true
	}
	n, ok := parseNumber(v.Text)
	if !ok {
		f.costNote = "tokens_not_a_number"
		return true
	}
	if !limit.ValidTokens(n) {
		f.Verdict.Detail = "label " + label.Printable(st.spec.TokensKey) + ": " + label.Printable(classify.ShowLabel(st.spec.TokensKey, v.Text)) +
			" is not a number of tokens; expected 0 to 9007199254740992"
		return false
	}
	f.stageTokens, f.stageCarry = n, true
	return true
}

func (f *Flow) takeAt(st *stage, key string, now limit.Instant, wakes *sched.Wakes) stageResult {
	l := st.limiter
	c, err := l.take(context.Background(), key, f.stageTokens, now)
	if err != nil {
		l.failed.Add(1) // nothing was charged; one flow more does less harm than an outage
		f.passFree(st, f.stageTokens, "error")
		return stagePassed
	}
	if c.OK {
		f.passed(st, key, c.Slot, c.Remaining, c.Limit)
		return stagePassed
	}
	v := &f.Verdict
	v.Key, v.Tokens, v.Remaining, v.Limit = key, f.stageTokens, c.Remaining, c.Limit
	reason := RateLimited
	switch {
	case f.stageTokens > c.Limit && c.Limit > 0 && !st.spec.Driven:
		reason = TooLarge
	case l.slots != nil:
		reason = ConcurrencyLimited
		v.RetryAfter = l.retryAfterSlots(c)
	case c.Wait != limit.Never:
		v.RetryAfter = c.Wait
	}
	f.deny(reason, st, now, wakes)
	return stageDenied
}

func (f *Flow) queueAt(st *stage, key string, now limit.Instant, wakes *sched.Wakes) stageResult {
	l, w := st.limiter, &f.waiter
	w.Key, w.Tokens, w.Resumer = key, f.stageTokens, f
	f.mu.Lock()
	if f.cancelled {
		f.mu.Unlock()
		f.deny(Cancelled, st, now, wakes)
		return stageDenied
	}
	out := l.queue.Admit(w, now)
	if out == sched.Pending {
		f.waitsAt(l)
		f.mu.Unlock()
		return stageWaits
	}
	f.mu.Unlock()
	return f.settleWait(st, out, now, wakes)
}

// settleWait turns the outcome of a queue into a stage result.
func (f *Flow) settleWait(st *stage, out sched.Outcome, now limit.Instant, wakes *sched.Wakes) stageResult {
	w := &f.waiter
	f.Verdict.Waited += w.Waited
	switch out {
	case sched.Granted:
		if w.Grant.Free {
			f.passFree(st, f.stageTokens, "pass_through")
			return stagePassed
		}
		f.passed(st, w.Key, ledger.SlotID(w.Grant.Slot), w.Grant.Remaining, w.Grant.Limit)
		return stagePassed
	case sched.Failed:
		st.limiter.failed.Add(1)
		f.passFree(st, f.stageTokens, "error")
		return stagePassed
	}
	v := &f.Verdict
	v.Key, v.Tokens, v.Remaining, v.Limit = w.Key, w.Tokens, w.Grant.Remaining, w.Grant.Limit
	if w.RetryAfter != limit.Never {
		v.RetryAfter = w.RetryAfter
	}
	f.deny(queueReasons[out], st, now, wakes)
	return stageDenied
}

// Resume implements sched.Resumer: the flow has left a queue and goes on with the next stage.
func (f *Flow) Resume(w *sched.Waiter, wakes *sched.Wakes) {
	now := f.engine.authority.Now()
	f.mu.Lock() // Begin may not have returned from Admit yet
	f.waitingAt = nil
	f.mu.Unlock()
	if f.lookup != nil && f.lookup.state == lookupWaits {
		if f.run(now, wakes) {
			f.decided()
		}
		return
	}
	st := &f.point.stages[f.next-1]
	if f.settleWait(st, w.Outcome, now, wakes) == stageDenied || f.run(now, wakes) {
		f.decided()
	}
}

// waitingPlace is where a flow can wait: at a limiter, or for the result of another flow.
type waitingPlace interface {
	// cancelWait ends the wait. It returns false when it is over already: the flow is resumed, or about to be.
	// REQUIRES Flow.mu.
	cancelWait(f *Flow, now limit.Instant, wakes *sched.Wakes) bool
	// at is the stage where the flow waits; nil: at none.
	at(f *Flow) *stage
}

// waitsAt notes where the flow waits. REQUIRES Flow.mu.
func (f *Flow) waitsAt(p waitingPlace) {
	f.waitingAt = p
	if !f.counted {
		f.counted = true
		f.point.stats.waiting.Add(1)
		if f.sample != nil {
			f.keepSample()
		}
	}
}

// decided tells whoever waits for the verdict. The flow belongs to them from here on.
func (f *Flow) decided() {
	f.finish()
	if f.listener != nil {
		f.listener.Decided(f)
		return
	}
	f.ready <- struct{}{}
}

// Cancel denies a flow whose caller has left while it waits. It returns false when the verdict is known
// or about to be: then whoever waits is told as usual. After true, nobody is told and the caller owns
// the flow, whose verdict is Cancelled. The caller must Run the wakes afterwards. Cancel may be called
// while the caller holds a lock that Decided takes, which is how it can know that the flow is not freed.
func (f *Flow) Cancel(wakes *Wakes) bool {
	now := f.engine.authority.Now()
	f.mu.Lock()
	f.cancelled = true
	place := f.waitingAt
	if place == nil || !place.cancelWait(f, now, wakes) {
		f.mu.Unlock()
		return false
	}
	f.waitingAt = nil
	f.mu.Unlock()
	f.deny(Cancelled, place.at(f), now, wakes)
	f.finish()
	return true
}

// passed records that a stage let the flow pass, and what it charged.
func (f *Flow) passed(st *stage, key string, slot ledger.SlotID, remaining, full float64) {
	c := charge{limiter: st.limiter, bin: f.stageBin, key: key, tokens: f.stageTokens, slot: slot}
	if f.stageCarry {
		c.flags = chargeCarried
	}
	f.charges = append(f.charges, c)
	if f.explain {
		f.Verdict.Decisions = append(f.Verdict.Decisions, f.decision(st, key, true, remaining, full, ""))
	}
}

// passFree records that a stage let the flow pass without deciding about it.
func (f *Flow) passFree(st *stage, tokens float64, note string) {
	f.charges = append(f.charges, charge{
		limiter: st.limiter, bin: f.stageBin, tokens: tokens, flags: chargeEmpty | chargeFree,
	})
	if f.explain {
		f.Verdict.Decisions = append(f.Verdict.Decisions, f.decision(st, "", true, 0, 0, note))
	}
}

// inForce is the spec with the numbers that count now.
func (st *stage) inForce() *LimiterSpec {
	if st.spec.Driven {
		return st.limiter.spec.Load()
	}
	return st.spec
}

func (f *Flow) decision(st *stage, key string, ok bool, remaining, full float64, note string) Decision {
	d := Decision{
		Limiter: st.inForce(), Key: key, Admitted: ok, Note: note, Charged: note == "",
		Tokens: f.stageTokens, Remaining: remaining, Limit: full,
	}
	if !d.Charged {
		d.Tokens = 0
		return d
	}
	d.Note = f.costNote
	if rule := &d.Limiter.Bucket; rule.FixedWindow && st.spec.Kind.hasBucket() {
		d.Resets = rule.FullIn(0, f.engine.authority.Now())
	}
	if st.spec.Kind.schedules() {
		d.Workload, d.Priority, d.Waited = f.waiter.Class.Workload, f.waiter.Class.Priority, f.waiter.Waited
	}
	return d
}

// deny sets the verdict and undoes every charge, last first. A nil wakes means that the caller holds no
// list: those whom the undo frees are resumed here.
func (f *Flow) deny(r Reason, st *stage, now limit.Instant, wakes *sched.Wakes) {
	v := &f.Verdict
	v.Admitted, v.Reason = false, r
	if st != nil {
		v.Limiter = st.inForce()
		f.stageBin.deny(f.stageTokens)
		if f.explain {
			v.Decisions = append(v.Decisions, f.decision(st, v.Key, false, v.Remaining, v.Limit, ""))
		}
	}
	own := wakes == nil
	if own {
		wakes = &f.wakes
	}
	for i := len(f.charges) - 1; i >= 0; i-- {
		c := &f.charges[i]
		c.bin.drop(c.tokens, c.flags&chargeFree != 0)
		c.limiter.undo(c, now, wakes)
	}
	clear(f.charges)
	f.charges = f.charges[:0]
	if f.lookup != nil {
		f.lookup.leave(now, wakes)
	}
	if own {
		wakes.Run()
	}
}

// finish counts the verdict, and shows it to whoever watches.
func (f *Flow) finish() {
	if f.sample != nil {
		f.show()
	}
	s := f.point.stats
	if f.counted {
		f.counted = false
		s.waiting.Add(-1)
	}
	for i := range f.charges { // a denied flow has none left
		c := &f.charges[i]
		c.bin.accept(f.stripe, c.tokens, c.flags&chargeFree != 0)
	}
	outcome := meter.OK
	switch {
	case f.Verdict.Reason == NoPolicy:
		s.unmatched.Add(1)
	case f.Verdict.Admitted:
		s.hot[f.stripe].admitted.Add(1)
	default:
		s.denied[f.Verdict.Reason].Add(1)
		outcome = meter.Rejected
	}
	if len(f.point.gauges) > 0 && (f.noEnd || outcome == meter.Rejected) {
		f.observeVerdict(outcome)
	}
}

// Free gives a flow back without ending it: a denied one, or one whose token has been sealed.
func (f *Flow) Free() {
	e := f.engine
	clear(f.values)
	clear(f.charges)
	f.Verdict = Verdict{}
	f.engine, f.snap, f.point, f.listener, f.services, f.stageBin = nil, nil, nil, nil, nil, nil
	f.values, f.bits, f.charges = f.values[:0], f.bits[:0], f.charges[:0]
	f.deadline, f.next, f.Tag, f.cancelled, f.counted = 0, 0, 0, false, false
	if f.waiter.Resumer != nil {
		f.waiter = sched.Waiter{}
	}
	if f.class != nil || f.lookup != nil {
		f.freeParts()
	}
	e.pool.Put(f)
}

// freeParts frees what few flows have.
func (f *Flow) freeParts() {
	if f.class != nil {
		f.class.free()
		f.class = nil
	}
	if f.lookup != nil {
		f.lookup.free()
		f.lookup = nil
	}
}

// Abort hands back everything an admitted flow was charged, because it will not run after all, and
// frees it.
func (f *Flow) Abort() {
	now := f.engine.authority.Now()
	for i := len(f.charges) - 1; i >= 0; i-- {
		f.charges[i].limiter.undo(&f.charges[i], now, &f.wakes)
	}
	if f.lookup != nil {
		f.lookup.leave(now, &f.wakes)
	}
	f.wakes.Run()
	f.Free()
}
