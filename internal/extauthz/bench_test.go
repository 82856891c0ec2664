// SPDX-License-Identifier: Apache-2.0

package extauthz

import (
	"testing"

	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-project/sluice/internal/flow"
)

// browserHeaders are about as many as a browser sends.
var browserHeaders = map[string]string{
	"accept": "text/html,application/xhtml+xml,application/xml;q=0.9", "accept-language": "en-US,en;q=0.5",
	"accept-encoding": "gzip, deflate, br", "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
	"cookie": "session=0123456789abcdef0123456789abcdef", "x-request-id": "7f3bd6f2-58bb-4f0c-9f2f-36d2d5f4d0a1",
	"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https", "referer": "https://shop.example/", "cache-control": "no-cache",
}

func benchRequest(extensions ...string) *authv3.CheckRequest {
	in := asked(extensions...)
	for name, value := range browserHeaders {
		in.Attributes.Request.Http.Headers[name] = value
	}
	return in
}

// BenchmarkCheck is a decision without the network: messages decoded and encoded, one limiter passed.
func BenchmarkCheck(b *testing.B) {
	spec := rateSpec(1, 1e12)
	spec.LimitBy = "http.request.header.x_user"
	d := New(Config{Engine: newEngine(b, spec)})
	for name, in := range map[string]*authv3.CheckRequest{
		"admit":  benchRequest("control-point", "cp"),
		"no-end": benchRequest("control-point", "cp", "no-end", "true"),
	} {
		raw, err := proto.Marshal(in)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var in authv3.CheckRequest
				if err := proto.Unmarshal(raw, &in); err != nil {
					b.Fatal(err)
				}
				out, err := checks{d}.Check(b.Context(), &in)
				if err != nil || out.GetOkResponse() == nil {
					b.Fatal(out, err)
				}
				if _, err := proto.Marshal(out); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("decoded", func(b *testing.B) {
		in := benchRequest("control-point", "cp")
		b.ReportAllocs()
		for b.Loop() {
			if _, err := (checks{d}).Check(b.Context(), in); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkAccessLog ends a flow by its entry.
func BenchmarkAccessLog(b *testing.B) {
	d := New(Config{Engine: newEngine(b, rateSpec(1, 1e12), slotSpec(2, flow.ConcurrencyLimiter))})
	in := asked("control-point", "cp", "label.user", "ann")
	entries := make([]*datav3.HTTPAccessLogEntry, 1000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%len(entries) == 0 {
			b.StopTimer()
			for j := range entries {
				entries[j] = entryOf(200, check(b, d, b.Context(), in).DynamicMetadata)
			}
			b.StartTimer()
		}
		d.logged(entries[i%len(entries)])
	}
}
