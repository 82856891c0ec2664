// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	controlv1 "github.com/sluice-project/sluice/api/gen/sluice/control/v1"
	"github.com/sluice-project/sluice/internal/fielderr"
)

// kept is how many ticks of each signal the live view looks back: more than a screen is wide.
const kept = 300

// board keeps the last readings.
type board struct {
	wanted []string // names; none: all
	lines  []line   // those that are shown
	tick   uint64
	at     time.Time
	ticks  int // that came
}

// line is a signal.
type line struct {
	name   string
	index  int // in a frame
	values []float64
}

// take adds what came. The error is about a signal that is wanted and does not exist.
func (b *board) take(r *controlv1.WatchSignalsResponse) error {
	if len(r.GetSignals()) > 0 {
		if err := b.name(r.GetSignals()); err != nil {
			return err
		}
	}
	for _, f := range r.GetFrames() {
		b.tick, b.at = f.GetTick(), f.GetTime().AsTime()
		b.ticks++
		for i := range b.lines {
			l := &b.lines[i]
			v := math.NaN()
			if l.index < len(f.GetValues()) {
				v = f.GetValues()[l.index]
			}
			if len(l.values) == kept {
				l.values = slices.Delete(l.values, 0, 1)
			}
			l.values = append(l.values, v)
		}
	}
	return nil
}

// name begins anew with these signals.
func (b *board) name(signals []*controlv1.Signal) error {
	names := make([]string, len(signals))
	for i, s := range signals {
		names[i] = signalName(s)
	}
	for _, w := range b.wanted {
		if !slices.ContainsFunc(names, func(n string) bool { return matches(n, w) }) {
			text := fmt.Sprintf("there is no signal %q", w)
			if hint := fielderr.OneOf(w, names); hint != "" {
				text += "; " + hint
			}
			return fmt.Errorf("%s", text)
		}
	}
	b.lines = nil
	for i, n := range names {
		if len(b.wanted) == 0 || slices.ContainsFunc(b.wanted, func(w string) bool { return matches(n, w) }) {
			b.lines = append(b.lines, line{name: n, index: i})
		}
	}
	return nil
}

// matches reports whether a signal is the one that is wanted: by its whole name, or without its circuit.
func matches(name, wanted string) bool {
	return name == wanted || strings.HasSuffix(name, "/"+wanted) && strings.Count(name, "/") == strings.Count(wanted, "/")+1
}

func (l line) now() float64 {
	if len(l.values) == 0 {
		return math.NaN()
	}
	return l.values[len(l.values)-1]
}

// span is the least and the greatest valid number of some readings; NaN when none is valid.
func span(values []float64) (least, most float64) {
	least, most = math.NaN(), math.NaN()
	for _, v := range values {
		if math.IsNaN(v) {
			continue
		}
		if !(least <= v) {
			least = v
		}
		if !(most >= v) {
			most = v
		}
	}
	return least, most
}

var bars = []rune("▁▂▃▄▅▆▇█")

// sparkline draws the last width readings between the least and the greatest finite one. An invalid
// reading is a dot, an infinite one an arrow.
func sparkline(values []float64, width int) string {
	if width <= 0 {
		return ""
	}
	values = values[max(0, len(values)-width):]
	var finite []float64
	for _, v := range values {
		if !math.IsInf(v, 0) {
			finite = append(finite, v)
		}
	}
	least, most := span(finite)
	var b strings.Builder
	b.WriteString(strings.Repeat(" ", width-len(values)))
	for _, v := range values {
		switch {
		case math.IsNaN(v):
			b.WriteRune('·')
		case math.IsInf(v, 1):
			b.WriteRune('↑')
		case math.IsInf(v, -1):
			b.WriteRune('↓')
		case most == least && v == 0:
			b.WriteRune(bars[0])
		case most == least:
			b.WriteRune(bars[len(bars)/2-1])
		default:
			part := v/(most-least) - least/(most-least) // the range may be beyond what a float64 holds
			if math.IsNaN(part) {
				part = 0.5
			}
			b.WriteRune(bars[max(0, min(len(bars)-1, int(part*float64(len(bars)))))])
		}
	}
	return b.String()
}
