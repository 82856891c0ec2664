// SPDX-License-Identifier: Apache-2.0

package classify_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/internal/classify"
)

func compile(t testing.TB, extractors map[string]classify.Extractor) classify.Ruleset {
	t.Helper()
	var spec classify.Spec
	for key, e := range extractors {
		spec.Rules = append(spec.Rules, classify.Rule{Label: key, Extractor: e, Telemetry: true})
	}
	set, err := classify.Compile(spec)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// eval returns the labels by key, and the code of an error.
func eval(t testing.TB, set classify.Ruleset, in *classify.Input) (map[string]string, classify.Code) {
	t.Helper()
	out, err := set.Eval(in, nil)
	if err != nil {
		var problem *classify.Error
		if !errors.As(err, &problem) || len(out) > 0 {
			t.Fatalf("got %v and error %#v, want an *Error and no labels", out, err)
		}
		return nil, problem.Code
	}
	got := map[string]string{}
	for _, l := range out {
		if _, twice := got[l.Key]; twice || !l.Telemetry {
			t.Errorf("label %+v comes twice or is not for analytics", l)
		}
		got[l.Key] = l.Value
	}
	return got, classify.CodeNone
}

// one evaluates one extractor; "-" stands for no label.
func one(t testing.TB, e classify.Extractor, r *classify.Request) string {
	t.Helper()
	got, code := eval(t, compile(t, map[string]classify.Extractor{"x": e}), &classify.Input{Request: r})
	if code != classify.CodeNone {
		return fmt.Sprintf("code %d", code)
	}
	if value, ok := got["x"]; ok {
		return value
	}
	return "-"
}

func TestFrom(t *testing.T) {
	r := &classify.Request{
		ID: "id1", Method: "GET", Path: "/a?b", Host: "h", Protocol: "HTTP/1.1", Body: "body text",
		Headers: map[string]string{"x-user": "ann", "authorization": "Bearer abc.def", "empty": ""},
		Source:  classify.Address{Text: "10.0.0.1", Port: 8080}, Destination: classify.Address{Text: "/run/s.sock"},
		Metadata: map[string]any{
			"envoy.filters.http.x": map[string]any{"type": "ingress", "n": 5.0, "list": []any{"a", true}, "a.b": map[string]any{"c": "deep"}},
			"envoy":                map[string]any{"y": "short"}, "nil": nil,
		},
	}
	for from, want := range map[string]string{
		"request.http.id": "id1", "request.http.method": "GET", "request.http.path": "-a?b", "request.http.host": "h",
		"request.http.protocol": "HTTP-1.1", "request.http.body": "body-text", "request.http.bearer": "abc.def",
		"request.http.headers.x-user": "ann", "request.http.headers.nope": "-", "request.http.headers.empty": "",
		"source.address": "10.0.0.1:8080", "source.address.socketAddress.address": "10.0.0.1", "source.address.socketAddress.portValue": "8080",
		"source.socketAddress.port": "8080", "source.address.pipe.path": "-", "destination.address": "-run-s.sock", "destination.address.pipe.path": "-run-s.sock",
		"destination.address.socketAddress.address": "-", "destination.address.socketAddress.portValue": "-",
		"metadataContext.filterMetadata.envoy.filters.http.x.type":  "ingress",
		"metadataContext.filterMetadata.envoy.filters.http.x.n":     "5",
		"metadataContext.filterMetadata.envoy.filters.http.x.list":  "[-a--true]",
		"metadataContext.filterMetadata.envoy.filters.http.x.a.b.c": "deep",
		"metadataContext.filterMetadata.envoy.y":                    "short",
		"metadataContext.filterMetadata.envoy.y.z":                  "-",
		"metadataContext.filterMetadata.nil":                        "null",
		"metadataContext.filterMetadata.nope":                       "-",
	} {
		if got := one(t, classify.Extractor{From: from}, r); got != want {
			t.Errorf("%s: got %q, want %q", from, got, want)
		}
	}
	six := &classify.Request{Source: classify.Address{Text: "::1", Port: 80}}
	if got := one(t, classify.Extractor{Address: "source.address"}, six); got != "[::1]:80" {
		t.Errorf("IPv6: got %q", got)
	}
	if got := one(t, classify.Extractor{Address: "destination.address"}, six); got != "-" {
		t.Errorf("no address: got %q", got)
	}
	for _, authorization := range []string{"", "Basic abc", "bearer abc", "Bearer"} {
		r := &classify.Request{Headers: map[string]string{"authorization": authorization}}
		if got := one(t, classify.Extractor{From: "request.http.bearer"}, r); got != "-" {
			t.Errorf("authorization %q: got %q, want no label", authorization, got)
		}
	}
}

func TestJSON(t *testing.T) {
	for _, c := range []struct{ body, pointer, want string }{
		{`{"user":{"name":"ann"}}`, "/user/name", "ann"},
		{` { "user" : { "name" : "ann" } } `, "/user/name", "ann"},
		{`{"user":{"name":"ann"}}`, "/user", `{-name-:-ann-}`},
		{`{"n":42,"f":1.50,"e":1e2,"b":true,"z":null}`, "/n", "42"},
		{`{"n":42,"f":1.50,"e":1e2,"b":true,"z":null}`, "/f", "1.50"},
		{`{"n":42,"f":1.50,"e":1e2,"b":true,"z":null}`, "/e", "1e2"},
		{`{"n":42,"f":1.50,"e":1e2,"b":true,"z":null}`, "/b", "true"},
		{`{"n":42,"f":1.50,"e":1e2,"b":true,"z":null}`, "/z", "null"},
		{`[10,[20,30]]`, "/1/0", "20"},
		{`[10,[20,30]]`, "/2", "-"},
		{`[10]`, "/00", "-"},
		{`{"0":"key"}`, "/0", "key"},
		{`{"a/b":{"m~n":1}}`, "/a~1b/m~0n", "1"},
		{`{"":{"":2}}`, "//", "2"},
		{`"text"`, "", "text"},
		{`{"a":1,"a":2}`, "/a", "2"},
		{`{"a":{"b":1},"a":{}}`, "/a/b", "-"},
		{`{"a":{"b":1},"a":3}`, "/a/b", "-"},
		{`{"\u0061":"\u00fc\n\ud83d\ude00"}`, "/a", "ü-😀"},
		{`{"a":"x\"y\\z"}`, "/a", `x-y-z`},
		{"{\"a\":\"\xff\"}", "/a", "\uFFFD"},
		{`{"a":"` + strings.Repeat("ü", 5000) + `"}`, "/a", strings.Repeat("ü", 2048)},
		{`{"a":{"b":1}}`, "/a/b/c", "-"},
		{`{}`, "/a", "-"},
		{`{"a":1`, "/a", "-"}, // malformed or cut: no label, whatever was found before
		{`{"a":1}}`, "/a", "-"},
		{`{"a":1} x`, "/a", "-"},
		{`{"a":01}`, "/a", "-"},
		{`{"a":1,}`, "/a", "-"},
		{`{a:1}`, "/a", "-"},
		{`{"a":"` + "\n" + `"}`, "/a", "-"},
		{`{"a":"\x"}`, "/a", "-"},
		{`{"a":"\u12"}`, "/a", "-"},
		{`{"a":nul}`, "/a", "-"},
		{``, "", "-"},
		{strings.Repeat("[", 1000) + strings.Repeat("]", 1000), "", "-"},
		{`{"a":1,"b":"` + strings.Repeat("x", 1<<20) + `"}`, "/a", "-"},
	} {
		e := classify.Extractor{JSON: &classify.JSON{From: "request.http.body", Pointer: c.pointer}}
		if got := one(t, e, &classify.Request{Body: c.body}); got != c.want {
			t.Errorf("%.60s %s: got %.60q, want %.60q", c.body, c.pointer, got, c.want)
		}
	}
	e := classify.Extractor{JSON: &classify.JSON{From: "request.http.headers.x-user", Pointer: "/id"}}
	if got := one(t, e, &classify.Request{Headers: map[string]string{"x-user": `{"id":7}`}}); got != "7" {
		t.Errorf("JSON in a header: got %q", got)
	}
}

// TestManyPointers: more pointers into one text than one pass follows.
func TestManyPointers(t *testing.T) {
	extractors, want, body := map[string]classify.Extractor{}, map[string]string{}, []string{}
	for i := range 150 {
		key := fmt.Sprintf("k%d", i)
		extractors[key] = classify.Extractor{JSON: &classify.JSON{From: "request.http.body", Pointer: "/" + key + "/v"}}
		want[key] = fmt.Sprint(i)
		body = append(body, fmt.Sprintf(`%q:{"v":%d}`, key, i))
	}
	extractors["other"] = classify.Extractor{JSON: &classify.JSON{From: "request.http.headers.x", Pointer: "/v"}}
	got, _ := eval(t, compile(t, extractors), &classify.Input{Request: &classify.Request{Body: "{" + strings.Join(body, ",") + "}"}})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("labels differ (-want +got):\n%s", diff)
	}
}

func jwt(payload string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"none"}`)) + "." + encode([]byte(payload)) + "." + encode([]byte("signature"))
}

func TestJWT(t *testing.T) {
	long := jwt(`{"sub":"ann","x":"` + strings.Repeat("y", 3000) + `"}`)
	for _, c := range []struct{ token, pointer, want string }{
		{jwt(`{"sub":"ann","roles":["a","b"]}`), "/sub", "ann"},
		{jwt(`{"sub":"ann","roles":["a","b"]}`), "/roles/1", "b"},
		{jwt(`{"n":1}`), "", "{-n-:1}"},
		{jwt(`{"sub":"ann"}`), "/nope", "-"},
		{long, "/sub", "ann"},
		{strings.Replace(jwt(`{"sub":"ann"}`), "eyJzdWIiOiJhbm4ifQ", "eyJzdWIiOiJhbm4ifQ==", 1), "/sub", "ann"},
		{jwt(`{"sub":"ann"`), "/sub", "-"},
		{jwt(``), "", "-"},
		{"a.b", "/sub", "-"},
		{"a.b.c.d", "/sub", "-"},
		{"a.!!!.c", "/sub", "-"},
		{"..", "", "-"},
		{"", "", "-"},
		{"abc", "", "-"},
	} {
		e := classify.Extractor{JWT: &classify.JSON{From: "request.http.bearer", Pointer: c.pointer}}
		if got := one(t, e, &classify.Request{Headers: map[string]string{"authorization": "Bearer " + c.token}}); got != c.want {
			t.Errorf("%.40s %s: got %q, want %q", c.token, c.pointer, got, c.want)
		}
	}
}

func TestCEL(t *testing.T) {
	r := &classify.Request{
		ID: "id", Method: "POST", Path: "/a?b=c", Host: "h", Scheme: "https", Protocol: "HTTP/1.1", Size: 20,
		Headers: map[string]string{"x-user": "Ann", "content-length": "58"},
		Body:    `{"user":{"name":"bob","id":12345678901234567,"f":1.5},"l":[1,2]}`,
		Source:  classify.Address{Text: "10.0.0.1", Port: 80}, SourceServices: []string{"web", "web2"},
	}
	in := func() *classify.Input {
		return &classify.Input{
			Request: r,
			Label:   func(key string) (string, bool) { return "gold", key == "tier" },
			EachLabel: func(f func(key, value string)) {
				f("tier", "gold")
				f("size", "5")
			},
		}
	}
	for text, want := range map[string]string{
		`request.headers["x-user"]`:                          "Ann",
		`request.headers["x-user"].lowerAscii()`:             "ann",
		`request.headers["nope"]`:                            "-",
		`request.headers[?"nope"].orValue("nobody")`:         "nobody",
		`request.headers[?"nope"]`:                           "-",
		`request.headers[?"x-user"]`:                         "Ann",
		`"x-user" in request.headers ? "yes" : "no"`:         "yes",
		`request.method + request.scheme`:                    "POSThttps",
		`request.path.split("?")[0]`:                         "-a",
		`request.path.split("?")[7]`:                         "-",
		`request.size`:                                       "20",
		`request.id`:                                         "id",
		`request.protocol == "HTTP/1.1"`:                     "true",
		`request.json.user.name`:                             "bob",
		`request.json.user.id`:                               "12345678901234567",
		`request.json.user.f`:                                "1.5",
		`request.json.l[1]`:                                  "2",
		`request.json.l`:                                     "[1-2]",
		`request.json.user`:                                  "",
		`request.json.?user.?nope`:                           "-",
		`request.json.user.nope`:                             "-",
		`request.json.nope.nope`:                             "-",
		`has(request.json.user.name) ? "named" : "unnamed"`:  "named",
		`request.json.user.id > 5 ? "big" : "small"`:         "big",
		`request.json.user.f > 1 ? "more" : "less"`:          "more",
		`request.body.size()`:                                "64",
		`source.address + ":" + string(source.port)`:         "10.0.0.1:80",
		`source.services[0]`:                                 "web",
		`source.services.exists(s, s == "web2") ? "a" : "b"`: "a",
		`destination.services.size()`:                        "0",
		`destination.address`:                                "-",
		`labels.tier`:                                        "gold",
		`labels["nope"]`:                                     "-",
		`has(labels.tier)`:                                   "true",
		`labels.size()`:                                      "2",
		`labels.exists(k, labels[k] == "gold")`:              "true",
		`labels.filter(k, k == "size")[0]`:                   "size",
		`1 / (request.size - 20)`:                            "code 1",
		`int(request.method)`:                                "code 1",
		`b"abc"`:                                             "abc",
		`null`:                                               "null",
		`duration("90s")`:                                    "90s",
		`[1, "a"]`:                                           "[1--a-]",
		`optional.none()`:                                    "-",
		`0.1 + 0.2`:                                          "0.30000000000000004",
	} {
		got, code := eval(t, compile(t, map[string]classify.Extractor{"x": {CEL: text}}), in())
		value, ok := got["x"]
		switch {
		case code != classify.CodeNone:
			value = fmt.Sprintf("code %d", code)
		case !ok:
			value = "-"
		case text == `request.json.user`: // the order of its members is not fixed
			value = ""
		}
		if value != want {
			t.Errorf("%s: got %q, want %q", text, value, want)
		}
	}
	for _, body := range []string{"", "{", "[" + strings.Repeat("1,", 60_000) + "1]", "1e99999"} {
		r := &classify.Request{Body: body}
		if got := one(t, classify.Extractor{CEL: "request.json"}, r); got != "-" {
			t.Errorf("%.20s: got %q, want no label", body, got)
		}
	}
}

// TestCELBounds: expressions that run for long, or build much, are cut off.
func TestCELBounds(t *testing.T) {
	list := "[" + strings.Repeat("1,", 300) + "1]"
	for _, text := range []string{
		list + ".map(a, " + list + ".map(b, a + b))",
		`request.body.replace("a", request.body)`,
		list + `.map(a, request.body.replace("a", request.body)).size()`,
	} {
		start := time.Now()
		got := one(t, classify.Extractor{CEL: text}, &classify.Request{Body: strings.Repeat("a", 5_000)})
		if got != "code 6" || time.Since(start) > 2*time.Second {
			t.Errorf("%.60s…: got %.40q after %v, want it cut off", text, got, time.Since(start))
		}
	}
}

func TestCompileErrors(t *testing.T) {
	for want, rules := range map[string][]classify.Rule{
		"label x: from: no such attribute": {{Label: "x", Extractor: classify.Extractor{From: "a"}}},
		"got 0 extractors":                 {{Label: "x"}},
		"got 2 extractors":                 {{Label: "x", Extractor: classify.Extractor{From: "request.http.method", CEL: "1"}}},
		"label x: json: a JSON pointer":    {{Label: "x", Extractor: classify.Extractor{JSON: &classify.JSON{From: "request.http.body", Pointer: "a"}}}},
		"label x: jwt: no such attribute":  {{Label: "x", Extractor: classify.Extractor{JWT: &classify.JSON{From: "a"}}}},
		"label x: address: not an address": {{Label: "x", Extractor: classify.Extractor{Address: "request.http.host"}}},
		"path_templates: '*' is not":       {{Label: "x", Extractor: classify.Extractor{PathTemplates: map[string]string{"/*/a": "b"}}}},
		"cel: 1:1: undeclared reference":   {{Label: "x", Extractor: classify.Extractor{CEL: "nope"}}},
		"has a rule already":               {{Label: "x", Extractor: classify.Extractor{CEL: "1"}}, {Label: "x", Extractor: classify.Extractor{CEL: "1"}}},
	} {
		if _, err := classify.Compile(classify.Spec{Rules: rules}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := classify.Compile(classify.Spec{Rego: &classify.Rego{}}); !errors.Is(err, classify.ErrNotCompiled) {
		t.Errorf("got %v, want ErrNotCompiled", err)
	}
}

// failing is a language whose modules always fail, or make a label.
type failing struct{ err error }

func (f failing) Eval(_ *classify.Input, out []classify.Label) ([]classify.Label, error) {
	if f.err != nil {
		return out, f.err
	}
	return append(out, classify.Label{Key: "b"}), nil
}

// TestAllOrNothing: a classifier that fails in part makes no labels.
func TestAllOrNothing(t *testing.T) {
	for _, want := range []error{nil, &classify.Error{Code: classify.CodeEvalFailed}} {
		set, err := classify.Compile(classify.Spec{
			Rules: []classify.Rule{{Label: "a", Extractor: classify.Extractor{From: "request.http.method"}}},
			Rego:  &classify.Rego{}, CompileRego: func(r classify.Rego) (classify.Ruleset, error) {
				if r.Bounds.Timeout != 10*time.Millisecond {
					t.Errorf("got bounds %+v, want the defaults", r.Bounds)
				}
				return failing{want}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		out, err := set.Eval(&classify.Input{Request: &classify.Request{}}, []classify.Label{{Key: "before"}})
		if err != want || want == nil && len(out) != 3 || want != nil && len(out) != 1 {
			t.Errorf("got %v, %v", out, err)
		}
	}
}

// FuzzJSON compares what pointers find with what encoding/json reads.
func FuzzJSON(f *testing.F) {
	f.Add(`{"a":{"b":[1,{"c":"\u00fc"}]}}`, "/a/b/1/c")
	f.Add(`{"a":1,"a":{"a":2}}`, "/a/a")
	f.Add(`[1e5,-0.5,"\ud800"]`, "/2")
	f.Add("{\"\\u0061\":\"\xff\"}", "/a")
	f.Fuzz(func(t *testing.T, body, pointer string) {
		set, err := classify.Compile(classify.Spec{Rules: []classify.Rule{{
			Label: "x", Extractor: classify.Extractor{JSON: &classify.JSON{From: "request.http.body", Pointer: pointer}}, Telemetry: true,
		}}})
		if err != nil {
			return
		}
		got, _ := eval(t, set, &classify.Input{Request: &classify.Request{Body: body}})
		value, found := got["x"]
		valid, _ := classify.CheckJSON(body)
		var native any
		d := json.NewDecoder(strings.NewReader(body))
		d.UseNumber()
		if err := d.Decode(&native); err != nil || !json.Valid([]byte(body)) {
			if valid || found {
				t.Fatalf("found %q in what encoding/json refuses: %v", value, err)
			}
			return
		}
		if !valid {
			if strings.Count(body, "[")+strings.Count(body, "{") < 200 {
				t.Fatal("refused what encoding/json reads")
			}
			return
		}
		want, ok := follow(native, pointer)
		if _, text := want.(string); ok != found || text && value != classify.Sanitize(want.(string)) && len(want.(string)) <= 4096 {
			t.Fatalf("found %q %v, want %q %v", value, found, want, ok)
		}
	})
}

// follow is RFC 6901 on what encoding/json makes.
func follow(v any, pointer string) (any, bool) {
	if pointer == "" {
		return v, true
	}
	for step := range strings.SplitSeq(pointer[1:], "/") {
		step = strings.ReplaceAll(strings.ReplaceAll(step, "~1", "/"), "~0", "~")
		switch inner := v.(type) {
		case map[string]any:
			value, ok := inner[step]
			if !ok {
				return nil, false
			}
			v = value
		case []any:
			var i int
			if _, err := fmt.Sscanf(step, "%d", &i); err != nil || fmt.Sprint(i) != step || i < 0 || i >= len(inner) {
				return nil, false
			}
			v = inner[i]
		default:
			return nil, false
		}
	}
	return v, true
}

// FuzzJWT: hostile tokens make a label or none.
func FuzzJWT(f *testing.F) {
	f.Add("Bearer "+jwt(`{"sub":"ann"}`), "/sub")
	f.Add("Bearer ..", "")
	f.Fuzz(func(t *testing.T, authorization, pointer string) {
		set, err := classify.Compile(classify.Spec{Rules: []classify.Rule{{
			Label: "x", Extractor: classify.Extractor{JWT: &classify.JSON{From: "request.http.bearer", Pointer: pointer}}, Telemetry: true,
		}}})
		if err == nil {
			eval(t, set, &classify.Input{Request: &classify.Request{Headers: map[string]string{"authorization": authorization}}})
		}
	})
}

// FuzzCEL: expressions of extractors are refused or give a label, none or a code.
func FuzzCEL(f *testing.F) {
	f.Add(`request.json.?a.orValue(labels.x)`, `{"a":1}`)
	f.Add(`request.headers.filter(k, k.startsWith("x")).map(k, request.headers[k])`, "")
	f.Fuzz(func(t *testing.T, text, body string) {
		if text == "" {
			return
		}
		set, err := classify.Compile(classify.Spec{Rules: []classify.Rule{{Label: "x", Extractor: classify.Extractor{CEL: text}, Telemetry: true}}})
		if err != nil {
			return
		}
		r := &classify.Request{Body: body, Headers: map[string]string{"x-a": "1"}}
		eval(t, set, &classify.Input{Request: r, Label: r.Label, EachLabel: func(f func(string, string)) {
			r.EachLabel(func(key, value string, _ bool) { f(key, value) })
		}})
	})
}

func BenchmarkExtractors(b *testing.B) {
	templates := map[string]string{"/*": "other"}
	for i := range 20 {
		templates[fmt.Sprintf("/service%d/{id}/*", i)] = "x"
	}
	r := &classify.Request{
		Method: "POST", Path: "/service7/12/orders?page=2",
		Headers: map[string]string{"x-user": "ann", "authorization": "Bearer " + jwt(`{"sub":"1234567890","name":"ann","iat":1516239022,"roles":["reader","writer"]}`)},
		Body:    `{"query":"query Users { users(limit: 10) { id name } }","variables":{"limit":10,"user":{"id":7}},"operationName":"Users"}`,
		Source:  classify.Address{Text: "10.0.0.1", Port: 8080},
	}
	for name, e := range map[string]classify.Extractor{
		"from":           {From: "request.http.headers.x-user"},
		"json":           {JSON: &classify.JSON{From: "request.http.body", Pointer: "/variables/user/id"}},
		"jwt":            {JWT: &classify.JSON{From: "request.http.bearer", Pointer: "/name"}},
		"address":        {Address: "source.address"},
		"path_templates": {PathTemplates: templates},
		"bearer":         {From: "request.http.bearer"},
		"cel":            {CEL: `request.headers["x-user"]`},
		"cel json":       {CEL: `request.json.variables.user.id`},
		"cel method":     {CEL: `request.method == "POST" ? "write" : "read"`},
	} {
		b.Run(name, func(b *testing.B) {
			set := compile(b, map[string]classify.Extractor{"x": e})
			var out []classify.Label
			b.ReportAllocs()
			for b.Loop() {
				in := classify.Input{Request: r}
				var err error
				if out, err = set.Eval(&in, out[:0]); err != nil || len(out) != 1 {
					b.Fatal(out, err)
				}
			}
		})
	}
}
