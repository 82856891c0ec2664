// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-project/sluice/test/doors/doorstest"
)

const secret = "0123456789abcdef0123456789abcdef"

// askForTokens is the path of a configuration of a server that asks for tokens.
func askForTokens(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sluice.yaml")
	text := "auth:\n  tokens:\n    - {name: envoy, role: client, token: " + secret + "}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExtAuthzSendsATokenOverTLS(t *testing.T) {
	t.Parallel()
	doorstest.Require(t, "bin/envoy")
	cert, key := doorstest.Certificate(t)
	sluice := doorstest.Sluice(t, doorstest.Options{
		Policies: []string{slotPolicy}, Args: []string{"--config", askForTokens(t), "--tls-cert", cert, "--tls-key", key},
	})
	app := startApp(t)
	path, ports := envoyConfig(t, extauthzFile, sluice.Addr, app.addr)
	secure := doorstest.Example(t, "examples/envoy/sluice-tls-token.yaml",
		"/etc/envoy/sluice-ca.pem", cert, "sluice.internal", "localhost", sluicePort, "port_value: "+portOf(sluice.Addr))
	path = edited(t, path, func(config object) {
		var from object
		decodeFile(t, secure, &from)
		resources, with := config["static_resources"].(object), from["static_resources"].(object)
		resources["secrets"] = with["secrets"]
		clusters := resources["clusters"].([]any)
		for i := range clusters {
			if clusters[i].(object)["name"] == "sluice" {
				clusters[i] = with["clusters"].([]any)[0]
			}
		}
	})
	checkSlots(t, runEnvoy(t, path, ports, "SLUICE_TOKEN="+secret), app)

	path, ports = moved(t, path, ports)
	without := runEnvoy(t, path, ports, "SLUICE_TOKEN=wrong")
	for range 3 {
		if got := without.get("/"); got.status != 200 {
			t.Errorf("with a wrong token: got %d, want that failure_mode_allow lets it pass", got.status)
		}
	}
}

func TestExtAuthzSendsATokenInMetadata(t *testing.T) {
	t.Parallel()
	doorstest.Require(t, "bin/envoy")
	sluice := doorstest.Sluice(t, doorstest.Options{Policies: []string{slotPolicy}, Args: []string{"--config", askForTokens(t)}})
	app := startApp(t)
	checkSlots(t, startEnvoy(t, extauthzFile, sluice.Addr, app.addr,
		"# - {key: authorization, value: Bearer TOKEN}", "- {key: authorization, value: Bearer "+secret+"}",
		"# initial_metadata: [{key: authorization, value: Bearer TOKEN}]", "initial_metadata: [{key: authorization, value: Bearer "+secret+"}]",
	), app)
}

// checkSlots expects that the one slot is held while a request runs, and comes back when it is done: calls of both
// services have come through.
func checkSlots(t *testing.T, envoy *proxy, app *app) {
	t.Helper()
	release := make(chan struct{})
	arrived := holdRequests(app, release)
	first := make(chan int, 1)
	go func() {
		got, _ := envoy.try(http.MethodGet, "/", "")
		first <- got.status
	}()
	<-arrived
	if got := envoy.get("/"); got.status != 429 {
		t.Errorf("the slot is held: got %d, want 429", got.status)
	}
	close(release)
	if got := <-first; got != 200 {
		t.Errorf("the first request: got %d, want 200", got)
	}
	doorstest.Eventually(t, func() error { return wantStatus(envoy.get("/"), 200) })
}
