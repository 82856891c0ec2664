// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestCallsOfNoSenseAreExplained makes the mistakes that people make with curl.
func TestCallsOfNoSenseAreExplained(t *testing.T) {
	address, _ := running(t, testServer(t, ServerConfig{}))
	const start = "/sluice.flow.v1.FlowService/Start"
	for _, tt := range []struct {
		name, method, path, kind string
		status                   int
		want                     string
	}{
		{"as it should be", "POST", start, "application/json; charset=utf-8", 200, "verdict"},
		{"no type", "POST", start, "", 415, `Content-Type: application/json`},
		{"what curl sends", "POST", start, "application/x-www-form-urlencoded", 415, `Content-Type: application/json`},
		{"a type that is none", "POST", start, "json;;", 415, `Content-Type: application/json`},
		{"a browser", "GET", start, "", 405, "POST, not with GET"},
		{"a misspelt method", "POST", "/sluice.flow.v1.FlowService/start", "application/json", 404, `did you mean \"` + start + `\"?`},
		{"a service that is none", "POST", "/sluice.sewer.v1.Rats/Count", "application/json", 404, "/openapi.json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://"+address+tt.path, strings.NewReader(`{"controlPoint": "x"}`))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", tt.kind)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status || !strings.Contains(string(body), tt.want) {
				t.Errorf("got %d %s, want %d with %s", resp.StatusCode, body, tt.status, tt.want)
			}
		})
	}
}
