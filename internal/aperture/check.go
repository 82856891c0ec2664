// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	checkv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/check/v1"
	"github.com/sluice-project/sluice/internal/flow"
)

// checkService answers aperture.flowcontrol.check.v1.FlowControlService.
type checkService struct {
	checkv1.UnimplementedFlowControlServiceServer
	d *Door
}

// Check implements FlowControlServiceServer.
func (s checkService) Check(ctx context.Context, in *checkv1.CheckRequest) (*checkv1.CheckResponse, error) {
	if err := checkPoint(in.ControlPoint); err != nil {
		return nil, err
	}
	started := time.Now()
	r := flow.Request{
		ControlPoint: in.ControlPoint, Labels: in.Labels, Services: s.d.peerServices(ctx),
		QueueTimeout: -1, Explain: true, RampMode: in.RampMode, Cache: cacheQuery(in.CacheLookupRequest),
	}
	f, err := s.d.decide(ctx, &r)
	if err != nil {
		return nil, err
	}
	defer f.Free()
	return Respond(f, &r, Details{Started: started, ExpectEnd: in.ExpectEnd}), nil
}

// mostRefs bounds the references of a FlowEnd: one for each concurrency limiter that a flow passed.
const mostRefs = 1000

// FlowEnd implements FlowControlServiceServer. It only frees slots: how the work went is told by the record.
func (s checkService) FlowEnd(_ context.Context, in *checkv1.FlowEndRequest) (*checkv1.FlowEndResponse, error) {
	if n := len(in.InflightRequests); n > mostRefs {
		return nil, status.Errorf(codes.InvalidArgument, "inflight_requests has %d entries, want at most %d", n, mostRefs)
	}
	out := &checkv1.FlowEndResponse{TokenReturnStatuses: make([]*checkv1.TokenReturnStatus, len(in.InflightRequests))}
	released := make(map[string]release, 1) // by token: one frees all that the flow holds
	for i, ref := range in.InflightRequests {
		r := s.d.release(ref, released)
		s.d.metrics.flowEnds[r.result].Inc()
		out.TokenReturnStatuses[i] = &checkv1.TokenReturnStatus{
			InflightRequestRef: ref, Returned: r.result == endReturned, Error: r.problem,
		}
	}
	return out, nil
}

// release is what giving slots back did.
type release struct {
	result  endResult
	problem string
}

func (d *Door) release(ref *checkv1.InflightRequestRef, released map[string]release) release {
	if ref.GetRequestId() == "" {
		return release{endInvalid, "request id is empty"}
	}
	text, sum, ok := cutRequestID(ref.RequestId)
	if !ok {
		return release{endInvalid, "request id was not issued by this server"}
	}
	if sum != limiterSum(ref.PolicyName, ref.PolicyHash, ref.ComponentId) {
		return release{endInvalid, "flow ender not found for limiter id policy_name:" + ref.PolicyName +
			",component_id:" + ref.ComponentId + ",policy_hash:" + ref.PolicyHash + ": the request id is of another limiter"}
	}
	if done, ok := released[text]; ok {
		return done
	}
	r := release{result: endReturned}
	token, err := decodeToken(text)
	if err != nil {
		r = release{endInvalid, "request id was not issued by this server"}
	} else {
		switch result, err := d.engine.ReleaseToken(token); {
		case err != nil:
			r = release{endInvalid, err.Error()}
		case result != flow.Ended: // too late, or a second time; both are nobody's mistake
			r.result = endLate
		}
	}
	released[text] = r
	return r
}
