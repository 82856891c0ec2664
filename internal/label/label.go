// SPDX-License-Identifier: Apache-2.0

// Package label holds the labels of a flow and the expressions that match them.
//
// Expressions are compiled in two steps so that a decision costs no map look-up: an Expr names labels
// by key; Bind replaces the keys by slots of a Values array that is filled once per flow and shared by
// all expressions of a control point.
package label

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// Value is the value of one label of a flow. The zero Value is an absent label, which differs from a
// label with an empty value.
type Value struct {
	Text    string
	Present bool
}

// Values are the labels of one flow, by slot. A slot beyond the end reads as absent.
type Values []Value

// Op is the operator of an Expr.
type Op uint8

// The operators. Zero matches every flow, so that an absent matcher is the zero Expr.
const (
	True   Op = iota // every flow
	All              // every expression of Of; true when Of is empty
	Any              // some expression of Of; false when Of is empty
	Not              // the negation of Of[0]
	Exists           // the label Key is present
	In               // the label Key is present and its value is one of Texts
	Match            // the label Key is present and Regex finds a match in its value (unanchored), or the beginning of a long one
	Run              // Program says so
)

// Program is a condition that the other operators cannot say, compiled. Package cel below makes them. It may be
// used by many goroutines, and is the only operator that may allocate.
type Program interface {
	// Keys are the labels it reads, each once. The caller must not change them.
	Keys() []string
	// Match tells whether a flow with these labels matches; slots are the places of Keys in v. What goes wrong
	// in the program, such as reading an absent label, is no match.
	Match(v Values, slots []int) bool
}

// Expr is a boolean expression over the labels of a flow. The zero Expr matches every flow.
type Expr struct {
	Op    Op
	Key   string
	Texts []string
	Regex *regexp.Regexp
	Of    []Expr
	// Program is set for Run only.
	Program Program
}

// Equal matches flows whose label key has the value text.
func Equal(key, text string) Expr { return Expr{Op: In, Key: key, Texts: []string{text}} }

// And combines expressions; none at all matches every flow.
func And(of ...Expr) Expr {
	switch len(of) {
	case 0:
		return Expr{}
	case 1:
		return of[0]
	}
	return Expr{Op: All, Of: of}
}

// Negate turns an expression into its opposite.
func Negate(e Expr) Expr { return Expr{Op: Not, Of: []Expr{e}} }

// Require is a requirement on one label, in the words of policies: In, NotIn, Exists or DoesNotExist. An absent label is
// in no list, so NotIn matches it.
func Require(key, operator string, values []string) (Expr, error) {
	in := Expr{Op: In, Key: key, Texts: values}
	exists := Expr{Op: Exists, Key: key}
	switch operator {
	case "In":
		return in, nil
	case "NotIn":
		return Negate(in), nil
	case "Exists":
		return exists, nil
	case "DoesNotExist":
		return Negate(exists), nil
	}
	return Expr{}, fmt.Errorf("operator %q, want In, NotIn, Exists or DoesNotExist", operator)
}

// Printable makes a value that strangers chose fit for a message: valid UTF-8, no control characters, not too long.
func Printable(s string) string {
	const longest = 80
	if len(s) > longest {
		s = s[:longest] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '·'
		}
		return r
	}, strings.ToValidUTF8(s, "�"))
}

// Walk calls f with every key that the expression reads; a key may come more than once.
func (e Expr) Walk(f func(key string)) {
	if e.Key != "" {
		f(e.Key)
	}
	if e.Program != nil {
		for _, key := range e.Program.Keys() {
			f(key)
		}
	}
	for _, sub := range e.Of {
		sub.Walk(f)
	}
}

// Required returns an equality that every matching flow fulfils, for indexes; ok is false when the
// expression has none.
func (e Expr) Required() (key, text string, ok bool) {
	switch {
	case e.Op == In && len(e.Texts) == 1:
		return e.Key, e.Texts[0], true
	case e.Op == All:
		for _, sub := range e.Of {
			if key, text, ok = sub.Required(); ok {
				return key, text, true
			}
		}
	}
	return "", "", false
}

// Predicate is an Expr whose keys have been replaced by slots. It may be used by many goroutines.
type Predicate struct {
	op    Op
	slot  int
	texts []string
	regex *regexp.Regexp
	most  int // bytes of a value that regex looks at
	of    []Predicate

	program Program
	slots   []int // of the keys of program
}

// Bind compiles the expression; slot maps a key to its place in Values.
func (e Expr) Bind(slot func(key string) int) Predicate {
	p := Predicate{op: e.Op, texts: slices.Clone(e.Texts), regex: e.Regex, program: e.Program}
	if e.Key != "" {
		p.slot = slot(e.Key)
	}
	if e.Regex != nil {
		p.most = mostOf(e.Regex)
	}
	if e.Program != nil {
		for _, key := range e.Program.Keys() {
			p.slots = append(p.slots, slot(key))
		}
	}
	for _, sub := range e.Of {
		p.of = append(p.of, sub.Bind(slot))
	}
	return p
}

// Match tells whether a flow with these labels matches. It does not allocate, apart from programs.
func (p *Predicate) Match(v Values) bool {
	switch p.op {
	case True:
		return true
	case All:
		for i := range p.of {
			if !p.of[i].Match(v) {
				return false
			}
		}
		return true
	case Any:
		for i := range p.of {
			if p.of[i].Match(v) {
				return true
			}
		}
		return false
	case Not:
		return !p.of[0].Match(v)
	case Run:
		return p.program.Match(v, p.slots)
	}
	if p.slot >= len(v) || !v[p.slot].Present {
		return false
	}
	switch p.op {
	case Exists:
		return true
	case In:
		return slices.Contains(p.texts, v[p.slot].Text)
	case Match:
		text := v[p.slot].Text
		return p.regex.MatchString(text[:min(len(text), p.most)])
	}
	return false
}

// The time of a match is at worst the length of the text by the size of the expression's program, and nothing
// interrupts it: of a value that is too long for its expression only the beginning is looked at.
const (
	maxMatchWork = 4_000_000 // 60 ms at worst
	leastMatched = 4096
)

func mostOf(r *regexp.Regexp) int {
	parsed, err := syntax.Parse(r.String(), syntax.Perl)
	if err != nil {
		return leastMatched
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return leastMatched
	}
	return max(leastMatched, maxMatchWork/len(program.Inst))
}
