// SPDX-License-Identifier: Apache-2.0

// Package classify makes labels of requests: those that every HTTP request has, those of its baggage, and those
// that classifiers of policies derive.
//
// Classifiers are compiled once and evaluated for each flow that their selectors select, within bounds on time
// and memory; one that fails makes no labels and the flow goes on. Expressions in Rego are compiled by the
// package rego below this one, so that whoever needs only requests does not build its library.
package classify

import "errors"

// Request is what a door knows about an HTTP request. It must not change while a flow uses it. The zero Request
// is valid and has the label set of a request about which nothing is known.
type Request struct {
	// ID identifies the request; may be empty.
	ID string
	// Method, Path (with the query), Host, Scheme and Protocol ("HTTP/1.1") as they came.
	Method, Path, Host, Scheme, Protocol string
	// Headers by name in lower case; several values are joined with ", ".
	Headers map[string]string
	// Size of the body in bytes; negative: not known. Body may be its beginning only.
	Size int64
	Body string
	// Source and Destination of the connection.
	Source, Destination Address
	// SourceServices and DestinationServices have these addresses, as far as discovery knows.
	SourceServices, DestinationServices []string
	// Metadata is what proxies attach: metadataContext.filterMetadata of Envoy.
	Metadata map[string]any
	// PathLabel adds the label http.path, which requests that come by Envoy have.
	PathLabel bool

	baggage baggage
}

// Address is one end of a connection.
type Address struct {
	// Text is an IP address, or the path of a Unix socket.
	Text string
	// Port is 0 with a path.
	Port uint32
}

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

	parsed parsed // filled when the first classifier needs it, for all of them
}

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
)

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

type (
	baggage struct{}
	parsed  struct{}
)

// Label finds one label of the request, without making all of them.
func (r *Request) Label(string) (value string, ok bool) { return "", false }

// EachLabel calls f with every label of the request; telemetry tells whether it may be shown in analytics.
func (r *Request) EachLabel(func(key, value string, telemetry bool)) {}

// Baggage is the value of the baggage header that carries the labels further: what came, and after it those of
// labels that have Telemetry set. Empty: there is nothing to carry.
func (r *Request) Baggage([]Label) string { return "" }
