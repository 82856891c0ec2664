// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Role says what a caller may do. Zero is nobody.
type Role uint8

// The roles.
const (
	RoleNone     Role = iota
	RoleViewer        // reads policies, overview, metrics and debug pages
	RoleClient        // starts and ends flows
	RoleOperator      // changes policies, and everything a viewer and a client may
	RoleAdmin         // everything, profiles and configuration included
)

var roleNames = map[string]Role{"viewer": RoleViewer, "client": RoleClient, "operator": RoleOperator, "admin": RoleAdmin}

// ParseRole finds a role by its name.
func ParseRole(name string) (Role, error) {
	if r, ok := roleNames[name]; ok {
		return r, nil
	}
	return RoleNone, fmt.Errorf("role: got %q, want one of admin, operator, client, viewer", name)
}

// String is the name of the role.
func (r Role) String() string {
	for name, role := range roleNames {
		if role == r {
			return name
		}
	}
	return "none"
}

// permission is what a call needs.
type permission uint8

const (
	permitAdmin permission = iota // the default for whatever is not listed
	permitOpen                    // anybody, without a token
	permitAny                     // anybody with a token
	permitRead
	permitFlow
	permitChange
)

func (p permission) roles() []Role {
	switch p {
	case permitOpen, permitAny:
		return []Role{RoleViewer, RoleClient, RoleOperator, RoleAdmin}
	case permitRead:
		return []Role{RoleViewer, RoleOperator, RoleAdmin}
	case permitFlow:
		return []Role{RoleClient, RoleOperator, RoleAdmin}
	case permitChange:
		return []Role{RoleOperator, RoleAdmin}
	}
	return []Role{RoleAdmin}
}

func (p permission) allows(r Role) bool {
	for _, role := range p.roles() {
		if role == r {
			return true
		}
	}
	return false
}

// permissions of the methods. A test fails for a method that is missing here.
var permissions = map[string]permission{
	"/sluice.flow.v1.FlowService/Start":     permitFlow,
	"/sluice.flow.v1.FlowService/CheckHTTP": permitFlow,
	"/sluice.flow.v1.FlowService/End":       permitFlow,
	"/sluice.flow.v1.FlowService/Stream":    permitFlow,

	"/sluice.cache.v1.CacheService/Lookup": permitFlow,
	"/sluice.cache.v1.CacheService/Upsert": permitFlow,
	"/sluice.cache.v1.CacheService/Delete": permitFlow,

	"/envoy.service.auth.v3.Authorization/Check":                    permitFlow,
	"/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs": permitFlow,
	"/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit":  permitFlow,

	"/aperture.flowcontrol.check.v1.FlowControlService/Check":                          permitFlow,
	"/aperture.flowcontrol.check.v1.FlowControlService/CacheLookup":                    permitFlow,
	"/aperture.flowcontrol.check.v1.FlowControlService/CacheUpsert":                    permitFlow,
	"/aperture.flowcontrol.check.v1.FlowControlService/CacheDelete":                    permitFlow,
	"/aperture.flowcontrol.check.v1.FlowControlService/FlowEnd":                        permitFlow,
	"/aperture.flowcontrol.checkhttp.v1.FlowControlServiceHTTP/CheckHTTP":              permitFlow,
	"/aperture.flowcontrol.preview.v1.FlowPreviewService/PreviewFlowLabels":            permitRead,
	"/aperture.flowcontrol.preview.v1.FlowPreviewService/PreviewHTTPRequests":          permitChange, // with bodies
	"/aperture.flowcontrol.controlpoints.v1.FlowControlPointsService/GetControlPoints": permitRead,
	"/aperture.discovery.entities.v1.EntitiesService/GetEntities":                      permitRead,
	"/aperture.discovery.entities.v1.EntitiesService/GetEntityByIPAddress":             permitRead,
	"/aperture.discovery.entities.v1.EntitiesService/GetEntityByName":                  permitRead,
	"/aperture.distcache.v1.DistCacheService/GetStats":                                 permitRead,
	"/aperture.peers.v1.PeerDiscoveryService/GetPeers":                                 permitRead,
	"/aperture.peers.v1.PeerDiscoveryService/GetPeer":                                  permitRead,
	"/aperture.info.v1.InfoService/Version":                                            permitAny,
	"/aperture.info.v1.InfoService/Process":                                            permitAny,
	"/aperture.info.v1.InfoService/Host":                                               permitAny,
	"/aperture.status.v1.StatusService/GetGroupStatus":                                 permitOpen, // health, as probes ask for it

	// Records of finished flows.
	"/opentelemetry.proto.collector.trace.v1.TraceService/Export": permitFlow,
	"/opentelemetry.proto.collector.logs.v1.LogsService/Export":   permitFlow,

	"/sluice.policy.v1.PolicyService/ApplyPolicy":        permitChange,
	"/sluice.policy.v1.PolicyService/DeletePolicy":       permitChange,
	"/sluice.policy.v1.PolicyService/RollbackPolicy":     permitChange,
	"/sluice.policy.v1.PolicyService/ValidatePolicy":     permitRead,
	"/sluice.policy.v1.PolicyService/GetPolicy":          permitRead,
	"/sluice.policy.v1.PolicyService/ListPolicies":       permitRead,
	"/sluice.policy.v1.PolicyService/ListPolicyVersions": permitRead,
	"/sluice.policy.v1.PolicyService/ListBlueprints":     permitRead,
	"/sluice.policy.v1.PolicyService/GetBlueprint":       permitRead,
	"/sluice.policy.v1.PolicyService/RenderBlueprint":    permitRead,

	"/sluice.observe.v1.ObserveService/GetOverview":   permitRead,
	"/sluice.observe.v1.ObserveService/WatchOverview": permitRead,
	"/sluice.observe.v1.ObserveService/GetServerInfo": permitAny,

	"/sluice.control.v1.ControlService/GetCircuit":          permitRead,
	"/sluice.control.v1.ControlService/GetSignals":          permitRead,
	"/sluice.control.v1.ControlService/WatchSignals":        permitRead,
	"/sluice.control.v1.ControlService/GetDynamicConfig":    permitRead,
	"/sluice.control.v1.ControlService/SetDynamicConfig":    permitChange,
	"/sluice.control.v1.ControlService/DeleteDynamicConfig": permitChange,
	"/sluice.control.v1.ControlService/ListAlerts":          permitRead,

	// Previews show labels of users, but no secrets, and to viewers no bodies.
	"/sluice.discovery.v1.DiscoveryService/ListControlPoints": permitRead,
	"/sluice.discovery.v1.DiscoveryService/ListServices":      permitRead,
	"/sluice.discovery.v1.DiscoveryService/PreviewFlows":      permitRead,

	// Metrics of others can move the limits of policies that query them.
	"/opentelemetry.proto.collector.metrics.v1.MetricsService/Export": permitChange,

	"/grpc.health.v1.Health/Check": permitOpen,
	"/grpc.health.v1.Health/List":  permitOpen,
	"/grpc.health.v1.Health/Watch": permitOpen,

	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      permitAny,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": permitAny,
}

// pathPermission is what an HTTP path needs.
func pathPermission(path string) permission {
	if p, ok := permissions[path]; ok {
		return p
	}
	switch {
	case path == "/", path == "/healthz", path == "/readyz", path == "/openapi.json", path == "/-/healthy", path == "/-/ready":
		return permitOpen
	case path == "/api/v1/write", path == "/v1/metrics", path == "/api/v1/otlp/v1/metrics":
		return permitChange
	case isForwardAuth(path), path == "/v1/traces", path == "/v1/logs", path == "/v1/flowcontrol/checkhttp":
		return permitFlow
	case path == "/v1/status", strings.HasPrefix(path, "/v1/status/"):
		return permitOpen
	case strings.HasPrefix(path, "/v1/info/"):
		return permitAny
	case strings.HasPrefix(path, "/v1/flowcontrol/preview/http_requests/"): // with bodies
		return permitChange
	case strings.HasPrefix(path, "/v1/"):
		return permitRead
	case path == "/metrics", strings.HasPrefix(path, "/api/v1/"):
		return permitRead
	case strings.HasPrefix(path, "/debug/pprof"), path == "/debug/config":
		return permitAdmin
	case path == "/debug", strings.HasPrefix(path, "/debug/"):
		return permitRead
	}
	return permitAny // nothing is there; do not tell strangers
}

// Credential is a token and its holder.
type Credential struct {
	Name  string // of the holder
	Role  Role
	Token string
}

// Identity is who makes a call.
type Identity struct {
	Name string // "" when nobody was asked
	Role Role
}

type identityKey struct{}

// identityOf is who makes the call; the zero Identity when nobody was asked.
func identityOf(ctx context.Context) Identity {
	id, _ := ctx.Value(identityKey{}).(Identity)
	return id
}

// Auth decides who may call what. The tokens never change; it may be used concurrently.
type Auth struct {
	open    bool
	holders []holder
	refused *refusals
}

type holder struct {
	Identity
	sum [sha256.Size]byte
}

// NewAuth accepts the tokens of these credentials.
func NewAuth(credentials []Credential) (*Auth, error) {
	if len(credentials) == 0 {
		return nil, errors.New("auth: got no token, want at least one; to ask nobody for a token use OpenAuth")
	}
	a := &Auth{refused: newRefusals()}
	for _, c := range credentials {
		if c.Token == "" || c.Role == RoleNone {
			return nil, fmt.Errorf("auth: token %q: got no token or no role, want both", c.Name)
		}
		sum := sha256.Sum256([]byte(c.Token))
		for _, h := range a.holders {
			if h.sum == sum {
				return nil, fmt.Errorf("auth: tokens %q and %q are the same, want different ones so that logs tell who it was", h.Name, c.Name)
			}
		}
		a.holders = append(a.holders, holder{Identity{c.Name, c.Role}, sum})
	}
	return a, nil
}

// OpenAuth asks nobody for a token.
func OpenAuth() *Auth { return &Auth{open: true, refused: newRefusals()} }

// Collector returns the metric of refused calls, sluice_auth_refused_total.
func (a *Auth) Collector() prometheus.Collector { return a.refused.counts }

// Open tells whether nobody is asked for a token.
func (a *Auth) Open() bool { return a.open }

// ForwardAuthPath begins the paths at which proxies ask about requests of their users.
const ForwardAuthPath = "/forward-auth"

func isForwardAuth(path string) bool {
	return path == ForwardAuthPath || strings.HasPrefix(path, ForwardAuthPath+"/")
}

// Headers that carry a token instead of Authorization. Both are taken with or without "Bearer ".
const (
	// apiKeyHeader is what clients of Aperture send.
	apiKeyHeader = "X-Api-Key"
	// tokenHeader is for proxies, whose Authorization header is that of their user.
	tokenHeader = "Sluice-Token"
)

// credentialOf is the token that an HTTP request brings, in the form of an authorization header.
func credentialOf(r *http.Request) string {
	if isForwardAuth(r.URL.Path) {
		return asBearer(r.Header.Get(tokenHeader))
	}
	if h := r.Header.Get("Authorization"); h != "" {
		return h
	}
	return asBearer(r.Header.Get(apiKeyHeader))
}

func asBearer(key string) string {
	if scheme, _, _ := strings.Cut(key, " "); key == "" || strings.EqualFold(scheme, "bearer") {
		return key
	}
	return "Bearer " + key
}

const (
	howToAuthenticate = "send the header \"authorization: Bearer TOKEN\" (CLI: --token or SLUICE_TOKEN)"
	// howProxiesAuthenticate is for the paths where nothing else counts.
	howProxiesAuthenticate = "let the proxy send the header \"" + tokenHeader + ": TOKEN\"; that of its user, authorization, is not looked at"
)

// authorize checks the authorization header of a call. The error is a gRPC status.
func (a *Auth) authorize(header string, p permission) (Identity, error) {
	return a.authorizeAs(header, p, howToAuthenticate)
}

// authorizeAs is authorize with what to tell those who bring no token.
func (a *Auth) authorizeAs(header string, p permission, how string) (Identity, error) {
	if a.open || p == permitOpen {
		return Identity{}, nil
	}
	if header == "" {
		return Identity{}, status.Error(codes.Unauthenticated, "this server asks for a token: "+how)
	}
	scheme, token, ok := strings.Cut(header, " ")
	if token = strings.TrimSpace(token); !ok || !strings.EqualFold(scheme, "bearer") || token == "" {
		return Identity{}, status.Error(codes.Unauthenticated, "the header has no bearer token: "+how)
	}
	id, ok := a.find(token)
	if !ok {
		return Identity{}, status.Error(codes.Unauthenticated, "the token is not known to this server: check it for typing errors, or ask whoever runs the server for one")
	}
	if !p.allows(id.Role) {
		var want []string
		for _, r := range p.roles() {
			want = append(want, r.String())
		}
		return Identity{}, status.Errorf(codes.PermissionDenied, "token %q has the role %s; this call needs one of: %s", id.Name, id.Role, strings.Join(want, ", "))
	}
	return id, nil
}

// find compares in constant time: how long it takes tells nothing about any token.
func (a *Auth) find(token string) (id Identity, ok bool) {
	sum := sha256.Sum256([]byte(token))
	for i := range a.holders {
		if subtle.ConstantTimeCompare(sum[:], a.holders[i].sum[:]) == 1 {
			id, ok = a.holders[i].Identity, true
		}
	}
	return id, ok
}

// authorizeGRPC checks a gRPC call.
func (a *Auth) authorizeGRPC(ctx context.Context, method string) (context.Context, error) {
	header := ""
	if values := metadata.ValueFromIncomingContext(ctx, "authorization"); len(values) > 0 {
		header = values[0]
	} else if values := metadata.ValueFromIncomingContext(ctx, apiKeyHeader); len(values) > 0 {
		header = asBearer(values[0])
	}
	id, err := a.authorize(header, permissions[method])
	if err != nil {
		from := ""
		if p, ok := peer.FromContext(ctx); ok {
			from = p.Addr.String()
		}
		a.refused.note(method, from, header, err)
		return nil, err
	}
	return context.WithValue(ctx, identityKey{}, id), nil
}

func (a *Auth) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, err := a.authorizeGRPC(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (a *Auth) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, err := a.authorizeGRPC(s.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return next(srv, &streamWithContext{s, ctx})
}

// streamWithContext is a stream that knows who opened it.
type streamWithContext struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s *streamWithContext) Context() context.Context { return s.ctx }

// handler checks HTTP requests before next sees them.
func (a *Auth) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		how := howToAuthenticate
		if isForwardAuth(r.URL.Path) {
			how = howProxiesAuthenticate
		}
		header := credentialOf(r)
		id, err := a.authorizeAs(header, pathPermission(r.URL.Path), how)
		if err != nil {
			a.refused.note(r.URL.Path, r.RemoteAddr, header, err)
			refuse(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, id)))
	})
}
