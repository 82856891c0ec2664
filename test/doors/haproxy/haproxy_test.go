// SPDX-License-Identifier: Apache-2.0

// Package haproxy runs the example for HAProxy in a real HAProxy.
package haproxy

import (
	"fmt"
	"net/http"
	"os"
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
	return startWith(t, doorstest.Options{Policies: policies}, replace...)
}

func startWith(t *testing.T, options doorstest.Options, replace ...string) *proxytest.Proxy {
	t.Helper()
	doorstest.Require(t, "bin/haproxy-root/usr/sbin/haproxy")
	p := &proxytest.Proxy{
		Addr: doorstest.FreeAddr(t), Shop: proxytest.NewShop(t),
		Sluice: doorstest.Sluice(t, options),
	}
	replace = append(replace, "127.0.0.1:9090", p.Addr, "127.0.0.1:9000", p.Shop.Addr)
	p.Await(t, doorstest.Start(t, "bash", "-c", "exec "+haproxy(t, p.Sluice.Addr, replace)))
	return p
}

// haproxy is a command for the shell that runs HAProxy with the files of the examples.
func haproxy(t *testing.T, sluice string, replace []string) string {
	t.Helper()
	root := doorstest.Require(t, "bin/haproxy-root")
	_, port, _ := strings.Cut(sluice, ":")
	config := doorstest.Example(t, "examples/haproxy/haproxy.cfg", append(replace,
		"/etc/haproxy/sluice.lua", doorstest.Example(t, "examples/haproxy/sluice.lua"), "SLUICE_PORT 8080", "SLUICE_PORT "+port)...)
	var libraries []string
	for _, pattern := range []string{"usr/lib/*-linux-gnu", "lib/*-linux-gnu"} {
		found, _ := filepath.Glob(filepath.Join(root, pattern)) // the pattern is right
		libraries = append(libraries, found...)
	}
	return fmt.Sprintf("env LD_LIBRARY_PATH=%s %s/usr/sbin/haproxy -db -f %s", strings.Join(libraries, ":"), root, config)
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

func TestToken(t *testing.T) {
	startWith(t, proxytest.WithToken(t), "# setenv SLUICE_TOKEN the-token", "setenv SLUICE_TOKEN "+proxytest.Token).TestToken(t)
}

// bodies are the changes to haproxy.cfg that the guide describes.
var bodies = []string{
	"# setenv SLUICE_BODY on", "setenv SLUICE_BODY on", "# tune.bufsize 81920", "tune.bufsize 81920",
	"# http-request wait-for-body", "http-request wait-for-body",
}

func TestSendsBodies(t *testing.T) {
	startWith(t, proxytest.WithBodies(t), bodies...).TestBodies(t)
}

// TestSmallBuffers: what does not fit into a buffer counts as truncated, whether HAProxy knows how long it is or not.
func TestSmallBuffers(t *testing.T) {
	plain := doorstest.FreeAddr(t)
	p := startWith(t, proxytest.WithBodies(t), "# setenv SLUICE_BODY on", "setenv SLUICE_BODY on",
		"# http-request wait-for-body", "bind "+plain+" proto h2\n    http-request wait-for-body")
	test := func(name string, client *http.Client, chunks bool) {
		for size, want := range map[int]string{10_000: "mutation", 20_000: ""} {
			status, labels := p.Post(t, client, fmt.Sprint(size, name), proxytest.JSON, proxytest.Mutation(size), chunks)
			if cut := labels["cut"] == "yes"; status != http.StatusOK || labels["operation"] != want || cut != (want == "") {
				t.Errorf("%d bytes, %s: got %d with the labels %v, want the operation %q", size, name, status, labels, want)
			}
		}
	}
	test("of a known length", http.DefaultClient, false)
	test("in chunks", http.DefaultClient, true)
	p.Addr = plain
	test("by HTTP/2, of an unknown length", proxytest.HTTP2(), true)
}

// TestRefusesLongBodies tries the rule that the guide gives.
func TestRefusesLongBodies(t *testing.T) {
	replace := append(bodies[:len(bodies)-2:len(bodies)-2], "# http-request wait-for-body time 1s",
		"http-request wait-for-body time 1s\n    http-request deny status 413 if { req.body_len gt 65536 }")
	startWith(t, proxytest.WithBodies(t), replace...).TestRefused(t)
}

func TestSendsNoBodies(t *testing.T) {
	startWith(t, proxytest.WithBodies(t)).TestNoBodies(t)
}

func TestGuide(t *testing.T) {
	doorstest.Require(t, "bin/haproxy-root/usr/sbin/haproxy")
	sluice, addr, app := doorstest.FreeAddr(t), doorstest.FreeAddr(t), doorstest.FreePort(t)
	command := haproxy(t, sluice, []string{"127.0.0.1:9090", addr, "127.0.0.1:9000", fmt.Sprintf("127.0.0.1:%d", app)})
	doorstest.Guide(t, "docs/guides/haproxy.md", nil, append(proxytest.GuideAddresses(sluice, addr, app),
		"sudo install -D examples/haproxy/sluice.lua /etc/haproxy/sluice.lua && haproxy -f examples/haproxy/haproxy.cfg", "exec "+command))
}
