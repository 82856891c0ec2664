// SPDX-License-Identifier: Apache-2.0

package config

import (
	"reflect"
	"strings"
	"sync"

	"github.com/sluice-project/sluice/internal/policy/strict"
)

// Key is one setting.
type Key struct {
	Name    string // for example log.level
	Env     string // for example SLUICE_LOG_LEVEL
	Type    string // for people: text, duration, whole number, true or false, list
	Default string // as written in a file; "" when there is none
	Owner   string // the Go struct that declares it
	Field   string // the Go field

	kind, elem reflect.Kind
	item       reflect.Type // of a list of mappings
	index      []int
}

// Keys lists all settings, in the order of Config.
func Keys() []Key { return allKeys() }

var allKeys = sync.OnceValue(func() []Key { return keysOf(reflect.TypeFor[Config](), "", nil) })

func keysOf(t reflect.Type, prefix string, index []int) []Key {
	var out []Key
	for _, f := range strict.Fields(t) {
		at := append(index[:len(index):len(index)], f.Index...)
		name := prefix + f.Name
		if f.Go.Type.Kind() == reflect.Struct {
			out = append(out, keysOf(f.Go.Type, name+".", at)...)
			continue
		}
		k := Key{
			Name: name, Env: EnvPrefix + strings.ToUpper(strings.ReplaceAll(name, ".", "_")),
			Type: typeName(f.Go.Type), Owner: f.Owner.Name(), Field: f.Go.Name,
			Default: f.Go.Tag.Get("default"), kind: f.Go.Type.Kind(), index: at,
		}
		if k.kind == reflect.Slice {
			k.elem = f.Go.Type.Elem().Kind()
		}
		if k.elem == reflect.Struct {
			k.item = f.Go.Type.Elem()
		}
		if f.Go.Type == reflect.TypeFor[Duration]() {
			k.kind = reflect.String // is written as text
		}
		out = append(out, k)
	}
	return out
}

func typeName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Duration]():
		return "duration"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int64:
		return "whole number"
	case t.Kind() == reflect.Map:
		return "mapping of text"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return "list of mappings"
	case t.Kind() == reflect.Slice:
		return "list of text"
	}
	return "text"
}

func (k Key) value(c *Config) reflect.Value { return reflect.ValueOf(c).Elem().FieldByIndex(k.index) }

func keyNamed(name string) (Key, bool) {
	for _, k := range Keys() {
		if k.Name == name {
			return k, true
		}
	}
	return Key{}, false
}
