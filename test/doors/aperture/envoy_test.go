// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/sluice-project/sluice/test/doors/doorstest"
)

// TestEnvoyOfAperture: an Envoy that was set up for Aperture ends its flows by the access logs that it sends over
// OpenTelemetry, with the answer that it got as metadata.
func TestEnvoyOfAperture(t *testing.T) {
	t.Parallel()
	envoy := doorstest.Require(t, "bin/envoy")
	held, release := make(chan struct{}, 16), make(chan struct{})
	letGo := sync.OnceFunc(func() { close(release) })
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slot":
			held <- struct{}{}
			<-release
		case "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		}
		fmt.Fprintln(w, "hello")
	}))
	t.Cleanup(func() {
		letGo() // Close waits for the handlers
		app.Close()
	})
	s := doorstest.Sluice(t, doorstest.Options{Policies: []string{policies}})
	listen := doorstest.FreeAddr(t)
	config := doorstest.Example(t, "test/doors/aperture/envoy.yaml",
		"port_value: 10000", "port_value: "+port(t, "http://"+listen), "port_value: 8000", "port_value: "+port(t, app.URL),
		"port_value: 8080", "port_value: "+port(t, s.URL))
	doorstest.Start(t, envoy, "--config-path", config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warn")
	get := func(path string) (int, error) {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+listen+path, http.NoBody)
		if err != nil {
			return 0, err
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, err
		}
		defer func() { _ = resp.Body.Close() }()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, err
	}
	doorstest.Eventually(t, func() error {
		_, err := get("/")
		return err
	})
	holding := make(chan int, 1)
	go func() {
		code, _ := get("/slot")
		holding <- code
	}()
	select {
	case <-held:
	case <-time.After(doorstest.Patience):
		t.Fatal("the request with the slot has not reached the application")
	}
	if code, err := get("/slot"); err != nil || code != http.StatusTooManyRequests {
		t.Errorf("got %d, %v, want that the slot is taken", code, err)
	}
	letGo()
	if code := <-holding; code != http.StatusOK {
		t.Errorf("the one with the slot got %d", code)
	}
	doorstest.Eventually(t, func() error {
		if code, err := get("/slot"); err != nil || code != http.StatusOK {
			return fmt.Errorf("got %d, %v, want that the access log has given the slot back", code, err)
		}
		return nil
	})
	if code, err := get("/broken"); err != nil || code != http.StatusInternalServerError {
		t.Errorf("got %d, %v", code, err)
	}
	doorstest.Eventually(t, func() error {
		if n := s.Metric("flux_meter", "flux_meter_name", "clients", "http_status_code", "500", "flow_status", "Error"); n != 1 {
			return fmt.Errorf("the flux meter has seen %v requests with 500, want 1", n)
		}
		return nil
	})
	if n := s.Metric(records, "result", "ended"); n < 4 {
		t.Errorf("got %v records that ended a flow, want 4 and more", n)
	}
	for _, bad := range []string{"no_check_response", "bad_check_response", "no_token", "bad_token"} {
		if n := s.Metric(records, "result", bad); n > 0 {
			t.Errorf("got %v records that are %s", n, bad)
		}
	}
}

func port(t *testing.T, text string) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}
