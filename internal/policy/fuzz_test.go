// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// FuzzParse gives the parser hostile text: it is refused with places, or makes a document whose canonical
// form means the same.
func FuzzParse(f *testing.F) {
	bad, err := filepath.Glob("testdata/bad/*")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(goodFiles(f), bad...) {
		f.Add(string(read(f, file)))
	}
	f.Fuzz(func(t *testing.T, text string) {
		doc, err := policy.Parse(policy.Source{Name: "fuzz", Text: []byte(text)})
		var list fielderr.List
		if err != nil && (!errors.As(err, &list) || len(list) == 0) {
			t.Fatalf("got error %v, want a fielderr.List", err)
		}
		if err != nil {
			return
		}
		again, err := policy.Parse(policy.Source{Name: "fuzz", Text: doc.Canonical})
		if err != nil {
			t.Fatalf("canonical form is refused: %v\n%s", err, doc.Canonical)
		}
		if again.Hash != doc.Hash {
			t.Fatalf("canonical form means something else:\n%s\n%s", doc.Canonical, again.Canonical)
		}
	})
}

// TestHugeDocuments gives the parser the worst that fits into its bounds. What matters is that it returns,
// within seconds, and neither panics nor runs out of stack or memory.
func TestHugeDocuments(t *testing.T) {
	fill := func(unit string) string { return strings.Repeat(unit, strict.MaxBytes/len(unit)) }
	keys, staircase := &strings.Builder{}, &strings.Builder{}
	for i := range 9_900 {
		fmt.Fprintf(keys, "k%d: 1\n", i)
	}
	for i := 0; staircase.Len()+i+3 < strict.MaxBytes; i++ {
		staircase.WriteString(strings.Repeat(" ", i) + "k:\n")
	}
	for name, text := range map[string]string{
		"too many bytes":   fill("a") + "aaaa",
		"one long line":    "policy_name: " + strings.Repeat("x", strict.MaxBytes-20),
		"flow lists":       fill("["),
		"flow mappings":    fill("{a: "),
		"block lists":      fill("- "),
		"keys in keys":     fill("? "),
		"many keys":        keys.String(),
		"staircase":        staircase.String(),
		"newlines":         fill("\n"),
		"comments":         fill("#\n"),
		"quotes":           fill("'"),
		"anchors":          fill("&a "),
		"aliases":          "policy_name: &a x\ncircuit: [" + strings.Repeat("*a,", 9_000) + "]",
		"documents":        fill("---\n"),
		"wrong components": "circuit:\n  components:\n" + strings.Repeat("    - 1\n", 9_000),
		"deep expressions": "circuit: {components: [" + strings.Repeat("{nested_circuit: {components: [", 40) + strings.Repeat("]}}", 40) + "]}",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := policy.Parse(policy.Source{Name: "x", Text: []byte(text)}); err == nil {
				t.Error("accepted, want a refusal")
			} else if len(err.Error()) > 100_000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

// BenchmarkParse reads a document with 200 components.
func BenchmarkParse(b *testing.B) {
	text := "policy_name: x\ncircuit:\n  components:\n"
	for i := range 200 {
		text += fmt.Sprintf(`    - flow_control:
        rate_limiter:
          in_ports:
            bucket_capacity: {constant_signal: {value: %d}}
            fill_amount: {constant_signal: {value: 1}}
          parameters: {interval: 1s, limit_by_label_key: user}
          selectors:
            - control_point: cp%d
`, i, i)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := policy.Parse(policy.Source{Text: []byte(text)}); err != nil {
			b.Fatal(err)
		}
	}
}
