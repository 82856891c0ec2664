// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Bounds on the parts of a batch. A part that takes two bytes in a message takes hundreds in memory, so the bytes of
// a batch do not bound what it costs to decode; and decoders call themselves for each level.
const (
	mostParts  = 200_000
	mostLevels = 50
)

var (
	errParts  = fmt.Errorf("the batch has more than %d parts: send smaller batches", mostParts)
	errLevels = fmt.Errorf("the batch is nested more than %d levels deep", mostLevels)
	errWire   = errors.New("no protobuf")
)

// weigh says whether a protobuf message has too many parts to be decoded; nil: it has not, or it is no message,
// which is for the decoder to say. It knows no schema: text that looks like a message counts as one, which
// is rare and errs to the safe side.
func weigh(message []byte) error {
	left := mostParts
	if err := weighLevel(message, 0, &left); !errors.Is(err, errWire) {
		return err
	}
	return nil
}

func weighLevel(b []byte, level int, left *int) error {
	if level > mostLevels {
		return errLevels
	}
	for len(b) > 0 {
		_, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errWire
		}
		b = b[n:]
		if *left--; *left < 0 {
			return errParts
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
		if err := weighLevel(inner, level+1, left); err != nil && !errors.Is(err, errWire) {
			return err
		}
		b = b[n:]
	}
	return nil
}

// weighJSON says whether a JSON message has too many parts to be decoded. Its decoder bounds the levels.
func weighJSON(message []byte) error {
	if bytes.Count(message, []byte("{")) > mostParts || bytes.Count(message, []byte(",")) > 4*mostParts {
		return errParts
	}
	return nil
}
