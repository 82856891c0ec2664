// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// Source is the text of a document and what is known about it from elsewhere.
type Source struct {
	// File is printed in errors. Without any other name, the policy is named after it: the last element,
	// without .yaml, .yml or .json. It may be empty.
	File string
	// Name is the name the caller asked for; a document that names itself otherwise is refused. It may be
	// empty.
	Name string
	// Blueprint is the blueprint whose values Text is, when Text does not say so. Package blueprint reads
	// it; Parse here refuses it. It may be empty.
	Blueprint string
	// CheckQuery says what is wrong with a PromQL query, or nil. A query it objects to is worth a warning: the
	// server that runs it may know more. It may be nil, and is called concurrently when Parse is.
	CheckQuery func(query string) error
	// CheckRego says what is wrong with the module of a classifier that makes the labels; positions count from the
	// beginning of the module. It may be nil, and is called concurrently when Parse is.
	CheckRego func(module string, labels []string) fielderr.List
	// Text is YAML or JSON, at most strict.MaxBytes.
	Text []byte
}

// Document is a valid policy document.
type Document struct {
	// Name of the policy, see strict.CheckName.
	Name string
	// Hash identifies what the policy means: the first 128 bits of the SHA-256 of Canonical, as 32 hex
	// digits. Layout, comments, number formats and defaults written out do not change it, nor does Name.
	Hash string
	// Blueprint the policy was rendered from, or "".
	Blueprint string
	Policy    *Policy
	// Canonical is the policy as JSON, all defaults written out. Parsing it gives the same Hash.
	Canonical []byte
	// Components are all components of the circuit, those of nested circuits after their parent.
	Components []ComponentInfo
	// Warnings do not refuse the document, but its author should see them.
	Warnings fielderr.List
}

// ComponentInfo is a component and its place in the circuit.
type ComponentInfo struct {
	// ID is root.<index>, or root.<index>.<index> inside a nested circuit. Metrics and verdicts carry it.
	ID string
	// Kind is Component.Kind, such as rate_limiter.
	Kind string
	// Component points into the policy.
	Component *Component
	// ControlPoints are those its selectors name, each once, in order; nil when it has no selectors.
	ControlPoints []string
}

// Draft is a policy that was decoded from a document and has still to be checked as a whole.
type Draft struct {
	Policy    *Policy
	Name      string        // the name the document gives, or ""
	NamePath  fielderr.Path // where it does
	MustName  bool          // the document has to give it; when it does not, that was reported
	Blueprint string
	// Generated is how many of the first components a blueprint made: nobody is warned of those.
	Generated int
	// Locate returns where in the document a field of Policy comes from, for the positions of problems.
	Locate func(fielderr.Path) fielderr.Path
}

// Finish checks how the signals of a draft are wired and makes a Document of it. The error is a
// fielderr.List with every problem found in doc so far.
func Finish(doc *strict.Document, src Source, draft Draft) (*Document, error) {
	name := finalName(doc, src, draft)
	w := wiring{doc, draft.Locate, draft.Generated}
	w.checkSignals(&draft.Policy.Circuit)
	if src.CheckQuery != nil {
		w.checkQueries(draft.Policy.Circuit.Components, "circuit.components", src.CheckQuery)
	}
	if src.CheckRego != nil {
		w.checkRego(draft.Policy.Resources.FlowControl.Classifiers, src.CheckRego)
	}
	refused, warnings := doc.Problems()
	if len(refused) > 0 {
		return nil, refused
	}
	var canonical bytes.Buffer
	enc := json.NewEncoder(&canonical)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(draft.Policy); err != nil {
		return nil, fielderr.List{{File: src.File, Message: fmt.Sprintf("write policy %q as JSON: %v", name, err)}}
	}
	text := bytes.TrimSpace(canonical.Bytes())
	sum := sha256.Sum256(text)
	return &Document{
		Name:       name,
		Hash:       hex.EncodeToString(sum[:16]),
		Blueprint:  draft.Blueprint,
		Policy:     draft.Policy,
		Canonical:  text,
		Components: componentInfos(nil, draft.Policy.Circuit.Components, "root"),
		Warnings:   warnings,
	}, nil
}

// finalName is the name of the document, else of the request, else of the file.
func finalName(doc *strict.Document, src Source, draft Draft) string {
	switch {
	case draft.Name != "" && src.Name != "" && draft.Name != src.Name:
		doc.Report(draft.NamePath, fielderr.Error{
			Got: fmt.Sprintf("%q", draft.Name), Want: fmt.Sprintf("%q, the name asked for", src.Name),
			Hint: "use one name in both places, or leave it out of the document",
		})
		return ""
	case draft.Name != "":
		return draft.Name // its rules were checked when it was decoded
	}
	if draft.MustName {
		return ""
	}
	name := src.Name
	if name == "" && src.File != "" {
		name = path.Base(strings.ReplaceAll(src.File, `\`, "/"))
		name = strings.TrimSuffix(name, path.Ext(name))
	}
	switch problem := strict.CheckName(name); {
	case name == "":
		doc.ReportAbsence("", "policy_name", fielderr.Error{Message: "missing", Want: "the name of the policy"})
	case problem != nil:
		problem.Message = "the policy has no valid name"
		problem.Hint = "set policy_name"
		doc.ReportAbsence("", "policy_name", *problem)
	}
	return name
}

func componentInfos(infos []ComponentInfo, components []Component, parent string) []ComponentInfo {
	for i := range components {
		c := &components[i]
		info := ComponentInfo{ID: parent + "." + strconv.Itoa(i), Kind: c.Kind(), Component: c}
		walk(reflect.ValueOf(c).Elem(), "", func(v reflect.Value, _ fielderr.Path) {
			if s, ok := v.Interface().(Selector); ok && !slices.Contains(info.ControlPoints, s.ControlPoint) {
				info.ControlPoints = append(info.ControlPoints, s.ControlPoint)
			}
		})
		infos = append(infos, info)
		if c.NestedCircuit != nil {
			infos = componentInfos(infos, c.NestedCircuit.Components, info.ID)
		}
	}
	return infos
}
