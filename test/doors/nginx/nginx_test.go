// SPDX-License-Identifier: Apache-2.0

// Package nginx runs the examples for nginx in a real nginx.
package nginx

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

// library is where packages of Debian have libraries, below the folder into which they were unpacked.
func library(t *testing.T, root, name string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "usr/lib/*", name))
	if err != nil || len(found) == 0 {
		t.Fatalf("%s has no %s: remove it and run scripts/setup.sh again", root, name)
	}
	return filepath.Dir(found[0])
}

// start runs nginx with a configuration file of the examples. The pairs of replace are old and new texts of it.
func start(t *testing.T, example string, policies []string, replace ...string) *proxytest.Proxy {
	t.Helper()
	return startWith(t, example, doorstest.Options{Policies: policies}, replace...)
}

func startWith(t *testing.T, example string, options doorstest.Options, replace ...string) *proxytest.Proxy {
	t.Helper()
	doorstest.Require(t, "bin/nginx-root/usr/sbin/nginx")
	p := &proxytest.Proxy{
		Addr: doorstest.FreeAddr(t), Shop: proxytest.NewShop(t),
		Sluice: doorstest.Sluice(t, options),
	}
	command := nginx(t, example, p.Sluice.Addr, append(replace, "127.0.0.1:9090", p.Addr, "127.0.0.1:9000", p.Shop.Addr))
	p.Await(t, doorstest.Start(t, "bash", "-c", "exec "+command+" -g 'daemon off;'"))
	return p
}

// nginx is a command for the shell that runs nginx with a file of the examples, in a folder of its own and with what this
// nginx, which is not installed, finds elsewhere.
func nginx(t *testing.T, example, sluice string, replace []string) string {
	t.Helper()
	root := doorstest.Require(t, "bin/nginx-root")
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "logs"), 0o700); err != nil {
		t.Fatal(err)
	}
	user := ""
	if os.Geteuid() == 0 { // nobody else may look into the folders of tests
		user = "user root; "
	}
	replace = append(replace, "worker_processes auto;", user+"worker_processes 2; pid "+dir+"/pid; error_log stderr crit;",
		"http {", "http { access_log off;"+temporary(dir))
	if strings.Contains(example, "lua") {
		lua := doorstest.Example(t, "examples/nginx/sluice.lua")
		_, port, _ := strings.Cut(sluice, ":")
		replace = append(replace, "modules/", filepath.Join(root, "usr/lib/nginx/modules")+"/", "/etc/nginx/sluice", filepath.Dir(lua),
			"port = 8080", "port = "+port)
	} else {
		replace = append(replace, "127.0.0.1:8080", sluice)
	}
	config := doorstest.Example(t, "examples/nginx/"+example, replace...)
	lib := library(t, root, "libluajit-5.1.so.2")
	return fmt.Sprintf("env LD_LIBRARY_PATH=%s:%s 'LUA_PATH=%s/usr/share/lua/5.1/?.lua;;' 'LUA_CPATH=%s/lua/5.1/?.so;;' %s/usr/sbin/nginx -p %s -c %s -e stderr",
		lib, filepath.Join(root, "lib", filepath.Base(lib)), root, lib, root, dir, config)
}

// temporary moves the folders for temporary files below dir.
func temporary(dir string) string {
	out := ""
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		out += fmt.Sprintf(" %s_temp_path %s/%s;", kind, dir, kind)
	}
	return out
}

func TestAuthRequest(t *testing.T) {
	open := doorstest.FreeAddr(t)
	start(t, "auth_request.conf", []string{proxytest.Policy}, "127.0.0.1:8079", open).All(t)
}

// TestAuthRequestClosed takes the backup out, as the file says.
func TestAuthRequestClosed(t *testing.T) {
	p := start(t, "auth_request.conf", nil, "server 127.0.0.1:8079 backup;", "", "127.0.0.1:8079", doorstest.FreeAddr(t))
	p.TestDown(t, false)
}

func TestLua(t *testing.T) {
	start(t, "lua.conf", []string{proxytest.Policy}).All(t)
}

func TestLuaClosed(t *testing.T) {
	start(t, "lua.conf", nil, "fail_open = true", "fail_open = false").TestDown(t, false)
}

func TestLuaGivesSlotsBack(t *testing.T) {
	start(t, "lua.conf", []string{proxytest.SlotPolicy}).TestSlots(t)
}

func TestLuaSendsBodies(t *testing.T) {
	startWith(t, "lua.conf", proxytest.WithBodies(t), "-- body = true", "body = true").TestBodies(t)
}

// TestLuaRefusesLongBodies tries the setting that the guide gives, and to send bodies for one location only.
func TestLuaRefusesLongBodies(t *testing.T) {
	startWith(t, "lua.conf", proxytest.WithBodies(t), `check { control_point = "shop" }`, `check { control_point = "shop", body = true }`,
		"location / {", "location / { client_max_body_size 64k;").TestRefused(t)
}

func TestLuaSendsNoBodies(t *testing.T) {
	startWith(t, "lua.conf", proxytest.WithBodies(t)).TestNoBodies(t)
}

// TestLuaSendsBodiesOfHTTP2 posts without a length, which HTTP/2 allows.
func TestLuaSendsBodiesOfHTTP2(t *testing.T) {
	p := startWith(t, "lua.conf", proxytest.WithBodies(t), "-- body = true", "body = true", ";\n\n        location", " http2;\n\n        location")
	client := proxytest.HTTP2()
	for i, want := range []int{http.StatusOK, http.StatusOK, http.StatusTooManyRequests} {
		if got, labels := p.Post(t, client, "ann", proxytest.JSON, proxytest.Mutation(0), true); got != want {
			t.Errorf("mutation %d: got %d with the labels %v, want %d", i+1, got, labels, want)
		}
	}
}

func TestAuthRequestWithToken(t *testing.T) {
	startWith(t, "auth_request.conf", proxytest.WithToken(t), "127.0.0.1:8079", doorstest.FreeAddr(t),
		`# proxy_set_header Sluice-Token     "the token of a client, if Sluice asks for one";`,
		`proxy_set_header Sluice-Token "`+proxytest.Token+`";`).TestToken(t)
}

func TestLuaWithToken(t *testing.T) {
	startWith(t, "lua.conf", proxytest.WithToken(t),
		`-- token = "the token of a client, if Sluice asks for one",`, `token = "`+proxytest.Token+`",`).TestToken(t)
}

func TestGuide(t *testing.T) {
	doorstest.Require(t, "bin/nginx-root/usr/sbin/nginx")
	sluice, addr, app := doorstest.FreeAddr(t), doorstest.FreeAddr(t), doorstest.FreePort(t)
	command := nginx(t, "auth_request.conf", sluice, []string{
		"127.0.0.1:9090", addr, "127.0.0.1:9000", fmt.Sprintf("127.0.0.1:%d", app), "127.0.0.1:8079", doorstest.FreeAddr(t),
	})
	doorstest.Guide(t, "docs/guides/nginx.md", nil, append(proxytest.GuideAddresses(sluice, addr, app),
		`sudo nginx -c "$PWD/examples/nginx/auth_request.conf"`, command))
}
