// SPDX-License-Identifier: Apache-2.0

package rls

import (
	"encoding/binary"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/rls/descriptor"
)

// form is what descriptors with the same keys have in common. It never changes.
type form struct {
	shape *flow.Shape
	keys  string // LabelKeys
	named []int  // entries whose values get labels of their own, which come first in the shape
}

// form finds the form of a descriptor, or makes it. The error says what is wrong with the domain.
func (d *Door) form(domain string, in *commonv3.RateLimitDescriptor, services []string, s *scratch) (*form, error) {
	id := appendText(s.text[:0], domain)
	id = append(id, 0)
	if in.GetLimit() != nil {
		id[len(id)-1] = 1
	}
	for _, e := range in.GetEntries() {
		id = appendText(id, e.GetKey())
	}
	id = append(id, "\xff\xff\xff"...) // no length begins like this
	for _, service := range services {
		id = appendText(id, service)
	}
	s.text = id
	if f := d.forms.find(id); f != nil {
		return f, nil
	}
	f, err := d.makeForm(domain, in, services)
	if err == nil {
		d.forms.add(string(id), f)
	}
	return f, err
}

// appendText appends a text so that its end is known.
func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func (d *Door) makeForm(domain string, in *commonv3.RateLimitDescriptor, services []string) (*form, error) {
	f := &form{}
	var labels, values []string
	var keys []byte
	for i, e := range in.GetEntries() {
		keys = descriptor.AppendKey(keys, i == 0, e.GetKey())
		values = append(values, descriptor.LabelValue(i+1))
		if l := d.config.label(e.GetKey()); l != "" && !strings.HasPrefix(l, descriptor.ReservedPrefix) {
			labels = append(labels, l)
			f.named = append(f.named, i)
		}
	}
	f.keys = string(keys)
	labels = append(append(labels, values...),
		descriptor.LabelDomain, descriptor.LabelKeys, descriptor.LabelDescriptor, descriptor.LabelHits)
	if in.GetLimit() != nil {
		labels = append(labels, descriptor.LabelOverride)
	}
	var err error
	f.shape, err = flow.NewShape(d.config.controlPoint(domain), labels, services)
	return f, err
}

// fill sets the values of the labels of a descriptor, in the order of the form's shape.
func (f *form) fill(s *scratch, request *rlsv3.RateLimitRequest, in *commonv3.RateLimitDescriptor) {
	entries := in.GetEntries()
	v := s.values[:0]
	for _, i := range f.named {
		v = append(v, entries[i].GetValue())
	}
	text := s.text[:0]
	for i, e := range entries {
		v = append(v, e.GetValue())
		text = descriptor.AppendEntry(text, i == 0, e.GetKey(), e.GetValue())
	}
	s.text = text
	v = append(v, request.GetDomain(), f.keys, string(text), strconv.FormatUint(hits(request, in), 10))
	if l := in.GetLimit(); l != nil {
		v = append(v, overrideText(l))
	}
	s.values = v
}

// hits is what a descriptor costs: its own number, which may be 0, or that of the request, for which 0 means 1.
func hits(request *rlsv3.RateLimitRequest, in *commonv3.RateLimitDescriptor) uint64 {
	if own := in.GetHitsAddend(); own != nil {
		return own.GetValue()
	}
	return max(1, uint64(request.GetHitsAddend()))
}

func overrideText(l *commonv3.RateLimitDescriptor_RateLimitOverride) string {
	text := strconv.FormatUint(uint64(l.GetRequestsPerUnit()), 10) + "/"
	if n := l.GetUnitMultiplier().GetValue(); n > 1 {
		text += strconv.FormatUint(uint64(n), 10) + " "
	}
	return text + strings.ToLower(l.GetUnit().String())
}

// maxForms bounds the forms that are kept. Keys come from Envoy's configuration, so there are few; whoever sends
// more gets answers that take a microsecond longer.
const maxForms = 1024

// forms are those seen before. The zero forms is empty.
type forms struct {
	known atomic.Pointer[map[string]*form] // never changed, only replaced
	mu    sync.Mutex                       // guards replacing
}

// find does not allocate; id may change afterwards.
func (f *forms) find(id []byte) *form {
	if known := f.known.Load(); known != nil {
		return (*known)[string(id)]
	}
	return nil
}

func (f *forms) add(id string, made *form) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var known map[string]*form
	if old := f.known.Load(); old != nil {
		known = *old
	}
	if len(known) >= maxForms {
		return
	}
	next := make(map[string]*form, len(known)+1)
	maps.Copy(next, known)
	next[id] = made
	f.known.Store(&next)
}
