// SPDX-License-Identifier: Apache-2.0

package sluice

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	// defaultAddr is where `sluice serve` listens unless told otherwise.
	defaultAddr = "127.0.0.1:8080"

	// version goes into the user agent.
	version = "0.1.0"

	// A lost connection is tried again at once, then after 50 ms, growing to 5 s: a server that
	// restarts is found again soon, and a thousand clients of one that is down ask 200 times a second.
	connectBaseDelay = 50 * time.Millisecond
	connectMaxDelay  = 5 * time.Second

	// A peer that vanished without a word is noticed after keepaliveTime + keepaliveTimeout. Pings are
	// sent only while a stream is open and nothing else arrives.
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second

	// windowSize holds thousands of verdicts. A fixed window spares the pings that gRPC otherwise sends
	// to measure the bandwidth.
	windowSize = 1 << 20
)

// parseAddr turns what users write into a gRPC target. secure is true for https.
func parseAddr(addr string) (target string, secure bool, err error) {
	scheme, _, hasScheme := strings.Cut(addr, "://")
	switch {
	case hasScheme && (scheme == "http" || scheme == "https"):
		return parseURL(addr, scheme == "https")
	case hasScheme && (scheme == "dns" || scheme == "unix" || scheme == "passthrough" || scheme == "xds"):
		return addr, false, nil
	case hasScheme:
		return "", false, fmt.Errorf("sluice: server address %q: got scheme %q, want http or https", addr, scheme)
	case strings.HasPrefix(addr, "unix:"):
		return addr, false, nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" || port == "" {
		return "", false, fmt.Errorf("sluice: server address %q: want host:port, for example %s", addr, defaultAddr)
	}
	return "dns:///" + addr, false, nil
}

func parseURL(addr string, secure bool) (string, bool, error) {
	u, err := url.Parse(addr)
	if err != nil {
		return "", false, fmt.Errorf("sluice: server address %q: %w", addr, err)
	}
	if u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", false, fmt.Errorf("sluice: server address %q: want only scheme, host and port, for example http://%s", addr, defaultAddr)
	}
	port := u.Port()
	switch {
	case port != "":
	case secure:
		port = "443"
	default:
		port = "80"
	}
	return "dns:///" + net.JoinHostPort(u.Hostname(), port), secure, nil
}

// dial makes the connection object; nothing is sent yet.
func dial(addr string, s *settings) (*grpc.ClientConn, error) {
	target, secure, err := parseAddr(addr)
	if err != nil {
		return nil, err
	}
	if secure && s.tls == nil {
		s.tls = &tls.Config{}
	}
	transport := insecure.NewCredentials()
	if s.tls != nil {
		transport = credentials.NewTLS(s.tls)
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithUserAgent("sluice-go/" + version),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
		grpc.WithInitialWindowSize(windowSize),
		grpc.WithInitialConnWindowSize(windowSize),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: connectBaseDelay, Multiplier: 1.6, Jitter: 0.2, MaxDelay: connectMaxDelay},
			MinConnectTimeout: connectMaxDelay,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
	}
	if s.token != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(bearer(s.token)))
	}
	conn, err := grpc.NewClient(target, append(opts, s.dialOptions...)...)
	if err != nil {
		return nil, fmt.Errorf("sluice: server address %q: %w", addr, err)
	}
	return conn, nil
}

// bearer adds the token to each call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity is false because `sluice serve` speaks plain HTTP/2 unless given a
// certificate; NewClient warns when the token leaves the machine that way.
func (bearer) RequireTransportSecurity() bool { return false }

// onThisMachine says whether addr certainly is a loopback address or a unix socket.
func onThisMachine(addr string) bool {
	if strings.HasPrefix(addr, "unix:") {
		return true
	}
	_, rest, found := strings.Cut(addr, "://")
	if !found {
		rest = addr
	}
	host, _, err := net.SplitHostPort(strings.Trim(rest, "/"))
	if err != nil {
		host = strings.Trim(rest, "/")
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
