// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	cachev1 "github.com/sluice-project/sluice/api/gen/sluice/cache/v1"
	controlv1 "github.com/sluice-project/sluice/api/gen/sluice/control/v1"
	discoveryv1 "github.com/sluice-project/sluice/api/gen/sluice/discovery/v1"
	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"
	policyv1 "github.com/sluice-project/sluice/api/gen/sluice/policy/v1"
)

// ServerConfig says what a Server serves. Flow, Observe, Policy and Auth are required.
type ServerConfig struct {
	Flow    *FlowService
	Observe *ObserveService
	Policy  *PolicyService
	Auth    *Auth
	// Cache serves the caches; nil: not there.
	Cache *CacheService
	// Control serves circuits and alerts; nil: not there.
	Control *ControlService
	// Discovery shows control points, services and live flows; nil: not there.
	Discovery *DiscoveryService
	// Metrics and Debug serve /metrics and /debug/; nil: not there.
	Metrics, Debug http.Handler
	// Prometheus serves the HTTP API of Prometheus and takes metrics of others: /api/v1/ and /v1/metrics; nil:
	// not there.
	Prometheus http.Handler
	// Doors are other ways in.
	Doors []Door
	// Ready tells why the server should not get requests yet; nil: it should.
	Ready func() error
	// TLS encrypts the port; nil: clear text.
	TLS *tls.Config
	// AllowedOrigins may call from a browser.
	AllowedOrigins []string
	// AllowedHosts are the only names besides localhost and IP addresses that HTTP requests may be
	// addressed to; nil: any name.
	AllowedHosts []string
	// MaxConnections bounds the connections; 0: DefaultMaxConnections.
	MaxConnections int
	// Drain is called once when the server begins to stop. It ends what waits.
	Drain func()
	// ShutdownTimeout is how long requests under way may take after that; 0: they are cut off.
	ShutdownTimeout time.Duration
	// Logger; nil: no log.
	Logger *slog.Logger
	// Version is shown on the start page.
	Version string
}

// Door is a way in that is not Sluice's own API, on the same ports. What it serves needs a permission in this
// package.
type Door struct {
	// RegisterGRPC adds services; nil: none.
	RegisterGRPC func(*grpc.Server)
	// Paths are served by HTTP, by pattern of http.ServeMux.
	Paths map[string]http.Handler
}

// DefaultMaxConnections is the bound on connections unless told.
const DefaultMaxConnections = 20_000

// Server serves gRPC, gRPC-Web, Connect and JSON on one port.
type Server struct {
	config   ServerConfig
	log      *slog.Logger
	grpc     *grpc.Server
	mixed    *grpc.Server    // for calls on connections that net/http serves; nil without TLS, as there are none
	streams  map[string]bool // methods that do not end by themselves
	http     *http.Server
	health   *health.Server
	stopping atomic.Bool
	calls    atomic.Int64 // under way that end by themselves: all but streams
	requests atomic.Int64 // under way by HTTP
	watching context.Context
	endWatch context.CancelFunc // ends HTTP streams
}

// NewServer prepares a server; Run starts it.
func NewServer(config ServerConfig) (*Server, error) {
	if config.Flow == nil || config.Observe == nil || config.Policy == nil || config.Auth == nil {
		return nil, errors.New("rpc: Flow, Observe, Policy and Auth are required")
	}
	if config.MaxConnections == 0 {
		config.MaxConnections = DefaultMaxConnections
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	config.Auth.refused.log.Store(config.Logger)
	s := &Server{config: config, log: config.Logger, health: health.NewServer()}
	s.grpc = s.newGRPC()
	if err := checkPermissions(s.grpc); err != nil {
		return nil, err
	}
	if config.TLS != nil {
		s.mixed, s.streams = s.newGRPC(), streamsOf(s.grpc)
	}
	handler, err := s.handler()
	if err != nil {
		return nil, fmt.Errorf("rpc: http.allowed_origins: %w", err)
	}
	s.watching, s.endWatch = context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		Protocols:         protocols(config.TLS != nil),
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

func (s *Server) newGRPC() *grpc.Server {
	r := recoverer{s.log}
	unary := []grpc.UnaryServerInterceptor{r.unary, s.countUnary}
	stream := []grpc.StreamServerInterceptor{r.stream}
	if !s.config.Auth.Open() {
		unary = append(unary, s.config.Auth.unary)
		stream = append(stream, s.config.Auth.stream)
	}
	g := grpc.NewServer(append(HotServerOptions(),
		grpc.ChainUnaryInterceptor(unary...),
		grpc.ChainStreamInterceptor(stream...),
		grpc.MaxRecvMsgSize(maxBody),
		grpc.MaxHeaderListSize(64<<10),
		grpc.MaxConcurrentStreams(100_000),
		grpc.WaitForHandlers(true), // what they use is closed after Run
		grpc.ConnectionTimeout(firstBytesTimeout),
		// A client that vanished without a word must give up its place in the queue.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	)...)
	flowv1.RegisterFlowServiceServer(g, s.config.Flow)
	observev1.RegisterObserveServiceServer(g, s.config.Observe)
	policyv1.RegisterPolicyServiceServer(g, s.config.Policy)
	if s.config.Cache != nil {
		cachev1.RegisterCacheServiceServer(g, s.config.Cache)
	}
	if s.config.Control != nil {
		controlv1.RegisterControlServiceServer(g, s.config.Control)
	}
	if s.config.Discovery != nil {
		discoveryv1.RegisterDiscoveryServiceServer(g, s.config.Discovery)
	}
	for _, d := range s.config.Doors {
		if d.RegisterGRPC != nil {
			d.RegisterGRPC(g)
		}
	}
	healthv1.RegisterHealthServer(g, s.health)
	reflection.Register(g)
	return g
}

// protocols are those that net/http speaks. Encryption is the entrance's business, and without it all of HTTP/2 goes to
// grpc-go.
func protocols(encrypted bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(encrypted)
	return p
}

// streamsOf lists the methods that stream.
func streamsOf(g *grpc.Server) map[string]bool {
	out := map[string]bool{}
	for service, info := range g.GetServiceInfo() {
		for _, m := range info.Methods {
			if m.IsClientStream || m.IsServerStream {
				out["/"+service+"/"+m.Name] = true
			}
		}
	}
	return out
}

// checkPermissions refuses methods of which nobody has decided who may call them.
func checkPermissions(g *grpc.Server) error {
	for service, info := range g.GetServiceInfo() {
		for _, m := range info.Methods {
			if _, ok := permissions["/"+service+"/"+m.Name]; !ok {
				return fmt.Errorf("rpc: /%s/%s has no permission", service, m.Name)
			}
		}
	}
	return nil
}

// countUnary lets Run know when the last call has been answered.
func (s *Server) countUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	s.calls.Add(1)
	defer s.calls.Add(-1)
	return next(ctx, req)
}

// Run serves the listeners, all of them alike, until ctx ends, then stops: readiness is taken back, what waits is
// ended, requests under way are finished within the shutdown time-out. It closes the listeners. Call it once.
func (s *Server) Run(ctx context.Context, listeners ...net.Listener) error {
	group, gctx := errgroup.WithContext(ctx)
	slots := make(chan struct{}, s.config.MaxConnections)
	for _, l := range listeners {
		e := newEntrance(l, s.config.TLS, slots, s.log)
		group.Go(func() error { return e.run(gctx) })
		group.Go(func() error {
			if err := s.grpc.Serve(e.grpc); !errors.Is(err, grpc.ErrServerStopped) { // stopped before it began
				return err
			}
			return nil
		})
		group.Go(func() error {
			if err := s.http.Serve(e.http); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	group.Go(func() error {
		<-gctx.Done()
		s.stop()
		return nil
	})
	return group.Wait()
}

// streamGrace is how long streams, which do not end by themselves, get to deliver their last answers.
const streamGrace = 250 * time.Millisecond

func (s *Server) stop() {
	s.stopping.Store(true)
	s.health.Shutdown()
	if s.config.Drain != nil {
		s.config.Drain()
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.config.ShutdownTimeout)
	defer cancel()
	var servers sync.WaitGroup
	servers.Go(func() { s.stopGRPC(ctx) })
	servers.Go(func() { s.stopHTTP(ctx) })
	servers.Wait()
}

func (s *Server) stopGRPC(ctx context.Context) {
	graceful := make(chan struct{})
	go func() {
		defer close(graceful)
		s.grpc.GracefulStop()
	}()
	grace := time.NewTimer(streamGrace)
	defer grace.Stop()
	select {
	case <-graceful:
		return
	case <-ctx.Done():
	case <-grace.C: // streams may be cut off now, calls may not
		awaitZero(ctx, &s.calls)
	}
	s.grpc.Stop()
	<-graceful
}

func (s *Server) stopHTTP(ctx context.Context) {
	end := time.AfterFunc(streamGrace, s.endWatch)
	defer end.Stop()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close() // its error is that of a listener, which is closed
	}
	s.endWatch()
	awaitZero(context.Background(), &s.requests) // Close does not wait for handlers
	if s.mixed != nil {
		s.mixed.Stop()
	}
}

// awaitZero waits until nothing is counted or ctx ends.
func awaitZero(ctx context.Context, n *atomic.Int64) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for n.Load() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
