// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/blueprint"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// width is where comments wrap.
const width = 100

// valuesFile writes the commented values file of a blueprint, with every default.
func valuesFile(docs comments, b *blueprint.Blueprint) []byte {
	w := &valuesWriter{docs: docs}
	fmt.Fprintf(&w.out, "# yaml-language-server: $schema=%sblueprints/%s.schema.json\n", schemaURL, dotted(b.Name))
	w.comment("", b.Title+": values of the blueprint "+b.Name+", with every default. Fill in what says "+strict.Placeholder+" and delete what you do not change.")
	fmt.Fprintf(&w.out, "blueprint: %s\npolicy:\n", b.Name)
	values, _ := b.ValuesFile.FieldByName("Policy")
	w.structure("  ", values.Type, nil)
	return w.out.Bytes()
}

type valuesWriter struct {
	docs comments
	out  bytes.Buffer
}

func (w *valuesWriter) comment(indent, text string) {
	line := indent + "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width {
			fmt.Fprintln(&w.out, line)
			line = indent + "#"
		}
		line += " " + word
	}
	fmt.Fprintln(&w.out, line)
}

// structure writes the keys of a struct; supplied are values that a default of the struct itself gives.
func (w *valuesWriter) structure(indent string, t reflect.Type, supplied *strict.Node) {
	for _, f := range strict.Fields(t) {
		if f.Deprecated != "" {
			continue
		}
		if node := supplied.Get(f.Name); node != nil {
			f.Default, f.Required = node, false
		}
		note := w.docs.ofField(f.Owner, f.Go.Name)
		if words, ok := f.Rule("oneof"); ok {
			note += " One of " + strings.Join(strings.Fields(words), ", ") + "."
		}
		if f.Required {
			note += " Required."
		}
		w.comment(indent, note)
		w.field(indent, f)
	}
}

func (w *valuesWriter) field(indent string, f strict.Field) {
	t := f.Go.Type
	scalar := reflect.PointerTo(t).Implements(reflect.TypeFor[strict.Scalar]())
	switch {
	case t.Kind() == reflect.Struct && !scalar:
		fmt.Fprintf(&w.out, "%s%s:\n", indent, f.Name)
		w.structure(indent+"  ", t, f.Default)
	case t.Kind() == reflect.Slice && f.Required:
		var item valuesWriter
		item.docs = w.docs
		item.structure(indent+"    ", t.Elem(), nil)
		text := strings.TrimPrefix(item.out.String(), indent+"    ")
		fmt.Fprintf(&w.out, "%s%s:\n%s  - %s", indent, f.Name, indent, text)
	case f.Required:
		fmt.Fprintf(&w.out, "%s%s: %s\n", indent, f.Name, strict.Placeholder)
	case f.Default != nil:
		fmt.Fprintf(&w.out, "%s%s: %s\n", indent, f.Name, inline(f.Default))
	case t.Kind() == reflect.Pointer:
		fmt.Fprintf(&w.out, "%s# %s: %s\n", indent, f.Name, empty(t.Elem())) // no value means what absence does
	default:
		fmt.Fprintf(&w.out, "%s%s: %s\n", indent, f.Name, empty(t))
	}
}

// empty is a value of type t to begin with.
func empty(t reflect.Type) string {
	if t == reflect.TypeFor[policy.Duration]() {
		return "30s"
	}
	switch t.Kind() {
	case reflect.Slice:
		return "[]"
	case reflect.Map, reflect.Struct:
		return "{}"
	case reflect.Bool:
		return "false"
	case reflect.String:
		return `""`
	}
	return "0"
}

// inline writes a value on one line. Text that YAML reads as text stays unquoted.
func inline(n *strict.Node) string {
	if n.Kind == strict.Text && !strings.ContainsAny(n.Text, `:#{}[],&*!|>'"%@`+"`") && n.Text != "" {
		return n.Text
	}
	b, err := json.Marshal(n)
	if err != nil {
		panic(err) // a Node holds nothing that JSON cannot write
	}
	return string(b)
}
