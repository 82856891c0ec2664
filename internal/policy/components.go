// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// GradientController computes control_variable · (signal / setpoint)^slope, within min and max. It is
// invalid while one of the three is, or setpoint is 0.
type GradientController struct {
	// Numbers it reads.
	InPorts GradientControllerIns `json:"in_ports,omitzero"`
	// The result.
	OutPorts OutputPort `json:"out_ports,omitzero"`
	// The exponent and its bounds.
	Parameters GradientParameters `json:"parameters" check:"required"`
	// Repeat the control variable instead.
	ManualMode bool `json:"manual_mode"`
	// Key of the dynamic configuration that replaces manual_mode.
	ManualModeConfigKey string `json:"manual_mode_config_key,omitempty"`
}

// GradientControllerIns are the in ports of a gradient controller.
type GradientControllerIns struct {
	// The measured signal.
	Signal *InPort `json:"signal,omitempty"`
	// The value it should have.
	Setpoint *InPort `json:"setpoint,omitempty"`
	// The result is never more, while valid.
	Max *InPort `json:"max,omitempty"`
	// The result is never less, while valid.
	Min *InPort `json:"min,omitempty"`
	// The number to change.
	ControlVariable *InPort `json:"control_variable,omitempty"`
}

// GradientParameters are the exponent of a gradient and its bounds.
type GradientParameters struct {
	// Exponent: negative when the control variable has to fall while the signal is high.
	Slope float64 `json:"slope" check:"required"`
	// The gradient is never less.
	MinGradient float64 `json:"min_gradient" default:"-1.7976931348623157e+308"`
	// The gradient is never more.
	MaxGradient float64 `json:"max_gradient" default:"1.7976931348623157e+308"`
}

var _ strict.Checker = (*GradientParameters)(nil)

// Check refuses an empty range.
func (p *GradientParameters) Check(at strict.Place) {
	if p.MinGradient > p.MaxGradient {
		at.Field("min_gradient").Refuse(fielderr.Error{Want: "at most max_gradient"})
	}
}

// EMA is the exponential moving average of its input, after a warm-up during which it is the plain average.
type EMA struct {
	// Numbers it reads.
	InPorts EMAIns `json:"in_ports,omitzero"`
	// The average.
	OutPorts OutputPort `json:"out_ports,omitzero"`
	// Windows and corrections.
	Parameters EMAParameters `json:"parameters" check:"required"`
}

// EMAIns are the in ports of an EMA.
type EMAIns struct {
	InputPort
	// Above it the average is corrected, while valid.
	MaxEnvelope *InPort `json:"max_envelope,omitempty"`
	// Below it the average is corrected, while valid.
	MinEnvelope *InPort `json:"min_envelope,omitempty"`
}

// EMAParameters are the windows and corrections of an EMA.
type EMAParameters struct {
	// Length of the average.
	EMAWindow Duration `json:"ema_window" check:"required,gt=0s"`
	// Length of the warm-up, which an invalid input starts again.
	WarmupWindow Duration `json:"warmup_window" check:"required"`
	// Factor on an average below the min envelope.
	CorrectionFactorOnMinEnvelopeViolation float64 `json:"correction_factor_on_min_envelope_violation" default:"1" check:"gte=1"`
	// Factor on an average above the max envelope.
	CorrectionFactorOnMaxEnvelopeViolation float64 `json:"correction_factor_on_max_envelope_violation" default:"1" check:"gte=0,lte=1"`
	// Give the average out during the warm-up.
	ValidDuringWarmup bool `json:"valid_during_warmup" default:"false"`
}

// SMA is the average of its last valid inputs.
type SMA struct {
	// The number to average.
	InPorts InputPort `json:"in_ports,omitzero"`
	// The average.
	OutPorts OutputPort `json:"out_ports,omitzero"`
	// The window.
	Parameters SMAParameters `json:"parameters" check:"required"`
}

// SMAParameters is the window of an SMA.
type SMAParameters struct {
	// Length of the average.
	SMAWindow Duration `json:"sma_window" check:"required,gt=0s"`
	// Give the average out before the window is full.
	ValidDuringWarmup bool `json:"valid_during_warmup" default:"false"`
}

// ArithmeticCombinator combines two numbers. It is invalid while one of them is.
type ArithmeticCombinator struct {
	// The numbers.
	InPorts ComparedPorts `json:"in_ports,omitzero"`
	// The result.
	OutPorts OutputPort `json:"out_ports,omitzero"`
	// What to compute. xor and the shifts work on whole numbers; division by 0 is invalid.
	Operator string `json:"operator" check:"required,oneof=add sub mul div xor lshift rshift"`
}

// Decider compares two numbers and gives 1 or 0. It starts at 0; an invalid number compares as false.
type Decider struct {
	// The numbers.
	InPorts ComparedPorts `json:"in_ports,omitzero"`
	// 1 or 0.
	OutPorts OutputPort `json:"out_ports,omitzero"`
	// How lhs has to compare with rhs.
	Operator string `json:"operator" check:"required,oneof=gt lt gte lte eq neq"`
	// The comparison has to hold this long before the output becomes 1.
	TrueFor Duration `json:"true_for" default:"0s"`
	// The comparison has to fail this long before the output becomes 0.
	FalseFor Duration `json:"false_for" default:"0s"`
}

// Switcher chooses between two numbers.
type Switcher struct {
	// The numbers and the switch.
	InPorts SwitcherIns `json:"in_ports,omitzero"`
	// The chosen number.
	OutPorts OutputPort `json:"out_ports,omitzero"`
}

// SwitcherIns are the in ports of a switcher.
type SwitcherIns struct {
	// Chosen while switch is valid and not 0.
	OnSignal *InPort `json:"on_signal,omitempty"`
	// Chosen otherwise.
	OffSignal *InPort `json:"off_signal,omitempty"`
	// The choice.
	Switch *InPort `json:"switch,omitempty"`
}

// Variable is a number that dynamic configuration can change.
type Variable struct {
	// The number.
	OutPorts OutputPort `json:"out_ports,omitzero"`
	// The number while dynamic configuration has none.
	ConstantOutput ConstantSignal `json:"constant_output" check:"required"`
	// Key of the dynamic configuration that replaces it.
	ConfigKey string `json:"config_key,omitempty"`
}

// BoolVariable is 1 or 0, which dynamic configuration can change.
type BoolVariable struct {
	// 1 or 0.
	OutPorts OutputPort `json:"out_ports,omitzero"`
	// The value while dynamic configuration has none.
	ConstantOutput bool `json:"constant_output"`
	// Key of the dynamic configuration that replaces it.
	ConfigKey string `json:"config_key,omitempty"`
}

// UnaryOperator is a function of one number. It is invalid where the function is not defined.
type UnaryOperator struct {
	// The number.
	InPorts InputPort `json:"in_ports,omitzero"`
	// The result.
	OutPorts OutputPort `json:"out_ports,omitzero"`
	// The function.
	Operator string `json:"operator" check:"required,oneof=abs acos acosh asin asinh atan atanh cbrt ceil cos cosh erf erfc erfcinv erfinv exp exp2 expm1 floor gamma j0 j1 lgamma log log10 log1p log2 round roundtoeven sin sinh sqrt tan tanh trunc y0 y1"`
}

// Extrapolator repeats its last valid input while the input is invalid.
type Extrapolator struct {
	// The number to repeat.
	InPorts InputPort `json:"in_ports,omitzero"`
	// The number.
	OutPorts OutputPort `json:"out_ports,omitzero"`
	// How long.
	Parameters ExtrapolatorParameters `json:"parameters" check:"required"`
}

// ExtrapolatorParameters say how long an extrapolator repeats.
type ExtrapolatorParameters struct {
	// Repeat at most this long after the last valid input.
	MaxExtrapolationInterval Duration `json:"max_extrapolation_interval" check:"required"`
}

// Max is the largest of its inputs, and invalid while one of them is.
type Max struct {
	// The numbers.
	InPorts InputsPort `json:"in_ports,omitzero"`
	// The largest.
	OutPorts OutputPort `json:"out_ports,omitzero"`
}

// Min is the smallest of its inputs, and invalid while one of them is.
type Min struct {
	// The numbers.
	InPorts InputsPort `json:"in_ports,omitzero"`
	// The smallest.
	OutPorts OutputPort `json:"out_ports,omitzero"`
}

// FirstValid is the first of its inputs that is valid.
type FirstValid struct {
	// The numbers.
	InPorts InputsPort `json:"in_ports,omitzero"`
	// The first valid one.
	OutPorts OutputPort `json:"out_ports,omitzero"`
}

// And is 1 when every input is true, 0 when one is false, and else invalid. 0 is false, any other number
// true. Without inputs it is 1.
type And struct {
	// The truth values.
	InPorts InputsPort `json:"in_ports,omitzero"`
	// The result.
	OutPorts OutputPort `json:"out_ports,omitzero"`
}

// Or is 1 when some input is true, 0 when all are false, and else invalid. 0 is false, any other number
// true. Without inputs it is 0.
type Or struct {
	// The truth values.
	InPorts InputsPort `json:"in_ports,omitzero"`
	// The result.
	OutPorts OutputPort `json:"out_ports,omitzero"`
}

// Inverter is 1 when its input is 0, 0 when it is another number, and invalid when it is invalid.
type Inverter struct {
	// The truth value.
	InPorts InputPort `json:"in_ports,omitzero"`
	// Its opposite.
	OutPorts OutputPort `json:"out_ports,omitzero"`
}

// Alerter raises an alert on each tick on which its signal is valid and not 0.
type Alerter struct {
	// The signal.
	InPorts SignalIns `json:"in_ports,omitzero"`
	// The alert.
	Parameters AlerterParameters `json:"parameters" check:"required"`
}

// AlerterParameters describe an alert.
type AlerterParameters struct {
	// What the alert says.
	AlertName string `json:"alert_name" check:"required"`
	// How bad it is.
	Severity string `json:"severity" default:"info" check:"oneof=info warn crit"`
	// The alert is over when it was not raised for this long.
	ResolveTimeout Duration `json:"resolve_timeout" default:"5s"`
	// Channels it is sent to.
	AlertChannels []string `json:"alert_channels,omitempty"`
	// Labels it carries in addition to those of the policy.
	Labels map[string]string `json:"labels,omitempty"`
}

// Integrator sums its input over time.
type Integrator struct {
	// Numbers it reads.
	InPorts IntegratorIns `json:"in_ports,omitzero"`
	// The sum, which is always valid.
	OutPorts OutputPort `json:"out_ports,omitzero"`
	// Where the sum starts.
	InitialValue float64 `json:"initial_value" default:"0"`
	// Time from one addition to the next; absent adds on each tick.
	EvaluationInterval *Duration `json:"evaluation_interval,omitempty" check:"gt=0s"`
}

// IntegratorIns are the in ports of an integrator.
type IntegratorIns struct {
	InputPort
	// Back to 0 while true.
	Reset *InPort `json:"reset,omitempty"`
	// The sum is never more, while valid.
	Max *InPort `json:"max,omitempty"`
	// The sum is never less, while valid.
	Min *InPort `json:"min,omitempty"`
}

// Differentiator is the change of its input per tick over a window.
type Differentiator struct {
	// The number.
	InPorts InputPort `json:"in_ports,omitzero"`
	// Its change per tick.
	OutPorts OutputPort `json:"out_ports,omitzero"`
	// Length of the window.
	Window Duration `json:"window" default:"5s" check:"gt=0s"`
}

// PulseGenerator alternates between 1 and 0, beginning with 1.
type PulseGenerator struct {
	// 1 or 0.
	OutPorts OutputPort `json:"out_ports,omitzero"`
	// Length of a pulse, at least one tick.
	TrueFor Duration `json:"true_for" default:"5s"`
	// Time between pulses, at least one tick.
	FalseFor Duration `json:"false_for" default:"5s"`
}

// Holder gives its first valid input out for a while, then takes the next.
type Holder struct {
	// Numbers it reads.
	InPorts HolderIns `json:"in_ports,omitzero"`
	// The number held.
	OutPorts OutputPort `json:"out_ports,omitzero"`
	// How long.
	HoldFor Duration `json:"hold_for" default:"5s"`
}

// HolderIns are the in ports of a holder.
type HolderIns struct {
	InputPort
	// While true, drop the number held and take the input.
	Reset *InPort `json:"reset,omitempty"`
}

// SignalGenerator runs through a list of numbers, in a straight line from each to the next.
type SignalGenerator struct {
	// Signals that move it.
	InPorts RampIns `json:"in_ports,omitzero"`
	// Numbers it produces.
	OutPorts SignalGeneratorOuts `json:"out_ports,omitzero"`
	// The steps.
	Parameters SignalGeneratorParameters `json:"parameters" check:"required"`
}

// SignalGeneratorOuts are the out ports of a signal generator.
type SignalGeneratorOuts struct {
	OutputPort
	// 1 at the beginning of the first step, else 0.
	AtStart *OutPort `json:"at_start,omitempty"`
	// 1 at the end of the last step, else 0.
	AtEnd *OutPort `json:"at_end,omitempty"`
}

// SignalGeneratorParameters are the steps of a signal generator.
type SignalGeneratorParameters struct {
	// The steps, in order.
	Steps []SignalGeneratorStep `json:"steps" check:"required"`
}

// SignalGeneratorStep is a number and the time it takes to get there from the step before.
type SignalGeneratorStep struct {
	// The number at the end of the step.
	TargetOutput ConstantSignal `json:"target_output"`
	// Length of the step.
	Duration Duration `json:"duration" check:"required"`
}

// PIDController is kp·e + ki·Σe + kd·Δsignal, where e is setpoint − signal.
type PIDController struct {
	// Numbers it reads.
	InPorts PIDControllerIns `json:"in_ports,omitzero"`
	// The result.
	OutPorts OutputPort `json:"out_ports,omitzero"`
	// The factors.
	Parameters PIDParameters `json:"parameters" check:"required"`
}

// PIDControllerIns are the in ports of a PID controller.
type PIDControllerIns struct {
	// The measured signal.
	Signal *InPort `json:"signal,omitempty"`
	// The value it should have.
	Setpoint *InPort `json:"setpoint,omitempty"`
	// The result is never less, while valid.
	Min *InPort `json:"min,omitempty"`
	// The result is never more, while valid.
	Max *InPort `json:"max,omitempty"`
}

// PIDParameters are the factors of a PID controller.
type PIDParameters struct {
	// Proportional factor.
	KP float64 `json:"kp" default:"0" check:"gte=0"`
	// Integral factor.
	KI float64 `json:"ki" default:"0" check:"gte=0"`
	// Derivative factor.
	KD float64 `json:"kd" default:"0" check:"gte=0"`
	// Time from one computation to the next; absent computes on each tick.
	EvaluationInterval *Duration `json:"evaluation_interval,omitempty" check:"gt=0s"`
	// After more invalid inputs than this in a row the sum starts again at 0.
	ResetAfterInvalidSamples int32 `json:"reset_after_invalid_samples" default:"4" check:"gte=1"`
}

// PolynomialRangeFunction maps the range from start to end along a curve:
// start.output + t^degree · (end.output − start.output), where t is how far the input is from start to end.
type PolynomialRangeFunction struct {
	// The number to map.
	InPorts InputPort `json:"in_ports,omitzero"`
	// The result.
	OutPorts OutputPort `json:"out_ports,omitzero"`
	// The curve.
	Parameters PolynomialRangeParameters `json:"parameters" check:"required"`
}

// PolynomialRangeParameters describe the curve and what happens outside the range.
type PolynomialRangeParameters struct {
	// Where the range begins.
	Start RangeDatapoint `json:"start" check:"required"`
	// Where the range ends.
	End RangeDatapoint `json:"end" check:"required"`
	// Degree of the curve; 1 is a straight line.
	Degree float64 `json:"degree"`
	// Outside the range, the output of the nearer end.
	ClampToDatapoint bool `json:"clamp_to_datapoint,omitempty" union:"outside_range"`
	// Outside the range, the outputs given.
	ClampToCustomValues *ClampValues `json:"clamp_to_custom_values,omitempty" union:"outside_range"`
	// Outside the range, the curve goes on.
	ContinueCurve bool `json:"continue_curve,omitempty" union:"outside_range"`
}

var _ strict.Checker = (*PolynomialRangeParameters)(nil)

// Check refuses a range of no width.
func (p *PolynomialRangeParameters) Check(at strict.Place) {
	if at.Present("start") && at.Present("end") && p.Start.Input == p.End.Input {
		at.Field("end").Field("input").Refuse(fielderr.Error{Want: "another value than start has"})
	}
}

// RangeDatapoint is an output at an input.
type RangeDatapoint struct {
	// The input.
	Input float64 `json:"input"`
	// The output there.
	Output float64 `json:"output"`
}

// ClampValues are outputs outside a range.
type ClampValues struct {
	// Output before the range.
	PreStart float64 `json:"pre_start"`
	// Output after the range.
	PostEnd float64 `json:"post_end"`
}
