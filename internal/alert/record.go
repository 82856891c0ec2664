// SPDX-License-Identifier: Apache-2.0

package alert

import (
	"container/list"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"time"
)

// record is an alert in the center. Center.mu guards it, except what never changes.
type record struct {
	alert Alert // without DeliveryError and Pending; its labels never change, its channels are replaced whole
	key   string
	// version counts the states that targets have to learn.
	version    uint64
	deliveries []*delivery

	// While it fires:
	source Event   // as it was raised last, to recognize it without making labels
	hash   uint64  // of source
	next   *record // with the same hash
	until  time.Time
	resend time.Time // zero: never
	due    time.Time // when the center looks at it next; never before until or resend
	place  int       // in the heap of due records
}

// delivery is what one target knows of one alert.
type delivery struct {
	record  *record
	courier *courier
	told    uint64        // the version the target has confirmed
	element *list.Element // in the queue of the courier; nil: not waiting
	problem string        // why telling failed last; empty: it did not
}

// matches reports whether nothing in an event is new but its time.
func (r *record) matches(ev *Event) bool {
	s := &r.source
	return s.Name == ev.Name && s.Policy == ev.Policy && s.Component == ev.Component && s.Severity == ev.Severity &&
		s.ResolveTimeout == ev.ResolveTimeout && slices.Equal(s.Channels, ev.Channels) && maps.Equal(s.Labels, ev.Labels)
}

// raise takes over the time of an event.
func (r *record) raise(ev *Event, now time.Time) {
	r.alert.Last = eventTime(ev, now)
	r.until = now.Add(timeout(ev.ResolveTimeout))
}

// adopt takes over everything of an event.
func (r *record) adopt(ev Event, now time.Time) {
	r.source = ev
	r.source.Labels, r.source.Channels = maps.Clone(ev.Labels), slices.Clone(ev.Channels)
	r.alert.ResolveTimeout = timeout(ev.ResolveTimeout)
	r.alert.Channels = channelsOf(ev)
	r.raise(&ev, now)
}

func channelsOf(ev Event) []string {
	var out []string
	for _, channel := range ev.Channels[:min(len(ev.Channels), maxChannels)] {
		out = append(out, cleanText(channel))
	}
	return out
}

func timeout(d time.Duration) time.Duration {
	if d <= 0 {
		return DefaultResolveTimeout
	}
	return d
}

// eventTime is when an event was seen.
func eventTime(ev *Event, now time.Time) time.Time {
	if ev.At.IsZero() {
		return plain(now)
	}
	return plain(ev.At)
}

// plain is a time as a Store gives it back, so that what is sent before and after a restart is the same.
func plain(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// nextDue is when the center has to look at a firing record.
func (r *record) nextDue() time.Time {
	if !r.resend.IsZero() && r.resend.Before(r.until) {
		return r.resend
	}
	return r.until
}

// snapshot is a copy for others, which share the labels and channels and must not change them.
func (r *record) snapshot() Alert {
	a := r.alert
	var problems []string
	for _, d := range r.deliveries {
		if d.told == r.version {
			continue
		}
		if d.element != nil {
			a.Pending = append(a.Pending, d.courier.target.Name)
		}
		problem := d.problem
		if problem == "" && d.element != nil {
			problem = d.courier.failing
		}
		if problem != "" {
			problems = append(problems, d.courier.target.Name+": "+problem)
		}
	}
	a.DeliveryError = strings.Join(problems, "; ")
	if a.DeliveryError == "" && len(r.deliveries) == 0 {
		a.DeliveryError = r.alert.DeliveryError // of targets that are no longer configured
	}
	return a
}

// hash is equal for events whose Name, Severity, Policy, Component and Labels are. It does not allocate.
func (c *Center) hash(ev *Event) uint64 {
	var h maphash.Hash
	h.SetSeed(c.seed)
	for _, part := range [...]string{ev.Name, ev.Severity, ev.Policy, ev.Component} {
		_, _ = h.WriteString(part)
		_ = h.WriteByte(0xff)
	}
	sum := h.Sum64()
	for name, value := range ev.Labels { // in any order, so the combination must not depend on it
		sum += maphash.String(c.seed, name) ^ maphash.String(c.seed, value)*3
	}
	return sum
}

// dueHeap has the firing records, the one to look at first on top.
type dueHeap []*record

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	r := x.(*record)
	r.place = len(*h)
	*h = append(*h, r)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	r := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return r
}
