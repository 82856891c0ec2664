// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"testing"
	"time"

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
