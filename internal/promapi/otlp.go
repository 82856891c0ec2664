// SPDX-License-Identifier: Apache-2.0

package promapi

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"time"

	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-project/sluice/internal/batch"
	"github.com/sluice-project/sluice/internal/signal"
)

// batchSizes bound one batch.
var batchSizes = batch.Sizes{Sent: mostBody, Text: mostText}

// mostParts bounds the parts of a batch; each takes a hundred bytes and more in memory.
const mostParts = 1_000_000

// promoted are attributes of resources that become labels; the others are in target_info.
var promoted = []string{
	"deployment.environment", "deployment.environment.name", "host.name", "service.version",
	"k8s.cluster.name", "k8s.namespace.name", "k8s.deployment.name", "k8s.pod.name",
}

// settings translate names as Prometheus does by default: dots become underscores, units and _total are added.
func (h *Handler) settings(lookback signal.View) prometheusremotewrite.Settings {
	return prometheusremotewrite.Settings{
		AddMetricSuffixes:         true,
		PromoteResourceAttributes: prometheusremotewrite.NewPromoteResourceAttributes(config.OTLPConfig{PromoteResourceAttributes: promoted}),
		LookbackDelta:             lookback.Lookback,
	}
}

// export keeps a batch of metrics. The text says what was refused; the rest is kept.
func (h *Handler) export(ctx context.Context, m pmetric.Metrics) (refused int, text string, err error) {
	v, err := h.signals.View()
	if err != nil {
		return 0, "", err
	}
	old := prune(m, time.Now())
	a := h.signals.Append(ctx, signal.SourcePush)
	_, untranslated := prometheusremotewrite.NewPrometheusConverter(a).FromMetrics(ctx, m, h.settings(v))
	if kind := signal.KindOf(untranslated); kind != 0 || ctx.Err() != nil {
		return 0, "", errors.Join(a.Rollback(), untranslated)
	}
	if err := a.Commit(); err != nil {
		return 0, "", err
	}
	err = a.Refused().Err()
	if old > 0 {
		err = errors.Join(fmt.Errorf("%d data points were refused and the others kept: they have no time, or one more than an hour from now", old), err)
	}
	if untranslated != nil {
		err = errors.Join(fmt.Errorf("%w (for delta temporality: let the exporter send cumulative metrics)", untranslated), err)
	}
	if err == nil {
		return 0, "", nil
	}
	text = err.Error()
	if len(text) > 4096 {
		text = text[:4096] + "..."
	}
	return max(a.Refused().Total()+old, 1), text, nil
}

// longest is how far from now the time of a data point may be. The database takes less than that. It is
// looked at before because the translation makes a sample of target_info for each minute and a half between
// the first and the last point of a resource: from 1970 on that is twenty million.
const longest = time.Hour

// prune removes data points that are far out of time, and counts them.
func prune(m pmetric.Metrics, now time.Time) (removed int) {
	from, to := pcommon.NewTimestampFromTime(now.Add(-longest)), pcommon.NewTimestampFromTime(now.Add(longest))
	far := func(t pcommon.Timestamp) bool {
		if t < from || t > to {
			removed++
			return true
		}
		return false
	}
	for _, r := range m.ResourceMetrics().All() {
		for _, s := range r.ScopeMetrics().All() {
			for _, one := range s.Metrics().All() {
				pruneMetric(one, far)
			}
		}
	}
	return removed
}

func pruneMetric(m pmetric.Metric, far func(pcommon.Timestamp) bool) {
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		m.Gauge().DataPoints().RemoveIf(func(p pmetric.NumberDataPoint) bool { return far(p.Timestamp()) })
	case pmetric.MetricTypeSum:
		m.Sum().DataPoints().RemoveIf(func(p pmetric.NumberDataPoint) bool { return far(p.Timestamp()) })
	case pmetric.MetricTypeHistogram:
		m.Histogram().DataPoints().RemoveIf(func(p pmetric.HistogramDataPoint) bool { return far(p.Timestamp()) })
	case pmetric.MetricTypeExponentialHistogram:
		m.ExponentialHistogram().DataPoints().RemoveIf(func(p pmetric.ExponentialHistogramDataPoint) bool { return far(p.Timestamp()) })
	case pmetric.MetricTypeSummary:
		m.Summary().DataPoints().RemoveIf(func(p pmetric.SummaryDataPoint) bool { return far(p.Timestamp()) })
	default:
	}
}

// respond makes the answer to a batch that was kept, at least in part.
func respond(refused int, text string) pmetricotlp.ExportResponse {
	answer := pmetricotlp.NewExportResponse()
	if refused > 0 {
		answer.PartialSuccess().SetRejectedDataPoints(int64(refused))
		answer.PartialSuccess().SetErrorMessage(text)
	}
	return answer
}

// otlp serves OTLP over HTTP.
func (h *Handler) otlp(w http.ResponseWriter, r *http.Request) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		batch.Refuse(w, batch.JSON, http.StatusMethodNotAllowed, fmt.Sprintf("method %s, want POST", r.Method))
		return
	case err != nil || kind != batch.Protobuf && kind != batch.JSON:
		batch.Refuse(w, batch.JSON, http.StatusUnsupportedMediaType, fmt.Sprintf("content type %q, want %s or %s", r.Header.Get("Content-Type"), batch.Protobuf, batch.JSON))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), writeTime)
	defer cancel()
	if err := h.writes.enter(ctx); err != nil {
		w.Header().Set("Retry-After", "1")
		batch.Refuse(w, kind, http.StatusServiceUnavailable, err.Error())
		return
	}
	defer h.writes.leave()
	request, code, err := decodeOTLP(w, r, kind)
	if err != nil {
		batch.Refuse(w, kind, code, err.Error())
		return
	}
	refused, text, err := h.export(ctx, request.Metrics())
	switch {
	case signal.KindOf(err) == signal.KindUnreachable:
		batch.Refuse(w, kind, http.StatusNotFound, err.Error())
		return
	case err != nil:
		w.Header().Set("Retry-After", "5")
		batch.Refuse(w, kind, http.StatusServiceUnavailable, err.Error())
		return
	}
	answer := respond(refused, text)
	var body []byte
	if kind == batch.JSON {
		body, err = answer.MarshalJSON()
	} else {
		body, err = answer.MarshalProto()
	}
	if err != nil {
		batch.Refuse(w, kind, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(body)
}

// decodeOTLP reads a message, and says with which status it is refused.
func decodeOTLP(w http.ResponseWriter, r *http.Request, kind string) (m pmetricotlp.ExportRequest, code int, err error) {
	m = pmetricotlp.NewExportRequest()
	body, code, err := batchSizes.Read(w, r)
	switch {
	case err != nil:
		return m, code, err
	case kind == batch.JSON:
		if err = batch.CheckJSON(body, mostParts); err == nil {
			err = m.UnmarshalJSON(body)
		}
	default:
		if err = batch.Check(body, mostParts); err == nil {
			err = m.UnmarshalProto(body)
		}
	}
	if err != nil {
		return m, http.StatusBadRequest, fmt.Errorf("the body is no ExportMetricsServiceRequest: %w", err)
	}
	return m, 0, nil
}

// RegisterOTLP serves OTLP over gRPC.
func (h *Handler) RegisterOTLP(s *grpc.Server) {
	pmetricotlp.RegisterGRPCServer(s, &metricsServer{h: h})
}

type metricsServer struct {
	pmetricotlp.UnimplementedGRPCServer
	h *Handler
}

// Export implements pmetricotlp.GRPCServer.
func (m *metricsServer) Export(ctx context.Context, r pmetricotlp.ExportRequest) (pmetricotlp.ExportResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	if err := m.h.writes.enter(ctx); err != nil {
		return pmetricotlp.NewExportResponse(), status.Error(codes.Unavailable, err.Error())
	}
	defer m.h.writes.leave()
	refused, text, err := m.h.export(ctx, r.Metrics())
	switch {
	case signal.KindOf(err) == signal.KindUnreachable:
		return pmetricotlp.NewExportResponse(), status.Error(codes.FailedPrecondition, err.Error())
	case err != nil:
		return pmetricotlp.NewExportResponse(), status.Error(codes.Unavailable, err.Error())
	}
	return respond(refused, text), nil
}
