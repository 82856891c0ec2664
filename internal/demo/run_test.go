// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeServer stands for a Sluice server in a bubble: it keeps policies, and while one is in force it hands
// out capacity by weight.
type fakeServer struct {
	mu       sync.Mutex
	policies map[string]inForce
	applied  []document

	capacity func() resource // made when the first policy comes into force
	res      resource
	waiting  []*fakeTicket
	vt       map[string]float64 // virtual time by tier
	weight   map[string]float64
	timer    *time.Timer
	ended    int
	used     float64 // tokens reported by ends

	ignored   bool // policies are kept and do not apply
	foreign   bool // a policy of somebody else applies always
	deny      bool
	blind     bool // as if the server were away
	applyErr  error
	removeErr error
}

// resource is what flows need to run. take tells how long to wait when it is not there; 0: until
// something is given back.
type resource interface {
	take(labels map[string]string) (ok bool, wait time.Duration)
	give(labels map[string]string, tokens float64)
}

func newFakeServer(weight map[string]float64, capacity func() resource) *fakeServer {
	return &fakeServer{
		policies: map[string]inForce{}, weight: weight, vt: map[string]float64{},
		capacity: capacity,
	}
}

func (f *fakeServer) get(ctx context.Context, name string) (inForce, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.policies[name]
	return p, ok, ctx.Err()
}

func (f *fakeServer) apply(ctx context.Context, doc document) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.applyErr != nil && len(f.applied) > 0 || ctx.Err() != nil {
		return cmp.Or(f.applyErr, ctx.Err())
	}
	f.applied = append(f.applied, doc)
	f.policies[doc.name] = inForce{version: 1, comment: ownComment}
	if f.res == nil {
		f.res = f.capacity()
	}
	return nil
}

func (f *fakeServer) remove(ctx context.Context, name string, version int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.removeErr != nil || ctx.Err() != nil {
		return cmp.Or(f.removeErr, ctx.Err())
	}
	if f.policies[name].version != version {
		return errors.New("another version is in force")
	}
	delete(f.policies, name)
	return nil
}

func (f *fakeServer) start(ctx context.Context, _ string, labels map[string]string) ticket {
	f.mu.Lock()
	t := &fakeTicket{f: f, labels: labels, asked: time.Now(), admitted: make(chan struct{})}
	if f.blind {
		f.mu.Unlock()
		return &fakeTicket{v: verdict{run: true, err: errors.New("server away")}}
	}
	if f.deny {
		f.mu.Unlock()
		return &fakeTicket{v: verdict{reason: "queue_timeout", message: "waited too long"}}
	}
	if len(f.policies) == 0 {
		f.mu.Unlock()
		return &fakeTicket{v: verdict{run: true, reason: reasonNoPolicy}}
	}
	f.waiting = append(f.waiting, t)
	f.admitLocked()
	f.mu.Unlock()
	select {
	case <-t.admitted:
	case <-ctx.Done():
		f.mu.Lock()
		defer f.mu.Unlock()
		if i := slices.Index(f.waiting, t); i >= 0 {
			f.waiting = slices.Delete(f.waiting, i, i+1)
			t.v = verdict{reason: "cancelled"}
			t.f = nil
		}
	}
	return t
}

func (f *fakeServer) probe(context.Context, string, map[string]string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.blind:
		return "fail_open", errors.New("server away")
	case f.foreign, len(f.policies) > 0 && !f.ignored:
		return "admitted", nil
	}
	return reasonNoPolicy, nil
}

// admitLocked admits whoever is next by weight, for as long as there is capacity.
func (f *fakeServer) admitLocked() {
	for len(f.waiting) > 0 {
		next := slices.MinFunc(f.waiting, func(a, b *fakeTicket) int { return cmp.Compare(f.finish(a), f.finish(b)) })
		ok, wait := f.res.take(next.labels)
		if !ok {
			if wait > 0 {
				if f.timer != nil {
					f.timer.Stop()
				}
				f.timer = time.AfterFunc(wait, func() {
					f.mu.Lock()
					defer f.mu.Unlock()
					f.admitLocked()
				})
			}
			return
		}
		f.vt[next.tier()] = f.finish(next)
		f.waiting = slices.DeleteFunc(f.waiting, func(t *fakeTicket) bool { return t == next })
		next.v = verdict{run: true, reason: "admitted", waited: time.Since(next.asked)}
		close(next.admitted)
	}
}

// finish is when a flow would be done by weight; a tier that was idle does not save up.
func (f *fakeServer) finish(t *fakeTicket) float64 {
	floor := math.Inf(1)
	for _, w := range f.waiting {
		floor = min(floor, f.vt[w.tier()])
	}
	return max(f.vt[t.tier()], floor) + 1/f.weight[t.tier()]
}

type fakeTicket struct {
	f        *fakeServer
	labels   map[string]string
	asked    time.Time
	admitted chan struct{}
	v        verdict
	ends     int
}

func (t *fakeTicket) tier() string {
	return cmp.Or(t.labels["user_tier"], t.labels["product_reason"])
}
func (t *fakeTicket) verdict() verdict { return t.v }
func (t *fakeTicket) end(tokens float64, _ error) {
	if t.f == nil {
		return
	}
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	if t.ends++; t.ends > 1 {
		panic("a flow was ended twice")
	}
	t.f.ended++
	t.f.used += max(tokens, 0)
	t.f.res.give(t.labels, tokens)
	t.f.admitLocked()
}

// slots are a number of flows that may run at once.
type slots struct{ free int }

func (s *slots) take(map[string]string) (bool, time.Duration) {
	if s.free == 0 {
		return false, 0
	}
	s.free--
	return true, 0
}
func (s *slots) give(map[string]string, float64) { s.free++ }

// buckets are the two buckets of the quota policies.
type buckets struct {
	minute           time.Duration
	requests, tokens float64
	at               time.Time
}

func (b *buckets) take(labels map[string]string) (bool, time.Duration) {
	b.fill()
	want, _ := strconv.ParseFloat(labels["estimated_tokens"], 64)
	short := max((1-b.requests)/quotaRPM, (want-b.tokens)/quotaTPM)
	if short > 0 {
		return false, time.Duration(short*float64(b.minute)) + 1
	}
	b.requests--
	b.tokens -= want
	return true, 0
}

func (b *buckets) fill() {
	now := time.Now()
	minutes := now.Sub(b.at).Seconds() / b.minute.Seconds()
	b.requests = min(b.requests+minutes*quotaRPM, quotaCapacityRPM)
	b.tokens = min(b.tokens+minutes*quotaTPM, quotaCapacityTPM)
	b.at = now
}

func (b *buckets) give(labels map[string]string, tokens float64) {
	b.fill()
	if want, _ := strconv.ParseFloat(labels["estimated_tokens"], 64); tokens >= 0 {
		b.tokens = min(b.tokens+want-tokens, quotaCapacityTPM)
	}
}

// demoInBubble is a demo with everything in memory.
type demoInBubble struct {
	*runner
	server *fakeServer
	out    *bytes.Buffer
	dir    string
}

func newDemoInBubble(t *testing.T, name string) *demoInBubble {
	t.Helper()
	d := &demoInBubble{out: &bytes.Buffer{}, dir: filepath.Join(t.TempDir(), "a report")}
	cfg := Config{Name: name, Server: "memory", OutputDir: d.dir, Out: d.out}.withDefaults()
	p, ok := planOf(name)
	if !ok {
		t.Fatalf("no demo %q", name)
	}
	exp, err := p.build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if name == "mistral" {
		d.server = newFakeServer(map[string]float64{"paid": 5, "open_source": 1}, func() resource { return &slots{mistralSlots} })
	} else {
		d.server = newFakeServer(map[string]float64{"paid_user": 5, "free_user": 1}, func() resource {
			return &buckets{minute: clock(cfg.Scale).real(60), requests: quotaCapacityRPM, tokens: quotaCapacityTPM, at: time.Now()}
		})
	}
	exp.model.cfg.ChunkTokens = 50 // fewer messages: nothing here looks at them one by one
	d.runner = &runner{cfg: cfg, exp: exp, policies: d.server, gate: d.server}
	return d
}

func (d *demoInBubble) runInMemory(t *testing.T, ctx context.Context) error {
	l := newMemoryListener()
	d.client = l.client(t)
	return d.run(ctx, l)
}

func (d *demoInBubble) results(t *testing.T) *Results {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(d.dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var res Results
	if err := json.Unmarshal(b, &res); err != nil {
		t.Fatal(err)
	}
	return &res
}

func TestMistral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDemoInBubble(t, "mistral")
		if err := d.runInMemory(t, t.Context()); err != nil {
			t.Fatal(err)
		}
		res := d.results(t)
		if !res.Complete || len(res.Phases) != 2 || len(res.Notes) != 0 {
			t.Fatalf("complete %t, %d phases, notes %q; want a complete run", res.Complete, len(res.Phases), res.Notes)
		}
		without, with := res.Phases[0], res.Phases[1]
		for _, p := range res.Phases {
			if p.Completed != 250 || p.Lost() != 0 || p.Interrupted != 0 || p.Unguarded != 0 {
				t.Errorf("%s: %d completed, %d lost, %d interrupted; want 250, 0, 0", p.Name, p.Completed, p.Lost(), p.Interrupted)
			}
		}
		if without.PeakInFlight != 10 || with.PeakInFlight != 2 {
			t.Errorf("peak in flight %d without and %d with policy, want 10 and 2", without.PeakInFlight, with.PeakInFlight)
		}
		checkMakespan(t, d, with, without)
		paidBefore, paidAfter := without.Tiers[0].WaitSeconds, with.Tiers[0].WaitSeconds
		if paidAfter.P95 > 0.7*paidBefore.P95 || paidAfter.P50 > 0.7*paidBefore.P50 {
			t.Errorf("paid waits %v without and %v with policy: want a sharp fall", paidBefore, paidAfter)
		}
		if len(d.server.policies) != 0 || d.server.ended != 250 {
			t.Errorf("%d policies left, %d flows ended; want 0 and 250", len(d.server.policies), d.server.ended)
		}
		for _, f := range []string{"index.html", "policy.yaml"} {
			if s, err := os.Stat(filepath.Join(d.dir, f)); err != nil || s.Size() == 0 {
				t.Errorf("%s: %v, want it in the report", f, err)
			}
		}
		if out := d.out.String(); !strings.Contains(out, "seed 1") || !strings.Contains(out, "paid, wait") || !strings.Contains(out, "with policy     250/250") {
			t.Errorf("output lacks seed, progress or results:\n%s", out)
		}
	})
}

// checkMakespan compares the run with what the formulas say: with the policy both slots are busy until
// the last prompts, without it the device does two thirds of that while all ten users are there.
func checkMakespan(t *testing.T, d *demoInBubble, with, without Phase) {
	t.Helper()
	work, tokens := 0.0, 0
	for _, u := range d.exp.users {
		for n := range d.exp.perUser {
			a := d.exp.model.answerTo(promptFor(d.cfg.Seed, u, n), 0)
			work += d.exp.model.cfg.work(a.promptTokens, a.outputTokens)
			tokens += a.promptTokens + a.outputTokens
		}
	}
	if least := work / mistralSlots; with.DurationSeconds < least || with.DurationSeconds > least*1.05 {
		t.Errorf("with policy: all done after %.0f s, want %.0f s and little more", with.DurationSeconds, least)
	}
	if full := work / mistralSlots * 1.5; without.DurationSeconds > full*1.02 || without.DurationSeconds < full*0.95 {
		t.Errorf("without policy: all done after %.0f s, want about %.0f s", without.DurationSeconds, full)
	}
	used := 0
	for _, s := range with.Samples {
		used += s.Tokens
	}
	if used != tokens {
		t.Errorf("the samples count %d tokens, want %d", used, tokens)
	}
}

func TestQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDemoInBubble(t, "quota")
		if err := d.runInMemory(t, t.Context()); err != nil {
			t.Fatal(err)
		}
		res := d.results(t)
		without, with := res.Phases[0], res.Phases[1]
		if without.Refusals["requests"] < 50 || without.Refusals["tokens"] < 50 {
			t.Errorf("without policy: refusals %v, want many of both kinds: the demand is too low to show anything", without.Refusals)
		}
		if with.Refused() != 0 || with.Completed != 800 || with.Lost() != 0 {
			t.Errorf("with policy: %d refusals, %d completed, %d lost; want 0, 800, 0", with.Refused(), with.Completed, with.Lost())
		}
		seen := 0
		for _, s := range without.Samples {
			seen += s.Refusals
		}
		if seen != without.Refused() {
			t.Errorf("the workers met %d refusals, the provider counted %d", seen, without.Refused())
		}
		used := 0.0
		for _, s := range with.Samples {
			used += float64(s.Tokens)
		}
		if d.server.used != used {
			t.Errorf("the ends report %g tokens, the provider counted %g", d.server.used, used)
		}
		if paid, free := with.Tiers[0].WaitSeconds, with.Tiers[1].WaitSeconds; paid.Mean >= free.Mean {
			t.Errorf("paid waits %v, free %v on average; want paid first", paid.Mean, free.Mean)
		}
		accepted := 0
		for _, b := range with.Answers {
			accepted += b.Accepted
		}
		if accepted != 800 {
			t.Errorf("the bins count %d accepted requests, want 800", accepted)
		}
		if len(d.server.policies) != 0 || len(d.server.applied) != 2 {
			t.Errorf("%d policies applied and %d left, want 2 and 0", len(d.server.applied), len(d.server.policies))
		}
	})
}

func TestInterrupted(t *testing.T) {
	tests := map[string]struct {
		after  time.Duration
		phases int
	}{
		"without policy": {5 * second, 1},
		"with policy":    {50 * second, 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDemoInBubble(t, "mistral")
				ctx, cancel := context.WithTimeout(t.Context(), tt.after)
				defer cancel()
				begin := time.Now()
				err := d.runInMemory(t, ctx)
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "stopped early") {
					t.Errorf("got error %v, want that the run was stopped early", err)
				}
				if took := time.Since(begin); took != tt.after {
					t.Errorf("returned after %v, want %v", took, tt.after)
				}
				res := d.results(t)
				last := res.Phases[len(res.Phases)-1]
				if res.Complete || len(res.Phases) != tt.phases || last.Interrupted == 0 || last.Lost() != 0 {
					t.Errorf("complete %t, %d phases, %d interrupted, %d lost; want a partial run of %d phases without losses",
						res.Complete, len(res.Phases), last.Interrupted, last.Lost(), tt.phases)
				}
				if page, _ := os.ReadFile(filepath.Join(d.dir, "index.html")); !bytes.Contains(page, []byte("stopped early")) {
					t.Error("the report does not say that the run was stopped early")
				}
				if len(d.server.policies) != 0 {
					t.Errorf("policies left: %v", d.server.policies)
				}
				if n := d.exp.model.gpu.running(); n != 0 {
					t.Errorf("%d prompts still run", n)
				}
			})
		})
	}
}

func TestPolicyNames(t *testing.T) {
	t.Run("somebody else's", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := newDemoInBubble(t, "quota")
			d.server.policies["demo-quota-rpm"] = inForce{version: 1, comment: ownComment}
			d.server.policies["demo-quota-tpm"] = inForce{version: 7, author: "alice", comment: "ours"}
			err := d.runInMemory(t, t.Context())
			if err == nil || !strings.Contains(err.Error(), `policy "demo-quota-tpm" (version 7 by alice)`) {
				t.Errorf("got error %v, want one that names the policy, its version and author", err)
			}
			if len(d.server.policies) != 2 || len(d.server.applied) != 0 {
				t.Errorf("%d policies in force, %d applied; want everything untouched", len(d.server.policies), len(d.server.applied))
			}
		})
	})
	t.Run("left behind", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := newDemoInBubble(t, "mistral")
			d.server.policies[mistralPolicy] = inForce{version: 3, comment: ownComment}
			if err := d.runInMemory(t, t.Context()); err != nil {
				t.Fatal(err)
			}
			if res := d.results(t); len(res.Notes) != 1 || !strings.Contains(res.Notes[0], "left behind") {
				t.Errorf("notes %q, want only that a policy was left behind", res.Notes)
			}
		})
	})
}

func TestThingsThatGoWrong(t *testing.T) {
	tests := []struct {
		name    string
		spoil   func(d *demoInBubble)
		wantErr string // "" means none
		check   func(t *testing.T, d *demoInBubble, res *Results)
	}{
		{"server away", func(d *demoInBubble) { d.server.blind = true }, "", func(t *testing.T, d *demoInBubble, res *Results) {
			if res.Phases[1].Unguarded != 250 || len(res.Notes) != 6 {
				t.Errorf("%d unguarded, notes %q; want 250 and a note per phase and probe", res.Phases[1].Unguarded, res.Notes)
			}
		}},
		{"policy ignored", func(d *demoInBubble) { d.server.ignored = true }, "", func(t *testing.T, d *demoInBubble, res *Results) {
			if len(res.Notes) != 2 || !strings.Contains(res.Notes[0], "pass without it") {
				t.Errorf("notes %q, want one per tier that the policy does not apply", res.Notes)
			}
		}},
		{"another policy", func(d *demoInBubble) { d.server.foreign = true }, "", func(t *testing.T, d *demoInBubble, res *Results) {
			if len(res.Notes) != 2 || !strings.Contains(res.Notes[0], "another policy of this server") {
				t.Errorf("notes %q, want one per tier that another policy applies", res.Notes)
			}
		}},
		{"everything denied", func(d *demoInBubble) { d.server.deny = true }, "", func(t *testing.T, d *demoInBubble, res *Results) {
			p := res.Phases[1]
			if p.Denied != 250 || p.Completed != 0 || p.Tiers[0].Lost != 125 || !strings.Contains(p.Samples[0].Reason, "waited too long") {
				t.Errorf("%d denied, %d completed, reason %q; want 250 denied and why", p.Denied, p.Completed, p.Samples[0].Reason)
			}
		}},
		{"service full", func(d *demoInBubble) { d.exp.model.gpu.cfg.MaxJobs = 1 }, "", func(t *testing.T, d *demoInBubble, res *Results) {
			p := res.Phases[0]
			if p.Failed == 0 || p.Failed+p.Completed != 250 || !strings.Contains(p.Samples[0].Reason, "503") {
				t.Errorf("%d failed, %d completed; want the refused ones as failures that name the status", p.Failed, p.Completed)
			}
		}},
		{"policy refused", func(d *demoInBubble) {
			d.server.applyErr = errors.New("line 3: no such field")
			d.server.applied = make([]document, 1)
		}, "line 3: no such field", func(t *testing.T, d *demoInBubble, res *Results) {
			if res.Complete || len(res.Phases) != 1 {
				t.Errorf("complete %t, %d phases; want a partial report of one", res.Complete, len(res.Phases))
			}
		}},
		{"policy stays", func(d *demoInBubble) { d.server.removeErr = errors.New("disk full") }, "sluice policy delete demo-mistral", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDemoInBubble(t, "mistral")
				tt.spoil(d)
				err := d.runInMemory(t, t.Context())
				if tt.wantErr == "" && err != nil || tt.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tt.wantErr)) {
					t.Errorf("got error %v, want %q", err, tt.wantErr)
				}
				if tt.check != nil {
					tt.check(t, d, d.results(t))
				}
			})
		})
	}
}

func TestConfigIsChecked(t *testing.T) {
	tests := []struct {
		cfg  Config
		want []string
	}{
		{Config{}, []string{`demo.name: got "", want one of mistral, quota, overload`, "demo.server: got nothing"}},
		{Config{Name: "mistral", Server: "x", Scale: -1}, []string{"demo.scale: got -1"}},
		{Config{Name: "mistral", Server: "x", Scale: math.NaN()}, []string{"demo.scale: got NaN"}},
		{Config{Name: "quota", Server: "x", Scale: MaxScale + 1}, []string{"demo.scale: got 10001"}},
		{Config{Name: "quota", Server: "ftp://x"}, []string{`demo.server: got "ftp://x"`}},
		{Config{Name: "quota", Server: "http://"}, []string{`demo.server: got "http://"`}},
	}
	for _, tt := range tests {
		err := Run(t.Context(), tt.cfg)
		for _, want := range tt.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Run(%+v): got %v, want an error with %q", tt.cfg, err, want)
			}
		}
	}
	for _, name := range Names() {
		if Describe(name) == "" {
			t.Errorf("Describe(%q) is empty", name)
		}
	}
	if Describe("nothing") != "" {
		t.Error("Describe of an unknown demo is not empty")
	}
}
