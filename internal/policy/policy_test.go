// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy"
)

var show = flag.Bool("show", false, "print what the bad documents give, in the form of the table")

func read(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestBadDocuments parses every file of testdata/bad and compares all problems with the table.
func TestBadDocuments(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*")
	if err != nil || len(files) < len(problems) {
		t.Fatalf("found %d files for %d rows: %v", len(files), len(problems), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			_, err := policy.Parse(policy.Source{File: name, Text: read(t, file)})
			got := lines(t, name, err)
			if *show {
				fmt.Printf("\t%q: {\n", name)
				for _, line := range got {
					fmt.Printf("\t\t%s,\n", quote(line))
				}
				fmt.Println("\t},")
				return
			}
			want, ok := problems[name]
			if !ok {
				t.Fatalf("no row for this file; it gives %q", got)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("problems differ (-want +got):\n%s", diff)
			}
		})
	}
}

// lines writes the problems of err without the name of the file.
func lines(t *testing.T, name string, err error) []string {
	t.Helper()
	var list fielderr.List
	if !errors.As(err, &list) {
		t.Fatalf("got error %v, want a fielderr.List", err)
	}
	var lines []string
	for _, e := range list {
		if e.File != name || e.Line < 1 && e.Message != "document too large" {
			t.Errorf("problem has no place: %+v", e)
		}
		one := *e
		one.File = ""
		lines = append(lines, one.Error())
	}
	return lines
}

func quote(s string) string {
	for _, r := range s {
		if r == '`' {
			return fmt.Sprintf("%q", s)
		}
	}
	return "`" + s + "`"
}
