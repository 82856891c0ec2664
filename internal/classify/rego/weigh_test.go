// SPDX-License-Identifier: Apache-2.0

package rego_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/classify/rego"
)

// shared is a rule whose value has 2^n parts, all of which are the same.
func shared(n int) string {
	var out strings.Builder
	out.WriteString("a0 := [1, 2]\n")
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&out, "a%d := [a%d, a%d]\n", i, i-1, i-1)
	}
	return out.String()
}

// TestBombs: one call of a built-in function, or the text of one value, must not take all time or memory: nothing
// would interrupt it.
func TestBombs(t *testing.T) {
	const body = "input.attributes.request.http.body"
	r := &classify.Request{Body: strings.Repeat("a", 1<<20), Headers: map[string]string{
		"n": "4000000000", "pattern": "(.{1,1000}q)$", "format": strings.Repeat("%[1]999999d", 3000), "content-type": "application/json",
	}}
	const headers = "input.attributes.request.http.headers"
	for name, rules := range map[string]string{
		"shift":        "x := bits.lsh(1, to_number(" + headers + ".n))",
		"shift far":    "x := bits.lsh(1, 100000000000000)",
		"regex":        "x := regex.match(`(.{1,1000}q)$`, " + body + ")",
		"regex user":   "x := regex.match(" + headers + ".pattern, " + body + ")",
		"regex find":   "x := regex.find_n(`(.{1,1000}q)$`, " + body + ", 1)",
		"regex swap":   "x := regex.replace(" + body + ", `(.{1,1000}q)$`, `b`)",
		"long pattern": "x := regex.match(" + body + ", `a`)",
		"glob":         "x := glob.match(" + body + ", [], `a`)",
		"widths":       "x := sprintf(" + headers + ".format, [1, 2])",
		"long operand": "x := sprintf(`" + strings.Repeat("%[1]s", 5000) + "`, [" + body + "])",
		"star":         "x := sprintf(`" + strings.Repeat("%[1]*[2]d", 5000) + "`, [999999, 1])",
		"indent":       "x := json.marshal_with_options(numbers.range(1, 1000), {`prefix`: " + body + "})",
		"value":        "x := a40\n" + shared(40),
		"json":         "x := count(json.marshal(a40))\n" + shared(40),
		"yaml":         "x := count(yaml.marshal(a40))\n" + shared(40),
		"text":         "x := count(sprintf(`%v`, [a40]))\n" + shared(40),
		"patched":      "x := json.patch({`a`: [1]}, [{`op`: `copy`, `from`: `/a`, `path`: `/a/-`} | some _ in numbers.range(1, 40)])",
		"product":      "x := product(numbers.range(1, 30000))",
		"pairs":        "x := net.cidr_contains_matches([`10.0.0.0/8` | some _ in [1]], array.concat([`10.0.0.1`], numbers.range(1, 200000)))",
	} {
		t.Run(name, func(t *testing.T) {
			set, err := rego.New(rego.Config{}).Compile(classify.Rego{
				Module: "package a\n" + rules, Labels: []classify.RegoLabel{{Key: "x"}}, Bounds: classify.Bounds{Timeout: 500 * time.Millisecond},
			})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if _, code := eval(t, set, r); code != classify.CodeBounds {
				t.Errorf("got code %d, want bounds", code)
			}
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestWeighedUse: what people do with these functions goes on working.
func TestWeighedUse(t *testing.T) {
	for rules, want := range map[string]string{
		"x := bits.lsh(1, 10)":                                               "1024",
		"x := regex.match(`^/users/[0-9]{1,9}$`, `/users/7`)":                "true",
		"x := regex.replace(`a1b2`, `[0-9]`, `-`)":                           "a-b-",
		"x := regex.split(`-`, `a-b`)[1]":                                    "b",
		"x := regex.find_all_string_submatch_n(`b`, `ab`, -1)[0][0]":         "b",
		"x := regex.template_match(`urn:foo:{.*}`, `urn:foo:bar`, `{`, `}`)": "true",
		"x := regex.globs_match(`a.*`, `ab`)":                                "true",
		"x := glob.match(`*.example.com`, [], `a.example.com`)":              "true",
		"x := sprintf(`%s-%05d-%.2f%%`, [`a`, 7, 1.5])":                      "a-00007-1.50%",
		"x := sprintf(`plain`, [])":                                          "plain",
		"x := product([2, 3])":                                               "6",
		"x := json.marshal({`a`: [1, {2}]})":                                 "{-a-:[1-[2]]}",
		"x := count(json.marshal_with_options([1], {`indent`: `  `}))":       "7",
		"x := count(net.cidr_contains_matches(`10.0.0.0/8`, [`10.0.0.1`]))":  "1",
		"x := {`a`: 1}": "{-a-:1}",
	} {
		got, code := eval(t, compile(t, "package a\n"+rules, "x"), &classify.Request{})
		if code != classify.CodeNone || got["x"] != want {
			t.Errorf("%s: got %v, code %d, want %s", rules, got, code, want)
		}
	}
}

// TestUnbounded: what nothing bounds does not compile.
func TestUnbounded(t *testing.T) {
	for _, name := range rego.Unbounded {
		problems := rego.New(rego.Config{}).Check("package a\nx := "+name+"(1)", nil)
		if !strings.Contains(problems.Error(), "undefined function "+name+"; nothing bounds its time and memory") {
			t.Errorf("%s: got %v, want a refusal", name, problems)
		}
	}
}
