// SPDX-License-Identifier: Apache-2.0

package rls

import (
	"context"
	"strconv"
	"testing"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/sluice-project/sluice/internal/limit"
)

// BenchmarkShouldRateLimit is one call with one descriptor of 100,000, all but the network.
func BenchmarkShouldRateLimit(b *testing.B) {
	for _, headers := range []Headers{HeadersNone, HeadersDraft} {
		b.Run("headers="+string(headers), func(b *testing.B) {
			spec := perDescriptor(1e6)
			spec.Bucket = limit.BucketRule{Capacity: 1e6, FillAmount: 1e6, Interval: time.Second, Continuous: true}
			d := newDoor(b, Config{Headers: headers}, spec)
			requests := make([]*rlsv3.RateLimitRequest, 100_000)
			for i := range requests {
				requests[i] = ask(entries("path=/login", "remote_address=10.0."+strconv.Itoa(i)))
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := d.ShouldRateLimit(context.Background(), requests[i%len(requests)]); err != nil {
					b.Fatal(err)
				}
				i += 7919
			}
		})
	}
}
