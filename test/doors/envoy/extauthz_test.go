// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"testing"

	"github.com/sluice-project/sluice/test/doors/doorstest"
)

const extauthzFile = "examples/envoy/extauthz.yaml"

func TestExtAuthzLimitsByHeader(t *testing.T) {
	app := startApp(t)
	sluice := doorstest.Sluice(t, doorstest.Options{Policies: []string{"examples/envoy/policies/per-user.yaml"}})
	envoy := startEnvoy(t, extauthzFile, sluice.Addr, app.addr)
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
	if got.status != 429 || got.header.Get("Retry-After") != "1" || got.header.Get("RateLimit") == "" {
		t.Errorf("request 6: got %+v, want 429 with Retry-After and RateLimit", got)
	}
	t.Logf("%+v", got)
	if got := envoy.get("/", "x-user", "bob"); got.status != 200 {
		t.Errorf("another user: got %d, want 200", got.status)
	}
	if n := app.requests.Load(); n != 6 {
		t.Errorf("the application saw %d requests, want 6", n)
	}
}
