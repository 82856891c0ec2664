// SPDX-License-Identifier: Apache-2.0

// Package caddy runs the example for Caddy in a real Caddy.
package caddy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sluice-project/sluice/test/doors/doorstest"
	"github.com/sluice-project/sluice/test/doors/proxytest"
)

func TestMain(m *testing.M) { os.Exit(doorstest.Main(m)) }

// start runs Caddy with the file of the examples. The pairs of replace are old and new texts of it.
func start(t *testing.T, policies []string, replace ...string) *proxytest.Proxy {
	t.Helper()
	return startWith(t, doorstest.Options{Policies: policies}, replace...)
}

func startWith(t *testing.T, options doorstest.Options, replace ...string) *proxytest.Proxy {
	t.Helper()
	program := doorstest.Require(t, "bin/caddy")
	p := &proxytest.Proxy{
		Addr: doorstest.FreeAddr(t), Shop: proxytest.NewShop(t),
		Sluice: doorstest.Sluice(t, options),
	}
	replace = append(replace, "127.0.0.1:9090", p.Addr, "127.0.0.1:9000", p.Shop.Addr, "127.0.0.1:8080", p.Sluice.Addr,
		"127.0.0.1:8079", doorstest.FreeAddr(t))
	config := doorstest.Example(t, "examples/caddy/Caddyfile", replace...)
	cmd := exec.Command(program, "run", "--config", config, "--adapter", "caddyfile") //nolint:gosec // the test says what to run
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+t.TempDir(), "XDG_CONFIG_HOME="+t.TempDir())
	p.Await(t, doorstest.StartCommand(t, cmd))
	return p
}

func TestForwardAuth(t *testing.T) {
	t.Parallel()
	start(t, []string{proxytest.Policy}).All(t)
}

// TestClosed takes the second address out, as the file says.
func TestClosed(t *testing.T) {
	t.Parallel()
	start(t, nil, "127.0.0.1:8080 127.0.0.1:8079 {", "127.0.0.1:8080 {").TestDown(t, false)
}

func TestToken(t *testing.T) {
	t.Parallel()
	startWith(t, proxytest.WithToken(t), `# header_up Sluice-Token "the token of a client, if Sluice asks for one"`,
		"header_up Sluice-Token "+proxytest.Token).TestToken(t)
}

func TestGuide(t *testing.T) {
	t.Parallel()
	program := doorstest.Require(t, "bin/caddy")
	sluice, addr, app := doorstest.FreeAddr(t), doorstest.FreeAddr(t), doorstest.FreePort(t)
	config := doorstest.Example(t, "examples/caddy/Caddyfile", "127.0.0.1:9090", addr, "127.0.0.1:9000", fmt.Sprintf("127.0.0.1:%d", app),
		"127.0.0.1:8080", sluice, "127.0.0.1:8079", doorstest.FreeAddr(t))
	doorstest.Guide(t, "docs/guides/caddy.md", []string{filepath.Dir(program)}, append(proxytest.GuideAddresses(sluice, addr, app),
		"caddy run --config examples/caddy/Caddyfile", "caddy run --config "+config))
}
