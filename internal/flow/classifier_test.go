// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/meter"
)

// rules are a ruleset that a test makes up.
type rules func(in *classify.Input, out []classify.Label) ([]classify.Label, error)

func (r rules) Eval(in *classify.Input, out []classify.Label) ([]classify.Label, error) {
	return r(in, out)
}

// always makes the same labels for every flow.
func always(kv ...string) rules {
	return func(_ *classify.Input, out []classify.Label) ([]classify.Label, error) {
		for i := 0; i < len(kv); i += 2 {
			out = append(out, classify.Label{Key: kv[i], Value: kv[i+1], Telemetry: true})
		}
		return out, nil
	}
}

func classifierSpec(policy string, index int, match label.Expr, r classify.Ruleset) *ClassifierSpec {
	return &ClassifierSpec{
		Policy: policy, Hash: "hash-" + policy, Index: index, Rules: r,
		Selectors: []Selector{{ControlPoint: "cp", Match: match}},
	}
}

func publish(tb testing.TB, e *Engine, set Set) {
	tb.Helper()
	if err := e.Publish(set); err != nil {
		tb.Fatal(err)
	}
}

// readers are limiters that tell what value a label had when limiters read it.
func readers(keys ...string) (out []*LimiterSpec) {
	for i, key := range keys {
		s := rateSpec(ledger.LimiterID(100+i), "cp", key, label.Expr{}, wide)
		out = append(out, s)
	}
	return out
}

// valuesOf starts a flow and returns what limiters read of labels.
func valuesOf(tb testing.TB, e *Engine, r Request) (map[string]string, *Flow) {
	tb.Helper()
	r.ControlPoint, r.Explain, r.QueueTimeout = "cp", true, -1
	f := e.Start(context.Background(), &r)
	out := make(map[string]string)
	for _, d := range f.Verdict.Decisions {
		if d.Charged {
			out[d.Limiter.LimitBy] = d.Key
		}
	}
	return out, f
}

func TestClassifiersRunInOrderAndOverwrite(t *testing.T) {
	e := newEngine(t)
	var order []string
	log := func(name string, r rules) rules {
		return func(in *classify.Input, out []classify.Label) ([]classify.Label, error) {
			order = append(order, name)
			return r(in, out)
		}
	}
	publish(t, e, Set{Limiters: readers("tier", "region", "new", "http.method"), Classifiers: []*ClassifierSpec{
		classifierSpec("b", 0, label.Expr{}, log("b/0", always("tier", "b0", "new", "b0"))),
		classifierSpec("a", 10, label.Expr{}, log("a/10", always("tier", "a10", "new", "a10"))),
		classifierSpec("a", 2, label.Expr{}, log("a/2", always("tier", "a2", "region", "a2", "nobody-reads-this", "x"))),
	}})
	labels := map[string]string{"tier": "explicit", "http.method": "explicit"}
	got, f := valuesOf(t, e, Request{Labels: labels, HTTP: &classify.Request{Method: "GET"}})
	if want := []string{"a/2", "a/10", "b/0"}; !slices.Equal(order, want) {
		t.Errorf("ran in the order %v, want %v", order, want)
	}
	for key, want := range map[string]string{"tier": "b0", "region": "a2", "new": "b0", "http.method": "explicit"} {
		if got[key] != want {
			t.Errorf("limiters read %s as %q, want %q", key, got[key], want)
		}
	}
	if n := len(f.Derived()); n != 7 || f.Derived()[0].Value != "a2" || f.Derived()[6].Key != "new" {
		t.Errorf("derived labels: %v", f.Derived())
	}
	if c := f.Classifiers(); len(c) != 3 || c[0].Classifier.Index != 2 || c[0].Err != nil {
		t.Errorf("classifiers: %v", c)
	}
	f.End(Outcome{})
	order = nil
	got, f = valuesOf(t, e, Request{Labels: map[string]string{"tier": "explicit"}})
	if got["tier"] != "explicit" || len(order) != 0 || f.Derived() != nil || f.Classifiers() != nil {
		t.Errorf("a flow without HTTP was classified: %v %v", got, f.Classifiers())
	}
	f.End(Outcome{})
}

// TestClassifierSelectors: a classifier sees a flow as it came, by label, service and group.
func TestClassifierSelectors(t *testing.T) {
	e := newEngine(t)
	shop := classifierSpec("p", 2, label.Expr{}, always("c2", "1"))
	shop.Selectors[0].Service = "shop"
	elsewhere := classifierSpec("p", 3, label.Expr{}, always("c3", "1"))
	elsewhere.Selectors[0].ControlPoint = "other"
	publish(t, e, Set{Classifiers: []*ClassifierSpec{
		classifierSpec("p", 0, label.Expr{}, always("tier", "gold", "c0", "1")),
		classifierSpec("p", 1, label.Equal("tier", "gold"), always("c1", "1")),
		shop, elsewhere,
		classifierSpec("p", 4, label.Equal("http.method", "PUT"), always("c4", "1")),
		classifierSpec("p", 5, label.Equal("http.method", "GET"), always("c5", "1")),
	}})
	for _, tt := range []struct {
		name string
		r    Request
		want string
	}{
		{"of the classifier before", Request{}, "c0"},
		{"explicit", Request{Labels: map[string]string{"tier": "gold"}}, "c0 c1"},
		{"service", Request{Services: []string{"cart", "shop"}}, "c0 c2"},
		{"of the request", Request{HTTP: &classify.Request{Method: "GET"}}, "c0 c5"},
		{"explicit wins", Request{Labels: map[string]string{"http.method": "PUT"}, HTTP: &classify.Request{Method: "GET"}}, "c0 c4"},
	} {
		if tt.r.HTTP == nil {
			tt.r.HTTP = &classify.Request{}
		}
		tt.r.ControlPoint = "cp"
		f := e.Start(context.Background(), &tt.r)
		var got []string
		for _, l := range f.Derived() {
			if strings.HasPrefix(l.Key, "c") {
				got = append(got, l.Key)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %v looked at it, want %s", tt.name, got, tt.want)
		}
		f.End(Outcome{})
	}
}

// TestClassifierErrors: whatever goes wrong in a classifier costs its own labels, is counted, and nothing else.
func TestClassifierErrors(t *testing.T) {
	e := newEngine(t)
	fails := func(err error) rules {
		return func(_ *classify.Input, out []classify.Label) ([]classify.Label, error) {
			return append(out, classify.Label{Key: "tier", Value: "half done"}), err
		}
	}
	specs := []*ClassifierSpec{
		classifierSpec("p", 0, label.Expr{}, always("tier", "good")),
		classifierSpec("p", 1, label.Expr{}, fails(&classify.Error{Code: classify.CodeEmptyResultset, Message: "empty"})),
		classifierSpec("p", 2, label.Expr{}, fails(errors.New("plain"))),
		classifierSpec("p", 3, label.Expr{}, fails(fmt.Errorf("wrapped: %w", &classify.Error{Code: classify.CodeBounds, Message: "slow"}))),
		classifierSpec("p", 4, label.Expr{}, fails(&classify.Error{Code: 200, Message: "unknown"})),
		classifierSpec("p", 5, label.Expr{}, fails(&classify.Error{Message: "none"})),
		classifierSpec("p", 6, label.Expr{}, rules(func(*classify.Input, []classify.Label) ([]classify.Label, error) { panic("oops") })),
		classifierSpec("p", 7, label.Expr{}, always("last", "yes")),
	}
	publish(t, e, Set{Limiters: readers("tier", "last"), Classifiers: specs})
	for range 2 {
		got, f := valuesOf(t, e, Request{HTTP: &classify.Request{}})
		if got["tier"] != "good" || got["last"] != "yes" || !f.Admitted() {
			t.Errorf("limiters read %v", got)
		}
		var codes []classify.Code
		for _, c := range f.Classifiers() {
			if c.Err != nil {
				codes = append(codes, c.Err.Code)
			}
		}
		want := []classify.Code{
			classify.CodeEmptyResultset, classify.CodeEvalFailed, classify.CodeBounds,
			classify.CodeEvalFailed, classify.CodeEvalFailed, classify.CodeEvalFailed,
		}
		if !slices.Equal(codes, want) {
			t.Errorf("codes %v, want %v", codes, want)
		}
		f.End(Outcome{})
	}
	expect := func(want string) {
		t.Helper()
		text := "# HELP sluice_classifier_evaluations_total Flows that a classifier of a policy looked at, by result: ok, or why it made no labels.\n" +
			"# TYPE sluice_classifier_evaluations_total counter\n" + want
		if err := testutil.CollectAndCompare(e.Collector(), strings.NewReader(text), "sluice_classifier_evaluations_total"); err != nil {
			t.Error(err)
		}
	}
	line := func(index int, result string, n int) string {
		return fmt.Sprintf("sluice_classifier_evaluations_total{index=\"%d\",policy=\"p\",result=\"%s\"} %d\n", index, result, n)
	}
	expect(line(0, "ok", 2) + line(1, "empty_resultset", 2) + line(1, "ok", 0) + line(2, "eval_failed", 2) + line(2, "ok", 0) +
		line(3, "bounds", 2) + line(3, "ok", 0) + line(4, "eval_failed", 2) + line(4, "ok", 0) + line(5, "eval_failed", 2) +
		line(5, "ok", 0) + line(6, "eval_failed", 2) + line(6, "ok", 0) + line(7, "ok", 2))

	changed := *specs[0] // an edit goes on with the counts, and one that comes back begins anew
	changed.Hash = "hash-2"
	publish(t, e, Set{Classifiers: []*ClassifierSpec{&changed}})
	expect(line(0, "ok", 2))
	compat := "# HELP classifier_counter_total Flows that a classifier looked at, also those of which it could make no labels.\n" +
		"# TYPE classifier_counter_total counter\n" +
		"classifier_counter_total{classifier_index=\"0\",policy_hash=\"hash-2\",policy_name=\"p\"} 2\n"
	if err := testutil.CollectAndCompare(e.CompatCollector(), strings.NewReader(compat), "classifier_counter_total"); err != nil {
		t.Error(err)
	}
	publish(t, e, Set{Classifiers: specs})
	expect(line(0, "ok", 2) + strings.Join([]string{
		line(1, "ok", 0), line(2, "ok", 0), line(3, "ok", 0), line(4, "ok", 0), line(5, "ok", 0), line(6, "ok", 0), line(7, "ok", 0),
	}, ""))
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(e.Collector(), e.CompatCollector())
	if _, err := r.Gather(); err != nil {
		t.Error(err)
	}
}

func TestCheckClassifiers(t *testing.T) {
	e := newEngine(t)
	good := classifierSpec("p", 0, label.Expr{}, always())
	for want, list := range map[string][]*ClassifierSpec{
		"two classifiers 0": {good, classifierSpec("p", 0, label.Expr{}, always())},
		"needs a policy":    {classifierSpec("", 0, label.Expr{}, always())},
		"index of 0":        {classifierSpec("p", -1, label.Expr{}, always())},
		"has no rules":      {classifierSpec("p", 1, label.Expr{}, nil)},
	} {
		if err := e.Publish(Set{Classifiers: list}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want …%s…", err, want)
		}
	}
	if err := e.Check(Set{Classifiers: []*ClassifierSpec{good, classifierSpec("q", 0, label.Expr{}, always())}}); err != nil {
		t.Error(err)
	}
}

// TestClassifierInput: a classifier finds labels as they were before classification, and nothing of a flow stays
// when it is freed.
func TestClassifierInput(t *testing.T) {
	e := newEngine(t)
	var kept *classify.Input
	look := func(in *classify.Input, out []classify.Label) ([]classify.Label, error) {
		kept = in
		all := make(map[string]string)
		in.EachLabel(func(key, value string) {
			if _, twice := all[key]; twice {
				t.Errorf("label %s comes twice", key)
			}
			all[key] = value
		})
		for _, key := range []string{"tier", "http.method", "http.request.header.x", "none"} {
			one, ok := in.Label(key)
			if each, there := all[key]; one != each || ok != there {
				t.Errorf("label %s is %q, %v one by one and %q, %v among all", key, one, ok, each, there)
			}
			if ok {
				out = append(out, classify.Label{Key: "seen." + key, Value: one})
			}
		}
		return out, nil
	}
	publish(t, e, Set{Classifiers: []*ClassifierSpec{
		classifierSpec("a", 0, label.Expr{}, always("tier", "made")), classifierSpec("b", 0, label.Expr{}, rules(look)),
	}})
	f := e.Start(context.Background(), &Request{
		ControlPoint: "cp", Labels: map[string]string{"tier": "gold", "http.method": "explicit"},
		HTTP: &classify.Request{Method: "GET", Headers: map[string]string{"x": "y"}},
	})
	want := []classify.Label{
		{Key: "tier", Value: "made", Telemetry: true},
		{Key: "seen.tier", Value: "gold"},
		{Key: "seen.http.method", Value: "explicit"},
		{Key: "seen.http.request.header.x", Value: "y"},
	}
	if !slices.Equal(f.Derived(), want) {
		t.Errorf("derived %v, want %v", f.Derived(), want)
	}
	if kept.Request != nil || kept.Label != nil {
		t.Error("the request is kept while the flow may wait")
	}
	f.Free()
	for range 100 { // pools give back what they like
		f := e.Start(context.Background(), &Request{ControlPoint: "cp"})
		if f.Derived() != nil {
			t.Fatal("a flow has labels of another one")
		}
		f.Free()
	}
}

// TestLabelsAgainstModel compares what limiters read with a table of all labels, over random layers.
func TestLabelsAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	header := func(i int) string { return fmt.Sprint("h", i) }
	var keys []string
	for i := range 5 {
		keys = append(keys, fmt.Sprint("k", i), "http.request.header."+header(i))
	}
	for round := range 300 {
		e := newEngine(t)
		set := Set{Limiters: readers(keys...)}
		r := Request{Labels: map[string]string{}, HTTP: &classify.Request{Headers: map[string]string{}}}
		model := make(map[string]string)
		for i := range 5 {
			if rng.IntN(2) == 0 {
				r.HTTP.Headers[header(i)] = fmt.Sprint("header", i)
				model["http.request.header."+header(i)] = fmt.Sprint("header", i)
			}
		}
		for _, key := range keys {
			if rng.IntN(3) == 0 {
				r.Labels[key], model[key] = "explicit-"+key, "explicit-"+key
			}
		}
		before := maps.Clone(model)
		for i := range rng.IntN(4) {
			key := keys[rng.IntN(len(keys))]
			made, value := keys[rng.IntN(len(keys))], fmt.Sprint("derived", i)
			match := label.Expr{}
			if rng.IntN(2) == 0 {
				match = label.Expr{Op: label.Exists, Key: key}
			}
			set.Classifiers = append(set.Classifiers, classifierSpec("p", i, match, always(made, value)))
			if _, ok := before[key]; ok || match.Op == label.True {
				model[made] = value
			}
		}
		publish(t, e, set)
		got, f := valuesOf(t, e, r)
		for _, key := range keys {
			if got[key] != model[key] {
				t.Fatalf("round %d: limiters read %s as %q, want %q", round, key, got[key], model[key])
			}
		}
		f.End(Outcome{})
	}
}

// TestAgentGroups: what is for other groups of servers is not there; a server without a group is in every one.
func TestAgentGroups(t *testing.T) {
	in := func(group string, id int) Set {
		l := rateSpec(ledger.LimiterID(id), "cp-"+group, "", label.Expr{}, limit.BucketRule{Interval: time.Second})
		l.Selectors[0].AgentGroup = group
		m := meterSpec("p", "m-"+group, meter.FlowDuration, label.Expr{})
		m.Selectors[0].AgentGroup, m.Selectors[0].ControlPoint = group, "cp-"+group
		c := classifierSpec("p", id, label.Expr{}, always("a", "b"))
		c.Selectors[0].AgentGroup, c.Selectors[0].ControlPoint = group, "cp-"+group
		return Set{Limiters: []*LimiterSpec{l}, Meters: []*MeterSpec{m}, Classifiers: []*ClassifierSpec{c}}
	}
	for _, own := range []string{"", "default", "edge"} {
		cfg := newEngine(t).cfg
		cfg.AgentGroup = own
		e, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		var all Set
		for i, group := range []string{"", "default", "edge"} {
			s := in(group, i+1)
			all.Limiters, all.Meters = append(all.Limiters, s.Limiters...), append(all.Meters, s.Meters...)
			all.Classifiers = append(all.Classifiers, s.Classifiers...)
		}
		publish(t, e, all)
		for _, group := range []string{"", "default", "edge"} {
			here := own == "" || group == "" || group == own
			f := e.Start(context.Background(), &Request{ControlPoint: "cp-" + group, HTTP: &classify.Request{}})
			if f.Admitted() == here || (len(f.Derived()) == 1) != here {
				t.Errorf("server in %q, selectors for %q: admitted %v with labels %v", own, group, f.Admitted(), f.Derived())
			}
			f.Free()
			if n, _, _ := read(t, e, "p", "m-"+group, meter.Rejected); (n == 1) != here {
				t.Errorf("server in %q, selectors for %q: %d flows measured", own, group, n)
			}
		}
	}
	two := rateSpec(9, "cp", "", label.Expr{}, limit.BucketRule{Interval: time.Second}) // one of several selectors
	two.Selectors = []Selector{{ControlPoint: "cp", AgentGroup: "a"}, {ControlPoint: "cp", AgentGroup: "b", Service: "s"}}
	cfg := newEngine(t).cfg
	cfg.AgentGroup = "b"
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, e, Set{Limiters: []*LimiterSpec{two}})
	if f := e.Start(context.Background(), &Request{ControlPoint: "cp"}); !f.Admitted() {
		t.Error("the selector of another group counts")
	}
	if f := e.Start(context.Background(), &Request{ControlPoint: "cp", Services: []string{"s"}}); f.Admitted() {
		t.Error("the selector of the own group does not count")
	}
}

func TestLabelFloodOverHTTP(t *testing.T) {
	e := newEngine(t)
	headers := make(map[string]string)
	for i := range MaxLabels {
		headers[fmt.Sprint("h", i)] = "x"
	}
	r := Request{ControlPoint: "cp", HTTP: &classify.Request{Headers: headers}}
	f := e.Start(context.Background(), &r)
	if f.Verdict.Reason != NoPolicy {
		t.Errorf("%s with %d headers", f.Verdict.Reason, len(headers))
	}
	f.Free()
	r.Labels = map[string]string{"one": "more"}
	f = e.Start(context.Background(), &r)
	if f.Verdict.Reason != InvalidRequest || !strings.Contains(f.Verdict.Detail, "HTTP headers") || f.Verdict.HTTPStatus() != 400 {
		t.Errorf("%s with %d headers and a label", f.Verdict.Reason, len(headers))
	}
	f.Free()
}

// TestClassifiedFlowsWait: what classifiers made decides the workload of a flow, is there after it waited, and is not
// that of another flow, whoever comes and goes meanwhile.
func TestClassifiedFlowsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t)
		scheduler := slotSpec(ConcurrencyScheduler, 1, "cp", "", 1)
		scheduler.Scheduler.Workloads = []WorkloadSpec{{Name: "gold", Priority: 10, Tokens: 1, Match: label.Equal("tier", "gold")}}
		copyHeader := rules(func(in *classify.Input, out []classify.Label) ([]classify.Label, error) {
			tier, _ := in.Label("http.request.header.tier")
			return append(out, classify.Label{Key: "tier", Value: tier}), nil
		})
		publish(t, e, Set{
			Limiters:    []*LimiterSpec{scheduler},
			Classifiers: []*ClassifierSpec{classifierSpec("p", 0, label.Expr{}, copyHeader)},
		})
		request := func(tier string) *Request {
			return &Request{
				ControlPoint: "cp", QueueTimeout: -1, Explain: true,
				HTTP: &classify.Request{Headers: map[string]string{"tier": tier}},
			}
		}
		var wg sync.WaitGroup
		for i := range 60 {
			tier := []string{"gold", "free", "\r\nSet-Cookie: a=b\x00"}[i%3]
			wg.Go(func() {
				ctx := t.Context()
				if i%10 == 9 { // leaves before its turn
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, time.Second)
					defer cancel()
				}
				f := e.Start(ctx, request(tier))
				if d := f.Derived(); len(d) != 1 || d[0].Value != tier || len(f.Classifiers()) != 1 {
					t.Errorf("flow %d of tier %q has %v", i, tier, d)
				}
				if !f.Admitted() {
					f.Free()
					return
				}
				want := "default"
				if tier == "gold" {
					want = "gold"
				}
				if got := f.Verdict.Decisions[0].Workload; got != want {
					t.Errorf("a flow of tier %q is in workload %q", tier, got)
				}
				time.Sleep(100 * time.Millisecond)
				f.End(Outcome{})
			})
		}
		wg.Wait()
	})
}

// TestHostileLabelsAreData: what a request carries is in no header and breaks no line.
func TestHostileLabelsAreData(t *testing.T) {
	e := newEngine(t)
	hostile := "x\r\nSet-Cookie: a=b\x00\xff\""
	publish(t, e, Set{Limiters: []*LimiterSpec{rateSpec(1, "cp", "http.request.header.who", label.Expr{}, limit.BucketRule{Interval: time.Second})}})
	_, f := valuesOf(t, e, Request{HTTP: &classify.Request{Headers: map[string]string{"who": hostile}}})
	if f.Admitted() || f.Verdict.Key != hostile {
		t.Errorf("%+v", f.Verdict)
	}
	if m := f.Verdict.Message(); strings.ContainsAny(m, "\r\n\x00") || !utf8.ValidString(m) {
		t.Errorf("%q", m)
	}
	for name, value := range headersOf(&f.Verdict) {
		if strings.ContainsAny(value, "\r\n\x00") || strings.Contains(value, "Cookie") {
			t.Errorf("%s: %q", name, value)
		}
	}
	f.Free()
}

func TestHTTPAllocatesNothing(t *testing.T) {
	e := newEngine(t)
	publish(t, e, Set{
		Limiters:    readers("http.method", "http.request.header.x_team", "user"),
		Classifiers: []*ClassifierSpec{classifierSpec("p", 0, label.Equal("http.host", "other"), always("user", "x"))},
	})
	http := &classify.Request{Method: "GET", Path: "/", Host: "shop", Headers: map[string]string{"x-team": "red"}}
	r := Request{ControlPoint: "cp", HTTP: http, Labels: map[string]string{"user": "alice"}}
	for _, classified := range []bool{false, true} {
		most := 0.5 // of an average; pools lose some when the race detector watches
		if classified {
			http.Host, most = "other", 2.5
		}
		run := func() {
			f := e.Start(context.Background(), &r)
			if !f.Admitted() || (f.class != nil) != classified {
				t.Fatal("not as meant")
			}
			f.End(Outcome{})
		}
		for range 2 * firstSamples {
			run()
		}
		if n := testing.AllocsPerRun(5000, run); n >= most {
			t.Errorf("a flow allocates %v times, classified: %v", n, classified)
		}
	}
}

// TestClassifiersSelectNoLimiter: what selects classifiers does not count for limiters.
func TestClassifiersSelectNoLimiter(t *testing.T) {
	e := newEngine(t)
	set := Set{Limiters: []*LimiterSpec{rateSpec(1, "cp", "", label.Equal("tier", "none"), limit.BucketRule{Interval: time.Second})}}
	for i := range 130 { // more than the limiters need bits for
		set.Classifiers = append(set.Classifiers, classifierSpec("p", i, label.Expr{}, always(fmt.Sprint("l", i), "x")))
	}
	publish(t, e, set)
	for range 3 {
		f := e.Start(context.Background(), &Request{ControlPoint: "cp", HTTP: &classify.Request{}})
		if f.Verdict.Reason != NoPolicy || len(f.Derived()) != 130 {
			t.Errorf("%s with %d labels", f.Verdict.Reason, len(f.Derived()))
		}
		f.End(Outcome{})
	}
}
