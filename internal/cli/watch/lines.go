// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	controlv1 "github.com/sluice-project/sluice/api/gen/sluice/control/v1"
)

// errEnough ends a stream that has shown all ticks asked for.
var errEnough = errors.New("enough")

// printLines prints one line per tick.
func printLines(ctx context.Context, cfg Config) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b, printed := &board{wanted: cfg.Signals}, 0
	err := cfg.Source.Watch(ctx, 1, func(r *controlv1.WatchSignalsResponse) {
		if ctx.Err() != nil {
			return
		}
		// One frame at a time, so that each is printed with its own readings.
		for i, part := range framesOf(r) {
			if i > 0 {
				part.Signals = nil
			}
			if err := b.take(part); err != nil {
				cancel(err)
				return
			}
			if len(part.GetFrames()) == 0 {
				continue
			}
			if _, err := cfg.Out.Write(b.json()); err != nil {
				cancel(err)
				return
			}
			if printed++; cfg.Ticks > 0 && printed >= cfg.Ticks {
				cancel(errEnough)
				return
			}
		}
	})
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errEnough), errors.Is(cause, context.Canceled):
		return nil
	case cause != nil:
		return cause
	case err == nil:
		return fmt.Errorf("watch policy %s: %w", cfg.Policy, errEnded)
	}
	return err
}

// framesOf splits a message into messages of one frame.
func framesOf(r *controlv1.WatchSignalsResponse) []*controlv1.WatchSignalsResponse {
	if len(r.GetFrames()) == 0 {
		return []*controlv1.WatchSignalsResponse{r}
	}
	out := make([]*controlv1.WatchSignalsResponse, len(r.GetFrames()))
	for i, f := range r.GetFrames() {
		out[i] = &controlv1.WatchSignalsResponse{Signals: r.GetSignals(), Frames: []*controlv1.Frame{f}}
	}
	return out
}

// json is the newest tick as a line: {"tick":7,"time":"…","signals":{"A":1.5,"B":null,"C":"+Inf"}}. An
// invalid reading is null.
func (b *board) json() []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, `{"tick":%d,"time":"%s","signals":{`, b.tick, b.at.UTC().Format(time.RFC3339Nano))
	for i, l := range b.lines {
		if i > 0 {
			out.WriteByte(',')
		}
		name, err := json.Marshal(l.name)
		if err != nil {
			name = []byte(strconv.Quote(l.name)) // a string is always valid
		}
		out.Write(name)
		out.WriteByte(':')
		switch v := l.now(); {
		case math.IsNaN(v):
			out.WriteString("null")
		case math.IsInf(v, 0):
			out.WriteString(`"` + value(v) + `"`)
		default:
			out.WriteString(strconv.FormatFloat(v, 'g', -1, 64))
		}
	}
	out.WriteString("}}\n")
	return out.Bytes()
}
