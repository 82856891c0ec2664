// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluice-project/sluice/api/codec"
	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/flow/v1/flowv1connect"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
)

// rate is a bucket by user that does not refill, so that verdicts do not depend on the clock.
func rateSpec(id ledger.LimiterID, capacity float64) *flow.LimiterSpec {
	return &flow.LimiterSpec{
		ID: id, Policy: "p", Component: fmt.Sprintf("root.%d", id), Kind: flow.RateLimiter, DeniedStatus: 429,
		Selectors: []flow.Selector{{ControlPoint: "cp"}}, LimitBy: "user", TokensKey: "tokens",
		Bucket: limit.BucketRule{Capacity: capacity, FillAmount: 0, Interval: time.Second, Continuous: true},
	}
}

func queueSpec(id ledger.LimiterID, slots float64) *flow.LimiterSpec {
	return &flow.LimiterSpec{
		ID: id, Policy: "q", Component: "root.0", Kind: flow.ConcurrencyScheduler, DeniedStatus: 503,
		Selectors: []flow.Selector{{ControlPoint: "queue"}},
		Slots:     ledger.SlotRule{Max: slots, MaxInFlight: time.Minute},
		Scheduler: &flow.SchedulerSpec{Default: flow.WorkloadSpec{Name: "default", Priority: 1, Tokens: 1}, Margin: 10 * time.Millisecond},
	}
}

func newEngine(t *testing.T, specs ...*flow.LimiterSpec) *flow.Engine {
	t.Helper()
	m, err := ledger.NewMemory(ledger.Config{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := flow.New(flow.Config{Authority: m, TokenKey: make([]byte, flow.TokenKeySize)})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Publish(flow.Set{Limiters: specs}); err != nil {
		t.Fatal(err)
	}
	return e
}

func serve(t *testing.T, e *flow.Engine) (flowv1.FlowServiceClient, *grpc.ClientConn) {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	s := grpc.NewServer(HotServerOptions()...)
	flowv1.RegisterFlowServiceServer(s, NewFlowService(e, nil))
	go s.Serve(lis)
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient("passthrough:///bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec.Codec{})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return flowv1.NewFlowServiceClient(conn), conn
}

// eventually polls a condition that another goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not within 10 s: %s", what)
		case <-tick.C:
		}
	}
}

func waiting(e *flow.Engine) int {
	n := 0
	for _, l := range e.Overview(0).Limiters {
		n += l.Waiting
	}
	return n
}

func used(e *flow.Engine) float64 {
	sum := 0.0
	for _, a := range e.Overview(1000).Accounts {
		sum += a.Used
	}
	return sum
}

// TestStreamAndUnaryAgree sends the same random flows both ways, to two engines in the same state.
func TestStreamAndUnaryAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	unary, _ := serve(t, newEngine(t, rateSpec(1, 20), rateSpec(2, 30)))
	streaming, _ := serve(t, newEngine(t, rateSpec(1, 20), rateSpec(2, 30)))
	ctx := context.Background()
	s, err := streaming.Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	values := []string{"1", "2.5", "0", "-1", "NaN", "1e308", "x", "", "21", "7"}
	req := &flowv1.StreamRequest{Shapes: []*flowv1.Shape{{Id: 3, ControlPoint: "cp", LabelKeys: []string{"user", "tokens"}}}}
	denied := 0
	for batch := range 40 {
		req.Starts = nil
		var want []*flowv1.StartResponse
		for i := range 25 {
			user, cost := fmt.Sprint("u", rng.IntN(20)), values[rng.IntN(len(values))]
			req.Starts = append(req.Starts, &flowv1.StreamStart{Id: uint64(batch*100 + i), Shape: 3, Values: []string{user, cost}})
			resp, err := unary.Start(ctx, &flowv1.StartRequest{ControlPoint: "cp", Labels: map[string]string{"user": user, "tokens": cost}})
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, resp)
		}
		if err := s.Send(req); err != nil {
			t.Fatal(err)
		}
		req.Shapes = nil
		got, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range got.Verdicts {
			w := want[i]
			if v.Id != req.Starts[i].Id || v.Admitted != (w.Verdict == "admit") || len(v.Token) > 0 != v.Admitted {
				t.Fatalf("flow %v: stream %v, unary %v", req.Starts[i], v, w)
			}
			if !v.Admitted {
				denied++
				if d := v.Denial; d.Reason != w.Reason || d.Message != w.Message || d.Limiter != w.Limiter || d.Account != w.Account || d.HttpStatus != w.HttpStatus {
					t.Fatalf("flow %v: stream %v, unary %v", req.Starts[i], d, w)
				}
			}
		}
	}
	if denied < 100 {
		t.Errorf("only %d denials: the test shows too little", denied)
	}
}

func TestStreamWaitsCancelsAndEnds(t *testing.T) {
	e := newEngine(t, queueSpec(1, 1))
	c, _ := serve(t, e)
	s, err := c.Stream(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	shape := []*flowv1.Shape{{Id: 1, ControlPoint: "queue"}}
	starts := []*flowv1.StreamStart{{Id: 1, Shape: 1}, {Id: 2, Shape: 1}, {Id: 3, Shape: 1}}
	if err := s.Send(&flowv1.StreamRequest{Shapes: shape, Starts: starts}); err != nil {
		t.Fatal(err)
	}
	next := func() *flowv1.StreamVerdict {
		t.Helper()
		for {
			r, err := s.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Verdicts) > 1 {
				t.Fatalf("%d verdicts at once", len(r.Verdicts))
			}
			if len(r.Verdicts) == 1 {
				return r.Verdicts[0]
			}
		}
	}
	first := next()
	if first.Id != 1 || !first.Admitted {
		t.Fatal(first)
	}
	eventually(t, "two flows wait", func() bool { return waiting(e) == 2 })
	if err := s.Send(&flowv1.StreamRequest{Cancels: []uint64{2, 99}}); err != nil {
		t.Fatal(err)
	}
	if v := next(); v.Id != 2 || v.Admitted || v.Denial.Reason != "cancelled" {
		t.Fatal(v)
	}
	if err := s.Send(&flowv1.StreamRequest{Ends: []*flowv1.StreamEnd{{End: &flowv1.EndRequest{Token: first.Token}}}}); err != nil {
		t.Fatal(err)
	}
	third := next()
	if third.Id != 3 || !third.Admitted || third.WaitedNanos <= 0 {
		t.Fatal(third)
	}
	ends := []*flowv1.StreamEnd{
		{Id: 10, End: &flowv1.EndRequest{Token: third.Token}},
		{Id: 11, End: &flowv1.EndRequest{Token: third.Token}},
		{Id: 12, End: &flowv1.EndRequest{Token: []byte("forged")}},
		{Id: 13},
	}
	if err := s.Send(&flowv1.StreamRequest{Ends: ends}); err != nil {
		t.Fatal(err)
	}
	r, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"ended", "already_ended", "invalid_token", "invalid_token"} {
		if r.Ends[i].Result != want {
			t.Errorf("end %d: %s, want %s", r.Ends[i].Id, r.Ends[i].Result, want)
		}
	}
	if n := used(e); n != 0 {
		t.Errorf("%v slots leaked", n)
	}
}

func TestVanishingClientsLeakNothing(t *testing.T) {
	e := newEngine(t, queueSpec(1, 2))
	c, _ := serve(t, e)
	hold := make([][]byte, 2)
	for i := range hold {
		r, err := c.Start(context.Background(), &flowv1.StartRequest{ControlPoint: "queue"})
		if err != nil {
			t.Fatal(err)
		}
		hold[i] = r.Token
	}
	ctx, vanish := context.WithCancel(context.Background())
	s, err := c.Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	req := &flowv1.StreamRequest{Shapes: []*flowv1.Shape{{Id: 1, ControlPoint: "queue"}}}
	const n = 10_000
	for i := range n {
		req.Starts = append(req.Starts, &flowv1.StreamStart{Id: uint64(i), Shape: 1})
	}
	if err := s.Send(req); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		go c.Start(ctx, &flowv1.StartRequest{ControlPoint: "queue"})
	}
	eventually(t, "all flows wait", func() bool { return waiting(e) == n+50 })
	vanish()
	eventually(t, "the queue is empty", func() bool { return waiting(e) == 0 })
	if n := used(e); n != 2 {
		t.Errorf("%v slots are held, want the 2 of clients that are still there", n)
	}
	for _, token := range hold {
		if _, err := c.End(context.Background(), &flowv1.EndRequest{Token: token}); err != nil {
			t.Fatal(err)
		}
	}
	if n := used(e); n != 0 {
		t.Errorf("%v slots leaked", n)
	}
}

func TestStreamRefusesNonsense(t *testing.T) {
	c, _ := serve(t, newEngine(t, queueSpec(1, 1)))
	for name, tt := range map[string]struct {
		in   *flowv1.StreamRequest
		want codes.Code
	}{
		"undefined shape": {&flowv1.StreamRequest{Starts: []*flowv1.StreamStart{{Id: 1, Shape: 9}}}, codes.InvalidArgument},
		"empty shape":     {&flowv1.StreamRequest{Shapes: []*flowv1.Shape{{Id: 1}}}, codes.InvalidArgument},
		"duplicate id": {&flowv1.StreamRequest{
			Shapes: []*flowv1.Shape{{Id: 1, ControlPoint: "queue"}},
			Starts: []*flowv1.StreamStart{{Id: 1, Shape: 1}, {Id: 2, Shape: 1}, {Id: 2, Shape: 1}},
		}, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := c.Stream(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Send(tt.in); err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, err = s.Recv()
			}
			if status.Code(err) != tt.want {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestUnaryDeadlineBoundsTheWait(t *testing.T) {
	e := newEngine(t, queueSpec(1, 1))
	c, _ := serve(t, e)
	if _, err := c.Start(context.Background(), &flowv1.StartRequest{ControlPoint: "queue"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	r, err := c.Start(ctx, &flowv1.StartRequest{ControlPoint: "queue"})
	if err != nil || r.Verdict != "deny" || r.Reason != "queue_timeout" || r.HttpStatus != 503 || r.GrpcCode != int32(codes.Unavailable) {
		t.Errorf("%v %v, want an answer before the deadline", r, err)
	}
	r, err = c.Start(context.Background(), &flowv1.StartRequest{ControlPoint: "queue", QueueTimeout: durationpb.New(0)})
	if err != nil || r.Verdict != "deny" || r.WaitedSeconds != 0 {
		t.Errorf("%v %v", r, err)
	}
	if _, err := c.Start(context.Background(), &flowv1.StartRequest{ControlPoint: "queue", QueueTimeout: durationpb.New(-1)}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("negative queue_timeout: %v", err)
	}
}

func TestJSON(t *testing.T) {
	e := newEngine(t, rateSpec(1, 1))
	mux := http.NewServeMux()
	mux.Handle(flowv1connect.NewFlowServiceHandler(FlowConnect{NewFlowService(e, nil)}, JSONOptions()))
	srv := httptest.NewServer(mux)
	defer srv.Close()
	post := func(method, body string) (int, map[string]any) {
		t.Helper()
		resp, err := http.Post(srv.URL+"/sluice.flow.v1.FlowService/"+method, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		var out map[string]any
		if err := json.NewDecoder(bytes.NewReader(b)).Decode(&out); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		return resp.StatusCode, out
	}
	code, first := post("Start", `{"controlPoint":"cp","labels":{"user":"alice"}}`)
	if code != 200 || first["verdict"] != "admit" || first["token"] == "" {
		t.Fatal(code, first)
	}
	code, second := post("Start", `{"controlPoint":"cp","labels":{"user":"alice"}}`)
	if code != 200 || second["verdict"] != "deny" || second["reason"] != "rate_limited" || second["policy"] != "p" || second["limiter"] != "root.1" || second["account"] != "user:alice" {
		t.Fatal(code, second)
	}
	if code, end := post("End", fmt.Sprintf(`{"token":%q,"status":"FLOW_STATUS_ERROR"}`, first["token"])); code != 200 || end["result"] != "ended" {
		t.Fatal(code, end)
	}
	for _, body := range []string{`{"controlPoint":1}`, `{"nonsense":true}`, `{`, `{"labels":["x"]}`} {
		if code, out := post("Start", body); code != 400 || out["code"] != "invalid_argument" {
			t.Errorf("%s: %d %v", body, code, out)
		}
	}
	for _, body := range []string{`{"token":"Zm9yZ2Vk"}`, `{}`, fmt.Sprintf(`{"token":%q,"tokens":-5}`, first["token"]), fmt.Sprintf(`{"token":%q,"tokens":"NaN"}`, first["token"])} {
		if code, out := post("End", body); code != 400 {
			t.Errorf("%s: %d %v", body, code, out)
		}
	}
}

func TestEndRefusesNonsense(t *testing.T) {
	bad := []*flowv1.EndRequest{
		{HttpStatus: 99},
		{HttpStatus: 600},
		{HttpStatus: -1},
		{Tokens: new(float64(-1))},
		{TokensByLabel: map[string]float64{"in": math.NaN()}},
		{Duration: durationpb.New(-time.Second)},
		{Attributes: make(map[string]float64)},
	}
	for i := range maxAttributes + 1 {
		bad[len(bad)-1].Attributes[strconv.Itoa(i)] = 1
	}
	for _, in := range bad {
		if _, err := fromAPIOutcome(in); err == nil {
			t.Errorf("%v was accepted", in)
		}
	}
	o, err := fromAPIOutcome(&flowv1.EndRequest{HttpStatus: 502, Attributes: map[string]float64{"bytes": 7}})
	if err != nil || o.HTTPStatus != 502 || o.Attributes["bytes"] != 7 {
		t.Errorf("got %+v %v, want the status and the attribute", o, err)
	}
}
