// SPDX-License-Identifier: Apache-2.0

package sluice_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/sluice-project/sluice/api/codec"
	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	sluice "github.com/sluice-project/sluice/sdk/go"
	"google.golang.org/grpc"
)

// trivial admits everything at once, so that a benchmark measures the client.
type trivial struct {
	flowv1.UnimplementedFlowServiceServer
}

func (trivial) Start(context.Context, *flowv1.StartRequest) (*flowv1.StartResponse, error) {
	return &flowv1.StartResponse{Verdict: "admit", Token: []byte("12345678")}, nil
}

func (trivial) End(context.Context, *flowv1.EndRequest) (*flowv1.EndResponse, error) {
	return &flowv1.EndResponse{Result: "ended"}, nil
}

func (trivial) Stream(stream grpc.BidiStreamingServer[flowv1.StreamRequest, flowv1.StreamResponse]) error {
	m := new(flowv1.StreamRequest)
	for {
		m.ResetVT() // reused, as the real server does
		if err := stream.RecvMsg(m); err != nil {
			return err
		}
		resp := &flowv1.StreamResponse{Verdicts: make([]*flowv1.StreamVerdict, len(m.Starts))}
		verdicts := make([]flowv1.StreamVerdict, len(m.Starts))
		tokens := make([]byte, 8*len(m.Starts))
		for i, start := range m.Starts {
			v := &verdicts[i]
			v.Id, v.Admitted, v.Token = start.Id, true, tokens[8*i:8*i+8]
			binary.LittleEndian.PutUint64(v.Token, start.Id)
			resp.Verdicts[i] = v
		}
		for _, end := range m.Ends {
			if end.Id != 0 {
				resp.Ends = append(resp.Ends, &flowv1.StreamEnded{Id: end.Id, Result: "ended"})
			}
		}
		if len(resp.Verdicts)+len(resp.Ends) == 0 {
			continue
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

// serveTrivial serves on a loopback port and returns its address.
func serveTrivial(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	g := grpc.NewServer(grpc.ForceServerCodecV2(codec.Codec{}), grpc.WaitForHandlers(true))
	flowv1.RegisterFlowServiceServer(g, trivial{})
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := g.Serve(l); err != nil && err != io.EOF {
			tb.Error(err)
		}
	})
	tb.Cleanup(func() { g.Stop(); serving.Wait() })
	return l.Addr().String()
}

// BenchmarkStartFlow measures whole round trips over loopback TCP against a server in this process;
// client and server share the cores.
func BenchmarkStartFlow(b *testing.B) {
	labels := sluice.Labels{"user_id": "alice", "tier": "gold", "region": "eu", "method": "GET", "version": "v1"}
	for _, bench := range []struct {
		name    string
		callers int
		labels  sluice.Labels
		end     bool
		opts    []sluice.Option
		flow    []sluice.FlowOption
	}{
		{name: "1 caller", callers: 1, labels: labels, flow: []sluice.FlowOption{sluice.WithNoEnd()}},
		{name: "64 callers", callers: 64, labels: labels, flow: []sluice.FlowOption{sluice.WithNoEnd()}},
		{name: "64 callers and end", callers: 64, labels: labels, end: true},
		{name: "64 callers 1 label", callers: 64, labels: sluice.Labels{"user_id": "alice"}, flow: []sluice.FlowOption{sluice.WithNoEnd()}},
		{name: "64 callers unary", callers: 64, labels: labels, opts: []sluice.Option{sluice.WithUnary()}, flow: []sluice.FlowOption{sluice.WithNoEnd()}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			c, err := sluice.NewClient(serveTrivial(b), bench.opts...)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			c.StartFlow(b.Context(), "bench", nil) // connect
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			b.ReportAllocs()
			b.ResetTimer()
			var callers sync.WaitGroup
			for i := range bench.callers {
				n := b.N / bench.callers
				if i < b.N%bench.callers {
					n++
				}
				callers.Go(func() {
					for range n {
						f := c.StartFlow(ctx, "bench", bench.labels, bench.flow...)
						if f.Err() != nil || !f.ShouldRun() {
							b.Errorf("got %+v, want an admission", f.Verdict())
							return
						}
						if bench.end {
							f.End()
						}
					}
				})
			}
			callers.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "flows/s")
		})
	}
}
