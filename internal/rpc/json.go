// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
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
	return protojson.Unmarshal(b, m)
}
