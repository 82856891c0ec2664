// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
)

func headersOf(v *Verdict) map[string]string {
	out := make(map[string]string)
	v.RateLimitHeaders(func(name, value string) {
		if _, twice := out[name]; twice {
			panic("header " + name + " twice")
		}
		out[name] = value
	})
	return out
}

// ask starts a flow that may not wait, explained.
func ask(e *Engine, kv ...string) *Flow {
	return e.Start(context.Background(), &Request{ControlPoint: "cp", Labels: labelMap(kv), Explain: true})
}

func bucketRule(capacity, fill float64, interval time.Duration, continuous bool) limit.BucketRule {
	return limit.BucketRule{Capacity: capacity, FillAmount: fill, Interval: interval, Continuous: continuous}
}

func TestRateLimitHeaders(t *testing.T) {
	fixed := limit.BucketRule{Capacity: 10, Interval: time.Hour, FixedWindow: true}
	for _, tt := range []struct {
		name          string
		rule          limit.BucketRule
		flows         int // before the one that is looked at
		policy, limit string
		retry         string
	}{
		{"steady", bucketRule(100, 100, time.Minute, true), 0, "q=100;w=60", "r=99;t=1", ""},
		{"slow", bucketRule(10, 1, time.Minute, true), 3, "q=10;w=600", "r=6;t=60", ""},
		{"burst", bucketRule(50, 10, time.Second, true), 0, "q=50;w=5", "r=49;t=1", ""},
		{"less than a second", bucketRule(10, 100, time.Second, true), 0, "q=100;w=1", "r=9;t=1", ""},
		{"in steps", bucketRule(100, 30, time.Minute, false), 0, "q=100;w=240", "r=99;t=60", ""},
		{"never filled", bucketRule(3, 0, time.Minute, true), 0, "q=3", "r=2", ""},
		{"fractions", bucketRule(2.5, 1, 1500*time.Millisecond, true), 0, "q=2;w=4", "r=1;t=1", ""},
		{"denied", bucketRule(2, 1, 10*time.Second, true), 2, "q=2;w=20", "r=0;t=10", "10"},
		{"denied in steps", bucketRule(2, 1, 1500*time.Millisecond, false), 2, "q=2;w=3", "r=0;t=2", "2"},
		{"denied for ever", bucketRule(1, 0, time.Second, true), 1, "q=1", "r=0", ""},
		{"window", fixed, 0, "q=10;w=3600", "r=9;t=3600", ""},
		{"window denied", fixed, 10, "q=10;w=3600", "r=0;t=3600", "3600"},
		{"huge", bucketRule(limit.MaxTokens, limit.MaxTokens, time.Second, true), 0, "q=999999999999999;w=1", "r=999999999999999;t=1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // which begins at midnight
				e := newEngine(t, rateSpec(1, "cp", "", label.Expr{}, tt.rule))
				for range tt.flows {
					ask(e).Free()
				}
				f := ask(e)
				h := headersOf(&f.Verdict)
				if want := `"policy-1/root.0";` + tt.policy; h["RateLimit-Policy"] != want {
					t.Errorf("RateLimit-Policy: %s, want %s", h["RateLimit-Policy"], want)
				}
				if want := `"policy-1/root.0";` + tt.limit; h["RateLimit"] != want {
					t.Errorf("RateLimit: %s, want %s", h["RateLimit"], want)
				}
				if h["Retry-After"] != tt.retry {
					t.Errorf("Retry-After: %q, want %q", h["Retry-After"], tt.retry)
				}
			})
		})
	}
}

// TestResetIsTrue: an account has more than r when t is over, and not long before, for limits that fill steadily or
// by window.
func TestResetIsTrue(t *testing.T) {
	for _, rule := range []limit.BucketRule{
		bucketRule(100, 7, time.Minute, true), bucketRule(3, 1, time.Hour, true), bucketRule(2.5, 3, 10*time.Second, true),
		{Capacity: 5, Interval: 90 * time.Second, FixedWindow: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			e := newEngine(t, rateSpec(1, "cp", "", label.Expr{}, rule))
			for step := range 20 {
				f := ask(e)
				h := headersOf(&f.Verdict)["RateLimit"]
				f.Free()
				left, reset := parameter(t, h, "r"), parameter(t, h, "t")
				level := func() int { return int(e.limiterByID(1).buckets.Level("", e.Now()).Remaining) }
				time.Sleep(time.Duration(reset-1) * time.Second)
				if early := level(); early > left && reset > 1 {
					t.Fatalf("rule %+v, step %d: %q, but %d are there a second earlier", rule, step, h, early)
				}
				time.Sleep(time.Second)
				if now := level(); now <= left {
					t.Fatalf("rule %+v, step %d: %q, but after that only %d are there", rule, step, h, now)
				}
			}
		})
	}
}

func (e *Engine) limiterByID(id ledger.LimiterID) *limiter { return (*e.limiters.Load())[id] }

// parameter reads a number of the first item of a header.
func parameter(t *testing.T, header, name string) int {
	t.Helper()
	m := regexp.MustCompile(";" + name + "=([0-9]+)").FindStringSubmatch(header)
	if m == nil {
		t.Fatalf("%q has no %s", header, name)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRateLimitHeadersOfManyLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var specs []*LimiterSpec
		for id := range ledger.LimiterID(10) {
			specs = append(specs, rateSpec(id+1, "cp", "", label.Expr{}, bucketRule(5, 1, time.Minute, true)))
		}
		scarce := slotSpec(ConcurrencyLimiter, 20, "cp", "", 1)
		specs = append(specs, scarce, samplerSpec(21, false), loadSpec(22, "cp"))
		e := newEngine(t, specs...)
		first := ask(e)
		h := headersOf(&first.Verdict)
		if n := strings.Count(h["RateLimit"], ", ") + 1; n != maxHeaderItems || strings.Count(h["RateLimit-Policy"], ", ")+1 != n {
			t.Errorf("%d items, want %d: %s", n, maxHeaderItems, h["RateLimit"])
		}
		if !strings.HasPrefix(h["RateLimit"], `"policy-1/root.0";r=4;t=60, "policy-10/root.0";r=4;t=60, "policy-2/`) {
			t.Errorf("order: %s", h["RateLimit"])
		}
		if _, ok := h["Retry-After"]; ok {
			t.Error("an admitted flow has Retry-After")
		}
		second := ask(e)
		h = headersOf(&second.Verdict)
		want := `"policy-20/root.0";r=0;t=60, "policy-1/root.0";r=4;t=60, ` // what was charged is there again
		if !strings.HasPrefix(h["RateLimit"], want) || h["Retry-After"] != "60" {
			t.Errorf("a denied flow has %s and Retry-After %s, want %s…", h["RateLimit"], h["Retry-After"], want)
		}
		if want := `"policy-20/root.0";q=1;qu="concurrent-requests", "policy-1/`; !strings.HasPrefix(h["RateLimit-Policy"], want) {
			t.Errorf("a denied flow has %s, want %s…", h["RateLimit-Policy"], want)
		}
	})
}

// TestNoHeaders: where no limit was asked, and where nobody asked for decisions.
func TestNoHeaders(t *testing.T) {
	e := newEngine(t, samplerSpec(1, false), rateSpec(2, "cp", "user", label.Expr{}, wide))
	if h := headersOf(&ask(e).Verdict); len(h) != 0 {
		t.Errorf("a flow that nothing limits has %v", h)
	}
	f := start(e, "cp", "user", "a")
	if h := headersOf(&f.Verdict); len(h) != 0 {
		t.Errorf("without decisions: %v", h)
	}
	if h := headersOf(&Verdict{Reason: QueueFull, RetryAfter: 1}); h["Retry-After"] != "1" || len(h) != 1 {
		t.Errorf("the shortest wait: %v", h)
	}
	if h := headersOf(&Verdict{Reason: InvalidRequest}); len(h) != 0 {
		t.Errorf("an invalid request: %v", h)
	}
}

// sfItem is an item of a list of structured fields as these headers have them.
var sfItem = regexp.MustCompile(`^"(?:[ !#-\[\]-~]|\\["\\])*"(?:;[a-z]+=(?:[0-9]{1,15}|"[a-z-]+"))+$`)

func FuzzRateLimitHeaders(f *testing.F) {
	f.Add("checkout", "root.0", 10.0, 3.0, 60.0, int64(time.Second), int64(5), true)
	f.Add("a\r\nSet-Cookie: x", "\"\\%\x00é", math.NaN(), math.Inf(1), -1.0, int64(-1), int64(math.MinInt64), false)
	f.Add("", "", 1e300, -1e300, 0.0, int64(math.MaxInt64), int64(math.MaxInt64), true)
	f.Fuzz(func(t *testing.T, policy, component string, full, left, fill float64, interval, retry int64, ok bool) {
		rule := limit.BucketRule{Capacity: full, FillAmount: fill, Interval: time.Duration(interval), Continuous: ok}
		v := Verdict{Admitted: ok, RetryAfter: time.Duration(retry)}
		for _, kind := range []Kind{RateLimiter, ConcurrencyLimiter} {
			v.Decisions = append(v.Decisions, Decision{
				Limiter: &LimiterSpec{Policy: policy, Component: component, Kind: kind, Bucket: rule},
				Charged: true, Limit: full, Remaining: left, Admitted: ok,
			})
		}
		for name, value := range headersOf(&v) {
			if name == "Retry-After" {
				if n, err := strconv.ParseInt(value, 10, 64); err != nil || n < 1 || ok {
					t.Errorf("Retry-After %q", value)
				}
				continue
			}
			for _, item := range splitItems(value) {
				if !sfItem.MatchString(item) {
					t.Errorf("%s: %q is no item of a structured field", name, item)
				}
			}
		}
	})
}

// splitItems splits a list at commas outside of strings.
func splitItems(s string) (out []string) {
	quoted, from := false, 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ',' && !quoted:
			out = append(out, strings.TrimSpace(s[from:i]))
			from = i + 1
		}
	}
	return append(out, strings.TrimSpace(s[from:]))
}

func ExampleVerdict_RateLimitHeaders() {
	v := Verdict{Reason: RateLimited, RetryAfter: 4200 * time.Millisecond, Decisions: []Decision{{
		Limiter: &LimiterSpec{
			Policy: "checkout", Component: "root.0", Kind: RateLimiter,
			Bucket: limit.BucketRule{Capacity: 100, FillAmount: 100, Interval: time.Minute, Continuous: true},
		},
		Charged: true, Limit: 100, Tokens: 8, Remaining: 1,
	}}}
	v.RateLimitHeaders(func(name, value string) { fmt.Println(name+":", value) })
	// Output:
	// RateLimit-Policy: "checkout/root.0";q=100;w=60
	// RateLimit: "checkout/root.0";r=1;t=5
	// Retry-After: 5
}
