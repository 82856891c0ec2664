// SPDX-License-Identifier: Apache-2.0

package classify

import (
	"cmp"
	"time"
)

// Spec is a classifier as a policy has it. At least one of Rules and Rego is given.
type Spec struct {
	// Rules make one label each, from one part of the request.
	Rules []Rule
	// Rego makes labels with a module; nil: none.
	Rego *Rego
	// CompileRego compiles Rego; the package rego below has one. nil: ErrNotCompiled for classifiers with Rego.
	CompileRego func(Rego) (Ruleset, error)
	// Bounds of one evaluation; zero values are the defaults.
	Bounds Bounds
}

// Rule makes one label.
type Rule struct {
	// Label is the key of the label.
	Label string
	// Telemetry is copied to the label.
	Telemetry bool
	Extractor Extractor
}

// Extractor takes a value from a request; exactly one field is set. An extractor that finds nothing makes no label.
type Extractor struct {
	// From is the path of an attribute, such as request.http.method.
	From string
	// JSON is part of an attribute that is JSON.
	JSON *JSON
	// Address is the path of an address, such as source.address.
	Address string
	// JWT is part of the payload of a JSON Web Token, which is not verified.
	JWT *JSON
	// PathTemplates are values by templates of paths, such as /users/{id}/*; the most specific one wins.
	PathTemplates map[string]string
	// CEL is an expression in the Common Expression Language.
	CEL string
}

// JSON is a part of an attribute that holds JSON.
type JSON struct {
	// From is the path of the attribute.
	From string
	// Pointer is a JSON pointer (RFC 6901); "": all of it.
	Pointer string
}

// Rego is a module and the labels that it makes.
type Rego struct {
	// Labels are the variables of the module that become labels, each once.
	Labels []RegoLabel
	// Module is its text, in the first version of Rego or the older one.
	Module string
	// Bounds of one evaluation.
	Bounds Bounds
}

// RegoLabel is a variable of a module that becomes a label.
type RegoLabel struct {
	Key       string
	Telemetry bool
}

// Bounds keep one evaluation of one classifier within limits. Zero values are the defaults.
type Bounds struct {
	// Timeout ends an evaluation of Rego, and of CEL with loops; default 10 ms.
	Timeout time.Duration
	// MaxBodyBytes is the longest body that is parsed; a longer one counts as truncated. Default 1 MiB.
	MaxBodyBytes int
	// MaxValueBytes is the longest value of a label; longer ones are cut at a character. Default 4096.
	MaxValueBytes int
}

// WithDefaults fills zero values.
func (b Bounds) WithDefaults() Bounds {
	return Bounds{
		Timeout:       cmp.Or(b.Timeout, 10*time.Millisecond),
		MaxBodyBytes:  cmp.Or(b.MaxBodyBytes, 1<<20),
		MaxValueBytes: cmp.Or(b.MaxValueBytes, 4096),
	}
}
