// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	checkv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/check/v1"
	"github.com/sluice-project/sluice/internal/flow"
)

func toJSON(t testing.TB, r *checkv1.CheckResponse, o protojson.MarshalOptions) string {
	t.Helper()
	b, err := o.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// fromProtobufJS is what JSON.stringify makes of the objects of Aperture's client for JavaScript: enums are numbers,
// bytes are objects, and durations lack zeros.
func fromProtobufJS(t testing.TB, r *checkv1.CheckResponse) string {
	t.Helper()
	b, err := json.Marshal(map[string]any{
		"start": "2024-01-01T00:00:00.000Z", "waitTime": "1.5000000s", "decisionType": int(r.DecisionType),
		"telemetryFlowLabels": r.TelemetryFlowLabels,
		"cacheLookupResponse": map[string]any{"resultCacheResponse": map[string]any{
			"value": map[string]any{"type": "Buffer", "data": []int{1, 2}}, "lookupStatus": 0,
		}},
		"limiterDecisions": []any{map[string]any{"details": "rateLimiterInfo", "waitTime": nil}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRecordsInEveryEncoding(t *testing.T) {
	d := newDoor(t, limiters(slotSpec(1, flow.ConcurrencyLimiter, 1)))
	binary := func(r *checkv1.CheckResponse) []byte {
		b, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	encodings := map[string]func(*checkv1.CheckResponse) string{
		"camelCase": func(r *checkv1.CheckResponse) string { return toJSON(t, r, protojson.MarshalOptions{}) },
		"all fields, several lines": func(r *checkv1.CheckResponse) string {
			return toJSON(t, r, protojson.MarshalOptions{EmitUnpopulated: true, Multiline: true})
		},
		"snake_case, numbers": func(r *checkv1.CheckResponse) string {
			return toJSON(t, r, protojson.MarshalOptions{UseProtoNames: true, UseEnumNumbers: true})
		},
		"protobufjs":    func(r *checkv1.CheckResponse) string { return fromProtobufJS(t, r) },
		"base64":        func(r *checkv1.CheckResponse) string { return base64.StdEncoding.EncodeToString(binary(r)) },
		"base64url":     func(r *checkv1.CheckResponse) string { return base64.RawURLEncoding.EncodeToString(binary(r)) },
		"as proxies do": encode,
	}
	n := 0.0
	for name, encode := range encodings {
		r := check(t, d, &checkv1.CheckRequest{ControlPoint: "concurrency_limiter"})
		if !accepted(r) {
			t.Fatalf("%s: the record before did not free the slot", name)
		}
		values := map[string]any{sourceKey: "sdk", statusKey: "OK", checkResponseKey: encode(r)}
		if got := d.take(attributes(t, values)); got != recordEnded {
			t.Errorf("%s: got %s, want ended", name, got)
		}
		if got := d.take(attributes(t, values)); got != recordRepeated {
			t.Errorf("%s, again: got %s, want repeated", name, got)
		}
		n++
	}
	wantRecords(t, d, recordEnded, n)
	wantRecords(t, d, recordRepeated, n)
	if !accepted(check(t, d, &checkv1.CheckRequest{ControlPoint: "concurrency_limiter"})) {
		t.Error("the last record did not free the slot")
	}
}

// TestRecordAfterFlowEnd: FlowEnd frees the slots at once, the record settles the flow, in either order.
func TestRecordAfterFlowEnd(t *testing.T) {
	for _, recordFirst := range []bool{false, true} {
		d := newDoor(t, limiters(slotSpec(1, flow.ConcurrencyLimiter, 1)))
		in := &checkv1.CheckRequest{ControlPoint: "concurrency_limiter", ExpectEnd: true}
		r := check(t, d, in)
		record := attributes(t, map[string]any{sourceKey: "sdk", statusKey: "Error", checkResponseKey: encode(r)})
		if recordFirst {
			d.take(record)
		}
		if s := flowEnd(t, d, refs(r)...)[0]; s.Returned == recordFirst || s.Error != "" {
			t.Errorf("record first %t: got %v", recordFirst, s)
		}
		if !recordFirst {
			if got := d.take(record); got != recordEnded {
				t.Errorf("got %s, want ended", got)
			}
		}
		if p := d.point("concurrency_limiter"); p.Failed != 1 {
			t.Errorf("record first %t: got %d failed flows, want 1", recordFirst, p.Failed)
		}
		if !accepted(check(t, d, in)) || accepted(check(t, d, in)) {
			t.Error("want that one slot is free")
		}
	}
}

func TestRecordsThatEndNothing(t *testing.T) {
	d := newDoor(t, limiters(rateSpec(1, 1)))
	in := &checkv1.CheckRequest{ControlPoint: "rate", Labels: map[string]string{"user": "ann"}}
	good, rejected := check(t, d, in), check(t, d, in)
	foreign := proto.CloneOf(good)
	foreign.TelemetryFlowLabels[TokenLabel] = strings.Repeat("A", 100)
	odd := proto.CloneOf(good)
	odd.TelemetryFlowLabels[TokenLabel] = "no base64!"
	bare := proto.CloneOf(good)
	delete(bare.TelemetryFlowLabels, TokenLabel)
	for _, tt := range []struct {
		name   string
		source any
		check  any
		want   recordResult
	}{
		{"no source", nil, encode(good), recordForeign},
		{"source is a number", 7, encode(good), recordForeign},
		{"no answer", "sdk", nil, recordUndecided},
		{"no answer, as Envoy writes it", "envoy", "-", recordUndecided},
		{"answer is a number", "sdk", 7, recordUndecided},
		{"half of JSON", "sdk", `{"decisionType":`, recordGarbage},
		{"JSON of something else", "sdk", `{"telemetryFlowLabels":[1]}`, recordGarbage},
		{"no base64", "sdk", "\x00\x01*", recordGarbage},
		{"base64 of something else", "sdk", "////", recordGarbage},
		{"rejected", "sdk", encode(rejected), recordRejected},
		{"rejected, JSON", "sdk", toJSON(t, rejected, protojson.MarshalOptions{}), recordRejected},
		{"rejected, JSON with numbers", "sdk", fromProtobufJS(t, rejected), recordRejected},
		{"of an agent of Aperture", "sdk", encode(bare), recordNoToken},
		{"empty object", "sdk", "{}", recordNoToken},
		{"token is no text", "sdk", `{"telemetryFlowLabels":{"sluice.flow":{"a":1}}}`, recordNoToken},
		{"token of nobody", "sdk", encode(foreign), recordBadToken},
		{"token is no base64", "sdk", encode(odd), recordBadToken},
	} {
		values := map[string]any{statusKey: "OK"}
		if tt.source != nil {
			values[sourceKey] = tt.source
		}
		if tt.check != nil {
			values[checkResponseKey] = tt.check
		}
		if got := d.take(attributes(t, values)); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
	if got := d.take(attributes(t, map[string]any{sourceKey: "sdk", checkResponseKey: encode(good)})); got != recordEnded {
		t.Errorf("got %s, want that the good one still ends its flow", got)
	}
}

func TestOutcomes(t *testing.T) {
	const day = int64(1_750_000_000) * 1e9 // some nanosecond
	for _, tt := range []struct {
		name   string
		values map[string]any
		want   flow.Outcome
	}{
		{"sdk, nanoseconds", map[string]any{
			sourceKey: "sdk", statusKey: "OK", flowStartKey: day, workloadStartKey: day + 2e6, flowEndKey: day + 10e6,
		}, flow.Outcome{Duration: 8 * time.Millisecond, Attributes: map[string]float64{flowDuration: 10, workloadDuration: 8}}},
		{"JavaScript, milliseconds", map[string]any{
			sourceKey: "sdk", statusKey: "Error", flowStartKey + "_ms": int64(1000), workloadStartKey + "_ms": 1002.0, flowEndKey + "_ms": "1010",
		}, flow.Outcome{Failed: true, Duration: 8 * time.Millisecond, Attributes: map[string]float64{flowDuration: 10, workloadDuration: 8}}},
		{"both, of which milliseconds count", map[string]any{
			sourceKey: "sdk", flowStartKey: day, flowEndKey: day, flowStartKey + "_ms": int64(1000), flowEndKey + "_ms": int64(1001),
		}, flow.Outcome{Attributes: map[string]float64{flowDuration: 1}}},
		{"Lua, milliseconds without saying so", map[string]any{
			sourceKey: "lua", flowStartKey: int64(1000), workloadStartKey: int64(1003), flowEndKey: int64(1010),
			httpStatusKey: "503", receivedKey: "12", sentKey: int64(34),
		}, flow.Outcome{Failed: true, HTTPStatus: 503, Duration: 7 * time.Millisecond, Attributes: map[string]float64{
			flowDuration: 10, workloadDuration: 7, requestLength: 12, responseLength: 34, receivedKey: 12, sentKey: 34, httpStatusKey: 503,
		}}},
		{"Envoy", map[string]any{
			sourceKey: "envoy", httpStatusKey: "200", authzKey: "3", responseKey: "11", receivedKey: "5", sentKey: "600", "DURATION": "12", "REQUEST_DURATION": "-",
		}, flow.Outcome{HTTPStatus: 200, Duration: 8 * time.Millisecond, Attributes: map[string]float64{
			flowDuration: 11, workloadDuration: 8, requestLength: 5, responseLength: 600, receivedKey: 5, sentKey: 600,
			"DURATION": 12, responseKey: 11, authzKey: 3, httpStatusKey: 200,
		}}},
		{"Envoy, asked longer than answered", map[string]any{
			sourceKey: "envoy", httpStatusKey: "500", authzKey: "12", responseKey: "11",
		}, flow.Outcome{Failed: true, HTTPStatus: 500, Attributes: map[string]float64{
			flowDuration: 11, responseKey: 11, authzKey: 12, httpStatusKey: 500,
		}}},
		{"nothing known", map[string]any{sourceKey: "envoy", httpStatusKey: "-", responseKey: "-"}, flow.Outcome{Attributes: map[string]float64{}}},
		{"clock went back", map[string]any{
			sourceKey: "sdk", flowStartKey: day, workloadStartKey: day, flowEndKey: day - 1e9,
		}, flow.Outcome{Attributes: map[string]float64{}}},
		{"nonsense", map[string]any{
			sourceKey: "sdk", flowStartKey: int64(math.MinInt64), flowEndKey: int64(math.MaxInt64), workloadStartKey: math.NaN(),
			httpStatusKey: "9999", "x": math.Inf(1), "y": "1e999", "z": []any{1}, statusKey: 7,
		}, flow.Outcome{Attributes: map[string]float64{httpStatusKey: 9999}}},
	} {
		r := record{attributes(t, tt.values)}
		source, _ := r.text(sourceKey)
		got := r.outcome(source)
		if got.Failed != tt.want.Failed || got.HTTPStatus != tt.want.HTTPStatus || got.Duration != tt.want.Duration ||
			!maps.Equal(got.Attributes, tt.want.Attributes) {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
	many := map[string]any{}
	for i := range 1000 {
		many[strings.Repeat("k", i+1)] = i
	}
	if got := (record{attributes(t, many)}).outcome("sdk"); len(got.Attributes) > mostNumbers {
		t.Errorf("got %d numbers, want at most %d", len(got.Attributes), mostNumbers)
	}
}

func FuzzCheckResponse(f *testing.F) {
	d := newDoor(f, flow.Set{})
	r := Respond(mustStart(f, d), &flow.Request{ControlPoint: "x"}, Details{})
	f.Add(encode(r))
	f.Add(toJSON(f, r, protojson.MarshalOptions{}))
	f.Add(fromProtobufJS(f, r))
	f.Add(`{"telemetry_flow_labels":{"sluice.flow":null},"decision_type":1}`)
	f.Add("CAE=")
	f.Fuzz(func(t *testing.T, s string) {
		b, err := readCheckResponse(s)
		if err != nil && b.token != "" && strings.HasPrefix(strings.TrimSpace(s), "{") {
			t.Errorf("got %+v with an error", b)
		}
		var want checkv1.CheckResponse
		raw, derr := decodeBase64(strings.TrimSpace(s))
		if derr == nil && len(raw) > 0 && !strings.HasPrefix(strings.TrimSpace(s), "{") && proto.Unmarshal(raw, &want) == nil {
			if err != nil || b.token != want.TelemetryFlowLabels[TokenLabel] ||
				b.rejected != (want.DecisionType == checkv1.CheckResponse_DECISION_TYPE_REJECTED) {
				t.Errorf("got %+v, %v; protobuf reads %v", b, err, &want)
			}
		}
		d.take(attributes(t, map[string]any{sourceKey: "sdk", checkResponseKey: s}))
	})
}

func mustStart(t testing.TB, d *Door) *flow.Flow {
	t.Helper()
	f, err := d.decide(t.Context(), &flow.Request{ControlPoint: "x", QueueTimeout: -1, Explain: true})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func FuzzAttributes(f *testing.F) {
	f.Add("sdk", "OK", "1000", "2000", "503", int64(5), 7.5)
	f.Add("envoy", "-", "-", "1e308", "-1", int64(math.MinInt64), math.NaN())
	f.Add("lua", "Error", "9223372036854775807", "-9223372036854775808", "0x1p4", int64(math.MaxInt64), math.Inf(-1))
	f.Fuzz(func(t *testing.T, source, status, a, b, c string, n int64, x float64) {
		r := record{attributes(t, map[string]any{
			sourceKey: source, statusKey: status, flowStartKey: a, flowEndKey: b, flowEndKey + "_ms": x, workloadStartKey: n,
			httpStatusKey: c, responseKey: x, authzKey: n, receivedKey: x, sentKey: b, a: c, b: x,
		})}
		o := r.outcome(source)
		if o.Duration < 0 || o.HTTPStatus != 0 && (o.HTTPStatus < 100 || o.HTTPStatus > 599) || len(o.Attributes) > mostNumbers {
			t.Errorf("got %+v", o)
		}
		for key, v := range o.Attributes {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				t.Errorf("%s is %v", key, v)
			}
		}
	})
}

func FuzzFlowEndRef(f *testing.F) {
	d := newDoor(f, limiters(slotSpec(1, flow.ConcurrencyLimiter, 1)))
	good := refs(check(f, d, &checkv1.CheckRequest{ControlPoint: "concurrency_limiter"}))[0]
	f.Add(good.PolicyName, good.PolicyHash, good.ComponentId, "", 1.0)
	f.Add(good.PolicyName, good.PolicyHash, good.ComponentId, good.RequestId[:40]+"#", 1.0)
	f.Add("", "", "", "AAAA#811c9dc5", math.NaN())
	f.Fuzz(func(t *testing.T, policy, hash, component, id string, tokens float64) {
		if id == good.RequestId {
			return
		}
		ref := &checkv1.InflightRequestRef{PolicyName: policy, PolicyHash: hash, ComponentId: component, RequestId: id, Tokens: tokens}
		if s := flowEnd(t, d, ref)[0]; s.Returned || s.Error == "" {
			t.Errorf("got %v, want an error", s)
		}
	})
}
