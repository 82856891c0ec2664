// SPDX-License-Identifier: Apache-2.0

package app

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sluice-project/sluice/internal/document"
	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/blueprint"
)

// Compiler compiles policy documents and values files of blueprints for the catalog. The zero Compiler
// is ready.
type Compiler struct{}

var _ document.Compiler = Compiler{}

// running is the status of a component that does its work.
const running = "running"

// Compile implements document.Compiler.
func (Compiler) Compile(src document.Source) (*document.Compiled, error) {
	doc, err := blueprint.Parse(policy.Source{File: src.File, Name: src.Name, Blueprint: src.Blueprint, Text: src.Text})
	if err != nil {
		var mistakes fielderr.List
		if errors.As(err, &mistakes) {
			return nil, &document.InvalidError{Problems: problems(mistakes), Cause: err}
		}
		return nil, err
	}
	out := &document.Compiled{
		Name: doc.Name, Hash: doc.Hash, Blueprint: doc.Blueprint, Warnings: problems(doc.Warnings),
	}
	var specs []*flow.LimiterSpec
	for i := range doc.Components {
		c := &doc.Components[i]
		spec, err := flow.FromComponent(doc.Name, doc.Hash, c.ID, c.Component)
		status := statusOf(c, spec, err)
		var signal *flow.SignalError
		switch {
		case errors.As(err, &signal):
			out.Warnings = append(out.Warnings, document.Problem{File: src.File, Path: c.ID, Message: status, Warning: true})
		case err != nil:
			return nil, document.Invalid(document.Problem{File: src.File, Path: c.ID, Message: err.Error()})
		case spec != nil:
			hash, err := contentHash(c.Component)
			if err != nil {
				return nil, err
			}
			specs = append(specs, spec)
			out.Limiters = append(out.Limiters, document.LimiterRef{
				Component: c.ID, Kind: c.Kind, Key: spec.LimitBy, ContentHash: hash,
			})
		}
		out.Components = append(out.Components, document.Component{
			ID: c.ID, Kind: c.Kind, Status: status, ControlPoints: c.ControlPoints,
		})
	}
	out.Value = specs
	return out, nil
}

// statusOf says whether a component works, or why it does not.
func statusOf(c *policy.ComponentInfo, spec *flow.LimiterSpec, err error) string {
	var signal *flow.SignalError
	switch {
	case errors.As(err, &signal):
		return fmt.Sprintf("this %s is not in force and lets every flow pass: %v", c.Kind, signal)
	case spec != nil:
		return running
	}
	return "waiting for the circuit runtime"
}

// contentHash tells components apart by what they do.
func contentHash(c *policy.Component) (string, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("write a component as JSON: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16]), nil
}

func problems(l fielderr.List) []document.Problem {
	out := make([]document.Problem, len(l))
	for i, e := range l {
		out[i] = document.Problem{
			File: e.File, Line: e.Line, Column: e.Column, Path: e.Path, Message: e.Text(),
			Excerpt: e.Excerpt, Warning: e.Severity == fielderr.Warning,
		}
	}
	return out
}

// publisher hands the limiters of all policies to the engine. The catalog calls it for one change at a
// time.
type publisher struct {
	engine *flow.Engine
	// specs of the policies in the last set, so that a policy that did not change gives the engine the
	// same limiters again.
	specs map[*document.Compiled][]*flow.LimiterSpec
}

var _ document.Publisher = (*publisher)(nil)

// Check implements document.Publisher.
func (p *publisher) Check(set []*document.Compiled) error {
	all, _, err := p.collect(set)
	if err != nil {
		return err
	}
	return p.engine.Check(all)
}

// Publish implements document.Publisher.
func (p *publisher) Publish(set []*document.Compiled) error {
	all, specs, err := p.collect(set)
	if err != nil {
		return err
	}
	p.specs = specs
	return p.engine.Publish(all)
}

func (p *publisher) collect(set []*document.Compiled) ([]*flow.LimiterSpec, map[*document.Compiled][]*flow.LimiterSpec, error) {
	var all []*flow.LimiterSpec
	specs := make(map[*document.Compiled][]*flow.LimiterSpec, len(set))
	for _, c := range set {
		mine, ok := p.specs[c]
		if !ok {
			var err error
			if mine, err = identified(c); err != nil {
				return nil, nil, err
			}
		}
		specs[c] = mine
		all = append(all, mine...)
	}
	return all, specs, nil
}

// identified gives the limiters of a policy their accounts.
func identified(c *document.Compiled) ([]*flow.LimiterSpec, error) {
	specs, ok := c.Value.([]*flow.LimiterSpec)
	if !ok {
		return nil, fmt.Errorf("policy %q was not compiled by this release", c.Name)
	}
	ids := make(map[string]ledger.LimiterID, len(c.Limiters))
	for _, l := range c.Limiters {
		ids[l.Component] = ledger.LimiterID(l.UID)
	}
	out := make([]*flow.LimiterSpec, len(specs))
	for i, s := range specs {
		own := *s
		own.ID = ids[s.Component]
		out[i] = &own
	}
	return out, nil
}
