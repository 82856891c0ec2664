// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/limit"
)

// TestClientBody: the public learns what to do, and nothing about the names of policies, components and accounts.
func TestClientBody(t *testing.T) {
	spec := rateSpec(1, "cp", "user", label.Expr{}, limit.BucketRule{Interval: time.Minute})
	spec.Policy, spec.Component = "my-policy", "root.7"
	for reason := RateLimited; int(reason) < len(reasonNames); reason++ {
		v := Verdict{Reason: reason, Limiter: spec, Key: "user-77", RetryAfter: 1500 * time.Millisecond, Detail: "more than 4096 labels\x80"}
		kind, text := v.ClientBody(false)
		if s := string(text); kind != "text/plain; charset=utf-8" || !strings.HasSuffix(s, " Retry in 2 s.\n") || strings.ToValidUTF8(s, "") != s {
			t.Errorf("%s: got %s %q", reason, kind, s)
		}
		kind, body := v.ClientBody(true)
		var got problem
		if err := json.Unmarshal(body, &got); err != nil || kind != "application/problem+json" {
			t.Fatalf("%s: got %s %s, %v", reason, kind, body, err)
		}
		if got.Reason != reason.String() || got.Status != v.HTTPStatus() || got.RetryAfter != 1.5 || got.Detail+"\n" != string(text) {
			t.Errorf("%s: got %s", reason, body)
		}
		for _, secret := range []string{"my-policy", "root.7", "user-77"} {
			if strings.Contains(string(text)+string(body), secret) {
				t.Errorf("%s: %s and %s tell %s", reason, text, body, secret)
			}
		}
	}
	v := Verdict{Reason: TooLarge}
	if _, body := v.ClientBody(true); strings.Contains(string(body), "retry_after_seconds") {
		t.Errorf("got %s, want that nothing is said about a retry that does not help", body)
	}
}

// TestSecretsAreNotEchoed: a cost that makes no sense is told back, but not when it came in a header with a secret.
func TestSecretsAreNotEchoed(t *testing.T) {
	for key, want := range map[string]string{"cost": "label cost: -77 is", "http.request.header.x_token": "label http.request.header.x_token: (hidden, 3 bytes) is"} {
		spec := rateSpec(1, "cp", "", label.Expr{}, limit.BucketRule{Capacity: 1, FillAmount: 1, Interval: time.Second})
		spec.TokensKey = key
		f := start(newEngine(t, spec), "cp", key, "-77")
		if got := f.Verdict.Detail; f.Verdict.Reason != InvalidRequest || !strings.HasPrefix(got, want) {
			t.Errorf("got %s %q, want invalid_request %q", f.Verdict.Reason, got, want)
		}
		f.Free()
	}
}
