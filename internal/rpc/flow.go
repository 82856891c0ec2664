// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/flow/v1/flowv1connect"
	"github.com/sluice-project/sluice/internal/flow"
)

// FlowService answers sluice.flow.v1.FlowService over gRPC. It translates; the engine decides.
type FlowService struct {
	flowv1.UnimplementedFlowServiceServer
	engine   *flow.Engine
	services Services
}

// NewFlowService serves the engine.
func NewFlowService(engine *flow.Engine, services Services) *FlowService {
	return &FlowService{engine: engine, services: services}
}

// Start implements FlowServiceServer.
func (s *FlowService) Start(ctx context.Context, in *flowv1.StartRequest) (*flowv1.StartResponse, error) {
	r := flow.Request{
		ControlPoint: in.ControlPoint, Labels: in.Labels, Services: in.Services,
		QueueTimeout: -1, NoEnd: in.NoEnd, Explain: in.Explain, RampMode: in.RampMode,
	}
	if in.Cache != nil {
		r.Cache = fromAPICacheLookup(in.Cache)
	}
	f, err := s.start(ctx, &r, in.QueueTimeout)
	if err != nil {
		return nil, err
	}
	defer f.Free()
	return toAPIVerdict(f), nil
}

// start decides a flow. The caller frees it.
func (s *FlowService) start(ctx context.Context, r *flow.Request, timeout *durationpb.Duration) (*flow.Flow, error) {
	if timeout != nil {
		if r.QueueTimeout = timeout.AsDuration(); r.QueueTimeout < 0 {
			return nil, status.Error(codes.InvalidArgument, "queue_timeout is negative; expected 0 (do not wait) or more, or none")
		}
	}
	f := s.engine.Start(ctx, r)
	if f.Admitted() && ctx.Err() != nil {
		f.Abort() // nobody is there to be told, so the work will not run
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return f, nil
}

// End implements FlowServiceServer.
func (s *FlowService) End(_ context.Context, in *flowv1.EndRequest) (*flowv1.EndResponse, error) {
	o, err := fromAPIOutcome(in)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	result, err := s.engine.EndToken(in.Token, &o)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "token: "+err.Error()+"; pass the token of the Start response unchanged")
	}
	return &flowv1.EndResponse{Result: result.String()}, nil
}

// toAPIVerdict copies a verdict, and seals the token of a flow that will be ended; nothing in it refers to the flow.
func toAPIVerdict(f *flow.Flow) *flowv1.StartResponse {
	v := &f.Verdict
	out := &flowv1.StartResponse{
		Verdict: "deny", Reason: v.Reason.String(), WaitedSeconds: v.Waited.Seconds(),
		HttpStatus: int32(v.HTTPStatus()),
	}
	switch {
	case v.Admitted && v.Waited == 0 && v.Reason == flow.Admitted:
		out.Verdict, out.Message = "admit", "admitted" // the usual case allocates nothing more
	case v.Admitted:
		out.Verdict, out.Message = "admit", v.Message()
	default:
		out.Message, out.Account = v.Message(), v.Account()
		out.GrpcCode = int32(grpcCode(v))
		if v.RetryAfter > 0 {
			s := v.RetryAfter.Seconds()
			out.RetryAfterSeconds = &s
		}
	}
	if v.Limiter != nil {
		out.Policy, out.Limiter, out.LimiterKind = v.Limiter.Policy, v.Limiter.Component, v.Limiter.Kind.String()
	}
	for i := range v.Decisions {
		out.Decisions = append(out.Decisions, toAPIDecision(&v.Decisions[i]))
	}
	if cached := f.Cached(); cached != nil {
		out.Cache = toAPICacheResult(cached)
	}
	if v.Admitted && !f.NoEnd() {
		out.Token = f.Seal(nil)
	}
	return out
}

func toAPIDecision(d *flow.Decision) *flowv1.LimiterDecision {
	return &flowv1.LimiterDecision{
		Policy: d.Limiter.Policy, Limiter: d.Limiter.Component, Kind: d.Limiter.Kind.String(),
		Account: d.Account(), Admitted: d.Admitted, Tokens: d.Tokens, Remaining: d.Remaining, Limit: d.Limit,
		Workload: strings.ToValidUTF8(d.Workload, "�"), Priority: d.Priority,
		WaitedSeconds: d.Waited.Seconds(), Note: d.Note,
	}
}

// grpcCode is the gRPC status that suits a denial.
func grpcCode(v *flow.Verdict) codes.Code {
	switch {
	case v.Admitted:
		return codes.OK
	case v.Reason == flow.InvalidRequest:
		return codes.InvalidArgument
	case v.Reason == flow.Cancelled:
		return codes.Canceled
	case v.Reason == flow.NotSampled:
		return codes.PermissionDenied
	case v.HTTPStatus() == 503:
		return codes.Unavailable
	}
	return codes.ResourceExhausted
}

func fromAPIOutcome(in *flowv1.EndRequest) (flow.Outcome, error) {
	o := flow.Outcome{
		Failed: in.Status == flowv1.FlowStatus_FLOW_STATUS_ERROR, Tokens: in.Tokens, TokensByLabel: in.TokensByLabel,
		HTTPStatus: int(in.HttpStatus), Attributes: in.Attributes,
	}
	if in.HttpStatus != 0 && (in.HttpStatus < 100 || in.HttpStatus > 599) {
		return o, fmt.Errorf("http_status is %d; expected 100 to 599, or 0 for none", in.HttpStatus)
	}
	if len(in.Attributes) > maxAttributes {
		return o, fmt.Errorf("attributes has %d entries; expected at most %d", len(in.Attributes), maxAttributes)
	}
	if in.Duration != nil {
		o.Duration = in.Duration.AsDuration()
		if o.Duration < 0 || o.Duration > 366*24*time.Hour {
			return o, errors.New("duration is out of range; expected 0 to one year")
		}
	}
	if in.Tokens != nil && !validTokens(*in.Tokens) {
		return o, errors.New("tokens is not a number of tokens; expected 0 to 9007199254740992")
	}
	for _, n := range in.TokensByLabel {
		if !validTokens(n) {
			return o, errors.New("tokens_by_label has a value that is not a number of tokens; expected 0 to 9007199254740992")
		}
	}
	return o, nil
}

// maxAttributes bounds the numbers that one end reports.
const maxAttributes = 64

func validTokens(n float64) bool { return n >= 0 && n <= 1<<53 && !math.IsNaN(n) }

// FlowConnect serves the unary methods of a FlowService to browsers and curl. The Stream needs HTTP/2
// and so comes by gRPC only, except for gRPC-Web and Connect clients on HTTP/2.
type FlowConnect struct{ Service *FlowService }

var _ flowv1connect.FlowServiceHandler = FlowConnect{}

// Start implements FlowServiceHandler.
func (c FlowConnect) Start(ctx context.Context, in *connect.Request[flowv1.StartRequest]) (*connect.Response[flowv1.StartResponse], error) {
	return toConnect(c.Service.Start(ctx, in.Msg))
}

// CheckHTTP implements FlowServiceHandler.
func (c FlowConnect) CheckHTTP(ctx context.Context, in *connect.Request[flowv1.CheckHTTPRequest]) (*connect.Response[flowv1.CheckHTTPResponse], error) {
	return toConnect(c.Service.CheckHTTP(ctx, in.Msg))
}

// End implements FlowServiceHandler.
func (c FlowConnect) End(ctx context.Context, in *connect.Request[flowv1.EndRequest]) (*connect.Response[flowv1.EndResponse], error) {
	return toConnect(c.Service.End(ctx, in.Msg))
}

// Stream implements FlowServiceHandler.
func (c FlowConnect) Stream(ctx context.Context, s *connect.BidiStream[flowv1.StreamRequest, flowv1.StreamResponse]) error {
	return toConnectError(c.Service.serve(ctx, connectStream{s}))
}

// connectStream makes a connect stream look like a gRPC one.
type connectStream struct {
	s *connect.BidiStream[flowv1.StreamRequest, flowv1.StreamResponse]
}

func (c connectStream) SendMsg(m any) error { return c.s.Send(m.(*flowv1.StreamResponse)) }

func (c connectStream) RecvMsg(m any) error {
	in, err := c.s.Receive()
	if err != nil {
		return err
	}
	out := m.(*flowv1.StreamRequest)
	out.Shapes, out.Starts, out.Ends, out.Cancels = in.Shapes, in.Starts, in.Ends, in.Cancels
	return nil
}

// toConnect wraps the answer of a gRPC method for connect.
func toConnect[T any](msg *T, err error) (*connect.Response[T], error) {
	if err != nil {
		return nil, toConnectError(err)
	}
	return connect.NewResponse(msg), nil
}

// toConnectError translates a gRPC status, details included.
func toConnectError(err error) error {
	if err == nil {
		return nil
	}
	st := status.Convert(err)
	out := connect.NewError(connect.Code(st.Code()), errors.New(st.Message()))
	for _, d := range st.Proto().GetDetails() {
		if detail, derr := connect.NewErrorDetail(d); derr == nil {
			out.AddDetail(detail)
		}
	}
	return out
}
