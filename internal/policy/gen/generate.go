// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
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
	files["docs/reference/policy.md"] = policyReference(docs)
	files["docs/reference/blueprints.md"] = blueprintReference(docs, files)
	return files, nil
}

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

// ofType is the comment of a type, without its first words "Name is", which repeat the heading.
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
