// SPDX-License-Identifier: Apache-2.0

package extract

import (
	"fmt"
	"strconv"
	"strings"
)

// Pointer is a JSON pointer (RFC 6901). The empty one points to the whole value.
type Pointer []Step

// Step is one step of a pointer.
type Step struct {
	// Key of a member of an object.
	Key string
	// Index of an item of an array, when Key can be one; else -1.
	Index int
}

// maxSteps is how deep a pointer may go; so deep JSON is refused anyway.
const maxSteps = 64

// ParsePointer reads a JSON pointer. The error is an *Error.
func ParsePointer(text string) (Pointer, error) {
	if text == "" {
		return nil, nil
	}
	if text[0] != '/' {
		return nil, &Error{Message: "a JSON pointer begins with '/'", Hint: fmt.Sprintf("write %q", "/"+text)}
	}
	parts := strings.Split(text[1:], "/")
	if len(parts) > maxSteps {
		return nil, &Error{Message: fmt.Sprintf("a JSON pointer of %d steps", len(parts)), Want: fmt.Sprintf("at most %d", maxSteps)}
	}
	p := make(Pointer, len(parts))
	for i, part := range parts {
		key, ok := unescapeStep(part)
		if !ok {
			return nil, &Error{Message: fmt.Sprintf("%q has a '~' that is not part of ~0 (for ~) or ~1 (for /)", part)}
		}
		p[i] = Step{Key: key, Index: index(key)}
	}
	return p, nil
}

func unescapeStep(s string) (string, bool) {
	for i := range len(s) {
		if s[i] == '~' && (i+1 == len(s) || s[i+1] != '0' && s[i+1] != '1') {
			return "", false
		}
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "~1", "/"), "~0", "~"), true
}

// index reads the index of an array: digits without a zero before others.
func index(key string) int {
	if len(key) > 1 && key[0] == '0' || strings.Trim(key, "0123456789") != "" {
		return -1
	}
	n, err := strconv.Atoi(key)
	if err != nil {
		return -1
	}
	return n
}
