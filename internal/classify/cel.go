// SPDX-License-Identifier: Apache-2.0

package classify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"

	celgo "cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sluice-project/sluice/internal/label/cel"
)

// celStep makes a label of what an expression gives.
type celStep struct {
	value  *cel.Value
	label  Label
	bounds Bounds
}

func compileCEL(text string, b Bounds) (step, error) {
	v, err := cel.CompileValue(text)
	if err != nil {
		return nil, within("cel", err)
	}
	return &celStep{value: v, bounds: b}, nil
}

func (s *celStep) run(in *Input, out []Label) ([]Label, *Error) {
	v := celViews.Get().(*celView)
	v.in, v.bounds = in, s.bounds
	defer func() {
		*v = celView{}
		celViews.Put(v)
	}()
	var result ref.Val
	var err error
	if s.value.Loops {
		ctx, cancel := context.WithTimeout(context.Background(), s.bounds.Timeout)
		result, _, err = s.value.Program.ContextEval(ctx, v)
		cancel()
	} else {
		result, _, err = s.value.Program.Eval(v)
	}
	if err != nil {
		return out, celError(s.label.Key, err)
	}
	text, ok, err := celText(result)
	if err != nil {
		return out, &Error{Code: CodeEvalFailed, Message: fmt.Sprintf("label %s: %v", s.label.Key, err)}
	}
	if ok {
		out = append(out, s.label.with(text, s.bounds))
	}
	return out, nil
}

// celError says what an error of an evaluation means; nil when something that was asked for is not there.
func celError(label string, err error) *Error {
	var cancelled interpreter.EvalCancelledError
	if errors.As(err, &cancelled) || errors.Is(err, interpreter.InterruptError{}) {
		return &Error{Code: CodeBounds, Message: fmt.Sprintf("label %s: %v", label, err)}
	}
	for _, absent := range [...]string{"no such key", "no such attribute", "index out of bounds", "optional.none() dereference"} {
		if strings.Contains(err.Error(), absent) {
			return nil
		}
	}
	return &Error{Code: CodeEvalFailed, Message: fmt.Sprintf("label %s: %v", label, err)}
}

var celViews = sync.Pool{New: func() any { return new(celView) }}

// celView resolves the variables of expressions.
type celView struct {
	in     *Input
	bounds Bounds
}

var _ celgo.Activation = (*celView)(nil)

// Parent implements cel.Activation.
func (v *celView) Parent() celgo.Activation { return nil }

// ResolveName implements cel.Activation.
func (v *celView) ResolveName(name string) (any, bool) {
	r := v.in.Request
	switch name {
	case "request.id":
		return r.ID, r.ID != ""
	case "request.method":
		return r.Method, true
	case "request.path":
		return r.Path, true
	case "request.host":
		return r.Host, true
	case "request.scheme":
		return r.Scheme, true
	case "request.protocol":
		return r.Protocol, true
	case "request.body":
		return r.Body, true
	case "request.size":
		return r.Size, r.Size >= 0
	case "request.headers":
		return r.Headers, true
	case "request.json":
		return v.in.bodyJSON(v.bounds)
	case "labels":
		return &celLabels{Mapper: nil, in: v.in}, true
	case "source.address":
		return r.Source.Text, r.Source.Text != ""
	case "source.port":
		return int64(r.Source.Port), true
	case "source.services":
		return r.SourceServices, true
	case "destination.address":
		return r.Destination.Text, r.Destination.Text != ""
	case "destination.port":
		return int64(r.Destination.Port), true
	case "destination.services":
		return r.DestinationServices, true
	}
	return nil, false
}

// celLabels is the variable labels: the labels before classification. They are all made only for expressions that
// go through them.
type celLabels struct {
	traits.Mapper // all labels, once made
	in            *Input
}

// Type implements ref.Val.
func (l *celLabels) Type() ref.Type { return types.MapType }

// Find implements traits.Mapper.
func (l *celLabels) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok || l.in.Label == nil {
		return nil, false
	}
	value, ok := l.in.Label(string(name))
	return types.String(value), ok
}

// Get implements traits.Indexer.
func (l *celLabels) Get(key ref.Val) ref.Val {
	if value, ok := l.Find(key); ok {
		return value
	}
	return types.NewErr("no such key: %v", key)
}

// Contains implements traits.Container.
func (l *celLabels) Contains(key ref.Val) ref.Val {
	_, ok := l.Find(key)
	return types.Bool(ok)
}

func (l *celLabels) all() traits.Mapper {
	if l.Mapper == nil {
		all := map[string]string{}
		if l.in.EachLabel != nil {
			l.in.EachLabel(func(key, value string) { all[key] = value })
		}
		l.Mapper = types.NewStringStringMap(types.DefaultTypeAdapter, all)
	}
	return l.Mapper
}

// Iterator implements traits.Iterable.
func (l *celLabels) Iterator() traits.Iterator { return l.all().Iterator() }

// Size implements traits.Sizer.
func (l *celLabels) Size() ref.Val { return l.all().Size() }

// Equal implements ref.Val.
func (l *celLabels) Equal(other ref.Val) ref.Val { return l.all().Equal(other) }

// Value implements ref.Val.
func (l *celLabels) Value() any { return l.all().Value() }

// ConvertToNative implements ref.Val.
func (l *celLabels) ConvertToNative(t reflect.Type) (any, error) { return l.all().ConvertToNative(t) }

// ConvertToType implements ref.Val.
func (l *celLabels) ConvertToType(t ref.Type) ref.Val { return l.all().ConvertToType(t) }

var structValue = reflect.TypeFor[*structpb.Value]()

// celText is the text of a result; ok is false for an optional value that is not there.
func celText(v ref.Val) (text string, ok bool, err error) {
	switch v := v.(type) {
	case types.String:
		return string(v), true, nil
	case *types.Optional:
		if !v.HasValue() {
			return "", false, nil
		}
		return celText(v.GetValue())
	case types.Null:
		return "null", true, nil
	case types.Bytes:
		return strings.ToValidUTF8(string(v), "\uFFFD"), true, nil
	case types.Double:
		return formatFloat(float64(v)), true, nil
	case traits.Lister, traits.Mapper:
		native, err := v.ConvertToNative(structValue)
		if err != nil {
			return "", false, err
		}
		text, err := json.Marshal(native.(*structpb.Value).AsInterface())
		return string(text), true, err
	}
	converted, isText := v.ConvertToType(types.StringType).(types.String)
	if !isText {
		return "", false, fmt.Errorf("a value of type %s has no text", v.Type().TypeName())
	}
	return string(converted), true, nil
}

func formatFloat(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
