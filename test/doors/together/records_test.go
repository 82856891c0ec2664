// SPDX-License-Identifier: Apache-2.0

package together

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/protobuf/types/known/structpb"
)

// metadataOf is what Envoy keeps of an answer for its access log.
func metadataOf(out *authv3.CheckResponse) map[string]*structpb.Struct {
	return map[string]*structpb.Struct{"envoy.filters.http.ext_authz": out.DynamicMetadata}
}

// record is what SDKs of Aperture tell about a flow that has ended.
func record(check string) ptraceotlp.ExportRequest {
	traces := ptrace.NewTraces()
	span := traces.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans().AppendEmpty()
	span.SetName("Aperture Check")
	span.Attributes().PutStr("aperture.source", "sdk")
	span.Attributes().PutStr("aperture.flow.status", "OK")
	span.Attributes().PutStr("aperture.check_response", check)
	span.Attributes().PutInt("aperture.flow_start_timestamp", time.Now().Add(-time.Second).UnixNano())
	span.Attributes().PutInt("aperture.flow_end_timestamp", time.Now().UnixNano())
	return ptraceotlp.NewExportRequestFromTraces(traces)
}

func (c *client) exportGRPC(ctx context.Context, in ptraceotlp.ExportRequest) error {
	out, err := ptraceotlp.NewGRPCClient(c.conn).Export(ctx, in)
	if err != nil {
		return err
	}
	if p := out.PartialSuccess(); p.RejectedSpans() != 0 {
		return fmt.Errorf("the record was refused: %s", p.ErrorMessage())
	}
	return nil
}

func (c *client) exportHTTP(ctx context.Context, in ptraceotlp.ExportRequest) error {
	body, err := in.MarshalProto()
	if err != nil {
		return err
	}
	_, err = c.send(ctx, "/v1/traces", map[string]string{"Content-Type": "application/x-protobuf"}, body, func(resp *http.Response) error {
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the record was refused: %s", resp.Status)
		}
		return nil
	})
	return err
}

// wantMetric compares a metric; labels are written name=value.
func wantMetric(t *testing.T, c *client, want float64, name string, labels ...string) {
	t.Helper()
	var pairs []string
	for _, l := range labels {
		key, value, _ := strings.Cut(l, "=")
		pairs = append(pairs, key, value)
	}
	if got := c.s.Metric(name, pairs...); got != want {
		t.Errorf("%s %v is %v, want %v", name, labels, got, want)
	}
}
