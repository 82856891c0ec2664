// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"context"
	"encoding/base64"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	checkv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/check/v1"
	checkhttpv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/checkhttp/v1"
	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/flow"
)

// httpService answers aperture.flowcontrol.checkhttp.v1.FlowControlServiceHTTP.
type httpService struct {
	checkhttpv1.UnimplementedFlowControlServiceHTTPServer
	d *Door
}

// checkResponseKey is the key of the CheckResponse in metadata and records.
const checkResponseKey = "aperture.check_response"

// CheckHTTP implements FlowControlServiceHTTPServer.
func (s httpService) CheckHTTP(ctx context.Context, in *checkhttpv1.CheckHTTPRequest) (*checkhttpv1.CheckHTTPResponse, error) {
	if err := checkPoint(in.ControlPoint); err != nil {
		return nil, err
	}
	started := time.Now()
	http := s.d.request(in)
	r := flow.Request{
		ControlPoint: in.ControlPoint, Services: http.DestinationServices, QueueTimeout: -1, Explain: true,
		RampMode: in.RampMode, HTTP: http,
	}
	f, err := s.d.decide(ctx, &r)
	if err != nil {
		return nil, err
	}
	defer f.Free()
	check := Respond(f, &r, Details{Started: started, ExpectEnd: in.ExpectEnd})
	out := &checkhttpv1.CheckHTTPResponse{Status: &checkhttpv1.Status{}, CheckResponse: check}
	if f.Admitted() {
		ok := &checkhttpv1.OkHttpResponse{}
		if b := http.Baggage(f.Derived()); b != "" && headerSafe(b) {
			ok.Headers = map[string]string{"baggage": b}
		}
		out.HttpResponse = &checkhttpv1.CheckHTTPResponse_OkResponse{OkResponse: ok}
	} else {
		out.Status.Code, out.Status.Message = int32(codes.Unavailable), text(f.Verdict.Message())
		out.HttpResponse = &checkhttpv1.CheckHTTPResponse_DeniedResponse{DeniedResponse: denied(&f.Verdict)}
		check.WaitTime = nil // the header says it
	}
	out.DynamicMetadata = &structpb.Struct{Fields: map[string]*structpb.Value{
		checkResponseKey: structpb.NewStringValue(encode(check)),
	}}
	return out, nil
}

// denied is what to answer to a request that may not run.
func denied(v *flow.Verdict) *checkhttpv1.DeniedHttpResponse {
	out := &checkhttpv1.DeniedHttpResponse{Status: int32(v.HTTPStatus()), Headers: make(map[string]string)}
	v.RateLimitHeaders(func(name, value string) { out.Headers[strings.ToLower(name)] = value })
	if v.RetryAfter > 0 {
		out.Headers["retry-after"] = strconv.FormatInt(int64((v.RetryAfter+time.Second-1)/time.Second), 10)
	}
	return out
}

// headerSafe tells that a value can be a header: it has no characters that end one.
func headerSafe(value string) bool { return !strings.ContainsAny(value, "\r\n\x00") }

// request translates a request, and finds the services at its ends.
func (d *Door) request(in *checkhttpv1.CheckHTTPRequest) *classify.Request {
	a := in.Request
	r := &classify.Request{
		Method: a.GetMethod(), Path: a.GetPath(), Host: a.GetHost(), Scheme: a.GetScheme(),
		Protocol: a.GetProtocol(), Size: a.GetSize(), Body: a.GetBody(), Headers: lowerNames(a.GetHeaders()),
		Source:      classify.Address{Text: in.GetSource().GetAddress(), Port: in.GetSource().GetPort()},
		Destination: classify.Address{Text: in.GetDestination().GetAddress(), Port: in.GetDestination().GetPort()},
	}
	if a == nil {
		r.Size = -1
	}
	r.Discover(d.services)
	return r
}

// lowerNames writes the names of headers in lower case. Those that differ in case only are joined in the order of
// their names.
func lowerNames(in map[string]string) map[string]string {
	out := make(map[string]string, len(in))
	for name, value := range in {
		out[strings.ToLower(name)] = value
	}
	if len(out) == len(in) {
		return out
	}
	clear(out)
	for _, name := range slices.Sorted(maps.Keys(in)) {
		low := strings.ToLower(name)
		if before, ok := out[low]; ok {
			out[low] = before + ", " + in[name]
			continue
		}
		out[low] = in[name]
	}
	return out
}

// encode is the form in which an answer travels in metadata.
func encode(check *checkv1.CheckResponse) string {
	b, err := proto.Marshal(check)
	if err != nil {
		return "" // only text that is no UTF-8 is an error, and Respond makes none
	}
	return base64.StdEncoding.EncodeToString(b)
}

// EncodeCheckResponse is Aperture's answer for a flow that was decided with Request.Explain set, in the form in
// which proxies keep it for their access log. The token is that of the flow; empty: it has none.
func EncodeCheckResponse(f *flow.Flow, r *flow.Request, started time.Time, token []byte) string {
	if token == nil {
		token = []byte{}
	}
	return encode(Respond(f, r, Details{Started: started, Token: token}))
}
