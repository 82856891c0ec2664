// SPDX-License-Identifier: Apache-2.0

// Package classify makes labels of requests: those that every HTTP request has, those of its baggage, and those
// that classifiers of policies derive.
//
// Classifiers are compiled once and evaluated for each flow that their selectors select, within bounds on time
// and memory; one that fails makes no labels and the flow goes on. Expressions in Rego are compiled by the
// package rego below this one, so that whoever needs only requests does not build its library.
package classify

import "errors"

// Label is a label that a classifier made.
type Label struct {
	Key, Value string
	// Telemetry tells that it may be shown in analytics and travels on in baggage.
	Telemetry bool
}

// Input is what classifiers see of a flow. They are called on the goroutine that decides the flow.
type Input struct {
	Request *Request
	// Label finds a label as it is before classification.
	Label func(key string) (string, bool)
	// EachLabel calls f with all of them, in no order.
	EachLabel func(f func(key, value string))

	malformed Malformed
	parsed    parsed // filled when the first classifier needs it, for all of them
}

// Malformed are parts of a request that are not what they should be, as a set of bits. Such parts make no labels.
type Malformed uint8

// The parts.
const (
	MalformedJSON     Malformed = 1 << iota // text that a rule reads as JSON
	MalformedJWT                            // a JSON Web Token
	MalformedBody                           // a body that is not what its content-type says
	MalformedArgument                       // what a function of Rego could not read, such as GraphQL
)

// Note remembers that a part of the request is malformed.
func (in *Input) Note(part Malformed) { in.malformed |= part }

// Malformed are the parts that classifiers have found malformed so far.
func (in *Input) Malformed() Malformed { return in.malformed }

// Code says what went wrong in a classifier. The numbers are those of Aperture's ClassifierInfo.Error.
type Code uint8

// The codes.
const (
	CodeNone Code = iota
	CodeEvalFailed
	CodeEmptyResultset
	CodeAmbiguousResultset
	CodeMultiExpression
	CodeExpressionNotMap
	// CodeBounds: it took too long or too much memory. Aperture's clients see it as CodeEvalFailed.
	CodeBounds

	// Codes is how many there are.
	Codes
)

var codeNames = [Codes]string{
	"ok", "eval_failed", "empty_resultset", "ambiguous_resultset", "multi_expression", "expression_not_map", "bounds",
}

// String is the stable code; "unknown" for numbers that are none.
func (c Code) String() string {
	if c >= Codes {
		return "unknown"
	}
	return codeNames[c]
}

// Error is why a classifier made no labels for one flow.
type Error struct {
	Code    Code
	Message string
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Ruleset makes labels. It may be used by many goroutines.
type Ruleset interface {
	// Eval appends the labels it makes. An error is an *Error, and then nothing was appended.
	Eval(in *Input, out []Label) ([]Label, error)
}

// ErrNotCompiled is returned for a language that was not linked in.
var ErrNotCompiled = errors.New("classify: this build has no such language")
