// SPDX-License-Identifier: Apache-2.0

package strict

import (
	"fmt"
	"math"
	"reflect"
	"strings"

	"github.com/sluice-project/sluice/internal/fielderr"
)

// Wanted is implemented by types that have better words than "a mapping" for what a document should hold.
type Wanted interface {
	Want() string
}

// want says in words what a field of type t holds.
func want(t reflect.Type) string {
	if w, ok := reflect.New(t).Interface().(Wanted); ok {
		return w.Want()
	}
	switch t.Kind() {
	case reflect.Pointer:
		return want(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Float64:
		return "a number"
	case reflect.Int32, reflect.Int64, reflect.Uint32:
		return "a whole number"
	case reflect.Slice:
		return "a list"
	}
	return "a mapping"
}

// setBasic reads text, numbers and booleans. Numbers may be quoted, as protobuf's JSON writes 64-bit ones.
func setBasic(v reflect.Value, n *Node) *fielderr.Error {
	problem := &fielderr.Error{Want: want(v.Type())}
	switch v.Kind() {
	case reflect.String:
		if n.Kind == Text {
			v.SetString(n.Text)
			return nil
		}
		if n.Kind == Bool || n.Kind == Number {
			problem.Hint = fmt.Sprintf("put it in quotes: %q", n.Text)
		}
	case reflect.Bool:
		if n.Kind == Bool {
			v.SetBool(n.Text == "true")
			return nil
		}
		problem.Hint = hintBool(n)
	case reflect.Float64:
		f, ok := n.Float()
		if ok && !math.IsNaN(f) && !math.IsInf(f, 0) {
			v.SetFloat(f)
			return nil
		}
		if ok {
			problem.Want = "a finite number"
		}
	case reflect.Int32, reflect.Int64:
		if i, ok := wholeNumber(n); ok && !v.OverflowInt(i) {
			v.SetInt(i)
			return nil
		}
	case reflect.Uint32:
		if i, ok := wholeNumber(n); ok && i >= 0 && !v.OverflowUint(uint64(i)) {
			v.SetUint(uint64(i))
			return nil
		}
		problem.Want = "a whole number from 0 to 4294967295"
	}
	return problem
}

// wholeNumber accepts 10, "10" and 10.0.
func wholeNumber(n *Node) (int64, bool) {
	if i, ok := n.Int(); ok {
		return i, true
	}
	f, ok := n.Float()
	if !ok || f != math.Trunc(f) || math.Abs(f) >= 1<<53 {
		return 0, false
	}
	return int64(f), true
}

// hintBool knows the booleans of older YAML and quoted ones.
func hintBool(n *Node) string {
	switch strings.ToLower(n.Text) {
	case "true", "yes", "on", "y", "1":
		return "did you mean true (without quotes)?"
	case "false", "no", "off", "n", "0":
		return "did you mean false (without quotes)?"
	}
	return ""
}
