// SPDX-License-Identifier: Apache-2.0

package rego_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/classify/rego"
)

func read(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func compile(t testing.TB, module string, labels ...string) classify.Ruleset {
	t.Helper()
	spec := classify.Rego{Module: module, Bounds: classify.Bounds{Timeout: 5 * time.Second}} // slow machines
	for _, l := range labels {
		spec.Labels = append(spec.Labels, classify.RegoLabel{Key: l, Telemetry: true})
	}
	set, err := rego.New(rego.Config{}).Compile(spec)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// eval returns labels by key, or the code of the error.
func eval(t testing.TB, set classify.Ruleset, r *classify.Request) (map[string]string, classify.Code) {
	t.Helper()
	before := []classify.Label{{Key: "before"}}
	out, err := set.Eval(&classify.Input{Request: r}, before)
	if err != nil {
		var problem *classify.Error
		if !errors.As(err, &problem) || problem.Code == classify.CodeNone || problem.Message == "" {
			t.Fatalf("got error %#v, want one with a code", err)
		}
		if len(out) != 1 {
			t.Fatalf("got labels %v with an error", out)
		}
		return nil, problem.Code
	}
	labels := map[string]string{}
	for _, l := range out[1:] {
		labels[l.Key] = l.Value
	}
	return labels, classify.CodeNone
}

func post(body string) *classify.Request {
	return &classify.Request{
		Method: "POST", Path: "/v1/graphql", Headers: map[string]string{"content-type": "application/json"}, Body: body,
		SourceServices: []string{"agent-service.cloud.svc.cluster.local"},
	}
}

// TestGraphQL labels operations of GraphQL with the module of a policy that protects a database behind Hasura.
func TestGraphQL(t *testing.T) {
	set := compile(t, read(t, "testdata/hasura.rego"), "source", "operation")
	for body, want := range map[string]map[string]string{
		`{"query":"mutation M($n: String!) { insert_users_one(object: {name: $n}) { id } }","variables":{"n":"a"}}`: {"operation": "mutation"},
		`{"query":"query Q { users(limit: 10) { id name } }"}`:                                                      {"operation": "query"},
		`{"query":"{ users { id } }"}`: {"operation": "query"},
		`{"query":"mutation {"}`:       {}, // no GraphQL
		`{"query":5}`:                  {},
		`{}`:                           {},
		`{"query":`:                    {}, // no JSON
		``:                             {},
	} {
		want["source"] = "agent-service.cloud.svc.cluster.local"
		got, code := eval(t, set, post(body))
		if diff := cmp.Diff(want, got); diff != "" || code != classify.CodeNone {
			t.Errorf("%s: code %d (-want +got):\n%s", body, code, diff)
		}
	}
	two := post(`{"query":"query A { a } mutation B { b }"}`)
	if _, code := eval(t, set, two); code != classify.CodeEvalFailed {
		t.Errorf("two operations: got code %d, want a conflict", code)
	}
}

func token(t testing.TB, payload, secret string) string {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode([]byte(payload))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}

// TestGraphQLUser labels who creates something, by a token that the module verifies.
func TestGraphQLUser(t *testing.T) {
	set := compile(t, read(t, "testdata/todo.rego"), "user_id")
	create := `{"query":"mutation createTodo { createTodo(input: {text: \"x\"}) { user { id } text } }"}`
	for name, c := range map[string]struct {
		body, secret string
		want         map[string]string
	}{
		"create":        {create, "secret", map[string]string{"user_id": "6"}},
		"wrong secret":  {create, "other", map[string]string{}},
		"another query": {`{"query":"query { todos { id } }"}`, "secret", map[string]string{}},
	} {
		r := post(c.body)
		r.Headers["authorization"] = "Bearer " + token(t, `{"userID":6}`, c.secret)
		if got, code := eval(t, set, r); cmp.Diff(c.want, got) != "" || code != 0 {
			t.Errorf("%s: got %v code %d, want %v", name, got, code, c.want)
		}
	}
}

func TestVersionsOfRego(t *testing.T) {
	for name, module := range map[string]string{
		"v0":             "package a\nx = y { y := input.attributes.request.http.method }",
		"v0 with import": "package a\nimport future.keywords.if\nx := y if { y := input.attributes.request.http.method }",
		"v1":             "package a\nx := input.attributes.request.http.method",
		"v1 with if":     "package a\nx := y if y := input.attributes.request.http.method",
		"v1 import":      "package a\nimport rego.v1\nx := y if { y := input.attributes.request.http.method }",
		"nested package": "# comment\npackage a.b.c\nx := input.attributes.request.http.method",
		"odd package":    "package a[\"b-c\"]\nx := input.attributes.request.http.method",
		"else":           "package a\nx = \"no\" { false } else = input.attributes.request.http.method { true }",
	} {
		got, code := eval(t, compile(t, module, "x", "absent"), &classify.Request{Method: "PUT"})
		if diff := cmp.Diff(map[string]string{"x": "PUT"}, got); diff != "" || code != 0 {
			t.Errorf("%s: code %d (-want +got):\n%s", name, code, diff)
		}
	}
}

func TestText(t *testing.T) {
	module := `package a
n := 42
f := 1.50
b := true
z := null
s := "a b"
l := [1, "x"]
o := {"k": [2]}
set := {"b", "a"}
big := 12345678901234567890
num := json.unmarshal("{\"n\": 1e2}").n
hidden := "hidden"
`
	got, _ := eval(t, compile(t, module, "n", "f", "b", "z", "s", "l", "o", "set", "big", "num"), &classify.Request{})
	want := map[string]string{
		"n": "42", "f": "1.50", "b": "true", "z": "null", "s": "a-b", "l": "[1--x-]", "o": "{-k-:[2]}", "set": "[-a---b-]",
		"big": "12345678901234567890", "num": "1e2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("texts differ (-want +got):\n%s", diff)
	}
}

func TestCodes(t *testing.T) {
	for module, want := range map[string]classify.Code{
		"package a\nx := 1 if input.attributes\nx := 2 if input.attributes": classify.CodeEvalFailed,
		"package a\nf(x) := 1":  classify.CodeNone,
		"package a\nx := 1 / 0": classify.CodeNone, // undefined
		"package a\nx if { some i in numbers.range(1, 100000000); i < 0 }": classify.CodeBounds,
	} {
		set, err := rego.New(rego.Config{}).Compile(classify.Rego{
			Module: module, Labels: []classify.RegoLabel{{Key: "x"}}, Bounds: classify.Bounds{Timeout: 50 * time.Millisecond},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, code := eval(t, set, &classify.Request{}); code != want {
			t.Errorf("%s: got code %d, want %d", module, code, want)
		}
	}
}

// TestInput compares the whole input with what modules of Aperture expect.
func TestInput(t *testing.T) {
	set := compile(t, "package a\nall := json.marshal(input)", "all")
	show := func(r *classify.Request) string {
		t.Helper()
		out, err := set.Eval(&classify.Input{Request: r}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return out[0].Value
	}
	r := &classify.Request{
		Method: "GET", Path: "/test/test2?param1=val", Host: "localhost", Scheme: "http", Protocol: "HTTP/1.1", Size: 21,
		Headers: map[string]string{"content-type": "application/json"}, Body: `{ "myjson": "value" }`,
		Source: classify.Address{Text: "10.0.0.1", Port: 1234}, Destination: classify.Address{Text: "10.0.0.2", Port: 80},
		DestinationServices: []string{"web"},
	}
	clean := func(s string) string { return classify.Sanitize(s) }
	want := `{"attributes":{"destination":{"destination_fqdns":["web"],"socketAddress":{"address":"10.0.0.2","port":80}},` +
		`"request":{"http":{"body":"{ \"myjson\": \"value\" }","headers":{"content-type":"application/json"},"host":"localhost","method":"GET",` +
		`"path":"/test/test2?param1=val","protocol":"HTTP/1.1","scheme":"http","size":21}},"source":{"socketAddress":{"address":"10.0.0.1","port":1234}}},` +
		`"parsed_body":{"myjson":"value"},"parsed_path":["test","test2"],"parsed_query":{"param1":["val"]},"truncated_body":false}`
	if diff := cmp.Diff(clean(want), show(r)); diff != "" {
		t.Errorf("input differs (-want +got):\n%s", diff)
	}
	want = `{"attributes":{"destination":{"socketAddress":{"address":"","port":0}},"request":{"http":{"body":"","headers":{},"host":"","method":"","path":"",` +
		`"protocol":"","scheme":"","size":0}},"source":{"socketAddress":{"address":"","port":0}}},"parsed_body":{},"parsed_path":[""],"parsed_query":{},"truncated_body":false}`
	if diff := cmp.Diff(clean(want), show(&classify.Request{})); diff != "" {
		t.Errorf("input of nothing differs (-want +got):\n%s", diff)
	}
}

const multipartBody = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n2\r\n" +
	"--b\r\nContent-Disposition: form-data; name=\"j\"\r\nContent-Type: application/json\r\n\r\n{\"x\":[3]}\r\n--b--\r\n"

func TestBodies(t *testing.T) {
	set := compile(t, "package a\nbody := input.parsed_body\ncut := input.truncated_body", "body", "cut")
	header := func(kind, length string) map[string]string {
		h := map[string]string{"content-type": kind}
		if length != "" {
			h["content-length"] = length
		}
		return h
	}
	form := "application/x-www-form-urlencoded"
	for name, c := range map[string]struct {
		headers map[string]string
		body    string
		want    map[string]string
	}{
		"json":                  {header("application/json; charset=utf-8", "7"), `{"a":1}`, map[string]string{"body": "{-a-:1}", "cut": "false"}},
		"json longer":           {header("application/json", "5"), `{"a":1}`, map[string]string{"body": "{-a-:1}", "cut": "false"}},
		"json unknown length":   {header("application/json", "-1"), `{"a":1}`, map[string]string{"body": "{-a-:1}", "cut": "false"}},
		"json cut":              {header("application/json", "64"), `{"a":1`, map[string]string{"body": "null", "cut": "true"}},
		"json empty":            {header("application/json", "0"), ``, map[string]string{"body": "null", "cut": "false"}},
		"json malformed":        {header("application/json", ""), `{"a":1`, map[string]string{}},
		"json twice":            {header("application/json", ""), `{} {}`, map[string]string{}},
		"bad length":            {header("application/json", "x"), `{}`, map[string]string{}},
		"huge length":           {header("application/json", "99999999999999999999"), `{}`, map[string]string{}},
		"deep":                  {header("application/json", ""), strings.Repeat("[", 5000) + strings.Repeat("]", 5000), map[string]string{}},
		"many values":           {header("application/json", ""), "[" + strings.Repeat("1,", 60_000) + "1]", map[string]string{"body": "null", "cut": "true"}},
		"huge number":           {header("application/json", ""), `[1e999999999]`, map[string]string{"body": "null", "cut": "true"}},
		"too long":              {header("application/json", ""), `"` + strings.Repeat("x", 1<<20) + `"`, map[string]string{"body": "null", "cut": "true"}},
		"envoy says partial":    {map[string]string{"content-type": "application/json", "x-envoy-auth-partial-body": "true"}, `{"a":1}`, map[string]string{"body": "null", "cut": "true"}},
		"form":                  {header(form, "12"), "a=1&b=x+y&a=2", map[string]string{"body": "{-a-:[-1---2-]--b-:[-x-y-]}", "cut": "false"}},
		"form cut":              {header(form, "64"), "a=1", map[string]string{"body": "null", "cut": "true"}},
		"form malformed":        {header(form, ""), "a=%zz", map[string]string{}},
		"form with many fields": {header(form, ""), strings.Repeat("a&", 20_000), map[string]string{"body": "null", "cut": "true"}},
		"multipart":             {header("multipart/form-data; boundary=b", ""), multipartBody, map[string]string{"body": "{-a-:[-1---2-]--j-:[{-x-:[3]}]}", "cut": "false"}},
		"multipart cut short":   {header("multipart/form-data; boundary=b", ""), multipartBody[:60], map[string]string{}},
		"multipart no boundary": {header("multipart/form-data", ""), multipartBody, map[string]string{"body": "null", "cut": "false"}},
		"text":                  {header("text/plain", ""), "hello", map[string]string{"body": "{}", "cut": "false"}},
		"none":                  {nil, "hello", map[string]string{"body": "{}", "cut": "false"}},
		"not UTF-8":             {header("application/json", ""), "{\"a\":\"\xff\"}", map[string]string{"body": "{-a-:-\uFFFD-}", "cut": "false"}},
	} {
		got, code := eval(t, set, &classify.Request{Headers: c.headers, Body: c.body, Envoy: strings.HasPrefix(name, "envoy")})
		if diff := cmp.Diff(c.want, got); diff != "" || code != 0 {
			t.Errorf("%s: code %d (-want +got):\n%s", name, code, diff)
		}
	}
}

func TestPaths(t *testing.T) {
	set := compile(t, "package a\np := concat(\"|\", input.parsed_path)\nq := input.parsed_query", "p", "q")
	for path, want := range map[string]map[string]string{
		"/a/b/?x=1&x=2":                   {"p": "a|b|", "q": "{-x-:[-1---2-]}"},
		"//host/a":                        {"p": "host|a", "q": "{}"},
		"/a%2Fb":                          {"p": "a|b", "q": "{}"},
		"/a%zz":                           {},
		"/?%zz&b":                         {"p": "", "q": "{-b-:[--]}"},
		"/a#b?c":                          {"p": "a", "q": "{}"},
		"/" + strings.Repeat("x", 70_000): {},
		"\x00\xff":                        {"p": "\x00\uFFFD", "q": "{}"},
	} {
		if got, code := eval(t, set, &classify.Request{Path: path}); cmp.Diff(want, got) != "" || code != 0 {
			t.Errorf("%.30q: got %v, code %d, want %v", path, got, code, want)
		}
	}
}

// TestShared: several modules of one flow that need different parts of the input.
func TestShared(t *testing.T) {
	r := &classify.Request{Method: "GET", Path: "/a", Headers: map[string]string{"content-type": "application/json"}, Body: `{"b":1}`}
	in := &classify.Input{Request: r}
	var got []string
	for _, module := range []string{
		"package a\nx := input.attributes.request.http.method", "package a\nx := input.parsed_body.b",
		"package a\nx := input.attributes.request.http.headers[\"content-type\"]", "package a\nx := input.attributes.request.http.body",
		"package a\nx := input.attributes.source.socketAddress.port", "package a\nx := count(input.attributes.request.http)",
		"package a\nx := count([k | some k, _ in input.attributes])", "package a\nx := input.attributes[\"request\"].http.method",
		"package a\nh := \"http\"\nx := input.attributes.request[h].method",
		"package a\nx := input.parsed_path[0]", "package a\ni := input\nx := i.parsed_path[0]",
		"package a\nx := count(input)", "package a\nk := \"parsed_path\"\nx := input[k][0]",
		"package a\nx := y if { y := input.parsed_body.b with input as {\"parsed_body\": {\"b\": 7}} }",
	} {
		out, err := compile(t, module, "x").Eval(in, nil)
		if err != nil || len(out) != 1 {
			t.Fatalf("%s: got %v, %v", module, out, err)
		}
		got = append(got, out[0].Value)
	}
	if diff := cmp.Diff([]string{"GET", "1", "application-json", "{-b-:1}", "0", "8", "3", "GET", "GET", "a", "a", "5", "a", "7"}, got); diff != "" {
		t.Errorf("labels differ (-want +got):\n%s", diff)
	}
}

func TestProblems(t *testing.T) {
	for module, want := range map[string]string{
		"x := 1":                              "1:1: failed to get package name from rego module",
		"":                                    "1:1: failed to get package name from rego module",
		"package a\nx := ":                    "2:",
		"package a\nx := y":                   "2:6: var y is unsafe",
		"package a\n\n  x := http.send({}).a": "3:8: undefined function http.send; classifiers cannot reach out of the process",
		"package a\nx := opa.runtime()":       "undefined function opa.runtime",
		"package a\nx := net.lookup_ip_addr(\"a\")":               "undefined function net.lookup_ip_addr",
		"package a\nimport rego.v1\nx := 1 { true }":              "3:",
		"package a\nx := nosuch(1)":                               "2:6: undefined function nosuch",
		"package a\nx := 1 + \"a\"":                               "2:6: plus: invalid argument(s)",
		"package a\nx if x":                                       "is recursive",
		"package a\n#" + strings.Repeat("x", rego.MaxModuleBytes): "too large",
	} {
		_, err := rego.New(rego.Config{}).Compile(classify.Rego{Module: module})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %s", module, err, want)
		}
	}
	warnings := rego.New(rego.Config{}).Check("package a\nuser_id := 1", []string{"user_id", "user-id"})
	want := `1:1: warning: the module has no rule "user-id": this label is never made; did you mean "user_id"?`
	if warnings.Error() != want || warnings.Err() != nil {
		t.Errorf("got %v, want %s", warnings, want)
	}
}

// TestForbidden: nothing that reaches out of the process compiles.
func TestForbidden(t *testing.T) {
	for _, name := range rego.Forbidden {
		for _, module := range []string{"package a\nx := " + name + "(1)", "package a\nx := y if y := 1 with input as " + name + "({})"} {
			problems := rego.New(rego.Config{}).Check(module, nil)
			if !strings.Contains(problems.Error(), "undefined function "+name+"; classifiers cannot reach out of the process") {
				t.Errorf("%s: got %v, want a refusal", name, problems)
			}
		}
	}
}

// TestPrint: print has no effect and does not fail.
func TestPrint(t *testing.T) {
	got, code := eval(t, compile(t, "package a\nx := 1 if { print(\"hello\"); trace(\"there\") }", "x"), &classify.Request{})
	if got["x"] != "1" || code != 0 {
		t.Errorf("got %v, code %d", got, code)
	}
}

// hostile are modules that would run for ever or take all memory.
var hostile = map[string]string{
	"loops":       "package a\nx if { some i, j, k; numbers.range(1, 10000)[i]; numbers.range(1, 10000)[j]; numbers.range(1, 10000)[k]; i + j + k < 0 }",
	"array":       "package a\nx := [[i, j] | some i in numbers.range(1, 100000); some j in numbers.range(1, 100000)]",
	"range":       "package a\nx := numbers.range(1, 1000000000)",
	"expand":      "package a\nx := net.cidr_expand(\"10.0.0.0/7\")",
	"concat":      "package a\nx := concat(\"\", [s | some i in numbers.range(1, 1000000); s := \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"])",
	"permutation": "package a\nl := [x | some x in numbers.range(1, 40)]\nx := count([1 | some a in l; some b in l; some c in l; some d in l; some e in l; a + b + c + d + e > 0])",
}

// TestHostile: such modules are interrupted, and take little memory meanwhile.
func TestHostile(t *testing.T) {
	for name, module := range hostile {
		t.Run(name, func(t *testing.T) {
			set, err := rego.New(rego.Config{}).Compile(classify.Rego{Module: module, Labels: []classify.RegoLabel{{Key: "x"}}})
			if err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, code := eval(t, set, &classify.Request{})
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			allocated := (after.TotalAlloc - before.TotalAlloc) >> 20
			t.Logf("interrupted after %v, %d MiB", took, allocated)
			if code != classify.CodeBounds {
				t.Errorf("got code %d, want bounds", code)
			}
			if took > 2*time.Second || allocated > 200 {
				t.Errorf("took %v and %d MiB", took, allocated)
			}
		})
	}
}

// TestConcurrency: no more evaluations run than there may be, and those that wait too long fail.
func TestConcurrency(t *testing.T) {
	l := rego.New(rego.Config{Concurrency: 1})
	set, err := l.Compile(classify.Rego{Module: hostile["loops"], Labels: []classify.RegoLabel{{Key: "x"}}, Bounds: classify.Bounds{Timeout: 30 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	quick, err := l.Compile(classify.Rego{Module: "package a\nx := 1", Labels: []classify.RegoLabel{{Key: "x"}}, Bounds: classify.Bounds{Timeout: 10 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, code := eval(t, set, &classify.Request{}); code != classify.CodeBounds {
				t.Errorf("got code %d, want bounds", code)
			}
		})
		all.Go(func() {
			if got, code := eval(t, quick, &classify.Request{}); got["x"] != "1" {
				t.Errorf("got %v, code %d, want it after the others", got, code)
			}
		})
	}
	all.Wait()
}

// TestWaiting: an evaluation that finds all processors taken waits for its time and no longer.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := rego.New(rego.Config{Concurrency: 1})
		release := rego.Occupy(l)
		set, err := l.Compile(classify.Rego{Module: "package a\nx := 1", Labels: []classify.RegoLabel{{Key: "x"}}})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, code := eval(t, set, &classify.Request{}); code != classify.CodeBounds || time.Since(start) != 10*time.Millisecond {
			t.Errorf("got code %d after %v, want bounds after 10ms", code, time.Since(start))
		}
		go func() {
			time.Sleep(4 * time.Millisecond)
			release()
		}()
		if got, code := eval(t, set, &classify.Request{}); got["x"] != "1" {
			t.Errorf("got %v, code %d, want it when a processor is free", got, code)
		}
	})
}

// FuzzCompile: hostile modules are refused with places, or can be evaluated within bounds.
func FuzzCompile(f *testing.F) {
	f.Add(read(f, "testdata/hasura.rego"))
	f.Add(read(f, "testdata/todo.rego"))
	f.Add("package a\nx := y if y := input[_]")
	f.Add("package a\nx contains 1")
	l := rego.New(rego.Config{})
	f.Fuzz(func(t *testing.T, module string) {
		set, err := l.Compile(classify.Rego{Module: module, Labels: []classify.RegoLabel{{Key: "x"}}})
		if err != nil {
			if problems := l.Check(module, nil); len(problems) == 0 || problems[0].Line < 1 || problems[0].Column < 1 {
				t.Fatalf("got %v, want problems with places", problems)
			}
			return
		}
		eval(t, set, post(`{"query":"query { a }"}`))
	})
}

// FuzzBody: whatever a body and its type are, no label or an error and no panic.
func FuzzBody(f *testing.F) {
	f.Add("application/json", `{"query":"query { a }"}`, "")
	f.Add("multipart/form-data; boundary=b", multipartBody, "")
	f.Add("application/x-www-form-urlencoded", "query=query+{a}", "5")
	module := "package a\nx := input.parsed_body\ny := graphql.parse_query(input.parsed_body.query)\nz := input.parsed_query\nw := input.attributes"
	set := compile(f, module, "w", "x", "y", "z")
	f.Fuzz(func(t *testing.T, kind, body, length string) {
		r := &classify.Request{Path: "/" + body, Body: body, Headers: map[string]string{"content-type": kind}}
		if length != "" {
			r.Headers["content-length"] = length
		}
		eval(t, set, r)
	})
}

func BenchmarkEval(b *testing.B) {
	for _, c := range []struct{ name, module, label, body string }{
		{"method", "package a\nx := input.attributes.request.http.method", "x", ""},
		{"graphql", read(b, "testdata/hasura.rego"), "operation", `{"query":"query Q { users(limit: 10) { id name } }"}`},
		{"json", "package a\nx := input.parsed_body.user.name", "x", `{"user":{"name":"ann","id":7},"items":[1,2,3]}`},
	} {
		b.Run(c.name, func(b *testing.B) {
			set := compile(b, c.module, c.label)
			r := post(c.body)
			for i := range 15 {
				r.Headers[fmt.Sprintf("x-header-%d", i)] = "value"
			}
			b.ReportAllocs()
			var out []classify.Label
			for b.Loop() {
				var err error
				if out, err = set.Eval(&classify.Input{Request: r}, out[:0]); err != nil || len(out) != 1 {
					b.Fatal(out, err)
				}
			}
		})
	}
}
