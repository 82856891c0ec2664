// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/circuit/component"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/signal"
)

// act is what the numbers of an actuator are.
type act uint8

const (
	actBucket act = iota + 1 // bucket_capacity, fill_amount, pass_through
	actSlots                 // max_concurrency, pass_through
	actLoad                  // load_multiplier
	actSample                // accept_percentage
)

// actuatorNode is a node whose ports are what the data plane should do.
type actuatorNode struct {
	node      int
	component string
	act       act
	// driven tells that setpoints are sent: a port reads a signal. Otherwise the data plane knows the numbers
	// from the document.
	driven bool
	// expires tells that what is asked for is only good as long as it is measured: without control the data
	// plane lets everything pass.
	expires bool
	// ramp tells that a sampler denies, rather than admits, while its percentage is unknown.
	ramp bool
	// pass are the values that a sampler always admits; nil for other actuators.
	pass *passValues
	// tokens is a query for the tokens of workloads; without Expr there is none.
	tokens signal.Query
}

// actuate adds an actuator of the data plane. Its ports decide whether it is driven, unless it is anyway.
func (x *composite) actuate(a actuatorNode, c circuit.Component, in ...circuit.In) {
	for _, port := range in {
		a.driven = a.driven || port.Signal.Name != ""
	}
	a.node = x.part("actuator", "", c, in)
	a.component = x.id
	x.e.actuators = append(x.e.actuators, a)
}

func (e *expansion) flowControl(c *policy.Component, id, scope string) {
	fc := c.FlowControl
	begin := func(selectors []policy.Selector, more ...string) *composite {
		return e.composite(id, c.Kind(), scope, describe(append([]string{pointsOf(selectors)}, more...)...))
	}
	switch {
	case fc.RateLimiter != nil:
		p := fc.RateLimiter
		begin(p.Selectors, bucketOf(&p.Parameters)).bucket(&p.InPorts, &p.OutPorts)
	case fc.QuotaScheduler != nil:
		p := fc.QuotaScheduler
		begin(p.Selectors, bucketOf(&p.RateLimiter)).bucket(&p.InPorts, &p.OutPorts)
	case fc.ConcurrencyLimiter != nil:
		p := fc.ConcurrencyLimiter
		begin(p.Selectors, byLabel(p.Parameters.LimitByLabelKey)).slots(&p.InPorts, &p.OutPorts)
	case fc.ConcurrencyScheduler != nil:
		p := fc.ConcurrencyScheduler
		begin(p.Selectors, byLabel(p.ConcurrencyLimiter.LimitByLabelKey)).slots(&p.InPorts, &p.OutPorts)
	case fc.AdaptiveConcurrencyScheduler != nil:
		p := fc.AdaptiveConcurrencyScheduler
		begin(p.Selectors, fmt.Sprintf("%s to %s slots", number(p.Parameters.MinConcurrency), number(p.Parameters.MaxConcurrency))).adaptiveConcurrency(p)
	case fc.Sampler != nil:
		p := fc.Sampler
		begin(p.Parameters.Selectors, byLabel(p.Parameters.SessionLabelKey)).sampler(p)
	case fc.LoadRamp != nil:
		p := fc.LoadRamp
		begin(p.Parameters.Sampler.Selectors, byLabel(p.Parameters.Sampler.SessionLabelKey)).loadRamp(p)
	default:
		e.loadControl(fc, begin)
	}
}

// pointsOf names the control points of selectors.
func pointsOf(selectors []policy.Selector) string {
	var points []string
	for i := range selectors {
		if p := selectors[i].ControlPoint; !slices.Contains(points, p) {
			points = append(points, p)
		}
	}
	if len(points) == 0 {
		return ""
	}
	return "at " + shorten(strings.Join(points, ", "))
}

func byLabel(key string) string {
	if key == "" {
		return ""
	}
	return "by " + key
}

func bucketOf(p *policy.RateLimiterParameters) string {
	return describe(byLabel(p.LimitBy()), "per "+p.Interval.String())
}

// bucket makes the parts of a rate limiter or quota scheduler.
func (x *composite) bucket(in *policy.RateLimiterIns, out *policy.LimiterOuts) {
	capacity, fill := x.in("bucket_capacity", in.BucketCapacity), x.in("fill_amount", in.FillAmount)
	pass := x.in("pass_through", in.PassThrough)
	x.accepted(out)
	x.actuate(actuatorNode{act: actBucket}, nil, capacity, fill, pass)
}

// slots makes the parts of a concurrency limiter or scheduler.
func (x *composite) slots(in *policy.ConcurrencyLimiterIns, out *policy.LimiterOuts) {
	limit, pass := x.in("max_concurrency", in.MaxConcurrency), x.in("pass_through", in.PassThrough)
	x.accepted(out)
	x.actuate(actuatorNode{act: actSlots}, nil, limit, pass)
}

func (x *composite) accepted(out *policy.LimiterOuts) {
	var o observerNode
	x.observeAccept(&o, x.out("accept_percentage", out.AcceptPercentage, "ACCEPT_PERCENTAGE"))
	x.observe(o)
}

// sampler makes the parts of a sampler.
func (x *composite) sampler(p *policy.Sampler) {
	percentage := x.in("accept_percentage", p.InPorts.AcceptPercentage)
	x.sample(p.PassThroughLabelValues, p.PassThroughLabelValuesConfigKey, actuatorNode{
		act: actSample, ramp: p.Parameters.RampMode, driven: p.PassThroughLabelValuesConfigKey != "",
	}, percentage)
}

// loadRamp makes the parts of a load ramp: a signal generator and a sampler in ramp mode.
func (x *composite) loadRamp(p *policy.LoadRamp) {
	in := []circuit.In{
		x.in("forward", p.InPorts.Forward), x.in("backward", p.InPorts.Backward), x.in("reset", p.InPorts.Reset),
	}
	percentage := x.out("accept_percentage", p.OutPorts.AcceptPercentage, "ACCEPT_PERCENTAGE")
	atStart := x.out("at_start", p.OutPorts.AtStart, "")
	atEnd := x.out("at_end", p.OutPorts.AtEnd, "")
	steps := make([]component.GeneratorStep, len(p.Parameters.Steps))
	for i, s := range p.Parameters.Steps {
		steps[i] = component.GeneratorStep{Target: s.TargetAcceptPercentage, Length: s.Duration.Std()}
	}
	x.part("signal_generator", describeSteps(steps), component.NewGenerator(steps, x.e.interval), in,
		output(percentage), circuit.Out{Port: "at_start", Signal: atStart}, circuit.Out{Port: "at_end", Signal: atEnd})
	x.sample(p.PassThroughLabelValues, p.PassThroughLabelValuesConfigKey,
		actuatorNode{act: actSample, ramp: true, driven: true}, as("accept_percentage", read(percentage)))
}

func (x *composite) sample(values []string, key string, a actuatorNode, percentage circuit.In) {
	x.e.key(key, x.id, ListOfStrings, "values of the session label that always pass, instead of pass_through_label_values")
	a.pass = newPassValues(values, key)
	x.actuate(a, a.pass, percentage)
}
