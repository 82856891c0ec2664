// SPDX-License-Identifier: Apache-2.0

// Package extauthz lets Envoy and Istio ask whether requests may pass, by Envoy's external authorization service v3,
// and tells the flows' ends from Envoy's access log service v3: Envoy never calls back by itself when a request is
// done. The two are tied by the flow's token, which travels in the request's dynamic metadata inside Envoy and is
// never seen by clients or upstreams.
//
// The package translates; the engine decides. What it cannot answer is an error of the call, about which Envoy does
// what its failure_mode_allow says.
package extauthz

import (
	"log/slog"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"

	"github.com/sluice-project/sluice/internal/flow"
)

// Config says what a Door needs. Engine is required.
type Config struct {
	Engine *flow.Engine
	// Services finds the services that have an IP address. It may be called concurrently; nil: none is known.
	Services func(address string) []string
	// ControlPoint is that of requests about which nothing names one, which Istio's extension providers cannot do;
	// "": they are refused.
	ControlPoint string
	// CheckResponse makes the text of the metadata key aperture.check_response of a decided flow, from which access
	// logs of Aperture's Envoy configuration tell how it went; nil or "": there is no such key. It may read the flow
	// until it returns, and may be called concurrently. The call came at the time started. The token is empty when
	// there is none: the flow was denied, or nobody will end it.
	CheckResponse func(f *flow.Flow, r *flow.Request, started time.Time, token []byte) string
	// Logger; nil: no log.
	Logger *slog.Logger
}

// Door answers Envoy. It may be used concurrently.
type Door struct {
	config  Config
	log     *slog.Logger
	counts  counts
	unnamed unnamed
}

// New makes a door to the engine.
func New(config Config) *Door {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	return &Door{config: config, log: config.Logger}
}

// RegisterGRPC adds the two services to a server. They are envoy.service.auth.v3.Authorization and
// envoy.service.accesslog.v3.AccessLogService.
func (d *Door) RegisterGRPC(s *grpc.Server) {
	authv3.RegisterAuthorizationServer(s, checks{d})
	accesslogv3.RegisterAccessLogServiceServer(s, accessLog{d})
}
