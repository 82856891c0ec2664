// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"github.com/invopop/jsonschema"

	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/blueprint"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// Patterns of text that the parser reads as something else.
const (
	numberPattern   = `^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$`
	durationPattern = `^\+?(0|(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$`
)

// schemas builds the schema of one document. Structs become definitions, named like the Go types.
type schemas struct {
	docs comments
	defs jsonschema.Definitions
	// own is the package whose structs become definitions; those of others are in the policy schema. ""
	// is every package.
	own string
}

func policySchema(docs comments) *jsonschema.Schema {
	s := schemas{docs, jsonschema.Definitions{}, ""}
	plain, object := s.object(plainType, nil), s.object(objectType, nil)
	plain.Title, object.Title = "policy", "policy as a Kubernetes object"
	root := s.root("policy.schema.json", "Policy document")
	// A choice by the key that tells the forms apart: "oneOf" would show the mistakes of both forms.
	root.If, root.Then, root.Else = &jsonschema.Schema{Required: []string{"apiVersion"}}, object, plain
	return root
}

func blueprintSchema(docs comments, b *blueprint.Blueprint) *jsonschema.Schema {
	s := schemas{docs, jsonschema.Definitions{}, ownPackage}
	root := s.root("blueprints/"+dotted(b.Name)+".schema.json", "Values of "+b.Name)
	body := s.object(b.ValuesFile, nil)
	name, _ := body.Properties.Get("blueprint")
	name.Const = b.Name
	root.Type, root.Properties, root.Required = body.Type, body.Properties, body.Required
	root.AdditionalProperties = body.AdditionalProperties
	return root
}

func (s schemas) root(path, title string) *jsonschema.Schema {
	return &jsonschema.Schema{Version: jsonschema.Version, ID: jsonschema.ID(schemaURL + path), Title: title, Definitions: s.defs}
}

// object is the schema of a struct. defaulted are the keys that a default supplies, which nobody has to
// write.
func (s schemas) object(t reflect.Type, defaulted []string) *jsonschema.Schema {
	o := &jsonschema.Schema{
		Type: "object", Properties: jsonschema.NewProperties(), AdditionalProperties: jsonschema.FalseSchema,
		Description: s.docs.ofType(t),
	}
	fields := strict.Fields(t)
	for _, f := range fields {
		o.Properties.Set(f.Name, s.field(f))
		if f.Required && !slices.Contains(defaulted, f.Name) {
			o.Required = append(o.Required, f.Name)
		}
	}
	unions(o, fields)
	if t == plainType || t == reflect.TypeFor[policy.Policy]() {
		o.AnyOf = []*jsonschema.Schema{{Required: []string{"circuit"}}, {Required: []string{"resources"}}}
	}
	return o
}

// unions says how many alternatives there may be: by counting properties when the struct has no others,
// which gives the better messages in editors.
func unions(o *jsonschema.Schema, fields []strict.Field) {
	groups := map[string][]strict.Field{}
	var order []string
	for _, f := range fields {
		if f.Union != "" {
			if groups[f.Union] == nil {
				order = append(order, f.Union)
			}
			groups[f.Union] = append(groups[f.Union], f)
		}
	}
	one := uint64(1)
	for _, name := range order {
		group := groups[name]
		if len(group) == len(fields) {
			o.MaxProperties = &one
			if group[0].UnionMust {
				o.MinProperties = &one
			}
			continue
		}
		for i, f := range group {
			for _, other := range group[i+1:] {
				o.AllOf = append(o.AllOf, &jsonschema.Schema{Not: &jsonschema.Schema{Required: []string{f.Name, other.Name}}})
			}
		}
	}
}

// field is the schema of one key, with its rules and comment.
func (s schemas) field(f strict.Field) *jsonschema.Schema {
	schema := s.ofType(f.Go.Type, f)
	schema.Description = s.docs.ofField(f.Owner, f.Go.Name)
	schema.Deprecated = f.Deprecated != ""
	if f.Default != nil {
		schema.Default = f.Default.Value()
	}
	return schema
}

// ofType is the schema of a value of type t under the rules of f.
func (s schemas) ofType(t reflect.Type, f strict.Field) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[policy.Duration]():
		return &jsonschema.Schema{Type: "string", Pattern: durationPattern}
	case reflect.TypeFor[policy.StatusCode]():
		return statusSchema()
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.ofType(t.Elem(), f)
	case reflect.Struct:
		return s.structure(t, f)
	case reflect.Slice:
		list := &jsonschema.Schema{Type: "array", Items: s.ofType(t.Elem(), strict.Field{})}
		if f.Required || has(f, "nonempty") {
			list.MinItems = new(uint64(1))
		}
		return list
	case reflect.Map:
		m := &jsonschema.Schema{Type: "object", AdditionalProperties: s.ofType(t.Elem(), strict.Field{})}
		if f.Required {
			m.MinProperties = new(uint64(1))
		}
		return m
	case reflect.String:
		return textSchema(f)
	case reflect.Bool:
		return &jsonschema.Schema{Type: "boolean"}
	case reflect.Float64:
		return numberSchema("number", f)
	case reflect.Int32, reflect.Int64, reflect.Uint32:
		return numberSchema("integer", f)
	}
	return jsonschema.TrueSchema
}

// structure refers to the definition of a struct; a struct whose default supplies required keys is
// written out instead.
func (s schemas) structure(t reflect.Type, f strict.Field) *jsonschema.Schema {
	if f.Default != nil && f.Default.Kind == strict.Map {
		var supplied []string
		for _, m := range f.Default.Members {
			supplied = append(supplied, m.Key)
		}
		return s.object(t, supplied)
	}
	if s.own != "" && t.PkgPath() != s.own {
		return &jsonschema.Schema{Ref: "../policy.schema.json#/$defs/" + t.Name()}
	}
	if _, done := s.defs[t.Name()]; !done {
		s.defs[t.Name()] = &jsonschema.Schema{} // types may contain themselves
		s.defs[t.Name()] = s.object(t, nil)
	}
	return &jsonschema.Schema{Ref: "#/$defs/" + t.Name()}
}

func has(f strict.Field, rule string) bool {
	_, ok := f.Rule(rule)
	return ok
}

func textSchema(f strict.Field) *jsonschema.Schema {
	text := &jsonschema.Schema{Type: "string"}
	if words, ok := f.Rule("oneof"); ok {
		for word := range strings.FieldsSeq(words) {
			text.Enum = append(text.Enum, word)
		}
		return text
	}
	switch {
	case has(f, "name"):
		text.Pattern = strict.NamePattern()
		text.MaxLength = new(uint64(253))
	case has(f, "regexp"):
		text.Format = "regex"
	}
	if f.Required || has(f, "nonempty") {
		text.MinLength = new(uint64(1))
	}
	return text
}

// numberSchema allows a number within the bounds of the rules, or the same quoted.
func numberSchema(kind string, f strict.Field) *jsonschema.Schema {
	number := &jsonschema.Schema{Type: kind}
	for _, r := range f.Rules {
		switch bound := json.Number(r.Arg); r.Name {
		case "gt":
			number.ExclusiveMinimum = bound
		case "gte":
			number.Minimum = bound
		case "lt":
			number.ExclusiveMaximum = bound
		case "lte":
			number.Maximum = bound
		}
	}
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{number, {Type: "string", Pattern: numberPattern}}}
}

func statusSchema() *jsonschema.Schema {
	names := &jsonschema.Schema{Type: "string"}
	for _, name := range policy.StatusNames() {
		names.Enum = append(names.Enum, name)
	}
	number := &jsonschema.Schema{Type: "integer", Minimum: "200", Maximum: "511"}
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{names, number, {Type: "string", Pattern: "^[2-5][0-9][0-9]$"}}}
}
