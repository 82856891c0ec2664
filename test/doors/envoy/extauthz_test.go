// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-project/sluice/test/doors/doorstest"
)

const (
	extauthzFile  = "examples/envoy/extauthz.yaml"
	perUserPolicy = "examples/envoy/policies/per-user.yaml"
)

// queuePolicy lets one request run; others wait until half a second before Envoy stops waiting for the answer, which
// is more than is needed, except where many tests share few processors.
const queuePolicy = `blueprint: concurrency-scheduling/base
policy:
  policy_name: queue
  concurrency_scheduler:
    max_concurrency: 1
    selectors:
      - control_point: ingress
    concurrency_limiter:
      max_inflight_duration: 60s
    scheduler:
      decision_deadline_margin: 0.5s
`

// slotPolicy lets one request run; others are denied.
const slotPolicy = `blueprint: concurrency-limiting/base
policy:
  policy_name: slot
  concurrency_limiter:
    max_concurrency: 1
    selectors:
      - control_point: ingress
    parameters:
      max_inflight_duration: 60s
`

// setup starts the application, the product and Envoy between clients and both.
func setup(t *testing.T, policies []string, edits ...string) (*proxy, *doorstest.Server, *app) {
	t.Helper()
	doorstest.Require(t, "bin/envoy")
	a := startApp(t)
	s := doorstest.Sluice(t, doorstest.Options{Policies: policies})
	return startEnvoy(t, extauthzFile, s.Addr, a.addr, edits...), s, a
}

// eventuallyMetric waits until a metric has a value.
func eventuallyMetric(t *testing.T, s *doorstest.Server, want float64, name string, labels ...string) {
	t.Helper()
	doorstest.Eventually(t, func() error {
		if got := s.Metric(name, labels...); got != want {
			return fmt.Errorf("%s%v is %v, want %v", name, labels, got, want)
		}
		return nil
	})
}

// ended is how many requests have told their end.
func eventuallyEnded(t *testing.T, s *doorstest.Server, n float64) {
	t.Helper()
	eventuallyMetric(t, s, n, "sluice_extauthz_ends_total", "result", "ended")
}

func TestExtAuthzLimitsByHeader(t *testing.T) {
	t.Parallel()
	envoy, _, app := setup(t, []string{perUserPolicy})
	for i := range 5 {
		got := envoy.get("/", "x-user", "ann")
		if got.status != 200 || got.body != "hello\n" {
			t.Fatalf("request %d: got %+v, want 200", i, got)
		}
		if got.header.Get("RateLimit") == "" || got.header.Get("RateLimit-Policy") == "" {
			t.Errorf("request %d: headers %v tell nothing about the limit", i, got.header)
		}
	}
	got := envoy.get("/", "x-user", "ann")
	if got.status != 429 || got.header.Get("Retry-After") != "10" || got.header.Get("RateLimit") == "" ||
		got.body != "Too many requests. Retry in 10 s.\n" || got.header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("request 6: got %+v, want 429 with Retry-After, RateLimit and a sentence", got)
	}
	got = envoy.get("/", "x-user", "ann", "accept", "application/json")
	if got.status != 429 || got.header.Get("Content-Type") != "application/problem+json" || !strings.Contains(got.body, `"reason":"rate_limited"`) ||
		strings.Contains(got.body, "per-user") {
		t.Errorf("for a program: got %+v, want 429 with problem+json that names no policy", got)
	}
	for _, user := range []string{"bob", ""} {
		if got := envoy.get("/", "x-user", user); got.status != 200 {
			t.Errorf("user %q: got %d, want 200", user, got.status)
		}
	}
	before := app.requests.Load()
	if before != 7 {
		t.Errorf("the application saw %d requests, want 7", before)
	}
}

func TestExtAuthzRoutes(t *testing.T) {
	t.Parallel()
	policy := strings.NewReplacer("http.request.header.x_user", "area", "bucket_capacity: 5", "bucket_capacity: 1").Replace(doorstest.Read(t, perUserPolicy))
	envoy, s, _ := setup(t, []string{policy}, "context_extensions: {label.area: admin}", "context_extensions: {label.area: admin, other: x}")
	for i, want := range []int{200, 429} {
		if got := envoy.get("/admin/users"); got.status != want {
			t.Errorf("/admin/ %d: got %d, want %d", i, got.status, want)
		}
	}
	for range 3 {
		if got := envoy.get("/"); got.status != 200 {
			t.Errorf("a route without the label: got %d, want 200", got.status)
		}
		if got := envoy.get("/healthz"); got.status != 200 {
			t.Errorf("a route that is not asked about: got %d, want 200", got.status)
		}
	}
	if n := s.Metric("sluice_extauthz_checks_total"); n != 5 {
		t.Errorf("Envoy asked %v times, want 5: not about /healthz", n)
	}
}

func TestExtAuthzClassifiesTheBody(t *testing.T) {
	t.Parallel()
	policy := strings.Replace(doorstest.Read(t, "examples/envoy/policies/per-tenant.yaml"), "bucket_capacity: 10", "bucket_capacity: 2", 1)
	policy = strings.Replace(policy, "fill_amount: 10", "fill_amount: 0.001", 1)
	envoy, _, app := setup(t, []string{policy})
	ask := func(tenant string, headers ...string) answer {
		return envoy.ask(http.MethodPost, "/cart", `{"tenant": "`+tenant+`"}`, append(headers, "content-type", "application/json")...)
	}
	if got := ask("acme"); got.status != 200 {
		t.Fatalf("got %+v, want 200", got)
	}
	if got := app.last.Load().Get("baggage"); got != "tenant=acme" {
		t.Errorf("baggage of the application: got %q, want tenant=acme", got)
	}
	if got := ask("acme", "baggage", "a=1"); got.status != 200 {
		t.Fatalf("got %+v, want 200", got)
	}
	if got := app.last.Load().Values("baggage"); len(got) != 1 || got[0] != "a=1,tenant=acme" {
		t.Errorf("baggage of the application: got %q, want a=1 and tenant=acme in one header", got)
	}
	if got := ask("other", "baggage", "k\u00e4se=1"); got.status != 200 || app.last.Load().Get("baggage") != "k\u00e4se=1,tenant=other" {
		t.Errorf("baggage that is not ASCII: got %d and %q, want it unchanged with tenant=other after it", got.status, app.last.Load().Get("baggage"))
	}
	if got := ask("acme"); got.status != 429 {
		t.Errorf("third request of the tenant: got %d, want 429", got.status)
	}
	for name, tenant := range map[string]string{"line ends": `x\r\nx-evil: 1`, "not ASCII": `käse`, "NUL": `\u0000`, "separators": `a,b;c=d`} {
		app.last.Store(nil)
		if got := ask(tenant); got.status != 200 {
			t.Errorf("%s: got %d, want 200", name, got.status)
			continue
		}
		h := app.last.Load()
		if h.Get("x-evil") != "" || strings.ContainsFunc(h.Get("baggage"), func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%s: the application got %v", name, *h)
		}
	}
	if got := envoy.ask(http.MethodPost, "/cart", `{"tenant": `, "content-type", "application/json"); got.status != 200 {
		t.Errorf("half a document: got %d, want 200", got.status)
	}
	if got := envoy.ask(http.MethodPost, "/cart", strings.Repeat("x", 1<<20), "content-type", "application/json"); got.status != 200 {
		t.Errorf("1 MB, of which Envoy sends the beginning: got %d, want 200", got.status)
	}
}

func TestExtAuthzFailsOpen(t *testing.T) {
	t.Parallel()
	policy := strings.NewReplacer("bucket_capacity: 5", "bucket_capacity: 1", "fill_amount: 1", "fill_amount: 0.001").Replace(doorstest.Read(t, perUserPolicy))
	envoy, s, a := setup(t, []string{policy})
	envoy.get("/", "x-user", "ann")
	if got := envoy.get("/", "x-user", "ann"); got.status != 429 {
		t.Fatalf("got %d, want 429", got.status)
	}
	s.Kill()
	for i := range 10 {
		began := time.Now()
		if got := envoy.get("/", "x-user", "ann"); got.status != 200 {
			t.Errorf("request %d without Sluice: got %d, want 200", i, got.status)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("request %d took %v", i, took)
		}
	}
	s = doorstest.Sluice(t, doorstest.Options{Policies: []string{policy}, Listen: s.Addr})
	doorstest.Eventually(t, func() error { // Envoy connects again, in its own time
		return wantStatus(envoy.get("/", "x-user", "ann"), 429)
	})
	before := a.requests.Load()
	if err := s.Stop(); err != nil { // in an orderly way: neither is that an outage
		t.Error(err)
	}
	if got := envoy.get("/", "x-user", "ann"); got.status != 200 || a.requests.Load() != before+1 {
		t.Errorf("Sluice has stopped: got %d, want 200", got.status)
	}
}

func TestExtAuthzQueues(t *testing.T) {
	t.Parallel()
	envoy, s, app := setup(t, []string{queuePolicy}, "timeout: 0.5s", "timeout: 1.5s")
	release := make(chan struct{})
	arrived := holdRequests(app, release)
	type result struct {
		answer
		err  error
		took time.Duration
	}
	results := make(chan result, 2)
	ask := func() {
		began := time.Now()
		got, err := envoy.try(http.MethodGet, "/", "")
		results <- result{got, err, time.Since(began)}
	}
	go ask()
	<-arrived
	got := envoy.get("/") // waits for a slot, as long as Envoy waits for an answer
	if got.status != 503 || !strings.HasPrefix(got.body, "The service is busy.") {
		t.Errorf("waited in vain: got %+v, want 503 from Sluice, not from Envoy's time-out", got)
	}
	go ask()
	eventuallyMetric(t, s, 1, "sluice_flows_waiting")
	close(release)
	for range 2 {
		if r := <-results; r.err != nil || r.status != 200 {
			t.Errorf("got %+v, %v, want 200", r.answer, r.err)
		}
	}
	eventuallyEnded(t, s, 2)
	if n := s.Metric("sluice_limiter_in_flight_tokens"); n != 0 {
		t.Errorf("%v slots are held after the end, want none", n)
	}
}

func TestExtAuthzReturnsSlots(t *testing.T) {
	t.Parallel()
	envoy, s, app := setup(t, []string{slotPolicy})
	for i := range 20 {
		if got := envoy.get("/"); got.status != 200 {
			t.Fatalf("request %d: got %+v, want 200: the slot of the one before is free", i, got)
		}
		eventuallyEnded(t, s, float64(i+1))
	}
	arrived := holdRequests(app, nil)
	ctx, leave := context.WithCancel(t.Context())
	go func() { // a client that leaves
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, envoy.url, http.NoBody)
		if err == nil {
			_, _ = http.DefaultClient.Do(r)
		}
	}()
	<-arrived
	if got := envoy.get("/"); got.status != 429 {
		t.Errorf("the slot is held: got %d, want 429", got.status)
	}
	leave()
	eventuallyEnded(t, s, 21)
	app.do(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	if got := envoy.get("/"); got.status != 500 {
		t.Errorf("got %d, want that of the application, 500", got.status)
	}
	eventuallyEnded(t, s, 22)
	if n := s.Metric("sluice_flows_failed_total", "control_point", "ingress"); n != 1 {
		t.Errorf("%v flows failed, want 1", n)
	}
}

func TestExtAuthzEnvoyOrClientsVanishMidCheck(t *testing.T) {
	t.Parallel()
	envoy, s, app := setup(t, []string{queuePolicy}, "timeout: 0.5s", "timeout: 30s")
	holdRequests(app, nil)
	ctx, leave := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer leave()
	for range 5 {
		clients.Go(func() {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, envoy.url, http.NoBody)
			if err == nil {
				_, _ = http.DefaultClient.Do(r)
			}
		})
	}
	eventuallyMetric(t, s, 4, "sluice_flows_waiting")
	other, abandon := context.WithCancel(t.Context())
	clients.Go(func() {
		r, err := http.NewRequestWithContext(other, http.MethodGet, envoy.url, http.NoBody)
		if err == nil {
			_, _ = http.DefaultClient.Do(r)
		}
	})
	eventuallyMetric(t, s, 5, "sluice_flows_waiting")
	abandon()
	eventuallyMetric(t, s, 4, "sluice_flows_waiting")
	envoy.Kill()
	eventuallyMetric(t, s, 0, "sluice_flows_waiting")
	if n := s.Metric("sluice_limiter_in_flight_tokens"); n != 1 {
		t.Errorf("%v slots are held, want that of the request that nobody ended", n)
	}
	eventuallyMetric(t, s, 5, "sluice_extauthz_checks_total", "result", "cancelled")
}

func TestExtAuthzBigHeaders(t *testing.T) {
	t.Parallel()
	envoy, s, _ := setup(t, []string{perUserPolicy}, "stat_prefix: web", "stat_prefix: web\n                max_request_headers_kb: 8192")
	big := func(n int) answer { return envoy.get("/", "x-user", "ann", "x-big", strings.Repeat("b", n)) }
	if got := big(3 << 20); got.status != 200 {
		t.Errorf("3 MB: got %d, want 200", got.status)
	}
	if n := s.Metric("sluice_extauthz_checks_total", "result", "admitted"); n != 1 {
		t.Errorf("decided %v requests, want the one with 3 MB", n)
	}
	if got := big(7 << 20); got.status != 200 {
		t.Errorf("7 MB, more than Sluice reads: got %d, want that it passes as failure_mode_allow says", got.status)
	}
	if got, err := envoy.try(http.MethodGet, "/", "", "x-big", strings.Repeat("b", 10<<20)); err == nil && got.status != 431 {
		t.Errorf("10 MB, more than Envoy reads: got %d, want 431", got.status)
	}
	if got := envoy.get("/", "x-user", "ann"); got.status != 200 {
		t.Errorf("after that: got %d, want 200", got.status)
	}
}

// secondFilter asks about the same request at a control point of its own.
const secondFilter = `                  - name: second
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
                      transport_api_version: V3
                      failure_mode_allow: true
                      metadata_context_namespaces: [envoy.filters.http.ext_authz]
                      grpc_service:
                        envoy_grpc: {cluster_name: sluice}
                        timeout: 0.5s
                        initial_metadata:
                          - {key: control-point, value: second}
`

func TestExtAuthzTwoFiltersBothEnd(t *testing.T) {
	t.Parallel()
	const router = "                  - name: envoy.filters.http.router\n"
	envoy, s, _ := setup(t, []string{slotPolicy}, router, secondFilter+router)
	for i := range 3 {
		if got := envoy.get("/"); got.status != 200 {
			t.Fatalf("request %d: got %+v, want 200: the slot of the one before is free", i, got)
		}
		eventuallyEnded(t, s, float64(2*(i+1)))
	}
}

func TestExtAuthzWithoutAControlPoint(t *testing.T) {
	t.Parallel()
	doorstest.Require(t, "bin/envoy")
	app := startApp(t)
	for _, c := range []struct {
		env  string
		want int
	}{
		{"SLUICE_ENVOY_AUTHORIZATION_CONTROL_POINT=ingress", 429},
		{"SLUICE_LOG_LEVEL=info", 200}, // refused, and Envoy lets it pass
	} {
		s := doorstest.Sluice(t, doorstest.Options{Policies: []string{slotPolicy}, Env: []string{c.env}})
		envoy := startEnvoy(t, extauthzFile, s.Addr, app.addr, "{key: control-point, value: ingress}", "{key: some, value: thing}")
		arrived := holdRequests(app, nil)
		go func() { _, _ = envoy.try(http.MethodGet, "/", "") }() // until the test ends
		<-arrived
		app.do(func(http.ResponseWriter, *http.Request) {})
		if got := envoy.get("/"); got.status != c.want {
			t.Errorf("%s: got %d, want %d", c.env, got.status, c.want)
		}
	}
}
