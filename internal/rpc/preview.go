// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"math"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "github.com/sluice-project/sluice/api/gen/sluice/discovery/v1"
	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/label"
	"github.com/sluice-project/sluice/internal/label/cel"
)

// Bounds on previews.
const (
	maxPreviews    = flow.MaxTaps / 2 // the rest is for other doors
	defaultSamples = 10
	maxSamples     = 1_000
	previewBuffer  = 64 // samples that wait for a client; more are missed
	// previewBytes is how much memory these may take; one more of any size is taken when none waits.
	previewBytes = 4 << 20
)

// tapped is a flow that waits for the client.
type tapped struct {
	flow.Sample
	bytes int64
}

// preview sends flows as they come until there are enough or ctx ends.
func (s *DiscoveryService) preview(ctx context.Context, in *discoveryv1.PreviewFlowsRequest, send func(*discoveryv1.PreviewFlowsResponse) error) error {
	filter, samples, err := checkPreview(in)
	if err != nil {
		return err
	}
	select {
	case s.previews <- struct{}{}:
		defer func() { <-s.previews }()
	default:
		return tooManyPreviews()
	}
	if s.engine.Taps() >= flow.MaxTaps {
		return tooManyPreviews()
	}
	seen := make(chan tapped, previewBuffer)
	var waiting atomic.Int64 // bytes
	stop := s.engine.Tap(in.ControlPoint, in.Service, filter, math.MaxInt, func(one flow.Sample) {
		if in.DeniedOnly && one.Verdict.Admitted {
			return
		}
		bytes := int64(one.Bytes())
		if now := waiting.Add(bytes); now <= previewBytes || now == bytes {
			select {
			case seen <- tapped{one, bytes}:
				return
			default: // nobody who decides a flow waits for a client
			}
		}
		waiting.Add(-bytes)
		s.missed.Add(1)
	})
	defer stop()
	v := viewOf(ctx)
	for range samples {
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case one := <-seen:
			waiting.Add(-one.bytes)
			if err := send(v.sample(&one)); err != nil {
				return err
			}
			s.shown.Add(1)
		}
	}
	return nil
}

func tooManyPreviews() error {
	return status.Errorf(codes.ResourceExhausted, "%d previews are under way already, which is the most allowed; try again when one has ended", maxPreviews)
}

func checkPreview(in *discoveryv1.PreviewFlowsRequest) (filter label.Expr, samples int, err error) {
	samples = int(in.Samples)
	switch {
	case in.ControlPoint == "" || len(in.ControlPoint) > flow.MaxControlPointLen:
		return filter, 0, status.Errorf(codes.InvalidArgument, "control_point has %d bytes; expected 1 to %d", len(in.ControlPoint), flow.MaxControlPointLen)
	case samples < 0 || samples > maxSamples:
		return filter, 0, status.Errorf(codes.InvalidArgument, "samples is %d; expected 0 (%d) to %d", samples, defaultSamples, maxSamples)
	case samples == 0:
		samples = defaultSamples
	}
	if in.Filter == "" {
		return filter, samples, nil
	}
	if filter, err = cel.Compile(in.Filter); err != nil {
		return filter, 0, status.Errorf(codes.InvalidArgument, `filter: %v; expected a condition on labels in CEL, such as labels["user_type"] == "gold"`, err)
	}
	return filter, samples, nil
}

// sample is a flow as the API shows it.
func (v view) sample(one *tapped) *discoveryv1.PreviewFlowsResponse {
	out := &discoveryv1.PreviewFlowsResponse{
		Time: timestamppb.New(one.Began), LabelsBefore: v.labels(one.Before), LabelsAfter: v.labels(one.After), Http: v.request(one.HTTP),
	}
	v.verdict(out, one.Verdict)
	for _, name := range one.Services {
		out.Services = append(out.Services, validText(name))
	}
	for _, c := range one.Classifiers {
		if c.Err != nil {
			out.Problems = append(out.Problems, &discoveryv1.ClassifierProblem{
				Policy: c.Classifier.Policy, Index: int32(c.Classifier.Index),
				Code: c.Err.Code.String(), Message: cutText(c.Err.Message, maxShownMessage),
			})
		}
	}
	return out
}

// verdict shows why a flow was admitted or denied. The name of an account is the value of a label, so it may be a secret,
// such as the API key by which requests are limited.
func (v view) verdict(out *discoveryv1.PreviewFlowsResponse, of flow.Verdict) {
	out.Verdict, out.Reason, out.WaitedSeconds = "deny", of.Reason.String(), of.Waited.Seconds()
	if of.Admitted {
		out.Verdict = "admit"
	}
	if l := of.Limiter; l != nil {
		out.Policy, out.Limiter = validText(l.Policy), validText(l.Component)
		if of.Key != "" {
			of.Key = classify.ShowLabel(l.LimitBy, of.Key)
		}
	}
	if !of.Admitted && of.RetryAfter > 0 {
		seconds := of.RetryAfter.Seconds()
		out.RetryAfterSeconds = &seconds
	}
	out.Message = cutText(of.Message(), maxShownMessage)
}
