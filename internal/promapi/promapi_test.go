// SPDX-License-Identifier: Apache-2.0

package promapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/sluice-project/sluice/internal/signal"
)

// start is when the series of tests begin.
var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// open makes a handler over a few series: up to start+9s, a sample a second.
func open(t testing.TB) *Handler {
	t.Helper()
	r := prometheus.NewRegistry()
	c := signal.DefaultConfig()
	c.Dir, c.Gatherer = t.TempDir(), r
	s, err := signal.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests_total", Help: "Requests."}, []string{"code"})
	latency := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "latency_seconds", NativeHistogramBucketFactor: 2})
	odd := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "odd"}, []string{"kind"})
	r.MustRegister(requests, latency, odd)
	odd.WithLabelValues("<&>\"\\\n").Set(1e-9)
	odd.WithLabelValues("nan").Set(math.NaN())
	odd.WithLabelValues("inf").Set(math.Inf(1))
	requests.WithLabelValues("500")
	for i := range 10 {
		requests.WithLabelValues("200").Add(2)
		latency.Observe(0.5)
		if err := s.Collect(t.Context(), start.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return New(Config{Signals: s})
}

// get asks the handler.
func get(t testing.TB, h http.Handler, target string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
	if ct := w.Header().Get("Content-Type"); ct != "application/json" {
		t.Errorf("%s: content type %q", target, ct)
	}
	body := strings.TrimSuffix(w.Body.String(), "\n")
	if !json.Valid(w.Body.Bytes()) {
		t.Errorf("%s: no JSON: %s", target, body)
	}
	return w.Code, body
}

// The format is that of Prometheus, which TestTheClientOfPrometheus proves with its own client; the texts of
// mistakes are its own, too.
func TestAnswers(t *testing.T) {
	h := open(t)
	at := fmt.Sprint(start.Unix() + 9)
	q := func(path string, pairs ...string) string {
		v := url.Values{}
		for i := 0; i < len(pairs); i += 2 {
			v.Add(pairs[i], pairs[i+1])
		}
		return "/api/v1/" + path + "?" + v.Encode()
	}
	from, to := fmt.Sprint(start.Unix()), at
	for _, c := range []struct {
		target string
		code   int
		want   string
	}{
		{q("query", "query", "requests_total", "time", at), 200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"requests_total","code":"200","job":"sluice"},"value":[AT,"20"]},{"metric":{"__name__":"requests_total","code":"500","job":"sluice"},"value":[AT,"0"]}]}}`},
		{q("query", "query", "requests_total", "time", at, "limit", "1"), 200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"requests_total","code":"200","job":"sluice"},"value":[AT,"20"]}]},"warnings":["results truncated due to limit"]}`},
		{q("query", "query", "1.5e3", "time", at+".250"), 200, `{"status":"success","data":{"resultType":"scalar","result":[AT.250,"1500"]}}`},
		{q("query", "query", `"a\nb"`, "time", at), 200, `{"status":"success","data":{"resultType":"string","result":[AT,"a\nb"]}}`},
		{q("query", "query", "nothing", "time", at), 200, `{"status":"success","data":{"resultType":"vector","result":[]}}`},
		{q("query", "query", "vector(1)", "time", start.Format(time.RFC3339)), 200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[FROM,"1"]}]}}`},
		{q("query", "query", `odd{kind=~".*<.*|inf|nan"}`, "time", at), 200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"odd","job":"sluice","kind":"\u003c\u0026\u003e\"\\\n"},"value":[AT,"1e-09"]},{"metric":{"__name__":"odd","job":"sluice","kind":"inf"},"value":[AT,"+Inf"]},{"metric":{"__name__":"odd","job":"sluice","kind":"nan"},"value":[AT,"NaN"]}]}}`},
		{q("query", "query", `latency_seconds`, "time", at), 200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"latency_seconds","job":"sluice"},"histogram":[AT,{"count":"10","sum":"5","buckets":[[0,"0.25","0.5","10"]]}]}]}}`},
		{q("query", "query", `requests_total{code="200"}[2s]`, "time", at), 200, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"requests_total","code":"200","job":"sluice"},"values":[[1795262408,"18"],[1795262409,"20"]]}]}}`},
		{q("query_range", "query", `sum(requests_total)`, "start", from, "end", to, "step", "4"), 200, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[FROM,"2"],[1795262404,"10"],[1795262408,"18"]]}]}}`},
		{q("query_range", "query", `histogram_quantile(0.5, rate(requests_total[5s]))`, "start", from, "end", from, "step", "1m"), 200, ``},
		{q("labels", "match[]", "requests_total"), 200, `{"status":"success","data":["__name__","code","job"]}`},
		{q("labels", "match[]", "requests_total", "limit", "1"), 200, `{"status":"success","data":["__name__"],"warnings":["results truncated due to limit"]}`},
		{q("labels", "match[]", "nothing"), 200, `{"status":"success","data":[]}`},
		{q("label/code/values"), 200, `{"status":"success","data":["200","500"]}`},
		{q("label/__name__/values", "match[]", `{code="200"}`), 200, `{"status":"success","data":["requests_total"]}`},
		{q("label/code/values", "start", fmt.Sprint(start.Unix()+86400)), 200, `{"status":"success","data":[]}`},
		{q("series", "match[]", `requests_total`, "start", from, "end", to), 200, `{"status":"success","data":[{"__name__":"requests_total","code":"200","job":"sluice"},{"__name__":"requests_total","code":"500","job":"sluice"}]}`},
		{q("series", "match[]", `requests_total`, "match[]", `{code="200"}`, "limit", "1"), 200, `{"status":"success","data":[{"__name__":"requests_total","code":"200","job":"sluice"}],"warnings":["results truncated due to limit"]}`},
		{q("series", "match[]", "nothing"), 200, `{"status":"success","data":[]}`},
		{q("metadata", "metric", "requests_total"), 200, `{"status":"success","data":{"requests_total":[{"type":"counter","help":"Requests.","unit":""}]}}`},
		{q("format_query", "query", "sum(  a )"), 200, `{"status":"success","data":"sum(a)"}`},
		{q("targets"), 200, `{"status":"success","data":{"activeTargets":[],"droppedTargetCounts":{},"droppedTargets":[]}}`},
		{q("rules"), 200, `{"status":"success","data":{"groups":[]}}`},
		{q("query_exemplars"), 200, `{"status":"success","data":[]}`},

		{q("query", "query", "sum("), 400, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:5: parse error: unclosed left parenthesis"}`},
		{q("query"), 400, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": unknown position: parse error: no expression found in input"}`},
		{q("query", "query", "1", "time", "x"), 400, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"time\": Invalid time value for 'time': cannot parse \"x\" to a valid timestamp"}`},
		{q("query", "query", "1", "timeout", "x"), 400, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"timeout\": cannot parse \"x\" to a valid duration"}`},
		{q("query", "query", "1", "limit", "-1"), 400, ``},
		{q("query", "query", "1", "time", "NaN"), 400, ``},
		{q("query", "query", "1", "time", "1e30"), 400, ``},
		{q("query", "query", "1", "lookback_delta", "-1"), 400, ``},
		{q("query", "query", `requests_total + on(job) requests_total`, "time", at), 422, ``},
		{q("query_range", "query", "1", "start", to, "end", from, "step", "1"), 400, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"end\": end timestamp must not be before start time"}`},
		{q("query_range", "query", "1", "start", from, "end", to, "step", "0"), 400, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer"}`},
		{q("query_range", "query", "1", "start", "0", "end", to, "step", "1"), 400, `{"status":"error","errorType":"bad_data","error":"exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"}`},
		{q("query_range", "query", "1", "start", from, "end", to), 400, ``},
		{q("query_range", "query", "requests_total[5s]", "start", from, "end", to, "step", "1"), 400, ``},
		{q("series"), 400, `{"status":"error","errorType":"bad_data","error":"no match[] parameter provided"}`},
		{q("series", "match[]", "{"), 400, ``},
		{q("series", "match[]", `{a=~".*"}`), 400, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"match[]\": match[] must contain at least one non-empty matcher"}`},
		{q("labels", "start", "5", "end", "4"), 400, ``},
		{q("label/%FF/values"), 400, ``},
		{q("nosuch"), 404, ``},
		{q("query", "query", strings.Repeat("-", signal.MostQuery)+"1"), 400, ``},
		{q("format_query", "query", strings.Repeat("(", 5000)+"1"+strings.Repeat(")", 5000)), 400, ``},
		{q("query", "query", "max_over_time(count(requests_total)[1y:1ms])"), 400, ``},
		{q("query_range", "query", "max_over_time(count(requests_total)[1s:1ms])", "start", "0", "end", to, "step", "1000000"), 400, ``},
		{"/api/v1/labels?" + strings.Repeat("match[]=a&", mostSelectors+1), 400, ``},
	} {
		code, got := get(t, h, c.target)
		want := strings.NewReplacer("AT", at, "FROM", from).Replace(c.want)
		if code != c.code || c.want != "" && got != want {
			t.Errorf("%s\n got %d %s\nwant %d %s", c.target, code, got, c.code, want)
		}
		if code != 200 && (!strings.HasPrefix(got, `{"status":"error","errorType":"`) || strings.HasSuffix(got, `"error":""}`)) {
			t.Errorf("%s: %s", c.target, got)
		}
	}
}

func TestForms(t *testing.T) {
	h := open(t)
	post := func(path, body string) (int, string) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	if code, body := post("/api/v1/query", "query=1%2B1&time=5"); code != 200 || !strings.Contains(body, `[5,"2"]`) {
		t.Error(code, body)
	}
	if code, body := post("/api/v1/series", "match[]=odd&limit=1"); code != 200 || !strings.Contains(body, "odd") {
		t.Error(code, body)
	}
	if code, body := post("/api/v1/query", "query="+strings.Repeat("1", mostForm)); code != 400 || !strings.Contains(body, "too large") {
		t.Error(code, body)
	}
	if code, body := post("/api/v1/metadata", ""); code != 405 {
		t.Error(code, body)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodDelete, "/api/v1/query", nil))
	if w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD, POST" {
		t.Error(w.Code, w.Header())
	}
}

func TestSeriesThatAreElsewhere(t *testing.T) {
	c := signal.DefaultConfig()
	c.Remote = &signal.RemoteConfig{URL: "http://user:pass@prometheus.example:9090"}
	s, err := signal.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	h := New(Config{Signals: s})
	for _, target := range []string{"/api/v1/query?query=1", "/api/v1/labels", "/api/v1/series?match[]=a"} {
		code, body := get(t, h, target)
		if code != 404 || !strings.Contains(body, "prometheus.example") || strings.Contains(body, "pass") {
			t.Errorf("%s: %d %s", target, code, body)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, remoteWrite(t, oneSeries("x", 1)))
	if w.Code != 404 || !strings.Contains(w.Body.String(), "send them there") {
		t.Errorf("remote write: %d %s", w.Code, w.Body)
	}
}

func TestRequestsWaitTheirTurn(t *testing.T) {
	h := open(t)
	for range cap(h.reads.inside) {
		h.reads.inside <- struct{}{}
	}
	code, body := get(t, h, "/api/v1/query?query=1&timeout=10ms")
	if code != 503 || !strings.Contains(body, `"timeout"`) {
		t.Errorf("all turns taken: %d %s", code, body)
	}
	for range cap(h.reads.all) {
		h.reads.all <- struct{}{}
	}
	if code, body := get(t, h, "/api/v1/query?query=1"); code != 503 || !strings.Contains(body, `"unavailable"`) {
		t.Errorf("too many wait: %d %s", code, body)
	}
}

func TestSlowQueryEnds(t *testing.T) {
	h := open(t)
	code, body := get(t, h, "/api/v1/query?timeout=20ms&query="+url.QueryEscape(`sum(sum_over_time(sum_over_time(sum_over_time(vector(1)[1h:1s])[1h:1s])[1d:1s]))`))
	if code != 503 || !strings.Contains(body, `"errorType":"timeout"`) {
		t.Errorf("%d %s", code, body)
	}
}

func TestClosedService(t *testing.T) {
	h := open(t)
	h.signals.Close()
	if code, body := get(t, h, "/api/v1/query?query=a"); code != 503 || !strings.Contains(body, `"unavailable"`) {
		t.Errorf("%d %s", code, body)
	}
	if code, body := get(t, h, "/api/v1/labels"); code != 503 {
		t.Errorf("%d %s", code, body)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, remoteWrite(t, oneSeries("x", 1)))
	if w.Code != 503 {
		t.Errorf("remote write: %d %s", w.Code, w.Body)
	}
}

func TestStatusPages(t *testing.T) {
	h := open(t)
	for target, want := range map[string]string{
		"/api/v1/status/buildinfo":   `"version":"3.`,
		"/api/v1/status/runtimeinfo": `"goroutineCount":`,
		"/api/v1/metadata?limit=1":   `"latency_seconds":[{"type":"histogram"`,
	} {
		if code, body := get(t, h, target); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", target, code, body)
		}
	}
}

// A large answer is what its series say.
func TestLargeAnswer(t *testing.T) {
	h := open(t)
	now := time.Now()
	a := h.signals.Append(t.Context(), signal.SourcePush)
	for i := range 5000 {
		if _, err := a.Append(0, labels.FromStrings("__name__", "many", "n", fmt.Sprint(i)), 0, now.UnixMilli(), float64(i), nil, nil, storage.AOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Commit(); err != nil {
		t.Fatal(err)
	}
	_, body := get(t, h, "/api/v1/query?query=many")
	var answer struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || len(answer.Data.Result) != 5000 {
		t.Errorf("%d elements, %v", len(answer.Data.Result), err)
	}
}

func TestTargets(t *testing.T) {
	program := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "# HELP app_depth Depth.\n# TYPE app_depth gauge\napp_depth 7\n# TYPE sluice_x gauge\n")
	}))
	defer program.Close()
	dir := t.TempDir()
	host := strings.TrimPrefix(program.URL, "http://")
	files := map[string]string{
		"prometheus.yaml": `
global: {scrape_interval: 100ms, scrape_timeout: 100ms}
scrape_configs:
- job_name: app
  static_configs: [{targets: ["` + host + `"], labels: {zone: a}}]
  metric_relabel_configs: [{source_labels: [__name__], regex: app_(.*), target_label: __name__, replacement: "my_$1"}]
- job_name: more
  file_sd_configs: [{files: [more.json]}]
- job_name: dead
  static_configs: [{targets: ["127.0.0.1:1"]}]
`,
		"more.json": `[{"targets": ["` + host + `"], "labels": {"zone": "b"}}]`,
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := signal.DefaultConfig()
	c.Dir, c.ScrapeConfigFile = filepath.Join(dir, "signals"), filepath.Join(dir, "prometheus.yaml")
	s, err := signal.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	h := New(Config{Signals: s})
	wants := map[string]string{
		"/api/v1/query?query=my_depth":                  `"zone":"a"`,
		"/api/v1/query?query=app_depth":                 `"zone":"b"`,
		`/api/v1/query?query=up%7Bjob="dead"%7D`:        `"0"]`,
		"/api/v1/metadata?metric=app_depth":             `"help":"Depth."`,
		"/api/v1/targets?scrapePool=app":                `"health":"up"`,
		"/api/v1/targets?state=active&scrapePool=dead":  `"health":"down"`,
		"/api/v1/targets?state=dropped&scrapePool=dead": `"activeTargets":[]`,
	}
	deadline := time.After(20 * time.Second)
	for target, want := range wants {
		for {
			code, body := get(t, h, target)
			if code == 200 && strings.Contains(body, want) {
				break
			}
			select {
			case <-deadline:
				t.Fatalf("%s: %s, want %s", target, body, want)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	var list struct {
		Data struct{ ActiveTargets []target }
	}
	_, body := get(t, h, "/api/v1/targets")
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Data.ActiveTargets) != 3 {
		t.Fatal(err, body)
	}
	for _, x := range list.Data.ActiveTargets {
		if x.Interval != "100ms" || x.Labels["job"] != x.Pool || x.Discovered["__address__"] == "" {
			t.Errorf("%+v", x)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{
		"query?query=1&time=5", "query_range?query=sum(a)&start=0&end=1e3&step=1m", "labels?match[]=a&limit=3", "label/U__a_20/values?start=5",
		"series?match[]={a=~\"b\"}&end=2026-11-21T12:00:00Z", "metadata?limit=1", "query?query=rate(requests_total[5s:])&timeout=1ms", "query?lookback_delta=1&query=odd",
	} {
		f.Add(s)
	}
	h := open(f)
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.Parse("/api/v1/" + target)
		if err != nil {
			return
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		q := u.Query()
		q.Set("timeout", "50ms")
		u.RawQuery = q.Encode()
		r.URL = u
		w := httptest.NewRecorder()
		h.ReadHandler().ServeHTTP(w, r)
		if w.Code/100 == 3 { // a path with dots
			return
		}
		if !json.Valid(w.Body.Bytes()) || w.Code == 500 {
			t.Errorf("%s: %d %s", u, w.Code, w.Body)
		}
		if w.Code == 200 != bytes.HasPrefix(w.Body.Bytes(), []byte(`{"status":"success"`)) {
			t.Errorf("%s: %d %s", u, w.Code, w.Body)
		}
	})
}

// The client library of Prometheus, which promtool is made of, understands all answers.
func TestTheClientOfPrometheus(t *testing.T) {
	server := httptest.NewServer(open(t))
	defer server.Close()
	c, err := api.NewClient(api.Config{Address: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	prom := v1.NewAPI(c)
	end := start.Add(9 * time.Second)
	check := func(what string, got any, warnings v1.Warnings, err error, want string) {
		t.Helper()
		if text := fmt.Sprint(got); err != nil || len(warnings) > 0 || !strings.Contains(text, want) {
			t.Errorf("%s = %s, %v, %v; want %s", what, text, warnings, err, want)
		}
	}
	ctx := t.Context()
	v, w, _, err := prom.Query(ctx, `requests_total`, end)
	check("instant query", v, w, err, `requests_total{code="200", job="sluice"} => 20 @[1795262409]`)
	v, w, _, err = prom.Query(ctx, `latency_seconds`, end)
	check("histogram", v, w, err, `Count: 10.000000, Sum: 5.000000, Buckets: [(0.25,0.5]:10]`)
	v, w, _, err = prom.Query(ctx, `odd`, end)
	check("odd values", v, w, err, `=> +Inf @`)
	v, w, _, err = prom.QueryRange(ctx, `latency_seconds`, v1.Range{Start: start, End: end, Step: 5 * time.Second})
	check("range of histograms", v, w, err, `Count: 6.000000`)
	v, w, _, err = prom.QueryRange(ctx, `sum(requests_total)`, v1.Range{Start: start, End: end, Step: time.Second})
	check("range query", v, w, err, "20 @[1795262409]")
	names, w, _, err := prom.LabelNames(ctx, nil, start, end)
	check("label names", names, w, err, "__name__, code, job, kind")
	values, w, _, err := prom.LabelValues(ctx, "code", []string{"requests_total"}, start, end)
	check("label values", values, w, err, "[200 500]")
	series, w, _, err := prom.Series(ctx, []string{"requests_total"}, start, end)
	check("series", series, w, err, `{__name__="requests_total", code="500", job="sluice"}`)
	meta, err := prom.Metadata(ctx, "requests_total", "")
	check("metadata", meta, nil, err, "Requests.")
	info, err := prom.Buildinfo(ctx)
	check("build", info, nil, err, compatible)
	running, err := prom.Runtimeinfo(ctx)
	check("runtime", running.StartTime.Year() > 2000, nil, err, "true")
	targets, err := prom.Targets(ctx)
	check("targets", targets, nil, err, "[]")
	rules, err := prom.Rules(ctx, nil)
	check("rules", rules, nil, err, "[]")
	alerts, err := prom.Alerts(ctx)
	check("alerts", alerts, nil, err, "[]")
	exemplars, err := prom.QueryExemplars(ctx, "requests_total", start, end)
	check("exemplars", exemplars, nil, err, "[]")

	_, _, _, err = prom.Query(ctx, `sum(`, end)
	if problem := (*v1.Error)(nil); !errors.As(err, &problem) || problem.Type != v1.ErrBadData || !strings.Contains(problem.Msg, "parse error") {
		t.Errorf("bad query: %#v", err)
	}
}
