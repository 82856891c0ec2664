// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/label/cel"
	"github.com/sluice-project/sluice/internal/label/extract"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

var (
	_ strict.Checker = (*Classifier)(nil)
	_ strict.Checker = (*Extractor)(nil)
	_ strict.Checker = (*JSONExtractor)(nil)
	_ strict.Checker = (*AddressExtractor)(nil)
	_ strict.Checker = (*JWTExtractor)(nil)
	_ strict.Checker = (*PathTemplateMatcher)(nil)
	_ strict.Checker = (*Expression)(nil)
)

var (
	regoName     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	regoKeywords = []string{"as", "contains", "default", "else", "every", "false", "if", "import", "in", "not", "null", "package", "some", "true", "with"}
)

// Check refuses labels that Rego, which rules are compiled to, cannot name.
func (c *Classifier) Check(at strict.Place) {
	for _, label := range slices.Sorted(maps.Keys(c.Rules)) {
		if !regoName.MatchString(label) || slices.Contains(regoKeywords, label) {
			at.Field("rules").Field(label).RefuseKey(fielderr.Error{
				Got:  fmt.Sprintf("label %q", label),
				Want: "letters, digits and '_', not beginning with a digit, and no keyword of Rego",
			})
		}
		if c.Rego != nil {
			if _, twice := c.Rego.Labels[label]; twice {
				at.Field("rules").Field(label).Warn(fielderr.Error{
					Message: fmt.Sprintf("rego makes the label %q as well", label), Hint: "that of rego wins; remove one of them",
				})
			}
		}
	}
	if len(c.Rules) == 0 && c.Rego == nil && at.Clean() {
		at.Warn(fielderr.Error{Message: "the classifier makes no labels", Hint: "give it rules or rego"})
	}
}

// Check refuses paths of attributes and expressions that cannot be read.
func (e *Extractor) Check(at strict.Place) {
	if e.From != "" {
		_, err := extract.ParseAttribute(e.From)
		refuseExtractor(at.Field("from"), e.From, err)
	}
	if e.CEL != "" {
		_, err := cel.CompileValue(e.CEL)
		refuseCEL(at.Field("cel"), e.CEL, err, cel.Variables())
	}
}

// Check refuses paths and pointers that cannot be read.
func (j *JSONExtractor) Check(at strict.Place) {
	checkPointer(at, j.From, "pointer", j.Pointer)
}

// Check refuses paths and pointers that cannot be read.
func (j *JWTExtractor) Check(at strict.Place) {
	checkPointer(at, j.From, "json_pointer", j.JSONPointer)
}

func checkPointer(at strict.Place, from, name, pointer string) {
	if from != "" {
		_, err := extract.ParseAttribute(from)
		refuseExtractor(at.Field("from"), from, err)
	}
	_, err := extract.ParsePointer(pointer)
	refuseExtractor(at.Field(name), "", err)
}

// Check refuses paths of anything but an address.
func (a *AddressExtractor) Check(at strict.Place) {
	if a.From != "" {
		_, err := extract.ParseAddress(a.From)
		refuseExtractor(at.Field("from"), "", err)
	}
}

// Check refuses templates that cannot be read, and warns of those that match the same paths.
func (m *PathTemplateMatcher) Check(at strict.Place) {
	first := map[string]string{}
	for _, text := range slices.Sorted(maps.Keys(m.TemplateValues)) {
		place := at.Field("template_values").Field(text)
		template, err := extract.ParseTemplate(text)
		var problem *extract.Error
		if errors.As(err, &problem) {
			place.RefuseKey(fielderr.Error{Message: problem.Message, Want: problem.Want, Hint: problem.Hint})
			continue
		}
		if other, ok := first[template.String()]; ok {
			place.Warn(fielderr.Error{Message: fmt.Sprintf("matches the same paths as %q, which wins", other)})
			continue
		}
		first[template.String()] = text
	}
}

// refuseExtractor reports an *extract.Error about the path of an attribute; path is "" when it is about none.
func refuseExtractor(at strict.Place, path string, err error) {
	var problem *extract.Error
	if !errors.As(err, &problem) {
		return
	}
	if problem.Hint == "" && problem.Want == "" && path != "" {
		problem.Want, problem.Hint = extract.Words, fielderr.DidYouMean(path, extract.Known)
	}
	at.Refuse(fielderr.Error{Message: problem.Message, Want: problem.Want, Hint: problem.Hint})
}

// Check refuses expressions in CEL that are no conditions on labels.
func (e *Expression) Check(at strict.Place) {
	if e.CEL == "" {
		return
	}
	_, err := cel.Compile(e.CEL)
	refuseCEL(at.Field("cel"), e.CEL, err, []string{"labels"})
}

// refuseCEL reports problems of an expression at their places.
func refuseCEL(at strict.Place, text string, err error, variables []string) {
	var problems cel.Problems
	errors.As(err, &problems)
	for _, p := range problems {
		e := fielderr.Error{Message: p.Message}
		if strings.HasPrefix(p.Message, "undeclared reference") {
			word, call := wordAt(text, p.Line, p.Column)
			if len(variables) == 1 && word != "" && !call && !strings.Contains(p.Message, "'labels'") {
				e.Message, _, _ = strings.Cut(p.Message, " (did you mean") // it names functions, and a label is meant
			}
			if !strings.Contains(e.Message, "did you mean") {
				e.Hint = hintVariable(word, variables)
			}
		}
		at.ReportInside(p.Line, p.Column, e)
	}
}

func hintVariable(word string, variables []string) string {
	root, _, _ := strings.Cut(word, ".")
	if len(variables) == 1 && (root == "request" || root == "source" || root == "destination") {
		return `conditions read labels only, such as labels["http.method"]`
	}
	if hint := fielderr.DidYouMean(word, variables); hint != "" {
		return hint
	}
	if len(variables) == 1 && word != "" {
		return fmt.Sprintf("a label is read as labels[%q]", word)
	}
	var near []string
	for _, v := range variables {
		if strings.HasPrefix(v, root+".") {
			near = append(near, v)
		}
	}
	if near == nil {
		near = variables
	}
	return "known here: " + strings.Join(near, ", ")
}

var names = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?`)

// wordAt is the name, or the name and its first member, at a position in an expression, and whether it is called.
func wordAt(text string, line, column int) (word string, call bool) {
	lines := strings.Split(text, "\n")
	if line > len(lines) {
		return "", false
	}
	runes := []rune(lines[line-1])
	rest := string(runes[min(column-1, len(runes)):])
	word = names.FindString(rest)
	return word, strings.HasPrefix(rest[len(word):], "(")
}

// checkRego refuses modules that cannot be compiled.
func (w wiring) checkRego(classifiers []Classifier, check func(module string, labels []string) fielderr.List) {
	for i := range classifiers {
		r := classifiers[i].Rego
		if r == nil || r.Module == "" {
			continue
		}
		path := fielderr.Path("resources.flow_control.classifiers").Index(i).Field("rego").Field("module")
		at := w.doc.At(w.locate(path))
		for _, problem := range check(r.Module, slices.Sorted(maps.Keys(r.Labels))) {
			at.ReportInside(problem.Line, problem.Column, fielderr.Error{
				Message: problem.Message, Got: problem.Got, Want: problem.Want, Hint: problem.Hint, Severity: problem.Severity,
			})
		}
	}
}
