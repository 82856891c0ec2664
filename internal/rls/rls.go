// SPDX-License-Identifier: Apache-2.0

// Package rls answers Envoy's rate limit service (envoy.service.ratelimit.v3): each descriptor of a request is
// one flow, which costs what hits_addend says and does not end.
//
// A flow has the control point of its domain and, as labels, the entries of its descriptor by their keys. Since
// keys may repeat and their order matters, it also has labels from which a policy can tell exactly which
// descriptor it was, see package descriptor.
//
// All descriptors of a request are decided and charged on their own, also when one of them is over its limit,
// because that is how Envoy's users know it. A flow that has to wait in a queue waits until the deadline of the
// call; when the call has none it does not wait. What was charged is given back only when the caller goes away
// before it is answered: after a time-out, Envoy lets the request pass unless told otherwise.
package rls

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/sluice-project/sluice/internal/flow"
)

// Door serves the protocol. It may be used by many goroutines.
type Door struct {
	rlsv3.UnimplementedRateLimitServiceServer

	config  Config
	metrics metrics
	forms   forms
	names   limitNames
	scratch sync.Pool
}

// New makes a door. The configuration must be valid.
func New(c Config) *Door {
	c.setDefaults()
	d := &Door{config: c, metrics: newMetrics()}
	d.scratch.New = func() any { return new(scratch) }
	return d
}

// RegisterGRPC adds the service to a server.
func (d *Door) RegisterGRPC(s *grpc.Server) { rlsv3.RegisterRateLimitServiceServer(s, d) }

// Collector has the metrics of the door.
func (d *Door) Collector() prometheus.Collector { return &d.metrics }

// scratch is what one call needs. It is used again by later calls.
type scratch struct {
	flows   []*flow.Flow
	values  []string
	text    []byte
	request flow.Request
}

// ShouldRateLimit implements RateLimitServiceServer.
func (d *Door) ShouldRateLimit(ctx context.Context, in *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	if problem := check(in); problem != nil {
		d.metrics.refused(problem.reason)
		d.config.Logger.DebugContext(ctx, "a rate limit request was refused", "reason", problem.text)
		return nil, status.Error(codes.InvalidArgument, problem.text)
	}
	s := d.scratch.Get().(*scratch)
	defer d.scratch.Put(s)
	out, err := d.decide(ctx, in, s)
	d.settle(ctx, s)
	if err != nil {
		d.metrics.failed(err)
		return nil, err
	}
	d.metrics.answered(out)
	return out, nil
}

// decide starts the flows of a request one after the other. They are in s.flows, also when it fails.
func (d *Door) decide(ctx context.Context, in *rlsv3.RateLimitRequest, s *scratch) (*rlsv3.RateLimitResponse, error) {
	services := d.services(ctx)
	r := &s.request
	*r = flow.Request{NoEnd: true, Explain: true}
	if _, bounded := ctx.Deadline(); bounded {
		r.QueueTimeout = -1
	}
	for _, descriptor := range in.GetDescriptors() {
		form, err := d.form(in.GetDomain(), descriptor, services, s)
		if err != nil {
			d.metrics.refused(reasonDomain)
			return nil, status.Error(codes.InvalidArgument, "domain: "+err.Error())
		}
		form.fill(s, in, descriptor)
		if descriptor.GetLimit() != nil {
			d.metrics.overrides.Inc()
		}
		r.Shape, r.Values = form.shape, s.values
		f := d.config.Engine.Start(ctx, r)
		s.flows = append(s.flows, f)
		if err := undecided(ctx, &f.Verdict); err != nil {
			return nil, err
		}
	}
	return d.answer(s.flows), nil
}

// undecided tells why a verdict is no answer about the limits. A flow whose labels make no sense is denied instead:
// labels come from clients, and Envoy lets requests pass after an error unless told otherwise.
func undecided(ctx context.Context, v *flow.Verdict) error {
	switch v.Reason {
	case flow.Cancelled:
		if err := ctx.Err(); err != nil {
			return status.FromContextError(err).Err()
		}
		return status.Error(codes.Canceled, v.Message())
	case flow.ShuttingDown:
		return status.Error(codes.Unavailable, v.Message())
	}
	return nil
}

// settle frees the flows of a call. When the caller has gone away, they do not run.
func (d *Door) settle(ctx context.Context, s *scratch) {
	gone := errors.Is(ctx.Err(), context.Canceled)
	for i, f := range s.flows {
		if gone && f.Admitted() {
			f.Abort()
		} else {
			f.Free()
		}
		s.flows[i] = nil
	}
	s.flows = s.flows[:0]
	clear(s.values)
	s.values = s.values[:0]
	s.request = flow.Request{}
}

// services are those of the caller, as far as discovery knows.
func (d *Door) services(ctx context.Context) []string {
	if d.config.Services == nil {
		return nil
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	tcp, ok := p.Addr.(*net.TCPAddr)
	if !ok {
		return nil
	}
	ip, ok := netip.AddrFromSlice(tcp.IP)
	if !ok {
		return nil
	}
	return d.config.Services(ip.Unmap().String())
}
