// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// PlainDocument is a policy with its name.
type PlainDocument struct {
	// Name of the policy. Without it the policy is named by the request or after the file.
	PolicyName string `json:"policy_name,omitempty" union:"name" check:"name"`
	// Short for policy_name.
	Name string `json:"name,omitempty" union:"name" check:"name"`
	Policy
}

// ObjectDocument is a policy as an object of Kubernetes.
type ObjectDocument struct {
	// Version of the object.
	APIVersion string `json:"apiVersion" check:"required,oneof=fluxninja.com/v1alpha1"`
	// Kind of the object.
	Kind string `json:"kind" check:"required,oneof=Policy"`
	// Name, labels and annotations; only the name is used.
	Metadata map[string]any `json:"metadata"`
	// The policy.
	Spec Policy `json:"spec" check:"required"`
	// Dynamic configuration to begin with. It is not applied.
	DynamicConfig map[string]any `json:"dynamicConfig,omitempty" deprecated:"it is not applied; set it with sluice policy config set"`
	// What Kubernetes knows about the object; ignored.
	Status map[string]any `json:"status,omitempty"`
}

// Parse reads a policy document, plain or as a Kubernetes object. The error is a fielderr.List with every
// mistake in it. Parse keeps nothing of src and may be called concurrently. Use blueprint.Parse where the
// values of a blueprint are welcome, too.
func Parse(src Source) (*Document, error) {
	doc, err := strict.Parse(src.File, src.Text)
	if err != nil {
		return nil, err
	}
	return ParseNode(doc, src)
}

// ParseNode is Parse for text that was read into doc before.
func ParseNode(doc *strict.Document, src Source) (*Document, error) {
	root := doc.Root
	same := func(p fielderr.Path) fielderr.Path { return p }
	switch {
	case root.Get("apiVersion") != nil || root.Get("kind") != nil || root.Get("spec") != nil:
		var o ObjectDocument
		doc.Decode("", root, &o)
		name := objectName(doc, &o)
		return Finish(doc, src, Draft{
			Policy: &o.Spec, Name: name, NamePath: "metadata.name", MustName: true,
			Locate: func(p fielderr.Path) fielderr.Path { return "spec." + p },
		})
	case src.Blueprint != "" || root.Get("blueprint") != nil || root.Get("policy") != nil:
		doc.Report("", fielderr.Error{Message: "these are the values of a blueprint, not a policy", Hint: "render the blueprint first"})
		refused, _ := doc.Problems()
		return nil, refused
	}
	var p PlainDocument
	doc.Decode("", root, &p)
	draft := Draft{Policy: &p.Policy, Name: p.PolicyName, NamePath: "policy_name", Locate: same}
	if p.Name != "" {
		draft.Name, draft.NamePath = p.Name, "name"
	}
	return Finish(doc, src, draft)
}

// objectName reads metadata.name, which Kubernetes calls required as well.
func objectName(doc *strict.Document, o *ObjectDocument) string {
	value := o.Metadata["name"]
	if value == nil {
		doc.ReportAbsence("metadata", "name", fielderr.Error{Message: "missing", Want: "the name of the policy"})
	}
	name, isText := value.(string)
	if value != nil && !isText {
		doc.Report("metadata.name", fielderr.Error{Got: fmt.Sprint(value), Want: "text"})
	}
	if problem := strict.CheckName(name); isText && problem != nil {
		doc.Report("metadata.name", *problem)
	}
	return name
}
