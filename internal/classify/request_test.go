// SPDX-License-Identifier: Apache-2.0

package classify_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/internal/classify"
)

// labels are all labels of a request, those for analytics marked with '+'. Each is found by its key as well.
func labels(t testing.TB, r *classify.Request) map[string]string {
	t.Helper()
	all := map[string]string{}
	r.EachLabel(func(key, value string, telemetry bool) {
		if found, ok := r.Label(key); !ok || found != value {
			t.Errorf("%q: EachLabel has %q, Label finds %q %v", key, value, found, ok)
		}
		if _, twice := all[key]; twice {
			t.Errorf("%q comes twice", key)
		}
		if telemetry {
			value = "+" + value
		}
		all[key] = value
	})
	return all
}

func TestLabels(t *testing.T) {
	r := &classify.Request{
		ID: "1", Method: "GET", Path: "/a/b?c=d", Host: "example.com", Scheme: "https", Protocol: "HTTP/2", Size: 12,
		Headers: map[string]string{
			":path": "/a/b", "user-agent": "curl/8", "x_y-z": "mixed", "x-under_score": "u", "plain": "p", "": "empty",
			"baggage":         "user=ann,http.scheme=ftp;ttl=5,http.request.header.plain=other,http.request.header.nope=made,http.path=/x",
			"content-length":  "12",
			"x-one_two-three": "loses", "x-one-two-three": "wins", "a_b-c": "first", "a-b_c": "second",
		},
		SourceServices: []string{"web"}, DestinationServices: []string{"db", "db2"},
	}
	want := map[string]string{
		"http.method": "+GET", "http.target": "+/a/b?c=d", "http.host": "+example.com", "http.scheme": "+https", "http.flavor": "+2.0",
		"http.request_content_length": "12", "http.request.header.user_agent": "curl/8", "http.request.header.plain": "p",
		"http.request.header.x_y_z": "mixed", "http.request.header.x_under_score": "u", "http.request.header.content_length": "12",
		"http.request.header.x_one_two_three": "wins", "http.request.header.a_b_c": "second",
		"http.request.header.baggage": r.Headers["baggage"],
		"user":                        "+ann", "aperture.source_fqdns": "+web", "aperture.destination_fqdns": "+db,db2",
	}
	if n := r.IgnoredBaggage(); n != 4 {
		t.Errorf("%d members of the baggage are ignored, want 4", n)
	}
	if diff := cmp.Diff(want, labels(t, r)); diff != "" {
		t.Errorf("labels differ (-want +got):\n%s", diff)
	}
	for _, absent := range []string{"http.path", "http", "", "http.request.header.", "http.request.header.:path", "http.request.header.x-y", "http.request.header.nope", "nope"} {
		if value, ok := r.Label(absent); ok {
			t.Errorf("%q: got %q, want no label", absent, value)
		}
	}
	r = &classify.Request{Path: "/a?b", Envoy: true, Discovered: true, Size: -1, Protocol: "HTTP/1.1", Headers: map[string]string{"baggage": "aperture.source_fqdns=forged"}}
	want = map[string]string{
		"http.method": "+", "http.target": "+/a?b", "http.path": "+/a", "http.host": "+", "http.scheme": "+", "http.flavor": "+1.1",
		"http.request_content_length": "-1", "aperture.source_fqdns": "+UNKNOWN", "aperture.destination_fqdns": "+UNKNOWN",
		"http.request.header.baggage": "aperture.source_fqdns=forged",
	}
	if diff := cmp.Diff(want, labels(t, r)); diff != "" {
		t.Errorf("labels of a request that discovery does not know differ (-want +got):\n%s", diff)
	}
	want = map[string]string{
		"http.method": "+", "http.target": "+", "http.host": "+", "http.scheme": "+", "http.flavor": "+", "http.request_content_length": "0",
	}
	if diff := cmp.Diff(want, labels(t, &classify.Request{})); diff != "" {
		t.Errorf("labels of nothing differ (-want +got):\n%s", diff)
	}
}

func TestFlavor(t *testing.T) {
	for protocol, want := range map[string]string{
		"HTTP/1.0": "1.0", "HTTP/1.1": "1.1", "HTTP/2": "2.0", "HTTP/2.0": "2.0", "HTTP/3": "3.0", "HTTP/3.0": "3.0", "gopher": "gopher", "": "",
	} {
		r := &classify.Request{Protocol: protocol}
		if got, _ := r.Label("http.flavor"); got != want {
			t.Errorf("%q: got %q, want %q", protocol, got, want)
		}
	}
}

// TestLabelsAllocate: what the engine asks for on every flow costs no memory.
func TestLabelsAllocate(t *testing.T) {
	r := &classify.Request{
		Method: "GET", Path: "/a", Headers: map[string]string{"x-user-id": "1", "plain": "2", "baggage": "user=ann"}, SourceServices: []string{"web"},
	}
	r.Label("user") // reads the baggage
	for _, key := range []string{"http.method", "http.target", "http.request.header.x_user_id", "http.request.header.plain", "http.request.header.not_there_at_all", "user", "aperture.source_fqdns", "nope"} {
		if n := testing.AllocsPerRun(100, func() { r.Label(key) }); n != 0 {
			t.Errorf("%s: %v allocations, want none", key, n)
		}
	}
}

func TestBaggage(t *testing.T) {
	many := ""
	for i := range 70 {
		many += fmt.Sprintf("k%d=v,", i)
	}
	for name, c := range map[string]struct {
		header  string
		want    map[string]string // without the labels that every request has
		ignored int
	}{
		"one":                  {"a=b", map[string]string{"a": "b"}, 0},
		"space and properties": {" a = b ; p=q;r ,\tc=d;x", map[string]string{"a": "b", "c": "d"}, 0},
		"the last one counts":  {"a=1,b=2,a=3", map[string]string{"a": "3", "b": "2"}, 0},
		"empty value":          {"a=", map[string]string{"a": ""}, 0},
		"value with =":         {"a=b=c", map[string]string{"a": "b=c"}, 0},
		"encoded":              {"a=b%20c%2Cd", map[string]string{"a": "b c,d"}, 0},
		"encoded twice":        {"a=b%2520c", map[string]string{"a": "b c"}, 0},
		"encoded thrice":       {"a=b%252520c", map[string]string{"a": "b%20c"}, 0},
		"plus":                 {"a=b+c,d=e%20f+g", map[string]string{"a": "b+c", "d": "e f+g"}, 0},
		"broken encoding":      {"a=100%,b=%zz,c=50%25", map[string]string{"a": "100%", "b": "%zz", "c": "50%"}, 0},
		"encoded line ends":    {"a=x%0D%0ASet-Cookie:y", map[string]string{"a": "x\r\nSet-Cookie:y"}, 0},
		"encoded NUL":          {"a=%00", map[string]string{"a": "\x00"}, 0},
		"labels of requests": {
			"http.method=GET,http.request.header.x_tenant=victim,http.route=/x, aperture.source_fqdns =a,aperture.destination_fqdns=b," +
				"http=c,HTTP.method=d,aperture.other=e,xhttp.method=f",
			map[string]string{"http": "c", "HTTP.method": "d", "aperture.other": "e", "xhttp.method": "f"},
			5,
		},
		"not UTF-8":     {"a=%ff,b=\xff", map[string]string{"a": "\uFFFD", "b": "\uFFFD"}, 0},
		"UTF-8":         {"a=%C3%BC,b=ü", map[string]string{"a": "ü", "b": "ü"}, 0},
		"no =":          {"a,b=c", map[string]string{"b": "c"}, 1},
		"no key":        {"=a,b=c", map[string]string{"b": "c"}, 1},
		"bad key":       {"a b=c,d\x00=e,(f)=g,ü=h,b=c", map[string]string{"b": "c"}, 4},
		"bad value":     {"a=b c,d=\"e\",f=\\g,h=i\nj,b=c", map[string]string{"b": "c"}, 4},
		"empty members": {",, ,b=c,", map[string]string{"b": "c"}, 0},
		"nothing":       {" ", map[string]string{}, 0},
		"too long":      {"a=b," + "long=" + strings.Repeat("x", 9000) + ",c=d", map[string]string{"a": "b"}, 2},
		"ten megabytes": {"a=b," + strings.Repeat(strings.Repeat("x", 99)+",", 100_000), map[string]string{"a": "b"}, 100_000},
	} {
		r := &classify.Request{Headers: map[string]string{"baggage": c.header}}
		got := map[string]string{}
		r.EachLabel(func(key, value string, telemetry bool) {
			if !strings.HasPrefix(key, "http.") {
				got[key] = value
				if !telemetry {
					t.Errorf("%s: %q is not for analytics", name, key)
				}
			}
		})
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: labels differ (-want +got):\n%s", name, diff)
		}
		if n := r.IgnoredBaggage(); n < c.ignored || n > c.ignored+100 || c.ignored < 5 && n != c.ignored {
			t.Errorf("%s: ignored %d, want %d", name, n, c.ignored)
		}
	}
	r := &classify.Request{Headers: map[string]string{"baggage": many}}
	if _, ok := r.Label("k63"); !ok {
		t.Error("no label k63, want 64 members")
	}
	if _, ok := r.Label("k64"); ok {
		t.Error("label k64, want 64 members")
	}
}

func TestBaggageOut(t *testing.T) {
	on := func(key, value string) classify.Label { return classify.Label{Key: key, Value: value, Telemetry: true} }
	off := classify.Label{Key: "hidden", Value: "x"}
	for name, c := range map[string]struct {
		came    string
		derived []classify.Label
		want    string
	}{
		"nothing":              {"", nil, ""},
		"what came":            {"a=b;p", []classify.Label{off}, "a=b;p"},
		"new":                  {"", []classify.Label{on("user", "ann"), off, on("op", "query")}, "user=ann,op=query"},
		"both":                 {"a=b", []classify.Label{on("user", "ann")}, "a=b,user=ann"},
		"the last one counts":  {"", []classify.Label{on("user", "1"), on("user", "2")}, "user=2"},
		"sanitized":            {"", []classify.Label{on("ua", "a b/c\\d;e\"f,g\r\nh")}, "ua=a-b-c-d-e-f-g--h"},
		"encoded":              {"", []classify.Label{on("v", "100%ü\x00=")}, "v=100%25%C3%BC%00="},
		"keys no header holds": {"", []classify.Label{on("a b", "1"), on("", "2"), on("c=d", "3"), on("e\r\nf", "4"), on("g", "5")}, "g=5"},
		"line ends came":       {"a=b,c=d\r\nSet-Cookie: e,f=g", []classify.Label{on("user", "ann")}, "a=b,f=g,user=ann"},
		"too much came":        {"a=b," + strings.Repeat("x", 9000), []classify.Label{on("user", "ann")}, "a=b,user=ann"},
		"no room":              {"a=" + strings.Repeat("x", 8184), []classify.Label{on("user", "ann"), on("u", "1")}, "a=" + strings.Repeat("x", 8184) + ",u=1"},
		"no members left":      {strings.TrimSuffix(strings.Repeat("a=b,", 63), ","), []classify.Label{on("u", "1"), on("v", "2")}, strings.Repeat("a=b,", 63) + "u=1"},
	} {
		r := &classify.Request{Headers: map[string]string{"baggage": c.came}}
		if got := r.Baggage(c.derived); got != c.want {
			t.Errorf("%s: got %.100q, want %.100q", name, got, c.want)
		}
	}
}

// FuzzBaggage: whatever comes, labels are UTF-8 with sensible keys, and what goes on is a header that carries the
// new label.
func FuzzBaggage(f *testing.F) {
	f.Add("a=b;p=q, c=%2520d", "ann")
	f.Add("a=%0d%0a,=,\r\n", "x\r\ny")
	f.Add("http.method=GET,http.request.header.x_tenant=victim, aperture.source_fqdns=a;b", "z")
	f.Add(strings.Repeat("k=v,", 100), "%zz")
	f.Fuzz(func(t *testing.T, header, value string) {
		r := &classify.Request{Headers: map[string]string{"baggage": header}}
		none := labels(t, &classify.Request{Headers: map[string]string{"baggage": ""}})
		members := 0
		for key, v := range labels(t, r) {
			if bare, own := none[key]; own {
				if v != bare && key != "http.request.header.baggage" {
					t.Fatalf("baggage makes %q of the label %q, want %q", v, key, bare)
				}
				continue
			}
			if strings.HasPrefix(key, "http.") || key == "aperture.source_fqdns" || key == "aperture.destination_fqdns" {
				t.Fatalf("baggage makes the label %q", key)
			}
			members++
			if strings.ToValidUTF8(v, "") != v || strings.ContainsAny(key, " \t\r\n,;=\"") {
				t.Fatalf("label %q has the value %q", key, v)
			}
		}
		if members > 64 {
			t.Fatalf("%d members", members)
		}
		out := r.Baggage([]classify.Label{{Key: "fuzz", Value: value, Telemetry: true}})
		for i := range len(out) {
			if c := out[i]; c < ' ' && c != '\t' || c == 0x7F {
				t.Fatalf("the header %q has a control character", out)
			}
		}
		if len(out) > 8192 {
			t.Fatalf("the header has %d bytes", len(out))
		}
		again := &classify.Request{Headers: map[string]string{"baggage": out}}
		got, ok := again.Label("fuzz")
		if want := classify.Sanitize(value); ok && got != want && strings.ToValidUTF8(want, "\uFFFD") != got && !strings.Contains(want, "%") {
			t.Fatalf("carried %q, want %q", got, want)
		}
	})
}

func BenchmarkLabel(b *testing.B) {
	r := &classify.Request{Method: "GET", Path: "/a", Headers: map[string]string{"x-user-id": "1", "user-agent": "curl", "accept": "*/*", "baggage": "user=ann,team=blue"}}
	for _, key := range []string{"http.method", "http.request.header.x_user_id", "team", "nope"} {
		b.Run(key, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Label(key)
			}
		})
	}
	b.Run("first of baggage", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			first := classify.Request{Headers: r.Headers}
			first.Label("team")
		}
	})
}
