// SPDX-License-Identifier: Apache-2.0

package sluice_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestGuideIsCompiled: each Go block of the guide is copied from an example, which the compiler checks.
// Indentation does not count.
func TestGuideIsCompiled(t *testing.T) {
	guide, err := os.ReadFile("../../docs/sdk-go.md")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the guide is not part of the module")
	}
	if err != nil {
		t.Fatal(err)
	}
	var examples strings.Builder
	files, err := filepath.Glob("*/example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "example_test.go") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		examples.WriteString(flush(string(text)))
	}
	blocks := strings.Split(string(guide), "```go\n")
	if len(blocks) < 5 {
		t.Errorf("found %d blocks, want more", len(blocks)-1)
	}
	for _, block := range blocks[1:] {
		code, _, closed := strings.Cut(block, "```")
		if !closed || !strings.Contains(examples.String(), flush(code)) {
			t.Errorf("this block is in no example:\n%s", code)
		}
	}
}

// flush removes indentation and empty lines.
func flush(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			out.WriteString("\n" + line)
		}
	}
	return out.String() + "\n"
}
