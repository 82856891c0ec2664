// SPDX-License-Identifier: Apache-2.0

// Package batch takes batches of telemetry over HTTP, and bounds what they cost to decode.
//
// A part that takes two bytes in a message takes hundreds in memory, so the bytes of a batch do not bound it; and
// decoders call themselves for each level.
package batch

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// MaxLevels bounds how deeply the parts of a batch may be nested.
const MaxLevels = 50

var (
	errLevels = fmt.Errorf("the batch is nested more than %d levels deep", MaxLevels)
	errWire   = errors.New("no protobuf")
)

// Check says whether a protobuf message has more than most parts, or too many levels, to be decoded; nil: it has not,
// or it is no message, which is for the decoder to say. It knows no schema: text that looks like a message counts as
// one, which is rare and errs to the safe side.
func Check(message []byte, most int) error {
	w := weight{most: most, left: most}
	if err := w.level(message, 0); !errors.Is(err, errWire) {
		return err
	}
	return nil
}

// CheckJSON says whether a JSON message has more than most objects, or four times as many members and items, to be
// decoded. Its decoder bounds the levels.
func CheckJSON(message []byte, most int) error {
	if bytes.Count(message, []byte("{")) > most || bytes.Count(message, []byte(",")) > 4*most {
		return tooMany(most)
	}
	return nil
}

func tooMany(most int) error {
	return fmt.Errorf("the batch has more than %d parts: send smaller batches", most)
}

// weight counts the parts of one message.
type weight struct{ most, left int }

func (w *weight) level(b []byte, level int) error {
	if level > MaxLevels {
		return errLevels
	}
	for len(b) > 0 {
		_, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errWire
		}
		b = b[n:]
		if w.left--; w.left < 0 {
			return tooMany(w.most)
		}
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(1, kind, b); n < 0 {
				return errWire
			}
			b = b[n:]
			continue
		}
		inner, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return errWire
		}
		if err := w.level(inner, level+1); err != nil && !errors.Is(err, errWire) {
			return err
		}
		b = b[n:]
	}
	return nil
}
