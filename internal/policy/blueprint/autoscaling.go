// SPDX-License-Identifier: Apache-2.0

package blueprint

import (
	"fmt"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// PodAutoScaling are the values of auto-scaling/pod-auto-scaler.
type PodAutoScaling struct {
	Common
	// What is scaled.
	ScalingBackend PodScalingBackend `json:"scaling_backend" check:"required"`
	// Compute everything and scale nothing. The dynamic configuration dry_run replaces it.
	DryRun bool `json:"dry_run" default:"false"`
	// Queries that ask for more replicas.
	PromQLScaleOutControllers []PromQLScaleOut `json:"promql_scale_out_controllers,omitempty"`
	// Queries that allow fewer replicas.
	PromQLScaleInControllers []PromQLScaleIn `json:"promql_scale_in_controllers,omitempty"`
	// Limits on the pace.
	ScalingParameters PodScalingParameters `json:"scaling_parameters"`
	// Scaling by the average use of CPU by the pods, in cores.
	PodCPU PodScaling `json:"pod_cpu"`
	// Scaling by the average use of memory by the pods, in bytes.
	PodMemory PodScaling `json:"pod_memory"`
}

// PodScalingBackend is what is scaled.
type PodScalingBackend struct {
	// The object of Kubernetes and the range of its replicas.
	KubernetesReplicas policy.KubernetesReplicas `json:"kubernetes_replicas" check:"required"`
}

// PromQLScaleOut asks for more replicas while the result of a query is above its setpoint.
type PromQLScaleOut struct {
	// PromQL expression with one number as its result.
	QueryString string `json:"query_string" check:"required"`
	// The value the result should have.
	Setpoint float64 `json:"setpoint" check:"required"`
	// How strongly to scale.
	Gradient policy.IncreasingGradientParameters `json:"gradient"`
	// Alert raised while it asks for more replicas.
	Alerter policy.AlerterParameters `json:"alerter" default:"{alert_name: PromQL based scale out intended}"`
}

// PromQLScaleIn allows fewer replicas while the result of a query is below its setpoint.
type PromQLScaleIn struct {
	// PromQL expression with one number as its result.
	QueryString string `json:"query_string" check:"required"`
	// The value the result should have.
	Setpoint float64 `json:"setpoint" check:"required"`
	// How strongly to scale.
	Gradient policy.DecreasingGradientParameters `json:"gradient"`
	// Alert raised while it allows fewer replicas.
	Alerter policy.AlerterParameters `json:"alerter" default:"{alert_name: PromQL based scale in intended}"`
}

// PodScalingParameters limit the pace of scaling.
type PodScalingParameters struct {
	// Add at most this percentage of the replicas at once, at least one replica.
	MaxScaleOutPercentage float64 `json:"max_scale_out_percentage" default:"10" check:"gte=0"`
	// Remove at most this percentage of the replicas at once, at least one replica.
	MaxScaleInPercentage float64 `json:"max_scale_in_percentage" default:"1" check:"gte=0,lte=100"`
	// Time between two steps out.
	ScaleOutCooldown policy.Duration `json:"scale_out_cooldown" default:"30s"`
	// Time between two steps in.
	ScaleInCooldown policy.Duration `json:"scale_in_cooldown" default:"120s"`
	// Step out at once when the proposal exceeds the one before by this percentage.
	CooldownOverridePercentage float64 `json:"cooldown_override_percentage" default:"50" check:"gte=0"`
	// Alert raised when replicas are added.
	ScaleOutAlerter policy.AlerterParameters `json:"scale_out_alerter" default:"{alert_name: Auto-scaler is scaling out}"`
	// Alert raised when replicas are removed.
	ScaleInAlerter policy.AlerterParameters `json:"scale_in_alerter" default:"{alert_name: Auto-scaler is scaling in}"`
}

// PodScaling scales by what pods use.
type PodScaling struct {
	// Use above which replicas are added.
	ScaleOut PodScalingCriterion `json:"scale_out"`
	// Use below which replicas are removed.
	ScaleIn PodScalingCriterion `json:"scale_in"`
}

// PodScalingCriterion is one limit.
type PodScalingCriterion struct {
	// Look at this at all.
	Enabled bool `json:"enabled" default:"false"`
	// The limit.
	Threshold *float64 `json:"threshold,omitempty" check:"gt=0"`
}

var _ strict.Checker = (*PodScalingCriterion)(nil)

// Check refuses a criterion without threshold, and warns of a threshold without effect.
func (p *PodScalingCriterion) Check(at strict.Place) { checkEnabled(at, p.Enabled, p.Threshold) }

func (v *PodAutoScaling) build(c *circuit) {
	scaler := &policy.AutoScaler{
		ScalingBackend: policy.ScalingBackend{KubernetesReplicas: &v.ScalingBackend.KubernetesReplicas},
		ScalingParameters: policy.ScalingParameters{
			MaxScaleOutPercentage:      v.ScalingParameters.MaxScaleOutPercentage,
			MaxScaleInPercentage:       v.ScalingParameters.MaxScaleInPercentage,
			ScaleOutCooldown:           v.ScalingParameters.ScaleOutCooldown,
			ScaleInCooldown:            v.ScalingParameters.ScaleInCooldown,
			CooldownOverridePercentage: v.ScalingParameters.CooldownOverridePercentage,
			ScaleOutAlerter:            v.ScalingParameters.ScaleOutAlerter,
			ScaleInAlerter:             v.ScalingParameters.ScaleInAlerter,
		},
		DryRun: v.DryRun, DryRunConfigKey: dryRunKey,
	}
	c.actuator("scaling_backend", "auto_scale.auto_scaler.scaling_backend", policy.Component{AutoScale: &policy.AutoScale{AutoScaler: scaler}})
	for i, p := range v.PromQLScaleOutControllers {
		signal := fmt.Sprintf("PROMQL_SCALE_OUT_%d", i)
		c.query(fielderr.Path("promql_scale_out_controllers").Index(i), p.QueryString, c.tick, signal)
		scaler.ScaleOutControllers = append(scaler.ScaleOutControllers, scaleOut(signal, p.Setpoint, p.Gradient, p.Alerter))
	}
	for i, p := range v.PromQLScaleInControllers {
		signal := fmt.Sprintf("PROMQL_SCALE_IN_%d", i)
		c.query(fielderr.Path("promql_scale_in_controllers").Index(i), p.QueryString, c.tick, signal)
		scaler.ScaleInControllers = append(scaler.ScaleInControllers, scaleIn(signal, p.Setpoint, p.Gradient, p.Alerter))
	}
	v.scaleByPods(c, scaler)
}

// scaleByPods adds the controllers that look at what pods use.
func (v *PodAutoScaling) scaleByPods(c *circuit, scaler *policy.AutoScaler) {
	replicas := v.ScalingBackend.KubernetesReplicas.KubernetesObjectSelector
	object := KubernetesObject{AgentGroup: replicas.AgentGroup, APIVersion: replicas.APIVersion, Kind: replicas.Kind, Name: replicas.Name, Namespace: replicas.Namespace}
	for _, use := range []struct {
		scaling                     PodScaling
		field, signal, metric, name string
	}{
		{v.PodCPU, "pod_cpu", "POD_CPU", podCPU, "Pod CPU"},
		{v.PodMemory, "pod_memory", "POD_MEMORY", podMemory, "Pod memory"},
	} {
		outAt, inAt := use.scaling.ScaleOut, use.scaling.ScaleIn
		scalesOut, scalesIn := outAt.Enabled && outAt.Threshold != nil, inAt.Enabled && inAt.Threshold != nil
		if !scalesOut && !scalesIn {
			continue
		}
		c.kubelet(object)
		c.query(fielderr.Path(use.field), object.average(use.metric, c.name), c.tick, use.signal)
		alerter := strict.Default[policy.AlerterParameters]()
		if scalesOut {
			alerter.AlertName = use.name + " based scale out intended"
			scaler.ScaleOutControllers = append(scaler.ScaleOutControllers,
				scaleOut(use.signal, *outAt.Threshold, strict.Default[policy.IncreasingGradientParameters](), alerter))
		}
		if scalesIn {
			alerter.AlertName = use.name + " based scale in intended"
			// Slope 1, the default: half the use needs half the replicas. Aperture had -1 and never scaled in.
			scaler.ScaleInControllers = append(scaler.ScaleInControllers,
				scaleIn(use.signal, *inAt.Threshold, strict.Default[policy.DecreasingGradientParameters](), alerter))
		}
	}
}

func scaleOut(signal string, setpoint float64, gradient policy.IncreasingGradientParameters, alerter policy.AlerterParameters) policy.ScaleOutController {
	return policy.ScaleOutController{Alerter: alerter, Controller: policy.ScaleOutKind{Gradient: &policy.IncreasingGradient{
		InPorts: policy.GradientIns{Signal: from(signal), Setpoint: constant(setpoint)}, Parameters: gradient,
	}}}
}

func scaleIn(signal string, setpoint float64, gradient policy.DecreasingGradientParameters, alerter policy.AlerterParameters) policy.ScaleInController {
	return policy.ScaleInController{Alerter: alerter, Controller: policy.ScaleInKind{Gradient: &policy.DecreasingGradient{
		InPorts: policy.GradientIns{Signal: from(signal), Setpoint: constant(setpoint)}, Parameters: gradient,
	}}}
}
