// SPDX-License-Identifier: Apache-2.0

package alert

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of what an alert carries. What is beyond is cut off: an alert that is cut says more than none.
const (
	maxLabels   = 60 // of the event
	maxChannels = 32
	maxName     = 128  // bytes of the name of a label
	maxValue    = 2048 // bytes of everything else
)

// labelsOf returns the labels an event is sent with. Alertmanager takes only names of letters, digits and
// underscores: other characters become underscores. Empty values are the same as no label there.
func labelsOf(ev Event) map[string]string {
	labels := map[string]string{"type": "alerter"}
	names := slices.Sorted(maps.Keys(ev.Labels)) // sorted, so that of two names that become one the same wins always
	if len(names) > maxLabels {
		names = names[:maxLabels]
	}
	taken := map[string]bool{}
	for _, name := range names {
		if name == "" {
			continue
		}
		if clean := cleanName(name); !taken[clean] {
			labels[clean], taken[clean] = cleanText(ev.Labels[name]), true
		}
	}
	labels["alertname"], labels["severity"] = cmp.Or(cleanText(ev.Name), "unnamed"), severity(ev.Severity)
	labels["policy_name"], labels["component_id"] = cleanText(ev.Policy), cleanText(ev.Component)
	maps.DeleteFunc(labels, func(_, value string) bool { return value == "" })
	return labels
}

func severity(s string) string {
	switch s {
	case Warn, Crit:
		return s
	}
	return Info
}

// cleanName makes a label name for Prometheus of a name that is not empty.
func cleanName(name string) string {
	clean := strings.Map(func(r rune) rune {
		if r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, name)
	if '0' <= clean[0] && clean[0] <= '9' {
		clean = "_" + clean
	}
	return clean[:min(len(clean), maxName)]
}

// cleanText makes text valid UTF-8 of at most maxValue bytes.
func cleanText(text string) string {
	return cut(strings.ToValidUTF8(text, "\uFFFD"), maxValue)
}

// cut returns the first characters of valid UTF-8 that fit into so many bytes.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}

// identity is a text that two sets of labels share only when they are equal.
func identity(labels map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		b.WriteString(name)
		b.WriteByte(0xff) // never in UTF-8
		b.WriteString(labels[name])
		b.WriteByte(0xff)
	}
	return b.String()
}
