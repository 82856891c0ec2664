// SPDX-License-Identifier: Apache-2.0

package classify

import (
	"net/url"
	"strings"
	"unicode/utf8"
)

// The bounds of W3C Baggage, section 3.3.2: what every party has to carry. What goes beyond is ignored.
const (
	maxBaggageMembers = 64
	maxBaggageBytes   = 8192
)

// baggage is the baggage header of a request, once it was read.
type baggage struct {
	read    bool
	members []member
	ignored int
}

// member is one entry. Of several with one key, only the last one is kept.
type member struct{ key, value string }

// members reads the baggage of the request, once.
func (r *Request) members() []member {
	b := &r.baggage
	if b.read {
		return b.members
	}
	b.read = true
	header := r.Headers[baggageHeader]
	if header == "" {
		return nil
	}
	b.members, b.ignored = parseBaggage(header)
	return b.members
}

// fromBaggage finds a label that baggage carries.
func (r *Request) fromBaggage(key string) (string, bool) {
	for _, m := range r.members() {
		if m.key == key {
			return m.value, true
		}
	}
	return "", false
}

// IgnoredBaggage is the number of members of the baggage header that make no labels: because they are not as W3C
// Baggage says, or beyond its bounds of 64 members and 8192 bytes, or because their keys are those of labels that
// are made of the request or of discovery, which whoever sends the request must not choose.
func (r *Request) IgnoredBaggage() int {
	r.members()
	return r.baggage.ignored
}

// parseBaggage reads a header as W3C Baggage says (https://www.w3.org/TR/baggage/): key=value members, separated
// by commas, each with properties after semicolons, which are dropped.
func parseBaggage(header string) (members []member, ignored int) {
	seen := 0
	for start := 0; start <= len(header); {
		text := header[start:]
		if comma := strings.IndexByte(text, ','); comma >= 0 {
			text = text[:comma]
		}
		end := start + len(text)
		start = end + 1
		if strings.Trim(text, " \t") == "" {
			continue
		}
		seen++
		if seen > maxBaggageMembers || end > maxBaggageBytes {
			// One step, however long the rest is: it is counted and not looked at.
			return members, ignored + 1 + strings.Count(header[min(end, len(header)):], ",")
		}
		m, ok := parseMember(text)
		if !ok {
			ignored++
			continue
		}
		members = setMember(members, m)
	}
	return members, ignored
}

func setMember(members []member, m member) []member {
	for i := range members {
		if members[i].key == m.key {
			members[i].value = m.value
			return members
		}
	}
	return append(members, m)
}

// parseMember reads key=value;properties.
func parseMember(text string) (member, bool) {
	text, _, _ = strings.Cut(text, ";")
	key, value, ok := strings.Cut(text, "=")
	key, value = strings.Trim(key, " \t"), strings.Trim(value, " \t")
	if !ok || !isToken(key) || isOwn(key) || !isBaggageValue(value) {
		return member{}, false
	}
	return member{key, unescape(value)}, true
}

// isToken tells whether s is a token of HTTP (RFC 9110, section 5.6.2), as keys are.
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7F || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// isBaggageValue refuses what baggage-octet does not allow, apart from bytes above 0x7F: many senders forget to
// encode those.
func isBaggageValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7F || c == '"' || c == ',' || c == ';' || c == '\\' {
			return false
		}
	}
	return true
}

// unescape decodes percent-encoding, and once more when what comes out is encoded as well: Aperture decoded
// twice, so its clients encode twice. Text whose encoding is broken stays as it is. The second round reads '+' as
// a space, as Aperture's did. Bytes that are not UTF-8 become U+FFFD.
func unescape(value string) string {
	if strings.IndexByte(value, '%') >= 0 {
		if once, err := url.PathUnescape(value); err == nil {
			value = once
			if strings.IndexByte(value, '%') >= 0 {
				if twice, err := url.QueryUnescape(value); err == nil {
					value = twice
				}
			}
		}
	}
	if !utf8.ValidString(value) {
		value = strings.ToValidUTF8(value, "\uFFFD")
	}
	return value
}

// Baggage is the value of the baggage header that carries the labels further: what came, and after it those of
// labels that have Telemetry set. Empty: there is nothing to carry.
func (r *Request) Baggage(derived []Label) string {
	came := r.carried()
	added := r.newBaggage(derived)
	switch {
	case came == "":
		return added
	case added == "":
		return came
	}
	return came + "," + added
}

// carried is the baggage header that came, as it may go on: at most 8192 bytes, and of a header with control
// characters in it only the members that have none.
func (r *Request) carried() string {
	header := r.Headers[baggageHeader]
	if len(header) <= maxBaggageBytes && !hasControl(header) {
		return header
	}
	var kept []string
	for length := 0; header != ""; {
		text, rest, _ := strings.Cut(header, ",")
		header = rest
		if length += len(text) + 1; length-1 > maxBaggageBytes {
			break
		}
		if text != "" && !hasControl(text) {
			kept = append(kept, text)
		}
	}
	return strings.Join(kept, ",")
}

func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7F {
			return true
		}
	}
	return false
}

// newBaggage is the part of Baggage that is new: the members of those of
// labels that have Telemetry set, the last one of each key, as many as fit into 8192 bytes and 64 members together
// with what came. A key that no header can hold is left out.
func (r *Request) newBaggage(derived []Label) string {
	var b strings.Builder
	came := r.carried()
	room := maxBaggageBytes - len(came)
	members := maxBaggageMembers
	if came != "" {
		room-- // the comma
		members -= strings.Count(came, ",") + 1
	}
	for i := range derived {
		l := &derived[i]
		if !l.Telemetry || !isToken(l.Key) || replaced(l.Key, derived[i+1:]) {
			continue
		}
		value := escape(Sanitize(l.Value))
		need := len(l.Key) + 1 + len(value)
		if b.Len() > 0 {
			need++
		}
		if members <= 0 || need > room {
			continue
		}
		members--
		room -= need
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(l.Key)
		b.WriteByte('=')
		b.WriteString(value)
	}
	return b.String()
}

// replaced tells whether a later label has the key.
func replaced(key string, later []Label) bool {
	for i := range later {
		if later[i].Key == key {
			return true
		}
	}
	return false
}

// escape percent-encodes what a value of baggage cannot hold, and '%' itself.
func escape(s string) string {
	clean := true
	for i := range len(s) {
		clean = clean && plainByte(s[i])
	}
	if clean {
		return s
	}
	const hex = "0123456789ABCDEF"
	out := make([]byte, 0, len(s)+8)
	for i := range len(s) {
		if c := s[i]; plainByte(c) {
			out = append(out, c)
		} else {
			out = append(out, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(out)
}

func plainByte(c byte) bool {
	return c > ' ' && c < 0x7F && c != '"' && c != ',' && c != ';' && c != '\\' && c != '%'
}

// Sanitize replaces characters that Aperture does not allow in the values of labels of classifiers: white space
// and any of \ / ; " , become '-'. Policies written for it match such values.
func Sanitize(value string) string {
	at := strings.IndexAny(value, unsafe)
	if at < 0 {
		return value
	}
	out := []byte(value)
	for i := at; i < len(out); i++ {
		if strings.IndexByte(unsafe, out[i]) >= 0 {
			out[i] = '-'
		}
	}
	return string(out)
}

const unsafe = "\t\n\f\r \\/;\","
