// SPDX-License-Identifier: Apache-2.0

package strict

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/sluice-project/sluice/internal/fielderr"
)

// Scalar is implemented by types that are written as one value with a syntax of their own, such as "90s".
type Scalar interface {
	// DecodeScalar reads n, of any kind, into the receiver. A returned problem needs no place and no Got.
	DecodeScalar(n *Node) *fielderr.Error
}

// Checker is implemented by structs with rules that tags cannot express. Check is called once after the
// struct was decoded, also when some of its fields were refused. It changes nothing.
type Checker interface {
	Check(at Place)
}

// Placeholder stands in generated files where a value has to be filled in. It is refused everywhere.
const Placeholder = "__REQUIRED_FIELD__"

// Decode reads n, which stands at path, into the struct that into points to, and reports every problem to
// the document. Fields that the document leaves out get their defaults.
func (d *Document) Decode(path fielderr.Path, n *Node, into any) {
	d.decode(path, n, reflect.ValueOf(into).Elem())
}

// Default returns a T with all defaults, as if decoded from an empty mapping, without checks.
func Default[T any]() T {
	var v T
	d := &Document{nodes: map[fielderr.Path]*Node{}}
	d.Root = &Node{Kind: Map}
	d.decode("", d.Root, reflect.ValueOf(&v).Elem())
	return v
}

func (d *Document) decode(path fielderr.Path, n *Node, v reflect.Value) {
	if d.full {
		return
	}
	d.nodes[path] = n
	if n.Kind == Text && n.Text == Placeholder {
		d.Report(path, fielderr.Error{Message: "not filled in", Want: want(v.Type())})
		return
	}
	if scalar, ok := v.Addr().Interface().(Scalar); ok {
		if problem := scalar.DecodeScalar(n); problem != nil {
			problem.Got = n.Describe()
			d.Report(path, *problem)
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(path, n, v.Elem())
	case reflect.Struct:
		d.decodeStruct(path, n, v)
	case reflect.Slice:
		d.decodeSlice(path, n, v)
	case reflect.Map:
		d.decodeMap(path, n, v)
	case reflect.Interface:
		d.reportDuplicates(path, n)
		if value := n.Value(); value != nil {
			v.Set(reflect.ValueOf(value))
		}
	default:
		if problem := setBasic(v, n); problem != nil {
			problem.Got = n.Describe()
			d.Report(path, *problem)
		}
	}
}

func (d *Document) decodeStruct(path fielderr.Path, n *Node, v reflect.Value) {
	if n.Kind != Map {
		d.Report(path, fielderr.Error{Got: n.Describe(), Want: want(v.Type())})
		return
	}
	fields := Fields(v.Type())
	d.reportDuplicates(path, n)
	unknown, meant := d.reportUnknown(path, n, fields)
	for _, f := range fields {
		if f.Required && slices.Contains(meant, f.Name) && n.Get(f.Name) == nil {
			continue // it is there, misspelt, and was reported as such
		}
		d.decodeField(path, n, f, v.FieldByIndex(f.Index))
	}
	d.checkUnions(path, n, fields, unknown)
	if c, ok := v.Addr().Interface().(Checker); ok {
		c.Check(Place{d, path})
	}
}

func (d *Document) decodeField(parent fielderr.Path, n *Node, f Field, v reflect.Value) {
	path, node := parent.Field(f.Name), n.Get(f.Name)
	if node != nil && f.Deprecated != "" {
		d.nodes[path] = node
		d.Report(path, fielderr.Error{
			Severity: fielderr.Warning, Message: "deprecated", Hint: f.Deprecated,
			Line: node.KeyLine, Column: node.KeyColumn,
		})
	}
	switch {
	case node != nil:
		before := len(d.found)
		d.decode(path, withDefaults(node, f), v)
		if len(d.found) == before { // a value that could not be read has no range
			d.checkRules(path, node, f, v)
		}
	case f.Required:
		d.ReportAbsence(parent, f.Name, fielderr.Error{Message: "missing", Want: want(v.Type())})
	case f.Default != nil:
		d.decode(path, f.Default.standingAt(n), v)
	case v.Kind() == reflect.Struct && !isScalar(v.Type()):
		d.decode(path, (&Node{Kind: Map}).standingAt(n), v)
	}
}

// withDefaults adds the members of a struct's default that the document leaves out.
func withDefaults(n *Node, f Field) *Node {
	if f.Default == nil || f.Default.Kind != Map || n.Kind != Map {
		return n
	}
	merged := *n
	merged.Members = slices.Clone(n.Members)
	for _, m := range f.Default.Members {
		if n.Get(m.Key) == nil {
			merged.Members = slices.DeleteFunc(merged.Members, func(have Member) bool { return have.Key == m.Key })
			merged.Members = append(merged.Members, Member{m.Key, n.KeyLine, n.KeyColumn, m.Value.standingAt(n)})
		}
	}
	return &merged
}

// standingAt is the node with the position of another one: problems of a default show where it applies.
func (n *Node) standingAt(other *Node) *Node {
	moved := *n
	moved.Line, moved.Column = other.KeyLine, other.KeyColumn
	moved.KeyLine, moved.KeyColumn = other.KeyLine, other.KeyColumn
	return &moved
}

func (d *Document) reportDuplicates(path fielderr.Path, n *Node) {
	for _, dup := range n.duplicates {
		d.Report(path.Field(dup.key), fielderr.Error{
			Line: dup.at.Line, Column: dup.at.Column,
			Message: fmt.Sprintf("duplicate key, first on line %d", dup.first), Hint: "remove one of them",
		})
	}
}

// reportUnknown refuses keys that are no field. It returns how many there were, and the fields that were
// probably meant.
func (d *Document) reportUnknown(path fielderr.Path, n *Node, fields []Field) (unknown int, meant []string) {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	for _, m := range n.Members {
		if slices.Contains(names, m.Key) {
			continue
		}
		unknown++
		if name, ok := fielderr.Suggest(m.Key, names); ok {
			meant = append(meant, name)
		}
		d.Report(path.Field(m.Key), fielderr.Error{
			Line: m.Line, Column: m.Column, Message: "unknown field",
			Hint: fielderr.OneOf(m.Key, names),
		})
	}
	return unknown, meant
}

// checkUnions counts the alternatives present. When the mapping has unknown keys, one of them was probably
// meant to be the alternative, so a missing one is not reported again.
func (d *Document) checkUnions(path fielderr.Path, n *Node, fields []Field, unknown int) {
	for i, f := range fields {
		if f.Union == "" || slices.ContainsFunc(fields[:i], func(e Field) bool { return e.Union == f.Union }) {
			continue
		}
		var present, all []string
		for _, alternative := range fields[i:] {
			if alternative.Union == f.Union {
				all = append(all, alternative.Name)
			}
		}
		for _, m := range n.Members { // in the document's order
			if slices.Contains(all, m.Key) && m.Value.Kind != Null {
				present = append(present, m.Key)
			}
		}
		switch {
		case len(present) > 1:
			second := n.Get(present[1])
			d.Report(path.Field(present[1]), fielderr.Error{
				Line: second.KeyLine, Column: second.KeyColumn,
				Got: strings.Join(present, " and "), Want: "only one of them",
			})
		case len(present) == 0 && f.UnionMust && unknown == 0:
			d.Report(path, fielderr.Error{Line: n.KeyLine, Column: n.KeyColumn, Got: "none", Want: "one of " + strings.Join(all, ", ")})
		}
	}
}

func (d *Document) decodeSlice(path fielderr.Path, n *Node, v reflect.Value) {
	if n.Kind != List {
		problem := fielderr.Error{Got: n.Describe(), Want: "a list"}
		if n.Kind == Map {
			problem.Hint = `begin the item with "- "`
		}
		d.Report(path, problem)
		return
	}
	if len(n.Items) == 0 {
		return // nil, so that an empty list and an absent one are the same document
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Items), len(n.Items)))
	for i, item := range n.Items {
		d.decode(path.Index(i), item, v.Index(i))
	}
}

func (d *Document) decodeMap(path fielderr.Path, n *Node, v reflect.Value) {
	if n.Kind != Map {
		d.Report(path, fielderr.Error{Got: n.Describe(), Want: "a mapping"})
		return
	}
	d.reportDuplicates(path, n)
	if len(n.Members) == 0 {
		return // as for lists
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(n.Members)))
	for _, m := range n.Members {
		elem := reflect.New(v.Type().Elem()).Elem()
		node := m.Value
		if node.Kind == Null && elem.Kind() == reflect.Struct {
			node = (&Node{Kind: Map}).standingAt(node) // "label:" alone means the defaults
		}
		if m.Key == "" {
			d.Report(path.Field(m.Key), fielderr.Error{Line: m.Line, Column: m.Column, Message: "empty key"})
		}
		d.decode(path.Field(m.Key), node, elem)
		v.SetMapIndex(reflect.ValueOf(m.Key), elem)
	}
}

func isScalar(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[Scalar]())
}
