// SPDX-License-Identifier: Apache-2.0

package extauthz

import (
	"context"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-project/sluice/internal/flow"
)

// entryOf is what Envoy logs about a request that is done.
func entryOf(code uint32, fields *structpb.Struct) *datav3.HTTPAccessLogEntry {
	return &datav3.HTTPAccessLogEntry{
		CommonProperties: &datav3.AccessLogCommon{
			AccessLogType: datav3.AccessLogType_DownstreamEnd,
			Metadata:      &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{metadataNamespace: fields}},
		},
		Response: &datav3.HTTPResponseProperties{ResponseCode: wrapperspb.UInt32(code)},
	}
}

// tokenFields is the metadata of a request with this text for a token.
func tokenFields(text string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{tokenKey: structpb.NewStringValue(text)}}
}

func TestAccessLogEndsFlows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{Engine: newEngine(t, slotSpec(1, flow.ConcurrencyLimiter))})
		in := asked("control-point", "slots")
		first := check(t, d, t.Context(), in)
		if got := check(t, d, t.Context(), in); got.GetDeniedResponse() == nil {
			t.Fatalf("the slot is held: got %v, want a denial", got)
		}
		begun := entryOf(0, first.DynamicMetadata)
		begun.CommonProperties.AccessLogType = datav3.AccessLogType_DownstreamPeriodic
		d.logged(begun)
		old := entryOf(0, first.DynamicMetadata)
		old.CommonProperties.AccessLogType = datav3.AccessLogType_NotSet
		old.CommonProperties.IntermediateLogEntry = true //nolint:staticcheck // as Envoys before 1.26 do
		d.logged(old)
		if got := check(t, d, t.Context(), in); got.GetDeniedResponse() == nil {
			t.Fatalf("the request goes on: got %v, want a denial", got)
		}
		d.logged(entryOf(200, first.DynamicMetadata))
		second := check(t, d, t.Context(), in)
		if second.GetOkResponse() == nil {
			t.Fatalf("the request is done: got %v, want OK", second)
		}
		d.logged(entryOf(200, first.DynamicMetadata)) // logged twice: must not free the slot of the second
		if got := check(t, d, t.Context(), in); got.GetDeniedResponse() == nil {
			t.Errorf("a token was used twice: got %v, want a denial", got)
		}
		time.Sleep(2 * time.Minute)
		check(t, d, t.Context(), in) // takes the slot, whose time is over
		d.logged(entryOf(200, second.DynamicMetadata))
		for result, want := range map[string]float64{"ended": 1, "already_ended": 1, "expired": 1, "invalid_token": 0, "no_token": 0} {
			wantCount(t, d, "sluice_extauthz_ends_total", result, want)
		}
	})
}

func TestSeveralFiltersOfOneRequestAllEnd(t *testing.T) {
	d := New(Config{Engine: newEngine(t, slotSpec(1, flow.ConcurrencyLimiter))})
	in := asked("control-point", "slots")
	first := check(t, d, t.Context(), in)
	next := asked("control-point", "other")
	next.Attributes.MetadataContext = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{metadataNamespace: first.DynamicMetadata}}
	second := check(t, d, t.Context(), next)
	d.logged(entryOf(200, second.DynamicMetadata))
	if got := check(t, d, t.Context(), in); got.GetOkResponse() == nil {
		t.Errorf("got %v, want that the first filter's slot is free", got)
	}
	wantCount(t, d, "sluice_extauthz_ends_total", "ended", 2)

	// A chain without an end does not grow without an end.
	for range 20 {
		next.Attributes.MetadataContext.FilterMetadata[metadataNamespace] = check(t, d, t.Context(), next).DynamicMetadata
	}
	text := next.Attributes.MetadataContext.FilterMetadata[metadataNamespace].Fields[tokenKey].GetStringValue()
	if n := strings.Count(text, tokenSeparator) + 1; n > maxTokens {
		t.Errorf("got %d tokens, want at most %d", n, maxTokens)
	}
}

func TestOutcomeOfAnEntry(t *testing.T) {
	ms := func(n int) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Millisecond) }
	fields := map[string]*structpb.Value{authzDurationKey: structpb.NewNumberValue(40)}
	for name, c := range map[string]struct {
		common   *datav3.AccessLogCommon
		response *datav3.HTTPResponseProperties
		want     flow.Outcome
	}{
		"upstream answered": {
			&datav3.AccessLogCommon{TimeToFirstUpstreamTxByte: ms(50), TimeToLastUpstreamRxByte: ms(90), Duration: ms(100)},
			&datav3.HTTPResponseProperties{ResponseCode: wrapperspb.UInt32(200), ResponseBodyBytes: 5},
			flow.Outcome{Duration: 40 * time.Millisecond, HTTPStatus: 200},
		},
		"upstream failed": {
			&datav3.AccessLogCommon{Duration: ms(100)},
			&datav3.HTTPResponseProperties{ResponseCode: wrapperspb.UInt32(503)},
			flow.Outcome{Failed: true, Duration: 60 * time.Millisecond, HTTPStatus: 503},
		},
		"client left": {
			&datav3.AccessLogCommon{TimeToLastDownstreamTxByte: ms(70)},
			&datav3.HTTPResponseProperties{ResponseCode: wrapperspb.UInt32(0)},
			flow.Outcome{Duration: 30 * time.Millisecond},
		},
		"gRPC call failed": {
			nil,
			&datav3.HTTPResponseProperties{ResponseCode: wrapperspb.UInt32(200), ResponseTrailers: map[string]string{"grpc-status": "14"}},
			flow.Outcome{Failed: true, HTTPStatus: 200},
		},
		"gRPC call refused": {
			nil,
			&datav3.HTTPResponseProperties{ResponseCode: wrapperspb.UInt32(200), ResponseHeaders: map[string]string{"grpc-status": "5"}},
			flow.Outcome{HTTPStatus: 200},
		},
		"nothing is known": {nil, nil, flow.Outcome{}},
		"nonsense": {
			&datav3.AccessLogCommon{
				TimeToFirstUpstreamTxByte: &durationpb.Duration{Seconds: 1 << 62}, TimeToLastUpstreamRxByte: &durationpb.Duration{Seconds: -5, Nanos: 5},
			},
			&datav3.HTTPResponseProperties{ResponseCode: wrapperspb.UInt32(4_000_000_000), ResponseTrailers: map[string]string{"grpc-status": `"UNKNOWN"`}},
			flow.Outcome{Failed: true},
		},
	} {
		got := outcome(&datav3.HTTPAccessLogEntry{
			CommonProperties: c.common, Response: c.response, Request: &datav3.HTTPRequestProperties{RequestBodyBytes: 3},
		}, fields)
		if got.Failed != c.want.Failed || got.Duration != c.want.Duration || got.HTTPStatus != c.want.HTTPStatus {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
		if got.Attributes["http.request_content_length"] != 3 || got.Attributes["http.response_content_length"] != float64(c.response.GetResponseBodyBytes()) {
			t.Errorf("%s: sizes are %v", name, got.Attributes)
		}
	}
}

// stream is an access log stream that was received.
type stream struct {
	grpc.ServerStream
	messages []*accesslogv3.StreamAccessLogsMessage
	closed   bool
}

func (s *stream) Context() context.Context { return context.Background() }

func (s *stream) Recv() (*accesslogv3.StreamAccessLogsMessage, error) {
	if len(s.messages) == 0 {
		return nil, io.EOF
	}
	m := s.messages[0]
	s.messages = s.messages[1:]
	return m, nil
}

func (s *stream) SendAndClose(*accesslogv3.StreamAccessLogsResponse) error {
	s.closed = true
	return nil
}

func TestGarbageInAccessLogsIsCounted(t *testing.T) {
	d := New(Config{Engine: newEngine(t, slotSpec(1, flow.ConcurrencyLimiter))})
	good := check(t, d, t.Context(), asked("control-point", "slots"))
	forged := []byte(good.DynamicMetadata.Fields[tokenKey].GetStringValue())
	if forged[20]++; forged[20] != 'B' {
		forged[20] = 'A'
	}
	s := &stream{messages: []*accesslogv3.StreamAccessLogsMessage{
		{},
		nil,
		{LogEntries: &accesslogv3.StreamAccessLogsMessage_TcpLogs{}},
		{LogEntries: &accesslogv3.StreamAccessLogsMessage_HttpLogs{HttpLogs: &accesslogv3.StreamAccessLogsMessage_HTTPAccessLogEntries{
			LogEntry: []*datav3.HTTPAccessLogEntry{
				nil,
				{},
				entryOf(200, nil), entryOf(200, tokenFields("")),
				entryOf(200, &structpb.Struct{Fields: map[string]*structpb.Value{tokenKey: structpb.NewNumberValue(7)}}),
				entryOf(200, tokenFields(strings.Repeat("A", maxMetadataTextSize+1))),
				entryOf(200, tokenFields("%%%")), entryOf(200, tokenFields("AAAA")), entryOf(200, tokenFields(string(forged))),
				entryOf(200, tokenFields(strings.Repeat(",", 100))),
				entryOf(200, good.DynamicMetadata),
			},
		}}},
	}}
	if err := (accessLog{d}).StreamAccessLogs(s); err != nil || !s.closed {
		t.Fatalf("got %v, closed %v; want that the stream is read to its end", err, s.closed)
	}
	for result, want := range map[string]float64{"ended": 1, "invalid_token": 3 + maxTokens, "no_token": 6} {
		wantCount(t, d, "sluice_extauthz_ends_total", result, want)
	}
}
