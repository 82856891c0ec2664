// SPDX-License-Identifier: Apache-2.0

package sluicehttp_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	sluice "github.com/sluice-project/sluice/sdk/go"
	"github.com/sluice-project/sluice/sdk/go/internal/sluicetest"
	"github.com/sluice-project/sluice/sdk/go/sluicehttp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a server and a client of it until the test is over.
func start(t *testing.T, s *sluicetest.Server, opts ...sluice.Option) *sluice.Client {
	t.Helper()
	s.Listen()
	opts = append(opts, sluice.WithUnavailableTimeout(10*time.Second), sluice.WithDialOptions(grpc.WithContextDialer(s.Dial)))
	c, err := sluice.NewClient(sluicetest.Addr, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Vanish() })
	return c
}

func get(h http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "http://shop.example"+path, nil))
	return w
}

// lastEnd closes the client, so that all Ends have arrived, and returns the last one.
func lastEnd(t *testing.T, s *sluicetest.Server, c *sluice.Client) *flowv1.EndRequest {
	t.Helper()
	c.Close()
	ends := s.Ends()
	if len(ends) == 0 || s.Open() != 0 {
		t.Fatalf("%d ends, %d flows open", len(ends), s.Open())
	}
	return ends[len(ends)-1]
}

func TestMiddleware(t *testing.T) {
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		code    int
		want    flowv1.FlowStatus
	}{
		{"nothing written", func(http.ResponseWriter, *http.Request) {}, 200, flowv1.FlowStatus_FLOW_STATUS_OK},
		{"body only", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hi") }, 200, flowv1.FlowStatus_FLOW_STATUS_OK},
		{"not found", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, 404, flowv1.FlowStatus_FLOW_STATUS_OK},
		{"error", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502); w.WriteHeader(200) }, 502, flowv1.FlowStatus_FLOW_STATUS_ERROR},
		{"early hints first", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(103); w.WriteHeader(500) }, 103 /* httptest keeps the first */, flowv1.FlowStatus_FLOW_STATUS_ERROR},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &sluicetest.Server{Slots: -1}
			c := start(t, s)
			w := get(sluicehttp.Middleware(c, "web")(test.handler), "/cart?id=1")
			if w.Code != test.code {
				t.Errorf("status %d, want %d", w.Code, test.code)
			}
			if got := lastEnd(t, s, c).Status; got != test.want {
				t.Errorf("flow ended as %v, want %v", got, test.want)
			}
			in := s.Starts()[0]
			want := "map[http.host:shop.example http.method:GET http.scheme:http http.target:/cart]"
			if fmt.Sprint(in.Labels) != want || in.ControlPoint != "web" {
				t.Errorf("flow at %s with %v, want %s", in.ControlPoint, in.Labels, want)
			}
		})
	}
}

func TestMiddlewareDenies(t *testing.T) {
	s := &sluicetest.Server{Deny: func(sluicetest.Start) *flowv1.StartResponse {
		return &flowv1.StartResponse{
			Verdict: "deny", Reason: "rate_limited", Message: "too fast", Policy: "login", Limiter: "root.0",
			Account: "user:alice", HttpStatus: 429, RetryAfterSeconds: proto.Float64(2.1),
		}
	}}
	c := start(t, s)
	h := sluicehttp.Middleware(c, "web")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") }))
	w := get(h, "/")
	want := `{"error":"denied","reason":"rate_limited","message":"too fast","policy":"login","limiter":"root.0","retry_after_seconds":2.1}` + "\n"
	if w.Code != 429 || w.Header().Get("Retry-After") != "3" || w.Header().Get("Content-Type") != "application/json" || w.Body.String() != want {
		t.Errorf("got %d %v %s", w.Code, w.Header(), w.Body)
	}
	h = sluicehttp.Middleware(c, "web", sluicehttp.WithDenied(func(w http.ResponseWriter, _ *http.Request, f *sluice.Flow) {
		http.Error(w, f.Verdict().Account, 418)
	}))(h)
	if w := get(h, "/"); w.Code != 418 || w.Body.String() != "user:alice\n" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestMiddlewareHidesTheServer(t *testing.T) {
	s := &sluicetest.Server{}
	c := start(t, s, sluice.WithFailClosed())
	c.Close()
	w := get(sluicehttp.Middleware(c, "web")(http.NotFoundHandler()), "/")
	if want := `{"error":"denied","reason":"fail_closed"}` + "\n"; w.Code != 503 || w.Body.String() != want {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestMiddlewareOptions(t *testing.T) {
	s := &sluicetest.Server{Slots: -1}
	c := start(t, s)
	h := sluicehttp.Middleware(c, "web", nil,
		sluicehttp.WithIgnoredPaths("/healthz", "/static/"),
		sluicehttp.WithIgnored(func(r *http.Request) bool { return r.Method == "OPTIONS" }),
		sluicehttp.WithLabels(func(r *http.Request) sluice.Labels { return sluice.Labels{"user": r.URL.Query().Get("u")} }),
		sluicehttp.WithFlowOptions(sluice.WithQueueTimeout(time.Second)),
	)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sluice.FlowFrom(r.Context()).End(sluice.WithTokens(42))
	}))
	for _, path := range []string{"/healthz", "/static/a.js", "/healthz/x?u=eve", "/static?u=bob"} {
		get(h, path)
	}
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("OPTIONS", "/", nil))
	var users []string
	for _, in := range s.Starts() {
		users = append(users, in.Labels["user"])
		if in.QueueTimeout != time.Second {
			t.Errorf("queue time-out %v", in.QueueTimeout)
		}
	}
	if fmt.Sprint(users) != "[eve bob]" {
		t.Errorf("flows of %v, want eve and bob", users)
	}
	if got := lastEnd(t, s, c); got.GetTokens() != 42 || len(s.Ends()) != 2 {
		t.Errorf("ended with %v", got)
	}
}

func TestMiddlewarePanic(t *testing.T) {
	s := &sluicetest.Server{Slots: -1}
	c := start(t, s)
	h := sluicehttp.Middleware(c, "web")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	func() {
		defer func() {
			if r := recover(); r != http.ErrAbortHandler {
				t.Errorf("recovered %v, want the handler's panic", r)
			}
		}()
		get(h, "/")
	}()
	if got := lastEnd(t, s, c).Status; got != flowv1.FlowStatus_FLOW_STATUS_ERROR {
		t.Errorf("flow ended as %v", got)
	}
}

// TestMiddlewareStreams: flushing, hijacking and the response controller reach the real writer.
func TestMiddlewareStreams(t *testing.T) {
	s := &sluicetest.Server{Slots: -1}
	c := start(t, s)
	mux := http.NewServeMux()
	proceed := make(chan struct{})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "first\n")
		w.(http.Flusher).Flush()
		<-proceed
		io.WriteString(w, "second\n")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-proceed
	})
	mux.HandleFunc("/hijack", func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
		conn.Close()
	})
	mux.HandleFunc("/copy", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, strings.NewReader("copied"))
	})
	web := httptest.NewServer(sluicehttp.Middleware(c, "web")(mux))
	defer web.Close()
	resp, err := web.Client().Get(web.URL + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(resp.Body)
	for _, want := range []string{"first\n", "second\n"} {
		if got, err := lines.ReadString('\n'); got != want {
			t.Fatalf("got %q, %v, want %q before the handler returns", got, err, want)
		}
		proceed <- struct{}{}
	}
	resp.Body.Close()
	for path, want := range map[string]string{"/hijack": "hi", "/copy": "copied"} {
		resp, err := web.Client().Get(web.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(got) != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	if n := len(s.Starts()); n != 3 {
		t.Errorf("%d flows, want 3", n)
	}
}

// roundTrip is a base for RoundTripper.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRoundTripper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sluicetest.Server{Slots: -1}
		c := start(t, s)
		code, fail := 200, error(nil)
		client := http.Client{Transport: sluicehttp.RoundTripper(c, "provider", roundTrip(func(*http.Request) (*http.Response, error) {
			if fail != nil {
				return nil, fail
			}
			return &http.Response{StatusCode: code, Body: io.NopCloser(strings.NewReader("hello"))}, nil
		}), sluicehttp.WithIgnoredPaths("/ping"))}
		ask := func(path string, read func(io.ReadCloser)) {
			resp, err := client.Get("http://llm.example" + path)
			if err != nil && fail == nil {
				t.Fatal(err)
			}
			if err == nil {
				if path != "/ping" && s.Open() != 1 {
					t.Errorf("%d flows open while the body is read, want 1", s.Open())
				}
				read(resp.Body)
			}
			synctest.Wait()
			if s.Open() != 0 {
				t.Errorf("%d flows open after the body", s.Open())
			}
		}
		all := func(b io.ReadCloser) { io.Copy(io.Discard, b); b.Close() }
		ask("/ping", all)
		ask("/v1", all)
		ask("/v1", func(b io.ReadCloser) { io.ReadAll(b) })
		ask("/v1", func(b io.ReadCloser) { b.Close(); b.Close() })
		code = 503
		ask("/v1", all)
		fail = errors.New("broken")
		ask("/v1", all)
		var got []flowv1.FlowStatus
		for _, e := range s.Ends() {
			got = append(got, e.Status)
		}
		if want := "[FLOW_STATUS_OK FLOW_STATUS_OK FLOW_STATUS_OK FLOW_STATUS_ERROR FLOW_STATUS_ERROR]"; fmt.Sprint(got) != want {
			t.Errorf("got %v, want %v", got, want)
		}
		if l := s.Starts()[0].Labels; l["http.host"] != "llm.example" || l["http.target"] != "/v1" {
			t.Errorf("labels %v", l)
		}
	})
}

// closed is a request body that knows whether it was closed.
type closed struct {
	io.Reader
	done bool
}

func (c *closed) Close() error { c.done = true; return nil }

func TestRoundTripperDenied(t *testing.T) {
	s := &sluicetest.Server{Deny: func(sluicetest.Start) *flowv1.StartResponse {
		return &flowv1.StartResponse{Verdict: "deny", Reason: "rate_limited", HttpStatus: 429, RetryAfterSeconds: proto.Float64(1)}
	}}
	c := start(t, s)
	client := http.Client{Transport: sluicehttp.RoundTripper(c, "provider", roundTrip(func(*http.Request) (*http.Response, error) {
		t.Error("the request was sent")
		return nil, errors.New("sent")
	}))}
	body := &closed{Reader: strings.NewReader("x")}
	_, err := client.Post("http://llm.example/v1", "text/plain", body)
	var denied *sluice.DeniedError
	if !errors.As(err, &denied) || denied.RetryAfter != time.Second || denied.Verdict.HTTPStatus != 429 || denied.ControlPoint != "provider" {
		t.Errorf("got %v", err)
	}
	if !body.done {
		t.Error("the request's body was not closed")
	}
}
