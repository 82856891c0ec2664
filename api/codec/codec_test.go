// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"strings"
	"testing"

	"google.golang.org/grpc/mem"
)

// text is a message as the OpenTelemetry Collector's library has them: written from the end of the buffer.
type text string

func (m *text) SizeProto() int { return len(*m) }

func (m *text) MarshalProto(b []byte) int { return copy(b[len(b)-len(*m):], *m) }

func (m *text) UnmarshalProto(b []byte) error {
	*m = text(b)
	return nil
}

func TestMessagesOfOtherLibraries(t *testing.T) {
	for _, want := range []text{"", "short", text(strings.Repeat("long", 10_000))} {
		data, err := Codec{}.Marshal(&want)
		if err != nil {
			t.Fatal(err)
		}
		var got text
		if err := (Codec{}).Unmarshal(data, &got); err != nil || got != want {
			t.Errorf("got %.20q, %v, want %.20q", got, err, want)
		}
	}
	if _, err := (Codec{}).Marshal("no message"); err == nil {
		t.Error("a string was marshalled, want an error")
	}
	if err := (Codec{}).Unmarshal(mem.BufferSlice{}, new(int)); err == nil {
		t.Error("a number was unmarshalled, want an error")
	}
}
