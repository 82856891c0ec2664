// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// gate asks a Sluice server for permission; a ticket is its answer. See sdkGate.
type gate interface {
	// start waits for the verdict, at most until the deadline of ctx. It always returns a ticket.
	start(ctx context.Context, controlPoint string, labels map[string]string) ticket
	// probe starts and ends a flow without waiting in a queue, and tells the reason of the verdict. The
	// reason is reasonNoPolicy exactly when no policy applies.
	probe(ctx context.Context, controlPoint string, labels map[string]string) (reason string, err error)
}

type ticket interface {
	// verdict is the answer. It never changes.
	verdict() verdict
	// end must be called exactly once, also for denied flows. tokens is the true cost; negative: not
	// known. err tells that the work failed.
	end(tokens float64, err error)
}

// reasonNoPolicy is the reason the server gives when no policy applies to a flow.
const reasonNoPolicy = "no_policy"

type verdict struct {
	run             bool
	reason, message string
	waited          time.Duration
	// err tells that the server gave no verdict; run is then the SDK's choice.
	err error
}

// user is one of the crowd. It makes its requests one after the other.
type user struct {
	id, tier string
	index    int
}

// experiment is what a demo runs in both phases.
type experiment struct {
	name, title string
	// story says what is simulated, in sentences for the report.
	story []string
	// unit is what the users ask for, in the plural.
	unit  string
	users []user
	// tiers in the order of priority.
	tiers   []string
	perUser int
	// stagger is how many story seconds after each other the users begin.
	stagger float64
	// patience is how many story seconds a user waits for one request before giving it up.
	patience float64
	// minPatience is the least it may be by the clock, so that fast runs do not lose requests to hiccups
	// of the machine.
	minPatience time.Duration
	policies    []document
	model       *model
	// limit is the number of requests in flight that the policy allows; 0: it does not limit them.
	limit int
	// quota is the provider behind the model, nil when there is none.
	quota *provider
	// controlPoint is where the flows pass.
	controlPoint string
	// labels describe the flows of a user, apart from what differs from request to request.
	labels func(u user) map[string]string
	// call makes one request. The context carries the user's patience.
	call func(ctx context.Context, r *runner, u user, n int) Sample
	// key is the API key of the phase that runs; a provider counts each key apart.
	key string
}

// runner runs one experiment.
type runner struct {
	cfg      Config
	exp      *experiment
	policies policyStore
	gate     gate
	client   *http.Client
	url      string // of the simulated service
	begin    time.Time
	notes    []string
}

func (r *runner) clock() clock { return clock(r.cfg.Scale) }

func (r *runner) printf(format string, args ...any) {
	fmt.Fprintf(r.cfg.Out, format, args...) // nobody to tell when the terminal is gone
}

// note remembers something the reader should know, and prints it.
func (r *runner) note(format string, args ...any) {
	n := fmt.Sprintf(format, args...)
	r.notes = append(r.notes, n)
	r.printf("note: %s\n", n)
}

// run serves the simulated service on l, runs both phases and writes the report. It closes l.
func (r *runner) run(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: r.exp.model, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l) // ends when the listener is closed below
	}()
	defer func() {
		r.exp.model.gpu.close()
		_ = server.Close()
		<-served
	}()
	r.url = "http://" + l.Addr().String()
	if err := r.prepare(ctx); err != nil {
		return err
	}
	res := r.announce()
	res.Phases = append(res.Phases, r.phase(ctx, "without"))
	var policyErr error
	if ctx.Err() == nil {
		var p Phase
		p, policyErr = r.governed(ctx)
		if policyErr == nil || p.Completed > 0 {
			res.Phases = append(res.Phases, p)
		}
	}
	return r.conclude(ctx, res, policyErr)
}

// prepare makes sure that the report can be written, that the demo may use its policy names and that none
// of them is in force.
func (r *runner) prepare(ctx context.Context) error {
	if r.cfg.OutputDir != "" {
		if err := os.MkdirAll(r.cfg.OutputDir, 0o755); err != nil {
			return fmt.Errorf("demo.output: making the directory for the report: %w", err)
		}
	}
	left, err := removePolicies(ctx, r.policies, r.exp.policies)
	if err != nil {
		return err
	}
	for _, name := range left {
		r.note("took policy %q out of force, which an earlier run of this demo had left behind", name)
	}
	return nil
}

func (r *runner) announce() *Results {
	r.begin = time.Now()
	e := r.exp
	r.printf("%s\n", e.title)
	r.printf("%d users x %d %s, seed %d, clock %gx (one second here is %g seconds of the story)\n",
		len(e.users), e.perUser, e.unit, r.cfg.Seed, r.cfg.Scale, r.cfg.Scale)
	r.printf("simulated service at %s for as long as this runs, model %q\n", r.url, e.model.cfg.Name)
	return &Results{
		Demo: e.name, Command: r.command(), Seed: r.cfg.Seed, Scale: r.cfg.Scale, StartTime: r.begin,
	}
}

func (r *runner) command() string {
	dir := r.cfg.OutputDir
	if dir == "" {
		dir = "DIR"
	}
	return fmt.Sprintf("sluice demo %s --seed %d --scale %g --output %s", r.exp.name, r.cfg.Seed, r.cfg.Scale, shellQuote(dir))
}

// governed puts the policies into force, runs the second phase and takes them out again.
func (r *runner) governed(ctx context.Context) (p Phase, err error) {
	defer func() {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if _, rerr := removePolicies(cleanup, r.policies, r.exp.policies); rerr != nil {
			err = errors.Join(err, fmt.Errorf("taking the policies out of force again: %w", rerr))
		}
	}()
	for _, doc := range r.exp.policies {
		if err := r.policies.apply(ctx, doc); err != nil {
			return Phase{}, fmt.Errorf("applying policy %q: %w", doc.name, err)
		}
		r.printf("applied policy %q (%s)\n", doc.name, doc.file)
	}
	return r.phase(ctx, "with"), nil
}

// phase lets the crowd make all its requests, or as many as ctx allows.
func (r *runner) phase(ctx context.Context, name string) Phase {
	e := r.exp
	e.key = "demo-" + name
	r.checkGoverned(ctx, name == "with")
	e.model.gpu.resetTrace()
	c := &collector{r: r, phase: name, begin: time.Now(), planned: len(e.users) * e.perUser}
	stop := c.watch()
	var crowd sync.WaitGroup
	for _, u := range e.users {
		crowd.Go(func() { r.user(ctx, c, u) })
	}
	crowd.Wait()
	stop()
	p := c.result()
	if e.quota != nil {
		taken, refused := e.quota.log(e.key)
		p.Refusals = map[string]int{}
		for _, r := range refused {
			p.Refusals[r.kind]++
		}
		p.Answers = binsOf(r.clock(), c.begin, taken, refused)
	}
	if p.Unguarded > 0 {
		r.note("%d requests of phase %q ran without an answer of the server (the SDK fails open); "+
			"the numbers of that phase do not show the policy at work", p.Unguarded, name)
	}
	return p
}

// checkGoverned asks the server whether policies apply to the flows of each tier, and notes it when that is
// not what the phase is about to show.
func (r *runner) checkGoverned(ctx context.Context, want bool) {
	e := r.exp
	for _, u := range e.users[:len(e.tiers)] { // the tiers take turns
		reason, err := r.gate.probe(ctx, e.controlPoint, e.labels(u))
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.note("asking the server about flows of tier %s failed: %v", u.tier, err)
		case want && reason == reasonNoPolicy:
			r.note("the policy is applied, but the server lets flows of tier %s at control point %q pass without it: "+
				"the numbers with policy do not show the policy at work", u.tier, e.controlPoint)
		case !want && reason != reasonNoPolicy:
			r.note("another policy of this server applies to flows of tier %s at control point %q: "+
				"the numbers without policy show that one; use a server without it for a clean comparison", u.tier, e.controlPoint)
		}
	}
}

// user makes the requests of one user, one after the other.
func (r *runner) user(ctx context.Context, c *collector, u user) {
	if !pause(ctx, r.clock().real(r.exp.stagger*float64(u.index))) {
		return
	}
	patience := max(r.clock().real(r.exp.patience), r.exp.minPatience)
	for n := range r.exp.perUser {
		begin := time.Now()
		callCtx, cancel := context.WithTimeout(ctx, patience)
		s := r.exp.call(callCtx, r, u, n)
		cancel()
		if ctx.Err() != nil && s.Outcome != outcomeOK {
			return // interrupted, not lost
		}
		s.User, s.Tier = u.id, u.tier
		s.StartSeconds = r.clock().story(begin.Sub(c.begin))
		c.add(s)
	}
}

// conclude prints the results and writes the report, also of a run that was stopped early.
func (r *runner) conclude(ctx context.Context, res *Results, policyErr error) error {
	res.Complete = ctx.Err() == nil && policyErr == nil && len(res.Phases) == 2
	if !res.Complete {
		r.note("this run was stopped early; the numbers cover what was measured until then")
	}
	res.ClockSeconds = time.Since(r.begin).Seconds()
	res.Notes = r.notes
	r.printf("\n%s\n", table(res))
	var reportErr error
	if dir := r.cfg.OutputDir; dir != "" {
		if reportErr = writeReport(dir, r.exp, res); reportErr == nil {
			r.printf("report: %s\n", filepath.Join(dir, "index.html"))
		}
	}
	if err := ctx.Err(); err != nil {
		return errors.Join(fmt.Errorf("demo %s was stopped early: %w", r.exp.name, err), policyErr, reportErr)
	}
	return errors.Join(policyErr, reportErr)
}

// pause waits and tells whether the whole time passed before ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// collector gathers the samples of one phase.
type collector struct {
	r       *runner
	phase   string
	begin   time.Time
	planned int

	mu        sync.Mutex
	samples   []Sample
	last      time.Time
	unguarded int
}

func (c *collector) add(s Sample) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.samples = append(c.samples, s)
	c.last = time.Now()
	if s.Unguarded {
		c.unguarded++
	}
}

func (c *collector) done() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.samples)
}

// result sums up the phase; call it when nobody adds any more.
func (c *collector) result() Phase {
	c.mu.Lock()
	defer c.mu.Unlock()
	clock := c.r.clock()
	steps, peak := c.r.exp.model.gpu.trace()
	p := Phase{
		Name: c.phase, Planned: c.planned, Interrupted: c.planned - len(c.samples),
		Unguarded: c.unguarded, PeakInFlight: peak,
		Samples: c.samples, Tiers: tiersOf(c.samples, c.r.exp.tiers),
	}
	if len(c.samples) > 0 {
		p.DurationSeconds = clock.story(c.last.Sub(c.begin))
	}
	for _, s := range c.samples {
		switch s.Outcome {
		case outcomeOK:
			p.Completed++
		case outcomeDenied:
			p.Denied++
		default:
			p.Failed++
		}
	}
	for _, s := range steps {
		p.InFlight = append(p.InFlight, Count{clock.story(s.at.Sub(c.begin)), s.n})
	}
	return p
}
