// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	policyv1 "github.com/sluice-project/sluice/api/gen/sluice/policy/v1"
	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/blueprint"
)

// ListBlueprints implements PolicyServiceServer.
func (s *PolicyService) ListBlueprints(context.Context, *policyv1.ListBlueprintsRequest) (*policyv1.ListBlueprintsResponse, error) {
	out := &policyv1.ListBlueprintsResponse{}
	for _, b := range blueprint.All() {
		out.Blueprints = append(out.Blueprints, &policyv1.Blueprint{Name: b.Name, Title: b.Title})
	}
	return out, nil
}

// GetBlueprint implements PolicyServiceServer.
func (s *PolicyService) GetBlueprint(_ context.Context, in *policyv1.GetBlueprintRequest) (*policyv1.GetBlueprintResponse, error) {
	b, ok := blueprint.Find(in.Name)
	if !ok {
		return nil, status.Error(codes.NotFound, UnknownBlueprint(in.Name))
	}
	out, err := ToAPIBlueprint(b)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &policyv1.GetBlueprintResponse{Blueprint: out}, nil
}

// UnknownBlueprint says that there is no such blueprint, and which there are.
func UnknownBlueprint(name string) string {
	text := fmt.Sprintf("no blueprint is called %q; there are: %s", name, strings.Join(blueprint.Names(), ", "))
	if hint := fielderr.DidYouMean(name, blueprint.Names()); hint != "" {
		text += "; " + hint
	}
	return text
}

// RenderBlueprint implements PolicyServiceServer.
func (s *PolicyService) RenderBlueprint(_ context.Context, in *policyv1.RenderBlueprintRequest) (*policyv1.RenderBlueprintResponse, error) {
	doc, err := blueprint.Parse(policy.Source{File: in.File, Blueprint: in.Blueprint, Text: []byte(in.Values)})
	var mistakes fielderr.List
	if errors.As(err, &mistakes) {
		return nil, refused(mistakes.Error(), toAPIMistakes(mistakes))
	}
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	text, err := blueprint.PolicyYAML(doc)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &policyv1.RenderBlueprintResponse{Name: doc.Name, Policy: string(text)}, nil
}

func toAPIMistakes(l fielderr.List) []*policyv1.Diagnostic {
	out := make([]*policyv1.Diagnostic, len(l))
	for i, e := range l {
		severity := "error"
		if e.Severity == fielderr.Warning {
			severity = "warning"
		}
		out[i] = &policyv1.Diagnostic{
			File: validText(e.File), Line: int32(e.Line), Column: int32(e.Column), Path: validText(e.Path),
			Message: validText(e.Text()), Excerpt: validText(e.Excerpt), Severity: severity,
		}
	}
	return out
}

// ToAPIBlueprint describes a blueprint whole.
func ToAPIBlueprint(b *blueprint.Blueprint) (*policyv1.Blueprint, error) {
	values, err := b.Values()
	if err != nil {
		return nil, err
	}
	schema, err := b.Schema()
	if err != nil {
		return nil, err
	}
	parameters, err := parametersOf(schema)
	if err != nil {
		return nil, fmt.Errorf("read the schema of blueprint %s: %w", b.Name, err)
	}
	return &policyv1.Blueprint{
		Name: b.Name, Title: b.Title, Description: b.Description,
		Values: string(values), Schema: string(schema), Parameters: parameters,
	}, nil
}

// schemaNode is the part of JSON Schema that our schemas use.
type schemaNode struct {
	Ref         string                 `json:"$ref"`
	Defs        map[string]*schemaNode `json:"$defs"`
	Type        string                 `json:"type"`
	Pattern     string                 `json:"pattern"`
	Description string                 `json:"description"`
	Default     json.RawMessage        `json:"default"`
	Deprecated  bool                   `json:"deprecated"`
	Required    []string               `json:"required"`
	Properties  orderedProperties      `json:"properties"`
	Items       *schemaNode            `json:"items"`
	AnyOf       []*schemaNode          `json:"anyOf"`
}

// orderedProperties keeps the order of the schema, which is that of the values file.
type orderedProperties []namedNode

type namedNode struct {
	name string
	node *schemaNode
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *orderedProperties) UnmarshalJSON(text []byte) error {
	dec := json.NewDecoder(strings.NewReader(string(text)))
	if _, err := dec.Token(); err != nil {
		return err
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return err
		}
		n := namedNode{name: fmt.Sprint(name), node: &schemaNode{}}
		if err := dec.Decode(n.node); err != nil {
			return err
		}
		*p = append(*p, n)
	}
	return nil
}

// general are values that every blueprint takes and that have a reference of their own.
var general = []string{"policy.components", "policy.resources"}

// parametersOf lists the values of a blueprint, in the order of its values file.
func parametersOf(schema []byte) ([]*policyv1.BlueprintParameter, error) {
	var root schemaNode
	if err := json.Unmarshal(schema, &root); err != nil {
		return nil, err
	}
	w := schemaWalk{defs: root.Defs}
	for _, p := range root.Properties {
		if p.name == "policy" {
			w.visit("policy", p.node, true, nil)
		}
	}
	return w.out, nil
}

type schemaWalk struct {
	defs map[string]*schemaNode
	out  []*policyv1.BlueprintParameter
}

// visit lists the leaves below a node. open are the definitions being visited: expressions hold
// expressions, and are listed once.
func (w *schemaWalk) visit(path string, n *schemaNode, required bool, open []string) {
	described := n
	if n.Ref != "" {
		if slices.Contains(open, n.Ref) {
			return
		}
		open = append(open[:len(open):len(open)], n.Ref)
		if n = w.defs[strings.TrimPrefix(n.Ref, "#/$defs/")]; n == nil {
			return
		}
	}
	if n.Deprecated || described.Deprecated {
		return
	}
	switch {
	case slices.Contains(general, path):
	case len(n.Properties) > 0:
		for _, p := range n.Properties {
			w.visit(path+"."+p.name, p.node, required && slices.Contains(n.Required, p.name), open)
		}
		return
	case n.Items != nil && n.Items.Ref != "":
		w.visit(path+"[]", n.Items, required, open)
		return
	}
	w.out = append(w.out, &policyv1.BlueprintParameter{
		Path: path, Type: typeOf(n), Required: required,
		DefaultValue: string(described.Default), Description: described.Description,
	})
}

func typeOf(n *schemaNode) string {
	switch {
	case strings.Contains(n.Pattern, "ns|us"):
		return "duration"
	case n.Type == "" && len(n.AnyOf) > 0:
		return n.AnyOf[0].Type
	case n.Type == "array" && n.Items != nil && n.Items.Type != "":
		return "array of " + n.Items.Type
	}
	return n.Type
}
