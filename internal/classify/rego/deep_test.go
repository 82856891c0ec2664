// SPDX-License-Identifier: Apache-2.0

package rego_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/classify/rego"
)

// hostileQueries are those that overflow the stack of the library's parser, or keep it busy for seconds; none is
// longer than a body may be.
var hostileQueries = map[string]string{
	"fields":   strings.Repeat("{a", 340_000),
	"closed":   strings.Repeat("{a", 170_000) + strings.Repeat("}", 170_000),
	"lists":    "{a(x:" + strings.Repeat("[", 500_000) + strings.Repeat("]", 500_000) + ")}",
	"objects":  "{a(x:" + strings.Repeat("{b:", 200_000) + "1" + strings.Repeat("}", 200_000) + ")}",
	"types":    "query q($v:" + strings.Repeat("[", 500_000) + "Int" + strings.Repeat("]", 500_000) + "){a}",
	"flat":     "{" + strings.Repeat("a ", 500_000) + "}",
	"comments": strings.Repeat("{a#}\n", 130_000),
	"strings":  strings.Repeat("{a(b:\"}\")", 70_000),
	"blocks":   strings.Repeat("{a(b:\"\"\"}\\\"\"\"\"\"\")", 30_000),
	"values":   "{a" + strings.Repeat("(b:1)@c", 100_000) + "}",
}

// TestHostileGraphQL: such queries are refused before the library sees them.
func TestHostileGraphQL(t *testing.T) {
	set := compile(t, read(t, "testdata/hasura.rego"), "operation")
	for name, query := range hostileQueries {
		body, err := json.Marshal(map[string]string{"query": query})
		if err != nil || len(body) > 1<<20 {
			t.Fatalf("%s: %d bytes: %v", name, len(body), err)
		}
		start := time.Now()
		r := &classify.Request{Headers: map[string]string{"content-type": "application/json"}, Body: string(body)}
		if labels, code := eval(t, set, r); code != classify.CodeBounds || time.Since(start) > 2*time.Second {
			t.Errorf("%s: got %v, code %d after %v, want it refused", name, labels, code, time.Since(start))
		}
	}
}

// TestLargeGraphQL: queries as large as those of real clients are read.
func TestLargeGraphQL(t *testing.T) {
	set := compile(t, read(t, "testdata/hasura.rego"), "operation")
	for name, query := range map[string]string{
		"deep":     "query {" + strings.Repeat("a { ", 90) + "b" + strings.Repeat("}", 91),
		"wide":     "query {" + strings.Repeat("field: other(limit: 10, where: {id: [1, 2]}) { id name }\n", 200) + "}",
		"strings":  `query { a(b: "}}}", c: """ { { [ \""" """) { d } }`,
		"comments": "# {{{{\nquery { a # {{\n }",
	} {
		body, err := json.Marshal(map[string]string{"query": query})
		if err != nil {
			t.Fatal(err)
		}
		r := &classify.Request{Headers: map[string]string{"content-type": "application/json"}, Body: string(body)}
		if labels, code := eval(t, set, r); labels["operation"] != "query" {
			t.Errorf("%s: got %v, code %d", name, labels, code)
		}
	}
}

// TestGuards: text that a module takes apart itself is bounded too.
func TestGuards(t *testing.T) {
	long := strings.Repeat("x", 70_000)
	for name, c := range map[string]struct{ module, body string }{
		"json":   {`x := json.unmarshal(input.attributes.request.http.body)`, "[" + strings.Repeat("[],", 300_000) + "1]"},
		"number": {`x := json.unmarshal(input.attributes.request.http.body) % 2`, "1e999999999"},
		"yaml":   {`x := yaml.unmarshal(input.attributes.request.http.body)`, long},
		"jwt":    {`x := io.jwt.decode(input.attributes.request.http.body)[0]`, "a." + long + ".b"},
	} {
		_, code := eval(t, compile(t, "package a\n"+c.module, "x"), &classify.Request{Body: c.body})
		if code != classify.CodeBounds {
			t.Errorf("%s: got code %d, want bounds", name, code)
		}
	}
}

// FuzzGraphQL: hostile queries neither take long nor end the process.
func FuzzGraphQL(f *testing.F) {
	for _, query := range hostileQueries {
		f.Add(query[:1000])
	}
	f.Add(`query Q($a: [Int!]! = [1]) { a(b: "c", d: {e: $a}) @f { ...G } } fragment G on H { i }`)
	set := compile(f, read(f, "testdata/hasura.rego"), "operation")
	f.Fuzz(func(t *testing.T, query string) {
		body, err := json.Marshal(map[string]string{"query": query})
		if err != nil {
			t.Skip()
		}
		eval(t, set, &classify.Request{Headers: map[string]string{"content-type": "application/json"}, Body: string(body)})
	})
}

// TestDeepModules: a module that is nested deep is refused at once; the library would take minutes for some.
func TestDeepModules(t *testing.T) {
	for name, module := range map[string]string{
		"lists":    "package a\nx := " + strings.Repeat("[", 2000) + strings.Repeat("]", 2000),
		"objects":  "package a\nx := " + strings.Repeat("{1:", 2000) + "1" + strings.Repeat("}", 2000),
		"sum":      "package a\nx := 1" + strings.Repeat("+1", 2000),
		"brackets": "package a\nx := " + strings.Repeat("(", 20_000) + "1" + strings.Repeat(")", 20_000),
		"every":    "package a\nimport rego.v1\nx if {" + strings.Repeat("every i in [1] {", 500) + "true" + strings.Repeat("}", 501),
		"else":     "package a\nimport rego.v1\nx := 1 if false" + strings.Repeat(" else := 1 if false", 500),
		"calls":    "package a\nx := " + strings.Repeat("abs(", 2000) + "1" + strings.Repeat(")", 2000),
		"comp":     "package a\nx := " + strings.Repeat("[y | y := ", 500) + "1" + strings.Repeat("]", 500),
	} {
		start := time.Now()
		problems := rego.New(rego.Config{}).Check(module, nil)
		if len(problems) == 0 || !strings.Contains(problems.Error(), "deep") && !strings.Contains(problems.Error(), "depth") {
			t.Errorf("%s: got %.100v, want a refusal", name, problems)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
	}
	for name, module := range map[string]string{
		"sum":  "package a\nx := 1" + strings.Repeat("+1", 50),
		"list": "package a\nx := " + strings.Repeat("[", 50) + "input.a" + strings.Repeat("]", 50),
		"long": "package a\nx := [" + strings.Repeat("1,", 5000) + "1]",
	} {
		if problems := rego.New(rego.Config{}).Check(module, nil); problems != nil {
			t.Errorf("%s: %v", name, problems)
		}
	}
}
