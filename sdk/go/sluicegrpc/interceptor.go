// SPDX-License-Identifier: Apache-2.0

// Package sluicegrpc puts flows around gRPC calls, on the side of the server and of the client.
package sluicegrpc

import (
	"cmp"
	"context"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	sluice "github.com/sluice-project/sluice/sdk/go"
)

// Option changes how calls become flows.
type Option func(*settings)

type settings struct {
	labels  func(ctx context.Context, fullMethod string) sluice.Labels
	ignored func(ctx context.Context, fullMethod string) bool
	flow    []sluice.FlowOption
}

// WithLabels sets the function that extracts labels from a call, instead of DefaultLabels. It may be
// called concurrently; on a server the metadata of the call is in ctx.
func WithLabels(labels func(ctx context.Context, fullMethod string) sluice.Labels) Option {
	return func(s *settings) {
		if labels != nil {
			s.labels = labels
		}
	}
}

// WithIgnoredMethods lets calls of these full methods, such as "/grpc.health.v1.Health/Check", pass
// without a flow.
func WithIgnoredMethods(fullMethods ...string) Option {
	known := make(map[string]bool, len(fullMethods))
	for _, m := range fullMethods {
		known[m] = true
	}
	return func(s *settings) {
		before := s.ignored
		s.ignored = func(ctx context.Context, m string) bool { return known[m] || before(ctx, m) }
	}
}

// WithFlowOptions sets options for every flow, for example sluice.WithQueueTimeout.
func WithFlowOptions(opts ...sluice.FlowOption) Option {
	return func(s *settings) { s.flow = append(s.flow, opts...) }
}

// DefaultLabels is rpc.method, the full method: "/package.Service/Method".
func DefaultLabels(_ context.Context, fullMethod string) sluice.Labels {
	return sluice.Labels{"rpc.method": fullMethod}
}

func newSettings(opts []Option) *settings {
	s := &settings{labels: DefaultLabels, ignored: func(context.Context, string) bool { return false }}
	for _, opt := range opts {
		if opt != nil {
			opt(s)
		}
	}
	return s
}

// DeniedStatus is the gRPC status of a denied flow: the code and message of the verdict, with an
// ErrorInfo (reason, policy, limiter) and, when the time is known, a RetryInfo. It is OK for a flow that
// may run. When the server could not be asked the message says only that, because it goes to callers.
func DeniedStatus(f *sluice.Flow) *status.Status {
	if f.ShouldRun() {
		return status.New(codes.OK, "")
	}
	v := f.Verdict()
	message := cmp.Or(v.Message, v.Reason, "denied")
	if f.Err() != nil {
		message = "load management is unavailable"
	}
	code := v.GRPCCode
	if code == codes.OK {
		code = codes.Unavailable
	}
	st := status.New(code, message)
	info := &errdetails.ErrorInfo{Reason: v.Reason, Domain: "sluice", Metadata: map[string]string{}}
	if v.Policy != "" {
		info.Metadata["policy"], info.Metadata["limiter"] = v.Policy, v.Limiter
	}
	detailed, err := st.WithDetails(info)
	if after, ok := f.RetryAfter(); ok {
		detailed, err = st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)}, info)
	}
	if err != nil { // only for codes.OK
		return st
	}
	return detailed
}

// UnaryServerInterceptor asks for a flow before each unary call is handled and denies it with
// DeniedStatus. The handler finds the flow with sluice.FlowFrom.
func UnaryServerInterceptor(client *sluice.Client, controlPoint string, opts ...Option) grpc.UnaryServerInterceptor {
	s := newSettings(opts)
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
		if s.ignored(ctx, info.FullMethod) {
			return handler(ctx, req)
		}
		flow := client.StartFlow(ctx, controlPoint, s.labels(ctx, info.FullMethod), s.flow...)
		if !flow.ShouldRun() {
			return nil, DeniedStatus(flow).Err()
		}
		outcome := sluice.StatusError // also when the handler panics
		defer func() { flow.End(sluice.WithStatus(outcome)) }()
		resp, err = handler(sluice.ContextWithFlow(ctx, flow), req)
		outcome = serverStatus(err)
		return resp, err
	}
}

// StreamServerInterceptor asks for one flow for each stream, which lasts as long as the handler.
func StreamServerInterceptor(client *sluice.Client, controlPoint string, opts ...Option) grpc.StreamServerInterceptor {
	s := newSettings(opts)
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx := stream.Context()
		if s.ignored(ctx, info.FullMethod) {
			return handler(srv, stream)
		}
		flow := client.StartFlow(ctx, controlPoint, s.labels(ctx, info.FullMethod), s.flow...)
		if !flow.ShouldRun() {
			return DeniedStatus(flow).Err()
		}
		outcome := sluice.StatusError // also when the handler panics
		defer func() { flow.End(sluice.WithStatus(outcome)) }()
		err := handler(srv, &serverStream{stream, sluice.ContextWithFlow(ctx, flow)})
		outcome = serverStatus(err)
		return err
	}
}

type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context carries the flow.
func (s *serverStream) Context() context.Context { return s.ctx }

// serverStatus tells failures of the server from those of its callers, such as NotFound, by the codes
// that OpenTelemetry counts as errors of a server.
func serverStatus(err error) sluice.Status {
	switch status.Code(err) {
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		return sluice.StatusError
	}
	return sluice.StatusOK
}
