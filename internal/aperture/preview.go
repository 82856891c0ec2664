// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	previewv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/preview/v1"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/label"
)

// previewService answers aperture.flowcontrol.preview.v1.FlowPreviewService.
type previewService struct {
	previewv1.UnimplementedFlowPreviewServiceServer
	d *Door
}

// mostSamples bounds the flows of one preview.
const mostSamples = 1000

// PreviewFlowLabels implements FlowPreviewServiceServer.
func (s previewService) PreviewFlowLabels(ctx context.Context, in *previewv1.PreviewRequest) (*previewv1.PreviewFlowLabelsResponse, error) {
	out := &previewv1.PreviewFlowLabelsResponse{}
	err := s.d.preview(ctx, in, func(sample flow.Sample) bool {
		labels := make(map[string]string, len(sample.After))
		for key, value := range sample.After {
			labels[text(key)] = text(value)
		}
		out.Samples = append(out.Samples, &previewv1.PreviewFlowLabelsResponse_FlowLabels{Labels: labels})
		return true
	})
	return answerUnless(err, out, len(out.Samples))
}

// PreviewHTTPRequests implements FlowPreviewServiceServer.
func (s previewService) PreviewHTTPRequests(ctx context.Context, in *previewv1.PreviewRequest) (*previewv1.PreviewHTTPRequestsResponse, error) {
	out := &previewv1.PreviewHTTPRequestsResponse{}
	err := s.d.preview(ctx, in, func(sample flow.Sample) bool {
		if sample.HTTP == nil {
			return false // a feature has no request
		}
		input, err := structpb.NewStruct(requestInput(sample.HTTP))
		if err == nil { // else it is too strange to be shown
			out.Samples = append(out.Samples, input)
		}
		return err == nil
	})
	return answerUnless(err, out, len(out.Samples))
}

// answerUnless gives what has been seen when the time is over, and an error when that is nothing.
func answerUnless[T any](err error, out *T, seen int) (*T, error) {
	if err == nil || seen > 0 && errors.Is(err, context.DeadlineExceeded) {
		return out, nil
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return nil, status.FromContextError(err).Err()
	}
	return nil, err
}

// preview calls show with flows as they pass, until it has returned true as often as asked for. It is called on the
// goroutine of the caller.
func (d *Door) preview(ctx context.Context, in *previewv1.PreviewRequest, show func(flow.Sample) bool) error {
	if err := checkPoint(in.ControlPoint); err != nil {
		return err
	}
	if in.Samples < 1 || in.Samples > mostSamples {
		return status.Errorf(codes.InvalidArgument, "samples: got %d, want 1 to %d", in.Samples, mostSamples)
	}
	match, err := matcher(in.LabelMatcher)
	if err != nil {
		return status.Error(codes.InvalidArgument, "label_matcher: "+err.Error())
	}
	service := in.Service
	if service == anyService {
		service = ""
	}
	if d.engine.Taps() >= flow.MaxTaps {
		return status.Errorf(codes.ResourceExhausted, "%d previews are running, which is the most at a time: try again later", flow.MaxTaps)
	}
	for left := int(in.Samples); left > 0; {
		n, err := d.watch(ctx, tap{in.ControlPoint, service, match, left}, show)
		if err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// tap says which flows to watch, and how many.
type tap struct {
	point, service string
	match          label.Expr
	flows          int
}

// watch shows a number of flows, and tells how many were fit to be shown.
func (d *Door) watch(ctx context.Context, t tap, show func(flow.Sample) bool) (shown int, err error) {
	samples := make(chan flow.Sample, t.flows) // so that nobody who decides a flow waits here
	stop := d.engine.Tap(t.point, t.service, t.match, t.flows, func(s flow.Sample) {
		select {
		case samples <- s:
		default:
		}
	})
	defer stop()
	for range t.flows {
		select {
		case s := <-samples:
			if show(s) {
				shown++
			}
		case <-ctx.Done():
			return shown, ctx.Err()
		case <-d.closed:
			return shown, status.Error(codes.Unavailable, "the server is stopping")
		}
	}
	return shown, nil
}
