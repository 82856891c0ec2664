// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// layer is a row of the table of layers: a folder of packages and what it may do.
type layer struct {
	level int
	dir   string
	what  string // one line; for a restriction, why
	// users are the only folders that may import this one, besides tests at the edges; nil: every higher level.
	users []string
	// imports are the only folders of ours that this one may import; nil: every lower level. An empty
	// slice that is not nil: none at all.
	imports []string
}

// The levels that rules name.
const (
	pureLevel = 1 // the last level whose packages are pure
	edgeLevel = 4 // from here on, tests may speak the API as a client does
)

// layers is the table. Imports point from a higher level to a lower one, never within a level; the
// packages below one row are a family and may import each other. Add a package when you can name it
// with a noun our users say, and say in one line what it is for.
var layers = []layer{
	{level: 0, dir: "internal/fielderr", what: "mistakes in documents, by file, line and field path"},
	{level: 0, dir: "internal/label", what: "labels of flows and their matchers"},
	{level: 0, dir: "internal/setpoint", what: "the message from the control plane to the data plane"},
	{level: 0, dir: "internal/version", what: "which build this is"},
	{level: 0, dir: "web", what: "the built console, embedded", imports: []string{}},
	{level: 0, dir: "schemas", what: "JSON Schemas of documents, embedded", imports: []string{}},
	{
		level: 0, dir: "api", what: "generated from the protos: wire types stop at rpc, so that the API can change without the domain",
		imports: []string{},
		users:   []string{"internal/rpc", "internal/aperture", "internal/fleet", "internal/cli", "internal/demo", "sdk/go", "bench", "test"},
	},

	{level: 1, dir: "internal/circuit", what: "compiled circuits and their components"},
	{level: 1, dir: "internal/limit", what: "limiter algorithms: functions of state, time and cost"},
	{level: 1, dir: "internal/wfq", what: "weighted-fair queue"},

	{level: 2, dir: "internal/alert", what: "alerts, and where they go"},
	{level: 2, dir: "internal/analytics", what: "flow records rolled up by label"},
	{level: 2, dir: "internal/batch", what: "bounds on batches of telemetry"},
	{level: 2, dir: "internal/cache", what: "result and global caches"},
	{level: 2, dir: "internal/classify", what: "request attributes to labels"},
	{level: 2, dir: "internal/discovery", what: "services and control points seen"},
	{level: 2, dir: "internal/document", what: "policy documents in force and their versions"},
	{level: 2, dir: "internal/infra", what: "infra meters"},
	{level: 2, dir: "internal/ledger", what: "accounts that limits are charged to"},
	{level: 2, dir: "internal/meter", what: "flux meters and agents' metrics"},
	{level: 2, dir: "internal/plan", what: "usage plans, keys, tenants, quotas"},
	{level: 2, dir: "internal/policy", what: "the language of documents, and blueprints"},
	{level: 2, dir: "internal/scale", what: "Kubernetes scale"},
	{level: 2, dir: "internal/sched", what: "makes flows wait for capacity"},
	{level: 2, dir: "internal/signal", what: "time series, queries and the board of latest readings"},

	{level: 3, dir: "internal/control", what: "control plane: runs circuits tick by tick"},
	{level: 3, dir: "internal/flow", what: "data plane: decides one flow at a time"},

	{level: 4, dir: "internal/aperture", what: "the Aperture wire protocol"},
	{level: 4, dir: "internal/console", what: "serves the web console"},
	{level: 4, dir: "internal/extauthz", what: "Envoy's external authorization"},
	{level: 4, dir: "internal/fleet", what: "the stream between controllers and agents"},
	{level: 4, dir: "internal/promapi", what: "the Prometheus HTTP API, remote write and OTLP metrics"},
	{level: 4, dir: "internal/forwardauth", what: "answers proxies that ask about a request with a request (nginx, Caddy, Traefik, HAProxy)"},
	{level: 4, dir: "internal/gateway", what: "reverse proxy"},
	{level: 4, dir: "internal/rls", what: "Envoy's rate limit service"},
	{level: 4, dir: "internal/rpc", what: "our API over gRPC and HTTP"},
	{level: 4, dir: "internal/store", what: "durable storage"},

	{level: 5, dir: "internal/config", what: "composes the settings of the packages"},
	{
		level: 5, dir: "sdk/go", what: "the client: users build it without the server, and the server does not call itself",
		imports: []string{"api"},
		users:   []string{"internal/cli", "internal/demo", "examples", "bench", "test"},
	},

	{level: 6, dir: "internal/app", what: "builds every subsystem from the settings and runs them"},
	{
		level: 6, dir: "internal/demo", what: "simulated servers and load: like any program of a user, it knows the SDK and not the server",
		imports: []string{"api", "sdk/go", "internal/version"},
	},
	{level: 7, dir: "internal/cli", what: "commands"},
	{level: 8, dir: "cmd", what: "mains"},
	{level: 8, dir: "examples", what: "programs and documents for users to start from, who have nothing but the SDK", imports: []string{"sdk/go"}},
	{level: 8, dir: "bench", what: "measures the whole and its parts"},
	{level: 8, dir: "test", what: "tests of real binaries"},

	{level: 9, dir: "internal/archtest", what: "this package", imports: []string{}},
	{level: 9, dir: "internal/simtest", what: "simulated clients and reference answers for tests"},
}

// layerOf returns the row of the table a folder belongs to: the closest one above it.
func layerOf(dir string) (layer, bool) {
	for d := dir; d != "."; d = path.Dir(d) {
		for _, l := range layers {
			if l.dir == d {
				return l, true
			}
		}
	}
	return layer{}, false
}

// testsOnly reports whether a package exists for tests: its name ends in test (simtest, ledgertest).
func testsOnly(dir string) bool { return strings.HasSuffix(dir, "test") }

// eachImport calls check for every import of one of our packages by another, both in the table.
func (r *Repo) eachImport(check func(f *File, from, to layer, dir string) string) []string {
	var found []string
	for _, p := range r.Packages {
		from, ok := layerOf(p.Dir)
		if !ok {
			continue // findLayers says so
		}
		for _, f := range p.Files {
			for _, spec := range f.Syntax.Imports {
				dir, ours := r.dirOf(importPath(spec))
				to, known := layerOf(dir)
				if !ours || !known || from.dir == to.dir && !testsOnly(dir) {
					continue
				}
				if problem := check(f, from, to, dir); problem != "" {
					found = append(found, r.at(spec, "%s", problem))
				}
			}
		}
	}
	return found
}

// findLayers finds packages that are not in the table, and imports that do not point strictly down.
func findLayers(r *Repo) []string {
	var found []string
	for _, p := range r.Packages {
		if _, ok := layerOf(p.Dir); !ok {
			found = append(found, fmt.Sprintf("%s: package is not in the table of layers: "+
				"add it to internal/archtest/layers.go, with a line that says what it is for", p.Dir))
		}
	}
	return append(found, r.eachImport(func(f *File, from, to layer, dir string) string {
		switch {
		case testsOnly(dir):
			if f.Test || testsOnly(path.Dir(f.Path)) {
				return ""
			}
			return fmt.Sprintf("%s is for tests only: import it from a _test.go file", dir)
		case to.level >= from.level:
			return fmt.Sprintf("%s (level %d) must not import %s (level %d), imports point down: "+
				"declare the methods you need as an interface and let internal/app connect the two",
				from.dir, from.level, dir, to.level)
		}
		return ""
	})...)
}

// findAccess finds imports of packages that are for certain users only, and by packages that may import
// only certain others. Tests at the edges may speak the API: they are its clients.
func findAccess(r *Repo) []string {
	return r.eachImport(func(f *File, from, to layer, dir string) string {
		client := f.Test && from.level >= edgeLevel
		switch {
		case testsOnly(dir):
			return ""
		case to.users != nil && !slices.Contains(to.users, from.dir) && !client:
			return fmt.Sprintf("%s must not import %s (%s): only %s may",
				from.dir, dir, to.what, strings.Join(to.users, ", "))
		case from.imports != nil && !slices.Contains(from.imports, to.dir):
			return fmt.Sprintf("%s must not import %s: of our packages it may import %s (%s)",
				from.dir, dir, orNone(from.imports), from.what)
		}
		return ""
	})
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}
