// SPDX-License-Identifier: Apache-2.0

package strict

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Kind is what a Node holds.
type Kind uint8

// The kinds. Zero is null, which every reader treats as an absent value.
const (
	Null Kind = iota
	Bool
	Number
	Text
	List
	Map
)

// Node is one value of a document with its position. Nodes are shared where the document uses aliases;
// nobody changes one after parsing.
type Node struct {
	Kind               Kind
	Text               string // of Bool, Number (as written) and Text
	Items              []*Node
	Members            []Member // in the order of the document, keys are unique
	Line, Column       int      // of the value, 1-based
	KeyLine, KeyColumn int      // of the key that names the value, else of the value

	size       int            // nodes in it, aliases expanded
	duplicates []duplicateKey // reported when the mapping is decoded, which is when its path is known
}

// duplicateKey is a key of a mapping that was there before, on line first.
type duplicateKey struct {
	key   string
	first int
	at    position
}

// Member is one entry of a mapping.
type Member struct {
	Key          string
	Line, Column int // of the key, 1-based
	Value        *Node
}

// Get returns the value of key in a mapping; nil when the node is no mapping, or the key is absent or null.
func (n *Node) Get(key string) *Node {
	if n == nil {
		return nil
	}
	for _, m := range n.Members {
		if m.Key == key && m.Value.Kind != Null {
			return m.Value
		}
	}
	return nil
}

// maxShown is how much of a value an error message repeats.
const maxShown = 60

// Describe names the value for an error message: text "abc", number 5, a list.
func (n *Node) Describe() string {
	shown := n.Text
	if r := []rune(shown); len(r) > maxShown {
		shown = string(r[:maxShown]) + "…"
	}
	switch n.Kind {
	case Bool:
		return shown
	case Number:
		return "number " + shown
	case Text:
		return fmt.Sprintf("text %q", shown)
	case List:
		return "a list"
	case Map:
		return "a mapping"
	}
	return "nothing (null)"
}

// Float returns the number that a Number or a quoted Text spells. It is not always finite.
func (n *Node) Float() (float64, bool) {
	if n.Kind != Number && n.Kind != Text {
		return 0, false
	}
	if i, ok := n.Int(); ok {
		return float64(i), true
	}
	switch strings.ToLower(strings.TrimPrefix(n.Text, "+")) {
	case ".nan":
		return math.NaN(), n.Kind == Number
	case ".inf":
		return math.Inf(1), n.Kind == Number
	case "-.inf":
		return math.Inf(-1), n.Kind == Number
	case "nan", "inf", "-inf", "infinity", "-infinity": // ParseFloat knows these, YAML does not
		return 0, false
	}
	f, err := strconv.ParseFloat(n.number(), 64)
	return f, err == nil || math.IsInf(f, 0)
}

// Int returns the whole number that a Number or a quoted Text spells, if it fits.
func (n *Node) Int() (int64, bool) {
	if n.Kind != Number && n.Kind != Text {
		return 0, false
	}
	text, base := n.number(), 10
	if strings.HasPrefix(text, "0x") || strings.HasPrefix(text, "0o") || strings.HasPrefix(text, "0b") {
		base = 0
	}
	i, err := strconv.ParseInt(text, base, 64)
	return i, err == nil
}

// number is the text of a number as strconv wants it: YAML allows 1_000.
func (n *Node) number() string {
	if n.Kind == Number {
		return strings.ReplaceAll(n.Text, "_", "")
	}
	return n.Text
}

// Value returns the node as encoding/json would: nil, bool, int64, float64, string, []any or
// map[string]any. Numbers that JSON cannot hold become text.
func (n *Node) Value() any {
	switch n.Kind {
	case Bool:
		return n.Text == "true"
	case Number:
		if i, ok := n.Int(); ok {
			return i
		}
		if f, ok := n.Float(); ok && !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f
		}
		return n.Text
	case Text:
		return n.Text
	case List:
		items := make([]any, len(n.Items))
		for i, item := range n.Items {
			items[i] = item.Value()
		}
		return items
	case Map:
		members := make(map[string]any, len(n.Members))
		for _, m := range n.Members {
			members[m.Key] = m.Value.Value()
		}
		return members
	}
	return nil
}

var _ json.Marshaler = (*Node)(nil)

// MarshalJSON writes the value of the node.
func (n *Node) MarshalJSON() ([]byte, error) { return json.Marshal(n.Value()) }
