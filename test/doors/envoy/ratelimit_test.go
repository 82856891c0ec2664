// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/rls/envoyconfig"
	"github.com/sluice-project/sluice/test/doors/doorstest"
)

const (
	ratelimitFile   = "examples/envoy/ratelimit.yaml"
	ratelimitLimits = "examples/envoy/ratelimit-limits.yaml"
	ratelimitPolicy = "examples/envoy/ratelimit-policies/shop.yaml"
)

// aYear makes windows of the example so long that none ends during a test, unless it is New Year's Eve of 1970.
var aYear = strings.NewReplacer("interval: 60s", "interval: 31536000s", "interval: 3600s", "interval: 31536000s", "interval: 86400s", "interval: 31536000s")

// patient gives the answer of Sluice more time than a small machine with many tests needs.
var patient = []string{"timeout: 0.1s", "timeout: 5s"}

func setupRateLimit(t *testing.T, policy string, edits ...string) (*proxy, *doorstest.Server, *app) {
	t.Helper()
	doorstest.Require(t, "bin/envoy")
	a := startApp(t)
	s := doorstest.Sluice(t, doorstest.Options{Policies: []string{policy}})
	return startEnvoy(t, ratelimitFile, s.Addr, a.addr, append(edits, patient...)...), s, a
}

func shopPolicy(t *testing.T) string { return aYear.Replace(doorstest.Read(t, ratelimitPolicy)) }

func TestRateLimitGuide(t *testing.T) {
	t.Parallel()
	envoy := doorstest.Require(t, "bin/envoy")
	app, sluice := doorstest.FreePort(t), doorstest.FreePort(t)
	config, ports := envoyConfig(t, ratelimitFile, fmt.Sprintf("127.0.0.1:%d", sluice), fmt.Sprintf("127.0.0.1:%d", app), patient...)
	doorstest.Guide(t, "docs/guides/envoy-ratelimit.md", []string{filepath.Dir(envoy)}, []string{
		"sluice serve", fmt.Sprintf("sluice serve --listen 127.0.0.1:%d", sluice),
		"sluice health", fmt.Sprintf("sluice health --server 127.0.0.1:%d", sluice),
		"127.0.0.1 8000", fmt.Sprintf("127.0.0.1 %d", app),
		"envoy --config-path " + ratelimitFile, "envoy --use-dynamic-base-id --config-path " + config,
		"http://127.0.0.1:10000", fmt.Sprintf("http://127.0.0.1:%d", ports.listen),
	})
}

// The policy of the example is what the command of its first line makes of the limits of the example.
func TestRateLimitExampleIsImported(t *testing.T) {
	t.Parallel()
	r, err := envoyconfig.Convert([]envoyconfig.File{{Name: ratelimitLimits, Text: []byte(doorstest.Read(t, ratelimitLimits))}},
		envoyconfig.Options{ControlPoint: func(domain string) string { return "ratelimit/" + domain }})
	if err != nil {
		t.Fatal(err)
	}
	if text := string(r.Policies[0].Text); len(r.Remarks) > 0 || text != doorstest.Read(t, ratelimitPolicy) {
		t.Errorf("%s is not what sluice import envoy-ratelimit %s says:\n%v\n%s", ratelimitPolicy, ratelimitLimits, r.Remarks, text)
	}
}

func TestRateLimitByDescriptor(t *testing.T) {
	t.Parallel()
	envoy, s, app := setupRateLimit(t, shopPolicy(t))
	ask := func(user, path string, want ...int) {
		t.Helper()
		for i, status := range want {
			if got := envoy.get(path, "x-user", user); got.status != status {
				t.Errorf("%s as %s, request %d: got %d, want %d", path, user, i+1, got.status, status)
			}
		}
	}
	ask("ann", "/", 200, 200, 200, 200, 200, 429, 429)
	ask("bob", "/", 200)
	ask("trial-7", "/", 200, 200, 429)
	ask("load-test", "/", 200, 200, 200, 200, 200, 200, 200)
	ask("ann", "/exports/1", 200, 200, 429)       // ten hits each, counted apart
	if got := envoy.get("/"); got.status != 200 { // makes no descriptor
		t.Errorf("without a user: got %d, want 200", got.status)
	}
	if n := app.requests.Load(); n != 5+1+2+7+2+1 {
		t.Errorf("the application saw %d requests, want 18", n)
	}
	for outcome, want := range map[string]float64{"ok": 17, "over_limit": 4, "invalid": 0} {
		if got := s.Metric("sluice_rls_requests_total", "outcome", outcome); got != want {
			t.Errorf("%v requests counted as %s, want %v", got, outcome, want)
		}
	}
}

func TestRateLimitHeadersReachTheClient(t *testing.T) {
	t.Parallel()
	envoy, _, _ := setupRateLimit(t, shopPolicy(t), "domain: shop", "domain: shop\n                      enable_x_ratelimit_headers: DRAFT_VERSION_03")
	got := envoy.get("/", "x-user", "trial-1")
	const policy = `"ratelimit-shop/root.1";q=2;w=31536000`
	if h := got.header; got.status != 200 || h.Get("RateLimit-Policy") != policy || !strings.HasPrefix(h.Get("RateLimit"), `"ratelimit-shop/root.1";r=1;t=`) {
		t.Errorf("got %d with %v, want 200 and one left", got.status, h)
	}
	if got.header.Get("X-RateLimit-Remaining") != "1" {
		t.Errorf("headers that Envoy makes of the answer: %v, want one left", got.header)
	}
	envoy.get("/", "x-user", "trial-1")
	got = envoy.get("/", "x-user", "trial-1")
	after, err := strconv.Atoi(got.header.Get("Retry-After"))
	if got.status != 429 || err != nil || after < 1 || after > 31536000 || !strings.Contains(got.header.Get("RateLimit"), ";r=0;t=") {
		t.Errorf("got %d with %v, want 429, when to come back, and nothing left", got.status, got.header)
	}
	if reset, err := strconv.Atoi(got.header.Get("X-RateLimit-Reset")); err != nil || reset < after-1 || reset > after+1 {
		t.Errorf("X-RateLimit-Reset is %q, Retry-After %d", got.header.Get("X-RateLimit-Reset"), after)
	}
}

// What a request costs can be in a header; a value that is no number makes Envoy leave the descriptor out.
func TestRateLimitHitsOfTheRequest(t *testing.T) {
	t.Parallel()
	envoy, _, _ := setupRateLimit(t, shopPolicy(t), "{number: 10}", `{format: "%REQ(x-rows)%"}`)
	for i, tt := range []struct {
		rows string
		want int
	}{{"15", 200}, {"0", 200}, {"5", 200}, {"0", 200}, {"1", 429}, {"0", 429}} {
		if got := envoy.get("/exports/1", "x-user", "ann", "x-rows", tt.rows); got.status != tt.want {
			t.Errorf("request %d with %s rows: got %d, want %d", i+1, tt.rows, got.status, tt.want)
		}
	}
}

// Envoy sends what clients send: long values, separators, text that is no UTF-8. Each is one user, and nothing of it
// ends in an error, after which Envoy would let the request pass.
func TestRateLimitHostileValues(t *testing.T) {
	t.Parallel()
	envoy, s, _ := setupRateLimit(t, shopPolicy(t))
	for _, user := range []string{
		strings.Repeat("x", 50_000), "a,user=b", `a\,b`, "trial-", "=", "ratelimit.hits=0", "\u00e9\u4e16", "%00", "${x}",
	} {
		limit := 5
		if strings.HasPrefix(user, "trial-") {
			limit = 2
		}
		for i := range limit + 1 {
			want := 200
			if i == limit {
				want = 429
			}
			if got := envoy.get("/", "x-user", user); got.status != want {
				t.Errorf("%.20q, request %d: got %d, want %d", user, i+1, got.status, want)
			}
		}
	}
	envoy.get("/", "x-user", "\xff\xfe") // whatever Envoy makes of it
	if n := s.Metric("sluice_rls_requests_total", "outcome", "invalid"); n != 0 {
		t.Errorf("%v requests were refused", n)
	}
}

// Without Sluice requests pass, or fail where the filter says so, and limits hold again when it is back.
func TestRateLimitWithoutSluice(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		edit []string
		want int
	}{{nil, 200}, {[]string{"failure_mode_deny: false", "failure_mode_deny: true"}, 500}} {
		envoy, s, _ := setupRateLimit(t, shopPolicy(t), tt.edit...)
		if got := envoy.get("/", "x-user", "trial-1"); got.status != 200 {
			t.Errorf("got %d, want 200", got.status)
		}
		s.Kill()
		if got := envoy.get("/", "x-user", "trial-1"); got.status != tt.want {
			t.Errorf("without Sluice: got %d, want %d", got.status, tt.want)
		}
		back := doorstest.Sluice(t, doorstest.Options{Policies: []string{shopPolicy(t)}, Listen: s.Addr})
		doorstest.Eventually(t, func() error {
			return wantStatus(envoy.get("/", "x-user", "trial-2"), 429)
		})
		if n := back.Metric("sluice_rls_descriptors_total", "code", "over_limit"); n == 0 {
			t.Error("Sluice was not asked after it had come back")
		}
	}
}

// A scheduler makes requests wait for the answer, until shortly before Envoy gives up.
func TestRateLimitQueue(t *testing.T) {
	t.Parallel()
	const policy = `blueprint: quota-scheduling/base
policy:
  policy_name: queue
  quota_scheduler:
    bucket_capacity: 1
    fill_amount: 1
    selectors: [{control_point: ratelimit/shop}]
    rate_limiter: {interval: 1s}
`
	envoy, s, _ := setupRateLimit(t, policy)
	for i := range 2 {
		began := time.Now()
		if got := envoy.get("/", "x-user", "ann"); got.status != 200 {
			t.Errorf("request %d: got %d, want 200", i+1, got.status)
		}
		if took := time.Since(began); i == 1 && took < 500*time.Millisecond {
			t.Errorf("the second request took %v, want about a second in the queue", took)
		}
	}
	impatient := startEnvoy(t, ratelimitFile, s.Addr, "127.0.0.1:1", "failure_mode_deny: false", "failure_mode_deny: true")
	if got := impatient.get("/", "x-user", "ann"); got.status != 429 {
		t.Errorf("with a time-out too short to wait: %s", fmt.Sprint(got))
	}
}
