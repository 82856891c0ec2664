// SPDX-License-Identifier: Apache-2.0

// Package traefik runs the example for Traefik in a real Traefik.
package traefik

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

// start runs Traefik with the files of the examples. The pairs of replace are old and new texts of the second one.
func start(t *testing.T, policies []string, replace ...string) *proxytest.Proxy {
	t.Helper()
	return startWith(t, doorstest.Options{Policies: policies}, replace...)
}

func startWith(t *testing.T, options doorstest.Options, replace ...string) *proxytest.Proxy {
	t.Helper()
	program := doorstest.Require(t, "bin/traefik")
	p := &proxytest.Proxy{
		Addr: doorstest.FreeAddr(t), Shop: proxytest.NewShop(t),
		Sluice:      doorstest.Sluice(t, options),
		SilentAdmit: true, ForgetsBaggage: true,
	}
	static := files(t, p.Sluice.Addr, p.Addr, p.Shop.Addr, replace...)
	cmd := exec.Command(program, "--configFile="+static) //nolint:gosec // the test says what to run
	cmd.Dir = filepath.Dir(static)
	p.Await(t, doorstest.StartCommand(t, cmd))
	p.AwaitRoute(t)
	return p
}

// files copies the files of the examples and returns the path of the first one. The pairs of replace are for the second.
func files(t *testing.T, sluice, addr, shop string, replace ...string) (static string) {
	t.Helper()
	inner := doorstest.FreeAddr(t)
	dynamic := doorstest.Example(t, "examples/traefik/dynamic.yml", append(replace, "127.0.0.1:8079", inner,
		"127.0.0.1:9000", shop, "127.0.0.1:8080", sluice)...)
	return doorstest.Example(t, "examples/traefik/traefik.yml", "127.0.0.1:9090", addr, "127.0.0.1:8079", inner,
		"dynamic.yml", dynamic)
}

func TestForwardAuth(t *testing.T) {
	t.Parallel()
	start(t, []string{proxytest.Policy}).All(t)
}

// TestClosed takes the middleware out, as the file says.
func TestClosed(t *testing.T) {
	t.Parallel()
	start(t, nil, "      middlewares: [open]\n", "").TestDown(t, false)
}

// TestToken adds the middleware that the guide describes.
func TestToken(t *testing.T) {
	t.Parallel()
	startWith(t, proxytest.WithToken(t), "middlewares: [open]", "middlewares: [open, token]", "  middlewares:\n    sluice:",
		"  middlewares:\n    token:\n      headers:\n        customRequestHeaders: {Sluice-Token: "+proxytest.Token+"}\n    sluice:").TestToken(t)
}

func TestGuide(t *testing.T) {
	t.Parallel()
	program := doorstest.Require(t, "bin/traefik")
	sluice, addr, app := doorstest.FreeAddr(t), doorstest.FreeAddr(t), doorstest.FreePort(t)
	doorstest.Guide(t, "docs/guides/traefik.md", []string{filepath.Dir(program)}, append(proxytest.GuideAddresses(sluice, addr, app),
		"--configFile=traefik.yml", "--configFile="+files(t, sluice, addr, fmt.Sprintf("127.0.0.1:%d", app))))
}
