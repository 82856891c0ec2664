// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"slices"
	"sync/atomic"

	"github.com/sluice-project/sluice/internal/label"
)

// Shape is a control point and the label keys that many flows share, so that labels are looked up by
// key once and not for every flow. It may be used by many goroutines.
type Shape struct {
	point    string
	keys     []string
	services []string
	bound    atomic.Pointer[boundShape]
}

// boundShape is a shape as seen by one snapshot.
type boundShape struct {
	snap  *snapshot
	point *controlPoint
	from  []int // slot of the control point -> index of the value; -1: the shape lacks the label
}

// NewShape makes a shape. With a key given twice, the last value counts.
func NewShape(controlPoint string, keys, services []string) (*Shape, error) {
	r := Request{ControlPoint: controlPoint}
	if detail := checkRequest(&r); detail != "" {
		return nil, &InvalidError{detail}
	}
	if len(keys) > MaxLabels {
		return nil, &InvalidError{"more than 4096 labels"}
	}
	return &Shape{point: controlPoint, keys: slices.Clone(keys), services: slices.Clone(services)}, nil
}

// InvalidError tells what is wrong with a request.
type InvalidError struct{ Detail string }

func (e *InvalidError) Error() string { return "invalid request: " + e.Detail }

func (s *Shape) bind(e *Engine, snap *snapshot) *boundShape {
	b := &boundShape{snap: snap, point: e.pointFor(snap, s.point)}
	b.from = make([]int, len(b.point.keys))
	for slot, key := range b.point.keys {
		b.from[slot] = -1
		for i, k := range s.keys {
			if k == key {
				b.from[slot] = i
			}
		}
	}
	s.bound.Store(b)
	return b
}

func (s *Shape) resolve(f *Flow, values []string) bool {
	b := s.bound.Load()
	if b == nil || b.snap != f.snap {
		b = s.bind(f.engine, f.snap)
	}
	f.point = b.point
	if len(values) != len(s.keys) {
		f.Verdict.Reason, f.Verdict.Detail = InvalidRequest, "the number of values differs from the number of label keys of the shape"
		return false
	}
	f.sizeTo(b.point)
	for slot, i := range b.from {
		if i >= 0 {
			f.values[slot] = label.Value{Text: values[i], Present: true}
		} else {
			f.values[slot] = label.Value{}
		}
	}
	return true
}
