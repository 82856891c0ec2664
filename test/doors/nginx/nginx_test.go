// SPDX-License-Identifier: Apache-2.0

// Package nginx runs the examples for nginx in a real nginx.
package nginx

import (
	"fmt"
	"os"
	"os/exec"
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
	program := doorstest.Require(t, "bin/nginx-root/usr/sbin/nginx")
	root := doorstest.Require(t, "bin/nginx-root")
	p := &proxytest.Proxy{
		Addr: doorstest.FreeAddr(t), Shop: proxytest.NewShop(t),
		Sluice: doorstest.Sluice(t, doorstest.Options{Policies: policies}),
	}
	dir := t.TempDir()
	for _, sub := range []string{"logs", "sluice"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// Where this nginx, which is not installed, finds and writes what it needs.
	replace = append(replace, "127.0.0.1:9090", p.Addr, "127.0.0.1:9000", p.Shop.Addr,
		"worker_processes auto;", "worker_processes 2; daemon off; pid "+dir+"/pid; error_log stderr;",
		"http {", "http { access_log off;"+temporary(dir))
	if strings.Contains(example, "lua") {
		lua := doorstest.Example(t, "examples/nginx/sluice.lua")
		replace = append(replace, "modules/", filepath.Join(root, "usr/lib/nginx/modules")+"/", "/etc/nginx/sluice", filepath.Dir(lua))
		_, port, _ := strings.Cut(p.Sluice.Addr, ":")
		replace = append(replace, "port = 8080", "port = "+port)
	} else {
		replace = append(replace, "127.0.0.1:8080", p.Sluice.Addr)
	}
	config := doorstest.Example(t, "examples/nginx/"+example, replace...)
	cmd := exec.Command(program, "-p", dir, "-c", config, "-e", "stderr") //nolint:gosec // the test says what to run
	lib := library(t, root, "libluajit-5.1.so.2")
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+lib+":"+filepath.Join(root, "lib", filepath.Base(lib)), "LUA_PATH="+root+"/usr/share/lua/5.1/?.lua;;",
		"LUA_CPATH="+lib+"/lua/5.1/?.so;;")
	p.Await(t, doorstest.StartCommand(t, cmd))
	return p
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
