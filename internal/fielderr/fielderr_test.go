// SPDX-License-Identifier: Apache-2.0

package fielderr

import (
	"errors"
	"strings"
	"testing"
)

func TestErrorPrintsWhatIsSet(t *testing.T) {
	for want, e := range map[string]*Error{
		`p.yaml:3:5: a.b: got "x", want a number; did you mean 7?`: {
			File: "p.yaml", Line: 3, Column: 5, Path: "a.b",
			Got: `"x"`, Want: "a number", Hint: "did you mean 7?",
		},
		"3:5: unknown field":            {Line: 3, Column: 5, Message: "unknown field"},
		"p.yaml: empty document":        {File: "p.yaml", Message: "empty document"},
		"a: warning: old; write b":      {Path: "a", Message: "old", Hint: "write b", Severity: Warning},
		"a: missing; want a duration":   {Path: "a", Message: "missing", Want: "a duration"},
		"duplicate; got the second one": {Message: "duplicate", Got: "the second one"},
	} {
		if got := e.Error(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestList(t *testing.T) {
	l := List{{Line: 9, Message: "second"}, {Line: 2, Column: 4, Message: "first", Excerpt: "    2 | x"}}
	l.Sort()
	if got, want := l.Error(), "2:4: first\n9:0: second"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := l.Pretty(), "2:4: first\n    2 | x\n9:0: second\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var one *Error
	if err := l.Err(); !errors.As(err, &one) || one.Message != "first" {
		t.Errorf("errors.As found %v", one)
	}
	if err := (List{{Severity: Warning}}).Err(); err != nil {
		t.Errorf("warnings alone: got %v, want nil", err)
	}
	if err := List(nil).Err(); err != nil {
		t.Errorf("empty list: got %v, want nil", err)
	}
}

func TestPath(t *testing.T) {
	p := Path("").Field("circuit").Field("components").Index(2).Field("match_labels").Field("http.method")
	if got, want := p.String(), `circuit.components[2].match_labels["http.method"]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := Path("a").Field(""), Path(`a[""]`); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSuggest(t *testing.T) {
	fields := []string{"interval", "continuous_fill", "limit_by_label_key", "label_key", "In", "gt"}
	for word, want := range map[string]string{
		"intervall":                     "interval",
		"inetrval":                      "interval",
		"Interval":                      "interval",
		"limitByLabelKey":               "limit_by_label_key",
		"continous_fil":                 "continuous_fill",
		"in":                            "In",
		"banana":                        "",
		"x":                             "",
		"":                              "",
		strings.Repeat("interval", 100): "",
	} {
		if got, _ := Suggest(word, fields); got != want {
			t.Errorf("Suggest(%q): got %q, want %q", word, got, want)
		}
	}
	if got, want := DidYouMean("labelkey", fields), `did you mean "label_key"?`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestOneOf(t *testing.T) {
	for word, want := range map[string]string{"gtt": `did you mean "gt"?`, "banana": "known here: gt, lt"} {
		if got := OneOf(word, []string{"gt", "lt"}); got != want {
			t.Errorf("OneOf(%q): got %s, want %s", word, got, want)
		}
	}
	if got := OneOf("banana", make([]string, 13)); got != "" {
		t.Errorf("too many candidates: got %s, want none", got)
	}
}

func TestExcerpt(t *testing.T) {
	lines := []string{"a: 1", "\tbé: x\r", strings.Repeat("y", 500)}
	for _, c := range []struct {
		line, column int
		want         string
	}{
		{1, 4, "    1 | a: 1\n      |    ^"},
		{2, 3, "    2 | \tbé: x\n      | \t ^"},
		{1, 99, "    1 | a: 1\n      |     ^"},
		{0, 1, ""},
		{4, 1, ""},
	} {
		if got := Excerpt(lines, c.line, c.column); got != c.want {
			t.Errorf("%d:%d: got\n%s\nwant\n%s", c.line, c.column, got, c.want)
		}
	}
	if got := Excerpt(lines, 3, 400); len(got) > 300 || !strings.HasSuffix(got, "^") {
		t.Errorf("a long line is not cut: %q", got)
	}
}
