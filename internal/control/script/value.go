// SPDX-License-Identifier: Apache-2.0

package script

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// ticks is a tick or a range of ticks.
type ticks struct {
	first, last  int
	line, column int
}

var _ strict.Scalar = (*ticks)(nil)

// Want says what a document should hold.
func (*ticks) Want() string { return "a tick such as 5, or a range such as 5..9" }

// DecodeScalar implements strict.Scalar.
func (t *ticks) DecodeScalar(n *strict.Node) *fielderr.Error {
	problem := &fielderr.Error{Want: t.Want()}
	t.line, t.column = n.Line, n.Column
	if n.Kind != strict.Number && n.Kind != strict.Text {
		return problem
	}
	from, to, isRange := strings.Cut(n.Text, "..")
	if !isRange {
		to = from
	}
	first, err1 := strconv.Atoi(strings.TrimSpace(from))
	last, err2 := strconv.Atoi(strings.TrimSpace(to))
	switch {
	case err1 != nil || err2 != nil || first < 0:
		return problem
	case last < first:
		problem.Want = "a range whose end is not before its beginning"
		return problem
	case last >= maxTicks:
		problem.Want = fmt.Sprintf("a tick below %d", maxTicks)
		return problem
	}
	t.first, t.last = first, last
	return nil
}

func (t ticks) String() string {
	if t.first == t.last {
		return strconv.Itoa(t.first)
	}
	return fmt.Sprintf("%d..%d", t.first, t.last)
}

// level is what a signal is set to: one number for each tick, of which the last one stays.
type level struct {
	values []float64
	auto   bool // what the circuit computes
}

var _ strict.Scalar = (*level)(nil)

// Want says what a document should hold.
func (*level) Want() string {
	return "a number, invalid, inf, -inf, auto, a list of these for one tick each, or {ramp: {from: 0, to: 10, over: 5}}"
}

// DecodeScalar implements strict.Scalar.
func (l *level) DecodeScalar(n *strict.Node) *fielderr.Error {
	problem := &fielderr.Error{Want: l.Want()}
	switch n.Kind {
	case strict.List:
		for _, item := range n.Items {
			v, ok := reading(item)
			if !ok {
				problem.Want = "a list of numbers, invalid, inf and -inf"
				return problem
			}
			l.values = append(l.values, v)
		}
		if len(l.values) == 0 || len(l.values) > maxTicks {
			problem.Want = fmt.Sprintf("1 to %d numbers", maxTicks)
			return problem
		}
		return nil
	case strict.Map:
		return l.ramp(n)
	case strict.Text:
		if n.Text == "auto" {
			l.auto = true
			return nil
		}
	}
	v, ok := reading(n)
	if !ok {
		return problem
	}
	l.values = []float64{v}
	return nil
}

// ramp reads {ramp: {from, to, over}}: from at the first tick, to over ticks later.
func (l *level) ramp(n *strict.Node) *fielderr.Error {
	const want = "{ramp: {from: 0, to: 10, over: 5}}, where over is a number of ticks"
	ramp := n.Get("ramp")
	if len(n.Members) != 1 || ramp == nil || ramp.Kind != strict.Map || len(ramp.Members) != 3 {
		return &fielderr.Error{Want: want}
	}
	from, ok1 := finite(ramp.Get("from"))
	to, ok2 := finite(ramp.Get("to"))
	over, ok3 := finite(ramp.Get("over"))
	if !ok1 || !ok2 || !ok3 || over != math.Trunc(over) || over < 1 || over >= maxTicks {
		return &fielderr.Error{Want: want}
	}
	for i := range int(over) + 1 {
		part := float64(i) / over
		l.values = append(l.values, from*(1-part)+to*part)
	}
	l.values[int(over)] = to
	return nil
}

func finite(n *strict.Node) (float64, bool) {
	if n == nil {
		return 0, false
	}
	v, ok := reading(n)
	return v, ok && !math.IsNaN(v) && !math.IsInf(v, 0)
}

// at is what the signal is, i ticks after it was set.
func (l *level) at(i int) float64 { return l.values[min(i, len(l.values)-1)] }

// reading reads a number, a truth value, or the word for what is none.
func reading(n *strict.Node) (float64, bool) {
	switch n.Kind {
	case strict.Number:
		return n.Float()
	case strict.Bool:
		if n.Text == "true" {
			return 1, true
		}
		return 0, true
	case strict.Text:
		return word(n.Text)
	}
	return 0, false
}

// word reads a number or a word in a text.
func word(s string) (float64, bool) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "invalid", "nan":
		return math.NaN(), true
	case "inf", "+inf":
		return math.Inf(1), true
	case "-inf":
		return math.Inf(-1), true
	case "true":
		return 1, true
	case "false":
		return 0, true
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	return v, err == nil && !math.IsNaN(v) && !math.IsInf(v, 0)
}

// expectation is what a number has to be.
type expectation struct {
	text         string // as it was written, for people
	line, column int
	// invalid and valid look at nothing else.
	invalid, valid bool
	// low and high bound the number; openLow and openHigh exclude the bound itself.
	low, high         float64
	openLow, openHigh bool
}

var _ strict.Scalar = (*expectation)(nil)

// Want says what a document should hold.
func (*expectation) Want() string {
	return `a number, invalid, valid, inf, "0.8 ~ 0.01", ~0.8 (within 1 %), 1..2, or a bound such as "above 1" or "at most 3"`
}

// DecodeScalar implements strict.Scalar.
func (e *expectation) DecodeScalar(n *strict.Node) *fielderr.Error {
	e.text, e.line, e.column = n.Text, n.Line, n.Column
	if n.Kind == strict.Number || n.Kind == strict.Bool {
		if v, ok := reading(n); ok {
			e.exactly(v)
			return nil
		}
	}
	if n.Kind != strict.Text || !e.parse(strings.TrimSpace(n.Text)) {
		return &fielderr.Error{Want: e.Want()}
	}
	return nil
}

// sameness is how far an exact number may be off, relatively: sums of decimal fractions are not exact.
const sameness = 1e-9

func (e *expectation) exactly(v float64) {
	if math.IsNaN(v) {
		e.invalid = true
		return
	}
	e.within(v, sameness*max(1, math.Abs(v)))
}

func (e *expectation) within(v, tolerance float64) {
	e.low, e.high = v-tolerance, v+tolerance
	if math.IsInf(v, 0) {
		e.low, e.high = v, v
	}
}

// bounds are the words that begin a bound, longest first where one begins another.
var bounds = []struct {
	words     []string
	low, open bool
}{
	{[]string{">=", "at least "}, true, false},
	{[]string{"<=", "at most "}, false, false},
	{[]string{">", "above "}, true, true},
	{[]string{"<", "below "}, false, true},
}

func (e *expectation) parse(s string) bool {
	if s == "valid" {
		e.valid = true
		return true
	}
	for _, b := range bounds {
		for _, w := range b.words {
			if text, ok := strings.CutPrefix(s, w); ok {
				return e.bound(text, b.low, b.open)
			}
		}
	}
	if from, to, ok := strings.Cut(s, ".."); ok {
		low, ok1 := word(from)
		high, ok2 := word(to)
		e.low, e.high = low, high
		return ok1 && ok2 && low <= high
	}
	if number, tolerance, ok := strings.Cut(s, "~"); ok {
		t, okT := word(tolerance)
		if strings.TrimSpace(number) == "" { // ~0.8
			e.within(t, math.Abs(t)/100)
			return okT && !math.IsNaN(t)
		}
		v, okV := word(number)
		e.within(v, t)
		return okT && okV && t >= 0 && !math.IsNaN(v)
	}
	v, ok := word(s)
	e.exactly(v)
	return ok
}

func (e *expectation) bound(text string, low, open bool) bool {
	v, ok := word(text)
	e.low, e.high = math.Inf(-1), math.Inf(1)
	if low {
		e.low, e.openLow = v, open
	} else {
		e.high, e.openHigh = v, open
	}
	return ok && !math.IsNaN(v)
}

// holds reports whether a reading is as expected.
func (e *expectation) holds(v float64) bool {
	switch {
	case e.invalid:
		return math.IsNaN(v)
	case e.valid:
		return !math.IsNaN(v)
	case math.IsNaN(v):
		return false
	}
	return (v > e.low || v == e.low && !e.openLow) && (v < e.high || v == e.high && !e.openHigh)
}

// number prints a reading.
func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "invalid"
	case math.IsInf(v, 1):
		return "inf"
	case math.IsInf(v, -1):
		return "-inf"
	}
	return strconv.FormatFloat(v, 'g', 7, 64)
}
