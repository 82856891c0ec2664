// SPDX-License-Identifier: Apache-2.0

package strict

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// Field is one key that a struct accepts, as its tags describe it.
type Field struct {
	Name       string // the key
	Go         reflect.StructField
	Owner      reflect.Type // the struct that declares it, which is an embedded one or the one asked for
	Index      []int        // for reflect.Value.FieldByIndex
	Default    *Node        // nil when there is none
	Required   bool
	Union      string // the group of alternatives it belongs to, or ""
	UnionMust  bool   // one of the group has to be present
	Deprecated string // what to use instead, or ""
	Rules      []Rule
}

// Rule is one check of a value, such as gt=0.
type Rule struct {
	Name string // nonempty, name, regexp, oneof, gt, gte, lt or lte
	Arg  string // text after "="
}

// Rule returns the argument of a rule.
func (f Field) Rule(name string) (arg string, ok bool) {
	for _, r := range f.Rules {
		if r.Name == name {
			return r.Arg, true
		}
	}
	return "", false
}

var fieldCache sync.Map // reflect.Type → []Field

// Fields lists the keys that struct type t accepts, in the order they are declared; embedded structs are
// spread out. It panics on a malformed tag, which is a mistake in this repository (tests walk all types).
func Fields(t reflect.Type) []Field {
	if cached, ok := fieldCache.Load(t); ok {
		return cached.([]Field)
	}
	var fields []Field
	for i := range t.NumField() {
		sf := t.Field(i)
		switch {
		case sf.Anonymous:
			for _, f := range Fields(sf.Type) {
				f.Index = append([]int{i}, f.Index...)
				fields = append(fields, f)
			}
		case sf.IsExported():
			fields = append(fields, newField(t, sf, i))
		}
	}
	fieldCache.Store(t, fields)
	return fields
}

func newField(owner reflect.Type, sf reflect.StructField, i int) Field {
	name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
	if name == "" {
		panic(fmt.Sprintf("%s.%s has no json tag", owner, sf.Name))
	}
	f := Field{Name: name, Go: sf, Owner: owner, Index: []int{i}, Deprecated: sf.Tag.Get("deprecated")}
	union, must, _ := strings.Cut(sf.Tag.Get("union"), ",")
	f.Union, f.UnionMust = union, must == "required"
	if text, ok := sf.Tag.Lookup("default"); ok {
		d, err := Parse("", []byte(text))
		if err != nil {
			panic(fmt.Sprintf("default of %s.%s: %v", owner, sf.Name, err))
		}
		f.Default = d.Root
	}
	for text := range strings.SplitSeq(sf.Tag.Get("check"), ",") {
		rule, arg, _ := strings.Cut(text, "=")
		switch {
		case rule == "":
		case rule == "required":
			f.Required = true
		case slices.Contains(ruleNames, rule):
			f.Rules = append(f.Rules, Rule{rule, arg})
		default:
			panic(fmt.Sprintf("%s.%s: no check is called %q", owner, sf.Name, rule))
		}
	}
	return f
}
