// SPDX-License-Identifier: Apache-2.0

package blueprint

import (
	"fmt"
	"strconv"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// LoadRamping are the values of load-ramping/base.
type LoadRamping struct {
	Common
	// The flows and the steps of the ramp.
	LoadRamp LoadRampValues `json:"load_ramp" check:"required"`
	// Measurements that move the ramp. Without any that moves it forward it goes forward by itself.
	Drivers RampDrivers `json:"drivers"`
	// What pods use, as another measurement.
	KubeletMetrics *KubeletRampDriver `json:"kubelet_metrics,omitempty"`
	// Begin at once. The dynamic configuration start replaces it; false holds the ramp where it is.
	Start bool `json:"start" default:"false"`
	// Values of the session label that always pass, such as test users. The dynamic configuration
	// pass_through_label_values replaces them.
	PassThroughLabelValues []string `json:"pass_through_label_values,omitempty"`
}

// LoadRampValues are the flows and the steps of a ramp.
type LoadRampValues struct {
	// Flows to choose from.
	Sampler policy.SamplerParameters `json:"sampler" check:"required"`
	// The steps, in order.
	Steps []RampStepValues `json:"steps" check:"required"`
}

// RampStepValues are a percentage and the time it takes to get there from the step before.
type RampStepValues struct {
	// Length of the step.
	Duration policy.Duration `json:"duration" check:"required"`
	// Percentage of flows to admit at the end of the step.
	TargetAcceptPercentage float64 `json:"target_accept_percentage" check:"required,gte=0,lte=100"`
}

// RampDrivers are measurements that move a ramp. Any of them moves it backward or resets it; it goes
// forward while any says so and none says otherwise.
type RampDrivers struct {
	// Queries.
	PromQLDrivers []PromQLDriver `json:"promql_drivers,omitempty"`
	// Average latencies of the last 30 seconds, of flows that ended well.
	AverageLatencyDrivers []AverageLatencyDriver `json:"average_latency_drivers,omitempty"`
	// Percentiles of the latency of the last 30 seconds, of flows that ended well.
	PercentileLatencyDrivers []PercentileLatencyDriver `json:"percentile_latency_drivers,omitempty"`
}

// PromQLDriver moves a ramp by the result of a query.
type PromQLDriver struct {
	// PromQL expression with one number as its result.
	QueryString string `json:"query_string" check:"required"`
	// When it moves the ramp.
	Criteria ComparedCriteria `json:"criteria" check:"required"`
}

// ComparedCriteria say which results move a ramp.
type ComparedCriteria struct {
	// Go forward.
	Forward *ComparedCriterion `json:"forward,omitempty"`
	// Go backward.
	Backward *ComparedCriterion `json:"backward,omitempty"`
	// Go back to the first step.
	Reset *ComparedCriterion `json:"reset,omitempty"`
}

var _ strict.Checker = (*ComparedCriteria)(nil)

// Check refuses a driver that never moves anything.
func (c *ComparedCriteria) Check(at strict.Place) {
	checkCriteria(at, c.Forward != nil || c.Backward != nil || c.Reset != nil)
}

func checkCriteria(at strict.Place, some bool) {
	if !some && at.Clean() {
		at.Refuse(fielderr.Error{Got: "none", Want: "one or more of forward, backward and reset"})
	}
}

// ComparedCriterion compares a result with a number.
type ComparedCriterion struct {
	// What the result is compared with.
	Threshold float64 `json:"threshold" check:"required"`
	// How the result has to compare with the threshold.
	Operator string `json:"operator" check:"required,oneof=gt lt gte lte eq neq"`
}

// ThresholdCriteria say which measurements move a ramp.
type ThresholdCriteria struct {
	// Go forward below this.
	Forward *ThresholdCriterion `json:"forward,omitempty"`
	// Go backward above this.
	Backward *ThresholdCriterion `json:"backward,omitempty"`
	// Go back to the first step above this.
	Reset *ThresholdCriterion `json:"reset,omitempty"`
}

var _ strict.Checker = (*ThresholdCriteria)(nil)

// Check refuses a driver that never moves anything.
func (c *ThresholdCriteria) Check(at strict.Place) {
	checkCriteria(at, c.Forward != nil || c.Backward != nil || c.Reset != nil)
}

func (c ThresholdCriteria) compared() ComparedCriteria {
	with := func(t *ThresholdCriterion, operator string) *ComparedCriterion {
		if t == nil {
			return nil
		}
		return &ComparedCriterion{t.Threshold, operator}
	}
	return ComparedCriteria{Forward: with(c.Forward, "lt"), Backward: with(c.Backward, "gt"), Reset: with(c.Reset, "gt")}
}

// ThresholdCriterion is a number to compare with.
type ThresholdCriterion struct {
	// The number, in milliseconds for latencies, in cores for CPU, in bytes for memory.
	Threshold float64 `json:"threshold" check:"required"`
}

// AverageLatencyDriver moves a ramp by the average latency of flows.
type AverageLatencyDriver struct {
	// Flows to measure.
	Selectors []policy.Selector `json:"selectors" check:"required"`
	// When it moves the ramp, in milliseconds.
	Criteria ThresholdCriteria `json:"criteria" check:"required"`
}

// PercentileLatencyDriver moves a ramp by a percentile of the latency of flows.
type PercentileLatencyDriver struct {
	// Flows to measure. The buckets should be fine around the thresholds.
	FluxMeter policy.FluxMeter `json:"flux_meter" check:"required"`
	// The percentile: 95 is the latency that 95% of the flows keep. 0.95 means the same.
	Percentile float64 `json:"percentile" default:"95" check:"gt=0,lt=100"`
	// When it moves the ramp, in milliseconds.
	Criteria ThresholdCriteria `json:"criteria" check:"required"`
}

// quantile is the percentile as PromQL has it, 0..1.
func (d PercentileLatencyDriver) quantile() string {
	q := d.Percentile
	if q >= 1 {
		q /= 100
	}
	return strconv.FormatFloat(q, 'g', 12, 64)
}

// KubeletRampDriver moves a ramp by what pods use.
type KubeletRampDriver struct {
	// The pods.
	InfraContext KubernetesObject `json:"infra_context" check:"required"`
	// What moves the ramp.
	Criteria KubeletRampCriteria `json:"criteria"`
}

// KubeletRampCriteria are limits on what pods use.
type KubeletRampCriteria struct {
	// Average use of CPU, in cores.
	PodCPU *ThresholdCriteria `json:"pod_cpu,omitempty"`
	// Average use of memory, in bytes.
	PodMemory *ThresholdCriteria `json:"pod_memory,omitempty"`
}

// intents are the signals that want to move a ramp.
type intents struct{ forward, backward, reset []string }

// drive adds the deciders of one driver.
func (c *circuit) drive(in *intents, values fielderr.Path, signal string, criteria ComparedCriteria) {
	for _, direction := range []struct {
		criterion *ComparedCriterion
		name      string
		field     string
		to        *[]string
	}{
		{criteria.Forward, "FORWARD", "forward", &in.forward},
		{criteria.Backward, "BACKWARD", "backward", &in.backward},
		{criteria.Reset, "RESET", "reset", &in.reset},
	} {
		if direction.criterion == nil {
			continue
		}
		result := signal + "_" + direction.name
		c.decide(values.Field("criteria").Field(direction.field), signal, direction.criterion.Operator, direction.criterion.Threshold, result)
		*direction.to = append(*direction.to, result)
	}
}

// drivers adds every driver.
func (v *LoadRamping) drivers(c *circuit) *intents {
	in, drivers := &intents{}, fielderr.Path("drivers")
	for i, d := range v.Drivers.AverageLatencyDrivers {
		name, signal, at := fmt.Sprintf("%s/average_latency/%d", c.name, i), fmt.Sprintf("AVERAGE_LATENCY_%d", i), drivers.Field("average_latency_drivers").Index(i)
		meter := strict.Default[policy.FluxMeter]()
		meter.Selectors = d.Selectors
		c.fluxMeters[name] = meter
		c.query(at, averageLatency(flowsOK(name, c.name), quietWindow), c.tick, signal)
		c.drive(in, at, signal, d.Criteria.compared())
	}
	for i, d := range v.Drivers.PercentileLatencyDrivers {
		name, signal, at := fmt.Sprintf("%s/percentile_latency/%d", c.name, i), fmt.Sprintf("PERCENTILE_LATENCY_%d", i), drivers.Field("percentile_latency_drivers").Index(i)
		c.fluxMeters[name] = d.FluxMeter
		c.query(at, fmt.Sprintf("histogram_quantile(%s, sum(rate(flux_meter_bucket{%s}[%s])) by (le))", d.quantile(), flowsOK(name, c.name), promDuration(quietWindow)), c.tick, signal)
		c.drive(in, at, signal, d.Criteria.compared())
	}
	for i, d := range v.Drivers.PromQLDrivers {
		signal, at := fmt.Sprintf("PROMQL_%d", i), drivers.Field("promql_drivers").Index(i)
		c.query(at, d.QueryString, c.tick, signal)
		c.drive(in, at, signal, d.Criteria)
	}
	if k := v.KubeletMetrics; k != nil {
		c.kubelet(k.InfraContext)
		for _, m := range []struct {
			criteria            *ThresholdCriteria
			field, signal, name string
		}{{k.Criteria.PodCPU, "pod_cpu", "POD_CPU", podCPU}, {k.Criteria.PodMemory, "pod_memory", "POD_MEMORY", podMemory}} {
			if m.criteria != nil {
				at := fielderr.Path("kubelet_metrics")
				c.query(at, k.InfraContext.average(m.name, c.name), c.tick, m.signal)
				c.drive(in, at, m.signal, m.criteria.compared())
			}
		}
	}
	return in
}

func (v *LoadRamping) build(c *circuit) {
	const (
		start, reset                = "USER_START_CONTROL", "USER_RESET_CONTROL"
		forward, backward, rewind   = "FORWARD", "BACKWARD", "RESET"
		forwardIntent, backIntent   = "FORWARD_INTENT", "BACKWARD_INTENT"
		notBackward, notReset, ramp = "NOT_BACKWARD", "NOT_RESET", "load_ramp"
	)
	parameters := policy.LoadRampParameters{Sampler: v.LoadRamp.Sampler}
	for _, s := range v.LoadRamp.Steps {
		parameters.Steps = append(parameters.Steps, policy.LoadRampStep{TargetAcceptPercentage: s.TargetAcceptPercentage, Duration: s.Duration})
	}
	parameters.Sampler.RampMode = true
	c.actuator(ramp, "flow_control.load_ramp.parameters", policy.Component{FlowControl: &policy.FlowControl{LoadRamp: &policy.LoadRamp{
		InPorts:                         policy.RampIns{Forward: from(forward), Backward: from(backward), Reset: from(rewind)},
		OutPorts:                        policy.LoadRampOuts{AcceptPercentage: out(acceptPercentage), AtStart: out("AT_START"), AtEnd: out("AT_END")},
		Parameters:                      parameters,
		PassThroughLabelValues:          v.PassThroughLabelValues,
		PassThroughLabelValuesConfigKey: "pass_through_label_values",
	}}})
	c.add("start", policy.Component{BoolVariable: &policy.BoolVariable{OutPorts: to(start), ConstantOutput: v.Start, ConfigKey: "start"}})
	c.add("start", policy.Component{BoolVariable: &policy.BoolVariable{OutPorts: to(reset), ConfigKey: "reset"}})
	in := v.drivers(c)
	c.or("drivers", in.backward, backIntent)
	c.or("drivers", append(in.reset, reset), rewind)
	c.not("drivers", backIntent, notBackward)
	c.not("drivers", rewind, notReset)
	conditions := []string{notBackward, notReset, start}
	if len(in.forward) > 0 {
		c.or("drivers", in.forward, forwardIntent)
		conditions = append(conditions, forwardIntent)
	}
	c.and("drivers", conditions, forward)
	c.and("drivers", []string{backIntent, notReset}, backward)
}
