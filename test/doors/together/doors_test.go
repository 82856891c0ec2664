// SPDX-License-Identifier: Apache-2.0

package together

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	checkv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/check/v1"
	checkhttpv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/checkhttp/v1"
	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"github.com/sluice-project/sluice/test/doors/doorstest"
)

// question is what is asked at every door in its own words.
type question struct {
	point  string
	labels map[string]string // in the baggage of doors that see HTTP
	// Only doors that see HTTP pass these on.
	header map[string]string
	body   string
	// source and destination are IP addresses; "": unknown.
	source, destination string
}

// answer is what a door said.
type answer struct {
	admitted bool
	baggage  string            // that the request goes on with; doors that see HTTP only
	derived  map[string]string // labels that classifiers made; doors that tell them only
	end      func(context.Context) error
}

// door is one way to ask.
type door struct {
	name string
	ask  func(context.Context, question) (answer, error)
	// http tells that it sees HTTP requests, ends that it tells the end of flows.
	http, ends bool
}

// client asks one server at all doors. It may be used concurrently.
type client struct {
	s    *doorstest.Server
	conn *grpc.ClientConn
	web  *http.Client
}

func newClient(t *testing.T, s *doorstest.Server) *client {
	t.Helper()
	conn, err := grpc.NewClient(s.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(func() {
		_ = conn.Close() // nothing is left to lose
		transport.CloseIdleConnections()
	})
	return &client{s: s, conn: conn, web: &http.Client{Transport: transport, Timeout: doorstest.Patience}}
}

func (c *client) doors() []door {
	return []door{
		{"Start", c.start, false, true},
		{"Stream", c.stream, false, true},
		{"CheckHTTP as JSON", c.checkHTTP, true, true},
		{"external authorization", c.extAuthz, true, true},
		{"rate limit service", c.rateLimit, false, false},
		{"forward-auth", c.forwardAuth, true, true},
		{"Aperture's Check, FlowEnd", c.apertureCheck, false, true},
		{"Aperture's Check, record by gRPC", c.apertureRecord, false, true},
		{"Aperture's CheckHTTP as JSON, record by HTTP", c.apertureCheckHTTP, true, true},
	}
}

func (c *client) start(ctx context.Context, q question) (answer, error) {
	api := flowv1.NewFlowServiceClient(c.conn)
	out, err := api.Start(ctx, &flowv1.StartRequest{ControlPoint: q.point, Labels: q.labels, Services: servicesOf(q)})
	if err != nil {
		return answer{}, err
	}
	return answer{admitted: out.Verdict == "admit", end: func(ctx context.Context) error {
		ended, err := api.End(ctx, &flowv1.EndRequest{Token: out.Token})
		return want(ended.GetResult(), "ended", err)
	}}, nil
}

// servicesOf are the services that a program says it belongs to, since nobody looks up its address.
func servicesOf(q question) []string {
	if q.destination == "" {
		return nil
	}
	return []string{"shop.local"}
}

func want(got, result string, err error) error {
	if err == nil && got != result {
		err = fmt.Errorf("the end was answered with %q, want %q", got, result)
	}
	return err
}

func (c *client) stream(ctx context.Context, q question) (answer, error) {
	stream, err := flowv1.NewFlowServiceClient(c.conn).Stream(ctx)
	if err != nil {
		return answer{}, err
	}
	shape, start := &flowv1.Shape{Id: 1, ControlPoint: q.point, Services: servicesOf(q)}, &flowv1.StreamStart{Id: 1, Shape: 1}
	for key, value := range q.labels {
		shape.LabelKeys, start.Values = append(shape.LabelKeys, key), append(start.Values, value)
	}
	if err := stream.Send(&flowv1.StreamRequest{Shapes: []*flowv1.Shape{shape}, Starts: []*flowv1.StreamStart{start}}); err != nil {
		return answer{}, err
	}
	out, err := stream.Recv()
	if err != nil {
		return answer{}, err
	}
	if len(out.Verdicts) != 1 {
		return answer{}, fmt.Errorf("got %v, want one verdict", out)
	}
	v := out.Verdicts[0]
	return answer{admitted: v.Admitted, end: func(context.Context) error {
		end := &flowv1.StreamEnd{Id: 1, End: &flowv1.EndRequest{Token: v.Token}}
		if err := stream.Send(&flowv1.StreamRequest{Ends: []*flowv1.StreamEnd{end}}); err != nil {
			return err
		}
		out, err := stream.Recv()
		if err != nil || len(out.Ends) != 1 {
			return fmt.Errorf("got %v, %w, want one answer", out, err)
		}
		return want(out.Ends[0].Result, "ended", stream.CloseSend())
	}}, nil
}

// baggage is the header that carries labels.
func baggage(labels map[string]string) string {
	var members []string
	for key, value := range labels {
		members = append(members, key+"="+value)
	}
	return strings.Join(members, ",")
}

// headers are those of the request, with the labels as baggage.
func (q question) headers() map[string]string {
	out := map[string]string{"content-type": "application/json", "baggage": baggage(q.labels)}
	for name, value := range q.header {
		out[name] = value
	}
	return out
}

// post calls a method as JSON over HTTP.
func (c *client) post(ctx context.Context, path string, in any, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	_, err = c.send(ctx, path, map[string]string{"Content-Type": "application/json"}, body, func(resp *http.Response) error {
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return json.NewDecoder(resp.Body).Decode(out)
	})
	return err
}

func (c *client) send(
	ctx context.Context, path string, headers map[string]string, body []byte, read func(*http.Response) error,
) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.s.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	resp, err := c.web.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := read(resp); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, err
}

type object map[string]any

func address(ip string) object { return object{"address": ip, "port": 80} }

func (c *client) checkHTTP(ctx context.Context, q question) (answer, error) {
	var out struct {
		Verdict struct {
			Verdict string
			Token   []byte
		}
		RequestHeaders, DerivedLabels map[string]string
	}
	err := c.post(ctx, "/sluice.flow.v1.FlowService/CheckHTTP", object{
		"controlPoint": q.point, "source": address(q.source), "destination": address(q.destination),
		"request": object{
			"method": "POST", "path": "/v1/graphql", "host": "shop", "headers": q.headers(), "body": []byte(q.body),
		},
	}, &out)
	if err != nil {
		return answer{}, err
	}
	a := answer{admitted: out.Verdict.Verdict == "admit", baggage: out.RequestHeaders["baggage"], derived: out.DerivedLabels}
	a.end = func(ctx context.Context) error {
		var ended struct{ Result string }
		err := c.post(ctx, "/sluice.flow.v1.FlowService/End", object{"token": out.Verdict.Token}, &ended)
		return want(ended.Result, "ended", err)
	}
	return a, nil
}

func envoyAddress(ip string) *authv3.AttributeContext_Peer {
	return &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
		SocketAddress: &corev3.SocketAddress{Address: ip, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 80}},
	}}}
}

// extAuthz asks as Envoy does, and ends as its access log does.
func (c *client) extAuthz(ctx context.Context, q question) (answer, error) {
	named := metadata.AppendToOutgoingContext(ctx, "control-point", q.point)
	out, err := authv3.NewAuthorizationClient(c.conn).Check(named, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: envoyAddress(q.source), Destination: envoyAddress(q.destination),
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "POST", Path: "/v1/graphql", Host: "shop", Headers: q.headers(), Body: q.body, Size: int64(len(q.body)),
		}},
	}})
	if err != nil {
		return answer{}, err
	}
	a := answer{admitted: out.Status.Code == 0 && out.GetOkResponse() != nil, baggage: baggage(q.labels)}
	for _, h := range out.GetOkResponse().GetHeaders() { // Envoy appends them to what came
		a.baggage += "," + h.Header.Value
	}
	a.end = func(ctx context.Context) error {
		logs, err := accesslogv3.NewAccessLogServiceClient(c.conn).StreamAccessLogs(ctx)
		if err != nil {
			return err
		}
		entry := &datav3.HTTPAccessLogEntry{
			CommonProperties: &datav3.AccessLogCommon{
				Metadata: &corev3.Metadata{FilterMetadata: metadataOf(out)},
			},
			Response: &datav3.HTTPResponseProperties{ResponseCode: wrapperspb.UInt32(200)},
		}
		err = logs.Send(&accesslogv3.StreamAccessLogsMessage{LogEntries: &accesslogv3.StreamAccessLogsMessage_HttpLogs{
			HttpLogs: &accesslogv3.StreamAccessLogsMessage_HTTPAccessLogEntries{LogEntry: []*datav3.HTTPAccessLogEntry{entry}},
		}})
		if err != nil {
			return err
		}
		_, err = logs.CloseAndRecv()
		return err
	}
	return a, nil
}

func (c *client) rateLimit(ctx context.Context, q question) (answer, error) {
	d := &commonv3.RateLimitDescriptor{}
	for key, value := range q.labels {
		d.Entries = append(d.Entries, &commonv3.RateLimitDescriptor_Entry{Key: key, Value: value})
	}
	out, err := rlsv3.NewRateLimitServiceClient(c.conn).ShouldRateLimit(ctx, &rlsv3.RateLimitRequest{
		Domain: q.point, Descriptors: []*commonv3.RateLimitDescriptor{d},
	})
	return answer{admitted: out.GetOverallCode() == rlsv3.RateLimitResponse_OK}, err
}

func (c *client) forwardAuth(ctx context.Context, q question) (answer, error) {
	headers := q.headers()
	headers["X-Forwarded-Method"], headers["X-Forwarded-Uri"], headers["X-Forwarded-Host"] = "POST", "/v1/graphql", "shop"
	headers["X-Forwarded-For"] = q.source
	resp, err := c.send(ctx, "/forward-auth/"+q.point+"?expect_end=true", headers, []byte(q.body), func(resp *http.Response) error {
		if resp.Header.Get("Sluice-Verdict") == "" {
			return errors.New(resp.Status + ", which is no verdict")
		}
		return nil
	})
	if err != nil {
		return answer{}, err
	}
	token := resp.Header.Get("Sluice-Flow-Token")
	a := answer{admitted: resp.StatusCode == http.StatusNoContent, baggage: resp.Header.Get("Baggage")}
	a.end = func(ctx context.Context) error {
		resp, err := c.send(ctx, "/forward-auth/end", map[string]string{"Sluice-Flow-Token": token, "Sluice-Status": "200"}, nil,
			func(*http.Response) error { return nil })
		if err != nil {
			return err
		}
		return want(resp.Header.Get("Sluice-Result"), "ended", nil)
	}
	return a, nil
}

func (c *client) apertureCheck(ctx context.Context, q question) (answer, error) {
	api := checkv1.NewFlowControlServiceClient(c.conn)
	out, err := api.Check(ctx, &checkv1.CheckRequest{ControlPoint: q.point, Labels: q.labels, ExpectEnd: true})
	if err != nil {
		return answer{}, err
	}
	return answer{admitted: accepted(out), end: func(ctx context.Context) error {
		in := &checkv1.FlowEndRequest{}
		for _, l := range out.LimiterDecisions {
			in.InflightRequests = append(in.InflightRequests, &checkv1.InflightRequestRef{
				PolicyName: l.PolicyName, PolicyHash: l.PolicyHash, ComponentId: l.ComponentId,
				RequestId: l.GetConcurrencyLimiterInfo().GetRequestId(),
			})
		}
		ended, err := api.FlowEnd(ctx, in)
		if err != nil {
			return err
		}
		for _, st := range ended.TokenReturnStatuses {
			if !st.Returned {
				return errors.New(st.Error)
			}
		}
		return want(fmt.Sprint(len(ended.TokenReturnStatuses)), "1", nil)
	}}, nil
}

func accepted(out *checkv1.CheckResponse) bool {
	return out.DecisionType == checkv1.CheckResponse_DECISION_TYPE_ACCEPTED
}

// apertureRecord tells the end by a span alone, as clients do that never send FlowEnd.
func (c *client) apertureRecord(ctx context.Context, q question) (answer, error) {
	api := checkv1.NewFlowControlServiceClient(c.conn)
	out, err := api.Check(ctx, &checkv1.CheckRequest{ControlPoint: q.point, Labels: q.labels})
	if err != nil {
		return answer{}, err
	}
	return answer{admitted: accepted(out), end: func(ctx context.Context) error {
		text, err := protojson.Marshal(out)
		if err != nil {
			return err
		}
		return c.exportGRPC(ctx, record(string(text)))
	}}, nil
}

func (c *client) apertureCheckHTTP(ctx context.Context, q question) (answer, error) {
	in, err := protojson.Marshal(&checkhttpv1.CheckHTTPRequest{
		ControlPoint: q.point,
		Source:       &checkhttpv1.SocketAddress{Address: q.source, Port: 80},
		Destination:  &checkhttpv1.SocketAddress{Address: q.destination, Port: 80},
		Request: &checkhttpv1.CheckHTTPRequest_HttpRequest{
			Method: "POST", Path: "/v1/graphql", Host: "shop", Headers: q.headers(), Body: q.body, Size: int64(len(q.body)),
		},
	})
	if err != nil {
		return answer{}, err
	}
	var raw json.RawMessage
	if err := c.post(ctx, "/v1/flowcontrol/checkhttp", json.RawMessage(in), &raw); err != nil {
		return answer{}, err
	}
	out := &checkhttpv1.CheckHTTPResponse{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, out); err != nil {
		return answer{}, err
	}
	a := answer{admitted: out.GetOkResponse() != nil, baggage: out.GetOkResponse().GetHeaders()["baggage"]}
	a.end = func(ctx context.Context) error {
		b, err := proto.Marshal(out.CheckResponse)
		if err != nil {
			return err
		}
		return c.exportHTTP(ctx, record(base64.StdEncoding.EncodeToString(b)))
	}
	return a, nil
}
