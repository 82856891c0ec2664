// SPDX-License-Identifier: Apache-2.0

// Package descriptor names the labels that a rate limit descriptor of Envoy becomes, and writes descriptors as
// text that tells any two of them apart.
package descriptor

import (
	"strconv"
	"strings"
)

// The labels that every flow has besides those of its entries. They win over entries of the same key.
const (
	// ReservedPrefix begins all of them.
	ReservedPrefix = "ratelimit."
	// LabelDomain is the domain of the request.
	LabelDomain = ReservedPrefix + "domain"
	// LabelKeys lists the keys of the entries in order, see AppendKeys.
	LabelKeys = ReservedPrefix + "keys"
	// LabelDescriptor is the whole descriptor, see Append.
	LabelDescriptor = ReservedPrefix + "descriptor"
	// LabelHits is what the flow costs: hits_addend.
	LabelHits = ReservedPrefix + "hits"
	// LabelOverride is the limit that the descriptor carries itself, such as "100/minute" or "5/10 second"; absent
	// when it carries none.
	LabelOverride = ReservedPrefix + "override"
)

// MaxEntries is the most entries of a descriptor.
const MaxEntries = 64

// LabelValue is the label with the value of one entry, which are counted from 1. It allocates beyond MaxEntries.
func LabelValue(place int) string {
	if place >= 1 && place <= len(valueLabels) {
		return valueLabels[place-1]
	}
	return ReservedPrefix + "value." + strconv.Itoa(place)
}

var valueLabels = func() (labels [MaxEntries]string) {
	for i := range labels {
		labels[i] = ReservedPrefix + "value." + strconv.Itoa(i+1)
	}
	return labels
}()

// AppendKey adds a key to a list of keys: "path,remote_address". What separates is escaped with a backslash.
func AppendKey(list []byte, first bool, key string) []byte {
	if !first {
		list = append(list, ',')
	}
	return appendEscaped(list, key)
}

// AppendEntry adds an entry to the text of a descriptor: "path=/login,remote_address=10.0.0.1".
func AppendEntry(text []byte, first bool, key, value string) []byte {
	text = append(AppendKey(text, first, key), '=')
	return appendEscaped(text, value)
}

const separators = `\,=`

func appendEscaped(b []byte, s string) []byte {
	if !strings.ContainsAny(s, separators) { // the usual case
		return append(b, s...)
	}
	for i := range len(s) {
		if strings.IndexByte(separators, s[i]) >= 0 {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return b
}
