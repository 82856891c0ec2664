// SPDX-License-Identifier: Apache-2.0

package rego

import (
	"fmt"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/sluice-project/sluice/internal/classify"
)

// The bounds of text that built-in functions take apart in one step, which nothing interrupts.
const (
	maxGraphQLTokens = 10_000
	maxGraphQLDepth  = 100
	maxGraphQLOpen   = 5000 // braces, brackets and parentheses, wherever they are
	maxYAMLBytes     = 64 << 10
	maxJWTBytes      = 64 << 10
)

// guards say what is too much of a text for a built-in function; "": nothing.
var guards = map[string]func(text string) string{
	"graphql.parse": graphQLProblem, "graphql.parse_and_verify": graphQLProblem, "graphql.parse_query": graphQLProblem,
	"graphql.parse_schema": graphQLProblem, "graphql.is_valid": graphQLProblem, "graphql.schema_is_valid": graphQLProblem,
	"json.unmarshal": jsonProblem,
	"yaml.unmarshal": atMost(maxYAMLBytes), "yaml.is_valid": atMost(maxYAMLBytes),
	"io.jwt.decode": atMost(maxJWTBytes), "io.jwt.decode_verify": atMost(maxJWTBytes),
}

// guard puts the bounds in front of the library's functions, once for the process, which has no other user of it.
// They are needed: a query of GraphQL with half a million brackets, which fits into a body, overflows the stack of
// the library's parser, and no recover helps then.
var guard = sync.OnceFunc(func() {
	for name, problem := range guards {
		guardOne(name, func(operands []*ast.Term) string {
			for _, o := range operands {
				if text, ok := o.Value.(ast.String); ok {
					if words := problem(string(text)); words != "" {
						return words
					}
				}
			}
			return ""
		})
	}
	for name, problem := range weighed {
		guardOne(name, problem)
	}
})

// guardOne asks problem before the built-in function runs.
func guardOne(name string, problem func(operands []*ast.Term) string) {
	inner := topdown.GetBuiltin(name)
	topdown.RegisterBuiltinFunc(name, func(b topdown.BuiltinContext, operands []*ast.Term, yield func(*ast.Term) error) error {
		if words := problem(operands); words != "" {
			return topdown.Halt{Err: &classify.Error{Code: classify.CodeBounds, Message: name + ": " + words}}
		}
		return inner(b, operands, yield)
	})
}

func atMost(limit int) func(string) string {
	return func(text string) string {
		if len(text) <= limit {
			return ""
		}
		return fmt.Sprintf("got %d bytes, want at most %d", len(text), limit)
	}
}

func jsonProblem(text string) string {
	if _, tooMuch := classify.CheckJSON(text); tooMuch {
		return "too many values, or a number of too many digits"
	}
	return ""
}

// graphQLProblem counts the tokens of GraphQL and how deep they are nested, as far as the parser can come: it stops
// at the first closing bracket that does not fit.
func graphQLProblem(text string) string {
	open, tokens, depth, deepest := 0, 0, 0, 0
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '#':
			i += lineLength(text[i:])
			continue
		case c == '"':
			i += stringLength(text[i:])
		case c == '{' || c == '[' || c == '(':
			open++
			depth++
			deepest = max(deepest, depth)
			i++
		case c == '}' || c == ']' || c == ')':
			depth--
			i++
		case isNameByte(c):
			for i < len(text) && isNameByte(text[i]) {
				i++
			}
		default:
			i++
			if c <= ' ' || c == ',' {
				continue
			}
		}
		tokens++
	}
	switch {
	case tokens > maxGraphQLTokens:
		return fmt.Sprintf("got %d tokens, want at most %d", tokens, maxGraphQLTokens)
	case deepest > maxGraphQLDepth:
		return fmt.Sprintf("nested %d deep, want at most %d", deepest, maxGraphQLDepth)
	case open > maxGraphQLOpen || strings.Count(text, "{")+strings.Count(text, "[")+strings.Count(text, "(") > maxGraphQLOpen:
		return fmt.Sprintf("want at most %d brackets", maxGraphQLOpen) // also where the parser reads text otherwise
	}
	return ""
}

func lineLength(text string) int {
	if n := strings.IndexAny(text, "\r\n"); n >= 0 {
		return n
	}
	return len(text)
}

// stringLength is the length of a string of GraphQL, or of the rest when it has no end.
func stringLength(text string) int {
	if strings.HasPrefix(text, `"""`) {
		for i := 3; i < len(text); i++ {
			switch {
			case strings.HasPrefix(text[i:], `\"""`):
				i += 3
			case strings.HasPrefix(text[i:], `"""`):
				return i + 3
			}
		}
		return len(text)
	}
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"', '\n', '\r':
			return i + 1
		}
	}
	return len(text)
}

func isNameByte(c byte) bool {
	return c == '_' || c == '-' || c == '.' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}
