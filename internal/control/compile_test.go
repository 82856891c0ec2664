// SPDX-License-Identifier: Apache-2.0

package control

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCompile compares what documents are compiled to with golden files.
func TestCompile(t *testing.T) {
	files, err := filepath.Glob("testdata/compile/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	files = append(files, "../policy/testdata/every-component.yaml")
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p := compile(t, name, string(text))
			golden(t, "compile/"+name+".golden", p.String())
		})
	}
}
