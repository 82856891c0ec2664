// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"bytes"
	"compress/gzip"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	checkv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/check/v1"
	"github.com/sluice-project/sluice/internal/batch"
	"github.com/sluice-project/sluice/internal/flow"
)

// span is a batch with one span that has these attributes.
func span(t testing.TB, values map[string]any) ptraceotlp.ExportRequest {
	t.Helper()
	traces := ptrace.NewTraces()
	s := traces.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans().AppendEmpty()
	s.SetName("Aperture Check")
	attributes(t, values).CopyTo(s.Attributes())
	return ptraceotlp.NewExportRequestFromTraces(traces)
}

// line is a batch with one log line that has these attributes.
func line(t testing.TB, values map[string]any) plogotlp.ExportRequest {
	t.Helper()
	logs := plog.NewLogs()
	l := logs.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords().AppendEmpty()
	l.Body().SetStr("GET")
	attributes(t, values).CopyTo(l.Attributes())
	return plogotlp.NewExportRequestFromLogs(logs)
}

func TestRecordsOverGRPC(t *testing.T) {
	d := newDoor(t, limiters(slotSpec(1, flow.ConcurrencyLimiter, 1)))
	conn := dial(t, d)
	client := checkv1.NewFlowControlServiceClient(conn)
	in := &checkv1.CheckRequest{ControlPoint: "concurrency_limiter"}
	for _, export := range []func(map[string]any) (int64, string, error){
		func(values map[string]any) (int64, string, error) {
			out, err := ptraceotlp.NewGRPCClient(conn).Export(t.Context(), span(t, values))
			if err != nil {
				return 0, "", err
			}
			return out.PartialSuccess().RejectedSpans(), out.PartialSuccess().ErrorMessage(), nil
		},
		func(values map[string]any) (int64, string, error) {
			out, err := plogotlp.NewGRPCClient(conn).Export(t.Context(), line(t, values))
			if err != nil {
				return 0, "", err
			}
			return out.PartialSuccess().RejectedLogRecords(), out.PartialSuccess().ErrorMessage(), nil
		},
	} {
		r, err := client.Check(t.Context(), in)
		if err != nil || !accepted(r) {
			t.Fatalf("got %v, %v, want the slot", r, err)
		}
		if refused, text, err := export(map[string]any{sourceKey: "envoy", checkResponseKey: encode(r)}); err != nil || refused != 0 || text != "" {
			t.Errorf("got %d refused, %q, %v, want none", refused, text, err)
		}
		if refused, text, err := export(map[string]any{sourceKey: "envoy", checkResponseKey: "garbage"}); err != nil || refused != 1 || !strings.Contains(text, "1 bad_check_response") {
			t.Errorf("garbage: got %d refused, %q, %v, want one", refused, text, err)
		}
		if refused, text, err := export(map[string]any{"http.method": "GET"}); err != nil || refused != 0 {
			t.Errorf("span of somebody else: got %d refused, %q, %v, want none", refused, text, err)
		}
	}
	wantRecords(t, d, recordEnded, 2)
	wantRecords(t, d, recordGarbage, 2)
	wantRecords(t, d, recordForeign, 2)
	var raw envelope
	err := conn.Invoke(t.Context(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export", &envelope{[]byte("\xff\xff")}, &raw, forceCodec())
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("no protobuf: got %v, want InvalidArgument", err)
	}
	bomb := bytes.Repeat([]byte("\x0a\x00"), mostParts+1) // empty ResourceSpans
	err = conn.Invoke(t.Context(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export", &envelope{bomb}, &raw, forceCodec())
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "smaller batches") {
		t.Errorf("many parts: got %v, want InvalidArgument", err)
	}
}

func TestRecordsOverHTTP(t *testing.T) {
	d := newDoor(t, limiters(slotSpec(1, flow.ConcurrencyLimiter, 1)))
	zip := func(b []byte) string {
		var out bytes.Buffer
		w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	must := func(b []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for i, send := range []func(values map[string]any) int{
		func(values map[string]any) int {
			body := must(span(t, values).MarshalProto())
			return ask(t, d, http.MethodPost, "/v1/traces", string(body), "Content-Type", batch.Protobuf).Code
		},
		func(values map[string]any) int {
			body := must(span(t, values).MarshalJSON())
			return ask(t, d, http.MethodPost, "/v1/traces", zip(body), "Content-Type", "application/json; charset=utf-8", "Content-Encoding", "gzip").Code
		},
		func(values map[string]any) int {
			body := must(line(t, values).MarshalProto())
			return ask(t, d, http.MethodPost, "/v1/logs", zip(body), "Content-Type", batch.Protobuf, "Content-Encoding", "gzip").Code
		},
		func(values map[string]any) int {
			body := must(line(t, values).MarshalJSON())
			return ask(t, d, http.MethodPost, "/v1/logs", string(body), "Content-Type", batch.JSON).Code
		},
	} {
		r := check(t, d, &checkv1.CheckRequest{ControlPoint: "concurrency_limiter"})
		if code := send(map[string]any{sourceKey: "lua", checkResponseKey: encode(r), httpStatusKey: "200"}); code != http.StatusOK {
			t.Errorf("%d: got status %d", i, code)
		}
		wantRecords(t, d, recordEnded, float64(i+1))
	}
	for _, tt := range []struct {
		name, path, body string
		want             int
		headers          []string
	}{
		{"no type", "/v1/traces", "{}", 415, nil},
		{"text", "/v1/traces", "{}", 415, []string{"Content-Type", "text/plain"}},
		{"no JSON", "/v1/traces", "{", 400, []string{"Content-Type", batch.JSON}},
		{"no protobuf", "/v1/logs", "\xff\xff", 400, []string{"Content-Type", batch.Protobuf}},
		{"no gzip", "/v1/logs", "{}", 400, []string{"Content-Type", batch.JSON, "Content-Encoding", "gzip"}},
		{"brotli", "/v1/logs", "{}", 415, []string{"Content-Type", batch.JSON, "Content-Encoding", "br"}},
		{"too large", "/v1/logs", strings.Repeat(" ", mostBody+1), 413, []string{"Content-Type", batch.JSON}},
		{"bomb", "/v1/logs", zip(make([]byte, int(batchSizes.Text)+1)), 413, []string{"Content-Type", batch.Protobuf, "Content-Encoding", "gzip"}},
		{"many parts", "/v1/traces", zip(bytes.Repeat([]byte(`{},`), mostParts+1)), 400, []string{"Content-Type", batch.JSON, "Content-Encoding", "gzip"}},
		{"empty", "/v1/traces", "", 200, []string{"Content-Type", batch.Protobuf}},
	} {
		if w := ask(t, d, http.MethodPost, tt.path, tt.body, tt.headers...); w.Code != tt.want {
			t.Errorf("%s: got %d: %s, want %d", tt.name, w.Code, w.Body, tt.want)
		}
	}
}

// TestBusyReaderAsksToTryAgain: batches queue up to a bound, and none for ever.
func TestBusyReaderAsksToTryAgain(t *testing.T) {
	d := newDoor(t, flow.Set{})
	for range mostDecoding {
		if err := d.records.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := d.exportGRPC(ctx, &envelope{}, exportTraces); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want Unavailable", err)
	}
	for range mostDecoding {
		d.records.leave()
	}
	if _, err := d.exportGRPC(t.Context(), &envelope{}, exportTraces); err != nil {
		t.Errorf("got %v after the others had left", err)
	}
}

func FuzzTraces(f *testing.F) {
	d := newDoor(f, limiters(slotSpec(1, flow.ConcurrencyLimiter, 1)))
	r := check(f, d, &checkv1.CheckRequest{ControlPoint: "concurrency_limiter"})
	values := map[string]any{sourceKey: "sdk", statusKey: "OK", checkResponseKey: encode(r), flowEndKey: 7, httpStatusKey: "200"}
	for _, batch := range [][2]func() ([]byte, error){
		{span(f, values).MarshalProto, span(f, values).MarshalJSON}, {line(f, values).MarshalProto, line(f, values).MarshalJSON},
	} {
		for i, marshal := range batch {
			b, err := marshal()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b, i == 1)
		}
	}
	f.Fuzz(func(_ *testing.T, body []byte, json bool) {
		_, _ = exportTraces(d, body, json) // nothing but a panic is wrong
		_, _ = exportLogs(d, body, json)
	})
}
