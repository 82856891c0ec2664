// SPDX-License-Identifier: Apache-2.0

package rls

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/limit"
)

func headersOf(out *rlsv3.RateLimitResponse) map[string]string {
	got := map[string]string{}
	for _, h := range out.ResponseHeadersToAdd {
		got[strings.ToLower(h.Key)] = h.Value
	}
	return got
}

func TestCurrentLimit(t *testing.T) {
	tests := []struct {
		name   string
		bucket limit.BucketRule
		want   string
	}{
		{"per second", limit.BucketRule{Capacity: 9, FillAmount: 5, Interval: time.Second, Continuous: true}, `name:"p/root.0" requests_per_unit:5 unit:SECOND`},
		{"per day", limit.BucketRule{Capacity: 5, FillAmount: 5, Interval: 24 * time.Hour}, `name:"p/root.0" requests_per_unit:5 unit:DAY`},
		{"per week", limit.BucketRule{Capacity: 5, FillAmount: 5, Interval: 7 * 24 * time.Hour}, `name:"p/root.0" requests_per_unit:5 unit:WEEK`},
		{"per month", limit.BucketRule{Capacity: 5, FillAmount: 5, Interval: 30 * 24 * time.Hour}, `name:"p/root.0" requests_per_unit:5 unit:MONTH`},
		{"per year", limit.BucketRule{Capacity: 5, FillAmount: 5, Interval: 365 * 24 * time.Hour}, `name:"p/root.0" requests_per_unit:5 unit:YEAR`},
		{"window", limit.BucketRule{Capacity: 9, Interval: time.Hour, FixedWindow: true}, `name:"p/root.0" requests_per_unit:9 unit:HOUR`},
		{"per 90 seconds", limit.BucketRule{Capacity: 9, FillAmount: 5, Interval: 90 * time.Second}, `name:"p/root.0" requests_per_unit:5 unit:SECOND unit_multiplier:{value:90}`},
		{"per 100 ms", limit.BucketRule{Capacity: 9, FillAmount: 5, Interval: 100 * time.Millisecond}, "<nil>"},
		{"half a request", limit.BucketRule{Capacity: 9, FillAmount: 0.5, Interval: time.Second}, "<nil>"},
		{"more than there are numbers for", limit.BucketRule{Capacity: 1e12, FillAmount: 1e12, Interval: time.Second}, "<nil>"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := perDescriptor(1)
			spec.Bucket = tt.bucket
			out := answerOf(t, newDoor(t, Config{}, spec), ask(entries("a=b")))
			got := "<nil>"
			if l := out.Statuses[0].CurrentLimit; l != nil {
				got = strings.Join(strings.Fields(l.String()), " ") // the library varies the spaces
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // begins at midnight
		time.Sleep(12*time.Second + 300*time.Millisecond)
		d := newDoor(t, Config{}, perDescriptor(2))
		for i, want := range []struct {
			left uint32
			code rlsv3.RateLimitResponse_Code
		}{{1, ok}, {0, ok}, {0, over}} {
			s := answerOf(t, d, ask(entries("a=b"))).Statuses[0]
			if s.Code != want.code || s.LimitRemaining != want.left || s.DurationUntilReset.GetSeconds() != 48 {
				t.Errorf("answer %d: %v, want %v with %d left until the next minute, in 48 s", i, s, want.code, want.left)
			}
		}
	})
}

func TestHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		draft := map[string]string{
			"ratelimit-policy": `"p/root.0";q=2;w=60`, "ratelimit": `"p/root.0";r=0;t=60`, "retry-after": "60",
		}
		legacy := map[string]string{"x-ratelimit-limit": "2", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "60"}
		for choice, sets := range map[Headers][]map[string]string{
			"": {draft}, HeadersDraft: {draft}, HeadersLegacy: {legacy}, HeadersBoth: {draft, legacy}, HeadersNone: nil,
		} {
			d := newDoor(t, Config{Headers: choice}, perDescriptor(2))
			two := ask(entries("a=roomy"), entries("a=b"))
			answerOf(t, d, ask(entries("a=b")))
			answerOf(t, d, ask(entries("a=b")))
			got := headersOf(answerOf(t, d, two)) // of the descriptor that is over its limit
			n := 0
			for _, set := range sets {
				for name, want := range set {
					if n++; got[name] != want {
						t.Errorf("%s: %s is %q, want %q", choice, name, got[name], want)
					}
				}
			}
			if len(got) != n {
				t.Errorf("%s: got %v, want %d headers", choice, got, n)
			}
		}
	})
}

func TestHeadersTellOfTheTightestLimit(t *testing.T) {
	d := newDoor(t, Config{Headers: HeadersLegacy}, perDescriptor(10))
	answerOf(t, d, ask(entries("a=b"), entries("a=b"), entries("a=b")))
	got := headersOf(answerOf(t, d, ask(entries("a=new"), entries("a=b"))))
	if got["x-ratelimit-remaining"] != "6" {
		t.Errorf("got %v, want those of a=b, which has 6 left", got)
	}
	other := ask(entries("a=b"))
	other.Domain = "unlimited"
	if got := headersOf(answerOf(t, d, other)); len(got) > 0 {
		t.Errorf("got %v for a domain without limits", got)
	}
}

// A denial by something that is no rate limit says when to come back, and no limit.
func TestOtherDenials(t *testing.T) {
	slots := oneSlot()
	slots.Kind, slots.Scheduler = flow.ConcurrencyLimiter, nil
	d := newDoor(t, Config{}, perDescriptor(10), slots)
	answerOf(t, d, ask(entries("a=b")))
	s := answerOf(t, d, ask(entries("a=b"))).Statuses[0]
	if s.Code != over || s.CurrentLimit != nil || s.LimitRemaining != 0 {
		t.Errorf("got %v, want a denial without a rate limit", s)
	}
}
