// SPDX-License-Identifier: Apache-2.0

package blueprint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// Parse reads what people apply: a policy, plain or as a Kubernetes object, or the values of a blueprint.
// Values say so with a key blueprint, with the comment "# yaml-language-server: $schema=…" of that
// blueprint's schema, or through src.Blueprint. The error is a fielderr.List with every mistake, at its
// place in the text of src. Parse keeps nothing of src and may be called concurrently.
func Parse(src policy.Source) (*policy.Document, error) {
	doc, err := strict.Parse(src.File, src.Text)
	if err != nil {
		return nil, err
	}
	if !isValues(doc, src) {
		return policy.ParseNode(doc, src)
	}
	b, ok := choose(doc, src)
	if !ok {
		refused, _ := doc.Problems()
		return nil, refused
	}
	return b.finish(doc, src)
}

// Rendered is a policy made by a blueprint.
type Rendered struct {
	Document *policy.Document
	// YAML is the policy with all defaults written out. Parsing it gives the same name and hash.
	YAML []byte
}

// Render makes a policy of a values file of this blueprint, whether or not the file names the blueprint.
// Errors are those of Parse.
func (b *Blueprint) Render(src policy.Source) (*Rendered, error) {
	if src.Blueprint == "" {
		src.Blueprint = b.Name
	}
	document, err := Parse(src)
	if err != nil {
		return nil, err
	}
	text, err := PolicyYAML(document)
	if err != nil {
		return nil, err
	}
	return &Rendered{Document: document, YAML: text}, nil
}

// PolicyYAML writes a document as a plain policy, all defaults written out.
func PolicyYAML(d *policy.Document) ([]byte, error) {
	name, err := json.Marshal(d.Name)
	if err != nil {
		return nil, fmt.Errorf("write the name of policy %q: %w", d.Name, err)
	}
	named := fmt.Appendf(nil, `{"policy_name":%s,%s`, name, bytes.TrimPrefix(d.Canonical, []byte("{")))
	text, err := yaml.JSONToYAML(named)
	if err == nil {
		again, err := policy.Parse(policy.Source{Text: text})
		if err == nil && again.Name == d.Name && bytes.Equal(again.Canonical, d.Canonical) {
			return text, nil
		}
	}
	// The YAML library forgets to quote some text, such as ".nan" or a tab. JSON is YAML, too.
	var indented bytes.Buffer
	if err := json.Indent(&indented, named, "", "  "); err != nil {
		return nil, fmt.Errorf("write policy %q: %w", d.Name, err)
	}
	return indented.Bytes(), nil
}

func isValues(doc *strict.Document, src policy.Source) bool {
	if src.Blueprint != "" || doc.Root.Get("blueprint") != nil {
		return true
	}
	return doc.Root.Get("policy") != nil && doc.Root.Get("circuit") == nil
}

// choose finds the blueprint of a values file and reports when there is none.
func choose(doc *strict.Document, src policy.Source) (*Blueprint, bool) {
	asked, node := src.Blueprint, doc.Root.Get("blueprint")
	name, line, column := asked, 1, 1
	if node != nil {
		if node.Kind != strict.Text {
			doc.Report("blueprint", fielderr.Error{Line: node.Line, Column: node.Column, Got: node.Describe(), Want: "the name of a blueprint"})
			return nil, false
		}
		if asked != "" && !sameBlueprint(asked, node.Text) {
			doc.Report("blueprint", fielderr.Error{
				Line: node.Line, Column: node.Column, Got: node.Describe(),
				Want: fmt.Sprintf("%q, the blueprint asked for", asked),
			})
			return nil, false
		}
		name, line, column = node.Text, node.Line, node.Column
	}
	if name == "" {
		name, line = schemaComment(src.Text)
	}
	if b, ok := Find(name); ok {
		if current, older := currentName(name); older != "" {
			warnOlderName(doc, older, current, line, column)
		}
		return b, true
	}
	problem := fielderr.Error{Message: fmt.Sprintf("unknown blueprint %q", name), Hint: fielderr.OneOf(name, Names()), Line: line, Column: column}
	path := fielderr.Path("")
	if node != nil || name == "" {
		path = "blueprint"
	}
	if name == "" {
		problem.Message = "these are values of a blueprint, but the document does not say of which"
		problem.Hint = "add a line such as \"blueprint: load-scheduling/adaptive\"; sluice blueprint list names them all"
	}
	doc.Report(path, problem)
	return nil, false
}

func sameBlueprint(a, b string) bool {
	a, _ = currentName(a)
	b, _ = currentName(b)
	return a == b
}

// schemaComments are the comments that make editors check a values file: Aperture's and ours.
var schemaComments = []*regexp.Regexp{
	regexp.MustCompile(`(?m)^#\s*yaml-language-server:\s*\$schema=\S*?([a-z0-9-]+/[a-z0-9-]+)/gen/definitions\.json\s*$`),
	regexp.MustCompile(`(?m)^#\s*yaml-language-server:\s*\$schema=\S*?([a-z0-9-]+\.[a-z0-9-]+)\.schema\.json\s*$`),
}

// schemaComment returns the blueprint whose schema a comment names, or "", and its line.
func schemaComment(text []byte) (name string, line int) {
	for _, pattern := range schemaComments {
		if m := pattern.FindSubmatchIndex(text); m != nil {
			return strings.ReplaceAll(string(text[m[2]:m[3]]), ".", "/"), 1 + bytes.Count(text[:m[2]], []byte("\n"))
		}
	}
	return "", 1
}

// finish makes the policy of a values file: what the blueprint makes of them, then the components of the
// values.
func (b *Blueprint) finish(doc *strict.Document, src policy.Source) (*policy.Document, error) {
	modernise(doc, b.changes)
	common, build := b.decode(doc)
	c := newCircuit(common)
	build(c)
	return policy.Finish(doc, src, policy.Draft{
		Policy: &policy.Policy{
			Circuit: policy.Circuit{
				EvaluationInterval: c.tick,
				Components:         append(c.components(), common.Components...),
			},
			Resources: c.resources(doc, common.Resources),
		},
		Name:      common.PolicyName,
		NamePath:  "policy.policy_name",
		MustName:  true,
		Blueprint: b.Name,
		Generated: len(c.parts),
		Locate:    c.locate,
	})
}

// resources are those of the values and those the blueprint needs. Two of one name are refused.
func (c *circuit) resources(doc *strict.Document, r policy.Resources) policy.Resources {
	at := fielderr.Path("policy").Field("resources")
	meters := c.infraMeters
	for i, collector := range r.TelemetryCollectors {
		for _, name := range slices.Sorted(maps.Keys(collector.InfraMeters)) {
			meter := collector.InfraMeters[name]
			meter.AgentGroup = collector.AgentGroup
			addNamed(doc, meters, at.Field("telemetry_collectors").Index(i).Field("infra_meters").Field(name), name, meter)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.InfraMeters)) {
		addNamed(doc, meters, at.Field("infra_meters").Field(name), name, r.InfraMeters[name])
	}
	for _, name := range slices.Sorted(maps.Keys(r.FlowControl.FluxMeters)) {
		addNamed(doc, c.fluxMeters, at.Field("flow_control").Field("flux_meters").Field(name), name, r.FlowControl.FluxMeters[name])
	}
	merged := policy.Resources{FlowControl: policy.FlowControlResources{Classifiers: r.FlowControl.Classifiers}}
	if len(meters) > 0 {
		merged.InfraMeters = meters
	}
	if len(c.fluxMeters) > 0 {
		merged.FlowControl.FluxMeters = c.fluxMeters
	}
	return merged
}

func addNamed[T any](doc *strict.Document, all map[string]T, at fielderr.Path, name string, one T) {
	if _, taken := all[name]; taken {
		doc.Report(at, fielderr.Error{Message: fmt.Sprintf("the name %q is taken, by the blueprint or by another one here", name), Hint: "choose another name"})
		return
	}
	all[name] = one
}
