// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	entitiesv1 "github.com/sluice-project/sluice/api/gen/aperture/discovery/entities/v1"
	checkhttpv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/checkhttp/v1"
	previewv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/preview/v1"
	peersv1 "github.com/sluice-project/sluice/api/gen/aperture/peers/v1"
	languagev1 "github.com/sluice-project/sluice/api/gen/aperture/policy/language/v1"
	statusv1 "github.com/sluice-project/sluice/api/gen/aperture/status/v1"
)

// The JSON of Aperture's gateway: names as in the protos, every field, and fields nobody knows are passed over.
var (
	jsonOut = protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}
	jsonIn  = protojson.UnmarshalOptions{DiscardUnknown: true}
)

// routes are the HTTP paths of the services.
func (d *Door) routes() map[string]http.Handler {
	preview, entities, info := previewService{d: d}, entitiesService{d: d}, infoService{d: d}
	labels := serve(readPreview, preview.PreviewFlowLabels)
	requests := serve(readPreview, preview.PreviewHTTPRequests)
	return map[string]http.Handler{
		"POST /v1/flowcontrol/checkhttp":    serve(readBody[checkhttpv1.CheckHTTPRequest], httpService{d: d}.CheckHTTP),
		"GET /v1/flowcontrol/controlpoints": serve(readNothing, pointsService{d: d}.GetControlPoints),

		"POST /v1/flowcontrol/preview/labels/{control_point}":                  labels,
		"POST /v1/flowcontrol/preview/labels/{service}/{control_point}":        labels,
		"POST /v1/flowcontrol/preview/http_requests/{control_point}":           requests,
		"POST /v1/flowcontrol/preview/http_requests/{service}/{control_point}": requests,

		"GET /v1/discovery/entities": serve(readNothing, entities.GetEntities),
		"GET /v1/discovery/entities/ip-address/{ip_address}": serve(func(r *http.Request) (*entitiesv1.GetEntityByIPAddressRequest, error) {
			return &entitiesv1.GetEntityByIPAddressRequest{IpAddress: r.PathValue("ip_address")}, nil
		}, entities.GetEntityByIPAddress),
		"GET /v1/discovery/entities/name/{name}": serve(func(r *http.Request) (*entitiesv1.GetEntityByNameRequest, error) {
			return &entitiesv1.GetEntityByNameRequest{Name: r.PathValue("name")}, nil
		}, entities.GetEntityByName),

		"GET /v1/info/version":     serve(readNothing, info.Version),
		"GET /v1/info/process":     serve(readNothing, info.Process),
		"GET /v1/info/host":        serve(readNothing, info.Host),
		"GET /v1/status":           serve(readStatus, statusService{d: d}.GetGroupStatus),
		"GET /v1/status/{path...}": serve(readStatus, statusService{d: d}.GetGroupStatus),
		"GET /v1/peers":            serve(readNothing, peersService{d: d}.GetPeers),
		"GET /v1/peers/address/{address}": serve(func(r *http.Request) (*peersv1.PeerRequest, error) {
			return &peersv1.PeerRequest{Address: r.PathValue("address")}, nil
		}, peersService{d: d}.GetPeer),
		"GET /v1/distcache/stats": serve(readNothing, cacheStatsService{d: d}.GetStats),

		"POST /v1/traces": d.exportHTTP(exportTraces),
		"POST /v1/logs":   d.exportHTTP(exportLogs),
	}
}

// serve answers by HTTP what a method of gRPC answers.
func serve[In, Out proto.Message](read func(*http.Request) (In, error), call func(context.Context, In) (Out, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel, err := withTimeout(r)
		if err != nil {
			writeError(w, err)
			return
		}
		defer cancel()
		in, err := read(r)
		if err != nil {
			writeError(w, err)
			return
		}
		out, err := call(ctx, in)
		if err != nil {
			writeError(w, err)
			return
		}
		body, err := jsonOut.Marshal(out)
		if err != nil {
			writeError(w, status.Error(codes.Internal, "the answer cannot be written as JSON"))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if group, ok := any(out).(*statusv1.GroupStatus); ok && !isWell(group) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write(body) // the client has gone
	})
}

// withTimeout is the context of a request, with the deadline that its header grpc-timeout sets.
func withTimeout(r *http.Request) (context.Context, context.CancelFunc, error) {
	text := r.Header.Get("Grpc-Timeout")
	if text == "" {
		return r.Context(), func() {}, nil
	}
	timeout, ok := parseTimeout(text)
	if !ok {
		return nil, nil, status.Errorf(codes.InvalidArgument, "invalid grpc-timeout: %.20q, want up to 8 digits and one of H, M, S, m, u, n", text)
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	return ctx, cancel, nil
}

var timeUnits = map[byte]time.Duration{
	'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
}

// parseTimeout reads the form that gRPC gives time-outs on the wire.
func parseTimeout(text string) (time.Duration, bool) {
	last := len(text) - 1
	if last < 1 || last > 8 {
		return 0, false
	}
	n, err := strconv.ParseUint(text[:last], 10, 32)
	unit, ok := timeUnits[text[last]]
	if err != nil || !ok {
		return 0, false
	}
	if unit == time.Hour {
		n = min(n, 1_000_000) // more does not fit
	}
	return time.Duration(n) * unit, true
}

func readNothing(*http.Request) (*emptypb.Empty, error) { return &emptypb.Empty{}, nil }

func readStatus(r *http.Request) (*statusv1.GroupStatusRequest, error) {
	return &statusv1.GroupStatusRequest{Path: r.PathValue("path")}, nil
}

// mostBody bounds a request.
const mostBody = 4 << 20

// readBody reads a message of JSON.
func readBody[T any, P interface {
	*T
	proto.Message
}](r *http.Request) (P, error) {
	in := P(new(T))
	return in, readJSONBody(r, in)
}

func readJSONBody(r *http.Request, in proto.Message) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, mostBody+1))
	switch {
	case err != nil:
		return status.Error(codes.InvalidArgument, "the request cannot be read: "+err.Error())
	case len(body) > mostBody:
		return status.Errorf(codes.ResourceExhausted, "the request has more than %d bytes", mostBody)
	case len(body) == 0:
		return nil
	}
	if err := jsonIn.Unmarshal(body, in); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	return nil
}

// readPreview reads a request for a preview: its body is the matcher.
func readPreview(r *http.Request) (*previewv1.PreviewRequest, error) {
	in := &previewv1.PreviewRequest{ControlPoint: r.PathValue("control_point"), Service: r.PathValue("service")}
	text := r.URL.Query().Get("samples")
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "query parameter samples: got %.20q, want 1 to %d", text, mostSamples)
	}
	in.Samples = n
	m := new(languagev1.LabelMatcher)
	if err := readJSONBody(r, m); err != nil {
		return nil, err
	}
	in.LabelMatcher = m
	return in, nil
}

// httpCodes are the HTTP statuses of codes of gRPC, as Aperture's gateway chose them.
var httpCodes = map[codes.Code]int{
	codes.OK: http.StatusOK, codes.Canceled: 499, codes.InvalidArgument: http.StatusBadRequest,
	codes.DeadlineExceeded: http.StatusGatewayTimeout, codes.NotFound: http.StatusNotFound,
	codes.PermissionDenied: http.StatusForbidden, codes.Unauthenticated: http.StatusUnauthorized,
	codes.ResourceExhausted: http.StatusTooManyRequests, codes.Unimplemented: http.StatusNotImplemented,
	codes.Unavailable: http.StatusServiceUnavailable,
}

// writeError answers with a status of gRPC as JSON.
func writeError(w http.ResponseWriter, err error) {
	st := status.Convert(err)
	code, ok := httpCodes[st.Code()]
	if !ok {
		code = http.StatusInternalServerError
	}
	body, _ := json.Marshal(struct { // strings can be written
		Code    int        `json:"code"`
		Message string     `json:"message"`
		Details []struct{} `json:"details"`
	}{int(st.Code()), st.Message(), []struct{}{}})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = fmt.Fprintf(w, "%s\n", body)
}
