// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-project/sluice/internal/control"
)

var testCredentials = []Credential{
	{"root", RoleAdmin, "admin-token-admin-token"},
	{"ci", RoleOperator, "operator-token-operator"},
	{"shop", RoleClient, "client-token-client-tok"},
	{"wall", RoleViewer, "viewer-token-viewer-tok"},
}

func TestAuthorize(t *testing.T) {
	a, err := NewAuth(testCredentials)
	if err != nil {
		t.Fatal(err)
	}
	const (
		start   = "/sluice.flow.v1.FlowService/Start"
		apply   = "/sluice.policy.v1.PolicyService/ApplyPolicy"
		list    = "/sluice.policy.v1.PolicyService/ListPolicies"
		watch   = "/sluice.observe.v1.ObserveService/WatchOverview"
		profile = "/debug/pprof/heap"
	)
	const ok, no, who = codes.OK, codes.PermissionDenied, codes.Unauthenticated
	for _, tt := range []struct {
		header                             string
		start, apply, list, watch, profile codes.Code
	}{
		{"Bearer admin-token-admin-token", ok, ok, ok, ok, ok},
		{"bearer operator-token-operator", ok, ok, ok, ok, no},
		{"Bearer  client-token-client-tok", ok, no, no, no, no},
		{"Bearer viewer-token-viewer-tok", no, no, ok, ok, no},
		{"", who, who, who, who, who},
		{"Bearer", who, who, who, who, who},
		{"Bearer ", who, who, who, who, who},
		{"Basic admin-token-admin-token", who, who, who, who, who},
		{"Bearer admin-token-admin-toke", who, who, who, who, who},
		{"Bearer ADMIN-TOKEN-ADMIN-TOKEN", who, who, who, who, who},
	} {
		for path, want := range map[string]codes.Code{start: tt.start, apply: tt.apply, list: tt.list, watch: tt.watch, profile: tt.profile} {
			_, err := a.authorize(tt.header, pathPermission(path))
			if got := status.Code(err); got != want {
				t.Errorf("%q on %s: got %v, want %v", tt.header, path, got, want)
			}
			if err != nil && strings.Contains(err.Error(), "token-") {
				t.Errorf("the message repeats a token: %v", err)
			}
		}
	}
}

func TestOpenPaths(t *testing.T) {
	a, err := NewAuth(testCredentials)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/", "/healthz", "/readyz", "/openapi.json", "/-/healthy", "/-/ready", "/grpc.health.v1.Health/Check"} {
		if _, err := a.authorize("", pathPermission(path)); err != nil {
			t.Errorf("%s: got %v, want it open", path, err)
		}
	}
	for _, path := range []string{"/metrics", "/debug", "/debug/", "/debug/queues", "/debug/config", "/nothing", "//healthz", "/healthz/"} {
		if _, err := a.authorize("", pathPermission(path)); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: got %v, want unauthenticated", path, err)
		}
	}
}

func TestNewAuthRefuses(t *testing.T) {
	for name, credentials := range map[string][]Credential{
		"none": nil, "no token": {{"a", RoleAdmin, ""}}, "no role": {{"a", RoleNone, "x"}},
		"twice": {{"a", RoleAdmin, "same"}, {"b", RoleViewer, "same"}},
	} {
		if _, err := NewAuth(credentials); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestRoleNames(t *testing.T) {
	for _, r := range []Role{RoleAdmin, RoleOperator, RoleClient, RoleViewer} {
		if got, err := ParseRole(r.String()); err != nil || got != r {
			t.Errorf("%v: got %v, %v", r, got, err)
		}
	}
	if _, err := ParseRole("none"); err == nil {
		t.Error("the role none can be given")
	}
}

// TestEveryMethodHasAPermission fails when a method is added and nobody decided who may call it. NewServer says so
// of the doors.
func TestEveryMethodHasAPermission(t *testing.T) {
	s := testServer(t, ServerConfig{
		Cache: NewCacheService(nil), Control: NewControlService(control.New(control.Config{}), nil),
		Discovery: NewDiscoveryService(nil, nil),
	})
	found := map[string]bool{}
	for service, info := range s.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			found["/"+service+"/"+m.Name] = true
		}
	}
	for method := range permissions {
		if strings.HasPrefix(method, "/sluice.") && !found[method] {
			t.Errorf("permissions has %s, which no service has", method)
		}
	}
}

func TestDoorWithoutPermissionIsRefused(t *testing.T) {
	door := Door{RegisterGRPC: func(g *grpc.Server) {
		g.RegisterService(&grpc.ServiceDesc{ServiceName: "back.Door", Methods: []grpc.MethodDesc{{MethodName: "Open"}}}, nil)
	}}
	_, err := NewServer(ServerConfig{
		Flow: NewFlowService(nil, nil), Observe: NewObserveService(nil, ServerInfo{}), Policy: NewPolicyService(nil, nil),
		Auth: OpenAuth(), Doors: []Door{door},
	})
	if err == nil || !strings.Contains(err.Error(), "/back.Door/Open has no permission") {
		t.Errorf("got %v, want an error that names the method", err)
	}
}

// TestWhereTokensAre says which header counts where: proxies pass on the Authorization of their user.
func TestWhereTokensAre(t *testing.T) {
	auth, err := NewAuth([]Credential{{Name: "edge", Role: RoleClient, Token: "0123456789abcdef"}})
	if err != nil {
		t.Fatal(err)
	}
	h := auth.handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	for _, tt := range []struct {
		path, header, value string
		want                int
	}{
		{"/v1/traces", "Authorization", "Bearer 0123456789abcdef", 204},
		{"/v1/traces", "X-Api-Key", "0123456789abcdef", 204},
		{"/v1/traces", "X-Api-Key", "wrong", 401},
		{"/v1/traces", "Sluice-Token", "0123456789abcdef", 401},
		{"/forward-auth/edge", "Sluice-Token", "0123456789abcdef", 204},
		{"/forward-auth", "Sluice-Token", "Bearer 0123456789abcdef", 204},
		{"/forward-auth/edge", "Authorization", "Bearer 0123456789abcdef", 401},
		{"/forward-auth/edge", "X-Api-Key", "0123456789abcdef", 401},
		{"/forward-authority", "Sluice-Token", "0123456789abcdef", 401},
	} {
		r := httptest.NewRequest(http.MethodPost, tt.path, nil)
		r.Header.Set(tt.header, tt.value)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tt.want {
			t.Errorf("%s with %s: got %d, want %d", tt.path, tt.header, w.Code, tt.want)
		}
	}
}

// TestWhereTokensGoIsTold holds that nobody is told to send a header that is not looked at.
func TestWhereTokensGoIsTold(t *testing.T) {
	auth, err := NewAuth(testCredentials)
	if err != nil {
		t.Fatal(err)
	}
	h := auth.handler(http.NotFoundHandler())
	for path, want := range map[string]string{
		"/forward-auth/edge": `send the header "Sluice-Token: TOKEN"`, "/v1/traces": `send the header "authorization: Bearer TOKEN"`,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, nil))
		if w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: got %d %s, want 401 with %s", path, w.Code, w.Body, want)
		}
	}
}

// TestRefusalsAreSeen holds that a proxy with a wrong token, which lets everything pass, can be found.
func TestRefusalsAreSeen(t *testing.T) {
	auth, err := NewAuth(testCredentials)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	auth.refused.log.Store(slog.New(slog.NewTextHandler(&log, nil)))
	h := auth.handler(http.NotFoundHandler())
	ask := func(path, header, value string) {
		r := httptest.NewRequest(http.MethodPost, path, nil)
		r.Header.Set(header, value)
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	ask("/forward-auth/edge", "Sluice-Token", "s3cret-of-somebody")
	ask("/forward-auth/edge", "Sluice-Token", "s3cret-of-somebody")
	ask("/v1/traces", "Authorization", "")
	ask("/v1/metrics", "Authorization", "Bearer client-token-client-tok")
	ask("/v1/traces", "Authorization", "Bearer client-token-client-tok") // may
	_, _ = auth.authorizeGRPC(t.Context(), "/envoy.service.auth.v3.Authorization/Check")
	for reason, want := range map[string]float64{"missing": 2, "unknown": 2, "role": 1} {
		if got := testutil.ToFloat64(auth.refused.counts.WithLabelValues(reason)); got != want {
			t.Errorf("%s: got %v, want %v", reason, got, want)
		}
	}
	if text := log.String(); strings.Count(text, "\n") != 3 || !strings.Contains(text, "reason=unknown call=/forward-auth/edge") || strings.Contains(text, "s3cret") {
		t.Errorf("logged %s, want one line for each reason, without tokens", text)
	}
}

func BenchmarkAuthorize(b *testing.B) {
	a, err := NewAuth(testCredentials)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.authorize("Bearer client-token-client-tok", permitFlow); err != nil {
			b.Fatal(err)
		}
	}
}
