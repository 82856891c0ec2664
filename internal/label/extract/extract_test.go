// SPDX-License-Identifier: Apache-2.0

package extract_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/internal/label/extract"
)

func TestAttribute(t *testing.T) {
	for path, want := range map[string]extract.Attribute{
		"request.http.method":                                     {Field: extract.Method},
		"request.http.bearer":                                     {Field: extract.Bearer},
		"request.http.headers.user-agent":                         {Field: extract.Header, Name: "user-agent"},
		"request.http.headers.:authority":                         {},
		"source.address":                                          {Field: extract.Source},
		"destination.address.socketAddress.portValue":             {Field: extract.DestinationPort},
		"metadataContext.filterMetadata.envoy.filters.http.x.key": {Field: extract.Metadata, Path: []string{"envoy", "filters", "http", "x", "key"}},
		"request.http.headers.User-Agent":                         {},
		"request.http.headers.":                                   {},
		"request.http.headers":                                    {},
		"request.http.scheme":                                     {},
		"input.attributes.request.http.method":                    {},
		"metadataContext.filterMetadata.a..b":                     {},
		"":                                                        {},
	} {
		got, err := extract.ParseAttribute(path)
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (want.Field != 0) {
			t.Errorf("%q: %v (-want +got):\n%s", path, err, diff)
		}
	}
	for _, path := range extract.Known {
		if _, err := extract.ParseAttribute(strings.ReplaceAll(path, "<name>", "a")); err != nil {
			t.Errorf("%s is suggested and refused: %v", path, err)
		}
	}
	if _, err := extract.ParseAddress("source.address"); err != nil {
		t.Error(err)
	}
	if _, err := extract.ParseAddress("request.http.host"); err == nil {
		t.Error("request.http.host is an address, want none")
	}
}

func TestPointer(t *testing.T) {
	for text, want := range map[string]extract.Pointer{
		"":                      nil,
		"/":                     {{Key: "", Index: -1}},
		"/user/name":            {{Key: "user", Index: -1}, {Key: "name", Index: -1}},
		"/0/01/10":              {{Key: "0", Index: 0}, {Key: "01", Index: -1}, {Key: "10", Index: 10}},
		"/a~1b/m~0n":            {{Key: "a/b", Index: -1}, {Key: "m~n", Index: -1}},
		"/~01":                  {{Key: "~1", Index: -1}}, // not a slash: RFC 6901, section 4
		"/-/+1/ 1/1.5":          {{Key: "-", Index: -1}, {Key: "+1", Index: -1}, {Key: " 1", Index: -1}, {Key: "1.5", Index: -1}},
		"/99999999999999999999": {{Key: "99999999999999999999", Index: -1}},
	} {
		got, err := extract.ParsePointer(text)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%q: %v (-want +got):\n%s", text, err, diff)
		}
	}
	for _, text := range []string{"user", "/~", "/~2", "/a~", strings.Repeat("/a", 65)} {
		if got, err := extract.ParsePointer(text); err == nil {
			t.Errorf("%q: got %v, want a refusal", text, got)
		}
	}
}

func TestTemplates(t *testing.T) {
	values := map[string]string{
		"/users/{id}": "user", "/users/{id}/orders": "", "/static/*": "static", "/*": "other", "/users/me": "me",
		"/users/{id}/*": "below a user", "/": "root", "/a/b/{x}/{y}": "two",
	}
	delete(values, "/users/{id}/orders") // segments after parameters are refused, see below
	templates, err := extract.NewTemplates(values)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/users/7": "user", "/users/7?x=/a/b": "user", "users/7/": "user", "/users/me": "me", "/users/7/orders/9": "below a user",
		"/users": "other", "/usersx/7": "other", "/static": "static", "/static/": "static", "/static/a/b": "static",
		"/": "root", "": "root", "//": "root", "/?a": "root", "/x": "other", "/a/b/c/d": "two", "/a/b/c/d/e": "other", "/a/b//d": "two",
		"/static?": "static", "/staticx": "other", "/users/7#/a": "user", "/users/7#?": "user",
	} {
		if got, ok := templates.Match(path); !ok || got != want {
			t.Errorf("%q: got %q %v, want %q", path, got, ok, want)
		}
	}
	if one, _ := extract.NewTemplates(map[string]string{"/a": "a"}); true {
		if got, ok := one.Match("/b"); ok {
			t.Errorf("got %q, want no match", got)
		}
	}
	for _, bad := range []string{"/*/a", "/{a", "/a}", "/{a}b", "/{a}/b", "/{{a}}", "/a?b", "", "/./a", "/a/..", "/a/%2e%2E"} {
		if _, err := extract.NewTemplates(map[string]string{bad: "x"}); err == nil {
			t.Errorf("%q: want a refusal", bad)
		}
	}
}

// TestSpellings: a template matches however a client writes the path.
func TestSpellings(t *testing.T) {
	templates, err := extract.NewTemplates(map[string]string{
		"/checkout": "checkout", "/a/{id}": "a", "/caf%c3%a9/%7Eann": "ann", "/.well-known/*": "known", "/": "root", "/a%2fb": "slash",
		"/100%": "percent",
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/%63heckout": "checkout", "/%63%68%65%63%6B%6f%75%74": "checkout", "/./checkout": "checkout", "./checkout": "checkout",
		"/a/../checkout": "checkout", "/a/b/../../checkout": "checkout", "/../../checkout": "checkout", "../checkout": "checkout",
		"/checkout/.": "checkout", "/checkout/x/..": "checkout", "/%2e/checkout": "checkout", "/a/%2E%2e/checkout": "checkout",
		"/a/.%2e/checkout?x=/..": "checkout", "//checkout": "checkout", "//./checkout//": "checkout", "/checkout/%2e#/..": "checkout",
		"/a/1%2F2": "a", "/a/x/../%2e%2e%2f": "a", "/a/...": "a", "/a/.x": "a", "/a/%": "a", "/a/%4": "a", "/a/%zz": "a", "/a/b//..": "a",
		"/caf%C3%A9/~ann": "ann", "/caf%c3%A9/%7eann": "ann", "/x/../caf%C3%a9/./~ann": "ann",
		"/.well-known/x": "known", "/%2ewell-known": "known", "/a/..": "root", "/.": "root", "/..": "root", "/%2E%2E/": "root",
		"/a%2Fb": "slash", "/a%2fb": "slash",
		"/%2563heckout": "", "/%2fcheckout": "", "/checkout%2F": "", "/checkout%20": "", "/Checkout": "", "/%43heckout": "", "/checkout/..%2f": "",
		"/%%36%33heckout": "", "/100%": "percent", "/100%25": "percent", "/100%2": "", "/%31%30%30%": "percent", "/a//../checkout": "a",
	} {
		if got, _ := templates.Match(path); got != want {
			t.Errorf("%q: got %q, want %q", path, got, want)
		}
	}
	for _, plain := range []string{"/checkout", "/a/17?x=%41/../", "/.well-known/x/.y", "/a/1%2F2%20%C3", "/caf%C3%A9/~ann"} {
		if n := testing.AllocsPerRun(100, func() { templates.Match(plain) }); n != 0 {
			t.Errorf("%q: %v allocations, want none", plain, n)
		}
	}
}

var encoded = regexp.MustCompile(`%([0-9A-Fa-f]{2})?`)

// normalized is the path alone, written in the plainest way.
func normalized(path string) string {
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		path = path[:i]
	}
	path = encoded.ReplaceAllStringFunc(path, func(s string) string {
		if s == "%" {
			return "%25"
		}
		if b, _ := hex.DecodeString(s[1:]); b[0] < 0x80 && (b[0] >= '0' && b[0] <= '9' || unicode.IsLetter(rune(b[0])) || strings.Contains("-._~", string(b))) {
			return string(b)
		}
		return strings.ToUpper(s)
	})
	var kept []string
	for _, s := range strings.Split(strings.TrimPrefix(path, "/"), "/") {
		switch {
		case s == ".." && len(kept) > 0:
			kept = kept[:len(kept)-1]
		case s != "." && s != "..":
			kept = append(kept, s)
		}
	}
	return strings.Join(kept, "/")
}

// TestOrder: the most specific template comes first, whatever the order of the map.
func TestOrder(t *testing.T) {
	for range 20 {
		templates, err := extract.NewTemplates(map[string]string{
			"/foo/bar/{}/{}": "a", "/foo/bar/{}/{}/*": "b", "/foo/bar/{}/*": "c", "/foo/bar/*": "d", "/foo": "e", "/foo/*": "f",
		})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, path := range []string{"/foo/bar/1/2", "/foo/bar/1/2/3", "/foo/bar/1", "/foo/bar", "/foo", "/foo/x"} {
			value, _ := templates.Match(path)
			got = append(got, value)
		}
		if diff := cmp.Diff([]string{"a", "b", "c", "d", "e", "f"}, got); diff != "" {
			t.Fatalf("matches differ (-want +got):\n%s", diff)
		}
	}
}

// FuzzTemplate compares the matcher with splitting both sides.
func FuzzTemplate(f *testing.F) {
	f.Add("/users/{id}/*", "/users/1?x")
	f.Add("/", "//")
	f.Add("/a/b", "a/b/")
	f.Add("/a/{x}", "/b/%2e%2E/./%61/%2f?/..")
	f.Add("/%41%c3", "//../A%C3/.#")
	f.Add("/%7%41", "/%257A")
	f.Fuzz(func(t *testing.T, template, path string) {
		parsed, err := extract.ParseTemplate(template)
		if err != nil {
			var problem *extract.Error
			if !errors.As(err, &problem) {
				t.Fatalf("got error %v, want an *Error", err)
			}
			return
		}
		if again, err := extract.ParseTemplate(parsed.String()); err != nil || again.String() != parsed.String() {
			t.Fatalf("%s does not parse as itself: %v", parsed, err)
		}
		templates, err := extract.NewTemplates(map[string]string{template: "v"})
		if err != nil {
			t.Fatal(err)
		}
		bare := normalized(path)
		segments := strings.Split(strings.Trim(bare, "/"), "/")
		if strings.Trim(bare, "/") == "" {
			segments = nil
		}
		want := len(segments) >= len(parsed.Prefix)+parsed.Parameters && (parsed.Rest || len(segments) == len(parsed.Prefix)+parsed.Parameters)
		for i := range parsed.Prefix {
			want = want && segments[i] == parsed.Prefix[i]
		}
		if _, got := templates.Match(path); got != want {
			t.Fatalf("%s matches %q: got %v, want %v", parsed, path, got, want)
		}
	})
}

// FuzzPointer: what is accepted names each step as RFC 6901 writes it.
func FuzzPointer(f *testing.F) {
	f.Add("/a~1b/0/~0")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := extract.ParsePointer(text)
		if err != nil {
			return
		}
		again := ""
		for _, s := range p {
			again += "/" + strings.ReplaceAll(strings.ReplaceAll(s.Key, "~", "~0"), "/", "~1")
			if s.Index >= 0 && fmt.Sprint(s.Index) != s.Key {
				t.Fatalf("index %d of %q", s.Index, s.Key)
			}
		}
		if again != text {
			t.Fatalf("got %q, want %q", again, text)
		}
	})
}

func BenchmarkTemplates(b *testing.B) {
	values := map[string]string{"/*": "other"}
	for i := range 50 {
		values[fmt.Sprintf("/service%d/{id}/*", i)] = "x"
	}
	templates, err := extract.NewTemplates(values)
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range []string{"/service49/17/orders?page=2", "/%73ervice49/x/../17/orders?page=2"} {
		b.Run(path, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				templates.Match(path)
			}
		})
	}
}
