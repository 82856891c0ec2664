// SPDX-License-Identifier: Apache-2.0

// Package traefik runs the example for Traefik in a real Traefik.
package traefik

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sluice-project/sluice/test/doors/doorstest"
	"github.com/sluice-project/sluice/test/doors/proxytest"
)

func TestMain(m *testing.M) { os.Exit(doorstest.Main(m)) }

// start runs Traefik with the files of the examples. The pairs of replace are old and new texts of the second one.
func start(t *testing.T, policies []string, replace ...string) *proxytest.Proxy {
	t.Helper()
	program := doorstest.Require(t, "bin/traefik")
	p := &proxytest.Proxy{
		Addr: doorstest.FreeAddr(t), Shop: proxytest.NewShop(t),
		Sluice:      doorstest.Sluice(t, doorstest.Options{Policies: policies}),
		SilentAdmit: true, ForgetsBaggage: true,
	}
	inner := doorstest.FreeAddr(t)
	dynamic := doorstest.Example(t, "examples/traefik/dynamic.yml", append(replace, "127.0.0.1:8079", inner,
		"127.0.0.1:9000", p.Shop.Addr, "127.0.0.1:8080", p.Sluice.Addr)...)
	static := doorstest.Example(t, "examples/traefik/traefik.yml", "127.0.0.1:9090", p.Addr, "127.0.0.1:8079", inner,
		"dynamic.yml", dynamic)
	cmd := exec.Command(program, "--configFile="+static) //nolint:gosec // the test says what to run
	cmd.Dir = filepath.Dir(static)
	p.Await(t, doorstest.StartCommand(t, cmd))
	p.AwaitRoute(t)
	return p
}

func TestForwardAuth(t *testing.T) {
	start(t, []string{proxytest.Policy}).All(t)
}

// TestClosed takes the middleware out, as the file says.
func TestClosed(t *testing.T) {
	start(t, nil, "      middlewares: [open]\n", "").TestDown(t, false)
}
