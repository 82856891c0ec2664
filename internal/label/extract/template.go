// SPDX-License-Identifier: Apache-2.0

package extract

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Template is a template of paths, such as /users/{id}/*: first segments that are compared as they are, then
// parameters in braces that stand for any segment, then perhaps a '*' for any rest, also for none. The slash
// at its beginning may be missing. It is compared with paths as RFC 3986, section 6.2.2, normalises them.
type Template struct {
	Prefix     []string
	Parameters int
	Rest       bool
}

// ParseTemplate reads a template. The error is an *Error.
func ParseTemplate(text string) (Template, error) {
	var t Template
	if text == "" {
		return t, &Error{Message: "an empty path template", Want: "a path such as /users/{id}"}
	}
	for segment := range strings.SplitSeq(text, "/") {
		segment = decodeUnreserved(segment)
		switch {
		case segment == "":
		case t.Rest:
			return t, &Error{Message: "'*' is not the last segment", Hint: "use {name} for one segment"}
		case segment == "*":
			t.Rest = true
		case strings.ContainsAny(segment, "{}"):
			if inner := strings.TrimSuffix(strings.TrimPrefix(segment, "{"), "}"); len(inner) != len(segment)-2 || strings.ContainsAny(inner, "{}") {
				return t, &Error{Message: fmt.Sprintf("%q is not a parameter", segment), Want: "a segment such as {id}"}
			}
			t.Parameters++
		case t.Parameters > 0:
			return t, &Error{Message: fmt.Sprintf("the segment %q comes after a parameter", segment), Hint: "parameters come last; use '*' for any rest"}
		case strings.ContainsAny(segment, "?#"):
			return t, &Error{Message: "a template is compared with the path alone, without the query", Hint: "leave out what follows '?'"}
		case isDots(segment):
			return t, &Error{Message: fmt.Sprintf("paths are compared without segments %q", segment), Hint: "leave it out"}
		default:
			t.Prefix = append(t.Prefix, segment)
		}
	}
	return t, nil
}

// String is the template without names of parameters: templates that match the same paths have the same.
func (t Template) String() string {
	s := strings.Repeat("/{}", t.Parameters)
	if len(t.Prefix) > 0 {
		s = "/" + strings.Join(t.Prefix, "/") + s
	}
	if t.Rest {
		s += "/*"
	}
	return cmp.Or(s, "/")
}

// compare orders the more specific template first: more segments compared as they are, then more parameters, then
// without a rest.
func (t Template) compare(o Template) int {
	return cmp.Or(cmp.Compare(len(o.Prefix), len(t.Prefix)), cmp.Compare(o.Parameters, t.Parameters), cmp.Compare(rank(t.Rest), rank(o.Rest)))
}

func rank(rest bool) int {
	if rest {
		return 1
	}
	return 0
}

// Templates find the value of the most specific template that matches a path. They may be used concurrently.
type Templates struct {
	templates []Template
	values    []string
}

// NewTemplates compiles values by template. Of templates that are equally specific, the first one by its text
// comes first. The error is an *Error.
func NewTemplates(values map[string]string) (*Templates, error) {
	type entry struct {
		template    Template
		text, value string
	}
	var entries []entry
	for text, value := range values {
		t, err := ParseTemplate(text)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{t, text, value})
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(a.template.compare(b.template), cmp.Compare(a.template.String(), b.template.String()), cmp.Compare(a.text, b.text))
	})
	t := &Templates{}
	for _, e := range entries {
		t.templates = append(t.templates, e.template)
		t.values = append(t.values, e.value)
	}
	return t, nil
}

// Match finds the value for a path, whose query and outer slashes do not count: /%63art, /./cart and /a/../cart are
// /cart, and %2F is no slash. It allocates only for paths that are written in such ways.
func (t *Templates) Match(path string) (value string, ok bool) {
	if i := strings.IndexAny(path, "?#"); i >= 0 { // servers that take a fragment pass over it
		path = path[:i]
	}
	path = strings.Trim(normal(path), "/")
	segments := 0
	if path != "" {
		segments = strings.Count(path, "/") + 1
	}
	for i := range t.templates {
		if t.templates[i].match(path, segments) {
			return t.values[i], true
		}
	}
	return "", false
}

// match compares a path without outer slashes.
func (t *Template) match(path string, segments int) bool {
	if least := len(t.Prefix) + t.Parameters; segments < least || segments > least && !t.Rest {
		return false
	}
	for _, want := range t.Prefix {
		if len(path) < len(want) || path[:len(want)] != want {
			return false
		}
		path = path[len(want):]
		if path != "" {
			if path[0] != '/' {
				return false
			}
			path = path[1:]
		}
	}
	return true
}
