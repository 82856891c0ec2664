// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-project/sluice/internal/batch"
)

// Bounds on batches of records.
const (
	mostDecoding = 2   // batches decoded at a time
	mostQueued   = 100 // batches waiting for their turn
	queueTime    = 10 * time.Second
	mostParts    = 200_000 // of a batch; each takes hundreds of bytes in memory
)

// export decodes a batch of a kind of OTLP messages, ends flows, and encodes the answer.
type export func(d *Door, body []byte, json bool) ([]byte, error)

func exportTraces(d *Door, body []byte, json bool) ([]byte, error) {
	in := ptraceotlp.NewExportRequest()
	if err := decode(body, json, in.UnmarshalProto, in.UnmarshalJSON); err != nil {
		return nil, err
	}
	var refused refusals
	for _, resource := range in.Traces().ResourceSpans().All() {
		for _, scope := range resource.ScopeSpans().All() {
			for _, span := range scope.Spans().All() {
				refused.add(d.take(span.Attributes()))
			}
		}
	}
	out := ptraceotlp.NewExportResponse()
	if refused.n > 0 {
		out.PartialSuccess().SetRejectedSpans(refused.n)
		out.PartialSuccess().SetErrorMessage(refused.text())
	}
	if json {
		return out.MarshalJSON()
	}
	return out.MarshalProto()
}

func exportLogs(d *Door, body []byte, json bool) ([]byte, error) {
	in := plogotlp.NewExportRequest()
	if err := decode(body, json, in.UnmarshalProto, in.UnmarshalJSON); err != nil {
		return nil, err
	}
	var refused refusals
	for _, resource := range in.Logs().ResourceLogs().All() {
		for _, scope := range resource.ScopeLogs().All() {
			for _, line := range scope.LogRecords().All() {
				refused.add(d.take(line.Attributes()))
			}
		}
	}
	out := plogotlp.NewExportResponse()
	if refused.n > 0 {
		out.PartialSuccess().SetRejectedLogRecords(refused.n)
		out.PartialSuccess().SetErrorMessage(refused.text())
	}
	if json {
		return out.MarshalJSON()
	}
	return out.MarshalProto()
}

func decode(body []byte, json bool, fromProto, fromJSON func([]byte) error) error {
	if json {
		if err := batch.CheckJSON(body, mostParts); err != nil {
			return err
		}
		return fromJSON(body)
	}
	if err := batch.Check(body, mostParts); err != nil {
		return err
	}
	return fromProto(body)
}

// refusals are the records of a batch that ended no flow though they should.
type refusals struct {
	n  int64
	by [recordResults]int64
}

func (r *refusals) add(result recordResult) {
	if result.refused() {
		r.n++
		r.by[result]++
	}
}

func (r *refusals) text() string {
	text := "records that ended no flow:"
	for result, n := range r.by {
		if n > 0 {
			text += fmt.Sprintf(" %d %s", n, recordResult(result))
		}
	}
	return text
}

// turnstile lets a number of batches in at a time, and a number wait.
type turnstile struct{ inside, all chan struct{} }

func newTurnstile(most int) turnstile {
	return turnstile{make(chan struct{}, most), make(chan struct{}, most+mostQueued)}
}

var errBusy = errors.New("too many batches are being read: send this one again")

// enter waits for a turn. Who got in calls leave.
func (t turnstile) enter(ctx context.Context) error {
	select {
	case t.all <- struct{}{}:
	default:
		return errBusy
	}
	late := time.NewTimer(queueTime)
	defer late.Stop()
	select {
	case t.inside <- struct{}{}:
		return nil
	case <-ctx.Done():
	case <-late.C:
	}
	<-t.all
	return errBusy
}

func (t turnstile) leave() { <-t.inside; <-t.all }

// envelope is a message of OTLP as it came, or goes: it is decoded once the caller is known to be allowed to send
// it and it is its turn. It has the methods that codec.Codec looks for.
type envelope struct{ body []byte }

// UnmarshalVT keeps a message; the bytes are lent.
func (e *envelope) UnmarshalVT(b []byte) error {
	e.body = slices.Clone(b)
	return nil
}

// SizeVT is the size of the message.
func (e *envelope) SizeVT() int { return len(e.body) }

// MarshalToSizedBufferVT writes the message.
func (e *envelope) MarshalToSizedBufferVT(b []byte) (int, error) { return copy(b, e.body), nil }

// The services and methods of OTLP over gRPC.
const (
	traceService = "opentelemetry.proto.collector.trace.v1.TraceService"
	logService   = "opentelemetry.proto.collector.logs.v1.LogsService"
	traceMethod  = "/" + traceService + "/Export"
	logMethod    = "/" + logService + "/Export"
)

// registerRecords serves OTLP over gRPC, for a server with codec.Codec.
func (d *Door) registerRecords(s *grpc.Server) {
	register := func(service, method string, kind export) {
		s.RegisterService(&grpc.ServiceDesc{
			ServiceName: service, HandlerType: (*any)(nil),
			Methods: []grpc.MethodDesc{{MethodName: "Export", Handler: d.exporter(method, kind)}},
		}, d)
	}
	register(traceService, traceMethod, exportTraces)
	register(logService, logMethod, exportLogs)
}

// exporter is the handler of a method.
func (d *Door) exporter(method string, kind export) grpc.MethodHandler {
	return func(srv any, ctx context.Context, read func(any) error, next grpc.UnaryServerInterceptor) (any, error) {
		in := new(envelope)
		if err := read(in); err != nil {
			return nil, err
		}
		answer := func(ctx context.Context, in any) (any, error) { return d.exportGRPC(ctx, in.(*envelope), kind) }
		if next == nil {
			return answer(ctx, in)
		}
		return next(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: method}, answer)
	}
}

func (d *Door) exportGRPC(ctx context.Context, in *envelope, kind export) (*envelope, error) {
	if err := d.records.enter(ctx); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error()) // which tells exporters to try again
	}
	defer d.records.leave()
	body, err := kind(d, in.body, false)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &envelope{body}, nil
}
