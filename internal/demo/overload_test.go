// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// shortStory is the story with less of everything but load.
func shortStory() overloadScenario {
	s := overloadStory()
	s.Before, s.During, s.After = 4*time.Second, 6*time.Second, 4*time.Second
	return s
}

// inProcess carries requests to a handler without a network, so that they live in a bubble. Like a
// connection, it drops the answer when the client has gone, and the handler goes on.
type inProcess struct{ handler http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := make(chan *http.Response, 1)
	go func() {
		w := httptest.NewRecorder()
		p.handler.ServeHTTP(w, r)
		answer <- w.Result()
	}()
	select {
	case resp := <-answer:
		return resp, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// fakeDoor lets in what the policy in force allows: nothing else is known about policies here.
type fakeDoor struct {
	server *fakeServer
	most   map[string]int // requests in the service at once, by policy; none: all

	mu     sync.Mutex
	inside int
}

func (d *fakeDoor) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !d.enter() {
			w.Header().Set(overloadDeniedHeader, "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		defer d.leave()
		next.ServeHTTP(w, r)
	})
}

func (d *fakeDoor) enter() bool {
	d.server.mu.Lock()
	most := math.MaxInt
	for name := range d.server.policies {
		if n, ok := d.most[name]; ok {
			most = n
		}
	}
	d.server.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inside >= most {
		return false
	}
	d.inside++
	return true
}

func (d *fakeDoor) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inside--
}

// newOverloadTest is a demo that never leaves the bubble.
func newOverloadTest(t *testing.T) (*overloadRunner, *fakeServer, *bytes.Buffer) {
	var out bytes.Buffer
	server := newFakeServer(nil, func() resource { return nil })
	s := shortStory()
	door := &fakeDoor{server: server, most: map[string]int{"demo-overload-static": 400, "demo-overload-latency": 20, "demo-overload-adaptive": 12}}
	return &overloadRunner{
		cfg:      Config{Name: "overload", OutputDir: filepath.Join(t.TempDir(), "it's a report"), Seed: 1, Out: &out},
		scenario: s, variants: overloadVariants(s), policies: server,
		probe: func(context.Context, map[string]string) (string, error) { return reasonNoPolicy, nil },
		door:  door.wrap,
		serve: func(h http.Handler) (http.RoundTripper, func(), error) { return inProcess{h}, func() {}, nil },
	}, server, &out
}

func readOverload(t *testing.T, dir string) (OverloadResults, string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var res OverloadResults
	if err := json.Unmarshal(text, &res); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "index.html"))
	if err != nil {
		t.Fatal(err)
	}
	return res, string(page)
}

func TestOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, server, out := newOverloadTest(t)
		if err := r.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		res, page := readOverload(t, r.cfg.OutputDir)
		if len(res.Runs) != 4 || !res.Complete || len(server.policies) != 0 || len(server.applied) != 3 {
			t.Fatalf("got %d runs, complete %v, policies left: %v", len(res.Runs), res.Complete, server.policies)
		}
		none, adaptive := res.Runs[0], res.Runs[3]
		if none.Before.Guests < 0.99 || none.Before.Subscribers < 0.99 {
			t.Errorf("before the surge: got %+v, want everybody served", none.Before)
		}
		// Work for clients that have gone, and second attempts, keep the service busy with nothing.
		if none.During.Goodput > 0.5*res.Capacity || none.ReactionSeconds != nil || none.RecoverySeconds != nil || none.After.Goodput > 0.5*none.Before.Goodput {
			t.Errorf("without a policy: got %+v, want a collapse that outlasts the surge", none)
		}
		if none.PeakQueue != r.scenario.Queue {
			t.Errorf("without a policy: got a queue of %d, want it full", none.PeakQueue)
		}
		if adaptive.During.Goodput < 0.9*res.Capacity || adaptive.ReactionSeconds == nil || *adaptive.ReactionSeconds != 0 ||
			adaptive.RecoverySeconds == nil || adaptive.During.Denied == 0 || adaptive.PeakQueue > 2 {
			t.Errorf("with as many as the service can work on: got %+v, want full use", adaptive)
		}
		if adaptive.During.Good+adaptive.During.Late+adaptive.During.Lost != adaptive.During.Asked {
			t.Errorf("counts do not add up: %+v", adaptive.During)
		}
		for i, run := range res.Runs {
			if run.Before.Asked != none.Before.Asked || run.During.Asked != none.During.Asked {
				t.Errorf("%s: other users than in the first run", run.Name)
			}
			sum := 0
			for _, b := range run.Seconds {
				sum += b.Good
			}
			if want := run.Before.Good + run.During.Good + run.After.Good; sum != want {
				t.Errorf("%s: the seconds have %d good answers, the periods %d", run.Name, sum, want)
			}
			if !strings.Contains(page, run.Title) || strings.Count(page, `class="run run`+string(rune('0'+i))) != 4 {
				t.Errorf("%s is not in every chart", run.Name)
			}
			if !strings.Contains(out.String(), run.Title) {
				t.Errorf("%s is not in the output", run.Name)
			}
		}
		if strings.Contains(page, "<script") || strings.Count(page, "<svg") != 4 || !strings.Contains(page, "s a report&#39;") {
			t.Error("the page is not what it should be")
		}
		for _, doc := range r.documents() {
			text, err := os.ReadFile(filepath.Join(r.cfg.OutputDir, doc.file))
			if err != nil || string(text) != doc.text {
				t.Errorf("%s: %v", doc.file, err)
			}
		}
	})
}

func TestOverloadStoppedEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, server, _ := newOverloadTest(t)
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second) // in the second run
		defer cancel()
		err := r.run(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "stopped early") {
			t.Errorf("got %v", err)
		}
		res, page := readOverload(t, r.cfg.OutputDir)
		if res.Complete || len(res.Runs) != 1 || len(server.policies) != 0 || !strings.Contains(page, "stopped early") {
			t.Errorf("got %d runs, complete %v, policies left %v", len(res.Runs), res.Complete, server.policies)
		}
	})
}

func TestOverloadRefusedPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, server, _ := newOverloadTest(t)
		server.applied, server.applyErr = []document{{}}, errors.New("not this one")
		if err := r.run(t.Context()); err == nil || !strings.Contains(err.Error(), `applying policy "demo-overload-static": not this one`) {
			t.Errorf("got %v", err)
		}
		if res, _ := readOverload(t, r.cfg.OutputDir); res.Complete || len(res.Runs) != 1 {
			t.Errorf("got %+v, want the run that was possible", res)
		}
	})
}

// TestOverloadForeignPolicy touches nothing that is not the demo's.
func TestOverloadForeignPolicy(t *testing.T) {
	r, server, _ := newOverloadTest(t)
	server.policies["demo-overload-adaptive"] = inForce{version: 3, author: "ada"}
	if err := r.run(t.Context()); err == nil || !strings.Contains(err.Error(), "by ada") {
		t.Errorf("got %v", err)
	}
	if len(server.policies) != 1 {
		t.Errorf("left %v", server.policies)
	}
}

func TestOverloadNotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, server, _ := newOverloadTest(t)
		server.policies["demo-overload-static"] = inForce{version: 1, comment: ownComment}
		r.variants = r.variants[:2]
		r.probe = func(context.Context, map[string]string) (string, error) { return "rate_limited", nil }
		if err := r.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		res, page := readOverload(t, r.cfg.OutputDir)
		for _, want := range []string{"took policy", "another policy of this server"} {
			if !slices.ContainsFunc(res.Notes, func(n string) bool { return strings.Contains(n, want) }) || !strings.Contains(page, want) {
				t.Errorf("got notes %q, want one that says %q", res.Notes, want)
			}
		}
	})
}

func TestOverloadRunsInRealTime(t *testing.T) {
	err := Run(t.Context(), Config{Name: "overload", Server: "127.0.0.1:1", Scale: 10})
	if err == nil || !strings.Contains(err.Error(), "demo.scale: got 10") {
		t.Errorf("got %v", err)
	}
}

// TestAsks checks the crowd against the story.
func TestAsks(t *testing.T) {
	s := overloadStory()
	asks := s.asks(1)
	if diff := cmp.Diff(asks, s.asks(1), cmp.AllowUnexported(ask{})); diff != "" {
		t.Error("the same seed gives other users")
	}
	if len(s.asks(2)) == len(asks) && s.asks(2)[0] == asks[0] {
		t.Error("another seed gives the same users")
	}
	var guests, work float64
	count := [3]float64{}
	for i, a := range asks {
		if i > 0 && a.at < asks[i-1].at {
			t.Fatal("not in order")
		}
		switch {
		case a.at < s.Before:
			count[0]++
		case a.at < s.Before+s.During:
			count[1]++
		default:
			count[2]++
		}
		if a.tier == guestTier {
			guests++
		}
		work += a.work.Seconds()
		if a.work < s.Work/2 || a.work > s.Work*3/2 || a.pause < s.RetryAfter || a.pause > 3*s.RetryAfter {
			t.Errorf("got %+v", a)
		}
	}
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got/want-1) > 0.05 {
			t.Errorf("%s: got %g, want about %g", what, got, want)
		}
	}
	near("rate before", count[0]/s.Before.Seconds(), s.Base*s.capacity())
	near("rate during", count[1]/s.During.Seconds(), s.Surge*s.capacity())
	near("rate after", count[2]/s.After.Seconds(), s.Base*s.capacity())
	near("guests", guests/float64(len(asks)), s.Guests)
	near("work", work/float64(len(asks)), s.Work.Seconds())
}

func TestSettled(t *testing.T) {
	for _, test := range []struct {
		good string // seconds, + for well
		want float64
	}{
		{"++++++++++", 0},
		{"--++++++++", 2},
		{"----------", -1},
		{"--------++", -1},
		{"-------+++", 7},
		{"+-++++++++", 0},
		{"+--+++++++", 3},
		{"+-+-+-+-+-", -1},
		{"", -1},
	} {
		var seconds []OverloadSecond
		for _, c := range test.good {
			seconds = append(seconds, OverloadSecond{Good: map[rune]int{'+': 1}[c]})
		}
		got := settled(seconds, func(b OverloadSecond) bool { return b.Good == 1 })
		if got == nil && test.want >= 0 || got != nil && *got != test.want {
			t.Errorf("%s: got %v, want %g", test.good, got, test.want)
		}
	}
}

// TestServeLocally sends a request over a real connection.
func TestServeLocally(t *testing.T) {
	s := newOverloadService(shortStory())
	transport, stop, err := serveLocally(s)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	defer s.close()
	s.begin = time.Now()
	req, err := http.NewRequest(http.MethodGet, "http://service.demo/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(overloadWorkHeader, "100")
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "done\n" {
		t.Errorf("got %q, %v", body, err)
	}
}

// TestOverloadDocuments keeps the policies plain: every value is one that the blueprints know.
func TestOverloadDocuments(t *testing.T) {
	names := map[string]bool{}
	for _, v := range overloadVariants(overloadStory()) {
		if v.policy == nil {
			continue
		}
		if !strings.Contains(v.policy.text, "policy_name: "+v.policy.name+"\n") || !strings.Contains(v.policy.text, "control_point: "+overloadControlPoint+"\n") {
			t.Errorf("%s: got\n%s", v.name, v.policy.text)
		}
		names[v.policy.name] = true
	}
	if len(names) != 3 {
		t.Errorf("got policies %v", names)
	}
}
