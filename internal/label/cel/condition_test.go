// SPDX-License-Identifier: Apache-2.0

package cel_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/label/cel"
)

// bind gives every key that the expression reads a slot, and fills the values of the labels given.
func bind(e label.Expr, labels map[string]string) (label.Predicate, label.Values) {
	keys := slices.Sorted(maps.Keys(labels))
	e.Walk(func(key string) {
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	})
	values := make(label.Values, len(keys))
	for i, key := range keys {
		values[i].Text, values[i].Present = labels[key], false
		if _, ok := labels[key]; ok {
			values[i].Present = true
		}
	}
	return e.Bind(func(key string) int { return slices.Index(keys, key) }), values
}

func mustCompile(t testing.TB, text string) label.Expr {
	t.Helper()
	e, err := cel.Compile(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return e
}

func TestCondition(t *testing.T) {
	gold := map[string]string{"tier": "gold", "n": "abc", "size": "12", "empty": "", "user.name": "ann", "http.request.header.x_a": "1"}
	for text, want := range map[string]bool{
		`true`:                     true,
		`false`:                    false,
		`labels["tier"] == "gold"`: true,
		`"gold" == labels.tier`:    true,
		`labels.tier == "silver"`:  false,
		`labels.tier != "silver"`:  true,
		`labels["tier"] == "gold" && labels["n"].matches("^a")`: true,
		`labels["tier"] == "gold" && labels["n"].matches("^b")`: false,
		`labels.empty == ""`:                                            true,
		`labels["user.name"].startsWith("a")`:                           true,
		`labels["http.request.header.x_a"] == "1"`:                      true,
		`"tier" in labels`:                                              true,
		`"nope" in labels`:                                              false,
		`has(labels.tier) && !has(labels.nope)`:                         true,
		`labels.tier in ["silver", "gold"]`:                             true,
		`labels.tier in []`:                                             false,
		`int(labels.size) > 10`:                                         true,
		`int(labels.n) > 10`:                                            false, // not a number
		`!(int(labels.n) > 10)`:                                         true,
		`labels.tier.size() == 4`:                                       true,
		`labels.tier == labels.tier`:                                    true,
		`labels.tier == labels.n`:                                       false,
		`has(labels.nope) ? labels.nope == "a" : labels.tier == "gold"`: true,
		`labels.tier.upperAscii() == "GOLD"`:                            true,
		`["g", "s"].exists(p, labels.tier.startsWith(p))`:               true,
		`["x", "s"].exists(p, labels.tier.startsWith(p))`:               false,
		`["x", "nope"].exists(p, labels.tier == p || "nope" in labels)`: false,
		`matches(labels.n, "b")`:                                        true,
		`labels.n.matches(labels.tier)`:                                 false,
		`labels.n.matches("(" + labels.tier)`:                           false, // no regular expression
		`1 == 1`:                                                        true,
		`labels.size.split("")[0] == "1"`:                               true,
		`labels.size.split("")[9] == "1"`:                               false,
		// Labels that are absent.
		`labels.nope == "a"`:                             false,
		`labels.nope == ""`:                              false,
		`labels.nope != "a"`:                             false,
		`!(labels.nope == "a")`:                          true,
		`labels.nope.matches(".*")`:                      false,
		`labels.nope in ["a"]`:                           false,
		`labels.nope.startsWith("")`:                     false,
		`!labels.nope.startsWith("")`:                    true,
		`labels.nope == "a" || labels.tier == "gold"`:    true,
		`labels.nope == labels.nope`:                     false,
		`labels.nope.size() > 0 || labels.n.size() == 3`: true,
	} {
		p, values := bind(mustCompile(t, text), gold)
		if got := p.Match(values); got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
		if got := p.Match(nil); got && strings.Contains(text, "labels.tier ==") && !strings.Contains(text, "!") {
			t.Errorf("%s: matches values that are too short", text)
		}
	}
}

// TestNative: what matchers can say as well is theirs, so that it costs nothing more and indexes find it.
func TestNative(t *testing.T) {
	e := mustCompile(t, `labels.a == "1" && (labels["b"] in ["2", "3"] || has(labels.c)) && !("d" in labels)`)
	want := label.Expr{Op: label.All, Of: []label.Expr{
		label.Equal("a", "1"),
		{Op: label.Any, Of: []label.Expr{{Op: label.In, Key: "b", Texts: []string{"2", "3"}}, {Op: label.Exists, Key: "c"}}},
		label.Negate(label.Expr{Op: label.Exists, Key: "d"}),
	}}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("expression differs (-want +got):\n%s", diff)
	}
	if key, value, ok := e.Required(); !ok || key != "a" || value != "1" {
		t.Errorf("got required %q %q %v, want a 1", key, value, ok)
	}
	e = mustCompile(t, `labels.a.size() > labels.b.size() && ["x"].all(l, "c" in labels)`)
	var keys []string
	e.Walk(func(key string) { keys = append(keys, key) })
	if diff := cmp.Diff([]string{"a", "b", "c"}, keys); diff != "" {
		t.Errorf("keys differ (-want +got):\n%s", diff)
	}
}

func TestProblems(t *testing.T) {
	long := `labels.a == "` + strings.Repeat("x", cel.MaxLength) + `"`
	deep := strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200)
	for text, want := range map[string]string{
		``:                                         "1:1: mismatched input '<EOF>'",
		`labels.a = "b"`:                           "1:10: '=' is no operator; write '==' to compare",
		"labels.a == 'b' &&\n  lables.c == 'd'":    "2:3: undeclared reference to 'lables'",
		`labels.a`:                                 "1:1: the expression is of type string, want a condition (bool)",
		`labels`:                                   "want a condition",
		`labels.size() > 1`:                        "1:1: labels are read by constant keys",
		`labels == {"a": "b"}`:                     "1:1: labels are read by constant keys",
		`labels["a" + "b"] == "c"`:                 "labels are read by constant keys",
		`labels.exists(k, k == "a")`:               "labels are read by constant keys",
		`labels.a > 5`:                             "found no matching overload",
		`labels.a.matches("(")`:                    "1:18: not a regular expression",
		`labels.a.matches("(a{500}){500}")`:        "too large",
		`labels.a == "ü" && nope`:                  "1:20: undeclared reference to 'nope'",
		`request.method == "GET"`:                  "undeclared reference to 'request'",
		`[1].all(a, [1].all(b, [1].all(c, true)))`: "nesting",
		long: "size",
		deep: "recursion",
	} {
		_, err := cel.Compile(text)
		var problems cel.Problems
		if !errors.As(err, &problems) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: got %v, want %s", text, err, want)
		}
	}
}

// TestBounds: an expression that would run for minutes is cut off, which is no match.
func TestBounds(t *testing.T) {
	list := "[" + strings.TrimSuffix(strings.Repeat("1,", 400), ",") + "]"
	e := mustCompile(t, fmt.Sprintf(`%s.all(a, %s.all(b, labels.x.size() > 0))`, list, list))
	p, values := bind(e, map[string]string{"x": "y"})
	if p.Match(values) {
		t.Error("matches, want it cut off")
	}
}

// FuzzCompile: whatever is written is refused with a place, or is a condition that can be asked.
func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		`labels["tier"] == "gold" && labels["n"].matches("^a")`, `has(labels.a) ? "b" in labels : labels.c in ["d"]`,
		`labels.a.split(",").exists(x, x == labels.b)`, `!(`, `labels`, "\"\\xff\"", `int(labels.a) > 5`, `"%s".format([labels.a]) == "x"`,
	} {
		f.Add(seed, "a", "1")
	}
	f.Fuzz(func(t *testing.T, text, key, value string) {
		e, err := cel.Compile(text)
		if err != nil {
			var problems cel.Problems
			if !errors.As(err, &problems) || len(problems) == 0 || problems[0].Line < 1 || problems[0].Column < 1 {
				t.Fatalf("got error %v, want problems with places", err)
			}
			return
		}
		p, values := bind(e, map[string]string{key: value})
		if first := p.Match(values); first != p.Match(values) {
			t.Fatal("two answers to one question")
		}
		p.Match(nil)
	})
}

func BenchmarkMatch(b *testing.B) {
	for _, text := range []string{
		`labels["tier"] == "gold" && labels["n"].matches("^a")`,
		`labels.tier == "gold" || labels.tier == "silver"`,
		`labels.tier.startsWith("go")`,
		`int(labels.size) > 10`,
		`["g", "s"].exists(p, labels.tier.startsWith(p))`,
	} {
		b.Run(text, func(b *testing.B) {
			p, values := bind(mustCompile(b, text), map[string]string{"tier": "gold", "n": "abc", "size": "12"})
			b.ReportAllocs()
			for b.Loop() {
				if !p.Match(values) {
					b.Fatal("no match")
				}
			}
		})
	}
}
