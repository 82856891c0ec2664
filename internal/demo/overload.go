// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	sluice "github.com/sluice-project/sluice/sdk/go"
	"github.com/sluice-project/sluice/sdk/go/sluicehttp"
)

// The names of the overload demo.
const (
	overloadControlPoint = "demo-overload"
	guestTier            = "guest"
	subscriberTier       = "subscriber"
	// overloadTierHeader tells the service who asks, and overloadWorkHeader how much work it is.
	overloadTierHeader = "X-User-Type"
	overloadWorkHeader = "X-Work-Microseconds"
	// overloadDeniedHeader tells the client that it was Sluice who said no.
	overloadDeniedHeader = "X-Denied"
)

// overloadScenario is what happens in every run of the overload demo.
type overloadScenario struct {
	// Workers serve one request each at a time, for Work on average. Their quotient is the capacity.
	Workers int
	Work    time.Duration
	// Queue is how many requests may wait for a worker.
	Queue int
	// Base and Surge are the arriving load relative to the capacity.
	Base, Surge float64
	// Before, During and After are how long base, surge and base again last; whole seconds.
	Before, During, After time.Duration
	// Guests is their part of the users, 0..1.
	Guests float64
	// Patience is how long a client waits for an answer before it gives the request up, and Useful how
	// long after a user asked an answer is still good. A client tries again once, RetryAfter or up to
	// three times as long after it failed.
	Patience, Useful, RetryAfter time.Duration
	// QueueTimeout is how long a flow may wait in Sluice.
	QueueTimeout time.Duration
	// StaticLimit is the rate of the run with a limit set by hand, relative to the capacity.
	StaticLimit float64
}

// overloadStory is the scenario that people see. 200 requests a second are about what a laptop carries
// three times over, twice when all are retried, with the service, its clients and the server on it.
func overloadStory() overloadScenario {
	return overloadScenario{
		Workers: 10, Work: 50 * time.Millisecond, Queue: 1000,
		Base: 0.8, Surge: 3, Before: 12 * time.Second, During: 15 * time.Second, After: 8 * time.Second,
		Guests: 0.7, Patience: time.Second, Useful: time.Second, RetryAfter: 100 * time.Millisecond,
		QueueTimeout: 250 * time.Millisecond, StaticLimit: 1.5,
	}
}

func (s overloadScenario) capacity() float64       { return float64(s.Workers) / s.Work.Seconds() }
func (s overloadScenario) duration() time.Duration { return s.Before + s.During + s.After }

// ask is one user who asks once.
type ask struct {
	at    time.Duration // since the begin of the run
	tier  string
	work  time.Duration
	pause time.Duration // before the second attempt
}

// asks draws everybody who asks in a run. Users come one by one, independently of each other and of the
// answers (a Poisson process): an overloaded service does not slow them down. Work is between a half and
// one and a half of the average.
func (s overloadScenario) asks(seed uint64) []ask {
	random := rand.New(rand.NewPCG(seed, 20)) //nolint:gosec // a story, not a secret
	var out []ask
	at := 0.0
	for {
		load := s.Base
		if now := time.Duration(at * float64(time.Second)); now >= s.Before && now < s.Before+s.During {
			load = s.Surge
		}
		at += random.ExpFloat64() / (load * s.capacity())
		if at >= s.duration().Seconds() {
			return out
		}
		a := ask{
			at: time.Duration(at * float64(time.Second)), tier: subscriberTier,
			work:  time.Duration((0.5 + random.Float64()) * float64(s.Work)),
			pause: time.Duration((1 + 2*random.Float64()) * float64(s.RetryAfter)),
		}
		if random.Float64() < s.Guests {
			a.tier = guestTier
		}
		out = append(out, a)
	}
}

// overloadVariant is one run.
type overloadVariant struct {
	name, title string
	policy      *document // nil: none
}

// overloadRunner runs the overload demo.
type overloadRunner struct {
	cfg      Config
	scenario overloadScenario
	variants []overloadVariant
	policies policyStore
	// probe tells the reason of a verdict; see gate.
	probe func(ctx context.Context, labels map[string]string) (string, error)
	// door puts the SDK's middleware around a handler. Answers to denied requests have overloadDeniedHeader.
	door func(next http.Handler) http.Handler
	// serve makes a handler reachable: it returns a transport to it, and stop.
	serve func(http.Handler) (http.RoundTripper, func(), error)
	begin time.Time
	notes []string
}

// runOverload is Run for the overload demo.
func runOverload(ctx context.Context, cfg Config) error {
	if cfg.Scale != 1 {
		return fmt.Errorf("demo.scale: got %v, want none: demo overload runs in real time, because the policies do", cfg.Scale)
	}
	policies, err := newServerPolicies(cfg.Server, cfg.Token)
	if err != nil {
		return err
	}
	gate, err := newSDKGate(cfg.Server, cfg.Token)
	if err != nil {
		return err
	}
	defer gate.close()
	s := overloadStory()
	r := &overloadRunner{
		cfg: cfg, scenario: s, variants: overloadVariants(s), policies: policies,
		probe: func(ctx context.Context, labels map[string]string) (string, error) {
			return gate.probe(ctx, overloadControlPoint, labels)
		},
		door: func(next http.Handler) http.Handler {
			return sluicehttp.Middleware(gate.client, overloadControlPoint,
				sluicehttp.WithLabels(func(r *http.Request) sluice.Labels {
					return sluice.Labels{"user_type": r.Header.Get(overloadTierHeader)}
				}),
				sluicehttp.WithFlowOptions(sluice.WithQueueTimeout(s.QueueTimeout)),
				sluicehttp.WithDenied(func(w http.ResponseWriter, r *http.Request, flow *sluice.Flow) {
					w.Header().Set(overloadDeniedHeader, flow.Verdict().Reason)
					sluicehttp.WriteDenied(w, r, flow)
				}))(next)
		},
		serve: serveLocally,
	}
	return r.run(ctx)
}

// serveLocally opens a port of this machine.
func serveLocally(h http.Handler) (http.RoundTripper, func(), error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("demo: opening a port on 127.0.0.1 for the service: %w", err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l) // ends when the server is closed below
	}()
	transport := &http.Transport{
		MaxIdleConnsPerHost: 1000, // as many users at once as there are
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, l.Addr().String())
		},
	}
	return transport, func() {
		_ = server.Close()
		<-served
		transport.CloseIdleConnections()
	}, nil
}

func (r *overloadRunner) printf(format string, args ...any) {
	fmt.Fprintf(r.cfg.Out, format, args...) // nobody to tell when the terminal is gone
}

// note remembers something the reader should know, and prints it.
func (r *overloadRunner) note(format string, args ...any) {
	n := fmt.Sprintf(format, args...)
	r.notes = append(r.notes, n)
	r.printf("note: %s\n", n)
}

func (r *overloadRunner) documents() []document {
	var out []document
	for _, v := range r.variants {
		if v.policy != nil {
			out = append(out, *v.policy)
		}
	}
	return out
}

// run makes all runs and writes the report, also when ctx ends early.
func (r *overloadRunner) run(ctx context.Context) error {
	if dir := r.cfg.OutputDir; dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("demo.output: making the directory for the report: %w", err)
		}
	}
	left, err := removePolicies(ctx, r.policies, r.documents())
	if err != nil {
		return err
	}
	for _, name := range left {
		r.note("took policy %q out of force, which an earlier run of this demo had left behind", name)
	}
	s := r.scenario
	r.begin = time.Now()
	r.printf("%s\n%d runs of %v, seed %d\n", overloadTitle, len(r.variants), s.duration(), r.cfg.Seed)
	res := &OverloadResults{
		Demo: "overload", Command: r.command(), Seed: r.cfg.Seed, StartTime: r.begin, Capacity: s.capacity(),
		BeforeSeconds: s.Before.Seconds(), DuringSeconds: s.During.Seconds(), AfterSeconds: s.After.Seconds(),
	}
	asks := s.asks(r.cfg.Seed)
	for _, v := range r.variants {
		if ctx.Err() != nil {
			break
		}
		var measured OverloadRun
		if measured, err = r.variant(ctx, v, asks); ctx.Err() != nil || err != nil {
			break // a run that was cut short has no surge to compare
		}
		res.Runs = append(res.Runs, measured)
	}
	return r.conclude(ctx, res, err)
}

func (r *overloadRunner) command() string {
	dir := r.cfg.OutputDir
	if dir == "" {
		dir = "DIR"
	}
	return fmt.Sprintf("sluice demo overload --seed %d --output %s", r.cfg.Seed, shellQuote(dir))
}

func (r *overloadRunner) conclude(ctx context.Context, res *OverloadResults, runErr error) error {
	res.Complete = ctx.Err() == nil && runErr == nil
	if !res.Complete {
		r.note("this demo was stopped early; the numbers cover the runs that were complete")
	}
	res.ClockSeconds, res.Notes = time.Since(r.begin).Seconds(), r.notes
	var reportErr error
	if len(res.Runs) > 0 {
		r.printf("\n%s\n", overloadTable(res))
		if dir := r.cfg.OutputDir; dir != "" {
			if reportErr = writeOverloadReport(dir, r, res); reportErr == nil {
				r.printf("report: %s\n", filepath.Join(dir, "index.html"))
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return errors.Join(fmt.Errorf("demo overload was stopped early: %w", err), runErr, reportErr)
	}
	return errors.Join(runErr, reportErr)
}

// variant makes one run, with a service of its own, so that none inherits the queue of the one before.
func (r *overloadRunner) variant(ctx context.Context, v overloadVariant, asks []ask) (out OverloadRun, err error) {
	if v.policy == nil {
		if reason, err := r.probe(ctx, map[string]string{"user_type": guestTier}); err == nil && reason != reasonNoPolicy {
			r.note("another policy of this server applies to control point %q: every run shows that one, too", overloadControlPoint)
		}
	} else {
		defer func() {
			cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			if _, rerr := removePolicies(cleanup, r.policies, []document{*v.policy}); rerr != nil {
				err = errors.Join(err, fmt.Errorf("taking the policy out of force again: %w", rerr))
			}
		}()
		if err := r.policies.apply(ctx, *v.policy); err != nil {
			return OverloadRun{}, fmt.Errorf("applying policy %q: %w", v.policy.name, err)
		}
	}
	service := newOverloadService(r.scenario)
	log := &overloadLog{scenario: r.scenario, service: service}
	transport, stop, err := r.serve(r.door(service))
	if err != nil {
		return OverloadRun{}, err
	}
	defer stop()
	defer service.close()
	log.begin = time.Now()
	service.begin = log.begin
	finish := r.watch(v, log)
	users := &overloadUsers{scenario: r.scenario, client: &http.Client{Transport: transport}, log: log}
	users.come(ctx, asks)
	finish()
	if n := service.unguardedCount(); n > 0 {
		r.note("%d requests of the run %q were served without an answer of the Sluice server (the SDK fails open)", n, v.title)
	}
	return log.result(v), nil
}

// watch prints the progress of a run until the returned function is called.
func (r *overloadRunner) watch(v overloadVariant, log *overloadLog) (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	every := lineEvery
	if r.cfg.Interactive {
		every = redrawEvery
	}
	show := func() {
		start, end := "", "\n"
		if r.cfg.Interactive {
			start, end = "\r\x1b[K", ""
		}
		elapsed := min(time.Since(log.begin), r.scenario.duration())
		r.printf("%s%-32s  %2.0f/%.0f s  %s%s", start, v.title, elapsed.Seconds(), r.scenario.duration().Seconds(), log.progress(), end)
	}
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				show()
			}
		}
	}()
	return func() {
		close(done)
		<-stopped
		show()
		if r.cfg.Interactive {
			r.printf("\n")
		}
	}
}

// overloadService is an HTTP service that can do only so much at once. What it cannot do yet waits, in the
// order of arrival, and it works for clients that have long gone, as most services do.
type overloadService struct {
	scenario overloadScenario
	begin    time.Time
	workers  chan struct{}
	closed   chan struct{}
	inside   sync.WaitGroup

	mu        sync.Mutex
	queue     int
	peak      int
	full      int // turned away because the queue was full
	unguarded int
	served    []span // in no particular order
}

// span is one request of the service: since when it was there, and how long; less than 0: not done.
type span struct{ at, took time.Duration }

func newOverloadService(s overloadScenario) *overloadService {
	return &overloadService{scenario: s, workers: make(chan struct{}, s.Workers), closed: make(chan struct{})}
}

// close sends everybody in the queue home and waits for those who are served. Nobody may come any more.
func (s *overloadService) close() {
	close(s.closed)
	s.inside.Wait()
}

func (s *overloadService) unguardedCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unguarded
}

// ServeHTTP implements http.Handler.
func (s *overloadService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.inside.Add(1)
	defer s.inside.Done()
	index, ok := s.arrive(sluice.FlowFrom(r.Context()).Err() != nil)
	if !ok {
		http.Error(w, "the queue is full", http.StatusServiceUnavailable)
		return
	}
	select {
	case s.workers <- struct{}{}: // first come, first served
	case <-s.closed:
		s.leave(index, false)
		return
	}
	micros, _ := strconv.Atoi(r.Header.Get(overloadWorkHeader))
	work := time.NewTimer(time.Duration(micros) * time.Microsecond)
	<-work.C
	<-s.workers
	s.leave(index, true)
	_, _ = io.WriteString(w, "done\n")
}

func (s *overloadService) arrive(unguarded bool) (index int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if unguarded {
		s.unguarded++
	}
	if s.queue >= s.scenario.Queue+s.scenario.Workers {
		s.full++
		return 0, false
	}
	s.queue++
	s.peak = max(s.peak, s.queue-s.scenario.Workers)
	s.served = append(s.served, span{time.Since(s.begin), -1})
	return len(s.served) - 1, true
}

func (s *overloadService) leave(index int, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue--
	if done {
		s.served[index].took = time.Since(s.begin) - s.served[index].at
	}
}

// overloadUsers ask the service.
type overloadUsers struct {
	scenario overloadScenario
	client   *http.Client
	log      *overloadLog
}

// come lets everybody ask when it is time, and waits for all answers.
func (u *overloadUsers) come(ctx context.Context, asks []ask) {
	var crowd sync.WaitGroup
	defer crowd.Wait()
	for _, a := range asks {
		if !pause(ctx, time.Until(u.log.begin.Add(a.at))) {
			return
		}
		crowd.Go(func() { u.ask(ctx, a) })
	}
}

// ask is one user: two attempts, then no more.
func (u *overloadUsers) ask(ctx context.Context, a ask) {
	begin := time.Now()
	answer := overloadAnswer{at: begin.Sub(u.log.begin), tier: a.tier}
	for attempt := range 2 {
		if attempt > 0 && !pause(ctx, a.pause) {
			break
		}
		answer.attempts++
		status, denied := u.attempt(ctx, a)
		if denied {
			answer.denied++
		}
		answer.ok = status == http.StatusOK
		if answer.ok {
			break
		}
	}
	answer.took = time.Since(begin)
	u.log.answered(answer)
}

// attempt returns the status of the answer, 0 when there was none in time, and whether it is Sluice's.
func (u *overloadUsers) attempt(ctx context.Context, a ask) (status int, denied bool) {
	ctx, cancel := context.WithTimeout(ctx, u.scenario.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://service.demo/", nil)
	if err != nil {
		return 0, false
	}
	req.Header.Set(overloadTierHeader, a.tier)
	req.Header.Set(overloadWorkHeader, strconv.FormatInt(a.work.Microseconds(), 10))
	resp, err := u.client.Do(req)
	if err != nil {
		return 0, false
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0, false
	}
	return resp.StatusCode, resp.Header.Get(overloadDeniedHeader) != ""
}

// perSecond is the index of the second something happened in, within n seconds.
func perSecond(at time.Duration, n int) int {
	return min(max(int(math.Floor(at.Seconds())), 0), n-1)
}
