// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/label/cel"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/policy"
)

// FromComponent compiles one component of a policy. It returns nil for a component that is no limiter.
// Ports that read signals make the limiter a driven one. The ID is left for the caller.
func FromComponent(name, hash, id string, c *policy.Component) (*LimiterSpec, error) {
	fc := c.FlowControl
	if fc == nil {
		return nil, nil
	}
	s := &LimiterSpec{Policy: name, Hash: hash, Component: id}
	var err error
	switch {
	case fc.RateLimiter != nil:
		err = s.rateLimiter(fc.RateLimiter)
	case fc.QuotaScheduler != nil:
		err = s.quotaScheduler(fc.QuotaScheduler)
	case fc.ConcurrencyLimiter != nil:
		err = s.concurrencyLimiter(fc.ConcurrencyLimiter)
	case fc.ConcurrencyScheduler != nil:
		err = s.concurrencyScheduler(fc.ConcurrencyScheduler)
	case fc.AdaptiveConcurrencyScheduler != nil:
		err = s.adaptiveConcurrency(fc.AdaptiveConcurrencyScheduler)
	case fc.Sampler != nil:
		err = s.sampler(fc.Sampler)
	case fc.LoadRamp != nil:
		err = s.loadRamp(fc.LoadRamp)
	default:
		load := loadParameters(fc)
		if load == nil {
			return nil, nil
		}
		err = s.loadScheduler(load)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// loadParameters are the flows and queues of a load scheduler, whatever moves it; nil for other components.
func loadParameters(fc *policy.FlowControl) *policy.LoadSchedulerParameters {
	switch {
	case fc.LoadScheduler != nil:
		return &fc.LoadScheduler.Parameters
	case fc.AIMDLoadScheduler != nil:
		return &fc.AIMDLoadScheduler.Parameters.LoadScheduler
	case fc.AIADLoadScheduler != nil:
		return &fc.AIADLoadScheduler.Parameters.LoadScheduler
	case fc.RangeDrivenLoadScheduler != nil:
		return &fc.RangeDrivenLoadScheduler.Parameters.LoadScheduler
	case fc.AdaptiveLoadScheduler != nil:
		return &fc.AdaptiveLoadScheduler.Parameters.LoadScheduler
	}
	return nil
}

func (s *LimiterSpec) rateLimiter(c *policy.RateLimiter) error {
	s.Kind = RateLimiter
	s.requests(c.RequestParameters)
	s.bucket(&c.InPorts, c.Parameters)
	return s.selectors(c.Selectors)
}

func (s *LimiterSpec) quotaScheduler(c *policy.QuotaScheduler) error {
	s.Kind = QuotaScheduler
	s.bucket(&c.InPorts, c.RateLimiter)
	if err := s.scheduler(&c.Scheduler); err != nil {
		return err
	}
	return s.selectors(c.Selectors)
}

func (s *LimiterSpec) concurrencyLimiter(c *policy.ConcurrencyLimiter) error {
	s.Kind = ConcurrencyLimiter
	s.requests(c.RequestParameters)
	s.slots(&c.InPorts, c.Parameters)
	return s.selectors(c.Selectors)
}

func (s *LimiterSpec) concurrencyScheduler(c *policy.ConcurrencyScheduler) error {
	s.Kind = ConcurrencyScheduler
	s.slots(&c.InPorts, c.ConcurrencyLimiter)
	if err := s.scheduler(&c.Scheduler); err != nil {
		return err
	}
	return s.selectors(c.Selectors)
}

func (s *LimiterSpec) adaptiveConcurrency(c *policy.AdaptiveConcurrencyScheduler) error {
	s.Kind, s.Driven = AdaptiveConcurrencyScheduler, true
	s.Slots.MaxInFlight = c.ConcurrencyLimiter.MaxInflightDuration.Std()
	if err := s.scheduler(&c.Scheduler); err != nil {
		return err
	}
	return s.selectors(c.Selectors)
}

func (s *LimiterSpec) loadScheduler(p *policy.LoadSchedulerParameters) error {
	s.Kind, s.Driven = LoadScheduler, true
	if err := s.scheduler(&p.Scheduler); err != nil {
		return err
	}
	return s.selectors(p.Selectors)
}

func (s *LimiterSpec) sampler(c *policy.Sampler) error {
	s.Kind = Sampler
	err := s.samples(&c.Parameters, c.PassThroughLabelValues)
	if percentage := s.constant(c.InPorts.AcceptPercentage); !s.Driven && !s.PassThrough {
		s.Sample.set(percentage)
	}
	s.Driven = s.Driven || c.PassThroughLabelValuesConfigKey != ""
	return err
}

func (s *LimiterSpec) loadRamp(c *policy.LoadRamp) error {
	s.Kind, s.Driven = LoadRamp, true
	err := s.samples(&c.Parameters.Sampler, c.PassThroughLabelValues)
	s.Sample.Ramp = true
	return err
}

func (s *LimiterSpec) samples(p *policy.SamplerParameters, pass []string) error {
	s.LimitBy, s.DeniedStatus = p.SessionLabelKey, int(p.DeniedResponseStatusCode)
	s.Sample = newSample(p.RampMode, pass)
	return s.selectors(p.Selectors)
}

func (s *LimiterSpec) requests(p policy.LimiterRequestParameters) {
	s.TokensKey, s.DeniedStatus = p.TokensLabelKey, int(p.DeniedResponseStatusCode)
}

// constant reads a port that has to be known: without a number, everything passes. A signal makes the
// limiter a driven one.
func (s *LimiterSpec) constant(p *policy.InPort) float64 {
	value, valid, isConst := p.Constant()
	switch {
	case !isConst:
		s.Driven = true
		return 0
	case !valid:
		s.PassThrough = true
		return 0
	}
	return value
}

// passThrough reads the optional port that switches a limiter off.
func (s *LimiterSpec) passThrough(p *policy.InPort) {
	if p == nil {
		return
	}
	value, valid, isConst := p.Constant()
	if !isConst {
		s.Driven = true
	} else if valid && value != 0 {
		s.PassThrough = true
	}
}

func (s *LimiterSpec) bucket(in *policy.RateLimiterIns, p policy.RateLimiterParameters) {
	s.LimitBy = p.LimitBy()
	s.Bucket = limit.BucketRule{
		Capacity: s.constant(in.BucketCapacity), FillAmount: s.constant(in.FillAmount),
		Interval: p.Interval.Std(), Continuous: p.ContinuousFill, DelayInitialFill: p.DelayInitialFill,
		FixedWindow: p.FixedWindow, CountRefused: p.CountDenied,
	}
	s.passThrough(in.PassThrough)
}

func (s *LimiterSpec) slots(in *policy.ConcurrencyLimiterIns, p policy.ConcurrencyLimiterParameters) {
	s.LimitBy = p.LimitByLabelKey
	s.Slots = ledger.SlotRule{Max: s.constant(in.MaxConcurrency), MaxInFlight: p.MaxInflightDuration.Std()}
	s.passThrough(in.PassThrough)
}

func (s *LimiterSpec) selectors(in []policy.Selector) (err error) {
	s.Selectors, err = fromSelectors(in)
	return err
}

func fromSelectors(in []policy.Selector) ([]Selector, error) {
	out := make([]Selector, len(in))
	for i := range in {
		out[i] = Selector{ControlPoint: in[i].ControlPoint, AgentGroup: in[i].AgentGroup, Service: in[i].Service}
		if out[i].Service == "any" {
			out[i].Service = ""
		}
		if in[i].LabelMatcher != nil {
			var err error
			if out[i].Match, err = fromMatcher(in[i].LabelMatcher); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func (s *LimiterSpec) scheduler(c *policy.Scheduler) error {
	s.TokensKey, s.DeniedStatus = c.TokensLabelKey, int(c.DeniedResponseStatusCode)
	s.Scheduler = &SchedulerSpec{
		Default: fromWorkload("default", c.DefaultWorkloadParameters),
		Margin:  c.DecisionDeadlineMargin.Std(), PriorityKey: c.PriorityLabelKey,
		WorkloadKey: c.WorkloadLabelKey, FairnessKey: c.FairnessLabelKey,
	}
	for i := range c.Workloads {
		w := &c.Workloads[i]
		name := w.Name
		if name == "" {
			name = strconv.Itoa(i)
		}
		spec := fromWorkload(name, w.Parameters)
		var err error
		if spec.Match, err = fromMatcher(&w.LabelMatcher); err != nil {
			return err
		}
		s.Scheduler.Workloads = append(s.Scheduler.Workloads, spec)
	}
	return nil
}

func fromWorkload(name string, p policy.WorkloadParameters) WorkloadSpec {
	w := WorkloadSpec{Name: name, Priority: p.Priority, Tokens: p.Tokens}
	if w.Tokens == 0 {
		w.Tokens = 1 // as it always was: 0 means not set
	}
	if p.QueueTimeout != nil {
		w.QueueTimeout = p.QueueTimeout.Std()
		w.NoWait = w.QueueTimeout == 0
	}
	return w
}

// fromMatcher compiles a label matcher: all its parts must match.
func fromMatcher(m *policy.LabelMatcher) (label.Expr, error) {
	var all []label.Expr
	for _, key := range slices.Sorted(maps.Keys(m.MatchLabels)) {
		all = append(all, label.Equal(key, m.MatchLabels[key]))
	}
	for _, r := range m.Requirements() {
		e, err := label.Require(r.Key, r.Operator, r.Values)
		if err != nil {
			return label.Expr{}, fmt.Errorf("label matcher: %w", err)
		}
		all = append(all, e)
	}
	if m.Expression != nil {
		e, err := fromExpression(m.Expression)
		if err != nil {
			return label.Expr{}, err
		}
		all = append(all, e)
	}
	return label.And(all...), nil
}

func fromExpression(e *policy.Expression) (label.Expr, error) {
	switch {
	case e.Not != nil:
		sub, err := fromExpression(e.Not)
		return label.Negate(sub), err
	case e.All != nil:
		return fromList(label.All, e.All)
	case e.Any != nil:
		return fromList(label.Any, e.Any)
	case e.LabelExists != "":
		return label.Expr{Op: label.Exists, Key: e.LabelExists}, nil
	case e.LabelEquals != nil:
		return label.Equal(e.LabelEquals.Label, e.LabelEquals.Value), nil
	case e.LabelMatches != nil:
		re, err := regexp.Compile(e.LabelMatches.Regex)
		if err != nil {
			return label.Expr{}, fmt.Errorf("label_matches: %w", err)
		}
		return label.Expr{Op: label.Match, Key: e.LabelMatches.Label, Regex: re}, nil
	case e.CEL != "":
		condition, err := cel.Compile(e.CEL)
		if err != nil {
			return label.Expr{}, fmt.Errorf("label matcher: cel: %w", err)
		}
		return condition, nil
	}
	return label.Expr{}, errors.New("label matcher: empty expression, want one of not, all, any, label_exists, label_equals, label_matches, cel")
}

func fromList(op label.Op, list *policy.ExpressionList) (label.Expr, error) {
	out := label.Expr{Op: op}
	for i := range list.Of {
		sub, err := fromExpression(&list.Of[i])
		if err != nil {
			return label.Expr{}, err
		}
		out.Of = append(out.Of, sub)
	}
	return out, nil
}

// ClassifierConfig says how classifiers are compiled.
type ClassifierConfig struct {
	// CompileRego compiles modules in Rego; nil: there are none.
	CompileRego func(classify.Rego) (classify.Ruleset, error)
	// Bounds of one evaluation; zero values are the defaults.
	Bounds classify.Bounds
}

// FromClassifiers compiles the classifiers among the resources of a policy, in their order.
func FromClassifiers(name, hash string, list []policy.Classifier, cfg ClassifierConfig) ([]*ClassifierSpec, error) {
	var out []*ClassifierSpec
	for i := range list {
		c := &list[i]
		s := &ClassifierSpec{Policy: name, Hash: hash, Index: i}
		var err error
		if s.Selectors, err = fromSelectors(c.Selectors); err != nil {
			return nil, fmt.Errorf("classifier %d: %w", i, err)
		}
		if s.Rules, err = classify.Compile(fromRules(c, cfg)); err != nil {
			return nil, fmt.Errorf("classifier %d: %w", i, err)
		}
		out = append(out, s)
	}
	return out, nil
}

func fromRules(c *policy.Classifier, cfg ClassifierConfig) classify.Spec {
	spec := classify.Spec{CompileRego: cfg.CompileRego, Bounds: cfg.Bounds}
	for _, key := range slices.Sorted(maps.Keys(c.Rules)) {
		r := c.Rules[key]
		spec.Rules = append(spec.Rules, classify.Rule{Label: key, Telemetry: r.Telemetry, Extractor: fromExtractor(&r.Extractor)})
	}
	if c.Rego != nil {
		spec.Rego = &classify.Rego{Module: c.Rego.Module, Bounds: cfg.Bounds}
		for _, key := range slices.Sorted(maps.Keys(c.Rego.Labels)) {
			spec.Rego.Labels = append(spec.Rego.Labels, classify.RegoLabel{Key: key, Telemetry: c.Rego.Labels[key].Telemetry})
		}
	}
	return spec
}

func fromExtractor(e *policy.Extractor) classify.Extractor {
	out := classify.Extractor{From: e.From, CEL: e.CEL}
	switch {
	case e.JSON != nil:
		out.JSON = &classify.JSON{From: e.JSON.From, Pointer: e.JSON.Pointer}
	case e.Address != nil:
		out.Address = e.Address.From
	case e.JWT != nil:
		out.JWT = &classify.JSON{From: e.JWT.From, Pointer: e.JWT.JSONPointer}
	case e.PathTemplates != nil:
		out.PathTemplates = maps.Clone(e.PathTemplates.TemplateValues)
	}
	return out
}
