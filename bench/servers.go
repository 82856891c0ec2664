// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"google.golang.org/grpc"

	"github.com/sluice-project/sluice/api/codec"
	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"github.com/sluice-project/sluice/internal/app"
	"github.com/sluice-project/sluice/internal/config"
)

var serverNames = []string{"echo", "echo-vt", "sluice"}

// runServer serves until it is killed. It prints its address first.
func runServer(name string) error {
	if name == "sluice" {
		return runProduct()
	}
	var opts []grpc.ServerOption
	switch name {
	case "echo":
	case "echo-vt":
		opts = append(opts, grpc.ForceServerCodecV2(codec.Codec{}))
	default:
		return fmt.Errorf("unknown server %q", name)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := grpc.NewServer(opts...)
	flowv1.RegisterFlowServiceServer(s, echo{})
	fmt.Println(lis.Addr())
	return s.Serve(lis)
}

// runProduct is `sluice serve` as it ships, with two policies: a rate limiter by user that never denies,
// and at another control point the scheduler of the reference scenario.
func runProduct() error {
	dir, err := os.MkdirTemp("", "sluice-bench")
	if err != nil {
		return err
	}
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{"bench.yaml": ratePolicy, "bench-queue.yaml": queuePolicy} {
		if err := os.WriteFile(filepath.Join(policies, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	c := config.Default()
	c.Listen, c.DataDir, c.PolicyDir = "127.0.0.1:0", filepath.Join(dir, "data"), policies
	a, err := app.Start(context.Background(), c, app.Options{LogTo: io.Discard})
	if err != nil {
		return err
	}
	fmt.Println(a.Addr())
	return a.Wait()
}

const ratePolicy = `blueprint: rate-limiting/base
policy:
  policy_name: bench
  rate_limiter:
    bucket_capacity: 9000000000000000
    fill_amount: 9000000000000000
    selectors: [{control_point: bench}]
    parameters: {interval: 1s, limit_by_label_key: user}
    request_parameters: {tokens_label_key: cost}
`

const queuePolicy = `blueprint: concurrency-scheduling/base
policy:
  policy_name: bench-queue
  concurrency_scheduler:
    max_concurrency: 2
    selectors: [{control_point: queue}]
    concurrency_limiter: {max_inflight_duration: 60s}
    scheduler:
      workloads:
        - {name: paid, label_matcher: {match_labels: {tier: paid}}, parameters: {priority: 5}}
        - {name: free, label_matcher: {match_labels: {tier: free}}, parameters: {priority: 1}}
`

// echo answers every flow with a constant of the size of a real answer.
type echo struct {
	flowv1.UnimplementedFlowServiceServer
}

var echoToken = make([]byte, 88)

func (echo) Start(context.Context, *flowv1.StartRequest) (*flowv1.StartResponse, error) {
	return &flowv1.StartResponse{Verdict: "admit", Reason: "admitted", Message: "admitted", HttpStatus: 200, Token: echoToken}, nil
}

func (echo) Stream(s flowv1.FlowService_StreamServer) error {
	for {
		in, err := s.Recv()
		if err != nil {
			return nil
		}
		out := &flowv1.StreamResponse{}
		for _, st := range in.Starts {
			out.Verdicts = append(out.Verdicts, &flowv1.StreamVerdict{Id: st.Id, Admitted: true})
		}
		if err := s.Send(out); err != nil {
			return err
		}
	}
}
