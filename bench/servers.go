// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"

	"github.com/sluice-project/sluice/api/codec"
	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/rpc"
)

var serverNames = []string{"echo", "echo-vt", "sluice"}

// runServer serves until it is killed. It prints its address first.
func runServer(name string) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var opts []grpc.ServerOption
	var service flowv1.FlowServiceServer = echo{}
	switch name {
	case "echo":
	case "echo-vt":
		opts = append(opts, grpc.ForceServerCodecV2(codec.Codec{}))
	case "sluice":
		engine, err := newEngine()
		if err != nil {
			return err
		}
		service = rpc.NewFlowService(engine)
		opts = append(opts, rpc.HotServerOptions()...)
	default:
		return fmt.Errorf("unknown server %q", name)
	}
	s := grpc.NewServer(opts...)
	flowv1.RegisterFlowServiceServer(s, service)
	fmt.Println(lis.Addr())
	os.Stdout.Sync()
	return s.Serve(lis)
}

// newEngine has one rate limiter by user that never denies and one scheduler at another control point, in a durable ledger like the product's.
func newEngine() (*flow.Engine, error) {
	dir, err := os.MkdirTemp("", "sluice-bench")
	if err != nil {
		return nil, err
	}
	m, err := ledger.NewMemory(ledger.Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	e, err := flow.New(flow.Config{Authority: m, TokenKey: make([]byte, flow.TokenKeySize)})
	if err != nil {
		return nil, err
	}
	return e, e.Publish([]*flow.LimiterSpec{{
		ID: 1, Policy: "bench", Component: "root.0", Kind: flow.RateLimiter, DeniedStatus: 429,
		Selectors: []flow.Selector{{ControlPoint: "bench"}}, LimitBy: "user", TokensKey: "cost",
		Bucket: limit.BucketRule{Capacity: 1e12, FillAmount: 1e12, Interval: time.Second, Continuous: true},
	}, {
		ID: 2, Policy: "bench-queue", Component: "root.0", Kind: flow.ConcurrencyScheduler, DeniedStatus: 503,
		Selectors: []flow.Selector{{ControlPoint: "queue"}},
		Slots:     ledger.SlotRule{Max: 2, MaxInFlight: time.Minute},
		Scheduler: &flow.SchedulerSpec{
			Default: flow.WorkloadSpec{Name: "default", Priority: 1, Tokens: 1},
			Workloads: []flow.WorkloadSpec{
				{Name: "paid", Match: label.Equal("tier", "paid"), Priority: 5, Tokens: 1},
				{Name: "free", Match: label.Equal("tier", "free"), Priority: 1, Tokens: 1},
			},
		},
	}})
}

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
