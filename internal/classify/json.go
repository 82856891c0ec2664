// SPDX-License-Identifier: Apache-2.0

package classify

import (
	"bytes"
	"encoding/json"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sluice-project/sluice/internal/label/extract"
)

// maxJSONDepth is how deep JSON may be nested; deeper text counts as malformed.
const maxJSONDepth = 200

// maxPointers is how many pointers one scan follows.
const maxPointers = 64

// scanner follows JSON pointers through a text in one pass and checks that all of it is JSON (RFC 8259). It keeps
// nothing but the places of what it finds, so that hostile bodies cost time in proportion to their length and no
// memory: libraries that build values need up to forty times the length of the text.
//
// Of several members of one name the last one counts, as in Rego.
type scanner struct {
	text     string
	pos      int
	pointers []extract.Pointer // at most maxPointers
	found    []string          // by pointer: the text of the value; "": none
	values   int               // how many values there are
	hugest   int               // the largest exponent of a number, or its length; MaxInt: it is nested too deep
}

// scan fills s.found and tells whether the text is JSON.
func (s *scanner) scan() bool {
	all := uint64(1)<<len(s.pointers) - 1
	if !s.value(all, 0) {
		return false
	}
	s.space()
	return s.pos == len(s.text)
}

func (s *scanner) space() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// value reads one value. Those of the pointers in the set lead here, or through here.
func (s *scanner) value(set uint64, depth int) bool {
	s.space()
	if depth > maxJSONDepth {
		s.hugest = math.MaxInt // what follows is not looked at: it may be anything
		return false
	}
	if s.pos == len(s.text) {
		return false
	}
	s.values++
	start := s.pos
	var ok bool
	switch c := s.text[s.pos]; {
	case c == '{':
		ok = s.object(set, depth)
	case c == '[':
		ok = s.array(set, depth)
	case c == '"':
		_, ok = s.quoted()
	case c == '-' || c >= '0' && c <= '9':
		ok = s.number()
	default:
		ok = s.word("true") || s.word("false") || s.word("null")
	}
	if !ok {
		return false
	}
	for rest := set; rest != 0; rest &= rest - 1 {
		if i := bits.TrailingZeros64(rest); len(s.pointers[i]) == depth {
			s.found[i] = s.text[start:s.pos]
		}
	}
	return true
}

func (s *scanner) word(word string) bool {
	if !strings.HasPrefix(s.text[s.pos:], word) {
		return false
	}
	s.pos += len(word)
	return true
}

func (s *scanner) object(set uint64, depth int) bool {
	s.pos++
	for first := true; ; first = false {
		s.space()
		switch {
		case s.take('}') && first:
			return true
		case s.pos == len(s.text) || s.text[s.pos] != '"':
			return false
		}
		raw, ok := s.quoted()
		if !ok {
			return false
		}
		s.space()
		if !s.take(':') || !s.value(s.below(set, depth, raw), depth+1) {
			return false
		}
		s.space()
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// take skips one byte if it is c.
func (s *scanner) take(c byte) bool {
	if s.pos < len(s.text) && s.text[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

// below are the pointers of the set that lead through the member whose quoted name is raw. What they found in a
// member of this name before does not count any more.
func (s *scanner) below(set uint64, depth int, raw string) (inner uint64) {
	name, escaped := raw[1:len(raw)-1], strings.IndexByte(raw, '\\') >= 0
	for rest := set; rest != 0; rest &= rest - 1 {
		i := bits.TrailingZeros64(rest)
		if len(s.pointers[i]) <= depth {
			continue
		}
		if escaped {
			name, escaped = unquote(raw), false
		}
		if s.pointers[i][depth].Key == name {
			inner |= 1 << i
			s.found[i] = ""
		}
	}
	return inner
}

func (s *scanner) array(set uint64, depth int) bool {
	s.pos++
	s.space()
	if s.take(']') {
		return true
	}
	for i := 0; ; i++ {
		var inner uint64
		for rest := set; rest != 0; rest &= rest - 1 {
			if n := bits.TrailingZeros64(rest); len(s.pointers[n]) > depth && s.pointers[n][depth].Index == i {
				inner |= 1 << n
			}
		}
		if !s.value(inner, depth+1) {
			return false
		}
		s.space()
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// quoted reads a string and returns it with its quotes.
func (s *scanner) quoted() (raw string, ok bool) {
	start := s.pos
	for s.pos++; s.pos < len(s.text); s.pos++ {
		switch c := s.text[s.pos]; {
		case c == '"':
			s.pos++
			return s.text[start:s.pos], true
		case c < ' ':
			return "", false
		case c == '\\':
			if !s.escape() {
				return "", false
			}
		}
	}
	return "", false
}

// escape reads what follows a backslash, up to its last byte.
func (s *scanner) escape() bool {
	s.pos++
	if s.pos == len(s.text) {
		return false
	}
	if s.text[s.pos] != 'u' {
		return strings.IndexByte(`"\/bfnrt`, s.text[s.pos]) >= 0
	}
	if s.pos+4 >= len(s.text) {
		return false
	}
	for range 4 {
		s.pos++
		if c := s.text[s.pos] | 0x20; (c < '0' || c > '9') && (c < 'a' || c > 'f') || s.text[s.pos] < '0' {
			return false
		}
	}
	return true
}

func (s *scanner) number() bool {
	start := s.pos
	s.take('-')
	if !s.take('0') && s.digits() == 0 {
		return false
	}
	if s.take('.') && s.digits() == 0 {
		return false
	}
	s.hugest = max(s.hugest, s.pos-start)
	if !s.take('e') && !s.take('E') {
		return true
	}
	if !s.take('+') {
		s.take('-')
	}
	start = s.pos
	if s.digits() == 0 {
		return false
	}
	exponent, err := strconv.Atoi(s.text[start:s.pos])
	if err != nil {
		exponent = math.MaxInt
	}
	s.hugest = max(s.hugest, exponent)
	return true
}

func (s *scanner) digits() (n int) {
	for ; s.pos < len(s.text) && s.text[s.pos] >= '0' && s.text[s.pos] <= '9'; s.pos++ {
		n++
	}
	return n
}

// unquote is the text of a JSON string that was checked. What is not UTF-8 becomes U+FFFD.
func unquote(raw string) string {
	inner := raw[1 : len(raw)-1]
	if strings.IndexByte(inner, '\\') < 0 && utf8.ValidString(inner) {
		return inner
	}
	var s string
	if json.Unmarshal([]byte(raw), &s) != nil {
		return strings.ToValidUTF8(inner, "\uFFFD")
	}
	return s
}

// jsonText is the text of a JSON value: that of a string without quotes, everything else as JSON writes it, without
// white space.
func jsonText(raw string) string {
	switch raw[0] {
	case '"':
		return unquote(raw)
	case '{', '[':
		var b bytes.Buffer
		if json.Compact(&b, []byte(raw)) == nil {
			return b.String()
		}
	}
	return raw
}
