// SPDX-License-Identifier: Apache-2.0

package control

import (
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/policy"
)

var rewrite = flag.Bool("rewrite", false, "rewrite golden files")

// t0 is a multiple of every interval that tests use.
var t0 = time.Unix(1_800_000_000, 0).UTC()

// parse reads a document that has to be good.
func parse(t testing.TB, name, text string) *policy.Document {
	t.Helper()
	doc, err := policy.Parse(policy.Source{File: name + ".yaml", Text: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// compile compiles a document that has to be good.
func compile(t testing.TB, name, text string) *Program {
	t.Helper()
	p, err := Compile(parse(t, name, text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// circuitOf makes a document of components, each indented by four blanks.
func circuitOf(interval, components string) string {
	return "circuit:\n  evaluation_interval: " + interval + "\n  components:\n" + components
}

// golden compares a text with testdata/path.
func golden(t *testing.T, path, got string) {
	t.Helper()
	file := filepath.Join("testdata", path)
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil { //nolint:gosec // a file of the repository
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run the test with -rewrite and look at the difference.\n%s", file, firstDifference(got, string(want)))
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return "got  " + g[i] + "\nwant " + w[i]
		}
	}
	return "one is longer"
}

func near(a, b float64) bool {
	return a == b || math.IsNaN(a) && math.IsNaN(b) || math.Abs(a-b) <= 1e-9*max(1, math.Abs(a), math.Abs(b))
}
