// SPDX-License-Identifier: Apache-2.0

package rego

import (
	"fmt"
	"regexp/syntax"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// The bounds of built-in functions whose work or result can be far more than what goes in. Nothing interrupts them, and
// memory that they take is that of all.
const (
	maxShift     = 4096
	maxPattern   = 10_000     // bytes of a regular expression or glob
	maxMatchWork = 10_000_000 // the length of a text by the size of a regular expression's program; 150 ms at worst
	maxGlobs     = 1000       // bytes of each pattern of regex.globs_match
	maxFormatted = 4 << 20    // bytes of a text that sprintf makes
	maxWritten   = 4 << 20    // bytes of a value that becomes text, about
	maxIndent    = 8
	maxFactors   = 20_000 // digits of the factors of a product
	maxPairs     = 100_000
)

// weighed say what is too much of the operands of a built-in function; "": nothing.
var weighed = map[string]func(operands []*ast.Term) string{
	"bits.lsh":    shiftProblem,
	"regex.match": regexProblem(0, 1), "regex.find_n": regexProblem(0, 1), "regex.split": regexProblem(0, 1),
	"regex.find_all_string_submatch_n": regexProblem(0, 1), "regex.replace": regexProblem(1, 0),
	"regex.is_valid": longest(maxPattern), "regex.template_match": templateProblem, "regex.globs_match": longest(maxGlobs),
	"glob.match": globProblem, "sprintf": formatProblem, "product": productProblem,
	"json.marshal": writtenProblem, "yaml.marshal": writtenProblem, "json.marshal_with_options": indentProblem,
	"net.cidr_contains_matches": pairsProblem,
}

func textAt(operands []*ast.Term, i int) string {
	if i >= len(operands) {
		return ""
	}
	s, _ := operands[i].Value.(ast.String)
	return string(s)
}

// longest bounds every operand that is a text.
func longest(limit int) func([]*ast.Term) string {
	check := atMost(limit)
	return func(operands []*ast.Term) string {
		for i := range operands {
			if problem := check(textAt(operands, i)); problem != "" {
				return problem
			}
		}
		return ""
	}
}

func shiftProblem(operands []*ast.Term) string {
	n, ok := operands[1].Value.(ast.Number)
	if !ok {
		return ""
	}
	if shift, small := n.Int(); !small || shift > maxShift {
		return fmt.Sprintf("want a shift of at most %d", maxShift)
	}
	return ""
}

// regexProblem weighs a match of the operand with the number text by that with the number pattern. The time that it
// takes is in proportion to the length of the one by the size of the other's program.
func regexProblem(pattern, text int) func([]*ast.Term) string {
	return func(operands []*ast.Term) string {
		return matchProblem(textAt(operands, pattern), len(textAt(operands, text)))
	}
}

func matchProblem(pattern string, length int) string {
	switch size := 2*len(pattern) + 4; {
	case len(pattern) > maxPattern:
		return fmt.Sprintf("got a pattern of %d bytes, want at most %d", len(pattern), maxPattern)
	case !strings.Contains(pattern, "{") && length*size <= maxMatchWork: // nothing in it is repeated
		return ""
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return "" // the function will say so
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err == nil && length*len(program.Inst) > maxMatchWork {
		return fmt.Sprintf("the text has %d bytes, which are too many for this pattern", length)
	}
	return ""
}

func templateProblem(operands []*ast.Term) string {
	if problem := atMost(maxGlobs)(textAt(operands, 0)); problem != "" {
		return problem
	}
	return atMost(maxPattern)(textAt(operands, 1))
}

func globProblem(operands []*ast.Term) string { return atMost(maxPattern)(textAt(operands, 0)) }

// formatProblem weighs what sprintf makes: every verb may show the longest operand, and has a width.
func formatProblem(operands []*ast.Term) string {
	format := textAt(operands, 0)
	verbs := strings.Count(format, "%")
	if verbs == 0 {
		return ""
	}
	room := maxFormatted
	if list, ok := operands[1].Value.(*ast.Array); ok {
		widest := 0
		list.Foreach(func(t *ast.Term) {
			before := room
			room = weigh(t, room)
			widest = max(widest, before-room)
		})
		if strings.Contains(format, "*") {
			widest += 1_000_000 // what a width may be
		}
		room -= verbs * widest
	}
	for i := 0; i < len(format) && room >= 0; {
		end := i
		for end < len(format) && format[end] >= '0' && format[end] <= '9' {
			end++
		}
		if end > i {
			n, err := strconv.Atoi(format[i:end])
			if err != nil || n > maxFormatted {
				n = maxFormatted + 1
			}
			room -= n
			i = end
			continue
		}
		i++
	}
	if room < 0 {
		return fmt.Sprintf("the text may have more than %d bytes", maxFormatted)
	}
	return ""
}

func productProblem(operands []*ast.Term) string {
	if weigh(operands[0], maxFactors) < 0 {
		return fmt.Sprintf("the factors have more than %d digits", maxFactors)
	}
	return ""
}

func writtenProblem(operands []*ast.Term) string {
	if heavy(operands[0].Value) {
		return fmt.Sprintf("the value takes more than %d bytes", maxWritten)
	}
	return ""
}

func indentProblem(operands []*ast.Term) string {
	problem := writtenProblem(operands)
	if options, ok := operands[1].Value.(ast.Object); ok {
		options.Foreach(func(_, value *ast.Term) {
			if text, ok := value.Value.(ast.String); ok && len(text) > maxIndent {
				problem = fmt.Sprintf("got a prefix or an indent of %d bytes, want at most %d", len(text), maxIndent)
			}
		})
	}
	return problem
}

func pairsProblem(operands []*ast.Term) string {
	if sizeOf(operands[0].Value)*sizeOf(operands[1].Value) > maxPairs {
		return fmt.Sprintf("want at most %d pairs", maxPairs)
	}
	return ""
}

func sizeOf(v ast.Value) int {
	if v, ok := v.(interface{ Len() int }); ok {
		return v.Len()
	}
	return 1
}

// heavy tells whether a value is too large to become text. Values may share parts: sixty short rules make one of more
// bytes than there are.
func heavy(v ast.Value) bool { return weigh(ast.NewTerm(v), maxWritten) < 0 }

// weigh takes what a value has in bytes, about, from room, and stops when nothing is left.
func weigh(t *ast.Term, room int) int {
	if room--; room < 0 {
		return room
	}
	switch v := t.Value.(type) {
	case ast.String:
		return room - len(v)
	case ast.Number:
		return room - len(v)
	case *ast.Array:
		v.Until(func(e *ast.Term) bool { room = weigh(e, room); return room < 0 })
	case ast.Set:
		v.Until(func(e *ast.Term) bool { room = weigh(e, room); return room < 0 })
	case ast.Object:
		v.Until(func(key, value *ast.Term) bool {
			if room = weigh(key, room); room >= 0 {
				room = weigh(value, room)
			}
			return room < 0
		})
	}
	return room
}
