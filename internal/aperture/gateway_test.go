// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	checkv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/check/v1"
	checkhttpv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/checkhttp/v1"
	previewv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/preview/v1"
	"github.com/sluice-project/sluice/internal/flow"
)

// ask sends a request to the HTTP routes.
func ask(t testing.TB, d *Door, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	handler(d).ServeHTTP(w, r)
	return w
}

func object(t testing.TB, w *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	return out
}

const getUser = `{"control_point": "web", "request": {"method": "GET", "path": "/shop?x=1", "host": "shop.example",
	"headers": {"User": "ann", ":path": "/", "baggage": "tier=gold"}, "size": -1, "unknown": 1},
	"source": {"address": "10.0.0.9"}, "destination": {"address": "10.0.0.7", "port": 80, "protocol": "TCP"}}`

func TestCheckHTTPByJSON(t *testing.T) {
	limit := rateSpec(1, 1)
	limit.Selectors = []flow.Selector{{ControlPoint: "web", Service: "shop.example", Match: selectBy("tier", "gold")}}
	limit.LimitBy = "http.request.header.user"
	limit.Bucket.FillAmount = 0.4
	d := newDoor(t, limiters(limit))

	w := ask(t, d, http.MethodPost, "/v1/flowcontrol/checkhttp", getUser)
	if w.Code != http.StatusOK {
		t.Fatalf("got %d: %s", w.Code, w.Body)
	}
	out := object(t, w)
	if code := out["status"].(map[string]any)["code"]; code != 0.0 {
		t.Errorf("got status %v, want 0", code)
	}
	headers := out["ok_response"].(map[string]any)["headers"].(map[string]any)
	if headers["baggage"] != "tier=gold" {
		t.Errorf("got headers %v, want the baggage that came", headers)
	}
	check := out["check_response"].(map[string]any)
	if check["decision_type"] != "DECISION_TYPE_ACCEPTED" || check["reject_reason"] != "REJECT_REASON_NONE" || check["wait_time"] != nil {
		t.Errorf("got %v, want every field, with names as in the protos", check)
	}
	if labels := check["telemetry_flow_labels"].(map[string]any); labels["http.method"] != "GET" || labels["tier"] != "gold" || labels[controlPointType] != "http" {
		t.Errorf("got telemetry labels %v", labels)
	}
	if keys := fmt.Sprint(check["flow_label_keys"]); !strings.Contains(keys, "http.request.header.user") || strings.Contains(keys, "path:") {
		t.Errorf("got keys %s", keys)
	}
	if services := fmt.Sprint(check["services"]); services != "[shop.example]" {
		t.Errorf("got services %s", services)
	}

	w = ask(t, d, http.MethodPost, "/v1/flowcontrol/checkhttp", getUser)
	out = object(t, w)
	denied := out["denied_response"].(map[string]any)
	headers = denied["headers"].(map[string]any)
	if denied["status"] != 429.0 || headers["retry-after"] != "3" || w.Code != http.StatusOK || out["ok_response"] != nil {
		t.Errorf("got %d: %v, want status 200 with a denial of 429 and retry-after 3", w.Code, out)
	}
	if code := out["status"].(map[string]any)["code"]; code != 14.0 {
		t.Errorf("got status %v, want 14", code)
	}
	raw, err := base64.StdEncoding.DecodeString(out["dynamic_metadata"].(map[string]any)[checkResponseKey].(string))
	var inside checkv1.CheckResponse
	if err != nil || proto.Unmarshal(raw, &inside) != nil || !inside.End.IsValid() || inside.WaitTime != nil || accepted(&inside) {
		t.Errorf("got %v, %v in the metadata, want the rejection with its times and without wait_time", &inside, err)
	}
}

func TestCheckHTTPRefusesNonsense(t *testing.T) {
	d := newDoor(t, flow.Set{})
	for _, tt := range []struct {
		body, timeout string
		status        int
		message       string
	}{
		{`{"request": {"path": "/"}}`, "", 400, "missing control-point"},
		{``, "", 400, "missing control-point"},
		{`{"control_point": "web"`, "", 400, "unexpected EOF"},
		{`{"control_point": 7}`, "", 400, "invalid value"},
		{`{"control_point": "web"}`, "soon", 400, "invalid grpc-timeout"},
		{`{"control_point": "web"}`, "123456789S", 400, "invalid grpc-timeout"},
		{`{"control_point": "web", "request": {"size": "9223372036854775808"}}`, "", 400, "invalid"},
		{`{"control_point": "` + strings.Repeat("x", 256) + `"}`, "", 400, "at most 255"},
		{`{"control_point": "web"}`, "250m", 200, ""},
		{`{"control_point": "web"}`, "99999999H", 200, ""},
	} {
		w := ask(t, d, http.MethodPost, "/v1/flowcontrol/checkhttp", tt.body, "Grpc-Timeout", tt.timeout)
		if w.Code != tt.status {
			t.Errorf("%.50s: got %d: %s, want %d", tt.body, w.Code, w.Body, tt.status)
			continue
		}
		if out := object(t, w); tt.status != 200 && (out["code"] != 3.0 || !strings.Contains(strings.ReplaceAll(fmt.Sprint(out["message"]), " ", " "), tt.message)) {
			t.Errorf("%.50s: got %v, want code 3 and %q", tt.body, out, tt.message)
		}
	}
}

// TestHostileHeaders: what would end a header never becomes part of one.
func TestHostileHeaders(t *testing.T) {
	d := newDoor(t, flow.Set{})
	for _, value := range []string{"a=b\r\nx-admin: 1", "a=%0d%0ax-admin:%201", "a=b\u0000", strings.Repeat("k=v,", 5000)} {
		body, err := json.Marshal(map[string]any{"control_point": "web", "request": map[string]any{"headers": map[string]string{"baggage": value, "x\r\ny": "z"}}})
		if err != nil {
			t.Fatal(err)
		}
		w := ask(t, d, http.MethodPost, "/v1/flowcontrol/checkhttp", string(body))
		if w.Code != http.StatusOK {
			t.Fatalf("%.20q: got %d: %s", value, w.Code, w.Body)
		}
		ok, _ := object(t, w)["ok_response"].(map[string]any)
		headers, _ := ok["headers"].(map[string]any)
		if b := fmt.Sprint(headers["baggage"]); strings.ContainsAny(b, "\r\n\x00") {
			t.Errorf("%.20q: got the header %q", value, b)
		}
	}
}

func TestHTTPStatusAndInfo(t *testing.T) {
	d := newDoor(t, flow.Set{})
	for _, tt := range []struct {
		path string
		code int
		want string
	}{
		{"/v1/info/version", 200, `"service":"sluice"`},
		{"/v1/info/process", 200, `"uptime"`},
		{"/v1/info/host", 200, `"hostname"`},
		{"/v1/status", 200, `"readiness"`},
		{"/v1/status/system", 200, `"liveness"`},
		{"/v1/status/system/readiness", 200, `"healthy"`},
		{"/v1/status/system/nothing", 404, `there is no status`},
		{"/v1/status/system/readiness/more", 404, `there is no status`},
		{"/v1/peers", 200, `"self_peer"`},
		{"/v1/peers/address/10.0.0.1", 404, `no peer`},
		{"/v1/distcache/stats", 200, `"entries":0`},
		{"/v1/discovery/entities", 200, `"entities_by_ip_address"`},
		{"/v1/discovery/entities/ip-address/10.0.0.1", 404, `no entity`},
		{"/v1/discovery/entities/name/pod", 404, `no entity`},
		{"/v1/flowcontrol/controlpoints", 200, `"flow_control_points":[]`},
	} {
		w := ask(t, d, http.MethodGet, tt.path, "")
		if got := strings.ReplaceAll(w.Body.String(), `": `, `":`); w.Code != tt.code || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %d: %s, want %d and %s", tt.path, w.Code, got, tt.code, tt.want)
		}
	}
	d.ready = func() error { return fmt.Errorf("policies are being read") }
	if w := ask(t, d, http.MethodGet, "/v1/status/system/readiness", ""); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "policies are being read") {
		t.Errorf("not ready: got %d: %s", w.Code, w.Body)
	}
	if w := ask(t, d, http.MethodGet, "/v1/status/system/liveness", ""); w.Code != http.StatusOK {
		t.Errorf("alive: got %d: %s", w.Code, w.Body)
	}
}

func TestControlPointsThatWereSeen(t *testing.T) {
	d := newDoor(t, flow.Set{})
	check(t, d, &checkv1.CheckRequest{ControlPoint: "feature-1"})
	ask(t, d, http.MethodPost, "/v1/flowcontrol/checkhttp", getUser)
	w := ask(t, d, http.MethodGet, "/v1/flowcontrol/controlpoints", "")
	var got []string
	for _, p := range object(t, w)["flow_control_points"].([]any) {
		p := p.(map[string]any)
		got = append(got, fmt.Sprint(p["service"], " ", p["control_point"], " ", p["type"]))
	}
	slices.Sort(got)
	if want := []string{"any feature-1 feature", "shop.example web http"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPreviews(t *testing.T) {
	d := newDoor(t, flow.Set{})
	passing := make(chan struct{})
	go func() { // flows pass until all previews are over
		for i := 0; ; i++ {
			select {
			case <-passing:
				return
			default:
			}
			f := d.engine.Start(t.Context(), &flow.Request{ControlPoint: "web", Labels: map[string]string{"n": fmt.Sprint(i % 3)}})
			f.Abort()
			ask(t, d, http.MethodPost, "/v1/flowcontrol/checkhttp", getUser)
		}
	}()
	defer close(passing)

	w := ask(t, d, http.MethodPost, "/v1/flowcontrol/preview/labels/web?samples=2", `{"match_labels": {"n": "1"}}`)
	samples, _ := object(t, w)["samples"].([]any)
	if w.Code != http.StatusOK || len(samples) != 2 || fmt.Sprint(samples[0]) != "map[labels:map[n:1]]" {
		t.Errorf("labels: got %d: %s", w.Code, w.Body)
	}
	w = ask(t, d, http.MethodPost, "/v1/flowcontrol/preview/http_requests/shop.example/web?samples=3", "", "Grpc-Timeout", "20S")
	samples, _ = object(t, w)["samples"].([]any)
	if w.Code != http.StatusOK || len(samples) != 3 || !strings.Contains(w.Body.String(), `"parsed_path"`) {
		t.Errorf("requests: got %d: %s", w.Code, w.Body)
	}
	for _, tt := range []struct {
		path, body string
		want       int
	}{
		{"/labels/web?samples=0", "", 400},
		{"/labels/web", "", 400},
		{"/labels/web?samples=100000", "", 400},
		{"/labels/web?samples=1", `{"match_list": [{"key": "n", "operator": "Like"}]}`, 400},
		{"/labels/web?samples=1", `{"expression": {"label_matches": {"label": "n", "regex": "("}}}`, 400},
		{"/labels/web?samples=1", `{"expression": {}}`, 400},
		{"/labels/web?samples=1", strings.Repeat(`{"expression":{"not":`, 1) + strings.Repeat(`{"not":`, 200) + `{"label_exists":"n"}` + strings.Repeat("}", 202), 400},
		{"/labels/nobody/web?samples=1", "", 504},
		{"/labels/elsewhere?samples=1", "", 504},
	} {
		w := ask(t, d, http.MethodPost, "/v1/flowcontrol/preview"+tt.path, tt.body, "Grpc-Timeout", "50m")
		if w.Code != tt.want {
			t.Errorf("%s %.60s: got %d: %s, want %d", tt.path, tt.body, w.Code, w.Body, tt.want)
		}
	}
	if n := d.engine.Taps(); n != 0 {
		t.Errorf("%d previews are still looking", n)
	}
	time.AfterFunc(10*time.Millisecond, d.Drain)
	if w := ask(t, d, http.MethodPost, "/v1/flowcontrol/preview/labels/elsewhere?samples=1", ""); w.Code != http.StatusServiceUnavailable {
		t.Errorf("stopping: got %d: %s", w.Code, w.Body)
	}
}

// TestPreviewsFitIntoAnAnswer: large flows make an answer shorter, and one that is too large is left out.
func TestPreviewsFitIntoAnAnswer(t *testing.T) {
	d := newDoor(t, flow.Set{})
	over := make(chan struct{})
	var passing sync.WaitGroup
	passing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-over:
				return
			default:
			}
			size := 200_000
			if i%2 == 0 {
				size = 2_000_000
			}
			d.engine.Start(context.Background(), &flow.Request{ControlPoint: "cp", Labels: map[string]string{"x": strings.Repeat("y", size)}}).Abort()
			d.engine.Start(context.Background(), &flow.Request{ControlPoint: "none"}).Abort()
		}
	})
	out, err := previewService{d: d}.PreviewFlowLabels(t.Context(), &previewv1.PreviewRequest{ControlPoint: "cp", Samples: 100})
	if n := proto.Size(out); err != nil || n > 4<<20 || len(out.Samples) < 10 || len(out.GetSamples()[0].Labels["x"]) != 200_000 {
		t.Errorf("got %d samples of %d bytes, %v", len(out.GetSamples()), n, err)
	}
	out, err = previewService{d: d}.PreviewFlowLabels(t.Context(), &previewv1.PreviewRequest{ControlPoint: "none", Samples: 2})
	if err != nil || len(out.Samples) != 2 {
		t.Errorf("flows without labels: got %v, %v, want two", out, err)
	}
	close(over)
	passing.Wait()
}

func TestMatchers(t *testing.T) {
	d := newDoor(t, flow.Set{})
	for _, tt := range []struct {
		matcher string
		want    bool
	}{
		{``, true},
		{`{}`, true},
		{`{"match_labels": {"a": "1"}}`, true},
		{`{"match_labels": {"a": "2"}}`, false},
		{`{"match_expressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}`, true},
		{`{"match_expressions": [{"key": "a", "operator": "Exists"}], "match_list": [{"key": "a", "operator": "DoesNotExist"}]}`, false},
		{`{"match_list": [{"key": "a", "operator": "In", "values": ["0", "1"]}]}`, true},
		{`{"expression": {"all": {"of": [{"label_exists": "a"}, {"not": {"label_equals": {"label": "a", "value": "2"}}}]}}}`, true},
		{`{"expression": {"any": {"of": []}}}`, false},
		{`{"expression": {"label_matches": {"label": "a", "regex": "^[12]$"}}}`, true},
	} {
		seen := make(chan int, 1)
		go func() {
			w := ask(t, d, http.MethodPost, "/v1/flowcontrol/preview/labels/cp?samples=1", tt.matcher, "Grpc-Timeout", "100m")
			seen <- w.Code
		}()
		code := 0
		for code == 0 {
			d.engine.Start(t.Context(), &flow.Request{ControlPoint: "cp", Labels: map[string]string{"a": "1"}}).Abort()
			select {
			case code = <-seen:
			default:
			}
		}
		if (code == http.StatusOK) != tt.want {
			t.Errorf("%s: got %d, want a match: %t", tt.matcher, code, tt.want)
		}
	}
}

func FuzzCheckHTTP(f *testing.F) {
	d := newDoor(f, limiters(rateSpec(1, 5)))
	f.Add(getUser, "250m")
	f.Add(`{"controlPoint": "rate", "request": {"headers": {"baggage": "user=%ff%00,tokens=-1"}}, "rampMode": true}`, "0n")
	f.Add(`{"control_point": "rate", "request": {"headers": {"baggage": "user=%ff%00\r\n"}}, "expect_end": true}`, "")
	f.Fuzz(func(t *testing.T, body, timeout string) {
		if n, ok := parseTimeout(timeout); ok && n < 0 {
			t.Errorf("time-out %q is %s", timeout, n)
		}
		w := ask(t, d, http.MethodPost, "/v1/flowcontrol/checkhttp", body)
		if w.Code != http.StatusOK && w.Code != http.StatusBadRequest {
			t.Fatalf("got %d: %s", w.Code, w.Body)
		}
		var out checkhttpv1.CheckHTTPResponse
		if w.Code != http.StatusOK {
			return
		}
		if err := protojson.Unmarshal(w.Body.Bytes(), &out); err != nil {
			t.Fatalf("%v: %s", err, w.Body)
		}
		for _, headers := range []map[string]string{out.GetOkResponse().GetHeaders(), out.GetDeniedResponse().GetHeaders()} {
			for name, value := range headers {
				if strings.ContainsAny(name+value, "\r\n\x00") {
					t.Errorf("header %q: %q", name, value)
				}
			}
		}
		if _, err := readCheckResponse(out.DynamicMetadata.Fields[checkResponseKey].GetStringValue()); err != nil {
			t.Errorf("the copy for records cannot be read: %v", err)
		}
	})
}
