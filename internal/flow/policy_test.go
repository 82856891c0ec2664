// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"encoding/base64"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/policy"
)

func constantPort(n float64) *policy.InPort {
	return &policy.InPort{ConstantSignal: &policy.ConstantSignal{Value: &n}}
}

func TestFromComponent(t *testing.T) {
	timeout := policy.Duration(0)
	c := &policy.Component{FlowControl: &policy.FlowControl{QuotaScheduler: &policy.QuotaScheduler{
		InPorts: policy.RateLimiterIns{BucketCapacity: constantPort(30), FillAmount: constantPort(15)},
		Selectors: []policy.Selector{{ControlPoint: "cp", Service: "any", LabelMatcher: &policy.LabelMatcher{
			MatchLabels: map[string]string{"b": "2", "a": "1"},
			MatchList:   []policy.MatchRequirement{{Key: "c", Operator: "NotIn", Values: []string{"x"}}},
			Expression:  &policy.Expression{LabelMatches: &policy.MatchesExpression{Label: "d", Regex: "^v[0-9]$"}},
		}}},
		RateLimiter: policy.RateLimiterParameters{LabelKey: "api_key", Interval: policy.Duration(time.Minute), ContinuousFill: true},
		Scheduler: policy.Scheduler{
			TokensLabelKey: "tokens", DeniedResponseStatusCode: 503,
			DefaultWorkloadParameters: policy.WorkloadParameters{Priority: 1},
			Workloads:                 []policy.Workload{{Parameters: policy.WorkloadParameters{Priority: 7, Tokens: 3, QueueTimeout: &timeout}}},
		},
	}}}
	s, err := FromComponent("p", "h", "root.0", c)
	if err != nil {
		t.Fatal(err)
	}
	if s.Kind != QuotaScheduler || s.LimitBy != "api_key" || s.TokensKey != "tokens" || s.DeniedStatus != 503 ||
		s.Bucket.Capacity != 30 || s.Bucket.FillAmount != 15 || s.FillPerSecond() != 0.25 || s.PassThrough {
		t.Errorf("%+v", s)
	}
	if w := s.Scheduler.Workloads[0]; w.Name != "0" || w.Priority != 7 || w.Tokens != 3 || !w.NoWait {
		t.Errorf("%+v", w)
	}
	if d := s.Scheduler.Default; d.Name != "default" || d.Tokens != 1 || d.NoWait {
		t.Errorf("%+v", d)
	}
	keys := []string{"a", "b", "c", "d"}
	p := s.Selectors[0].Match.Bind(func(key string) int {
		for i, k := range keys {
			if k == key {
				return i
			}
		}
		return -1
	})
	match := label.Values{{Text: "1", Present: true}, {Text: "2", Present: true}, {}, {Text: "v7", Present: true}}
	if !p.Match(match) {
		t.Error("a flow that fulfils every part does not match")
	}
	for i := range match {
		if i == 2 {
			continue
		}
		changed := append(label.Values(nil), match...)
		changed[i] = label.Value{}
		if p.Match(changed) {
			t.Errorf("matches without label %s", keys[i])
		}
	}
}

func TestPortsOfComponents(t *testing.T) {
	limiter := func(max, pass *policy.InPort) *policy.Component {
		return &policy.Component{FlowControl: &policy.FlowControl{ConcurrencyLimiter: &policy.ConcurrencyLimiter{
			InPorts:    policy.ConcurrencyLimiterIns{MaxConcurrency: max, PassThrough: pass},
			Parameters: policy.ConcurrencyLimiterParameters{MaxInflightDuration: policy.Duration(time.Second)},
			Selectors:  []policy.Selector{{ControlPoint: "cp"}},
		}}}
	}
	invalid := &policy.InPort{ConstantSignal: &policy.ConstantSignal{SpecialValue: "NaN"}}
	for name, tt := range map[string]struct {
		c    *policy.Component
		pass bool
	}{
		"constant":         {limiter(constantPort(5), nil), false},
		"empty port is 0":  {limiter(&policy.InPort{}, nil), false},
		"invalid number":   {limiter(invalid, nil), true},
		"pass through":     {limiter(constantPort(5), constantPort(1)), true},
		"pass through off": {limiter(constantPort(5), constantPort(0)), false},
		"pass through NaN": {limiter(constantPort(5), invalid), false},
	} {
		s, err := FromComponent("p", "h", "root.0", tt.c)
		if err != nil || s.PassThrough != tt.pass {
			t.Errorf("%s: %+v %v", name, s, err)
		}
	}
	for name, c := range map[string]*policy.Component{
		"signal":                   limiter(&policy.InPort{SignalName: "LIMIT"}, nil),
		"signal for pass through":  limiter(constantPort(5), &policy.InPort{SignalName: "OFF"}),
		"signal beside an invalid": limiter(invalid, &policy.InPort{SignalName: "OFF"}),
	} {
		if s, err := FromComponent("p", "h", "root.0", c); err != nil || !s.Driven {
			t.Errorf("%s: %+v %v, want a driven limiter", name, s, err)
		}
	}
	if s, err := FromComponent("p", "h", "root.0", &policy.Component{Decider: &policy.Decider{}}); s != nil || err != nil {
		t.Errorf("a decider is no limiter: %v %v", s, err)
	}
}

func TestWorkloadThatMayNotWait(t *testing.T) {
	spec := slotSpec(ConcurrencyScheduler, 1, "cp", "", 1)
	spec.Scheduler.Default.NoWait = true
	e := newEngine(t, spec)
	held := wait(context.Background(), e, "cp")
	f := wait(context.Background(), e, "cp")
	if f.Admitted() || f.Verdict.Reason != QueueTimeout || f.Verdict.Waited != 0 {
		t.Errorf("%+v", f.Verdict)
	}
	f.Free()
	held.End(Outcome{})
}

// TestFromClassifiers runs a policy's classifiers of every kind, selected by a matcher in CEL, to a limiter that
// reads a label they make.
func TestFromClassifiers(t *testing.T) {
	rego := func(r classify.Rego) (classify.Ruleset, error) {
		if r.Module != "the module" || len(r.Labels) != 2 || r.Labels[0].Key != "made_a" || !r.Labels[1].Telemetry {
			t.Errorf("%+v", r)
		}
		return always("made_a", "by rego"), nil
	}
	extract := func(e policy.Extractor) policy.Rule { return policy.Rule{Extractor: e, Telemetry: true} }
	list := []policy.Classifier{
		{
			Selectors: []policy.Selector{{ControlPoint: "cp", AgentGroup: "edge", Service: "any", LabelMatcher: &policy.LabelMatcher{
				Expression: &policy.Expression{CEL: `labels["http.method"] == "POST" && labels["http.host"].startsWith("api.")`},
			}}},
			Rules: map[string]policy.Rule{
				"team":     extract(policy.Extractor{From: "request.http.headers.x-team"}),
				"product":  extract(policy.Extractor{JSON: &policy.JSONExtractor{From: "request.http.body", Pointer: "/items/0"}}),
				"peer":     {Extractor: policy.Extractor{Address: &policy.AddressExtractor{From: "source.address"}}},
				"subject":  extract(policy.Extractor{JWT: &policy.JWTExtractor{From: "request.http.bearer", JSONPointer: "/sub"}}),
				"endpoint": extract(policy.Extractor{PathTemplates: &policy.PathTemplateMatcher{TemplateValues: map[string]string{"/cart/{id}": "cart"}}}),
				"size":     extract(policy.Extractor{CEL: `request.size > 10 ? "large" : "small"`}),
			},
		},
		{
			Selectors: []policy.Selector{{ControlPoint: "cp", AgentGroup: "default"}},
			Rego:      &policy.Rego{Module: "the module", Labels: map[string]policy.LabelProperties{"made_b": {Telemetry: true}, "made_a": {}}},
		},
	}
	specs, err := FromClassifiers("p", "h", list, ClassifierConfig{CompileRego: rego})
	if err != nil {
		t.Fatal(err)
	}
	if s := specs[1]; s.Index != 1 || s.Policy != "p" || s.Hash != "h" || s.Selectors[0].AgentGroup != "default" {
		t.Errorf("%+v", s)
	}
	cfg := newEngine(t).cfg
	cfg.AgentGroup = "edge"
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, e, Set{Classifiers: specs, Limiters: readers("team", "product", "peer", "subject", "endpoint", "size", "made_a")})
	r := Request{HTTP: &classify.Request{
		Method: "POST", Host: "api.shop", Path: "/cart/7?x", Size: 20, Body: `{"items":["hat"]}`,
		Headers: map[string]string{
			"x-team": "red", "content-type": "application/json",
			"authorization": "Bearer e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"alice"}`)) + ".x",
		},
		Source: classify.Address{Text: "192.0.2.1", Port: 80},
	}}
	got, f := valuesOf(t, e, r)
	want := map[string]string{
		"team": "red", "product": "hat", "peer": "192.0.2.1:80", "subject": "alice", "endpoint": "cart", "size": "large",
	}
	if !maps.Equal(got, want) {
		t.Errorf("limiters read %v, want %v; %v", got, want, f.Classifiers())
	}
	for _, l := range f.Derived() {
		if l.Telemetry != (l.Key != "peer") {
			t.Errorf("%+v", l)
		}
	}
	f.End(Outcome{})
	r.HTTP.Host = "www.shop"
	if got, _ := valuesOf(t, e, r); len(got) != 0 {
		t.Errorf("a flow that the matcher does not match has %v", got)
	}
}

func TestFromClassifiersErrors(t *testing.T) {
	for want, c := range map[string]policy.Classifier{
		"classifier 0":           {Rules: map[string]policy.Rule{"a": {Extractor: policy.Extractor{From: "request.http.nonsense"}}}},
		"no such language":       {Rego: &policy.Rego{Module: "package x", Labels: map[string]policy.LabelProperties{"a": {}}}},
		"label matcher: cel: 1:": {Selectors: []policy.Selector{{LabelMatcher: &policy.LabelMatcher{Expression: &policy.Expression{CEL: "labels +"}}}}},
	} {
		if _, err := FromClassifiers("p", "h", []policy.Classifier{c}, ClassifierConfig{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want …%s…", err, want)
		}
	}
}
