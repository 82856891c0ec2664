// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sluice-project/sluice/internal/fielderr"
)

// strictJSON is connect's JSON, except that a field nobody knows is an error and not a surprise.
type strictJSON struct{ name string }

var _ connect.Codec = strictJSON{}

// JSONOptions make a connect handler refuse unknown fields in JSON. Pass them to every handler.
func JSONOptions() connect.Option {
	return connect.WithOptions(
		connect.WithCodec(strictJSON{"json"}),
		connect.WithCodec(strictJSON{"json; charset=utf-8"}),
	)
}

// Name implements connect.Codec.
func (c strictJSON) Name() string { return c.name }

// Marshal implements connect.Codec.
func (strictJSON) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("rpc: cannot marshal %T, want a protobuf message", v)
	}
	return protojson.Marshal(m)
}

// Unmarshal implements connect.Codec.
func (strictJSON) Unmarshal(b []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("rpc: cannot unmarshal into %T, want a protobuf message", v)
	}
	if len(b) == 0 {
		return errors.New("the body is empty; expected a JSON object, {} at least")
	}
	if err := protojson.Unmarshal(b, m); err != nil {
		return hinted(err, m)
	}
	return nil
}

// hinted adds to an error of protojson what people who write JSON by hand need to know.
func hinted(err error, m proto.Message) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "invalid value for bytes field"):
		return fmt.Errorf("%w; bytes are base64 in JSON", err)
	case strings.Contains(text, "invalid google.protobuf.Duration value"):
		return fmt.Errorf("%w; durations are seconds with an s, such as \"600s\" or \"0.25s\"", err)
	}
	if _, rest, ok := strings.Cut(text, "invalid value for enum field "); ok {
		name, _, _ := strings.Cut(rest, ":")
		if values := enumValues(m.ProtoReflect().Descriptor(), name, map[protoreflect.FullName]bool{}); values != nil {
			return fmt.Errorf("%w; expected one of %s", err, strings.Join(values, ", "))
		}
	}
	if _, rest, ok := strings.Cut(text, "unknown field "); ok {
		if name, quoted := strconv.Unquote(rest); quoted == nil {
			hint := fielderr.DidYouMean(name, fieldNames(m.ProtoReflect().Descriptor(), map[protoreflect.FullName]bool{}))
			return fmt.Errorf("%w; %s", err, cmp.Or(hint, "/openapi.json of this server has the fields"))
		}
	}
	return err
}

// enumValues are the names that a field of that name takes, in the message or below it; seen keeps messages that
// contain themselves from being searched without end.
func enumValues(in protoreflect.MessageDescriptor, name string, seen map[protoreflect.FullName]bool) []string {
	seen[in.FullName()] = true
	for i := range in.Fields().Len() {
		f := in.Fields().Get(i)
		if e := f.Enum(); e != nil && (f.JSONName() == name || f.TextName() == name) {
			var out []string
			for j := range e.Values().Len() {
				out = append(out, string(e.Values().Get(j).Name()))
			}
			return out
		}
		if below := f.Message(); below != nil && !seen[below.FullName()] {
			if out := enumValues(below, name, seen); out != nil {
				return out
			}
		}
	}
	return nil
}

// fieldNames are those of the message and all below it.
func fieldNames(in protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) []string {
	seen[in.FullName()] = true
	var out []string
	for i := range in.Fields().Len() {
		f := in.Fields().Get(i)
		out = append(out, f.JSONName())
		if below := f.Message(); below != nil && !seen[below.FullName()] {
			out = append(out, fieldNames(below, seen)...)
		}
	}
	return out
}
