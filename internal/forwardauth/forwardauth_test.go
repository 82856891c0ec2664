// SPDX-License-Identifier: Apache-2.0

package forwardauth

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
)

func newEngine(tb testing.TB, specs ...*flow.LimiterSpec) *flow.Engine {
	tb.Helper()
	m, err := ledger.NewMemory(ledger.Config{})
	if err != nil {
		tb.Fatal(err)
	}
	e, err := flow.New(flow.Config{Authority: m, TokenKey: make([]byte, flow.TokenKeySize)})
	if err != nil {
		tb.Fatal(err)
	}
	if err := e.Publish(flow.Set{Limiters: specs}); err != nil {
		tb.Fatal(err)
	}
	return e
}

// rate admits burst flows per value of a label at shop, and one a minute after that.
func rate(by string, burst float64) *flow.LimiterSpec {
	return &flow.LimiterSpec{
		ID: 1, Policy: "per-user", Component: "root.0", Kind: flow.RateLimiter, DeniedStatus: http.StatusTooManyRequests,
		Selectors: []flow.Selector{{ControlPoint: "shop", Match: label.Expr{}}}, LimitBy: by,
		Bucket: limit.BucketRule{Capacity: burst, FillAmount: 1, Interval: time.Minute, Continuous: true},
	}
}

// slots admits n flows at a time at shop.
func slots(n float64) *flow.LimiterSpec {
	return &flow.LimiterSpec{
		ID: 2, Policy: "few", Component: "root.0", Kind: flow.ConcurrencyLimiter, DeniedStatus: http.StatusTooManyRequests,
		Selectors: []flow.Selector{{ControlPoint: "shop"}},
		Slots:     ledger.SlotRule{Max: n, MaxInFlight: time.Hour},
	}
}

// ask asks a door as a proxy does. The pairs are names and values of headers.
func ask(d *Door, url string, headers ...string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, url, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAdmitAndDeny(t *testing.T) {
	d := New(Config{Engine: newEngine(t, rate("http.request.header.x_user", 2))})
	for range 2 {
		resp := ask(d, "/forward-auth/shop", "X-User", "ann")
		if resp.StatusCode != http.StatusNoContent || resp.Header.Get("Sluice-Verdict") != "admit" {
			t.Fatalf("got %d with %v, want 204 and admit", resp.StatusCode, resp.Header)
		}
		if resp.Header.Get("RateLimit") == "" || resp.Header.Get("RateLimit-Policy") == "" {
			t.Errorf("got %v, want RateLimit headers", resp.Header)
		}
		if got := resp.Header.Get("Sluice-Flow-Token"); got != "" {
			t.Errorf("got the token %q that nobody asked for", got)
		}
	}
	if resp := ask(d, "/forward-auth/shop", "X-User", "bob"); resp.StatusCode != http.StatusNoContent {
		t.Errorf("another user: got %d, want 204", resp.StatusCode)
	}
	resp := ask(d, "/forward-auth?control_point=shop", "X-User", "ann")
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Sluice-Verdict") != "deny" ||
		resp.Header.Get("Sluice-Reason") != "rate_limited" || resp.Header.Get("Retry-After") != "60" || resp.Header.Get("RateLimit") == "" {
		t.Errorf("got %d with %v, want a denial that says when to come back", resp.StatusCode, resp.Header)
	}
	if got, want := body(t, resp), "Too many requests. Retry in 60 s.\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for answer, want := range map[string]float64{"admit": 3, "deny": 1, "invalid": 0, "gone": 0} {
		if got := testutil.ToFloat64(d.counts.requests.WithLabelValues(answer)); got != want {
			t.Errorf("counted %v of %s, want %v", got, answer, want)
		}
	}
}

func TestProblemForPrograms(t *testing.T) {
	d := New(Config{Engine: newEngine(t, rate("", 1))})
	ask(d, "/forward-auth/shop")
	resp := ask(d, "/forward-auth/shop?deny_status=403", "Accept", "text/html;q=0.1, application/json")
	if resp.StatusCode != http.StatusForbidden || resp.Header.Get("Sluice-Status") != "429" ||
		resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("got %d with %v", resp.StatusCode, resp.Header)
	}
	type problem struct {
		Type, Title, Detail, Reason string
		Status                      int
		RetryAfter                  float64 `json:"retry_after_seconds"`
	}
	var got problem
	text := body(t, resp)
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if got.RetryAfter <= 59 || got.RetryAfter > 60 {
		t.Errorf("retry after %v s, want a minute", got.RetryAfter)
	}
	got.RetryAfter = 0
	want := problem{Type: "about:blank", Title: "Too Many Requests", Status: 429, Detail: "Too many requests. Retry in 60 s.", Reason: "rate_limited"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(text, "per-user") {
		t.Errorf("the public sees the name of a policy: %s", text)
	}
}

// TestSlotsComeBack ends requests by their tokens, also twice and with what is no token.
func TestSlotsComeBack(t *testing.T) {
	d := New(Config{Engine: newEngine(t, slots(1))})
	first := ask(d, "/forward-auth/shop?expect_end=true")
	token := first.Header.Get("Sluice-Flow-Token")
	if first.StatusCode != http.StatusNoContent || token == "" {
		t.Fatalf("got %d with %v, want a token", first.StatusCode, first.Header)
	}
	if resp := ask(d, "/forward-auth/shop"); resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Sluice-Reason") != "concurrency_limited" {
		t.Errorf("the slot is taken: got %d with %v, want 429", resp.StatusCode, resp.Header)
	}
	for _, tt := range []struct {
		method, token, status string
		want                  int
		result                string
	}{
		{http.MethodGet, token, "200", http.StatusMethodNotAllowed, ""},
		{http.MethodPost, "", "200", http.StatusBadRequest, ""},
		{http.MethodPost, "???", "200", http.StatusBadRequest, ""},
		{http.MethodPost, token[:len(token)-4], "200", http.StatusBadRequest, ""},
		{http.MethodPost, token, "99", http.StatusBadRequest, ""},
		{http.MethodPost, token, "teapot", http.StatusBadRequest, ""},
		{http.MethodPost, token + "==", "503", http.StatusNoContent, "ended"},
		{http.MethodPost, token, "", http.StatusNoContent, "already_ended"},
	} {
		r := httptest.NewRequest(tt.method, "/forward-auth/end", nil)
		r.Header.Set("Sluice-Flow-Token", tt.token)
		r.Header.Set("Sluice-Status", tt.status)
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		if w.Code != tt.want || w.Header().Get("Sluice-Result") != tt.result {
			t.Errorf("%s %.8q %q: got %d %q, want %d %q", tt.method, tt.token, tt.status, w.Code, w.Header().Get("Sluice-Result"), tt.want, tt.result)
		}
	}
	if resp := ask(d, "/forward-auth/shop"); resp.StatusCode != http.StatusNoContent {
		t.Errorf("after the end: got %d, want 204", resp.StatusCode)
	}
	if resp := ask(d, "/forward-auth?control_point=end"); resp.StatusCode != http.StatusNoContent {
		t.Errorf("the control point end: got %d, want 204", resp.StatusCode)
	}
}

// TestClientsChooseNothing sends what a client might hope to be believed. The proxy has set its family of headers.
func TestClientsChooseNothing(t *testing.T) {
	d := New(Config{Engine: newEngine(t, rate("user", 1))})
	// Of the label user, nothing is known: the limiter cannot count the requests, and lets all of them pass.
	for range 3 {
		if resp := ask(d, "/forward-auth/shop", "Sluice-Label-User", "ann"); resp.StatusCode != http.StatusNoContent {
			t.Fatalf("a header made a label that the URL does not name: got %d", resp.StatusCode)
		}
	}
	url := "/forward-auth/shop?labels=user&deny_status=403"
	ask(d, url, "Sluice-Label-User", "ann")
	resp := ask(d, url, "Sluice-Label-User", "ann", "Sluice-Deny-Status", "200", "Sluice-Timeout", "1h", "Sluice-Expect-End", "1")
	if resp.StatusCode != http.StatusForbidden || resp.Header.Get("Sluice-Flow-Token") != "" {
		t.Errorf("got %d with %v, want 403 whatever headers say", resp.StatusCode, resp.Header)
	}
	if resp := ask(d, url, "Sluice-Label-User", ""); resp.StatusCode != http.StatusNoContent {
		t.Errorf("an empty label header: got %d, want 204 as without one", resp.StatusCode)
	}
}

func TestLabelsAndServicesOfTheURL(t *testing.T) {
	spec := rate("tier", 1)
	spec.Selectors[0].Service = "shop.default"
	d := New(Config{Engine: newEngine(t, spec), Services: func(address string) []string {
		if address == "192.0.2.1" { // of httptest
			return []string{"shop.default"}
		}
		return nil
	}})
	for _, tt := range []struct {
		url  string
		want []int
	}{
		{"/forward-auth/shop?label.tier=free", []int{204, 429}},
		{"/forward-auth/shop?label.tier=paid&service=other", []int{204, 204}},
		{"/forward-auth/shop?label.tier=gold&service=other&service=shop.default", []int{204, 429}},
	} {
		for i, want := range tt.want {
			if got := ask(d, tt.url).StatusCode; got != want {
				t.Errorf("%s, question %d: got %d, want %d", tt.url, i+1, got, want)
			}
		}
	}
}

// TestMistakesInTheURL are those of people who configure a proxy.
func TestMistakesInTheURL(t *testing.T) {
	d := New(Config{Engine: newEngine(t)})
	for url, want := range map[string]string{
		"/forward-auth":                             "the URL names no control point; expected /forward-auth/NAME",
		"/forward-auth/":                            "the URL names no control point",
		"/forward-auth/shop?timeout=1":              `timeout: got "1", want a duration from 0s to 1m0s`,
		"/forward-auth/shop?timeout=2h":             `timeout: got "2h", want a duration`,
		"/forward-auth/shop?timeout=-1s":            `timeout: got "-1s", want a duration`,
		"/forward-auth/shop?deny_status=200":        `deny_status: got "200", want a number from 400 to 599`,
		"/forward-auth/shop?from=elsewhere":         `from: got "elsewhere", want forwarded or original`,
		"/forward-auth/shop?hops=99":                `hops: got "99", want a number from 0 to 16`,
		"/forward-auth/shop?labels=a,":              `labels: got "", want names`,
		"/forward-auth/shop?labels=a%0d%0ab":        `labels: got "a··b", want names`,
		"/forward-auth/shop?label.=x":               `label.: is not a setting`,
		"/forward-auth/shop?hops=1&hops=2":          "hops: is there 2 times, want once",
		"/forward-auth/shop?hopps=1":                "hopps: is not a setting; expected one of control_point,",
		"/forward-auth/shop?expect_end=1":           `expect_end: got "1", want false or true`,
		"/forward-auth/shop?a=%zz":                  "the query of the URL is broken",
		"/forward-auth/" + strings.Repeat("x", 256): "longer than 255 bytes",
	} {
		resp := ask(d, url)
		if got := body(t, resp); resp.StatusCode != http.StatusBadRequest || !strings.Contains(got, want) {
			t.Errorf("%.60s: got %d %q, want 400 with %q", url, resp.StatusCode, got, want)
		}
	}
}

// TestWaiting asks in virtual time: how long a request queues, and what becomes of one whose proxy leaves.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := slots(1)
		spec.Kind = flow.ConcurrencyScheduler
		spec.Scheduler = &flow.SchedulerSpec{Default: flow.WorkloadSpec{Name: "default", Priority: 1, Tokens: 1}}
		spec.DeniedStatus = http.StatusServiceUnavailable
		d := New(Config{Engine: newEngine(t, spec), QueueTimeout: 2 * time.Second})
		token := ask(d, "/forward-auth/shop?expect_end=true").Header.Get("Sluice-Flow-Token")
		for url, want := range map[string]time.Duration{
			"/forward-auth/shop": 2 * time.Second, "/forward-auth/shop?timeout=0s": 0, "/forward-auth/shop?timeout=30s": 30 * time.Second,
		} {
			begin := time.Now()
			resp := ask(d, url)
			if waited := time.Since(begin); resp.StatusCode != http.StatusServiceUnavailable || waited != want {
				t.Errorf("%s: got %d after %s, want 503 after %s", url, resp.StatusCode, waited, want)
			}
		}
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, leave)
		w := httptest.NewRecorder()
		d.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/forward-auth/shop?timeout=1m", nil))
		if got := testutil.ToFloat64(d.counts.gone); got != 1 {
			t.Errorf("counted %v that left, want 1", got)
		}
		end := httptest.NewRequest(http.MethodPost, "/forward-auth/end", nil)
		end.Header.Set("Sluice-Flow-Token", token)
		d.ServeHTTP(httptest.NewRecorder(), end)
		if resp := ask(d, "/forward-auth/shop?timeout=0s"); resp.StatusCode != http.StatusNoContent {
			t.Errorf("one that left kept the slot: got %d, want 204", resp.StatusCode)
		}
	})
}

// TestBaggage looks at what the proxy is to hand on: what came, and nothing where nothing did.
func TestBaggage(t *testing.T) {
	d := New(Config{Engine: newEngine(t)})
	for _, came := range []string{"tenant=t1,plan=gold", ""} {
		if got := ask(d, "/forward-auth/shop", "Baggage", came).Header.Values("Baggage"); strings.Join(got, "|") != came {
			t.Errorf("of the baggage %q came %q", came, got)
		}
	}
	h := http.Header{}
	for _, value := range []string{"a\r\nX-Smuggled: 1", "a\x00", "a\x7f"} {
		if set(h, "Baggage", value); len(h) > 0 {
			t.Errorf("the value %q became a header", value)
		}
	}
}

// TestAnswersKeepSecrets checks that nothing of the request comes back that the client has not put there for it.
func TestAnswersKeepSecrets(t *testing.T) {
	d := New(Config{Engine: newEngine(t, rate("http.request.header.cookie", 1))})
	for range 2 {
		resp := ask(d, "/forward-auth/shop", "Cookie", "session=s3cret", "Authorization", "Bearer s3cret", "Sluice-Token", "s3cret")
		if all := fmt.Sprint(resp.Header, body(t, resp)); strings.Contains(all, "s3cret") {
			t.Errorf("got %s", all)
		}
	}
}
