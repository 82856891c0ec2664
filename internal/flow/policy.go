// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"

	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/policy"
)

// SignalError tells that an in-port is driven by a signal, which needs the circuit runtime.
type SignalError struct {
	// Path of the port below the component, for example "flow_control.rate_limiter.in_ports.fill_amount".
	Path string
	// Signal is the name of the signal.
	Signal string
}

func (e *SignalError) Error() string {
	return fmt.Sprintf("%s reads the signal %s; this release takes constants only: write constant_signal: {value: …}", e.Path, e.Signal)
}

// FromComponent compiles one component of a policy. It returns nil for a component that is no limiter,
// and a *SignalError for a limiter whose ports are not constant. The ID is left for the caller.
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
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (s *LimiterSpec) rateLimiter(c *policy.RateLimiter) error {
	s.Kind = RateLimiter
	s.requests(c.RequestParameters)
	if err := s.bucket("rate_limiter", &c.InPorts, c.Parameters); err != nil {
		return err
	}
	return s.selectors(c.Selectors)
}

func (s *LimiterSpec) quotaScheduler(c *policy.QuotaScheduler) error {
	s.Kind = QuotaScheduler
	if err := s.bucket("quota_scheduler", &c.InPorts, c.RateLimiter); err != nil {
		return err
	}
	if err := s.scheduler(&c.Scheduler); err != nil {
		return err
	}
	return s.selectors(c.Selectors)
}

func (s *LimiterSpec) concurrencyLimiter(c *policy.ConcurrencyLimiter) error {
	s.Kind = ConcurrencyLimiter
	s.requests(c.RequestParameters)
	if err := s.slots("concurrency_limiter", &c.InPorts, c.Parameters); err != nil {
		return err
	}
	return s.selectors(c.Selectors)
}

func (s *LimiterSpec) concurrencyScheduler(c *policy.ConcurrencyScheduler) error {
	s.Kind = ConcurrencyScheduler
	if err := s.slots("concurrency_scheduler", &c.InPorts, c.ConcurrencyLimiter); err != nil {
		return err
	}
	if err := s.scheduler(&c.Scheduler); err != nil {
		return err
	}
	return s.selectors(c.Selectors)
}

func (s *LimiterSpec) requests(p policy.LimiterRequestParameters) {
	s.TokensKey, s.DeniedStatus = p.TokensLabelKey, int(p.DeniedResponseStatusCode)
}

// constant reads a port; an invalid number lets everything pass, as an absent one does.
func (s *LimiterSpec) constant(path string, p *policy.InPort) (float64, error) {
	value, valid, isConst := p.Constant()
	if !isConst {
		return 0, &SignalError{Path: "flow_control." + path, Signal: p.SignalName}
	}
	if !valid {
		s.PassThrough = true
		return 0, nil
	}
	return value, nil
}

// passThrough reads the optional port that switches a limiter off.
func (s *LimiterSpec) passThrough(path string, p *policy.InPort) error {
	if p == nil {
		return nil
	}
	value, valid, isConst := p.Constant()
	if !isConst {
		return &SignalError{Path: "flow_control." + path, Signal: p.SignalName}
	}
	if valid && value != 0 {
		s.PassThrough = true
	}
	return nil
}

func (s *LimiterSpec) bucket(kind string, in *policy.RateLimiterIns, p policy.RateLimiterParameters) (err error) {
	s.LimitBy = p.LimitBy()
	s.Bucket = limit.BucketRule{
		Interval: p.Interval.Std(), Continuous: p.ContinuousFill, DelayInitialFill: p.DelayInitialFill,
	}
	if s.Bucket.Capacity, err = s.constant(kind+".in_ports.bucket_capacity", in.BucketCapacity); err != nil {
		return err
	}
	if s.Bucket.FillAmount, err = s.constant(kind+".in_ports.fill_amount", in.FillAmount); err != nil {
		return err
	}
	return s.passThrough(kind+".in_ports.pass_through", in.PassThrough)
}

func (s *LimiterSpec) slots(kind string, in *policy.ConcurrencyLimiterIns, p policy.ConcurrencyLimiterParameters) (err error) {
	s.LimitBy = p.LimitByLabelKey
	s.Slots = ledger.SlotRule{MaxInFlight: p.MaxInflightDuration.Std()}
	if s.Slots.Max, err = s.constant(kind+".in_ports.max_concurrency", in.MaxConcurrency); err != nil {
		return err
	}
	return s.passThrough(kind+".in_ports.pass_through", in.PassThrough)
}

func (s *LimiterSpec) selectors(in []policy.Selector) error {
	for i := range in {
		sel := Selector{ControlPoint: in[i].ControlPoint, Service: in[i].Service}
		if sel.Service == "any" {
			sel.Service = ""
		}
		if in[i].LabelMatcher != nil {
			var err error
			if sel.Match, err = fromMatcher(in[i].LabelMatcher); err != nil {
				return err
			}
		}
		s.Selectors = append(s.Selectors, sel)
	}
	return nil
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
		e, err := fromRequirement(&r)
		if err != nil {
			return label.Expr{}, err
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

func fromRequirement(r *policy.MatchRequirement) (label.Expr, error) {
	in := label.Expr{Op: label.In, Key: r.Key, Texts: r.Values}
	exists := label.Expr{Op: label.Exists, Key: r.Key}
	switch r.Operator {
	case "In":
		return in, nil
	case "NotIn":
		return label.Negate(in), nil
	case "Exists":
		return exists, nil
	case "DoesNotExist":
		return label.Negate(exists), nil
	}
	return label.Expr{}, fmt.Errorf("label matcher: operator %q, want In, NotIn, Exists or DoesNotExist", r.Operator)
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
	}
	return label.Expr{}, errors.New("label matcher: empty expression, want one of not, all, any, label_exists, label_equals, label_matches")
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
