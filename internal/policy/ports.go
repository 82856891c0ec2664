// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"math"
	"strconv"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// InPort is where a component reads a number: from a signal that another component produces, or a
// constant. An empty mapping is the constant 0. A port that is absent reads as invalid.
type InPort struct {
	// Name of the signal to read. Exactly one component of the circuit has to produce it.
	SignalName string `json:"signal_name,omitempty" union:"value" check:"nonempty"`
	// Number to read, always the same.
	ConstantSignal *ConstantSignal `json:"constant_signal,omitempty" union:"value"`
}

var _ strict.Wanted = (*InPort)(nil)

// Want says what a document should hold.
func (*InPort) Want() string {
	return "a port such as {constant_signal: {value: 10}} or {signal_name: NAME}"
}

// Constant returns the number a port that is not wired to a signal reads. isConst is false for a wired
// port, whose number changes. valid is false when the port reads as invalid: it is absent (nil) or its
// special value is NaN; an actuator then lets everything pass. An infinite constant is valid.
func (p *InPort) Constant() (value float64, valid, isConst bool) {
	switch {
	case p == nil:
		return math.NaN(), false, true
	case p.SignalName != "":
		return math.NaN(), false, false
	case p.ConstantSignal == nil:
		return 0, true, true
	}
	value = p.ConstantSignal.Number()
	return value, !math.IsNaN(value), true
}

// OutPort is where a component writes a number. A port that is absent is not written.
type OutPort struct {
	// Name of the signal to produce. No other component of the circuit may produce it.
	SignalName string `json:"signal_name" check:"required"`
}

var _ strict.Wanted = (*OutPort)(nil)

// Want says what a document should hold.
func (*OutPort) Want() string { return "a port such as {signal_name: NAME}" }

// ConstantSignal is a number that never changes. An empty mapping is 0.
type ConstantSignal struct {
	// A number that YAML has no safe way to write. NaN is an invalid reading.
	SpecialValue string `json:"special_value,omitempty" union:"const" check:"oneof=NaN +Inf -Inf"`
	// The number.
	Value *float64 `json:"value,omitempty" union:"const"`
}

// Number is the constant as a float64, which may be NaN or infinite.
func (c ConstantSignal) Number() float64 {
	switch c.SpecialValue {
	case "NaN":
		return math.NaN()
	case "+Inf":
		return math.Inf(1)
	case "-Inf":
		return math.Inf(-1)
	}
	if c.Value == nil {
		return 0
	}
	return *c.Value
}

// maxTokens is the largest number of tokens or slots a limit can count: 2⁵³, beyond which float64
// arithmetic loses single tokens. It is also written in check tags.
const maxTokens = 1 << 53

// checkAmount refuses a constant that cannot be a number of tokens or slots. NaN is allowed: it makes the
// limiter let everything pass.
func checkAmount(at strict.Place, p *InPort) {
	checkConstant(at, p, constantRange{most: maxTokens, nan: "to let everything pass"})
}

// constantRange is what the constant of a port may be.
type constantRange struct {
	least, most float64
	// nan says what NaN is good for here; "" when it makes no sense.
	nan string
}

// anyFinite is the range of ports that need a number, whichever.
var anyFinite = constantRange{least: -math.MaxFloat64, most: math.MaxFloat64}

// checkConstant refuses a constant that makes no sense at a port. Signals are not checked: components have
// rules for every reading.
func checkConstant(at strict.Place, p *InPort, r constantRange) {
	value, valid, isConst := p.Constant()
	if p == nil || !isConst || !valid && r.nan != "" {
		return
	}
	if p.ConstantSignal != nil {
		at = at.Field("constant_signal")
		if p.ConstantSignal.SpecialValue != "" {
			want := "a finite number"
			if r.nan != "" {
				want += ", or NaN " + r.nan
			}
			at.Field("special_value").Refuse(fielderr.Error{Want: want})
			return
		}
		at = at.Field("value")
	}
	switch {
	case value < r.least:
		at.Refuse(fielderr.Error{Want: fmt.Sprintf("at least %g", r.least)})
	case value > r.most:
		at.Refuse(fielderr.Error{Want: "at most " + strconv.FormatFloat(r.most, 'f', -1, 64)})
	}
}

// OutputPort is the only out port of most components.
type OutputPort struct {
	// The result.
	Output *OutPort `json:"output,omitempty"`
}

// InputPort is the only in port of some components.
type InputPort struct {
	// The number to work on.
	Input *InPort `json:"input,omitempty"`
}

// InputsPort is a list of in ports.
type InputsPort struct {
	// The numbers to work on, in order.
	Inputs []InPort `json:"inputs,omitempty"`
}

// ComparedPorts are the two sides of an operator.
type ComparedPorts struct {
	// Left-hand side.
	LHS *InPort `json:"lhs,omitempty"`
	// Right-hand side.
	RHS *InPort `json:"rhs,omitempty"`
}
