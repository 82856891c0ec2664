// SPDX-License-Identifier: Apache-2.0

package extract

import (
	"bytes"
	"strings"
)

// normal is a path without its query as RFC 3986, section 6.2.2, normalises it, so that a template matches however a
// client writes the path: unreserved characters are not percent-encoded, other encodings are in upper case, and
// segments "." and ".." are gone. Repeated slashes stay, and make a segment for "..", as in section 5.2.4. It allocates
// only when there is something to change.
func normal(path string) string {
	if strings.IndexByte(path, '%') >= 0 {
		path = decodeUnreserved(path)
	}
	if (strings.HasPrefix(path, ".") || strings.Contains(path, "/.")) && hasDots(path) {
		path = removeDots(path)
	}
	return path
}

// decodeUnreserved decodes once. A '%' that encodes nothing is taken for one that somebody forgot to encode.
func decodeUnreserved(path string) string {
	var out []byte // nil: nothing has changed yet
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c != '%' {
			if out != nil {
				out = append(out, c)
			}
			continue
		}
		code, width := codeAt(path[i:])
		decoded := digit(code[1])<<4 | digit(code[2])
		if out == nil && (isUnreserved(decoded) || string(code[:]) != path[i:i+width]) {
			out = append(make([]byte, 0, len(path)+2), path[:i]...)
		}
		switch {
		case out == nil:
		case isUnreserved(decoded):
			out = append(out, decoded)
		default:
			out = append(out, code[:]...)
		}
		i += width - 1
	}
	if out == nil {
		return path
	}
	return string(out)
}

// codeAt is the code at the beginning of s, which is a '%', in upper case, and how many bytes of s it takes.
func codeAt(s string) (code [3]byte, width int) {
	if len(s) < 3 || !isHex(s[1]) || !isHex(s[2]) {
		return [3]byte{'%', '2', '5'}, 1
	}
	return [3]byte{'%', upper(s[1]), upper(s[2])}, 3
}

// hasDots tells whether a segment is "." or "..".
func hasDots(path string) bool {
	for i := 0; i < len(path); {
		end := strings.IndexByte(path[i:], '/')
		if end < 0 {
			return isDots(path[i:])
		}
		if isDots(path[i : i+end]) {
			return true
		}
		i += end + 1
	}
	return false
}

func isDots(segment string) bool { return segment == "." || segment == ".." }

// removeDots removes segments "." and, with the one before each, "..", as RFC 3986, section 5.2.4, says. The slash at
// the beginning of the path may be missing; the result has one at its end instead.
func removeDots(path string) string {
	out := make([]byte, 0, len(path))
	for segment := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		switch segment {
		case ".":
		case "..":
			if n := len(out); n > 0 {
				out = out[:bytes.LastIndexByte(out[:n-1], '/')+1]
			}
		default:
			out = append(append(out, segment...), '/')
		}
	}
	return string(out)
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// upper is a hexadecimal digit in upper case.
func upper(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 'A'
	}
	return c
}

// digit is the value of a hexadecimal digit in upper case.
func digit(c byte) byte {
	if c >= 'A' {
		return c - 'A' + 10
	}
	return c - '0'
}

// isUnreserved is RFC 3986, section 2.3.
func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}
