// SPDX-License-Identifier: Apache-2.0

// Package aperture speaks the wire protocol of FluxNinja Aperture, so that its SDKs, middlewares and plugins ask
// Sluice unchanged: decisions about features and HTTP requests, caches, the end of flows by FlowEnd and by the
// records that clients send over OTLP, and the small services that its tools call.
//
// It translates to the flow engine and back; the engine decides. What a flow holds travels in one sealed token: in
// the request ids that FlowEnd brings back and, as the telemetry label "sluice.flow", in the copy of the answer
// that the record of the flow carries. So any server of a cluster can end any flow, and nothing is kept here.
package aperture

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	entitiesv1 "github.com/sluice-project/sluice/api/gen/aperture/discovery/entities/v1"
	distcachev1 "github.com/sluice-project/sluice/api/gen/aperture/distcache/v1"
	checkv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/check/v1"
	checkhttpv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/checkhttp/v1"
	controlpointsv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/controlpoints/v1"
	previewv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/preview/v1"
	infov1 "github.com/sluice-project/sluice/api/gen/aperture/info/v1"
	peersv1 "github.com/sluice-project/sluice/api/gen/aperture/peers/v1"
	statusv1 "github.com/sluice-project/sluice/api/gen/aperture/status/v1"
	"github.com/sluice-project/sluice/internal/cache"
	"github.com/sluice-project/sluice/internal/discovery"
	"github.com/sluice-project/sluice/internal/flow"
)

// Config is what a Door works on.
type Config struct {
	// Engine decides. Required.
	Engine *flow.Engine
	// Services finds the services that have an IP address; it is called concurrently. nil: none is known.
	Services func(address string) []string
	// Cache is the one that the engine asks; nil: calls about caches answer that it is not ready.
	Cache *cache.Cache
	// Entities tells what has an address; nil: nothing has.
	Entities *discovery.Directory
	// Ready tells why the server should not get requests yet; nil: it should.
	Ready func() error
	// Logger gets what operators should know; nil: nothing is logged.
	Logger *slog.Logger
}

// Door serves the API of Aperture. Its methods may be called concurrently.
type Door struct {
	engine   *flow.Engine
	services func(string) []string
	cache    *cache.Cache
	entities *discovery.Directory
	ready    func() error
	log      *slog.Logger
	started  time.Time
	metrics  *metrics
	records  turnstile
	previews atomic.Int64  // that are running
	closed   chan struct{} // by Drain
	close    func()
	paths    map[string]http.Handler
}

// New makes a Door.
func New(c Config) (*Door, error) {
	if c.Engine == nil {
		return nil, errors.New("aperture: Config needs an Engine")
	}
	d := &Door{
		engine: c.Engine, services: c.Services, cache: c.Cache, entities: c.Entities, ready: c.Ready, log: c.Logger, started: time.Now(),
		metrics: newMetrics(), records: newTurnstile(mostDecoding), closed: make(chan struct{}),
	}
	d.close = sync.OnceFunc(func() { close(d.closed) })
	if d.ready == nil {
		d.ready = func() error { return nil }
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	d.paths = d.routes()
	return d, nil
}

// RegisterGRPC adds the services.
func (d *Door) RegisterGRPC(s *grpc.Server) {
	checkv1.RegisterFlowControlServiceServer(s, checkService{d: d})
	checkhttpv1.RegisterFlowControlServiceHTTPServer(s, httpService{d: d})
	previewv1.RegisterFlowPreviewServiceServer(s, previewService{d: d})
	controlpointsv1.RegisterFlowControlPointsServiceServer(s, pointsService{d: d})
	entitiesv1.RegisterEntitiesServiceServer(s, entitiesService{d: d})
	infov1.RegisterInfoServiceServer(s, infoService{d: d})
	statusv1.RegisterStatusServiceServer(s, statusService{d: d})
	peersv1.RegisterPeerDiscoveryServiceServer(s, peersService{d: d})
	distcachev1.RegisterDistCacheServiceServer(s, cacheStatsService{d: d})
	d.registerRecords(s)
}

// Paths are the handlers of the HTTP routes, by pattern of http.ServeMux. They check no credentials.
func (d *Door) Paths() map[string]http.Handler { return d.paths }

// Collector has the metrics.
func (d *Door) Collector() prometheus.Collector { return d.metrics }

// Drain ends the calls that wait for flows to pass, because the server stops. It may be called more than once.
func (d *Door) Drain() { d.close() }

// peerServices are the services of whoever makes a call.
func (d *Door) peerServices(ctx context.Context) []string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil || d.services == nil {
		return nil
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		host = p.Addr.String()
	}
	return d.services(host)
}

// checkPoint tells what is wrong with the name of a control point. The error is a gRPC status.
func checkPoint(name string) error {
	switch {
	case name == "":
		return status.Error(codes.InvalidArgument, "missing control-point")
	case len(name) > flow.MaxControlPointLen:
		return status.Errorf(codes.InvalidArgument, "control_point has %d bytes, want at most %d", len(name), flow.MaxControlPointLen)
	}
	return nil
}

// decide decides a flow. The caller frees it. The error is a gRPC status: the caller of ours has gone.
func (d *Door) decide(ctx context.Context, r *flow.Request) (*flow.Flow, error) {
	f := d.engine.Start(ctx, r)
	if f.Admitted() && ctx.Err() != nil {
		f.Abort() // nobody is there to be told, so the work will not run under this decision
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return f, nil
}
