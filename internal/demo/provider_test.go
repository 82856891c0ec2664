// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func mustProvider(t *testing.T, l quotaLimits) *provider {
	t.Helper()
	p, err := newProvider(l)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestProviderCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustProvider(t, quotaLimits{Requests: 10, Tokens: 100, Minute: 10 * second})
		take := func(tokens int, want string) {
			t.Helper()
			got := ""
			if s := p.take("k", tokens); s != nil {
				got = s.kind
			}
			if got != want {
				t.Fatalf("%d tokens: short of %q, want %q", tokens, got, want)
			}
		}
		take(101, "tokens") // more than ever fits, and not charged
		take(100, "")
		take(1, "tokens")
		time.Sleep(second) // 10 tokens
		take(11, "tokens")
		take(10, "")
		p.settle("k", 4)
		take(4, "")
		for range 7 { // 3 of 10 requests used, 1 came back
			take(0, "")
		}
		take(0, "")
		take(0, "requests")
		if s := p.take("k", 0); s.wait != second {
			t.Errorf("wait %v, want 1s", s.wait)
		}
		time.Sleep(second)
		take(0, "")
		if s := p.take("other", 100); s != nil {
			t.Errorf("another key is short of %q", s.kind)
		}
		time.Sleep(1000 * second)
		p.settle("k", 1000) // never above the limit
		take(100, "")
		take(1, "tokens")
		taken, refused := p.log("k")
		if len(taken) != 13 || len(refused) != 6 {
			t.Errorf("%d accepted and %d refused, want 13 and 6", len(taken), len(refused))
		}
	})
}

func TestProviderProtocol(t *testing.T) {
	const ask = `{"model":"mistral","messages":[{"role":"user","content":"Why is the sky blue?"}],"max_tokens":6}`
	tests := []struct {
		name, key string
		limits    quotaLimits
		times     int
	}{
		{"provider_no_key", "", quotaLimits{1, 100, second}, 1},
		{"provider_requests", "k", quotaLimits{1, 100, 90 * second}, 2},
		{"provider_tokens", "k", quotaLimits{9, 19, 90 * second}, 2},
		{"provider_too_large", "k", quotaLimits{9, 10, 90 * second}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := testModelConfig()
				cfg.Quota = mustProvider(t, tt.limits)
				m := mustModel(t, cfg)
				var w *httptest.ResponseRecorder
				for range tt.times {
					w = httptest.NewRecorder()
					req := httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(ask))
					if tt.key != "" {
						req.Header.Set("Authorization", "Bearer "+tt.key)
					}
					m.ServeHTTP(w, req)
				}
				golden(t, tt.name, describe(w))
			})
		})
	}
}

// What a request did not use comes back when it is done, and before the caller has the answer.
func TestProviderSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testModelConfig()
		cfg.Quota = mustProvider(t, quotaLimits{Requests: 1e6, Tokens: 1000, Minute: 1e6 * second})
		m := mustModel(t, cfg)
		req := httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(
			`{"model":"mistral","messages":[{"role":"user","content":"Why is the sky blue?"}],"max_tokens":500}`))
		req.Header.Set("Authorization", "Bearer k")
		w := &onFirstWrite{ResponseRecorder: httptest.NewRecorder(), do: func() {
			if left := cfg.Quota.keys["k"].tokens; left < 980 || left > 995 {
				t.Errorf("%g tokens left when the answer is written, want 1000 less the 14 used", left)
			}
		}}
		m.ServeHTTP(w, req)
		if w.do != nil {
			t.Error("nothing was written")
		}
	})
}

// onFirstWrite runs do before the first byte of an answer.
type onFirstWrite struct {
	*httptest.ResponseRecorder
	do func()
}

func (w *onFirstWrite) Write(b []byte) (int, error) {
	if w.do != nil {
		w.do()
		w.do = nil
	}
	return w.ResponseRecorder.Write(b)
}

func TestProviderForgetsKeysRatherThanGrow(t *testing.T) {
	p := mustProvider(t, quotaLimits{1, 1, time.Second})
	for i := range 3 * maxKeys {
		p.take(strings.Repeat("k", i%7)+string(rune('a'+i%26))+time.Duration(i).String(), 1)
	}
	if len(p.keys) > maxKeys {
		t.Errorf("%d keys, want at most %d", len(p.keys), maxKeys)
	}
}

func TestProviderLimitsAreChecked(t *testing.T) {
	for _, l := range []quotaLimits{{}, {1, 1, 0}, {0, 1, 1}, {1, -1, 1}} {
		if _, err := newProvider(l); err == nil {
			t.Errorf("newProvider(%+v): got no error", l)
		}
	}
}

// The capacity of the policy leaves room for what the workers can have under way.
func TestQuotaHeadroom(t *testing.T) {
	for _, p := range prompts {
		if estimate := tokenCount(p) + quotaLongAnswer; estimate > quotaMaxEstimate {
			t.Errorf("a prompt may cost %d tokens, want at most %d", estimate, quotaMaxEstimate)
		}
	}
	if workers := 2 * quotaWorkers; quotaCapacityRPM+workers > quotaRPM || quotaCapacityTPM+workers*quotaMaxEstimate > quotaTPM {
		t.Errorf("capacities %d and %d leave too little of %d and %d", quotaCapacityRPM, quotaCapacityTPM, quotaRPM, quotaTPM)
	}
}
