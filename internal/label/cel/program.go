// SPDX-License-Identifier: Apache-2.0

package cel

import (
	"errors"
	"reflect"
	"slices"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/sluice-project/sluice/internal/label"
)

// program is a condition that runs as it is.
type program struct {
	keys []string
	run  cel.Program
}

var _ label.Program = (*program)(nil)

// Keys implements label.Program.
func (p *program) Keys() []string { return p.keys }

// Match implements label.Program.
func (p *program) Match(v label.Values, slots []int) bool {
	w := views.Get().(*view)
	w.keys, w.slots, w.values = p.keys, slots, v
	out, _, err := p.run.Eval(w)
	*w = view{}
	views.Put(w)
	return err == nil && out == types.True
}

var views = sync.Pool{New: func() any { return new(view) }}

// view shows the labels of a flow to a program, as its variables and as the value of the only one. A program asks
// for constant keys alone, so the methods for loops over labels are never called.
type view struct {
	keys   []string
	slots  []int
	values label.Values
}

var (
	_ cel.Activation = (*view)(nil)
	_ traits.Mapper  = (*view)(nil)
)

// ResolveName implements cel.Activation.
func (w *view) ResolveName(name string) (any, bool) { return w, name == variable }

// Parent implements cel.Activation.
func (w *view) Parent() cel.Activation { return nil }

// Find implements traits.Mapper.
func (w *view) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return nil, false
	}
	i := slices.Index(w.keys, string(name))
	if i < 0 || w.slots[i] >= len(w.values) || !w.values[w.slots[i]].Present {
		return nil, false
	}
	return types.String(w.values[w.slots[i]].Text), true
}

// Get implements traits.Indexer.
func (w *view) Get(key ref.Val) ref.Val {
	if v, ok := w.Find(key); ok {
		return v
	}
	return types.NewErr("no such key: %v", key)
}

// Contains implements traits.Container.
func (w *view) Contains(key ref.Val) ref.Val {
	_, ok := w.Find(key)
	return types.Bool(ok)
}

// Iterator implements traits.Iterable.
func (w *view) Iterator() traits.Iterator {
	return types.NewDynamicMap(types.DefaultTypeAdapter, map[string]string{}).Iterator()
}

// Size implements traits.Sizer.
func (w *view) Size() ref.Val { return types.Int(len(w.keys)) }

// ConvertToNative implements ref.Val.
func (w *view) ConvertToNative(reflect.Type) (any, error) { return nil, errors.New(keyWords) }

// ConvertToType implements ref.Val.
func (w *view) ConvertToType(ref.Type) ref.Val { return types.NewErr("%s", keyWords) }

// Equal implements ref.Val.
func (w *view) Equal(ref.Val) ref.Val { return types.False }

// Type implements ref.Val.
func (w *view) Type() ref.Type { return types.MapType }

// Value implements ref.Val.
func (w *view) Value() any { return w }
