// SPDX-License-Identifier: Apache-2.0

package sluicegrpc

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	sluice "github.com/sluice-project/sluice/sdk/go"
)

// UnaryClientInterceptor asks for a flow before each unary call is sent. A denied call is not sent and
// fails with DeniedStatus. Any error of the call makes the flow a failed one.
func UnaryClientInterceptor(client *sluice.Client, controlPoint string, opts ...Option) grpc.UnaryClientInterceptor {
	s := newSettings(opts)
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, callOpts ...grpc.CallOption) error {
		if s.ignored(ctx, method) {
			return invoker(ctx, method, req, reply, cc, callOpts...)
		}
		flow := client.StartFlow(ctx, controlPoint, s.labels(ctx, method), s.flow...)
		if !flow.ShouldRun() {
			return DeniedStatus(flow).Err()
		}
		outcome := sluice.StatusError // also when the call panics
		defer func() { flow.End(sluice.WithStatus(outcome)) }()
		err := invoker(ctx, method, req, reply, cc, callOpts...)
		if err == nil {
			outcome = sluice.StatusOK
		}
		return err
	}
}

// StreamClientInterceptor asks for one flow for each stream. The flow lasts until the stream has been
// received to its end, has failed, or its context is done: what gRPC asks of every user of a stream.
func StreamClientInterceptor(client *sluice.Client, controlPoint string, opts ...Option) grpc.StreamClientInterceptor {
	s := newSettings(opts)
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, callOpts ...grpc.CallOption) (grpc.ClientStream, error) {
		if s.ignored(ctx, method) {
			return streamer(ctx, desc, cc, method, callOpts...)
		}
		flow := client.StartFlow(ctx, controlPoint, s.labels(ctx, method), s.flow...)
		if !flow.ShouldRun() {
			return nil, DeniedStatus(flow).Err()
		}
		handed := false
		defer func() {
			if !handed { // no stream, or a panic
				flow.End(sluice.WithStatus(sluice.StatusError))
			}
		}()
		stream, err := streamer(ctx, desc, cc, method, callOpts...)
		if err != nil {
			return nil, err
		}
		handed = true
		c := &clientStream{ClientStream: stream, flow: flow, many: desc.ServerStreams}
		c.stop = context.AfterFunc(ctx, func() { flow.End(sluice.WithStatus(sluice.StatusError)) })
		return c, nil
	}
}

type clientStream struct {
	grpc.ClientStream
	flow *sluice.Flow
	many bool        // the server sends any number of messages
	stop func() bool // forgets the context
}

// RecvMsg ends the flow with the stream.
func (c *clientStream) RecvMsg(m any) error {
	err := c.ClientStream.RecvMsg(m)
	switch {
	case err == nil && c.many:
		return nil
	case err == nil, errors.Is(err, io.EOF):
		c.flow.End(sluice.WithStatus(sluice.StatusOK))
	default:
		c.flow.End(sluice.WithStatus(sluice.StatusError))
	}
	c.stop()
	return err
}
