// SPDX-License-Identifier: Apache-2.0

// Package wire holds the codec of the client: protobuf with generated marshalling and pooled buffers.
package wire

import (
	"fmt"

	"google.golang.org/grpc/mem"
)

// message is what protoc-gen-go-vtproto generates for every message of the API.
type message interface {
	Reset()
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
	UnmarshalVT([]byte) error
}

// Codec is a gRPC codec for messages with vtproto methods. It is passed with each call
// (grpc.ForceCodecV2), never registered: the codecs of the host process stay as they are. The zero
// value is ready; all methods may be called concurrently.
type Codec struct{}

// Marshal encodes v into a pooled buffer. It fails for messages without vtproto methods.
func (Codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(message)
	if !ok {
		return nil, fmt.Errorf("wire: cannot marshal %T: want a message with vtproto methods", v)
	}
	size := m.SizeVT()
	if mem.IsBelowBufferPoolingThreshold(size) {
		buf := make([]byte, size)
		if _, err := m.MarshalToSizedBufferVT(buf); err != nil {
			return nil, fmt.Errorf("wire: marshal %T: %w", v, err)
		}
		return mem.BufferSlice{mem.SliceBuffer(buf)}, nil
	}
	pool := mem.DefaultBufferPool()
	buf := pool.Get(size)
	if _, err := m.MarshalToSizedBufferVT((*buf)[:size]); err != nil {
		pool.Put(buf)
		return nil, fmt.Errorf("wire: marshal %T: %w", v, err)
	}
	return mem.BufferSlice{mem.NewBuffer(buf, pool)}, nil
}

// Unmarshal replaces what v holds by the message in data. It keeps no reference to data.
func (Codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(message)
	if !ok {
		return fmt.Errorf("wire: cannot unmarshal %T: want a message with vtproto methods", v)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	m.Reset()
	if err := m.UnmarshalVT(buf.ReadOnlyData()); err != nil {
		return fmt.Errorf("wire: unmarshal %T: %w", v, err)
	}
	return nil
}

// Name is the content subtype; it is the one of the standard codec, because the bytes are the same.
func (Codec) Name() string { return "proto" }
