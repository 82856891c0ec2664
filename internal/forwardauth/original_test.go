// SPDX-License-Identifier: Apache-2.0

package forwardauth

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/internal/classify"
)

// described is what a test looks at.
type described struct {
	Method, Scheme, Host, Path string
	Source                     classify.Address
}

func TestOriginal(t *testing.T) {
	both := []string{
		"X-Forwarded-Method", "PUT", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "shop.example:8443",
		"X-Forwarded-Uri", "/a%20b?c=d", "X-Forwarded-For", "203.0.113.9, 198.51.100.1",
		"X-Original-Method", "DELETE", "X-Original-Url", "http://other.example/x?y", "X-Original-Uri", "/z", "X-Real-Ip", "192.0.2.7",
	}
	for _, tt := range []struct {
		name, query string
		headers     []string
		want        described
	}{
		{"forwarded", "", both, described{"PUT", "https", "shop.example:8443", "/a%20b?c=d", classify.Address{Text: "198.51.100.1"}}},
		{"a further proxy", "?hops=1", both, described{"PUT", "https", "shop.example:8443", "/a%20b?c=d", classify.Address{Text: "203.0.113.9"}}},
		{"fewer proxies than said", "?hops=9", both, described{"PUT", "https", "shop.example:8443", "/a%20b?c=d", classify.Address{Text: "203.0.113.9"}}},
		{"original", "?from=original", both, described{"DELETE", "http", "other.example", "/x?y", classify.Address{Text: "192.0.2.7"}}},
		{
			"original without a URL", "?from=original",
			[]string{"X-Original-Uri", "/z", "X-Original-Method", "GET", "X-Forwarded-Uri", "/no"},
			described{Method: "GET", Path: "/z"},
		},
		{
			"no good URL", "?from=original",
			[]string{"X-Original-Url", "http://shop.example/order?a=%zz#%zz"},
			described{Method: "POST", Scheme: "http", Host: "shop.example", Path: "/order?a=%zz"},
		},
		{
			"a host alone", "?from=original",
			[]string{"X-Original-Url", "http://shop.example?a"},
			described{Method: "POST", Scheme: "http", Host: "shop.example", Path: "/?a"},
		},
		{"nothing", "", nil, described{Method: "POST"}},
		{"only the other family", "", []string{"X-Original-Url", "http://other.example/x", "X-Real-Ip", "192.0.2.7"}, described{Method: "POST"}},
		{
			"several lines and ports", "?hops=2",
			[]string{"X-Forwarded-For", "a, 192.0.2.1:99", "X-Forwarded-For", "[2001:db8::1]:80,, 2001:db8::2"},
			described{Method: "POST", Source: classify.Address{Text: "192.0.2.1", Port: 99}},
		},
		{"no address", "", []string{"X-Forwarded-For", "unknown"}, described{Method: "POST"}},
	} {
		s, err := New(Config{}).settingsOf(parse(t, "/forward-auth/shop"+tt.query))
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		for i := 0; i < len(tt.headers); i += 2 {
			r.Header.Add(tt.headers[i], tt.headers[i+1])
		}
		got := s.original(r)
		if diff := cmp.Diff(tt.want, described{got.Method, got.Scheme, got.Host, got.Path, got.Source}); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func parse(t testing.TB, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestHeaders(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header = http.Header{
		"Accept": {"a", "b"}, "X-User": {"ann"}, "Connection": {"keep-alive, X-Hop"}, "X-Hop": {"1"}, "Upgrade": {"h2c"},
		"Content-Length": {"5"}, "Sluice-Token": {"secret"}, "Sluice-Label-User": {"x"}, "X-Forwarded-For": {"192.0.2.1"},
		"X-Forwarded-Uri": {"/"}, "X-Original-Url": {"/"}, "Cookie": {"c"}, "Authorization": {"Bearer x"},
	}
	got := (&settings{}).original(r).Headers
	want := map[string]string{
		"accept": "a, b", "x-user": "ann", "x-forwarded-for": "192.0.2.1", "cookie": "c", "authorization": "Bearer x",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBody(t *testing.T) {
	for _, tt := range []struct {
		name   string
		body   io.Reader
		length int64
		size   int64
		taken  int
	}{
		{"none", nil, 0, -1, 0},
		{"all of it", strings.NewReader("hello"), 5, 5, 5},
		{"its beginning", strings.NewReader(strings.Repeat("x", 100_000)), 100_000, 100_000, mostBody},
		{"of unknown length", strings.NewReader("hello"), -1, 5, 5},
		{"too long, of unknown length", strings.NewReader(strings.Repeat("x", 100_000)), -1, -1, mostBody},
		{"broken off", io.MultiReader(strings.NewReader("hel"), broken{}), 5, -1, 3},
	} {
		r := httptest.NewRequest(http.MethodPost, "/", tt.body)
		r.ContentLength = tt.length
		got := (&settings{}).original(r)
		if got.Size != tt.size || len(got.Body) != tt.taken {
			t.Errorf("%s: got %d of %d bytes, want %d of %d", tt.name, len(got.Body), got.Size, tt.taken, tt.size)
		}
	}
}

// TestSize: a proxy that sends the beginning of a body can say how long the body is.
func TestSize(t *testing.T) {
	d := &Door{}
	u, err := url.Parse("/forward-auth/shop?size=100000")
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.settingsOf(u)
	if err != nil {
		t.Fatal(err)
	}
	got := s.original(httptest.NewRequest(http.MethodPost, "/", strings.NewReader("hello")))
	if cut, err := got.Truncated(1 << 20); got.Size != 100_000 || got.Body != "hello" || !cut || err != nil {
		t.Errorf("got %q of %d bytes, truncated is %v, %v, want hello of 100000, truncated", got.Body, got.Size, cut, err)
	}
	u.RawQuery = "size=-1"
	if _, err := d.settingsOf(u); err == nil {
		t.Error("a negative size was taken")
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// FuzzQuestion asks with any URL and headers: whatever they are, there is an answer, and no header of it is two.
func FuzzQuestion(f *testing.F) {
	f.Add("/forward-auth/shop?deny_status=403&labels=user", "X-Forwarded-Uri\n/a\nSluice-Label-User\nann\nX-Forwarded-For\n192.0.2.1, ::1", "body")
	f.Add("/forward-auth/shop?from=original&hops=3&expect_end=true", "X-Original-Url\nhttp://a/b\nBaggage\na=b\nAccept\napplication/json", "")
	f.Add("/forward-auth?control_point=shop&label.user=ann&service=a", "Connection\nx,y", "")
	f.Add("/forward-auth/end", "Sluice-Flow-Token\nAAAA\nSluice-Status\n500", "")
	d := New(Config{Engine: newEngine(f, rate("user", 2))})
	f.Fuzz(func(t *testing.T, target, headers, body string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Path == "" {
			return
		}
		r := &http.Request{
			Method: http.MethodPost, URL: u, Header: http.Header{}, ContentLength: int64(len(body)),
			Body: io.NopCloser(strings.NewReader(body)), RemoteAddr: "192.0.2.1:1",
		}
		lines := strings.Split(headers, "\n")
		for i := 0; i+1 < len(lines); i += 2 {
			r.Header.Add(lines[i], lines[i+1])
		}
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r.WithContext(t.Context()))
		if !slices.Contains([]int{204, 400, 403, 405, 429}, w.Code) && (w.Code < 400 || w.Code > 599) {
			t.Errorf("got %d", w.Code)
		}
		for name, values := range maps.All(w.Header()) {
			if strings.ContainsAny(name+strings.Join(values, ""), "\r\n\x00") {
				t.Errorf("header %q: %q", name, values)
			}
		}
	})
}

// BenchmarkAdmit is what one question costs in the door, without the server around it.
func BenchmarkAdmit(b *testing.B) {
	spec := rate("http.request.header.x_user", 1e12)
	d := New(Config{Engine: newEngine(b, spec)})
	header := http.Header{
		"User-Agent": {"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}, "Accept": {"text/html,application/xhtml+xml"},
		"Accept-Language": {"en"}, "Accept-Encoding": {"gzip"}, "Cookie": {"session=0123456789abcdef"}, "X-User": {"ann"},
		"X-Forwarded-Method": {"GET"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"shop.example"},
		"X-Forwarded-Uri": {"/items?page=2"}, "X-Forwarded-For": {"192.0.2.1"},
	}
	for _, target := range []string{"/forward-auth/shop", "/forward-auth/shop?deny_status=403&labels=user,tier&timeout=250ms"} {
		b.Run(target[strings.IndexByte(target, 'h')+len("h/"):], func(b *testing.B) {
			u := parse(b, target)
			b.ReportAllocs()
			for b.Loop() {
				w := &discard{header: make(http.Header, 8)}
				r := &http.Request{Method: http.MethodGet, URL: u, Header: header, RemoteAddr: "192.0.2.1:1"}
				d.ServeHTTP(w, r)
				if w.code != http.StatusNoContent {
					b.Fatalf("got %d", w.code)
				}
			}
		})
	}
}

// BenchmarkServer asks over connections that are kept, as proxies do. It measures the client, too.
func BenchmarkServer(b *testing.B) {
	server := httptest.NewServer(New(Config{Engine: newEngine(b, rate("http.request.header.x_user", 1e12))}))
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, server.URL+"/forward-auth/shop?timeout=250ms", nil)
			if err != nil {
				b.Error(err)
				return
			}
			r.Header.Set("X-User", "ann")
			r.Header.Set("X-Forwarded-Uri", "/items?page=2")
			resp, err := client.Do(r)
			if err != nil {
				b.Error(err)
				return
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusNoContent {
				b.Errorf("got %s", resp.Status)
			}
		}
	})
}

type discard struct {
	header http.Header
	code   int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(code int)        { d.code = code }
