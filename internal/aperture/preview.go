// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"context"
	"errors"
	"math"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	previewv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/preview/v1"
	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/classify/rego"
	"github.com/sluice-project/sluice/internal/flow"
)

// previewService answers aperture.flowcontrol.preview.v1.FlowPreviewService.
type previewService struct {
	previewv1.UnimplementedFlowPreviewServiceServer
	d *Door
}

// Bounds on previews.
const (
	mostSamples = 1000
	mostBytes   = 3 << 20  // of one answer: clients of gRPC take messages of 4 MiB
	mostOfBody  = 16 << 10 // of one request that are shown
	mostPending = 16       // flows that have passed and are not shown yet; others are passed over

	mostPreviews = flow.MaxTaps / 2 // at a time, so that `sluice preview` always has some
)

// PreviewFlowLabels implements FlowPreviewServiceServer.
func (s previewService) PreviewFlowLabels(ctx context.Context, in *previewv1.PreviewRequest) (*previewv1.PreviewFlowLabelsResponse, error) {
	out := &previewv1.PreviewFlowLabelsResponse{}
	err := s.d.preview(ctx, in, func(sample flow.Sample) int {
		labels := make(map[string]string, len(sample.After))
		for key, value := range sample.After {
			labels[text(key)] = text(classify.ShowLabel(key, value))
		}
		one := &previewv1.PreviewFlowLabelsResponse_FlowLabels{Labels: labels}
		size := sizeOf(one)
		if size > 0 {
			out.Samples = append(out.Samples, one)
		}
		return size
	})
	return answerUnless(err, out, len(out.Samples))
}

// PreviewHTTPRequests implements FlowPreviewServiceServer.
func (s previewService) PreviewHTTPRequests(ctx context.Context, in *previewv1.PreviewRequest) (*previewv1.PreviewHTTPRequestsResponse, error) {
	out := &previewv1.PreviewHTTPRequestsResponse{}
	err := s.d.preview(ctx, in, func(sample flow.Sample) int {
		if sample.HTTP == nil {
			return 0 // a feature has no request
		}
		input, err := requestInput(sample.HTTP)
		if err != nil {
			return 0 // too strange to be shown
		}
		size := sizeOf(input)
		if size > 0 {
			out.Samples = append(out.Samples, input)
		}
		return size
	})
	return answerUnless(err, out, len(out.Samples))
}

// sizeOf is what a sample takes in an answer; 0: it is too large for one.
func sizeOf(m proto.Message) int {
	if n := proto.Size(m) + 8; n < mostBytes/4 {
		return n
	}
	return 0
}

// requestInput is a request as classifiers see it.
func requestInput(r *classify.Request) (*structpb.Struct, error) {
	b, err := rego.InputJSON(r.WithoutSecrets(), mostOfBody)
	if err != nil {
		return nil, err
	}
	out := new(structpb.Struct)
	return out, protojson.Unmarshal(b, out)
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

// preview calls show with flows as they pass, until as many as asked for were shown or the answer is full. show is
// called on the goroutine of the caller, and returns the bytes that the flow takes in the answer; 0: it was not
// fit to be shown. Flows that pass faster than they are shown are passed over.
func (d *Door) preview(ctx context.Context, in *previewv1.PreviewRequest, show func(flow.Sample) int) error {
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
	defer d.previews.Add(-1)
	if d.previews.Add(1) > mostPreviews || d.engine.Taps() >= flow.MaxTaps {
		return status.Errorf(codes.ResourceExhausted,
			"%d previews by the API of Aperture are running, which is the most at a time, or %d with those by `sluice preview`: try again later",
			mostPreviews, flow.MaxTaps)
	}
	service := in.Service
	if service == anyService {
		service = ""
	}
	samples := make(chan flow.Sample, mostPending)
	var pending atomic.Int64 // bytes
	stop := d.engine.Tap(in.ControlPoint, service, match, math.MaxInt32, func(s flow.Sample) {
		bytes := int64(s.Bytes())
		if now := pending.Add(bytes); now <= mostBytes || now == bytes {
			select {
			case samples <- s:
				return
			default: // nobody who decides a flow waits here
			}
		}
		pending.Add(-bytes)
	})
	defer stop()
	for left, room := in.Samples, mostBytes; left > 0 && room > 0; {
		select {
		case s := <-samples:
			pending.Add(-int64(s.Bytes()))
			if n := show(s); n > 0 {
				left--
				room -= n
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-d.closed:
			return status.Error(codes.Unavailable, "the server is stopping")
		}
	}
	return nil
}
