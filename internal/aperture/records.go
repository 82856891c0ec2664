// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"math"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/sluice-project/sluice/internal/flow"
)

// Attributes of records. The times have a variant that ends in _ms.
const (
	sourceKey        = "aperture.source"
	statusKey        = "aperture.flow.status"
	flowStartKey     = "aperture.flow_start_timestamp"
	workloadStartKey = "aperture.workload_start_timestamp"
	flowEndKey       = "aperture.flow_end_timestamp"
	httpStatusKey    = "http.status_code"
	authzKey         = "authz_duration"
	responseKey      = "RESPONSE_DURATION"
	receivedKey      = "BYTES_RECEIVED"
	sentKey          = "BYTES_SENT"
)

// Sources of records.
const (
	sourceEnvoy = "envoy"
	sourceLua   = "lua"
)

// Numbers of records that flux meters may measure under these names.
const (
	workloadDuration = "workload_duration_ms"
	flowDuration     = "flow_duration_ms"
	requestLength    = "http.request_content_length"
	responseLength   = "http.response_content_length"
)

// mostNumbers bounds the numbers of one record that flux meters may measure.
const mostNumbers = 64

// take ends the flow that a record is about.
func (d *Door) take(attributes pcommon.Map) recordResult {
	result := d.end(attributes)
	d.metrics.records[result].Inc()
	return result
}

func (d *Door) end(attributes pcommon.Map) recordResult {
	r := record{attributes}
	source, ok := r.text(sourceKey)
	if !ok {
		return recordForeign
	}
	check, ok := r.text(checkResponseKey)
	if !ok {
		return recordUndecided
	}
	b, err := readCheckResponse(check)
	switch {
	case err != nil:
		return recordGarbage
	case b.token == "" && b.rejected:
		return recordRejected
	case b.token == "":
		return recordNoToken
	}
	token, err := decodeToken(b.token)
	if err != nil {
		return recordBadToken
	}
	outcome := r.outcome(source)
	result, err := d.engine.EndToken(token, &outcome)
	switch {
	case err != nil:
		return recordBadToken
	case result == flow.AlreadyEnded:
		return recordRepeated
	case result == flow.Expired:
		return recordExpired
	}
	return recordEnded
}

// record reads the attributes of a span or log line.
type record struct{ attributes pcommon.Map }

// text of an attribute; "-" and nothing are what proxies write for what they do not know.
func (r record) text(key string) (string, bool) {
	v, ok := r.attributes.Get(key)
	if !ok || v.Type() != pcommon.ValueTypeStr || v.Str() == "" || v.Str() == "-" {
		return "", false
	}
	return v.Str(), true
}

// number of an attribute, whatever its type. It is finite.
func (r record) number(key string) (float64, bool) {
	v, ok := r.attributes.Get(key)
	if !ok {
		return 0, false
	}
	return number(v)
}

func number(v pcommon.Value) (n float64, ok bool) {
	switch v.Type() {
	case pcommon.ValueTypeInt:
		return float64(v.Int()), true
	case pcommon.ValueTypeDouble:
		n = v.Double()
	case pcommon.ValueTypeStr:
		var err error
		if n, err = strconv.ParseFloat(strings.TrimSpace(v.Str()), 64); err != nil {
			return 0, false
		}
	default:
		return 0, false
	}
	return n, !math.IsNaN(n) && !math.IsInf(n, 0)
}

// clock reads a time in nanoseconds since any moment: SDKs for Python count from the start of the machine. The
// variant of its key that ends in _ms counts before the other one, which Lua's plugins write in milliseconds, too.
func (r record) clock(key, source string) (int64, bool) {
	if v, ok := r.attributes.Get(key + "_ms"); ok {
		return nanoseconds(v, 1e6)
	}
	v, ok := r.attributes.Get(key)
	if !ok {
		return 0, false
	}
	unit := int64(1)
	if source == sourceLua {
		unit = 1e6
	}
	return nanoseconds(v, unit)
}

// nanoseconds reads a number of units. Integers are exact: the times of today have more digits than a float.
func nanoseconds(v pcommon.Value, unit int64) (int64, bool) {
	const most = math.MaxInt64 / 2 // so that the difference of two fits
	if v.Type() == pcommon.ValueTypeInt {
		n := v.Int()
		return n * unit, n <= most/unit && n >= -most/unit
	}
	n, ok := number(v)
	n *= float64(unit)
	if !ok || math.Abs(n) > most {
		return 0, false
	}
	return int64(n), true
}

// outcome tells how the work of a flow went.
func (r record) outcome(source string) flow.Outcome {
	o := flow.Outcome{Attributes: make(map[string]float64, 4)}
	if code, ok := r.number(httpStatusKey); ok && code >= 100 && code < 600 {
		o.HTTPStatus = int(code)
	}
	if status, ok := r.text(statusKey); ok {
		o.Failed = strings.EqualFold(status, "error")
	} else {
		o.Failed = o.HTTPStatus >= 500
	}
	if source == sourceEnvoy || source == sourceLua {
		r.proxied(&o)
	}
	if source == sourceEnvoy {
		r.envoyTimes(&o)
	} else {
		r.clocks(&o, source)
	}
	r.numbers(&o)
	if ms, ok := o.Attributes[workloadDuration]; ok {
		o.Duration = time.Duration(ms * float64(time.Millisecond))
	}
	return o
}

func milliseconds(ns int64) float64 { return float64(ns) / 1e6 }

// longest is the longest duration that a record may tell, in milliseconds: a year.
const longest = 366 * 24 * 3600 * 1000

// put keeps a number that makes sense as a duration or length.
func put(o *flow.Outcome, key string, n float64, ok bool) {
	if ok && n >= 0 && n <= longest {
		o.Attributes[key] = n
	}
}

// clocks tells durations by the times that SDKs write.
func (r record) clocks(o *flow.Outcome, source string) {
	end, ended := r.clock(flowEndKey, source)
	start, started := r.clock(flowStartKey, source)
	put(o, flowDuration, milliseconds(end-start), ended && started)
	start, started = r.clock(workloadStartKey, source)
	put(o, workloadDuration, milliseconds(end-start), ended && started)
}

// envoyTimes tells durations by what Envoy measured.
func (r record) envoyTimes(o *flow.Outcome) {
	response, ok := r.number(responseKey)
	put(o, flowDuration, response, ok)
	authz, asked := r.number(authzKey)
	if work := response - authz; ok && asked && work > 0 {
		put(o, workloadDuration, work, true)
	}
}

// proxied tells the lengths that proxies count: they receive requests and send responses.
func (r record) proxied(o *flow.Outcome) {
	const most = 1 << 53
	if n, ok := r.number(receivedKey); ok && n >= 0 && n <= most {
		o.Attributes[requestLength] = n
	}
	if n, ok := r.number(sentKey); ok && n >= 0 && n <= most {
		o.Attributes[responseLength] = n
	}
}

// numbers keeps what else is a number, for flux meters that measure it.
func (r record) numbers(o *flow.Outcome) {
	for key, v := range r.attributes.All() {
		if len(o.Attributes) >= mostNumbers {
			return
		}
		if _, known := o.Attributes[key]; known || strings.HasPrefix(key, "aperture.") {
			continue
		}
		if n, ok := number(v); ok {
			o.Attributes[key] = n
		}
	}
}
