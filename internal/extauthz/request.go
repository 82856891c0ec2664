// SPDX-License-Identifier: Apache-2.0

package extauthz

import (
	"context"
	"net"
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/flow"
)

// Settings of a listener, in the initial_metadata of Envoy's grpc_service, or of a route, in its context_extensions.
// The former win, as they do in Aperture.
const (
	settingControlPoint = "control-point"
	settingRampMode     = "ramp-mode" // "true": only flows that a load ramp lets in may pass
	settingNoEnd        = "no-end"    // "true": there is no access log that tells when requests are done
	labelPrefix         = "label."    // context_extensions only: label.KEY is the label KEY
)

// request translates what Envoy tells about a request. Everything in it may be missing.
func (d *Door) request(ctx context.Context, a *authv3.AttributeContext) *flow.Request {
	h := fromEnvoy(a)
	r := &flow.Request{
		QueueTimeout: -1, // the call's deadline is what bounds it
		Explain:      true,
		HTTP:         h,
	}
	md, _ := metadata.FromIncomingContext(ctx)
	extensions := a.GetContextExtensions()
	setting := func(key string) string {
		if values := md[key]; len(values) > 0 && values[0] != "" {
			return values[0]
		}
		return extensions[key]
	}
	if r.ControlPoint = setting(settingControlPoint); r.ControlPoint == "" {
		r.ControlPoint = d.config.ControlPoint
	}
	r.RampMode = setting(settingRampMode) == "true"
	r.NoEnd = setting(settingNoEnd) == "true"
	for key, value := range extensions {
		if name, ok := strings.CutPrefix(key, labelPrefix); ok && name != "" {
			if r.Labels == nil {
				r.Labels = make(map[string]string)
			}
			r.Labels[name] = value
		}
	}
	d.addServices(ctx, r)
	return r
}

// addServices finds the services of both ends, and those of the flow: of the Envoy that asks, which mostly stands
// beside the service, or else of the request's destination.
func (d *Door) addServices(ctx context.Context, r *flow.Request) {
	if d.config.Services == nil {
		return
	}
	h := r.HTTP
	h.Discover(d.config.Services)
	if ip := peerIP(ctx); ip != "" {
		r.Services = d.config.Services(ip)
	}
	if len(r.Services) == 0 {
		r.Services = h.DestinationServices
	}
}

// peerIP is the address of whoever calls; "" when it has none.
func peerIP(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	if tcp, ok := p.Addr.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("").String()
	}
	addr, err := netip.ParseAddrPort(p.Addr.String())
	if err != nil {
		return ""
	}
	return addr.Addr().Unmap().WithZone("").String()
}

func fromEnvoy(a *authv3.AttributeContext) *classify.Request {
	in := a.GetRequest().GetHttp()
	r := &classify.Request{
		ID: in.GetId(), Method: in.GetMethod(), Path: in.GetPath(), Host: in.GetHost(), Scheme: in.GetScheme(),
		Protocol: in.GetProtocol(), Headers: fromEnvoyHeaders(in), Size: -1, Body: in.GetBody(),
		Source:      fromEnvoyAddress(a.GetSource().GetAddress()),
		Destination: fromEnvoyAddress(a.GetDestination().GetAddress()),
		Envoy:       true,
	}
	if in != nil {
		r.Size = in.Size
	}
	if r.Body == "" {
		r.Body = string(in.GetRawBody())
	}
	if m := a.GetMetadataContext().GetFilterMetadata(); len(m) > 0 {
		r.Metadata = make(map[string]any, len(m))
		for namespace, fields := range m {
			r.Metadata[namespace] = fields.AsMap()
		}
	}
	return r
}

// fromEnvoyHeaders makes the names lower case, which Envoy has done already.
func fromEnvoyHeaders(in *authv3.AttributeContext_HttpRequest) map[string]string {
	if raw := in.GetHeaderMap().GetHeaders(); len(raw) > 0 { // encode_raw_headers
		headers := make(map[string]string, len(raw))
		for _, h := range raw {
			value := h.GetValue()
			if value == "" {
				value = string(h.GetRawValue())
			}
			addHeader(headers, h.GetKey(), strings.ToValidUTF8(value, "!"))
		}
		return headers
	}
	headers := in.GetHeaders()
	for name := range headers {
		if !isLower(name) {
			return lowerHeaders(headers)
		}
	}
	return headers
}

// lowerHeaders copies headers some of which are not in lower case. Of names that differ in case only, the one in
// lower case wins.
func lowerHeaders(in map[string]string) map[string]string {
	out := make(map[string]string, len(in))
	for name, value := range in {
		lower := strings.ToLower(name)
		if _, ok := in[lower]; !ok || lower == name {
			out[lower] = value
		}
	}
	return out
}

// addHeader joins the values of headers that come more than once, as RFC 9110 5.3 and RFC 9113 8.2.3 say.
func addHeader(headers map[string]string, name, value string) {
	name = strings.ToLower(name)
	before, ok := headers[name]
	switch {
	case !ok:
		headers[name] = value
	case name == "cookie":
		headers[name] = before + "; " + value
	default:
		headers[name] = before + ", " + value
	}
}

func isLower(s string) bool {
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' || c >= 0x80 {
			return false
		}
	}
	return true
}

// fromEnvoyAddress knows IP addresses and the paths of Unix sockets.
func fromEnvoyAddress(a *corev3.Address) classify.Address {
	if s := a.GetSocketAddress(); s != nil {
		return classify.Address{Text: s.GetAddress(), Port: s.GetPortValue()}
	}
	return classify.Address{Text: a.GetPipe().GetPath()}
}
