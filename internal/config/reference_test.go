// SPDX-License-Identifier: Apache-2.0

package config

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/internal/policy/strict"
)

var update = flag.Bool("update", false, "write docs/reference/configuration.md")

const reference = "../../docs/reference/configuration.md"

// TestReference keeps docs/reference/configuration.md equal to the structs and their comments.
func TestReference(t *testing.T) {
	want := renderReference(t)
	if *update {
		if err := os.WriteFile(reference, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(reference)
	if err != nil || string(got) != want {
		t.Errorf("%s is not what the code says (%v): run go test ./internal/config -update", reference, err)
	}
}

const intro = `# Configuration

<!-- Generated from internal/config by go test ./internal/config -update. Do not edit. -->

` + "`sluice serve`" + ` takes its settings from, the later over the earlier:

1. the defaults below;
2. the YAML file named by ` + "`--config`" + ` or ` + "`SLUICE_CONFIG`" + `;
3. environment variables;
4. flags, for the settings that have one (` + "`sluice serve --help`" + `).

Unknown keys, wrong types and impossible values are refused, all at once, with file, line and column.
` + "`sluice serve --check-config`" + ` checks without starting. An environment variable that is empty counts as not
set; lists and mappings are written as YAML (` + "`[a, b]`, `{a: b}`" + `) or, for lists of text, with commas.

A file with everything in it:

`

func renderReference(t *testing.T) string {
	comments := fieldComments(t)
	var out strings.Builder
	out.WriteString(intro + "```yaml\n" + exampleFile(comments) + "```\n\n| key | environment | type | default |\n| --- | --- | --- | --- |\n")
	for _, k := range Keys() {
		def := ""
		if k.Default != "" {
			def = "`" + k.Default + "`"
		}
		fmt.Fprintf(&out, "| [`%s`](#%s) | `%s` | %s | %s |\n", k.Name, anchor(k.Name), k.Env, k.Type, def)
	}
	for _, k := range Keys() {
		fmt.Fprintf(&out, "\n## %s\n\n%s\n", k.Name, comments[k.Owner+"."+k.Field])
		if k.item != nil {
			out.WriteString("\nEach has:\n\n")
			for _, f := range strict.Fields(k.item) {
				fmt.Fprintf(&out, "- `%s`: %s\n", f.Name, comments[k.item.Name()+"."+f.Go.Name])
			}
		}
	}
	return out.String()
}

func anchor(key string) string { return strings.ReplaceAll(key, ".", "") }

// exampleFile is a file with all defaults. It is read back below.
func exampleFile(comments map[string]string) string {
	var out strings.Builder
	var open []string // sections that the line before is in
	for _, k := range Keys() {
		sections := strings.Split(k.Name, ".")
		name := sections[len(sections)-1]
		sections = sections[:len(sections)-1]
		for i, section := range sections {
			if i >= len(open) || open[i] != section {
				about := strings.TrimSuffix(firstSentence(comments, sections[:i+1]), ".")
				fmt.Fprintf(&out, "%s%s: # %s\n", strings.Repeat("  ", i), section, about)
				open = nil
			}
		}
		open = sections
		indent := strings.Repeat("  ", len(sections))
		switch {
		case k.Default != "":
			fmt.Fprintf(&out, "%s%s: %s\n", indent, name, k.Default)
		case k.Name == "data_dir":
			fmt.Fprintf(&out, "%s%s: /var/lib/sluice\n", indent, name)
		case k.Name == "auth.tokens":
			fmt.Fprintf(&out, "%s%s:\n    - name: ci\n      role: operator\n      token_file: /run/secrets/sluice-ci\n", indent, name)
		default:
			fmt.Fprintf(&out, "%s# %s: %s\n", indent, name, exampleOf[k.Name])
		}
	}
	return out.String()
}

var exampleOf = map[string]string{
	"policy_dir": "/etc/sluice/policies", "tls.cert_file": "/etc/sluice/tls.crt", "tls.key_file": "/etc/sluice/tls.key",
	"http.allowed_origins": "[https://console.example.com]", "http.allowed_hosts": "[sluice.internal]",
	"also_listen": "[':8089', ':4317']", "agent_group": "edge", "caches.tenant_label": "tenant",
	"discovery.static":                "[{service: payments, addresses: [10.2.0.7]}]",
	"discovery.dns.services":          "[{service: checkout, host: checkout.internal}]",
	"discovery.kubernetes.kubeconfig": "/etc/sluice/kubeconfig", "discovery.kubernetes.namespace": "shop",
	"discovery.kubernetes.node":       "node-1",
	"envoy_rate_limit.control_points": "{edge: ingress}", "envoy_rate_limit.labels": "{remote_address: client_ip}",
}

// firstSentence is what the comment of a section says first.
func firstSentence(comments map[string]string, sections []string) string {
	t, text := reflect.TypeFor[Config](), ""
	for _, section := range sections {
		for _, f := range strict.Fields(t) {
			if f.Name == section {
				t, text = f.Go.Type, comments[f.Owner.Name()+"."+f.Go.Name]
				break
			}
		}
	}
	first, _, _ := strings.Cut(text, ". ")
	return strings.ToLower(first[:1]) + first[1:]
}

// fieldComments reads the comments of all fields from the source.
func fieldComments(t *testing.T) map[string]string {
	out := map[string]string{}
	for _, file := range []string{"config.go", "doors.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		addComments(t, f, out)
	}
	return out
}

func addComments(t *testing.T, f *ast.File, out map[string]string) {
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		s, ok := spec.Type.(*ast.StructType)
		if !ok {
			return true
		}
		for _, field := range s.Fields.List {
			if text := strings.Join(strings.Fields(field.Doc.Text()), " "); text == "" {
				t.Errorf("%s.%s has no comment", spec.Name.Name, field.Names[0].Name)
			} else {
				out[spec.Name.Name+"."+field.Names[0].Name] = text
			}
		}
		return true
	})
}

// TestExampleOfReference reads the file that the reference shows.
func TestExampleOfReference(t *testing.T) {
	text := exampleFile(fieldComments(t))
	c := load(t, Sources{File: write(t, strings.ReplaceAll(text, "# policy_dir", "policy_dir"))})
	if c.PolicyDir == "" || len(c.Auth.Tokens) != 1 || c.Limits != Default().Limits {
		t.Errorf("got %+v", c)
	}
}
