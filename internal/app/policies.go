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
	var work dataPlane
	for i := range doc.Components {
		c := &doc.Components[i]
		spec, err := flow.FromComponent(doc.Name, doc.Hash, c.ID, c.Component)
		if err != nil {
			return nil, document.Invalid(document.Problem{File: src.File, Path: c.ID, Message: err.Error()})
		}
		if spec != nil {
			hash, err := contentHash(c.Component)
			if err != nil {
				return nil, err
			}
			work.limiters = append(work.limiters, spec)
			out.Limiters = append(out.Limiters, document.LimiterRef{
				Component: c.ID, Kind: c.Kind, Key: spec.LimitBy, ContentHash: hash,
			})
		}
		out.Components = append(out.Components, document.Component{
			ID: c.ID, Kind: c.Kind, Status: running, ControlPoints: c.ControlPoints,
		})
	}
	if work.meters, err = flow.FromFluxMeters(doc.Name, doc.Policy.Resources.FlowControl.FluxMeters); err != nil {
		return nil, document.Invalid(document.Problem{File: src.File, Path: "resources.flow_control.flux_meters", Message: err.Error()})
	}
	out.Value = work
	return out, nil
}

// dataPlane is the part of a compiled policy that acts on flows.
type dataPlane struct {
	limiters []*flow.LimiterSpec
	meters   []*flow.MeterSpec
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

// publisher hands the limiters and flux meters of all policies to the engine. The catalog calls it for one
// change at a time.
type publisher struct {
	engine *flow.Engine
	// work of the policies in the last set, so that a policy that did not change gives the engine the same
	// limiters again.
	work map[*document.Compiled]dataPlane
}

var _ document.Publisher = (*publisher)(nil)

// Check implements document.Publisher.
func (p *publisher) Check(set []*document.Compiled) error {
	all, _, err := p.collect(set)
	if err != nil {
		return err
	}
	return p.engine.Check(all.limiters, all.meters)
}

// Publish implements document.Publisher.
func (p *publisher) Publish(set []*document.Compiled) error {
	all, work, err := p.collect(set)
	if err != nil {
		return err
	}
	p.work = work
	return p.engine.Publish(all.limiters, all.meters)
}

func (p *publisher) collect(set []*document.Compiled) (all dataPlane, work map[*document.Compiled]dataPlane, err error) {
	work = make(map[*document.Compiled]dataPlane, len(set))
	for _, c := range set {
		mine, ok := p.work[c]
		if !ok {
			if mine, err = identified(c); err != nil {
				return dataPlane{}, nil, err
			}
		}
		work[c] = mine
		all.limiters = append(all.limiters, mine.limiters...)
		all.meters = append(all.meters, mine.meters...)
	}
	return all, work, nil
}

// identified gives the limiters of a policy their accounts.
func identified(c *document.Compiled) (dataPlane, error) {
	work, ok := c.Value.(dataPlane)
	if !ok {
		return dataPlane{}, fmt.Errorf("policy %q was not compiled by this release", c.Name)
	}
	ids := make(map[string]ledger.LimiterID, len(c.Limiters))
	for _, l := range c.Limiters {
		ids[l.Component] = ledger.LimiterID(l.UID)
	}
	out := dataPlane{limiters: make([]*flow.LimiterSpec, len(work.limiters)), meters: work.meters}
	for i, s := range work.limiters {
		own := *s
		own.ID = ids[s.Component]
		out.limiters[i] = &own
	}
	return out, nil
}
