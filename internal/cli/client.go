// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/api/gen/sluice/control/v1/controlv1connect"
	"github.com/sluice-project/sluice/api/gen/sluice/discovery/v1/discoveryv1connect"
	"github.com/sluice-project/sluice/api/gen/sluice/flow/v1/flowv1connect"
	"github.com/sluice-project/sluice/api/gen/sluice/observe/v1/observev1connect"
	"github.com/sluice-project/sluice/api/gen/sluice/policy/v1/policyv1connect"
)

// globals are the flags that all commands share.
type globals struct {
	env    Env
	server string
	token  string
	output string
}

func (g *globals) register(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVar(&g.server, "server", cmp.Or(g.env.lookup("SLUICE_SERVER"), defaultServer), "address of the server: host:port, http://… or https://… (or SLUICE_SERVER)")
	f.StringVar(&g.token, "token", "", "bearer token for the server (or SLUICE_TOKEN)")
	f.StringVarP(&g.output, "output", "o", cmp.Or(g.env.lookup("SLUICE_OUTPUT"), "table"), "table, json or yaml (or SLUICE_OUTPUT)")
	// The help shows where defaults come from, not what this machine has set.
	f.Lookup("server").DefValue = defaultServer
	f.Lookup("output").DefValue = "table"
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp)))
}

// callTimeout bounds calls that do not wait for flows.
const callTimeout = 30 * time.Second

// remote is the server that a command talks to.
type remote struct {
	base      string // URL without a path
	flows     flowv1connect.FlowServiceClient
	policies  policyv1connect.PolicyServiceClient
	observe   observev1connect.ObserveServiceClient
	control   controlv1connect.ControlServiceClient
	discovery discoveryv1connect.DiscoveryServiceClient
	http      *http.Client
}

func (g *globals) connect() (*remote, error) {
	base, err := baseURL(g.server)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	client := &http.Client{Transport: &bearer{
		token: cmp.Or(g.token, g.env.lookup("SLUICE_TOKEN")),
		next:  &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSHandshakeTimeout: 5 * time.Second},
	}}
	return &remote{
		base: base, http: client,
		flows:     flowv1connect.NewFlowServiceClient(client, base),
		policies:  policyv1connect.NewPolicyServiceClient(client, base),
		observe:   observev1connect.NewObserveServiceClient(client, base),
		control:   controlv1connect.NewControlServiceClient(client, base),
		discovery: discoveryv1connect.NewDiscoveryServiceClient(client, base),
	}, nil
}

// baseURL turns the address of a server into the URL of its HTTP API.
func baseURL(server string) (string, error) {
	text := server
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
		return "", fmt.Errorf("--server: got %q, want host:port, http://host:port or https://host:port", server)
	}
	return u.Scheme + "://" + u.Host, nil
}

// bearer adds the token to every request.
type bearer struct {
	token string
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.token != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.next.RoundTrip(r)
}

// explain says what went wrong in a call and what to do about it.
func (r *remote) explain(err error) error {
	if err == nil {
		return nil
	}
	var call *connect.Error
	if !errors.As(err, &call) {
		return err
	}
	var dial *net.OpError
	switch {
	case errors.As(err, &dial) && dial.Op == "dial", call.Code() == connect.CodeUnavailable && !connect.IsWireError(err):
		return fmt.Errorf("cannot reach the server at %s: %w: %s", r.base, innermost(call), r.advice(call))
	case call.Code() == connect.CodeCanceled:
		return errors.New("interrupted")
	case call.Code() == connect.CodeDeadlineExceeded:
		return fmt.Errorf("the server at %s did not answer in time", r.base)
	case !connect.IsWireError(err):
		return fmt.Errorf("%s does not answer like a Sluice server: %s: check --server", r.base, call.Message())
	}
	return errors.New(call.Message())
}

// advice says what to do when a server cannot be reached.
func (r *remote) advice(call *connect.Error) string {
	var certificate *tls.CertificateVerificationError
	switch {
	case strings.Contains(call.Message(), "server gave HTTP response to HTTPS client"):
		return "it does not speak TLS, so name it with http://"
	case errors.As(call, &certificate):
		return "name the file with its certificate authority in SSL_CERT_FILE, or the server by the name in its certificate"
	case strings.HasPrefix(r.base, "http://") && (errors.Is(call, io.EOF) || errors.Is(call, io.ErrUnexpectedEOF)):
		return "perhaps it speaks TLS, so name it with https://"
	}
	return "start one with \"sluice serve\", or name it with --server"
}

// innermost is the part of a network error that people know, such as "connection refused".
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// call makes one call that does not wait for flows.
func call[Req, Resp any](ctx context.Context, r *remote, method func(context.Context, *connect.Request[Req]) (*connect.Response[Resp], error), in *Req) (*Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := method(ctx, connect.NewRequest(in))
	if err != nil {
		return nil, err
	}
	return out.Msg, nil
}
