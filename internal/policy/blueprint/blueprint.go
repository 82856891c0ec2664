// SPDX-License-Identifier: Apache-2.0

// Package blueprint turns a few values into a whole policy: its limiter, wired to an alert that is raised
// when the limiter denies most flows.
//
// A blueprint is a struct of values (the language of its values file, read by package strict like the
// policy language) and a function from values to components. Parse is the one entry for everything people
// apply: policies, and the values of blueprints.
package blueprint

import (
	_ "embed"
	"fmt"
	"reflect"
	"slices"

	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/strict"
	"github.com/sluice-project/sluice/schemas"
)

// Blueprint is a kind of policy that is written as a few values. All() lists those there are; there is no
// other way to get one. Its methods may be called concurrently.
type Blueprint struct {
	// Name is how a values file names it, such as rate-limiting/base.
	Name string
	// Title is its name for people.
	Title string
	// Description is Markdown: what it does and when to use it.
	Description string
	// Example is a complete values file.
	Example string
	// ValuesFile is the type of its values file, for the generators of schemas and reference.
	ValuesFile reflect.Type

	decode func(*strict.Document) parts
}

// parts is what a blueprint makes of its values.
type parts struct {
	common  *Common
	kind    string // the field that holds the limiter's values, and the limiter's kind in a circuit
	limiter policy.FlowControl
	alerter policy.AlerterParameters
}

// values is implemented by the structs of values.
type values interface {
	parts() parts
}

// All lists the blueprints, by name.
func All() []*Blueprint { return slices.Clone(all) }

var all = []*Blueprint{
	define[ConcurrencyLimiting](Blueprint{
		Name:        "concurrency-limiting/base",
		Title:       "Concurrency limiting",
		Description: concurrencyLimitingDescription,
		Example:     concurrencyLimitingExample,
	}),
	define[ConcurrencyScheduling](Blueprint{
		Name:        "concurrency-scheduling/base",
		Title:       "Concurrency scheduling",
		Description: concurrencySchedulingDescription,
		Example:     concurrencySchedulingExample,
	}),
	define[QuotaScheduling](Blueprint{
		Name:        "quota-scheduling/base",
		Title:       "Quota scheduling",
		Description: quotaSchedulingDescription,
		Example:     quotaSchedulingExample,
	}),
	define[RateLimiting](Blueprint{
		Name:        "rate-limiting/base",
		Title:       "Rate limiting",
		Description: rateLimitingDescription,
		Example:     rateLimitingExample,
	}),
}

var (
	//go:embed examples/concurrency-limiting.yaml
	concurrencyLimitingExample string
	//go:embed examples/concurrency-scheduling.yaml
	concurrencySchedulingExample string
	//go:embed examples/quota-scheduling.yaml
	quotaSchedulingExample string
	//go:embed examples/rate-limiting.yaml
	rateLimitingExample string
)

// valuesFile is a values file of the blueprint with the values V.
type valuesFile[V values] struct {
	// Name of the blueprint.
	Blueprint string `json:"blueprint,omitempty"`
	// Where the blueprint comes from; ignored, the blueprints are part of the program.
	URI string `json:"uri,omitempty"`
	// The values.
	Policy V `json:"policy" check:"required"`
}

func define[V values](b Blueprint) *Blueprint {
	b.ValuesFile = reflect.TypeFor[valuesFile[V]]()
	b.decode = func(doc *strict.Document) parts {
		var f valuesFile[V]
		doc.Decode("", doc.Root, &f)
		return f.Policy.parts()
	}
	return &b
}

// Find returns the blueprint of that name.
func Find(name string) (*Blueprint, bool) {
	i := slices.IndexFunc(all, func(b *Blueprint) bool { return b.Name == name })
	if i < 0 {
		return nil, false
	}
	return all[i], true
}

// Names lists the names of the blueprints, sorted.
func Names() []string {
	names := make([]string, len(all))
	for i, b := range all {
		names[i] = b.Name
	}
	return names
}

// Values returns a values file with every default and a comment on every key. Keys that have to be filled
// in say __REQUIRED_FIELD__, which the parser refuses.
func (b *Blueprint) Values() ([]byte, error) {
	text, err := schemas.Values(b.Name)
	if err != nil {
		return nil, fmt.Errorf("values of blueprint %s: %w", b.Name, err)
	}
	return text, nil
}

// Schema returns the JSON Schema of the values file.
func (b *Blueprint) Schema() ([]byte, error) {
	text, err := schemas.Blueprint(b.Name)
	if err != nil {
		return nil, fmt.Errorf("schema of blueprint %s: %w", b.Name, err)
	}
	return text, nil
}
