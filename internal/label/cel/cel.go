// SPDX-License-Identifier: Apache-2.0

// Package cel reads expressions in the Common Expression Language (https://cel.dev) where documents have them:
// conditions on the labels of flows, and extractors that take the value of a label from a request.
//
// A condition becomes a label.Expr. What other matchers can say as well (comparisons with constants, in, has,
// matches, and, or, not) is translated to their operators and costs what they cost; the rest runs as a compiled
// program. Everything is bounded: the length, depth and size of an expression, the size of its regular
// expressions, and the cost and memory of one evaluation.
//
// The language is the standard library, with the string functions charAt, format, indexOf, join, lastIndexOf,
// lowerAscii, quote, replace, reverse, split, strings.quote, substring, trim and upperAscii. Extractors have
// optional values (a[?k], a.?k, orValue) besides. There is no clock, no randomness and no I/O.
package cel

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/ext"
)

// The bounds. Expressions that people write are far from them.
const (
	// MaxLength of an expression, in characters.
	MaxLength    = 4096
	maxDepth     = 50
	maxNodes     = 2000
	maxNesting   = 2 // of loops
	maxRegexSize = 5000
	maxCost      = 20_000  // of one evaluation: about a millisecond
	maxMemory    = 200_000 // of one value, in the units of package cel: about a byte each
)

// Problem is a mistake in an expression.
type Problem struct {
	// Line and Column of the mistake, 1-based, in characters.
	Line, Column int
	// Message says what is wrong.
	Message string
}

// Problems are the mistakes in an expression, at least one.
type Problems []Problem

// Error prints the problems, one per line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = fmt.Sprintf("%d:%d: %s", one.Line, one.Column, one.Message)
	}
	return strings.Join(lines, "\n")
}

// bounded are the options of every environment here.
func bounded(more ...cel.EnvOption) []cel.EnvOption {
	return append([]cel.EnvOption{
		cel.ParserExpressionSizeLimit(MaxLength), cel.ParserRecursionLimit(maxDepth),
		cel.ParserErrorRecoveryLimit(4), cel.ExpressionNodeLimit(maxNodes),
		cel.RegexProgramSizeLimit(maxRegexSize), cel.DefaultUTCTimeZone(true),
		ext.Strings(ext.StringsVersion(3)),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(),
			cel.ValidateComprehensionNestingLimit(maxNesting)),
	}, more...)
}

// runOptions bound one evaluation of a tree. Counting what it costs takes three times as long as a small expression
// itself, so it is left out where an evaluation costs no more than one pass over its input: without loops, and with
// functions alone that build nothing.
func runOptions(tree *ast.AST) []cel.ProgramOption {
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if costly(tree) {
		options = append(options, cel.CostLimit(maxCost), cel.MemoryLimit(maxMemory), cel.InterruptCheckFrequency(100))
		options = append(options, weighed()...)
	}
	return options
}

func costly(tree *ast.AST) bool {
	for _, n := range ast.MatchDescendants(ast.NavigateAST(tree), ast.AllMatcher()) {
		switch n.Kind() {
		case ast.ComprehensionKind, ast.StructKind:
			return true
		case ast.CallKind:
			if !slices.Contains(cheap, n.AsCall().FunctionName()) {
				return true
			}
		}
	}
	return false
}

// cheap are functions that take at most one pass over their input and build nothing longer.
var cheap = []string{
	operators.Conditional, operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot, operators.Equals, operators.NotEquals,
	operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals, operators.Index, operators.In,
	operators.OptIndex, operators.OptSelect, "or", "orValue", "hasValue", "optional.of", "optional.none",
	"startsWith", "endsWith", "contains", "size", "charAt", "substring", "trim", "lowerAscii", "upperAscii", "indexOf", "lastIndexOf",
	"int", "uint", "double", "string", "bool",
}

// environment makes an environment once; it is safe for concurrent use.
func environment(options func() []cel.EnvOption) func() (*cel.Env, error) {
	return sync.OnceValues(func() (*cel.Env, error) { return cel.NewEnv(options()...) })
}

// check parses and checks an expression. The error is Problems.
func check(environment func() (*cel.Env, error), text string) (*cel.Env, *cel.Ast, error) {
	env, err := environment()
	if err != nil {
		return nil, nil, Problems{{Line: 1, Column: 1, Message: err.Error()}}
	}
	checked, issues := env.Compile(text)
	if issues == nil || issues.Err() == nil {
		if problems := checkFormats(checked.NativeRep()); problems != nil {
			return nil, nil, problems
		}
		return env, checked, nil
	}
	var problems Problems
	for _, e := range issues.Errors() {
		problems = append(problems, Problem{
			Line: max(e.Location.Line(), 1), Column: max(e.Location.Column()+1, 1), Message: plain(e.Message),
		})
	}
	if len(problems) == 0 {
		problems = Problems{{Line: 1, Column: 1, Message: plain(issues.Err().Error())}}
	}
	return nil, nil, slices.Compact(problems)
}

// plain takes words out of a message that mean nothing to authors of policies.
func plain(message string) string {
	message = strings.ReplaceAll(message, " (in container '')", "")
	message = strings.TrimPrefix(message, "Syntax error: ")
	message = strings.Replace(message, "invalid matches argument", "not a regular expression (RE2), or too large a one", 1)
	if strings.HasPrefix(message, "token recognition error at: '=") {
		message = "'=' is no operator; write '==' to compare"
	}
	return operator.ReplaceAllString(strings.TrimSpace(message), "'$1'")
}

// operator finds the inner names of operators, such as '_==_'.
var operator = regexp.MustCompile(`'_?(==|!=|<=?|>=?|&&|\|\||[-+*/%!])_?'`)
