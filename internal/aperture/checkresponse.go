// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// brief is what a record needs of the CheckResponse that it carries. All the rest is in the token.
type brief struct {
	token    string // "": there is none
	rejected bool
}

var errCheckResponse = errors.New("no CheckResponse")

// Numbers of the fields of CheckResponse.
const (
	fieldLabels   = 7
	fieldDecision = 8
)

// readCheckResponse reads a CheckResponse as clients write it into records: JSON, or protobuf in base64. JSON comes
// from half a dozen libraries, which disagree about names, enums, bytes and durations, so only the two fields that
// are wanted are looked at, under both names that they have.
func readCheckResponse(s string) (brief, error) {
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "{") {
		return readJSON(s)
	}
	b, err := decodeBase64(s)
	if err != nil || len(b) == 0 {
		return brief{}, errCheckResponse
	}
	return readProto(b)
}

func readJSON(s string) (brief, error) {
	var m struct {
		Labels        map[string]json.RawMessage `json:"telemetryFlowLabels"`
		LabelsSnake   map[string]json.RawMessage `json:"telemetry_flow_labels"`
		Decision      json.RawMessage            `json:"decisionType"`
		DecisionSnake json.RawMessage            `json:"decision_type"`
	}
	if err := json.Unmarshal([]byte(s), &m); err != nil {
		return brief{}, errCheckResponse
	}
	var out brief
	for _, labels := range []map[string]json.RawMessage{m.Labels, m.LabelsSnake} {
		if raw, ok := labels[TokenLabel]; ok {
			_ = json.Unmarshal(raw, &out.token) // what is no string is no token
		}
	}
	for _, d := range []json.RawMessage{m.Decision, m.DecisionSnake} {
		switch string(d) {
		case "1", `"1"`, `"DECISION_TYPE_REJECTED"`:
			out.rejected = true
		}
	}
	return out, nil
}

// decodeBase64 takes both alphabets, with padding and without, and lines.
func decodeBase64(s string) ([]byte, error) {
	s = strings.Map(func(r rune) rune {
		switch r {
		case '-':
			return '+'
		case '_':
			return '/'
		case '\n', '\r', ' ', '=':
			return -1
		}
		return r
	}, s)
	return base64.RawStdEncoding.DecodeString(s)
}

// readProto walks over the fields, which takes no memory whatever the message has in it.
func readProto(b []byte) (out brief, err error) {
	err = eachField(b, func(number protowire.Number, n uint64, value []byte) error {
		switch number {
		case fieldDecision:
			out.rejected = n == 1
		case fieldLabels:
			key, label, err := readEntry(value)
			if err == nil && key == TokenLabel {
				out.token = label
			}
			return err
		}
		return nil
	})
	return out, err
}

// readEntry reads an entry of a map of strings.
func readEntry(b []byte) (key, value string, err error) {
	err = eachField(b, func(number protowire.Number, _ uint64, v []byte) error {
		switch number {
		case 1:
			key = string(v)
		case 2:
			value = string(v)
		}
		return nil
	})
	return key, value, err
}

// eachField calls f with the fields of a message: n is set for varints, value for what has a length.
func eachField(b []byte, f func(number protowire.Number, n uint64, value []byte) error) error {
	for len(b) > 0 {
		number, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return errCheckResponse
		}
		b = b[size:]
		var n uint64
		var value []byte
		switch kind {
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			value, size = protowire.ConsumeBytes(b)
		default:
			size = protowire.ConsumeFieldValue(number, kind, b)
		}
		if size < 0 {
			return errCheckResponse
		}
		b = b[size:]
		if err := f(number, n, value); err != nil {
			return err
		}
	}
	return nil
}
