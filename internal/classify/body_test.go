// SPDX-License-Identifier: Apache-2.0

package classify

import "testing"

func TestTruncated(t *testing.T) {
	header := func(name, value string) map[string]string { return map[string]string{name: value} }
	for name, tt := range map[string]struct {
		request Request
		want    bool
	}{
		"whole":                         {Request{Body: "hello", Size: 5}, false},
		"unknown size":                  {Request{Body: "hello", Size: -1}, false},
		"size says more":                {Request{Body: "hello", Size: 6}, true},
		"size says less":                {Request{Body: "hello", Size: 4}, false},
		"longer than the limit":         {Request{Body: "hello world", Size: 11}, true},
		"content-length says more":      {Request{Body: "hello", Size: -1, Headers: header("content-length", "6")}, true},
		"Envoy says partial":            {Request{Body: "hello", Size: 5, Headers: header("x-envoy-auth-partial-body", "true"), Envoy: true}, true},
		"somebody else says partial":    {Request{Body: "hello", Size: 5, Headers: header("x-envoy-auth-partial-body", "true")}, false},
		"Envoy, unpacked by a filter":   {Request{Body: "hello", Size: 25, Headers: header("x-envoy-auth-partial-body", "false"), Envoy: true}, false},
		"nothing, and nothing expected": {Request{}, false},
	} {
		if got, err := tt.request.Truncated(10); got != tt.want || err != nil {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, tt.want)
		}
	}
}
