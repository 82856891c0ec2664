// SPDX-License-Identifier: Apache-2.0

// Package haproxy runs the example for HAProxy in a real HAProxy.
package haproxy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/test/doors/doorstest"
	"github.com/sluice-project/sluice/test/doors/proxytest"
)

func TestMain(m *testing.M) { os.Exit(doorstest.Main(m)) }

// start runs HAProxy with the files of the examples. The pairs of replace are old and new texts of haproxy.cfg.
func start(t *testing.T, policies []string, replace ...string) *proxytest.Proxy {
	t.Helper()
	program := doorstest.Require(t, "bin/haproxy-root/usr/sbin/haproxy")
	p := &proxytest.Proxy{
		Addr: doorstest.FreeAddr(t), Shop: proxytest.NewShop(t),
		Sluice: doorstest.Sluice(t, doorstest.Options{Policies: policies}),
	}
	_, port, _ := strings.Cut(p.Sluice.Addr, ":")
	replace = append(replace, "127.0.0.1:9090", p.Addr, "127.0.0.1:9000", p.Shop.Addr,
		"/etc/haproxy/sluice.lua", doorstest.Example(t, "examples/haproxy/sluice.lua"), "SLUICE_PORT 8080", "SLUICE_PORT "+port)
	config := doorstest.Example(t, "examples/haproxy/haproxy.cfg", replace...)
	cmd := exec.Command(program, "-db", "-f", config) //nolint:gosec // the test says what to run
	root := strings.TrimSuffix(program, "/usr/sbin/haproxy")
	libraries, err := filepath.Glob(filepath.Join(root, "*/lib/*-linux-gnu"))
	if err != nil || len(libraries) == 0 {
		t.Fatalf("%s has no libraries: remove it and run scripts/setup.sh again", root)
	}
	more, _ := filepath.Glob(filepath.Join(root, "lib/*-linux-gnu")) // the pattern is right
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(append(libraries, more...), ":"))
	p.Await(t, doorstest.StartCommand(t, cmd))
	return p
}

func TestLua(t *testing.T) {
	start(t, []string{proxytest.Policy}).All(t)
}

func TestClosed(t *testing.T) {
	start(t, nil, "SLUICE_FAIL open", "SLUICE_FAIL closed").TestDown(t, false)
}

func TestGivesSlotsBack(t *testing.T) {
	start(t, []string{proxytest.SlotPolicy}).TestSlots(t)
}
