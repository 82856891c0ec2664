// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/flow/v1/flowv1connect"
	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/observe/v1/observev1connect"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/ledger"
)

// testServer has an engine with one slot at the control point "one", for which flows wait.
func testServer(t *testing.T, c ServerConfig) *Server {
	t.Helper()
	memory, err := ledger.NewMemory(ledger.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := memory.Close(); err != nil {
			t.Error(err)
		}
	})
	engine, err := flow.New(flow.Config{Authority: memory, TokenKey: make([]byte, flow.TokenKeySize)})
	if err != nil {
		t.Fatal(err)
	}
	err = engine.Publish(flow.Set{Limiters: []*flow.LimiterSpec{{
		ID: 1, Policy: "p", Component: "root.0", Kind: flow.ConcurrencyScheduler, DeniedStatus: 429,
		Selectors: []flow.Selector{{ControlPoint: "one"}},
		Slots:     ledger.SlotRule{Max: 1, MaxInFlight: time.Hour},
		Scheduler: &flow.SchedulerSpec{Default: flow.WorkloadSpec{Name: "default", Priority: 1, Tokens: 1}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	c.Flow, c.Observe, c.Policy = NewFlowService(engine, nil), NewObserveService(engine, ServerInfo{}), NewPolicyService(nil, nil)
	c.Drain = engine.Close
	if c.Auth == nil {
		c.Auth = OpenAuth()
	}
	s, err := NewServer(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// running serves on a free port until the test ends, and then checks that the server stops.
func running(t *testing.T, s *Server) (address string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	stopped := false
	stop = func() {
		cancel()
		if stopped {
			return
		}
		stopped = true
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("Run did not return")
		}
	}
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestOnePort speaks every protocol to one port.
func TestOnePort(t *testing.T) {
	address, _ := running(t, testServer(t, ServerConfig{ShutdownTimeout: time.Second}))
	in := &flowv1.StartRequest{ControlPoint: "x"}

	got, err := flowv1.NewFlowServiceClient(dial(t, address)).Start(t.Context(), in)
	if err != nil || got.Verdict != "admit" {
		t.Errorf("gRPC: got %v, %v", got, err)
	}
	for name, options := range map[string][]connect.ClientOption{
		"Connect": nil, "Connect with JSON": {connect.WithProtoJSON()}, "gRPC-Web": {connect.WithGRPCWeb()},
	} {
		got, err := flowv1connect.NewFlowServiceClient(http.DefaultClient, "http://"+address, options...).Start(t.Context(), connect.NewRequest(in))
		if err != nil || got.Msg.Verdict != "admit" {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	health, err := healthv1.NewHealthClient(dial(t, address)).Check(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil || health.Status != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health: got %v, %v", health, err)
	}
	status, body := post(t, address, `{"controlPoint": "x", "nonsense": 1}`, nil)
	if status != 400 || !strings.Contains(body, "nonsense") {
		t.Errorf("unknown field: got %d %s, want 400 that names it", status, body)
	}
	status, body = post(t, address, `{"controlPoint": "x", "labels": {"a": "`+strings.Repeat("x", maxBody)+`"}}`, nil)
	if status < 400 || !strings.Contains(body, "more than") {
		t.Errorf("huge body: got %d %.200s", status, body)
	}
}

// post sends JSON to Start.
func post(t *testing.T, address, body string, header http.Header) (code int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/sluice.flow.v1.FlowService/Start", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	if req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if host := header.Get("Host"); host != "" {
		req.Host = host
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(out)
}

// TestBrowsers has what web pages may and may not make a browser send.
func TestBrowsers(t *testing.T) {
	address, _ := running(t, testServer(t, ServerConfig{
		AllowedHosts: []string{"sluice.internal"}, AllowedOrigins: []string{"https://console.example.com"},
	}))
	for _, tt := range []struct {
		name, header, value string
		also                string // Sec-Fetch-Site
		want                int
	}{
		{"curl", "", "", "", 200},
		{"own page", "Origin", "http://" + address, "same-origin", 200},
		{"old browser, own page", "Origin", "http://" + address, "", 200},
		{"foreign page", "Origin", "https://evil.example", "cross-site", 403},
		{"old browser, foreign page", "Origin", "https://evil.example", "", 403},
		{"sandboxed page", "Origin", "null", "cross-site", 403},
		{"allowed page", "Origin", "https://console.example.com", "cross-site", 200},
		{"DNS rebinding", "Host", "evil.example:8080", "", 403},
		{"numeric look-alike", "Host", "127.0.0.1.evil.example", "", 403},
		{"allowed host", "Host", "Sluice.Internal:8080", "", 200},
		{"localhost", "Host", "localhost:8080", "", 200},
		{"IPv6", "Host", "[::1]:8080", "", 200},
		{"form", "Content-Type", "text/plain", "", 415},
		{"form of a browser", "Content-Type", "application/x-www-form-urlencoded", "", 415},
	} {
		h := http.Header{}
		if tt.header != "" {
			h.Set(tt.header, tt.value)
		}
		if tt.also != "" {
			h.Set("Sec-Fetch-Site", tt.also)
		}
		if code, body := post(t, address, `{"controlPoint": "x"}`, h); code != tt.want {
			t.Errorf("%s: got %d %s, want %d", tt.name, code, body, tt.want)
		}
	}
}

func TestPreflight(t *testing.T) {
	auth, err := NewAuth(testCredentials)
	if err != nil {
		t.Fatal(err)
	}
	address, _ := running(t, testServer(t, ServerConfig{Auth: auth, AllowedOrigins: []string{"https://a.example"}}))
	for origin, want := range map[string]string{"https://a.example": "https://a.example", "https://b.example": ""} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, "http://"+address+"/sluice.flow.v1.FlowService/Start", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", origin)
		req.Header.Set("Access-Control-Request-Method", "POST")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := resp.Header.Get("Access-Control-Allow-Origin"); got != want {
			t.Errorf("%s: got %q, want %q", origin, got, want)
		}
	}
}

// TestStrangersSendNothing: whoever has no token is told so before a body is read, which would take memory.
func TestStrangersSendNothing(t *testing.T) {
	auth, err := NewAuth(testCredentials)
	if err != nil {
		t.Fatal(err)
	}
	address, _ := running(t, testServer(t, ServerConfig{Auth: auth}))
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // TCP has deadlines
	_, err = io.WriteString(conn, "POST /sluice.flow.v1.FlowService/Start HTTP/1.1\r\nHost: localhost\r\n"+
		"Content-Type: application/json\r\nContent-Length: 4000000\r\n\r\n{")
	if err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("HTTP/1.1 401"))
	if _, err := io.ReadFull(conn, line); err != nil || string(line) != "HTTP/1.1 401" {
		t.Errorf("got %q, %v, want 401 at once", line, err)
	}
}

// TestTokens asks over every protocol with and without a token.
func TestTokens(t *testing.T) {
	auth, err := NewAuth(testCredentials)
	if err != nil {
		t.Fatal(err)
	}
	address, _ := running(t, testServer(t, ServerConfig{Auth: auth, Metrics: http.NotFoundHandler()}))
	client := flowv1.NewFlowServiceClient(dial(t, address))
	for token, want := range map[string]codes.Code{
		"": codes.Unauthenticated, "Bearer client-token-client-tok": codes.OK, "Bearer viewer-token-viewer-tok": codes.PermissionDenied,
	} {
		ctx := t.Context()
		header := http.Header{}
		if token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", token)
			header.Set("Authorization", token)
		}
		if _, err := client.Start(ctx, &flowv1.StartRequest{ControlPoint: "x"}); status.Code(err) != want {
			t.Errorf("%q by gRPC: got %v, want %v", token, err, want)
		}
		stream, err := client.Stream(ctx)
		if err == nil {
			_ = stream.CloseSend()
			if _, err = stream.Recv(); errors.Is(err, io.EOF) {
				err = nil
			}
		}
		if status.Code(err) != want {
			t.Errorf("%q by stream: got %v, want %v", token, err, want)
		}
		code, body := post(t, address, `{"controlPoint": "x"}`, header)
		if wantHTTP := map[codes.Code]int{codes.OK: 200, codes.Unauthenticated: 401, codes.PermissionDenied: 403}[want]; code != wantHTTP {
			t.Errorf("%q by JSON: got %d %s, want %d", token, code, body, wantHTTP)
		}
	}
}

// TestShutdown stops a server that has a waiting flow, an open stream and a watch.
func TestShutdown(t *testing.T) {
	s := testServer(t, ServerConfig{ShutdownTimeout: 10 * time.Second})
	address, stop := running(t, s)
	client := flowv1.NewFlowServiceClient(dial(t, address))
	if got, err := client.Start(t.Context(), &flowv1.StartRequest{ControlPoint: "one"}); err != nil || got.Verdict != "admit" {
		t.Fatalf("got %v, %v", got, err)
	}
	stream, err := client.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&flowv1.StreamRequest{}); err != nil {
		t.Fatal(err)
	}
	watch, err := observev1connect.NewObserveServiceClient(http.DefaultClient, "http://"+address).WatchOverview(t.Context(),
		connect.NewRequest(&observev1.WatchOverviewRequest{Interval: durationpb.New(100 * time.Millisecond)}))
	if err != nil || !watch.Receive() {
		t.Fatalf("watch: %v", err)
	}
	type answer struct {
		got *flowv1.StartResponse
		err error
	}
	waiting := make(chan answer, 1)
	go func() {
		got, err := client.Start(t.Context(), &flowv1.StartRequest{ControlPoint: "one"})
		waiting <- answer{got, err}
	}()
	for { // until the flow waits
		if !watch.Receive() {
			t.Fatal(watch.Err())
		}
		if points := watch.Msg().Overview.ControlPoints; len(points) == 1 && points[0].Waiting == 1 {
			break
		}
	}
	begin := time.Now()
	stop()
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("stopping took %s although everything could end at once", took)
	}
	if a := <-waiting; a.err != nil || a.got.Verdict != "deny" {
		t.Errorf("the waiting flow: got %v, %v, want a denial", a.got, a.err)
	}
	if _, err := http.Get("http://" + address + "/readyz"); err == nil {
		t.Error("the port is still open")
	}
}

func TestReadiness(t *testing.T) {
	for want, reason := range map[int]error{503: errors.New("loading"), 200: nil} {
		address, _ := running(t, testServer(t, ServerConfig{Ready: func() error { return reason }}))
		resp, err := http.Get("http://" + address + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("got %d, want %d", resp.StatusCode, want)
		}
	}
}

// TestTLS encrypts the port, for clients that speak HTTP/1.1, HTTP/2 or both.
func TestTLS(t *testing.T) {
	certificate, roots := selfSigned(t)
	address, _ := running(t, testServer(t, ServerConfig{TLS: &tls.Config{Certificates: []tls.Certificate{certificate}}}))

	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(roots, "")))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	got, err := flowv1.NewFlowServiceClient(conn).Start(t.Context(), &flowv1.StartRequest{ControlPoint: "x"})
	if err != nil || got.Verdict != "admit" {
		t.Errorf("gRPC: got %v, %v", got, err)
	}
	browser := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer browser.CloseIdleConnections()
	resp, err := browser.Get("https://" + address + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
		t.Errorf("browser: got %d over %s, want 200 over HTTP/2", resp.StatusCode, resp.Proto)
	}
	old := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, NextProtos: []string{"http/1.1"}}}}
	defer old.CloseIdleConnections()
	if resp, err = old.Get("https://" + address + "/readyz"); err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 200 || resp.ProtoMajor != 1 {
		t.Errorf("old browser: got %d over %s, want 200 over HTTP/1.1", resp.StatusCode, resp.Proto)
	}
	if _, err := http.Get("http://" + address + "/readyz"); err == nil {
		t.Error("the port answers in clear text")
	}
}

// TestTLSBothProtocols is a client of gRPC that offers HTTP/1.1 as well, as those built on OkHttp do. Its stream ends
// when the server stops.
func TestTLSBothProtocols(t *testing.T) {
	certificate, roots := selfSigned(t)
	auth, err := NewAuth(testCredentials)
	if err != nil {
		t.Fatal(err)
	}
	address, stop := running(t, testServer(t, ServerConfig{
		TLS: &tls.Config{Certificates: []tls.Certificate{certificate}}, Auth: auth, ShutdownTimeout: 5 * time.Second,
	}))
	both := credentials.NewTLS(&tls.Config{RootCAs: roots, NextProtos: []string{"h2", "http/1.1"}})
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(both))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := flowv1.NewFlowServiceClient(conn)
	if _, err := client.Start(t.Context(), &flowv1.StartRequest{ControlPoint: "x"}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a token: got %v, want Unauthenticated", err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer client-token-client-tok")
	got, err := client.Start(ctx, &flowv1.StartRequest{ControlPoint: "x"})
	if err != nil || got.Verdict != "admit" {
		t.Errorf("unary: got %v, %v", got, err)
	}
	stream, err := client.Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&flowv1.StreamRequest{
		Shapes: []*flowv1.Shape{{Id: 1, ControlPoint: "x"}}, Starts: []*flowv1.StreamStart{{Id: 7, Shape: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil || len(answer.Verdicts) != 1 || !answer.Verdicts[0].Admitted {
		t.Fatalf("stream: got %v, %v", answer, err)
	}
	begin := time.Now()
	stop()
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("stopping took %s, with a stream open", took)
	}
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream goes on after the server has stopped")
	}
}

// selfSigned makes a certificate for 127.0.0.1.
func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

func TestTooManyConnections(t *testing.T) {
	address, _ := running(t, testServer(t, ServerConfig{MaxConnections: 1}))
	first, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	for { // the first may still be on its way in
		second, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = second.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, err = second.Read(make([]byte, 1))
		_ = second.Close()
		if errors.Is(err, io.EOF) || strings.Contains(err.Error(), "reset") {
			break
		}
	}
	_ = first.Close()
}

// TestSilentConnection is given up after firstBytesTimeout.
func TestSilentConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		d := newEntrance(&oneConn{conn: server, closed: make(chan struct{})}, nil, make(chan struct{}, 1), slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.run(ctx) }()
		begin := time.Now()
		if _, err := client.Write([]byte("PR")); err != nil { // and then nothing
			t.Fatal(err)
		}
		guest, err := d.http.Accept() // two bytes are no preface
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != firstBytesTimeout {
			t.Errorf("waited %s, want %s", took, firstBytesTimeout)
		}
		_ = guest.Close()
		if len(d.slots) != 0 {
			t.Error("a closed connection keeps its slot")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// oneConn is a listener with one connection.
type oneConn struct {
	conn   net.Conn
	closed chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { close(l.closed); return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

func TestPanicIsAnError(t *testing.T) {
	r := recoverer{slog.New(slog.DiscardHandler)}
	_, err := r.unary(t.Context(), nil, &grpc.UnaryServerInfo{}, func(context.Context, any) (any, error) { panic("oops") })
	if status.Code(err) != codes.Internal {
		t.Errorf("unary: got %v, want internal", err)
	}
	err = r.stream(nil, nil, &grpc.StreamServerInfo{}, func(any, grpc.ServerStream) error { panic("oops") })
	if status.Code(err) != codes.Internal {
		t.Errorf("stream: got %v, want internal", err)
	}
}
