// SPDX-License-Identifier: Apache-2.0

package extauthz

import (
	"errors"
	"io"
	"strings"
	"time"

	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sluice-project/sluice/internal/flow"
)

// accessLog is the access log service. It keeps nothing: an entry ends its flow, or is counted and forgotten.
type accessLog struct{ door *Door }

var _ accesslogv3.AccessLogServiceServer = accessLog{}

// StreamAccessLogs implements AccessLogServiceServer. Envoy keeps the stream open and never wants an answer.
func (l accessLog) StreamAccessLogs(stream accesslogv3.AccessLogService_StreamAccessLogsServer) error {
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&accesslogv3.StreamAccessLogsResponse{})
		}
		if err != nil {
			return err
		}
		for _, entry := range in.GetHttpLogs().GetLogEntry() {
			l.door.logged(entry)
		}
	}
}

// logged ends the flows of a request that is done.
func (d *Door) logged(entry *datav3.HTTPAccessLogEntry) {
	common := entry.GetCommonProperties()
	switch common.GetAccessLogType() {
	case datav3.AccessLogType_NotSet, datav3.AccessLogType_DownstreamEnd:
	default:
		return // begins, goes on, or is about a try of the upstream
	}
	if common.GetIntermediateLogEntry() { //nolint:staticcheck // Envoys before 1.26 tell it in no other way
		return
	}
	fields := common.GetMetadata().GetFilterMetadata()[metadataNamespace].GetFields()
	text := fields[tokenKey].GetStringValue()
	if text == "" || len(text) > maxMetadataTextSize {
		d.counts.end(endNoToken)
		return
	}
	o := outcome(entry, fields)
	for range maxTokens {
		one, rest, more := strings.Cut(text, tokenSeparator)
		d.end(one, o)
		if !more {
			return
		}
		text = rest
	}
}

func (d *Door) end(text string, o flow.Outcome) {
	token, err := tokenText.DecodeString(text)
	if err != nil {
		d.counts.end(endInvalidToken)
		return
	}
	result, err := d.config.Engine.EndToken(token, &o)
	if err != nil {
		d.counts.end(endInvalidToken)
		return
	}
	d.counts.end(endOf(result))
}

// outcome tells how a request went.
func outcome(entry *datav3.HTTPAccessLogEntry, fields map[string]*structpb.Value) flow.Outcome {
	common, request, response := entry.GetCommonProperties(), entry.GetRequest(), entry.GetResponse()
	code := response.GetResponseCode().GetValue()
	o := flow.Outcome{
		Failed:   code >= 500 || grpcFailed(response),
		Duration: upstreamTime(common, fields),
		Attributes: map[string]float64{
			"http.request_content_length":  float64(request.GetRequestBodyBytes()),
			"http.response_content_length": float64(response.GetResponseBodyBytes()),
		},
	}
	if code >= 100 && code <= 999 {
		o.HTTPStatus = int(code)
	}
	return o
}

// upstreamTime is how long the upstream took: from the first byte that it was sent to the last one that it answered.
// Without them, it is the time of the request less that of the decision. 0: nobody knows.
func upstreamTime(c *datav3.AccessLogCommon, fields map[string]*structpb.Value) time.Duration {
	sent, answered := c.GetTimeToFirstUpstreamTxByte(), c.GetTimeToLastUpstreamRxByte()
	if sent != nil && answered != nil {
		return max(span(answered)-span(sent), 0)
	}
	total := span(c.GetDuration())
	if total == 0 {
		total = span(c.GetTimeToLastDownstreamTxByte())
	}
	decided := fields[authzDurationKey].GetNumberValue() // NaN and negative ones compare as false
	if decided > 0 && decided < float64(total.Milliseconds()) {
		total -= time.Duration(decided * float64(time.Millisecond))
	}
	return max(total, 0)
}

// span is a duration of Envoy's; 0 for one that makes no sense.
func span(d *durationpb.Duration) time.Duration {
	if d.CheckValid() != nil {
		return 0
	}
	return max(d.AsDuration(), 0)
}

// grpcFailed tells whether the status of a gRPC call says that the upstream failed. It is known if Envoy is told to
// log the header and trailer grpc-status.
func grpcFailed(r *datav3.HTTPResponseProperties) bool {
	text, ok := r.GetResponseTrailers()["grpc-status"]
	if !ok {
		text = r.GetResponseHeaders()["grpc-status"]
	}
	var code codes.Code
	if len(text) > 2 || code.UnmarshalJSON([]byte(text)) != nil {
		return false
	}
	switch code {
	case codes.Unknown, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Internal, codes.Unavailable, codes.DataLoss:
		return true
	}
	return false
}
