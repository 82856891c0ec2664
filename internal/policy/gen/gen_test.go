// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/blueprint"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

const root = "../../.."

// TestCommittedFilesAreCurrent fails when the language changed and "go generate ./internal/policy" was not
// run.
func TestCommittedFilesAreCurrent(t *testing.T) {
	files, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Errorf("%v; run go generate ./internal/policy", err)
			continue
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is out of date; run go generate ./internal/policy (-want +got):\n%s", name, diff)
		}
	}
	committed, err := filepath.Glob(filepath.Join(root, "schemas", "blueprints", "*"))
	if err != nil || len(committed) != 2*len(blueprint.All()) {
		t.Errorf("got %d files in schemas/blueprints, want two for each blueprint: %v", len(committed), err)
	}
}

// TestEverythingIsDocumented: editors and the reference show the comments.
func TestEverythingIsDocumented(t *testing.T) {
	docs := comments{}
	for _, dir := range []string{"..", "../blueprint"} {
		if err := docs.read(dir); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[reflect.Type]bool{}
	var visit func(reflect.Type)
	visit = func(typ reflect.Type) {
		for slices.Contains([]reflect.Kind{reflect.Pointer, reflect.Slice, reflect.Map}, typ.Kind()) {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || seen[typ] {
			return
		}
		seen[typ] = true
		if docs.ofType(typ) == "" {
			t.Errorf("%s has no comment", typ)
		}
		for _, f := range strict.Fields(typ) {
			if docs.ofField(f.Owner, f.Go.Name) == "" {
				t.Errorf("%s.%s has no comment", typ, f.Go.Name)
			}
			visit(f.Go.Type)
		}
	}
	visit(plainType)
	visit(objectType)
	for _, b := range blueprint.All() {
		visit(b.ValuesFile)
	}
}

func compile(t *testing.T, text []byte) *jsonschema.Schema {
	t.Helper()
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", parsed); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// TestSchemasAcceptGoodDocuments checks every example against the schema its editor would use.
func TestSchemasAcceptGoodDocuments(t *testing.T) {
	forPolicy := compile(t, read(t, filepath.Join(root, "schemas", "policy.schema.json")))
	forValues := map[string]*jsonschema.Schema{}
	for _, b := range blueprint.All() {
		text, err := b.Schema()
		if err != nil {
			t.Fatal(err)
		}
		forValues[b.Name] = compile(t, text)
		if err := forValues[b.Name].Validate(instance(t, []byte(b.Example))); err != nil {
			t.Errorf("example of %s: %v", b.Name, err)
		}
	}
	for _, file := range append(glob(t, "../testdata/good/*"), "../testdata/every-component.yaml") {
		text := read(t, file)
		doc, err := blueprint.Parse(policy.Source{File: file, Text: text})
		if err != nil {
			t.Fatal(err)
		}
		schema := forPolicy
		if doc.Blueprint != "" {
			schema = forValues[doc.Blueprint]
		}
		if err := schema.Validate(instance(t, text)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if err := forPolicy.Validate(instance(t, doc.Canonical)); err != nil {
			t.Errorf("canonical form of %s: %v", file, err)
		}
	}
}

// beyondSchemas are bad documents whose mistakes a JSON Schema cannot express or a YAML library forgives.
var beyondSchemas = []string{
	"alias-inside-itself", "classifiers", "constants", "control-character", "duplicate-key", "empty-key", "evaluation-interval-long", "fixed-window", "not-filled-in", "No_Name", "not-utf8",
	"object-name-number", "object-no-name", "second-document", "signal-private", "signal-two-producers",
	"signal-undefined", "tag", "merge-text",
}

// TestSchemasRefuseBadDocuments: what a schema can express, an editor shows while one types.
func TestSchemasRefuseBadDocuments(t *testing.T) {
	schema := compile(t, read(t, filepath.Join(root, "schemas", "policy.schema.json")))
	for _, file := range glob(t, "../testdata/bad/*") {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		if strings.HasPrefix(name, "syntax-") || strings.HasPrefix(name, "alias-") || slices.Contains(beyondSchemas, name) {
			continue
		}
		var v any
		if err := yaml.Unmarshal(read(t, file), &v); err != nil {
			continue // an editor shows this, too
		}
		if err := schema.Validate(plain(v)); err == nil {
			t.Errorf("the schema accepts %s", name)
		}
	}
	for _, file := range glob(t, "../blueprint/testdata/bad/*") {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		b, ok := blueprint.Find(map[string]string{
			"amounts": "quota-scheduling/base", "values": "concurrency-scheduling/base",
			"concurrency": "concurrency-limiting/base", "adaptive": "load-scheduling/adaptive", "promql": "load-scheduling/promql",
			"average-latency": "load-scheduling/average-latency", "ramping": "load-ramping/base",
			"auto-scaling": "auto-scaling/pod-auto-scaler", "older-both": "load-scheduling/postgresql",
		}[name])
		if !ok {
			b, _ = blueprint.Find("rate-limiting/base")
		}
		if slices.Contains([]string{"signals", "names-taken", "short-average"}, name) {
			continue // no schema knows signals, what a blueprint makes, or arithmetic
		}
		text, err := b.Schema()
		if err != nil {
			t.Fatal(err)
		}
		if err := compile(t, text).Validate(instance(t, read(t, file))); err == nil {
			t.Errorf("the schema of %s accepts %s", b.Name, name)
		}
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: found %d files: %v", pattern, len(files), err)
	}
	return files
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func instance(t *testing.T, text []byte) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return plain(v)
}

// plain turns what the YAML library gives into what the validator knows.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = plain(e)
		}
	case []any:
		for i, e := range v {
			v[i] = plain(e)
		}
	case uint64:
		return float64(v)
	case int64:
		return float64(v)
	}
	return v
}
