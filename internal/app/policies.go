// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/classify/rego"
	"github.com/sluice-project/sluice/internal/config"
	"github.com/sluice-project/sluice/internal/control"
	"github.com/sluice-project/sluice/internal/document"
	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/blueprint"
	"github.com/sluice-project/sluice/internal/signal"
)

// modules is one for the process, which bounds how many evaluate at the same time.
var modules = sync.OnceValue(func() *rego.Language { return rego.New(rego.Config{}) })

// Compiler compiles policy documents and values files of blueprints for the catalog. The zero Compiler
// is ready.
type Compiler struct {
	// Classifiers bounds one evaluation of a classifier; zero values are the defaults.
	Classifiers classify.Bounds
	// AgentGroup is the group of this server; "": it is in every group. Parts of policies that are for other groups
	// get a warning.
	AgentGroup string
}

var _ document.Compiler = Compiler{}

// Compile implements document.Compiler.
func (k Compiler) Compile(src document.Source) (*document.Compiled, error) {
	doc, err := blueprint.Parse(policy.Source{
		File: src.File, Name: src.Name, Blueprint: src.Blueprint, Text: src.Text,
		CheckQuery: signal.CheckQuery, CheckRego: modules().Check,
	})
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
	var work compiled
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
			ID: c.ID, Kind: c.Kind, Status: control.Running, ControlPoints: c.ControlPoints,
		})
	}
	if work.program, err = control.Compile(doc); err != nil {
		return nil, document.Invalid(document.Problem{File: src.File, Path: "circuit", Message: err.Error()})
	}
	status(out, work.program, src.File)
	if work.meters, err = flow.FromFluxMeters(doc.Name, doc.Policy.Resources.FlowControl.FluxMeters); err != nil {
		return nil, document.Invalid(document.Problem{File: src.File, Path: "resources.flow_control.flux_meters", Message: err.Error()})
	}
	work.classifiers, err = flow.FromClassifiers(doc.Name, doc.Hash, doc.Policy.Resources.FlowControl.Classifiers, flow.ClassifierConfig{
		CompileRego: modules().Compile, Bounds: k.Classifiers,
	})
	if err != nil {
		return nil, document.Invalid(document.Problem{File: src.File, Path: "resources.flow_control.classifiers", Message: err.Error()})
	}
	k.warnOfGroups(out, &work, src.File)
	out.Value = work
	return out, nil
}

// warnOfGroups warns of parts that select nothing here, because they are for other groups of agents.
func (k Compiler) warnOfGroups(out *document.Compiled, work *compiled, file string) {
	if k.AgentGroup == "" {
		return
	}
	warn := func(path string, selectors []flow.Selector) (text string) {
		var others []string
		for _, s := range selectors {
			if s.AgentGroup == "" || s.AgentGroup == k.AgentGroup {
				return ""
			}
			if name := strconv.Quote(s.AgentGroup); !slices.Contains(others, name) {
				others = append(others, name)
			}
		}
		text = fmt.Sprintf("selects no flow on this server, which is in the agent group %q: its selectors are for %s (set agent_group in the selectors)",
			k.AgentGroup, strings.Join(others, ", "))
		out.Warnings = append(out.Warnings, document.Problem{File: file, Path: path, Message: text, Warning: true})
		return text
	}
	for _, l := range work.limiters {
		text := warn(l.Component, l.Selectors)
		for i := range out.Components {
			if c := &out.Components[i]; text != "" && c.ID == l.Component && c.Status == control.Running {
				c.Status = text
			}
		}
	}
	for _, m := range work.meters {
		warn("resources.flow_control.flux_meters."+m.Name, m.Selectors)
	}
	for _, c := range work.classifiers {
		warn(fmt.Sprintf("resources.flow_control.classifiers[%d]", c.Index), c.Selectors)
	}
}

// compiled is what a policy asks of both planes.
type compiled struct {
	limiters    []*flow.LimiterSpec
	meters      []*flow.MeterSpec
	classifiers []*flow.ClassifierSpec
	program     *control.Program
}

// bounds are the settings of classifiers as package classify has them.
func bounds(c config.Classifiers) classify.Bounds {
	return classify.Bounds{Timeout: c.Timeout.Std(), MaxBodyBytes: int(c.MaxBodyBytes)}
}

// status says of every component whether it works, as far as the document tells, and warns of parts that do
// not.
func status(out *document.Compiled, program *control.Program, file string) {
	for _, n := range program.Waiting {
		out.Warnings = append(out.Warnings, document.Problem{File: file, Path: n.Component, Message: n.Text, Warning: true})
		for i := range out.Components {
			if c := &out.Components[i]; n.Component == c.ID || strings.HasPrefix(n.Component, c.ID+".") {
				c.Status = n.Text
			}
		}
	}
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

// publisher hands policies to both planes. The catalog calls it for one change at a time.
type publisher struct {
	engine  *flow.Engine
	runtime *control.Runtime
	log     *slog.Logger
	// work of the policies in the last set, so that a policy that did not change gives the engine the same
	// limiters again.
	work map[*document.Compiled]compiled
}

var _ document.Publisher = (*publisher)(nil)

// Check implements document.Publisher.
func (p *publisher) Check(set []*document.Compiled) error {
	all, _, err := p.collect(set)
	if err != nil {
		return err
	}
	return p.engine.Check(all.set)
}

// Publish implements document.Publisher. The data plane comes first: it ignores setpoints of policies that it
// does not know.
func (p *publisher) Publish(set []*document.Compiled) error {
	all, work, err := p.collect(set)
	if err != nil {
		return err
	}
	if err := p.engine.Publish(all.set); err != nil {
		return err
	}
	p.work = work
	if err := p.runtime.Publish(context.Background(), all.programs); err != nil {
		// Everything else is in force, and the status of the policy says so, too.
		p.log.Error("a part of a policy does not work", "error", err)
	}
	return nil
}

// everything is the sum of all policies.
type everything struct {
	set      flow.Set
	programs []*control.Program
}

func (p *publisher) collect(set []*document.Compiled) (all everything, work map[*document.Compiled]compiled, err error) {
	work = make(map[*document.Compiled]compiled, len(set))
	for _, c := range set {
		mine, ok := p.work[c]
		if !ok {
			if mine, err = identified(c); err != nil {
				return everything{}, nil, err
			}
		}
		work[c] = mine
		all.set.Limiters = append(all.set.Limiters, mine.limiters...)
		all.set.Meters = append(all.set.Meters, mine.meters...)
		all.set.Classifiers = append(all.set.Classifiers, mine.classifiers...)
		all.programs = append(all.programs, mine.program)
	}
	return all, work, nil
}

// identified gives the limiters of a policy their accounts.
func identified(c *document.Compiled) (compiled, error) {
	work, ok := c.Value.(compiled)
	if !ok {
		return compiled{}, fmt.Errorf("policy %q was not compiled by this release", c.Name)
	}
	ids := make(map[string]ledger.LimiterID, len(c.Limiters))
	for _, l := range c.Limiters {
		ids[l.Component] = ledger.LimiterID(l.UID)
	}
	out := compiled{limiters: make([]*flow.LimiterSpec, len(work.limiters)), meters: work.meters, classifiers: work.classifiers, program: work.program}
	for i, s := range work.limiters {
		own := *s
		own.ID = ids[s.Component]
		out.limiters[i] = &own
	}
	return out, nil
}
