// SPDX-License-Identifier: Apache-2.0

package extauthz

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/sluice-project/sluice/internal/flow"
)

// dial serves a door by gRPC and connects to it.
func dial(t *testing.T, d *Door) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	s := grpc.NewServer(grpc.WaitForHandlers(true))
	d.RegisterGRPC(s)
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) }) // ends with Stop
	t.Cleanup(func() { s.Stop(); serving.Wait() })
	conn, err := grpc.NewClient("passthrough:///bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // nothing is left to lose
	return conn
}

// TestNothingIsHeldAfterwards lets many Envoys ask, wait, leave and tell ends at once, by gRPC: at the end every slot
// of what was answered is free.
func TestNothingIsHeldAfterwards(t *testing.T) {
	spec := slotSpec(1, flow.ConcurrencyScheduler)
	spec.Slots.Max = 3
	e := newEngine(t, spec)
	d := New(Config{Engine: e})
	conn := dial(t, d)
	const envoys, requests = 8, 50
	var all sync.WaitGroup
	for i := range envoys {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			logs, err := accesslogv3.NewAccessLogServiceClient(conn).StreamAccessLogs(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			for range requests {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+random.IntN(50))*time.Millisecond)
				out, err := authv3.NewAuthorizationClient(conn).Check(ctx, asked("control-point", "slots"))
				cancel()
				if err != nil || out.GetOkResponse() == nil {
					continue
				}
				if err := logs.Send(logOf(entryOf(200, out.DynamicMetadata))); err != nil {
					t.Error(err)
				}
			}
			if _, err := logs.CloseAndRecv(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	// A call whose time was over just when its answer was on the way held its slot, as far as the server knows: that
	// one is taken back by time. All others are free.
	lost := d.counts.checks[checkAdmitted].Load() - d.counts.ends[endEnded].Load()
	if held := testutil.ToFloat64(slotsHeld{e}); held != float64(lost) || lost > 3 {
		t.Errorf("%v slots are held, and %d answers were lost; want as many, and few", held, lost)
	}
	if d.counts.checks[checkAdmitted].Load() == 0 || d.counts.ends[endInvalidToken].Load() != 0 {
		t.Errorf("admitted %d, invalid tokens %d", d.counts.checks[checkAdmitted].Load(), d.counts.ends[endInvalidToken].Load())
	}
}

func logOf(entries ...*datav3.HTTPAccessLogEntry) *accesslogv3.StreamAccessLogsMessage {
	return &accesslogv3.StreamAccessLogsMessage{LogEntries: &accesslogv3.StreamAccessLogsMessage_HttpLogs{
		HttpLogs: &accesslogv3.StreamAccessLogsMessage_HTTPAccessLogEntries{LogEntry: entries},
	}}
}
