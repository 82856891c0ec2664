// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/sluice-project/sluice/api/codec"
	checkv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/check/v1"
	"github.com/sluice-project/sluice/internal/cache"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
)

// rateSpec is a bucket by user that does not refill, so that verdicts do not depend on the clock.
func rateSpec(id ledger.LimiterID, capacity float64) *flow.LimiterSpec {
	return &flow.LimiterSpec{
		ID: id, Policy: "rates", Hash: "h1", Component: fmt.Sprintf("root.%d", id), Kind: flow.RateLimiter, DeniedStatus: 429,
		Selectors: []flow.Selector{{ControlPoint: "rate"}}, LimitBy: "user", TokensKey: "tokens",
		Bucket: limit.BucketRule{Capacity: capacity, Interval: time.Second, Continuous: true},
	}
}

// slotSpec is a number of slots for all, at the control point that is called as its kind.
func slotSpec(id ledger.LimiterID, kind flow.Kind, slots float64) *flow.LimiterSpec {
	s := &flow.LimiterSpec{
		ID: id, Policy: "slots", Hash: "h2", Component: fmt.Sprintf("root.%d", id), Kind: kind, DeniedStatus: 429,
		Selectors: []flow.Selector{{ControlPoint: kind.String()}, {ControlPoint: "both"}},
		Slots:     ledger.SlotRule{Max: slots, MaxInFlight: time.Minute},
	}
	if kind == flow.ConcurrencyScheduler {
		s.DeniedStatus = 503
		s.Scheduler = &flow.SchedulerSpec{Default: flow.WorkloadSpec{Name: "default", Priority: 1, Tokens: 1}, Margin: 10 * time.Millisecond}
	}
	return s
}

func sampleSpec(id ledger.LimiterID, kind flow.Kind, percentage float64) *flow.LimiterSpec {
	return &flow.LimiterSpec{
		ID: id, Policy: "samples", Hash: "h3", Component: fmt.Sprintf("root.%d", id), Kind: kind,
		Selectors: []flow.Selector{{ControlPoint: kind.String()}}, LimitBy: "user",
		Sample: &flow.SampleSpec{Percentage: percentage, Ramp: kind == flow.LoadRamp},
	}
}

func newDoor(t testing.TB, set flow.Set) *Door {
	t.Helper()
	m, err := ledger.NewMemory(ledger.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := cache.New(cache.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	e, err := flow.New(flow.Config{Authority: m, TokenKey: make([]byte, flow.TokenKeySize), Cache: c})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Publish(set); err != nil {
		t.Fatal(err)
	}
	services := func(address string) []string {
		if address == "10.0.0.7" {
			return []string{"shop.example"}
		}
		return nil
	}
	d, err := New(Config{Engine: e, Services: services, Cache: c})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func limiters(specs ...*flow.LimiterSpec) flow.Set { return flow.Set{Limiters: specs} }

// check asks for a flow and fails the test when the call fails.
func check(t testing.TB, d *Door, in *checkv1.CheckRequest) *checkv1.CheckResponse {
	t.Helper()
	out, err := checkService{d: d}.Check(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// refs are what SDKs send back in FlowEnd.
func refs(r *checkv1.CheckResponse) []*checkv1.InflightRequestRef {
	var out []*checkv1.InflightRequestRef
	for _, d := range r.LimiterDecisions {
		ref := &checkv1.InflightRequestRef{PolicyName: d.PolicyName, PolicyHash: d.PolicyHash, ComponentId: d.ComponentId}
		switch info := d.Details.(type) {
		case *checkv1.LimiterDecision_ConcurrencyLimiterInfo_:
			ref.Label, ref.RequestId = info.ConcurrencyLimiterInfo.Label, info.ConcurrencyLimiterInfo.RequestId
			ref.Tokens = info.ConcurrencyLimiterInfo.TokensInfo.GetConsumed()
		case *checkv1.LimiterDecision_ConcurrencySchedulerInfo_:
			ref.Label, ref.RequestId = info.ConcurrencySchedulerInfo.Label, info.ConcurrencySchedulerInfo.RequestId
			ref.Tokens = info.ConcurrencySchedulerInfo.TokensInfo.GetConsumed()
		}
		if ref.RequestId != "" {
			out = append(out, ref)
		}
	}
	return out
}

func flowEnd(t testing.TB, d *Door, list ...*checkv1.InflightRequestRef) []*checkv1.TokenReturnStatus {
	t.Helper()
	out, err := checkService{d: d}.FlowEnd(t.Context(), &checkv1.FlowEndRequest{ControlPoint: "any", InflightRequests: list})
	if err != nil {
		t.Fatal(err)
	}
	return out.TokenReturnStatuses
}

// attributes are those of a record.
func attributes(t testing.TB, values map[string]any) pcommon.Map {
	t.Helper()
	m := pcommon.NewMap()
	if err := m.FromRaw(values); err != nil {
		t.Fatal(err)
	}
	return m
}

func accepted(r *checkv1.CheckResponse) bool {
	return r.DecisionType == checkv1.CheckResponse_DECISION_TYPE_ACCEPTED
}

// ended counts the ends of flows of a control point.
func (d *Door) point(name string) flow.PointOverview {
	for _, p := range d.engine.Overview(0).Points {
		if p.Name == name {
			return p
		}
	}
	return flow.PointOverview{}
}

func wantRecords(t testing.TB, d *Door, r recordResult, want float64) {
	t.Helper()
	if got := testutil.ToFloat64(d.metrics.records[r]); got != want {
		t.Errorf("records %s: got %v, want %v", r, got, want)
	}
}

// dial connects to the services of a door over gRPC, as the product serves them.
func dial(t testing.TB, d *Door) *grpc.ClientConn {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	s := grpc.NewServer(grpc.ForceServerCodecV2(codec.Codec{}))
	d.RegisterGRPC(s)
	served := make(chan error, 1)
	go func() { served <- s.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		s.Stop()
		<-served
	})
	return conn
}

func handler(d *Door) http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range d.Paths() {
		mux.Handle(pattern, h)
	}
	return mux
}

func selectBy(key, value string) label.Expr { return label.Equal(key, value) }

func forceCodec() grpc.CallOption { return grpc.ForceCodecV2(codec.Codec{}) }
