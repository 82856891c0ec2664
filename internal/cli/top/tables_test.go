// SPDX-License-Identifier: Apache-2.0

package top

import (
	"testing"

	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"
)

// TestLimitCells: a limiter in a dry run must not look like one that denies everything.
func TestLimitCells(t *testing.T) {
	for _, test := range []struct {
		limiter         *observev1.Limiter
		limit, inFlight string
	}{
		{&observev1.Limiter{Kind: "adaptive_concurrency_scheduler", InFlight: 1326}, "none", "1326"},
		{&observev1.Limiter{Kind: "adaptive_concurrency_scheduler", InFlight: 3, Capacity: 20}, "20", "3/20"},
		{&observev1.Limiter{Kind: "load_scheduler"}, "none", "–"},
		{&observev1.Limiter{Kind: "load_scheduler", Capacity: 1}, "0/s, burst 1", "–"},
		{&observev1.Limiter{Kind: "load_scheduler", Capacity: 250, FillPerSecond: 250}, "250/s, burst 250", "–"},
		{&observev1.Limiter{Kind: "concurrency_scheduler"}, "0", "0/0"},
		{&observev1.Limiter{Kind: "load_ramp"}, "–", "–"},
	} {
		l := test.limiter
		if limit, inFlight := limitCell(l).text, inFlight(l).text; limit != test.limit || inFlight != test.inFlight {
			t.Errorf("%s: got %q, %q, want %q, %q", l, limit, inFlight, test.limit, test.inFlight)
		}
	}
}
