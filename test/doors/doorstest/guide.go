// SPDX-License-Identifier: Apache-2.0

package doorstest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Guide runs the commands of a page, as its reader does, in the root of the repository. A page of docs/guides is read
// by the tests of pages, too, which leave alone what these comments are before:
//
//	<!-- not run: started by the test of Envoy -->  a sh block that runs until the page ends
//	<!-- not run: run by the test of Envoy -->      a sh block; a text block after it is what it prints, and a … in
//	                                                it stands for anything
//
// Instead of Envoy it may be the name of any door. The pairs of replace are texts of the page and those to use in this
// test, such as addresses; one that the page has not fails the test. The folders of path are where programs are
// found first; sluice is there by itself.
func Guide(t testing.TB, page string, path, replace []string) {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	tools := t.TempDir()
	if err := os.Symlink(bin, filepath.Join(tools, "sluice")); err != nil {
		t.Fatal(err)
	}
	g := guide{t: t, replace: replacer(t, page, replace)}
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "SLUICE_") {
			g.env = append(g.env, entry)
		}
	}
	folders := append([]string{tools}, path...)
	g.env = append(g.env, "PATH="+strings.Join(folders, ":")+":"+os.Getenv("PATH"), "SLUICE_DATA_DIR="+t.TempDir(), "NO_COLOR=1")
	blocks := guideBlock.FindAllStringSubmatch(Read(t, page), -1)
	if len(blocks) == 0 {
		t.Fatalf("%s: has no block that is for this test", page)
	}
	for _, b := range blocks {
		g.do(b[1], b[2], b[3])
	}
}

var guideBlock = regexp.MustCompile("(?s)<!-- not run: (started|run) by the test of [^>]*-->\n```sh\n(.*?)```\n(?:```text\n(.*?)```\n)?")

func replacer(t testing.TB, page string, pairs []string) func(string) string {
	t.Helper()
	text := Read(t, page)
	for i := 0; i+1 < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%s: has no %q, which the test wants to replace", page, pairs[i])
		}
	}
	return strings.NewReplacer(pairs...).Replace
}

type guide struct {
	t       testing.TB
	env     []string
	replace func(string) string
}

func (g guide) do(verb, block, want string) {
	g.t.Helper()
	cmd := exec.CommandContext(context.Background(), "bash", "-o", "pipefail", "-c", g.replace(block)) //nolint:gosec // the page says what to run
	cmd.Dir, cmd.Env = Root(g.t), g.env
	if verb == "started" {
		StartCommand(g.t, cmd)
		return
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		g.t.Fatalf("%s: %v\n%s", block, err, out)
	}
	if want = g.replace(want); !printed(want, string(out)) {
		g.t.Errorf("%s\nprinted:\n%s\nthe page says:\n%s", block, out, want)
	}
}

// printed compares what was printed with what a page says; a … in it stands for anything, and the page may say
// nothing.
func printed(want, got string) bool {
	if want == "" {
		return true
	}
	var parts []string
	for part := range strings.SplitSeq(squeeze(want), "…") {
		parts = append(parts, regexp.QuoteMeta(strings.TrimSpace(part)))
	}
	return regexp.MustCompile(`(?s)^` + strings.Join(parts, ".*") + `$`).MatchString(squeeze(got))
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }
