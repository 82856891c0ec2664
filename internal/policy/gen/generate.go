// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/invopop/jsonschema"

	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/blueprint"
)

// schemaURL is where the schemas are published; editors and the comments in values files use it.
const schemaURL = "https://raw.githubusercontent.com/sluice-project/sluice/main/schemas/"

// generate returns every generated file by its path below root, where the sources of the language are.
func generate(root string) (map[string][]byte, error) {
	docs := comments{}
	for _, dir := range []string{"internal/policy", "internal/policy/blueprint"} {
		if err := docs.read(filepath.Join(root, filepath.FromSlash(dir))); err != nil {
			return nil, err
		}
	}
	files := map[string][]byte{}
	schema, err := marshal(policySchema(docs))
	if err != nil {
		return nil, err
	}
	files["schemas/policy.schema.json"] = schema
	for _, b := range blueprint.All() {
		name := "schemas/blueprints/" + dotted(b.Name)
		if files[name+".schema.json"], err = marshal(blueprintSchema(docs, b)); err != nil {
			return nil, err
		}
		files[name+".values.yaml"] = valuesFile(docs, b)
	}
	policies, values, err := readExamples(filepath.Join(root, "internal", "policy", "testdata", "good"))
	if err != nil {
		return nil, err
	}
	files["docs/reference/policy.md"] = append(policyReference(docs), policies...)
	files["docs/reference/blueprints.md"] = append(blueprintReference(docs, files), values...)
	return files, nil
}

// readExamples returns the examples as sections of Markdown: policies, and values of blueprints. The tests
// of the policy language parse the same files.
func readExamples(dir string) (policies, values []byte, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return nil, nil, fmt.Errorf("list %s: %w", dir, err)
	}
	policies, values = []byte("\n## Examples\n"), []byte("\n## More examples\n")
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, nil, fmt.Errorf("read example: %w", err)
		}
		doc, err := blueprint.Parse(policy.Source{File: name, Text: text})
		if err != nil {
			return nil, nil, err
		}
		section := fmt.Appendf(nil, "\n```%s\n%s```\n", strings.TrimPrefix(filepath.Ext(name), "."), text)
		if doc.Blueprint == "" {
			policies = append(policies, section...)
		} else {
			values = append(values, section...)
		}
	}
	return policies, values, nil
}

// ownPackage is where the types of values files are; types of others are those of policies.
var ownPackage = reflect.TypeFor[blueprint.Common]().PkgPath()

func dotted(blueprint string) string { return strings.ReplaceAll(blueprint, "/", ".") }

func marshal(s *jsonschema.Schema) ([]byte, error) {
	compact, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("write schema %s: %w", s.ID, err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, compact, "", "  "); err != nil {
		return nil, fmt.Errorf("indent schema %s: %w", s.ID, err)
	}
	indented.WriteByte('\n')
	return indented.Bytes(), nil
}

// comments are the doc comments of types ("Scheduler") and fields ("Scheduler.Workloads"), on one line.
type comments map[string]string

// read collects the comments of the Go files in dir.
func (c comments) read(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return fmt.Errorf("read comments: %w", err)
		}
		for _, decl := range file.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.TYPE {
				continue
			}
			for _, spec := range gen.Specs {
				c.add(gen, spec.(*ast.TypeSpec))
			}
		}
	}
	return nil
}

func (c comments) add(decl *ast.GenDecl, spec *ast.TypeSpec) {
	text := spec.Doc.Text()
	if text == "" && len(decl.Specs) == 1 {
		text = decl.Doc.Text()
	}
	c[spec.Name.Name] = oneLine(text)
	s, ok := spec.Type.(*ast.StructType)
	if !ok {
		return
	}
	for _, f := range s.Fields.List {
		for _, name := range f.Names {
			c[spec.Name.Name+"."+name.Name] = oneLine(f.Doc.Text())
		}
	}
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func (c comments) ofType(t reflect.Type) string { return c[typeName(t)] }

func (c comments) ofField(owner reflect.Type, field string) string {
	return c[typeName(owner)+"."+field]
}

// typeName is the name of a type without the arguments of a generic one.
func typeName(t reflect.Type) string {
	name, _, _ := strings.Cut(t.Name(), "[")
	return name
}

var (
	plainType  = reflect.TypeFor[policy.PlainDocument]()
	objectType = reflect.TypeFor[policy.ObjectDocument]()
)
