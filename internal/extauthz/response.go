// SPDX-License-Identifier: Apache-2.0

package extauthz

import (
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-project/sluice/internal/flow"
)

// response translates a verdict.
func (d *Door) response(f *flow.Flow, r *flow.Request, metadata *structpb.Struct) *authv3.CheckResponse {
	v := &f.Verdict
	out := &authv3.CheckResponse{DynamicMetadata: metadata}
	headers := d.limitHeaders(v)
	if v.Admitted {
		d.counts.check(checkAdmitted)
		out.Status = &rpcstatus.Status{Code: int32(codes.OK)}
		out.HttpResponse = &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers: d.requestHeaders(f, r), ResponseHeadersToAdd: headers,
		}}
		return out
	}
	d.counts.check(checkDenied)
	// Aperture answers Unavailable for every denial; Envoy tells its client the HTTP status and the body only.
	out.Status = &rpcstatus.Status{Code: int32(codes.Unavailable), Message: strings.ToValidUTF8(v.Message(), "�")}
	kind, body := v.ClientBody(flow.WantsJSON(r.HTTP.Headers["accept"]))
	headers = d.addHeader(headers, "content-type", kind, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
	headers = d.addHeader(headers, "x-content-type-options", "nosniff", corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
	out.HttpResponse = &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
		Status:  &typev3.HttpStatus{Code: typev3.StatusCode(v.HTTPStatus())}, //nolint:gosec // three digits
		Headers: headers, Body: string(body),
	}}
	return out
}

// limitHeaders are those that tell a client about its limits. What upstreams say about limits of their own stays
// beside it: they are lists.
func (d *Door) limitHeaders(v *flow.Verdict) []*corev3.HeaderValueOption {
	var headers []*corev3.HeaderValueOption
	v.RateLimitHeaders(func(name, value string) {
		action := corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
		if !v.Admitted {
			action = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
		}
		headers = d.addHeader(headers, strings.ToLower(name), value, action)
	})
	return headers
}

// requestHeaders are what the upstream gets: the baggage with the labels that classifiers made, if there are any. To
// baggage that came they are appended, so that nothing of it changes.
func (d *Door) requestHeaders(f *flow.Flow, r *flow.Request) []*corev3.HeaderValueOption {
	came, baggage := r.HTTP.Headers["baggage"], r.HTTP.Baggage(f.Derived())
	if baggage == "" || baggage == came {
		return nil
	}
	added, after := strings.CutPrefix(baggage, came+",")
	if after = after && came != ""; !after {
		added = baggage // nothing came, or something that must not go on
	}
	headers := d.addHeader(nil, "baggage", added, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
	if after && headers != nil {
		// The deprecated flag makes Envoy join both to one header; with the newer action there would be two headers
		// of the name, of which many applications read the first only. Older Envoys know nothing else.
		headers[0].Append = wrapperspb.Bool(true) //nolint:staticcheck // see above
	}
	return headers
}

// addHeader leaves out a value that cannot be a header's, above all one with line ends: whoever can make a label must
// not make further headers with it.
func (d *Door) addHeader(
	list []*corev3.HeaderValueOption, name, value string, action corev3.HeaderValueOption_HeaderAppendAction,
) []*corev3.HeaderValueOption {
	if !printableASCII(value) {
		d.counts.droppedHeaders.Add(1)
		return list
	}
	return append(list, &corev3.HeaderValueOption{
		Header: &corev3.HeaderValue{Key: name, Value: value}, AppendAction: action,
	})
}

// printableASCII is what every proxy takes as a header's value.
func printableASCII(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c >= 0x7f {
			return false
		}
	}
	return true
}

// metadata is what the access log needs to tell the flow's end; nil when it needs nothing.
func (d *Door) metadata(f *flow.Flow, r *flow.Request, started time.Time) *structpb.Struct {
	var token []byte
	if f.Admitted() && !f.NoEnd() {
		token = f.Seal(nil)
	}
	var text string
	if d.config.CheckResponse != nil {
		text = strings.ToValidUTF8(d.config.CheckResponse(f, r, started, token), "�")
	}
	if text == "" && len(token) == 0 {
		return nil
	}
	fields := make(map[string]*structpb.Value, 2)
	if text != "" {
		fields[checkResponseKey] = structpb.NewStringValue(text)
	}
	if len(token) > 0 {
		fields[tokenKey] = structpb.NewStringValue(tokensBefore(r) + tokenText.EncodeToString(token))
	}
	return &structpb.Struct{Fields: fields}
}

// tokensBefore are the tokens of flows that other filters of this listener started for the same request, with a
// separator. Envoy passes them on if the filter's metadata_context_namespaces say so; ours replaces the metadata of
// that key, so without carrying them on, the flows before would have no end.
func tokensBefore(r *flow.Request) string {
	fields, _ := r.HTTP.Metadata[metadataNamespace].(map[string]any)
	before, _ := fields[tokenKey].(string)
	if before == "" || len(before) > maxMetadataTextSize || strings.Count(before, tokenSeparator) >= maxTokens-1 {
		return ""
	}
	return before + tokenSeparator
}
