// SPDX-License-Identifier: Apache-2.0

// Package envoy tests the doors that Envoy asks by, with the real Envoy and the example files of this repository.
package envoy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/sluice-project/sluice/test/doors/doorstest"
)

func TestMain(m *testing.M) { os.Exit(doorstest.Main(m)) }

// proxy is a running Envoy.
type proxy struct {
	*doorstest.Process
	// url is where it listens.
	url string

	t testing.TB
}

// Addresses as the example files have them.
const (
	listenPort = "port_value: 10000"
	adminPort  = "port_value: 9901"
	sluicePort = "port_value: 8080"
	appPort    = "port_value: 8000"
)

// ports are those of a proxy.
type ports struct{ listen, admin int }

// startEnvoy runs Envoy with a file below the repository, in which the ports are replaced: of what listens, and of
// the servers sluice and app (host:port). The pairs of edits are replaced, too. It returns when Envoy is ready.
func startEnvoy(t testing.TB, file, sluice, app string, edits ...string) *proxy {
	t.Helper()
	config, p := envoyConfig(t, file, sluice, app, edits...)
	return runEnvoy(t, config, p)
}

// envoyConfig is the path of a copy of the file that startEnvoy runs.
func envoyConfig(t testing.TB, file, sluice, app string, edits ...string) (string, ports) {
	t.Helper()
	p := ports{listen: doorstest.FreePort(t), admin: doorstest.FreePort(t)}
	return doorstest.Example(t, file, append([]string{
		listenPort, fmt.Sprintf("port_value: %d", p.listen), adminPort, fmt.Sprintf("port_value: %d", p.admin),
		sluicePort, "port_value: " + portOf(sluice), appPort, "port_value: " + portOf(app),
	}, edits...)...), p
}

// moved is the path of a copy of a configuration for another Envoy beside it, with ports of its own.
func moved(t testing.TB, config string, from ports) (string, ports) {
	t.Helper()
	to := ports{listen: doorstest.FreePort(t), admin: doorstest.FreePort(t)}
	raw, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(strconv.Itoa(from.listen), strconv.Itoa(to.listen), strconv.Itoa(from.admin), strconv.Itoa(to.admin)).Replace(string(raw))
	path := filepath.Join(t.TempDir(), filepath.Base(config))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, to
}

// object is a part of a YAML document.
type object = map[string]any

func decodeFile(t testing.TB, path string, into any) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(raw, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// edited is the path of a copy of a configuration that edit has changed.
func edited(t testing.TB, path string, edit func(config object)) string {
	t.Helper()
	var config object
	decodeFile(t, path, &config)
	edit(config)
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "edited.json")
	if err := os.WriteFile(out, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// runEnvoy starts Envoy and returns when it is ready.
func runEnvoy(t testing.TB, config string, ports ports, env ...string) *proxy {
	t.Helper()
	bin := doorstest.Require(t, "bin/envoy")
	p := &proxy{url: fmt.Sprintf("http://127.0.0.1:%d", ports.listen), t: t}
	cmd := exec.CommandContext(context.Background(), bin, "--config-path", config, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning")
	cmd.Env = append(os.Environ(), env...)
	p.Process = doorstest.StartCommand(t, cmd)
	doorstest.Eventually(t, func() error {
		if p.Ended() {
			t.Fatal("envoy ended before it was ready")
		}
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/ready", ports.admin))
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
	return p
}

func portOf(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// answer is what a client of Envoy got.
type answer struct {
	status int
	header http.Header
	body   string
}

// get asks Envoy for a path with headers, which are pairs of names and values.
func (p *proxy) get(path string, headers ...string) answer {
	p.t.Helper()
	return p.ask(http.MethodGet, path, "", headers...)
}

func (p *proxy) ask(method, path, body string, headers ...string) answer {
	p.t.Helper()
	a, err := p.try(method, path, body, headers...)
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

// try is ask for requests that may fail, and for other goroutines than the test's.
func (p *proxy) try(method, path, body string, headers ...string) (answer, error) {
	r, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(text)}, err
}

// app is the server behind Envoy.
type app struct {
	*httptest.Server
	// addr is host:port.
	addr string
	// requests that came; the headers of the last one.
	requests atomic.Int64
	last     atomic.Pointer[http.Header]
	// hold, when it is set, is called with each request.
	hold atomic.Pointer[func(w http.ResponseWriter, r *http.Request)]
}

func startApp(t testing.TB) *app {
	a := &app{}
	a.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.requests.Add(1)
		a.last.Store(&r.Header)
		if f := a.hold.Load(); f != nil {
			(*f)(w, r)
			return
		}
		_, _ = io.WriteString(w, "hello\n")
	}))
	a.Config.MaxHeaderBytes = 16 << 20
	a.Start()
	t.Cleanup(a.Close)
	a.addr = a.Listener.Addr().String()
	return a
}

func (a *app) do(f func(w http.ResponseWriter, r *http.Request)) { a.hold.Store(&f) }

// holdRequests makes the application keep requests until release is closed or their client leaves. Each of them is
// told to the channel that it returns.
func holdRequests(a *app, release <-chan struct{}) (arrived <-chan struct{}) {
	told := make(chan struct{}, 1000)
	a.do(func(_ http.ResponseWriter, r *http.Request) {
		told <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	return told
}

func wantStatus(got answer, want int) error {
	if got.status != want {
		return fmt.Errorf("got %+v, want status %d", got, want)
	}
	return nil
}
