// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

func TestRepository(t *testing.T) {
	repo, err := Load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if len(repo.Packages) < 10 || len(repo.Modules) < 3 {
		t.Fatalf("found %d packages in %d modules: this is not the repository", len(repo.Packages), len(repo.Modules))
	}
	for _, rule := range Rules() {
		t.Run(rule.Name, func(t *testing.T) {
			for _, problem := range rule.Find(repo) {
				t.Error(problem)
			}
		})
	}
}

// TestRules runs every rule on a repository that breaks it. A script holds the files and, in "want", the
// findings; a line of it is the beginning of one, so that wording can change. In a second run the files in
// good/ are laid over the others, an empty one removes its counterpart, and the rule must find nothing.
func TestRules(t *testing.T) {
	for _, rule := range Rules() {
		t.Run(rule.Name, func(t *testing.T) {
			bad, good, want := readScript(t, filepath.Join("testdata", rule.Name+".txtar"))
			if len(want) == 0 {
				t.Fatal("the script wants no finding: it must show that the rule can fail")
			}
			compare(t, find(t, rule, bad), want)
			compare(t, find(t, rule, good), nil)
		})
	}
}

// TestTable checks that no row of the table hides another and that restrictions name rows.
func TestTable(t *testing.T) {
	dirs := map[string]bool{}
	for _, l := range layers {
		if dirs[l.dir] {
			t.Errorf("%s is in the table twice", l.dir)
		}
		if dirs[l.dir] = true; l.what == "" {
			t.Errorf("%s: say what it is for", l.dir)
		}
	}
	for _, l := range layers {
		for _, d := range slices.Concat(l.users, l.imports) {
			if !dirs[d] {
				t.Errorf("%s names %s, which is not in the table", l.dir, d)
			}
		}
	}
}

func TestLoadRefusesBrokenFiles(t *testing.T) {
	for name, files := range map[string]fstest.MapFS{
		"go":     {"a.go": {Data: []byte("package")}},
		"module": {"go.mod": {Data: []byte("go 1.26\n")}},
	} {
		if _, err := Load(files); err == nil {
			t.Errorf("%s: loaded, want an error", name)
		}
	}
}

func readScript(t *testing.T, file string) (bad, good fstest.MapFS, want []string) {
	t.Helper()
	script, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// Every script is about the same three modules unless it says otherwise.
	bad = fstest.MapFS{
		"go.mod":               {Data: []byte("module example.com/m\n")},
		"api/go.mod":           {Data: []byte("module example.com/m/api\n")},
		"sdk/go/go.mod":        {Data: []byte("module example.com/m/sdk/go\n")},
		"docs/dependencies.md": {},
	}
	better := fstest.MapFS{}
	for _, f := range script.Files {
		if f.Name == "want" {
			want = strings.Split(strings.TrimSpace(string(f.Data)), "\n")
		} else if name, ok := strings.CutPrefix(f.Name, "good/"); ok {
			better[name] = &fstest.MapFile{Data: f.Data}
		} else {
			bad[f.Name] = &fstest.MapFile{Data: f.Data}
		}
	}
	good = maps.Clone(bad)
	for name, f := range better {
		if good[name] = f; len(f.Data) == 0 {
			delete(good, name)
		}
	}
	return bad, good, want
}

func find(t *testing.T, rule Rule, files fstest.MapFS) []string {
	t.Helper()
	repo, err := Load(files)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(slices.Values(rule.Find(repo)))
}

// compare shortens each finding to the length of the wanted one.
func compare(t *testing.T, got, want []string) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if strings.HasPrefix(got[i], want[i]) {
			got[i] = want[i]
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings (- want, + got):\n%s", diff)
	}
}
