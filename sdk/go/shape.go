// SPDX-License-Identifier: Apache-2.0

package sluice

import (
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
)

const (
	// maxShapes bounds the label layouts a client interns. An application has one or two for each
	// control point; one that puts user ids into label keys would have millions, and falls back to
	// unary calls for those past the bound.
	maxShapes = 1024

	// maxShapeKeys bounds what one shape may hold; flows with more labels are asked for in unary calls.
	maxShapeKeys = 64

	// maxShapePoint is the longest control point a server accepts. It breaks a stream that defines a
	// shape with a longer one, so such a flow goes where the server refuses just this flow.
	maxShapePoint = 255

	// maxFlowBytes bounds the text of one flow, so that a message stays far below the 4 MiB that gRPC
	// servers accept.
	maxFlowBytes = 1 << 20
)

var errTooLarge = errors.New("control point, labels and services are longer than 1 MiB together")

// shape is a control point and the label keys of its flows. It never changes.
type shape struct {
	id           uint32
	controlPoint string
	keys         []string // sorted
	services     []string
	noEnd, ramp  bool
}

// shapeTable interns shapes. Reading takes no lock.
type shapeTable struct {
	seed   maphash.Seed
	byHash atomic.Pointer[map[uint64]*shape]
	mu     sync.Mutex // held while a shape is added
}

func newShapeTable() *shapeTable {
	t := &shapeTable{seed: maphash.MakeSeed()}
	t.byHash.Store(&map[uint64]*shape{})
	return t
}

// find returns the shape of a flow and its label values in the order of the shape's keys, and the size
// of the values in bytes. The shape is nil when the flow fits none: it must then be asked for in a
// unary call. The error says why the flow cannot be described at all.
func (t *shapeTable) find(controlPoint string, labels Labels, o flowOptions) (*shape, []string, int, error) {
	hash := maphash.String(t.seed, controlPoint)
	size := len(controlPoint)
	for key, value := range labels {
		hash += maphash.String(t.seed, key) // a sum, because maps have no order
		size += len(key) + len(value)
	}
	for _, service := range o.services {
		hash = hash*31 + maphash.String(t.seed, service)
		size += len(service)
	}
	if size > maxFlowBytes {
		return nil, nil, 0, fmt.Errorf("%w: got %d bytes", errTooLarge, size)
	}
	if o.noEnd {
		hash ^= 1 << 62
	}
	if o.rampMode {
		hash ^= 1 << 63
	}
	s := (*t.byHash.Load())[hash]
	if s == nil {
		if err := checkNames(controlPoint, labels, o.services); err != nil {
			return nil, nil, 0, err
		}
		if s = t.add(hash, controlPoint, labels, o); s == nil {
			return nil, nil, 0, nil
		}
	}
	values, ok := s.values(controlPoint, labels, o)
	if !ok { // another layout with the same hash
		return nil, nil, 0, checkNames(controlPoint, labels, o.services)
	}
	return s, values, size, nil
}

// add interns a new shape, or returns nil when the table is full or the flow has too many labels.
func (t *shapeTable) add(hash uint64, controlPoint string, labels Labels, o flowOptions) *shape {
	if len(controlPoint) > maxShapePoint || len(labels) > maxShapeKeys || len(o.services) > maxShapeKeys {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	known := *t.byHash.Load()
	if s := known[hash]; s != nil {
		return s
	}
	if len(known) >= maxShapes {
		return nil
	}
	s := &shape{
		id:           uint32(len(known) + 1),
		controlPoint: strings.Clone(controlPoint), // may be part of a larger string of the caller
		services:     cloneStrings(o.services),
		noEnd:        o.noEnd,
		ramp:         o.rampMode,
	}
	for key := range labels {
		s.keys = append(s.keys, strings.Clone(key))
	}
	slices.Sort(s.keys)
	next := maps.Clone(known)
	next[hash] = s
	t.byHash.Store(&next)
	return s
}

// values returns the label values in the order of the keys; false when the flow has another shape.
func (s *shape) values(controlPoint string, labels Labels, o flowOptions) ([]string, bool) {
	if s.controlPoint != controlPoint || len(s.keys) != len(labels) || s.noEnd != o.noEnd ||
		s.ramp != o.rampMode || !slices.Equal(s.services, o.services) {
		return nil, false
	}
	if len(s.keys) == 0 {
		return nil, true
	}
	values := make([]string, len(s.keys))
	for i, key := range s.keys {
		value, ok := labels[key]
		if !ok {
			return nil, false
		}
		values[i] = validValue(value)
	}
	return values, true
}

func (s *shape) message() *flowv1.Shape {
	return &flowv1.Shape{
		Id:           s.id,
		ControlPoint: s.controlPoint,
		LabelKeys:    s.keys,
		Services:     s.services,
		NoEnd:        s.noEnd,
		RampMode:     s.ramp,
	}
}

// checkNames says what is wrong with the names of a flow.
func checkNames(controlPoint string, labels Labels, services []string) error {
	if controlPoint == "" {
		return errors.New("the control point is empty: name the place in the application, for example \"checkout\"")
	}
	if !utf8.ValidString(controlPoint) {
		return fmt.Errorf("control point %q is not UTF-8", controlPoint)
	}
	for key := range labels {
		if !utf8.ValidString(key) {
			return fmt.Errorf("label key %q is not UTF-8", key)
		}
	}
	for _, service := range services {
		if !utf8.ValidString(service) {
			return fmt.Errorf("service %q is not UTF-8", service)
		}
	}
	return nil
}

// validValue replaces what is not UTF-8: values often come from outside, and a strange byte in a header
// is no reason to refuse the flow.
func validValue(value string) string {
	if utf8.ValidString(value) {
		return value
	}
	return strings.ToValidUTF8(value, "\uFFFD")
}

func cloneStrings(in []string) []string {
	var out []string
	for _, s := range in {
		out = append(out, strings.Clone(s))
	}
	return out
}
