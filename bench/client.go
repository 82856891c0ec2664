// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sluice-project/sluice/api/codec"
	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
)

const (
	users       = 100_000
	connections = 4
	inFlight    = 16 // unary calls per connection
	batchSize   = 64 // starts per stream message
	pipelined   = 8  // stream messages under way per connection
)

var all = []string{"echo", "echo-vt", "sluice"}

var rows = []row{
	{"unary Start, 1 rate limiter, 5 labels", all, unary, "/s", "higher", ">= 0.85x echo"},
	{"p99 of unary Start at 5,000/s", all, unaryLatency, "us", "lower", "<= 1.5x echo"},
	{"Stream, 64 Starts a message, key and cost", all, stream(0, true), "/s", "higher", ">= 2,500,000/s"},
	{"Stream, 64 Starts a message, 5 labels", all, stream(3, true), "/s", "higher", ">= 1,500,000/s"},
	{"Stream, the same, tokens for End", all, stream(3, false), "/s", "higher", ""},
}

// errDenied should not happen: the policies of the benchmark never deny.
var errDenied = errors.New("denied")

// workload is the users to ask for, zipf distributed.
type workload struct {
	names []string
	order []int
}

var load = sync.OnceValue(func() *workload {
	w := &workload{names: make([]string, users), order: make([]int, 1<<16)}
	for i := range w.names {
		w.names[i] = fmt.Sprintf("user-%06d", i)
	}
	z := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 1, users-1)
	for i := range w.order {
		w.order[i] = int(z.Uint64())
	}
	return w
})

func (w *workload) user(i int) string { return w.names[w.order[i&(len(w.order)-1)]] }

func dial(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec.Codec{})))
}

// withClients calls f with every connection, in parallel, until it returns.
func withClients(addr string, f func(conn int, c flowv1.FlowServiceClient) error) error {
	errs := make([]error, connections)
	var wg sync.WaitGroup
	for i := range connections {
		conn, err := dial(addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		wg.Go(func() { errs[i] = f(i, flowv1.NewFlowServiceClient(conn)) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func startRequest(w *workload, i int) *flowv1.StartRequest {
	return &flowv1.StartRequest{ControlPoint: "bench", Labels: map[string]string{
		"user": w.user(i), "tier": "gold", "region": "eu-west-1", "model": "large", "cost": "1",
	}}
}

// limited makes sure that the product decides by a policy: what is measured must be worth measuring.
func limited(ctx context.Context, addr string) error {
	conn, err := dial(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, point := range []string{"bench", "queue"} {
		resp, err := flowv1.NewFlowServiceClient(conn).Start(ctx, &flowv1.StartRequest{ControlPoint: point, Labels: map[string]string{"user": "x"}})
		if err != nil {
			return err
		}
		if resp.Reason != "admitted" {
			return fmt.Errorf("control point %s: %s (%s), want a flow admitted by a policy", point, resp.Reason, resp.Message)
		}
		if _, err := flowv1.NewFlowServiceClient(conn).End(ctx, &flowv1.EndRequest{Token: resp.Token}); err != nil {
			return err
		}
	}
	return nil
}

// unary is the rate of unary calls, closed loop.
func unary(ctx context.Context, addr string, d time.Duration) (float64, error) {
	var n atomic.Int64
	w := load()
	start := time.Now()
	err := withClients(addr, func(conn int, c flowv1.FlowServiceClient) error {
		var wg sync.WaitGroup
		errs := make(chan error, inFlight)
		for g := range inFlight {
			wg.Go(func() {
				for i := conn<<12 + g<<8; time.Since(start) < d; i++ {
					resp, err := c.Start(ctx, startRequest(w, i))
					if err != nil || resp.Verdict != "admit" {
						errs <- fmt.Errorf("start: %v: %w", resp, cmp.Or(err, errDenied))
						return
					}
					n.Add(1)
				}
			})
		}
		wg.Wait()
		close(errs)
		return <-errs
	})
	return float64(n.Load()) / time.Since(start).Seconds(), err
}

// unaryLatency is the 99th percentile in microseconds of calls started at a fixed rate, whether or not
// earlier ones have been answered; late starts count as latency.
func unaryLatency(ctx context.Context, addr string, d time.Duration) (float64, error) {
	const rate = 5000
	w := load()
	total := int(d.Seconds() * rate)
	took := make([]time.Duration, total)
	start := time.Now()
	err := withClients(addr, func(conn int, c flowv1.FlowServiceClient) error {
		var wg sync.WaitGroup
		var failed atomic.Value
		for i := conn; i < total; i += connections {
			due := start.Add(time.Duration(i) * time.Second / rate)
			time.Sleep(time.Until(due))
			wg.Go(func() {
				if _, err := c.Start(ctx, startRequest(w, i)); err != nil {
					failed.Store(err)
				}
				took[i] = time.Since(due)
			})
		}
		wg.Wait()
		err, _ := failed.Load().(error)
		return err
	})
	slices.Sort(took)
	return float64(took[total*99/100].Microseconds()), err
}

// stream is the rate of Starts on one stream per connection, in batches, with extra constant labels.
func stream(extra int, noEnd bool) func(context.Context, string, time.Duration) (float64, error) {
	return func(ctx context.Context, addr string, d time.Duration) (float64, error) {
		var n atomic.Int64
		start := time.Now()
		err := withClients(addr, func(conn int, c flowv1.FlowServiceClient) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			s, err := c.Stream(ctx)
			if err != nil {
				return err
			}
			return pump(s, conn, extra, noEnd, func() bool { return time.Since(start) < d }, &n)
		})
		return float64(n.Load()) / time.Since(start).Seconds(), err
	}
}

// pump keeps a number of batches under way until more answers false.
func pump(s flowv1.FlowService_StreamClient, conn, extra int, noEnd bool, more func() bool, n *atomic.Int64) error {
	constants := []string{"gold", "eu-west-1", "large"}[:extra]
	keys := append([]string{"user", "cost"}, []string{"tier", "region", "model"}[:extra]...)
	req := &flowv1.StreamRequest{Shapes: []*flowv1.Shape{{Id: 1, ControlPoint: "bench", LabelKeys: keys, NoEnd: noEnd}}}
	for range batchSize {
		req.Starts = append(req.Starts, &flowv1.StreamStart{Shape: 1, Values: append([]string{"", "1"}, constants...)})
	}
	w := load()
	next := conn << 12
	send := func() error {
		for _, st := range req.Starts {
			next++
			st.Id, st.Values[0] = uint64(next), w.user(next)
		}
		err := s.Send(req)
		req.Shapes = nil
		return err
	}
	for range pipelined {
		if err := send(); err != nil {
			return err
		}
	}
	var resp flowv1.StreamResponse
	for more() {
		resp.ResetVT()
		if err := s.RecvMsg(&resp); err != nil {
			return err
		}
		for _, v := range resp.Verdicts {
			if !v.Admitted {
				return fmt.Errorf("denied: %v", v)
			}
		}
		n.Add(int64(len(resp.Verdicts)))
		if err := send(); err != nil {
			return err
		}
	}
	return nil
}
