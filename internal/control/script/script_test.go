// SPDX-License-Identifier: Apache-2.0

package script

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/internal/fielderr"
)

// TestExamples: the examples for users hold.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../../examples/policy-tests/*_test.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Load(f, text, os.ReadFile)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range s.Run(Options{All: true}) {
			for _, failure := range r.Failures {
				t.Errorf("%s:%d:%d: %s: %s\n%s", f, failure.Line, failure.Column, r.Case, failure.String(), r.Table.Around(failure.Tick))
			}
		}
	}
}

func isList(err error) bool {
	var list fielderr.List
	return errors.As(err, &list)
}

var _ = strings.Join
var _ = isList
