// SPDX-License-Identifier: Apache-2.0

// Package kong runs the unit tests of the plugin for Kong against the product.
package kong

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/sluice-project/sluice/test/doors/doorstest"
	"github.com/sluice-project/sluice/test/doors/proxytest"
)

func TestMain(m *testing.M) { os.Exit(doorstest.Main(m)) }

const slow = `blueprint: concurrency-limiting/base
policy:
  policy_name: one-at-a-time
  concurrency_limiter:
    max_concurrency: 1
    parameters:
      max_inflight_duration: 600s
    selectors:
      - control_point: slow
`

const consumers = `blueprint: rate-limiting/base
policy:
  policy_name: per-consumer
  rate_limiter:
    bucket_capacity: 1
    fill_amount: 1
    parameters:
      interval: 3600s
      limit_by_label_key: kong.consumer
    selectors:
      - control_point: consumers
        label_matcher:
          match_labels: {tier: gold, kong.route: items, kong.service: 7c1d}
`

func TestPlugin(t *testing.T) {
	lua := doorstest.Require(t, "bin/lua-root/usr/bin/lua5.1")
	root := strings.TrimSuffix(lua, "/usr/bin/lua5.1")
	s := doorstest.Sluice(t, proxytest.WithBodies(t, proxytest.Policy, slow, consumers))
	for _, file := range []string{"kong/plugins/sluice/handler.lua", "kong/plugins/sluice/schema.lua", "spec/fakes.lua", "spec/sluice_spec.lua"} {
		doorstest.Read(t, "examples/kong/"+file) // go test looks at what a test has read to know whether it must run again
	}
	libraries, err := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu"))
	if err != nil || len(libraries) == 0 {
		t.Fatalf("%s has no libraries: remove it and run scripts/setup.sh again", root)
	}
	lib := libraries[0]
	ctx, cancel := context.WithTimeout(t.Context(), 2*doorstest.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, lua, filepath.Join(root, "usr/bin/busted"), "--output=plainTerminal", "--pattern=_spec", "spec") //nolint:gosec // the test says what to run
	cmd.Dir = filepath.Join(doorstest.Root(t), "examples/kong")
	share := filepath.Join(root, "usr/share/lua/5.1")
	cmd.Env = append(os.Environ(), "SLUICE_URL="+s.URL,
		"LD_LIBRARY_PATH="+lib+":"+filepath.Join(root, "lib", filepath.Base(lib)),
		"LUA_PATH=./?.lua;"+share+"/?.lua;"+share+"/?/init.lua", "LUA_CPATH="+lib+"/lua/5.1/?.so")
	out, err := cmd.CombinedOutput()
	if err != nil || !regexp.MustCompile(`\b12 successes / 0 failures / 0 errors`).Match(out) {
		t.Errorf("got %v, want 12 successes:\n%s", err, out)
	}
}

// TestConfiguration checks that the declarative configuration sets fields that the schema has.
func TestConfiguration(t *testing.T) {
	read := func(path string) []byte {
		text, err := os.ReadFile(filepath.Join(doorstest.Root(t), "examples/kong", path))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	var file struct {
		Services []struct {
			Plugins []struct {
				Name   string
				Config map[string]any
			}
		}
	}
	if err := yaml.Unmarshal(read("kong.yml"), &file); err != nil {
		t.Fatal(err)
	}
	schema := string(read("kong/plugins/sluice/schema.lua"))
	fields := 0
	for name := range file.Services[0].Plugins[0].Config {
		fields++
		if !strings.Contains(schema, "{ "+name+" = ") {
			t.Errorf("the schema has no field %q", name)
		}
	}
	if fields == 0 {
		t.Error("the configuration sets nothing")
	}
}
