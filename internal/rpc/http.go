// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strings"

	"connectrpc.com/connect"

	"github.com/sluice-project/sluice/api"
	"github.com/sluice-project/sluice/api/gen/sluice/cache/v1/cachev1connect"
	"github.com/sluice-project/sluice/api/gen/sluice/control/v1/controlv1connect"
	"github.com/sluice-project/sluice/api/gen/sluice/discovery/v1/discoveryv1connect"
	"github.com/sluice-project/sluice/api/gen/sluice/flow/v1/flowv1connect"
	"github.com/sluice-project/sluice/api/gen/sluice/observe/v1/observev1connect"
	"github.com/sluice-project/sluice/api/gen/sluice/policy/v1/policyv1connect"
)

// handler is everything that is served by HTTP. From the outside in: count, recover from panics, keep
// other web sites out, ask for a token, read the body: a stranger's takes no memory.
func (s *Server) handler() (http.Handler, error) {
	mux := http.NewServeMux()
	options := []connect.HandlerOption{connect.WithReadMaxBytes(maxBody), JSONOptions()}
	mux.Handle(flowv1connect.NewFlowServiceHandler(FlowConnect{s.config.Flow}, options...))
	mux.Handle(observev1connect.NewObserveServiceHandler(ObserveConnect{s.config.Observe}, options...))
	mux.Handle(policyv1connect.NewPolicyServiceHandler(PolicyConnect{s.config.Policy}, options...))
	if s.config.Cache != nil {
		mux.Handle(cachev1connect.NewCacheServiceHandler(CacheConnect{s.config.Cache}, options...))
	}
	if s.config.Control != nil {
		mux.Handle(controlv1connect.NewControlServiceHandler(ControlConnect{s.config.Control}, options...))
	}
	if s.config.Discovery != nil {
		mux.Handle(discoveryv1connect.NewDiscoveryServiceHandler(DiscoveryConnect{s.config.Discovery}, options...))
	}
	if s.config.Prometheus != nil {
		mux.Handle("/api/v1/", s.config.Prometheus)
		mux.Handle("/v1/metrics", s.config.Prometheus)
	}
	for _, d := range s.config.Doors {
		for pattern, h := range d.Paths {
			mux.Handle(pattern, h)
		}
	}
	mux.HandleFunc("GET /healthz", healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	if s.config.Prometheus != nil { // its tools ask there
		mux.HandleFunc("GET /-/healthy", healthz)
		mux.HandleFunc("GET /-/ready", s.readyz)
	}
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(api.OpenAPI) // the client has gone
	})
	if s.config.Metrics != nil {
		mux.Handle("GET /metrics", s.config.Metrics)
	}
	if s.config.Debug != nil {
		mux.Handle("/debug/", s.config.Debug)
	}
	mux.HandleFunc("GET /{$}", s.startPage)

	guarded, err := guardOrigins(s.config.AllowedOrigins, s.config.Auth.handler(readBodies(explainCalls(s.endable(mux)))))
	if err != nil {
		return nil, err
	}
	return s.counted(s.splitGRPC(recoverer{s.log}.handler(securityHeaders(guardHosts(s.config.AllowedHosts, guarded))))), nil
}

// counted lets stopHTTP wait for handlers.
func (s *Server) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		defer s.requests.Add(-1)
		next.ServeHTTP(w, r)
	})
}

// splitGRPC serves calls of gRPC from clients that speak both versions of HTTP, such as those built on OkHttp. It costs
// more than on connections of their own, which clients get that offer HTTP/2 only.
func (s *Server) splitGRPC(next http.Handler) http.Handler {
	if s.mixed == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind := r.Header.Get("Content-Type")
		if r.ProtoMajor != 2 || !strings.HasPrefix(kind, "application/grpc") || strings.HasPrefix(kind, "application/grpc-web") {
			next.ServeHTTP(w, r)
			return
		}
		if !s.streams[r.URL.Path] {
			s.mixed.ServeHTTP(w, r)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.watching, cancel)()
		s.mixed.ServeHTTP(w, r.WithContext(ctx))
	})
}

// endable ends watches when the server stops; other requests end by themselves.
func (s *Server) endable(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != observev1connect.ObserveServiceWatchOverviewProcedure &&
			r.URL.Path != controlv1connect.ControlServiceWatchSignalsProcedure &&
			r.URL.Path != discoveryv1connect.DiscoveryServicePreviewFlowsProcedure {
			next.ServeHTTP(w, r)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.watching, cancel)()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func securityHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func plain(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text)) // the client has gone
}

// healthz tells that the process serves.
func healthz(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok\n") }

// Ready tells why the server should not get requests; nil: it should.
func (s *Server) Ready() error {
	if s.stopping.Load() {
		return errors.New("the server is stopping")
	}
	if s.config.Ready != nil {
		return s.config.Ready()
	}
	return nil
}

// readyz tells load balancers whether to send requests here.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := s.Ready(); err != nil {
		plain(w, http.StatusServiceUnavailable, fmt.Sprintf("not ready: %v\n", err))
		return
	}
	plain(w, http.StatusOK, "ready\n")
}

//go:embed start.html.tmpl
var startHTML string

var startTemplate = template.Must(template.New("start").Parse(startHTML))

// startPage says what to type first.
func (s *Server) startPage(w http.ResponseWriter, r *http.Request) {
	scheme := "http"
	if s.config.TLS != nil {
		scheme = "https"
	}
	data := struct {
		Version, URL string
		Open, Debug  bool
	}{s.config.Version, scheme + "://" + r.Host, s.config.Auth.Open(), s.config.Debug != nil}
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		plain(w, http.StatusOK, fmt.Sprintf("Sluice %s\nsluice --help tells what to do; %s/openapi.json describes the API.\n", data.Version, data.URL))
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	_ = startTemplate.Execute(w, data) // the client has gone
}
