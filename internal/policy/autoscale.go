// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"math"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// AutoScale is a component that changes how many replicas run.
type AutoScale struct {
	// Sets the replicas of one object of Kubernetes.
	PodScaler *PodScaler `json:"pod_scaler,omitempty" union:"component,required"`
	// Decides on replicas with several controllers and limits.
	AutoScaler *AutoScaler `json:"auto_scaler,omitempty" union:"component"`
}

// KubernetesObjectSelector names an object of Kubernetes that can be scaled.
type KubernetesObjectSelector struct {
	// Group of agents that scales the object.
	AgentGroup string `json:"agent_group" default:"default"`
	// Namespace of the object.
	Namespace string `json:"namespace" check:"required"`
	// API version of the object, such as apps/v1.
	APIVersion string `json:"api_version" check:"required"`
	// Kind of the object, such as Deployment.
	Kind string `json:"kind" check:"required"`
	// Name of the object.
	Name string `json:"name" check:"required"`
}

// PodScaler sets the replicas of an object of Kubernetes to its input.
type PodScaler struct {
	// Replicas to set.
	InPorts PodScalerIns `json:"in_ports,omitzero"`
	// Replicas there are.
	OutPorts ScaleOuts `json:"out_ports,omitzero"`
	// Compute everything and scale nothing.
	DryRun bool `json:"dry_run"`
	// Key of the dynamic configuration that replaces dry_run.
	DryRunConfigKey string `json:"dry_run_config_key,omitempty"`
	// The object to scale.
	KubernetesObjectSelector KubernetesObjectSelector `json:"kubernetes_object_selector" check:"required"`
}

// PodScalerIns are the in ports of a pod scaler.
type PodScalerIns struct {
	// Replicas to set. While invalid the replicas are left alone.
	Replicas *InPort `json:"replicas,omitempty"`
}

var _ strict.Checker = (*PodScalerIns)(nil)

// Check refuses a constant that is no number of replicas.
func (i *PodScalerIns) Check(at strict.Place) {
	checkConstant(at.Field("replicas"), i.Replicas, constantRange{most: math.MaxInt32, nan: "to leave the replicas alone"})
}

// ScaleOuts are the replicas a scaler reports.
type ScaleOuts struct {
	// Replicas that run.
	ActualReplicas *OutPort `json:"actual_replicas,omitempty"`
	// Replicas that are asked for.
	ConfiguredReplicas *OutPort `json:"configured_replicas,omitempty"`
}

// AutoScaler changes the replicas of something that scales, within limits on size and pace. Any
// controller can scale out; in only when none scales out.
type AutoScaler struct {
	// What is scaled.
	ScalingBackend ScalingBackend `json:"scaling_backend" check:"required"`
	// Controllers that add replicas.
	ScaleOutControllers []ScaleOutController `json:"scale_out_controllers,omitempty"`
	// Controllers that remove replicas.
	ScaleInControllers []ScaleInController `json:"scale_in_controllers,omitempty"`
	// Limits on the pace.
	ScalingParameters ScalingParameters `json:"scaling_parameters" check:"required"`
	// Compute everything and scale nothing.
	DryRun bool `json:"dry_run"`
	// Key of the dynamic configuration that replaces dry_run.
	DryRunConfigKey string `json:"dry_run_config_key,omitempty"`
}

// ScalingBackend is what an auto scaler scales.
type ScalingBackend struct {
	// Replicas of an object of Kubernetes.
	KubernetesReplicas *KubernetesReplicas `json:"kubernetes_replicas,omitempty" union:"scaler,required"`
}

// KubernetesReplicas is an object of Kubernetes and the range of its replicas.
type KubernetesReplicas struct {
	// The object to scale.
	KubernetesObjectSelector KubernetesObjectSelector `json:"kubernetes_object_selector" check:"required"`
	// Never fewer replicas than this.
	MinReplicas int64 `json:"min_replicas" default:"0" check:"gte=0"`
	// Never more replicas than this.
	MaxReplicas int64 `json:"max_replicas" default:"9223372036854775807" check:"gt=0"`
	// Numbers the scaler produces.
	OutPorts KubernetesReplicasOuts `json:"out_ports,omitzero"`
}

var _ strict.Checker = (*KubernetesReplicas)(nil)

// Check refuses an empty range.
func (k *KubernetesReplicas) Check(at strict.Place) {
	if k.MinReplicas > k.MaxReplicas && k.MaxReplicas > 0 {
		at.Field("max_replicas").Refuse(fielderr.Error{Want: fmt.Sprintf("at least min_replicas, which is %d", k.MinReplicas)})
	}
}

// KubernetesReplicasOuts are the replicas an auto scaler reports.
type KubernetesReplicasOuts struct {
	ScaleOuts
	// Replicas the scaler aims at.
	DesiredReplicas *OutPort `json:"desired_replicas,omitempty"`
}

// ScaleOutController proposes more replicas.
type ScaleOutController struct {
	// How it decides.
	Controller ScaleOutKind `json:"controller" check:"required"`
	// Alert raised when it proposes to scale.
	Alerter AlerterParameters `json:"alerter" check:"required"`
}

// ScaleOutKind is how a controller decides to add replicas.
type ScaleOutKind struct {
	// In proportion to how far a signal is from its setpoint.
	Gradient *IncreasingGradient `json:"gradient,omitempty" union:"controller,required"`
}

// ScaleInController proposes fewer replicas.
type ScaleInController struct {
	// How it decides.
	Controller ScaleInKind `json:"controller" check:"required"`
	// Alert raised when it proposes to scale.
	Alerter AlerterParameters `json:"alerter" check:"required"`
}

// ScaleInKind is how a controller decides to remove replicas.
type ScaleInKind struct {
	// In proportion to how far a signal is from its setpoint.
	Gradient *DecreasingGradient `json:"gradient,omitempty" union:"controller,required"`
	// A percentage now and then.
	Periodic *PeriodicDecrease `json:"periodic,omitempty" union:"controller"`
}

// GradientIns are a signal and its setpoint.
type GradientIns struct {
	// The measured signal.
	Signal *InPort `json:"signal,omitempty"`
	// The value it should have.
	Setpoint *InPort `json:"setpoint,omitempty"`
}

var _ strict.Checker = (*GradientIns)(nil)

// Check refuses constants that no gradient can be made of.
func (i *GradientIns) Check(at strict.Place) {
	checkConstant(at.Field("signal"), i.Signal, anyFinite)
	checkConstant(at.Field("setpoint"), i.Setpoint, anyFinite)
}

// IncreasingGradient multiplies replicas by (signal / setpoint) to the power of slope, at least by 1.
type IncreasingGradient struct {
	// Signal and setpoint.
	InPorts GradientIns `json:"in_ports,omitzero"`
	// The exponent and its bound.
	Parameters IncreasingGradientParameters `json:"parameters"`
}

// IncreasingGradientParameters are the exponent of a gradient and its bound.
type IncreasingGradientParameters struct {
	// Exponent: 1 when a high signal needs more replicas, -1 when a low one does.
	Slope float64 `json:"slope" default:"1"`
	// Never multiply by more than this.
	MaxGradient float64 `json:"max_gradient" default:"1.7976931348623157e+308" check:"gte=1"`
}

// DecreasingGradient multiplies replicas by (signal / setpoint) to the power of slope, at most by 1.
type DecreasingGradient struct {
	// Signal and setpoint.
	InPorts GradientIns `json:"in_ports,omitzero"`
	// The exponent and its bound.
	Parameters DecreasingGradientParameters `json:"parameters"`
}

// DecreasingGradientParameters are the exponent of a gradient and its bound.
type DecreasingGradientParameters struct {
	// Exponent: 1 when a low signal needs fewer replicas, -1 when a high one does.
	Slope float64 `json:"slope" default:"1"`
	// Never multiply by less than this.
	MinGradient float64 `json:"min_gradient" default:"-1.7976931348623157e+308" check:"lte=1"`
}

// PeriodicDecrease removes a percentage of the replicas now and then.
type PeriodicDecrease struct {
	// Time from one decrease to the next.
	Period Duration `json:"period" check:"required,gt=0s"`
	// Percentage of the replicas to remove, at least one replica.
	ScaleInPercentage float64 `json:"scale_in_percentage" check:"required,gte=0,lte=100"`
}

// ScalingParameters limit the pace of an auto scaler.
type ScalingParameters struct {
	// Add at most this percentage of the replicas at once, at least one replica.
	MaxScaleOutPercentage float64 `json:"max_scale_out_percentage" default:"10" check:"gte=0"`
	// Remove at most this percentage of the replicas at once, at least one replica.
	MaxScaleInPercentage float64 `json:"max_scale_in_percentage" default:"1" check:"gte=0,lte=100"`
	// Time between two steps out.
	ScaleOutCooldown Duration `json:"scale_out_cooldown" default:"30s"`
	// Time between two steps in.
	ScaleInCooldown Duration `json:"scale_in_cooldown" default:"120s"`
	// Step out at once when the proposal exceeds the one before by this percentage.
	CooldownOverridePercentage float64 `json:"cooldown_override_percentage" default:"50" check:"gte=0"`
	// Alert raised when replicas are added.
	ScaleOutAlerter AlerterParameters `json:"scale_out_alerter" check:"required"`
	// Alert raised when replicas are removed.
	ScaleInAlerter AlerterParameters `json:"scale_in_alerter" check:"required"`
}
