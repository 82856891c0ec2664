// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"testing"

	checkv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/check/v1"
	checkhttpv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/checkhttp/v1"
	"github.com/sluice-project/sluice/internal/flow"
)

// BenchmarkFlow is one flow from Check over FlowEnd to its record, without the network.
func BenchmarkFlow(b *testing.B) {
	d := newDoor(b, limiters(slotSpec(1, flow.ConcurrencyLimiter, 1)))
	in := &checkv1.CheckRequest{ControlPoint: "concurrency_limiter", Labels: map[string]string{"user": "ann", "tier": "gold"}}
	b.ReportAllocs()
	for b.Loop() {
		r := check(b, d, in)
		flowEnd(b, d, refs(r)...)
		if got := d.take(attributes(b, map[string]any{sourceKey: "sdk", statusKey: "OK", checkResponseKey: encode(r)})); got != recordEnded {
			b.Fatal(got)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	d := newDoor(b, limiters(rateSpec(1, 1<<50)))
	in := &checkv1.CheckRequest{ControlPoint: "rate", Labels: map[string]string{"user": "ann", "tier": "gold"}}
	b.ReportAllocs()
	for b.Loop() {
		if !accepted(check(b, d, in)) {
			b.Fatal("rejected")
		}
	}
}

func BenchmarkCheckHTTP(b *testing.B) {
	d := newDoor(b, limiters(rateSpec(1, 1<<50)))
	in := &checkhttpv1.CheckHTTPRequest{ControlPoint: "rate", Request: &checkhttpv1.CheckHTTPRequest_HttpRequest{
		Method: "GET", Path: "/", Host: "shop", Headers: map[string]string{"accept": "*/*", "baggage": "user=ann"},
	}}
	s := httpService{d: d}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.CheckHTTP(b.Context(), in); err != nil {
			b.Fatal(err)
		}
	}
}
