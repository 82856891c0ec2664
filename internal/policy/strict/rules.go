// SPDX-License-Identifier: Apache-2.0

package strict

import (
	"cmp"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-project/sluice/internal/fielderr"
)

var ruleNames = []string{"nonempty", "name", "regexp", "oneof", "gt", "gte", "lt", "lte"}

// checkRules applies the rules of a field to the value read from n.
func (d *Document) checkRules(path fielderr.Path, n *Node, f Field, v reflect.Value) {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if f.Required && isEmpty(v) {
		d.Report(path, fielderr.Error{Got: emptyWords(v), Want: wantFilled(v)})
		return
	}
	for _, r := range f.Rules {
		if problem := r.check(n, v); problem != nil {
			d.Report(path, *problem)
			return
		}
	}
}

func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String, reflect.Slice, reflect.Map:
		return v.Len() == 0
	}
	return false
}

func emptyWords(v reflect.Value) string {
	switch v.Kind() {
	case reflect.String:
		return "empty text"
	case reflect.Slice:
		return "an empty list"
	}
	return "an empty mapping"
}

func wantFilled(v reflect.Value) string {
	switch v.Kind() {
	case reflect.String:
		return "some text"
	case reflect.Slice:
		return "at least one item"
	}
	return "at least one member"
}

// check applies one rule; the problem has no place yet.
func (r Rule) check(n *Node, v reflect.Value) *fielderr.Error {
	switch r.Name {
	case "nonempty":
		if isEmpty(v) {
			return &fielderr.Error{Got: emptyWords(v), Want: wantFilled(v)}
		}
	case "name":
		return CheckName(v.String())
	case "regexp":
		if _, err := regexp.Compile(v.String()); err != nil {
			return &fielderr.Error{Got: n.Describe(), Want: "an RE2 regular expression", Hint: strings.TrimPrefix(err.Error(), "error parsing regexp: ")}
		}
	case "oneof":
		if words := strings.Fields(r.Arg); !slices.Contains(words, v.String()) {
			return &fielderr.Error{
				Got: n.Describe(), Want: "one of " + strings.Join(words, ", "),
				Hint: fielderr.DidYouMean(v.String(), words),
			}
		}
	default:
		return r.compare(n, v)
	}
	return nil
}

// compare applies gt, gte, lt and lte; the argument is written as the value would be.
func (r Rule) compare(n *Node, v reflect.Value) *fielderr.Error {
	bound := reflect.New(v.Type()).Elem()
	(&Document{nodes: map[fielderr.Path]*Node{}}).decode("", &Node{Kind: Text, Text: r.Arg}, bound)
	ok, words := false, ""
	switch c := compareNumbers(v, bound); r.Name {
	case "gt":
		ok, words = c > 0, "more than "
	case "gte":
		ok, words = c >= 0, "at least "
	case "lt":
		ok, words = c < 0, "less than "
	case "lte":
		ok, words = c <= 0, "at most "
	}
	if ok {
		return nil
	}
	return &fielderr.Error{Got: strings.TrimPrefix(n.Describe(), "number "), Want: words + r.Arg}
}

func compareNumbers(a, b reflect.Value) int {
	switch {
	case a.CanInt():
		return cmp.Compare(a.Int(), b.Int())
	case a.CanUint():
		return cmp.Compare(a.Uint(), b.Uint())
	}
	return cmp.Compare(a.Float(), b.Float())
}

// maxName is the longest name of an object of Kubernetes, where names may end up.
const maxName = 253

var namePattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)

// NamePattern is what CheckName accepts, for schemas.
func NamePattern() string { return namePattern.String() }

// CheckName refuses text that cannot name a policy: lower-case letters, digits, '-' and '.', beginning and
// ending with a letter or digit, 1..253 characters. The problem has no place.
func CheckName(name string) *fielderr.Error {
	if len(name) <= maxName && namePattern.MatchString(name) {
		return nil
	}
	problem := &fielderr.Error{
		Got:  (&Node{Kind: Text, Text: name}).Describe(),
		Want: "lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit",
	}
	if len(name) > maxName {
		problem.Got = fmt.Sprintf("%d characters", len(name))
		problem.Want = fmt.Sprintf("at most %d", maxName)
		return problem
	}
	fixed := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(name), "-"), "-.")
	if fixed != "" {
		problem.Hint = fmt.Sprintf("did you mean %q?", fixed)
	}
	return problem
}

var notInNames = regexp.MustCompile(`[^-a-z0-9.]+`)
