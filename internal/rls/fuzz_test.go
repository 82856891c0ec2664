// SPDX-License-Identifier: Apache-2.0

package rls

import (
	"context"
	"testing"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/proto"
)

// FuzzShouldRateLimit answers whatever can be decoded: with one status for each descriptor and a code that agrees with
// them, or with an error.
func FuzzShouldRateLimit(f *testing.F) {
	add := func(in *rlsv3.RateLimitRequest) {
		b, err := proto.Marshal(in)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	add(ask(entries("user=alice"), entries("path=/login", "user=bob")))
	add(ask(entries(), entries("ratelimit.hits=-1", "ratelimit.value.1=x", "=")))
	f.Add([]byte{0x12, 0x00, 0x0a, 0x01, 'd', 0x18, 0xff, 0xff, 0xff, 0xff, 0x0f})
	d := newDoor(f, Config{Headers: HeadersBoth}, perDescriptor(3))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := &rlsv3.RateLimitRequest{}
		if proto.Unmarshal(b, in) != nil {
			t.Skip()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		out, err := d.ShouldRateLimit(ctx, in)
		if err != nil {
			return
		}
		if len(out.Statuses) != len(in.Descriptors) {
			t.Fatalf("%d statuses for %d descriptors", len(out.Statuses), len(in.Descriptors))
		}
		overall := ok
		for _, s := range out.Statuses {
			if s.Code == over {
				overall = over
			} else if s.Code != ok {
				t.Fatalf("code %v", s.Code)
			}
		}
		if out.OverallCode != overall {
			t.Fatalf("overall code %v, want %v", out.OverallCode, overall)
		}
		if _, err := proto.Marshal(out); err != nil {
			t.Fatalf("an answer that cannot be sent: %v", err)
		}
	})
}
