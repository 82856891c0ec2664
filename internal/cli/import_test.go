// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestImportEnvoyRatelimit(t *testing.T) {
	const plain = "domain: shop\ndescriptors:\n- key: user\n  rate_limit: {unit: minute, requests_per_unit: 5}\n"
	const shadow = "domain: cart\ndescriptors:\n- key: user\n  shadow_mode: true\n  rate_limit: {unit: minute, requests_per_unit: 5}\n"
	var large strings.Builder
	large.WriteString(plain)
	for i := range 1000 {
		fmt.Fprintf(&large, "- {key: user, value: u%d, rate_limit: {unit: day, requests_per_unit: %d}}\n", i, i)
	}
	tests := []struct {
		name   string
		files  map[string]string
		args   []string
		code   int
		stdout string
		stderr string
		wrote  []string // of out.yaml, out-2.yaml …
	}{
		{"the same way", map[string]string{"a.yaml": plain}, []string{"a.yaml"}, 0, `policy_name: "ratelimit-shop"`, "", nil},
		{"to a file", map[string]string{"a.yaml": plain}, []string{"a.yaml", "-o", "out.yaml", "--name", "limits", "--control-point", "edge"}, 0, "", "", []string{`control_point: "edge"`}},
		{"with a difference", map[string]string{"a.yaml": plain, "b.yaml": shadow}, []string{"a.yaml", "b.yaml", "--output", "out.yaml"}, 2, "", "b.yaml:4:3: differs: shadow_mode", []string{"ratelimit/cart"}},
		{"too large for one", map[string]string{"a.yaml": large.String()}, []string{"a.yaml", "-o", "out.yaml"}, 0, "", "", []string{`"ratelimit-shop-1"`, `"ratelimit-shop-2"`}},
		{"too large for standard output", map[string]string{"a.yaml": large.String()}, []string{"a.yaml"}, 1, "", "name a file with --output", nil},
		{"a mistake", map[string]string{"a.yaml": "domain: d\ndescriptors: [{kye: user}]"}, []string{"a.yaml", "-o", "out.yaml"}, 1, "", "a.yaml:2:16: descriptors[0].kye: unknown field", nil},
		{"twice", map[string]string{"a.yaml": plain}, []string{"a.yaml", "a.yaml"}, 1, "", "use --merge-domains", nil},
		{"nothing to do", map[string]string{"a.yaml": "domain: d"}, []string{"a.yaml"}, 1, "", "there is no rate_limit", nil},
		{"no file", nil, nil, 1, "", "no file given", nil},
		{"a file that is not there", nil, []string{"no.yaml"}, 1, "", "no.yaml: no such file", nil},
		{"a format for a file", map[string]string{"a.yaml": plain}, []string{"a.yaml", "-o", "json"}, 1, "", "write ./json", nil},
		{"a bad name", map[string]string{"a.yaml": plain}, []string{"a.yaml", "--name", "My Limits"}, 1, "", `--name: got text "My Limits", want lower-case`, nil},
		{"no control point", map[string]string{"a.yaml": plain}, []string{"a.yaml", "--control-point", ""}, 1, "", "--control-point: got none", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			for name, text := range tt.files {
				if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			code, stdout, stderr := run(t, nil, append([]string{"import", "envoy-ratelimit"}, tt.args...)...)
			if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) || tt.stderr == "" && stderr != "" {
				t.Errorf("exit code %d, %.300q, %q; want %d, %q, %q", code, stdout, stderr, tt.code, tt.stdout, tt.stderr)
			}
			for i, want := range tt.wrote {
				text, err := os.ReadFile(numbered("out.yaml", i+1))
				if err != nil || !strings.Contains(string(text), want) {
					t.Errorf("%s: %v, %.300q, want %s", numbered("out.yaml", i+1), err, text, want)
				}
			}
			if found, _ := filepath.Glob("out*"); len(found) > 0 && tt.wrote == nil {
				t.Errorf("wrote %v", found)
			}
		})
	}
}
