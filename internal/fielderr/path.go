// SPDX-License-Identifier: Apache-2.0

package fielderr

import "strconv"

// Path names a field from the top of a document: circuit.components[2].ema. The zero Path is the document
// itself. Paths are compared and used as map keys as they are.
type Path string

// Field is the path of the member name of a mapping. A name that is not made of letters, digits, '_' and
// '-' is quoted: match_labels["http.method"].
func (p Path) Field(name string) Path {
	switch {
	case !plain(name):
		return p + Path("["+strconv.Quote(name)+"]")
	case p == "":
		return Path(name)
	}
	return p + "." + Path(name)
}

// Index is the path of item i of a list.
func (p Path) Index(i int) Path { return p + Path("["+strconv.Itoa(i)+"]") }

// String returns the path as text.
func (p Path) String() string { return string(p) }

func plain(name string) bool {
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-':
		default:
			return false
		}
	}
	return name != ""
}
