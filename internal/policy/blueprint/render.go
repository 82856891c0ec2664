// SPDX-License-Identifier: Apache-2.0

package blueprint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// Signals that the blueprints produce. Components in the values may read them.
const (
	acceptPercentage      = "ACCEPT_PERCENTAGE"
	acceptPercentageAlert = "ACCEPT_PERCENTAGE_ALERT"
)

// alertAtMost is the percentage of admitted flows at or below which the alert is raised: more than 90% of
// them are denied. Aperture compared the wrong way round and alerted while all was well.
const alertAtMost = 10

// generated is how many components a blueprint makes before those of the values.
const generated = 3

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
	name, path := src.Blueprint, fielderr.Path("")
	if node := doc.Root.Get("blueprint"); node != nil {
		path = "blueprint"
		if node.Kind != strict.Text {
			doc.Report(path, fielderr.Error{Line: node.Line, Column: node.Column, Got: node.Describe(), Want: "the name of a blueprint"})
			return nil, false
		}
		if name != "" && name != node.Text {
			doc.Report(path, fielderr.Error{
				Line: node.Line, Column: node.Column, Got: node.Describe(),
				Want: fmt.Sprintf("%q, the blueprint asked for", name),
			})
			return nil, false
		}
		name = node.Text
	}
	if name == "" {
		name = schemaComment(src.Text)
	}
	if b, ok := Find(name); ok {
		return b, true
	}
	problem := fielderr.Error{Message: fmt.Sprintf("unknown blueprint %q", name), Hint: fielderr.OneOf(name, Names())}
	if node := doc.Root.Get("blueprint"); node != nil {
		problem.Line, problem.Column = node.Line, node.Column
	}
	if name == "" {
		problem.Message, path = "these are values of a blueprint, but the document does not say of which", "blueprint"
	}
	doc.Report(path, problem)
	return nil, false
}

// schemaComments are the comments that make editors check a values file: Aperture's and ours.
var schemaComments = []*regexp.Regexp{
	regexp.MustCompile(`(?m)^#\s*yaml-language-server:\s*\$schema=\S*?([a-z0-9-]+/[a-z0-9-]+)/gen/definitions\.json\s*$`),
	regexp.MustCompile(`(?m)^#\s*yaml-language-server:\s*\$schema=\S*?([a-z0-9-]+\.[a-z0-9-]+)\.schema\.json\s*$`),
}

// schemaComment returns the blueprint whose schema a comment names, or "".
func schemaComment(text []byte) string {
	for _, pattern := range schemaComments {
		if m := pattern.FindSubmatch(text); m != nil {
			return strings.ReplaceAll(string(m[1]), ".", "/")
		}
	}
	return ""
}

// finish makes the policy of a values file: the limiter, the decider and the alerter, then the components
// of the values.
func (b *Blueprint) finish(doc *strict.Document, src policy.Source) (*policy.Document, error) {
	p := b.decode(doc)
	circuit := strict.Default[policy.Circuit]()
	circuit.Components = append(generate(p), p.common.Components...)
	return policy.Finish(doc, src, policy.Draft{
		Policy:    &policy.Policy{Circuit: circuit, Resources: p.common.Resources},
		Name:      p.common.PolicyName,
		NamePath:  "policy.policy_name",
		MustName:  true,
		Blueprint: b.Name,
		Locate:    p.locate,
	})
}

func generate(p parts) []policy.Component {
	decider := strict.Default[policy.Decider]()
	decider.InPorts = policy.ComparedPorts{LHS: &policy.InPort{SignalName: acceptPercentage}, RHS: constant(alertAtMost)}
	decider.Operator = "lte"
	decider.OutPorts.Output = &policy.OutPort{SignalName: acceptPercentageAlert}
	return []policy.Component{
		{FlowControl: &p.limiter},
		{Decider: &decider},
		{Alerter: &policy.Alerter{
			InPorts:    policy.SignalIns{Signal: &policy.InPort{SignalName: acceptPercentageAlert}},
			Parameters: p.alerter,
		}},
	}
}

func acceptPercentageOut() policy.LimiterOuts {
	return policy.LimiterOuts{AcceptPercentage: &policy.OutPort{SignalName: acceptPercentage}}
}

func constant(value float64) *policy.InPort {
	return &policy.InPort{ConstantSignal: &policy.ConstantSignal{Value: &value}}
}

// locate returns where in the values file a field of the policy comes from. Fields of generated components
// lead to the values they were generated from.
func (p parts) locate(path fielderr.Path) fielderr.Path {
	rest, ok := strings.CutPrefix(string(path), "circuit.components[")
	if !ok {
		return "policy." + path
	}
	number, rest, _ := strings.Cut(rest, "]")
	values := fielderr.Path("policy").Field(p.kind)
	switch i, err := strconv.Atoi(number); {
	case err != nil || i < 0:
		return "policy"
	case i == 0:
		return values + fielderr.Path(strings.TrimPrefix(rest, ".flow_control."+p.kind))
	case i < generated:
		return values.Field("alerter")
	default:
		return fielderr.Path("policy").Field("components").Index(i-generated) + fielderr.Path(rest)
	}
}
