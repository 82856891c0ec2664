// SPDX-License-Identifier: Apache-2.0

package envoyconfig

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/internal/fielderr"
)

var update = flag.Bool("update", false, "write the files of testdata anew")

func byDomain(domain string) string { return "ratelimit/" + domain }

func convert(text string, more ...string) (*Result, error) {
	files := []File{{"a.yaml", []byte(text)}}
	for i, t := range more {
		files = append(files, File{fmt.Sprintf("%c.yaml", 'b'+i), []byte(t)})
	}
	return Convert(files, Options{ControlPoint: byDomain})
}

// The example has every kind of condition. After a change, run with -update and commit what you can explain.
func TestExample(t *testing.T) {
	const file, want = "testdata/example.yaml", "testdata/example.golden"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Convert([]File{{"example.yaml", text}}, Options{ControlPoint: byDomain})
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, m := range r.Remarks {
		fmt.Fprintln(&got, m)
	}
	for _, p := range r.Policies {
		fmt.Fprintf(&got, "--- %s\n%s", p.Name, p.Text)
	}
	if *update {
		if err := os.WriteFile(want, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	expected, err := os.ReadFile(want)
	if err != nil || got.String() != string(expected) {
		t.Errorf("got\n%s\nwant the text of %s (%v)", got.String(), want, err)
	}
	if !r.Differs() || r.Limits != 5 {
		t.Errorf("%d limits, differs: %v, want 5 and true", r.Limits, r.Differs())
	}
}

func TestMistakes(t *testing.T) {
	const limit = "rate_limit: {unit: minute, requests_per_unit: 5}"
	tests := []struct{ name, text, want string }{
		{"no domain", "descriptors: [{key: a, " + limit + "}]", `a.yaml:1:1: domain: missing; want the domain that Envoy's filter names`},
		{"no key", "domain: d\ndescriptors: [{value: a, " + limit + "}]", `a.yaml:2:15: descriptors[0].key: missing; want the key of the entry`},
		{"unknown field", "domain: d\ndescriptors: [{key: a, ratelimit: {}}]", `a.yaml:2:24: descriptors[0].ratelimit: unknown field; did you mean "rate_limit"?`},
		{"no unit", "domain: d\ndescriptors: [{key: a, rate_limit: {requests_per_unit: 1}}]", `descriptors[0].rate_limit.unit: missing; want second, minute`},
		{"unit", "domain: d\ndescriptors: [{key: a, rate_limit: {unit: fortnight}}]", `got text "fortnight", want second, minute`},
		{"unit of nothing", "domain: d\ndescriptors: [{key: a, rate_limit: {unit: minute, unlimited: true}}]", `got minute beside unlimited: true, want one of them`},
		{"requests as text", `{domain: d, descriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: "5"}}]}`, `got text "5", want a whole number from 0 to 4294967295`},
		{"negative requests", "domain: d\ndescriptors: [{key: a, rate_limit: {unit: minute, requests_per_unit: -5}}]", `got number -5, want a whole number from 0`},
		{"a truth", "domain: d\ndescriptors: [{key: a, shadow_mode: 2}]", `descriptors[0].shadow_mode: got number 2, want true or false`},
		{"a key that is a list", "domain: d\ndescriptors: [{key: [a]}]", `descriptors[0].key: got a list, want text`},
		{"twice", "domain: d\ndescriptors:\n- {key: a, value: b}\n- {key: a_b}", `a.yaml:4:3: descriptors[1]: the descriptor "a_b" is in a.yaml, line 3, already`},
		{"share without a star", "domain: d\ndescriptors: [{key: a, value: b, share_threshold: true}]", `got true for a value without *, want a value that ends with *, such as "b*"`},
		{"replaces nothing", "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, replaces: [{}]}}]", `replaces[0].name: missing; want the name of another rate limit`},
		{"replaces itself", "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, name: x, replaces: [{name: x}]}}]", `got its own name, want the name of another rate limit`},
		{"no YAML", "domain: [", "a.yaml:1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := convert(tt.text)
			var list fielderr.List
			if !errors.As(err, &list) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestDomainsOfSeveralFiles(t *testing.T) {
	const one = "domain: d\ndescriptors: [{key: a, rate_limit: {unit: minute, requests_per_unit: 1}}]"
	const two = "domain: d\ndescriptors: [{key: b, rate_limit: {unit: minute, requests_per_unit: 2}}]"
	if _, err := convert(one, two); err == nil || !strings.Contains(err.Error(), `b.yaml:1:9: domain: domain "d" is in a.yaml, line 1, already; use --merge-domains`) {
		t.Errorf("got %v, want a mistake", err)
	}
	files := []File{{"a.yaml", []byte(one)}, {"b.yaml", []byte(two)}}
	r, err := Convert(files, Options{ControlPoint: byDomain, MergeDomains: true})
	if err != nil || r.Limits != 2 || len(r.Policies) != 1 || r.Policies[0].Name != "ratelimit-d" {
		t.Errorf("got %+v, %v, want two limits in ratelimit-d", r, err)
	}
	files[1].Text = []byte(one)
	if _, err = Convert(files, Options{ControlPoint: byDomain, MergeDomains: true}); err == nil || !strings.Contains(err.Error(), "line 2, already") {
		t.Errorf("got %v, want the same descriptor refused", err)
	}
	r, err = convert(one, strings.Replace(two, "domain: d", "domain: e", 1))
	if err != nil || r.Policies[0].Name != "ratelimit" || !strings.Contains(string(r.Policies[0].Text), `"ratelimit/e"`) {
		t.Errorf("got %+v, %v, want both domains in ratelimit", r, err)
	}
}

func TestKeysThatCouldBeMistaken(t *testing.T) {
	const limit = "rate_limit: {unit: day, requests_per_unit: 1}}"
	r, err := convert("domain: d\ndescriptors:\n- {key: remote_address, " + limit + "\n- {key: remote, " + limit + "\n- {key: remotely, " + limit)
	if err != nil {
		t.Fatal(err)
	}
	const want = `a.yaml:3:4: differs: envoyproxy/ratelimit takes an entry with the key "remote" and a value that begins with "address" for this key; here it is not`
	if len(r.Remarks) != 1 || r.Remarks[0].String() != want {
		t.Errorf("got %v, want %s", r.Remarks, want)
	}
	r, err = convert("domain: d\ndescriptors:\n- {key: remote*, " + limit + "\n- {key: path, " + limit)
	if err != nil || r.Limits != 1 || len(r.Remarks) != 1 || !strings.Contains(r.Remarks[0].Text, "beginning of keys") {
		t.Errorf("got %+v, %v, want one limit and a remark about the other", r, err)
	}
}

func TestSharedCounters(t *testing.T) {
	const share = "{key: file, value: 'img*', share_threshold: true, rate_limit: {unit: day, requests_per_unit: 1}}"
	r, err := convert("domain: d\ndescriptors: [{key: user, descriptors: [" + share + "]}]")
	if err != nil || r.Differs() || !strings.Contains(string(r.Policies[0].Text), "limit_by_label_key: ratelimit.value.1") {
		t.Errorf("got %+v, %v, want a limit by the first value", r, err)
	}
	r, err = convert("domain: d\ndescriptors: [{key: user, descriptors: [{key: host, descriptors: [" + share + "]}]}]")
	if err != nil || !r.Differs() {
		t.Errorf("got %+v, %v, want a remark", r, err)
	}
}

// What has to be said of each limit grows with the number of nodes beside those above it.
func TestTooLarge(t *testing.T) {
	var b strings.Builder
	b.WriteString("domain: d\ndescriptors:\n- key: a\n  descriptors:\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "  - {key: a, value: %d, rate_limit: {unit: day}}\n", i)
	}
	for i := range 1000 {
		fmt.Fprintf(&b, "- {key: a, value: %d%s}\n", i, strings.Repeat("x", 40))
	}
	_, err := convert(b.String())
	var list fielderr.List
	if !errors.As(err, &list) || !strings.Contains(err.Error(), "too large; got values that make conditions of more than 32 MiB") {
		t.Errorf("got %.300v, want it refused", err)
	}
}

func TestNoLimits(t *testing.T) {
	_, err := convert("domain: d\ndescriptors: [{key: a, rate_limit: {unlimited: true}}]")
	if !errors.Is(err, ErrNoLimits) {
		t.Errorf("got %v, want ErrNoLimits", err)
	}
}

func TestLargeConfigurationsBecomeSeveralPolicies(t *testing.T) {
	var b strings.Builder
	b.WriteString("domain: d\ndescriptors:\n- {key: a, rate_limit: {unit: minute, requests_per_unit: 1}}\n")
	for i := range 1200 {
		fmt.Fprintf(&b, "- {key: a, value: v%d, rate_limit: {unit: minute, requests_per_unit: %d}}\n", i, i)
	}
	r, err := convert(b.String())
	if err != nil {
		t.Fatal(err)
	}
	if r.Limits != 1201 || len(r.Policies) < 2 || r.Policies[1].Name != "ratelimit-d-2" {
		t.Errorf("%d limits in %d policies, want 1201 in several", r.Limits, len(r.Policies))
	}
}

// FuzzConvert makes valid policies, which Convert checks itself, or says what is wrong.
func FuzzConvert(f *testing.F) {
	example, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example))
	f.Add("domain: \"\\x00\\n\"\ndescriptors: [{key: \"a\\\\,=\", value: \"\\u2028*\", rate_limit: {unit: YEAR, requests_per_unit: 4294967295}}]")
	f.Add("domain: d\ndescriptors: [{key: a*, rate_limit: {unit: day}}, {key: a, value: '*', rate_limit: {unit: day}}, {key: a, value: b**, rate_limit: {unit: day}}]")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := convert(text)
		var list fielderr.List
		if err != nil && !errors.Is(err, ErrNoLimits) && !errors.As(err, &list) {
			t.Fatal(err)
		}
	})
}
