// SPDX-License-Identifier: Apache-2.0

package promapi

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/sluice-project/sluice/internal/batch"
)

// oneSeries is a series with samples a second apart, the last one now.
func oneSeries(name string, values ...float64) *prompb.WriteRequest {
	s := prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: name}, {Name: "job", Value: "app"}}}
	now := time.Now().UnixMilli()
	for i, v := range values {
		s.Samples = append(s.Samples, prompb.Sample{Value: v, Timestamp: now - int64(len(values)-1-i)*1000})
	}
	return &prompb.WriteRequest{
		Timeseries: []prompb.TimeSeries{s},
		Metadata:   []prompb.MetricMetadata{{Type: prompb.MetricMetadata_GAUGE, MetricFamilyName: name, Help: "Help."}},
	}
}

// remoteWrite is a request of version 1.0.
func remoteWrite(t testing.TB, m *prompb.WriteRequest) *http.Request {
	t.Helper()
	body, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/api/v1/write", bytes.NewReader(snappy.Encode(nil, body)))
	r.Header.Set("Content-Type", "application/x-protobuf")
	r.Header.Set("Content-Encoding", "snappy")
	return r
}

// remoteWrite2 is a request of version 2.0.
func remoteWrite2(t testing.TB, m *writev2.Request) *http.Request {
	t.Helper()
	body, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/api/v1/write", bytes.NewReader(snappy.Encode(nil, body)))
	r.Header.Set("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
	r.Header.Set("Content-Encoding", "snappy")
	return r
}

func send(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestRemoteWrite(t *testing.T) {
	h := open(t)
	if w := send(h, remoteWrite(t, oneSeries("depth", 1, 2, 3))); w.Code != 204 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if _, body := get(t, h, "/api/v1/query?query=depth%2Bcount_over_time(depth[5s])"); !strings.Contains(body, `"6"`) {
		t.Errorf("3 + 3 samples = %s", body)
	}
	if _, body := get(t, h, "/api/v1/metadata?metric=depth"); !strings.Contains(body, `"gauge","help":"Help."`) {
		t.Error(body)
	}
	// Native histograms.
	m := &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels: []prompb.Label{{Name: "__name__", Value: "lat"}},
		Histograms: []prompb.Histogram{
			prompb.FromIntHistogram(time.Now().UnixMilli()-1000, native()),
			prompb.FromFloatHistogram(time.Now().UnixMilli(), native().ToFloat(nil)),
		},
	}}}
	if w := send(h, remoteWrite(t, m)); w.Code != 204 {
		t.Errorf("histograms: %d %s", w.Code, w.Body)
	}
	if _, body := get(t, h, "/api/v1/query?query=histogram_count(lat)"); !strings.Contains(body, `"3"`) {
		t.Error(body)
	}
}

func native() *histogram.Histogram {
	return &histogram.Histogram{
		Schema: 0, Count: 3, Sum: 4, ZeroThreshold: 1e-9,
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{1, 1},
	}
}

func TestRemoteWrite2(t *testing.T) {
	h := open(t)
	now := time.Now().UnixMilli()
	m := &writev2.Request{
		Symbols: []string{"", "__name__", "depth", "zone", "a", "Deep.", "lat", "requests_total"},
		Timeseries: []writev2.TimeSeries{
			{LabelsRefs: []uint32{1, 2, 3, 4}, Samples: []writev2.Sample{{Value: 1, Timestamp: now - 1000}, {Value: 5, Timestamp: now}}, Metadata: writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_GAUGE, HelpRef: 5}},
			{LabelsRefs: []uint32{1, 6}, Histograms: []writev2.Histogram{writev2.FromIntHistogram(0, now, native())}},
		},
	}
	w := send(h, remoteWrite2(t, m))
	if w.Code != 204 || w.Header().Get("X-Prometheus-Remote-Write-Samples-Written") != "2" || w.Header().Get("X-Prometheus-Remote-Write-Histograms-Written") != "1" {
		t.Fatalf("%d %s %v", w.Code, w.Body, w.Header())
	}
	if _, body := get(t, h, "/api/v1/query?query=depth"); !strings.Contains(body, `"zone":"a"},"value"`) {
		t.Error(body)
	}
	if _, body := get(t, h, "/api/v1/metadata?metric=depth"); !strings.Contains(body, `"help":"Deep."`) {
		t.Error(body)
	}
	// What cannot be read or kept does not take the rest with it.
	m.Timeseries = append(m.Timeseries,
		writev2.TimeSeries{LabelsRefs: []uint32{1, 99}, Samples: []writev2.Sample{{Value: 1, Timestamp: now}}},
		writev2.TimeSeries{LabelsRefs: []uint32{3, 4}, Samples: []writev2.Sample{{Value: 1, Timestamp: now}}},
		writev2.TimeSeries{LabelsRefs: []uint32{1, 7}, Samples: []writev2.Sample{{Value: 1, Timestamp: now}}},
		writev2.TimeSeries{LabelsRefs: []uint32{1, 2}, Samples: []writev2.Sample{{Value: 9, Timestamp: now}, {Value: 9, Timestamp: now - 3600_000}, {Value: 9, Timestamp: now + 3600_000}}},
	)
	w = send(h, remoteWrite2(t, m))
	if w.Code != 400 || w.Header().Get("X-Prometheus-Remote-Write-Samples-Written") != "3" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	for _, want := range []string{"1 series could not be read and the others were kept", "4 samples were refused and the others kept", "without a name"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s\nwant %q", w.Body, want)
		}
	}
	if _, body := get(t, h, `/api/v1/query?query=depth%7Bzone=""%7D`); !strings.Contains(body, `"9"`) {
		t.Error(body)
	}
}

func TestBadRemoteWrites(t *testing.T) {
	h := open(t)
	body := func(b []byte, kind, encoding string) *http.Request {
		r := httptest.NewRequest(http.MethodPost, "/api/v1/write", bytes.NewReader(b))
		r.Header.Set("Content-Type", kind)
		r.Header.Set("Content-Encoding", encoding)
		return r
	}
	bomb := append([]byte{0xff, 0xff, 0xff, 0xff, 0x0f}, 0) // says it is 4 GiB
	for name, c := range map[string]struct {
		r    *http.Request
		code int
	}{
		"no snappy":      {body([]byte("x"), "application/x-protobuf", "snappy"), 400},
		"bomb":           {body(bomb, "application/x-protobuf", "snappy"), 400},
		"no message":     {body(snappy.Encode(nil, []byte("hello world")), "application/x-protobuf", "snappy"), 400},
		"no message 2":   {body(snappy.Encode(nil, []byte("hello world")), "application/x-protobuf;proto=io.prometheus.write.v2.Request", "snappy"), 400},
		"other encoding": {body(nil, "application/x-protobuf", "zstd"), 415},
		"other type":     {body(snappy.Encode(nil, nil), "text/plain", "snappy"), 415},
		"other message":  {body(snappy.Encode(nil, nil), "application/x-protobuf;proto=x", "snappy"), 415},
		"too large":      {body(make([]byte, mostBody+1), "application/x-protobuf", "snappy"), 400},
		"empty":          {body(snappy.Encode(nil, nil), "application/x-protobuf", "snappy"), 204},
		"get":            {httptest.NewRequest(http.MethodGet, "/api/v1/write", nil), 405},
		"elsewhere":      {httptest.NewRequest(http.MethodPost, "/api/v1/writes", nil), 404},
	} {
		if w := send(h, c.r); w.Code != c.code {
			t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, c.code)
		}
	}
	// A histogram that does not add up.
	bad := native()
	bad.Count = 77
	m := &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: []prompb.Label{{Name: "__name__", Value: "lat"}}, Histograms: []prompb.Histogram{prompb.FromIntHistogram(time.Now().UnixMilli(), bad)}}}}
	if w := send(h, remoteWrite(t, m)); w.Code != 400 || !strings.Contains(w.Body.String(), "1 samples were refused") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// metrics is a batch of OTLP with one of each kind.
func metrics(temporality pmetric.AggregationTemporality) pmetric.Metrics {
	m := pmetric.NewMetrics()
	r := m.ResourceMetrics().AppendEmpty()
	r.Resource().Attributes().PutStr("service.name", "shop")
	r.Resource().Attributes().PutStr("k8s.pod.name", "shop-1")
	all := r.ScopeMetrics().AppendEmpty().Metrics()
	now := pcommon.NewTimestampFromTime(time.Now())
	g := all.AppendEmpty()
	g.SetName("queue.depth")
	g.SetDescription("Depth.")
	p := g.SetEmptyGauge().DataPoints().AppendEmpty()
	p.SetDoubleValue(7)
	p.SetTimestamp(now)
	s := all.AppendEmpty()
	s.SetName("orders")
	sum := s.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(temporality)
	p = sum.DataPoints().AppendEmpty()
	p.SetIntValue(3)
	p.SetTimestamp(now)
	d := all.AppendEmpty()
	d.SetName("work")
	d.SetUnit("s")
	h := d.SetEmptyHistogram()
	h.SetAggregationTemporality(temporality)
	hp := h.DataPoints().AppendEmpty()
	hp.SetTimestamp(now)
	hp.ExplicitBounds().FromRaw([]float64{1})
	hp.BucketCounts().FromRaw([]uint64{1, 2})
	hp.SetCount(3)
	hp.SetSum(5)
	return m
}

func checkOTLP(t *testing.T, h *Handler) {
	t.Helper()
	for query, want := range map[string]string{
		`queue_depth`:             `"job":"shop","k8s_pod_name":"shop-1"},"value":[`,
		`orders_total`:            `"3"`,
		`work_seconds_count`:      `"3"`,
		`work_seconds_bucket`:     `"le":"1"`,
		`target_info{job="shop"}`: `"1"`,
	} {
		if _, body := get(t, h, "/api/v1/query?query="+query); !strings.Contains(body, want) {
			t.Errorf("%s = %s, want %s", query, body, want)
		}
	}
	if _, body := get(t, h, "/api/v1/metadata?metric=queue_depth"); !strings.Contains(body, `"gauge","help":"Depth."`) {
		t.Error(body)
	}
}

func TestOTLPOverHTTP(t *testing.T) {
	for _, kind := range []string{batch.Protobuf, batch.JSON} {
		for _, zip := range []bool{false, true} {
			t.Run(fmt.Sprint(kind, zip), func(t *testing.T) {
				h := open(t)
				req := pmetricotlp.NewExportRequestFromMetrics(metrics(pmetric.AggregationTemporalityCumulative))
				body, err := req.MarshalProto()
				if kind == batch.JSON {
					body, err = req.MarshalJSON()
				}
				if err != nil {
					t.Fatal(err)
				}
				var b bytes.Buffer
				if zip {
					w := gzip.NewWriter(&b)
					w.Write(body)
					w.Close()
				} else {
					b.Write(body)
				}
				r := httptest.NewRequest(http.MethodPost, "/v1/metrics", &b)
				r.Header.Set("Content-Type", kind+"; charset=utf-8")
				if zip {
					r.Header.Set("Content-Encoding", "gzip")
				}
				w := send(h, r)
				if w.Code != 200 || w.Header().Get("Content-Type") != kind {
					t.Fatalf("%d %v %q", w.Code, w.Header(), w.Body)
				}
				checkOTLP(t, h)
			})
		}
	}
}

func TestOTLPOverGRPC(t *testing.T) {
	h := open(t)
	l := bufconn.Listen(1 << 20)
	s := grpc.NewServer()
	h.RegisterOTLP(s)
	go s.Serve(l)
	defer s.Stop()
	c, err := grpc.NewClient("passthrough:x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return l.Dial() }))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	client := pmetricotlp.NewGRPCClient(c)
	answer, err := client.Export(t.Context(), pmetricotlp.NewExportRequestFromMetrics(metrics(pmetric.AggregationTemporalityCumulative)))
	if err != nil || answer.PartialSuccess().RejectedDataPoints() != 0 {
		t.Fatal(err, answer.PartialSuccess().ErrorMessage())
	}
	checkOTLP(t, h)
	// Delta temporality is refused in words, and what is not delta is kept.
	answer, err = client.Export(t.Context(), pmetricotlp.NewExportRequestFromMetrics(metrics(pmetric.AggregationTemporalityDelta)))
	if err != nil || answer.PartialSuccess().RejectedDataPoints() == 0 || !strings.Contains(answer.PartialSuccess().ErrorMessage(), "cumulative") {
		t.Error(err, answer.PartialSuccess().ErrorMessage())
	}
	h.signals.Close()
	if _, err := client.Export(t.Context(), pmetricotlp.NewExportRequestFromMetrics(metrics(pmetric.AggregationTemporalityCumulative))); err == nil || !strings.Contains(err.Error(), "Unavailable") {
		t.Error(err)
	}
}

func TestBadOTLP(t *testing.T) {
	h := open(t)
	post := func(kind, encoding string, body []byte) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "/v1/metrics", bytes.NewReader(body))
		r.Header.Set("Content-Type", kind)
		r.Header.Set("Content-Encoding", encoding)
		return send(h, r)
	}
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	z.Write(make([]byte, mostText+1))
	z.Close()
	for _, c := range []struct {
		kind, encoding string
		body           []byte
		code           int
	}{
		{"text/plain", "", nil, 415},
		{"", "", nil, 415},
		{batch.JSON, "br", nil, 415},
		{batch.JSON, "gzip", []byte("x"), 400},
		{batch.JSON, "", []byte("x"), 400},
		{batch.Protobuf, "", []byte("x"), 400},
		{batch.Protobuf, "gzip", bomb.Bytes(), 413},
		{batch.Protobuf, "", make([]byte, mostBody+1), 413},
		{batch.Protobuf, "", nil, 200},
		{batch.JSON, "", []byte("{}"), 200},
	} {
		if w := post(c.kind, c.encoding, c.body); w.Code != c.code || w.Code != 200 && w.Body.Len() < 10 {
			t.Errorf("%q %q: %d %q, want %d", c.kind, c.encoding, w.Code, w.Body, c.code)
		}
	}
	if w := send(h, httptest.NewRequest(http.MethodGet, "/v1/metrics", nil)); w.Code != 405 {
		t.Error(w.Code)
	}
}

// A point without a time makes no sample for every minute and a half since 1970.
func TestOTLPOfAnotherTime(t *testing.T) {
	h := open(t)
	m := metrics(pmetric.AggregationTemporalityCumulative)
	all := m.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics()
	all.At(0).Gauge().DataPoints().At(0).SetTimestamp(0)
	e := all.AppendEmpty().SetEmptyExponentialHistogram().DataPoints().AppendEmpty()
	e.SetTimestamp(pcommon.NewTimestampFromTime(time.Now().Add(-2 * time.Hour)))
	s := all.AppendEmpty().SetEmptySummary().DataPoints().AppendEmpty()
	s.SetTimestamp(1 << 63)
	refused, text, err := h.export(t.Context(), m)
	if err != nil || refused != 3 || !strings.Contains(text, "3 data points were refused and the others kept") {
		t.Error(refused, text, err)
	}
	if _, body := get(t, h, "/api/v1/query?query=orders_total"); !strings.Contains(body, `"3"`) {
		t.Error(body)
	}
}

func FuzzRemoteWrite(f *testing.F) {
	one, _ := oneSeries("depth", 1, 2).Marshal()
	two, _ := (&writev2.Request{Symbols: []string{"", "__name__", "x"}, Timeseries: []writev2.TimeSeries{{LabelsRefs: []uint32{1, 2}, Samples: []writev2.Sample{{Value: 1}}, Histograms: []writev2.Histogram{writev2.FromIntHistogram(0, 1, native())}}}}).Marshal()
	f.Add(one, false)
	f.Add(two, true)
	h := open(f)
	f.Fuzz(func(t *testing.T, body []byte, second bool) {
		r := httptest.NewRequest(http.MethodPost, "/api/v1/write", bytes.NewReader(snappy.Encode(nil, body)))
		r.Header.Set("Content-Type", "application/x-protobuf")
		if second {
			r.Header.Set("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
		}
		r.Header.Set("Content-Encoding", "snappy")
		if w := send(h, r); w.Code != 204 && w.Code != 400 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

func FuzzOTLP(f *testing.F) {
	req := pmetricotlp.NewExportRequestFromMetrics(metrics(pmetric.AggregationTemporalityCumulative))
	one, _ := req.MarshalProto()
	two, _ := req.MarshalJSON()
	f.Add(one, false)
	f.Add(two, true)
	h := open(f)
	f.Fuzz(func(t *testing.T, body []byte, text bool) {
		r := httptest.NewRequest(http.MethodPost, "/v1/metrics", bytes.NewReader(body))
		r.Header.Set("Content-Type", batch.Protobuf)
		if text {
			r.Header.Set("Content-Type", batch.JSON)
		}
		if w := send(h, r); w.Code != 200 && w.Code != 400 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}
