// SPDX-License-Identifier: Apache-2.0

package classify

import (
	"encoding/json"
	"strconv"
	"strings"
)

// The bounds of JSON of which all values are made, for Rego and for request.json of CEL. A body beyond them counts
// as truncated. The values together take some ten megabytes. Numbers are those of float64 and somewhat more, as
// arithmetic on 1e999999999 would take the memory of all its digits.
const (
	maxJSONValues   = 50_000
	maxNumberDigits = 1000
)

// Truncated tells whether the body is only the beginning of what the client sent, or longer than limit: Size or the
// header content-length say more, or Envoy says so, whose Size is that before filters which change bodies. The error is
// that of a content-length that is no number.
func (r *Request) Truncated(limit int) (bool, error) {
	partial, says := r.Headers["x-envoy-auth-partial-body"]
	if !r.Envoy {
		partial, says = "", false
	}
	if len(r.Body) > limit || partial == "true" || !says && r.Size > int64(len(r.Body)) {
		return true, nil
	}
	text, ok := r.Headers["content-length"]
	if !ok {
		return false, nil
	}
	length, err := strconv.ParseInt(text, 10, 64)
	return length > int64(len(r.Body)), err
}

// CheckJSON tells whether the text is JSON, and whether it is too much: more than 50,000 values, numbers with
// more than 1000 digits, or more than 200 levels. It takes no memory.
func CheckJSON(text string) (valid, tooMuch bool) {
	s := scanner{text: text}
	valid = s.scan()
	return valid, s.values > maxJSONValues || s.hugest > maxNumberDigits
}

// bodyJSON is the body as JSON, for all expressions of a flow.
func (in *Input) bodyJSON(b Bounds) (any, bool) {
	p := &in.parsed
	if p.jsonRead {
		return p.json, p.hasJSON
	}
	p.jsonRead = true
	body := in.Request.Body
	if cut, err := in.Request.Truncated(b.MaxBodyBytes); cut || err != nil || body == "" {
		return nil, false
	}
	valid, tooMuch := CheckJSON(body)
	if !valid {
		in.Note(MalformedJSON)
	}
	if !valid || tooMuch {
		return nil, false
	}
	d := json.NewDecoder(strings.NewReader(body))
	d.UseNumber()
	if d.Decode(&p.json) != nil {
		return nil, false
	}
	p.json, p.hasJSON = numbers(p.json), true
	return p.json, true
}

// numbers replaces json.Number by int64 where that is exact, else by float64.
func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64() // infinite when it is too large, which is what is closest
		return f
	case map[string]any:
		for key, value := range v {
			v[key] = numbers(value)
		}
	case []any:
		for i, value := range v {
			v[i] = numbers(value)
		}
	}
	return v
}

// anyText is the text of a value of metadata, as encoding/json reads them.
func anyText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case float64:
		return formatFloat(v), true
	}
	text, err := json.Marshal(v)
	return string(text), err == nil
}

// parsed are parts of a request that all classifiers of a flow share.
type parsed struct {
	json              any
	jsonRead, hasJSON bool
	shared            any
}

// Shared returns what build makes of the input, once for all rulesets of a language. Only one language uses it.
func (in *Input) Shared(build func(*Input) any) any {
	if in.parsed.shared == nil {
		in.parsed.shared = build(in)
	}
	return in.parsed.shared
}
