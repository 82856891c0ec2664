// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"strings"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/flow"
)

// Services finds the services that have an IP address. It may be called concurrently; nil: none is known.
type Services func(address string) []string

// CheckHTTP implements FlowServiceServer.
func (s *FlowService) CheckHTTP(ctx context.Context, in *flowv1.CheckHTTPRequest) (*flowv1.CheckHTTPResponse, error) {
	r := flow.Request{
		ControlPoint: in.ControlPoint, Labels: in.Labels, Services: in.Services, QueueTimeout: -1,
		NoEnd: in.NoEnd, RampMode: in.RampMode,
		Explain: true, // headers tell about every limit that was asked
		HTTP:    s.fromAPIHTTP(in),
	}
	if len(r.Services) == 0 {
		r.Services = r.HTTP.DestinationServices
	}
	if in.Cache != nil {
		r.Cache = fromAPICacheLookup(in.Cache)
	}
	f, err := s.start(ctx, &r, in.QueueTimeout)
	if err != nil {
		return nil, err
	}
	defer f.Free()
	out := &flowv1.CheckHTTPResponse{Verdict: toAPIVerdict(f), ResponseHeaders: make(map[string]string)}
	if !in.Explain {
		out.Verdict.Decisions = nil
	}
	f.Verdict.RateLimitHeaders(func(name, value string) { out.ResponseHeaders[name] = value })
	derived := f.Derived()
	if b := r.HTTP.Baggage(derived); b != "" && f.Admitted() {
		out.RequestHeaders = map[string]string{"baggage": b}
	}
	for _, l := range derived {
		if out.DerivedLabels == nil {
			out.DerivedLabels = make(map[string]string, len(derived))
		}
		out.DerivedLabels[l.Key] = l.Value
	}
	return out, nil
}

func (s *FlowService) fromAPIHTTP(in *flowv1.CheckHTTPRequest) *classify.Request {
	a := in.Request
	r := &classify.Request{
		ID: a.GetId(), Method: a.GetMethod(), Path: a.GetPath(), Host: a.GetHost(), Scheme: a.GetScheme(),
		Protocol: a.GetProtocol(), Size: -1, Body: string(a.GetBody()),
		Source:      classify.Address{Text: in.GetSource().GetAddress(), Port: in.GetSource().GetPort()},
		Destination: classify.Address{Text: in.GetDestination().GetAddress(), Port: in.GetDestination().GetPort()},
	}
	if a.GetSize() >= 0 && a != nil && a.Size != nil {
		r.Size = *a.Size
	}
	r.Headers = make(map[string]string, len(a.GetHeaders()))
	for name, value := range a.GetHeaders() {
		r.Headers[strings.ToLower(name)] = value
	}
	r.Discover(s.services)
	return r
}
