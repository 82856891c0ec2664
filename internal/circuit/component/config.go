// SPDX-License-Identifier: Apache-2.0

package component

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/sluice-project/sluice/internal/fielderr"
)

// boolOf reads a truth value of the dynamic configuration. A key that is "" or missing means otherwise.
func boolOf(lookup func(string) (any, bool), key string, otherwise bool) (bool, error) {
	value, ok := find(lookup, key)
	if !ok {
		return otherwise, nil
	}
	if b, ok := value.(bool); ok {
		return b, nil
	}
	return otherwise, wrongType(key, value, "true or false")
}

// numberOf reads a number of the dynamic configuration. A key that is "" or missing means otherwise.
//
// A number may be written as in documents, too: {value: 1.5} or {special_value: NaN}; and NaN, +Inf and
// -Inf as text, because JSON has no numbers for them.
func numberOf(lookup func(string) (any, bool), key string, otherwise float64) (float64, error) {
	value, ok := find(lookup, key)
	if !ok {
		return otherwise, nil
	}
	if m, ok := value.(map[string]any); ok && len(m) == 1 {
		for name, inner := range m {
			_, isText := inner.(string)
			if name == "value" && !isText || name == "special_value" && isText {
				value = inner
			}
		}
	}
	if v, ok := number(value); ok {
		return v, nil
	}
	return otherwise, wrongType(key, value, "a number, or one of the texts NaN, +Inf and -Inf")
}

func find(lookup func(string) (any, bool), key string) (any, bool) {
	if key == "" {
		return nil, false
	}
	return lookup(key)
}

// number converts what decoders of JSON and YAML make of numbers.
func number(value any) (float64, bool) {
	switch v := value.(type) {
	case float64:
		return v, true
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	case json.Number:
		f, err := v.Float64()
		return f, err == nil
	case string:
		switch v {
		case "NaN":
			return math.NaN(), true
		case "+Inf":
			return math.Inf(1), true
		case "-Inf":
			return math.Inf(-1), true
		}
	}
	return 0, false
}

func wrongType(key string, got any, want string) error {
	return &fielderr.Error{
		Path: key, Got: describe(got), Want: want,
		Hint: "correct the value, or delete the key to go back to that of the policy",
	}
}

// describe prints a value of the dynamic configuration for people.
func describe(value any) string {
	const longest = 60
	switch v := value.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case string:
		if r := []rune(v); len(r) > longest {
			return "the text " + strconv.Quote(string(r[:longest])) + "…"
		}
		return "the text " + strconv.Quote(v)
	case []any:
		return fmt.Sprintf("a list of %d", len(v))
	case map[string]any:
		return "a mapping"
	}
	if v, ok := number(value); ok {
		return "the number " + strconv.FormatFloat(v, 'g', -1, 64)
	}
	return fmt.Sprintf("a %T", value)
}
