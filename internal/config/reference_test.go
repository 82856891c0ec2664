// SPDX-License-Identifier: Apache-2.0

package config

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"
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
set; lists are written as YAML (` + "`[a, b]`" + `) or, for lists of text, with commas.

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
		if k.Name == "auth.tokens" {
			out.WriteString("\nEach has:\n\n")
			for _, f := range []string{"Name", "Role", "Token", "TokenFile"} {
				fmt.Fprintf(&out, "- `%s`: %s\n", jsonName(f), comments["Token."+f])
			}
		}
	}
	return out.String()
}

func anchor(key string) string { return strings.ReplaceAll(key, ".", "") }

func jsonName(field string) string {
	return map[string]string{"Name": "name", "Role": "role", "Token": "token", "TokenFile": "token_file"}[field]
}

// exampleFile is a file with all defaults. It is read back below.
func exampleFile(comments map[string]string) string {
	var out strings.Builder
	group := ""
	for _, k := range Keys() {
		g, name, nested := strings.Cut(k.Name, ".")
		if !nested {
			name, g = g, ""
		}
		if g != group && g != "" {
			fmt.Fprintf(&out, "%s: # %s\n", g, strings.TrimSuffix(firstSentence(comments, g), "."))
		}
		group = g
		indent := ""
		if nested {
			indent = "  "
		}
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
}

func firstSentence(comments map[string]string, group string) string {
	for name, text := range comments {
		if strings.EqualFold(name, "Config."+group) {
			first, _, _ := strings.Cut(text, ". ")
			return strings.ToLower(first[:1]) + first[1:]
		}
	}
	return ""
}

// fieldComments reads the comments of all fields from the source.
func fieldComments(t *testing.T) map[string]string {
	f, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
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
	return out
}

// TestExampleOfReference reads the file that the reference shows.
func TestExampleOfReference(t *testing.T) {
	text := exampleFile(fieldComments(t))
	c := load(t, Sources{File: write(t, strings.ReplaceAll(text, "# policy_dir", "policy_dir"))})
	if c.PolicyDir == "" || len(c.Auth.Tokens) != 1 || c.Limits != Default().Limits {
		t.Errorf("got %+v", c)
	}
}
