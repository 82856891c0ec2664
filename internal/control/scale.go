// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"math"
	"strconv"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/circuit/component"
	"github.com/sluice-project/sluice/internal/policy"
)

func (e *expansion) autoScale(c *policy.Component, id, scope string) {
	if p := c.AutoScale.PodScaler; p != nil {
		x := e.composite(id, c.Kind(), scope, objectOf(&p.KubernetesObjectSelector))
		replicas := x.in("replicas", p.InPorts.Replicas)
		x.replicas(&p.OutPorts)
		x.scale(replicas, p.DryRun, p.DryRunConfigKey, &p.KubernetesObjectSelector)
		return
	}
	p := c.AutoScale.AutoScaler
	e.composite(id, c.Kind(), scope, objectOf(&p.ScalingBackend.KubernetesReplicas.KubernetesObjectSelector)).autoScaler(p)
}

func objectOf(s *policy.KubernetesObjectSelector) string {
	return fmt.Sprintf("%s %s/%s", s.Kind, s.Namespace, s.Name)
}

// replicas adds the inputs that Kubernetes would set.
func (x *composite) replicas(out *policy.ScaleOuts) (actual, configured circuit.In) {
	a := x.out("actual_replicas", out.ActualReplicas, "ACTUAL_REPLICAS")
	c := x.out("configured_replicas", out.ConfiguredReplicas, "CONFIGURED_REPLICAS")
	for _, s := range []circuit.Signal{a, c} {
		_, node := x.input("replicas", "", s)
		x.e.replicas = append(x.e.replicas, node)
	}
	return read(a), read(c)
}

// scale adds the dry run and the actuator, which waits for Kubernetes.
func (x *composite) scale(desired circuit.In, dry bool, key string, object *policy.KubernetesObjectSelector) {
	acted := x.dryRun(dry, key, desired, "ACTUATED_REPLICAS")
	x.part("actuator", objectOf(object), nil, []circuit.In{as("replicas", read(acted))})
	x.e.waiting = append(x.e.waiting, Notice{Component: x.id, Text: "waiting for Kubernetes: this release does not scale " +
		objectOf(object) + "; its replicas are unknown, so nothing is proposed or changed"})
}

// autoScaler makes the parts of an auto scaler. A is the replicas that run, C those asked for.
//
// Controllers propose replicas. The largest proposal to scale out is held for a cooldown, which a proposal
// that exceeds it by far ends; only while there is none, the largest proposal to scale in is, too. What
// comes out moves in steps of a bounded percentage, within the bounds of the document.
func (x *composite) autoScaler(p *policy.AutoScaler) {
	backend, params := p.ScalingBackend.KubernetesReplicas, &p.ScalingParameters
	actual, configured := x.replicas(&backend.OutPorts.ScaleOuts)
	desired := x.out("desired_replicas", backend.OutPorts.DesiredReplicas, "DESIRED_REPLICAS")

	var outs, ins []circuit.In
	for i := range p.ScaleOutControllers {
		outs = append(outs, x.scaleOut(&p.ScaleOutControllers[i], strconv.Itoa(i), actual))
	}
	for i := range p.ScaleInControllers {
		ins = append(ins, x.scaleIn(&p.ScaleInControllers[i], strconv.Itoa(i), actual))
	}
	outIntent := x.intent("SCALE_OUT", outs, "gt", actual)
	inIntent := x.intent("SCALE_IN", ins, "lt", actual)

	outHold := x.private("SCALE_OUT_INTENT_HOLD")
	override := x.arithmetic(read(outHold), "mul", constant(1+params.CooldownOverridePercentage/100), x.private("SCALE_OUT_OVERRIDE"))
	reset := x.decide(read(outIntent), "gt", read(override), x.private("SCALE_OUT_RESET"))
	x.hold(params.ScaleOutCooldown.Std(), read(outIntent), read(reset), outHold)
	inOnly := x.choose(outHold, constant(math.NaN()), read(inIntent), x.private("SCALE_IN_ONLY_INTENT"))
	inHold := x.hold(params.ScaleInCooldown.Std(), read(inOnly), read(outHold), x.private("SCALE_IN_ONLY_INTENT_HOLD"))

	out := x.onlyIf(outHold, "gt", configured, "SCALE_OUT")
	in := x.onlyIf(inHold, "lt", configured, "SCALE_IN_ONLY")
	proposal := x.list("first_valid", component.FirstValid{}, x.private("PROPOSED_REPLICAS"), read(out), read(in))
	x.bounded(proposal, actual, backend, params, desired)

	kind := "auto_scaler"
	x.alert(x.decide(read(desired), "gt", configured, x.private("IS_SCALING_OUT")), &params.ScaleOutAlerter, kind)
	x.alert(x.decide(read(desired), "lt", configured, x.private("IS_SCALING_IN")), &params.ScaleInAlerter, kind)
	x.scale(read(desired), p.DryRun, p.DryRunConfigKey, &backend.KubernetesObjectSelector)
}

// scaleOut adds a controller that proposes more replicas, and its alert: it proposes more than there are.
func (x *composite) scaleOut(c *policy.ScaleOutController, n string, actual circuit.In) circuit.In {
	g := c.Controller.Gradient
	proposed := x.gradient(component.GradientConfig{Slope: g.Parameters.Slope, MinGradient: 1, MaxGradient: g.Parameters.MaxGradient},
		x.in("scale_out["+n+"].signal", g.InPorts.Signal), x.in("scale_out["+n+"].setpoint", g.InPorts.Setpoint),
		actual, x.private("SCALE_OUT_GRADIENT_"+n))
	return x.propose(proposed, "SCALE_OUT", n, "gt", actual, &c.Alerter)
}

// scaleIn adds a controller that proposes fewer replicas, and its alert.
func (x *composite) scaleIn(c *policy.ScaleInController, n string, actual circuit.In) circuit.In {
	if g := c.Controller.Gradient; g != nil {
		proposed := x.gradient(component.GradientConfig{Slope: g.Parameters.Slope, MinGradient: g.Parameters.MinGradient, MaxGradient: 1},
			x.in("scale_in["+n+"].signal", g.InPorts.Signal), x.in("scale_in["+n+"].setpoint", g.InPorts.Setpoint),
			actual, x.private("SCALE_IN_GRADIENT_"+n))
		return x.propose(proposed, "SCALE_IN", n, "lt", actual, &c.Alerter)
	}
	p, interval := c.Controller.Periodic, x.e.interval
	pulse := x.private("SCALE_IN_PULSE_" + n)
	x.part("pulse_generator", "every "+p.Period.String(), component.NewPulse(interval, max(p.Period.Std()-interval, 0), interval),
		nil, output(pulse))
	part := x.arithmetic(actual, "mul", constant(p.ScaleInPercentage/100), x.private("SCALE_IN_PART_"+n))
	atLeast := x.list("max", component.Max{}, x.private("SCALE_IN_AT_LEAST_"+n), constant(1), read(part))
	whole := x.unary("ceil", read(atLeast), x.private("SCALE_IN_WHOLE_"+n))
	fewer := x.arithmetic(actual, "sub", read(whole), x.private("SCALE_IN_FEWER_"+n))
	proposed := x.choose(pulse, read(fewer), constant(math.NaN()), x.private("SCALE_IN_PERIODIC_"+n))
	return x.propose(proposed, "SCALE_IN", n, "lt", actual, &c.Alerter)
}

// propose makes a whole number of what a controller proposes: the replicas there are when it has nothing to
// say.
func (x *composite) propose(proposed circuit.Signal, direction, n, operator string, actual circuit.In, alerter *policy.AlerterParameters) circuit.In {
	known := x.list("first_valid", component.FirstValid{}, x.private(direction+"_OR_ACTUAL_"+n), read(proposed), actual)
	whole := read(x.unary("ceil", read(known), x.private(direction+"_PROPOSAL_"+n)))
	x.alert(x.decide(whole, operator, actual, x.private(direction+"_PROPOSED_"+n)), alerter, "auto_scaler")
	return whole
}

// intent adds the largest proposal of a direction, while it goes in that direction.
func (x *composite) intent(direction string, proposals []circuit.In, operator string, actual circuit.In) circuit.Signal {
	most := x.list("max", component.Max{}, x.private(direction+"_MAX"), proposals...)
	return x.onlyIf(most, operator, actual, direction+"_INTENT")
}

// onlyIf lets a signal through while it compares with another number; it is invalid otherwise.
func (x *composite) onlyIf(s circuit.Signal, operator string, than circuit.In, to string) circuit.Signal {
	is := x.decide(read(s), operator, than, x.private(to+"_IS_"+operator))
	return x.choose(is, read(s), constant(math.NaN()), x.private(to))
}

// bounded adds the bounds of one step and of the document.
func (x *composite) bounded(proposal circuit.Signal, actual circuit.In, b *policy.KubernetesReplicas, p *policy.ScalingParameters, to circuit.Signal) {
	lowest, highest := constant(float64(b.MinReplicas)), constant(float64(b.MaxReplicas))
	bound := func(name, operator string, percentage float64) circuit.In {
		part := x.arithmetic(actual, "mul", constant(percentage/100), x.private(name+"_PART"))
		whole := x.unary("floor", read(part), x.private(name+"_WHOLE"))
		step := x.list("max", component.Max{}, x.private(name+"_STEP"), constant(1), read(whole))
		free := x.arithmetic(actual, operator, read(step), x.private(name+"_FREE"))
		atLeast := x.list("max", component.Max{}, x.private(name+"_AT_LEAST"), read(free), lowest)
		return read(x.list("min", component.Min{}, x.private(name), read(atLeast), highest))
	}
	least := bound("MIN_DESIRED", "sub", p.MaxScaleInPercentage)
	most := bound("MAX_DESIRED", "add", p.MaxScaleOutPercentage)
	atLeast := x.list("max", component.Max{}, x.private("DESIRED_AT_LEAST"), read(proposal), least)
	x.list("min", component.Min{}, to, read(atLeast), most)
}
