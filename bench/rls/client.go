// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	users       = 100_000
	connections = 4
	inFlight    = 16 // calls per connection
)

// requests are those of all users, in a random order.
var requests = sync.OnceValue(func() []*rlsv3.RateLimitRequest {
	list := make([]*rlsv3.RateLimitRequest, users)
	for i, user := range rand.New(rand.NewPCG(1, 2)).Perm(users) {
		list[i] = request(fmt.Sprintf("10.%d.%d.%d", user>>16, user>>8&255, user&255))
	}
	return list
})

func request(address string) *rlsv3.RateLimitRequest {
	return &rlsv3.RateLimitRequest{Domain: "bench", Descriptors: []*commonv3.RateLimitDescriptor{{
		Entries: []*commonv3.RateLimitDescriptor_Entry{{Key: "path", Value: "/login"}, {Key: "remote_address", Value: address}},
	}}}
}

func dial(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// throughput is the rate of calls, closed loop.
func throughput(ctx context.Context, addr string, d time.Duration) (float64, error) {
	var n atomic.Int64
	list := requests()
	errs := make(chan error, connections*inFlight)
	var wg sync.WaitGroup
	start := time.Now()
	for c := range connections {
		conn, err := dial(addr)
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		client := rlsv3.NewRateLimitServiceClient(conn)
		for g := range inFlight {
			wg.Go(func() {
				for i := (c*inFlight + g) * 1009; time.Since(start) < d; i++ {
					out, err := client.ShouldRateLimit(ctx, list[i%len(list)])
					if err != nil || out.OverallCode != rlsv3.RateLimitResponse_OK {
						errs <- fmt.Errorf("got %v, %w, want OK", out, err)
						return
					}
					n.Add(1)
				}
			})
		}
	}
	wg.Wait()
	close(errs)
	return float64(n.Load()) / time.Since(start).Seconds(), <-errs
}

// limited makes sure that a server decides by its limit: what is measured must be worth measuring.
func limited(ctx context.Context, addr string) error {
	conn, err := dial(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	out, err := rlsv3.NewRateLimitServiceClient(conn).ShouldRateLimit(ctx, request("192.0.2.1"), grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	if len(out.Statuses) != 1 || out.Statuses[0].CurrentLimit == nil || out.Statuses[0].LimitRemaining == 0 {
		return fmt.Errorf("got %v, want a status with a limit and what is left of it", out)
	}
	return nil
}
