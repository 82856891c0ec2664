// SPDX-License-Identifier: Apache-2.0

package cel

import (
	"regexp"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/sluice-project/sluice/internal/label"
)

// variable is the only variable of conditions.
const variable = "labels"

var conditions = environment(func() []cel.EnvOption {
	return bounded(cel.Variable(variable, cel.MapType(cel.StringType, cel.StringType)))
})

// Compile compiles a condition on labels, such as
//
//	labels.tier == "gold" && labels["user.name"].startsWith("a")
//
// Labels are read by constant keys only: labels.key, labels["key"], "key" in labels, has(labels.key). An absent
// label neither equals, nor matches, nor compares with anything: the smallest condition that reads it is false,
// and its negation true, as in other matchers. What fails in another way, such as int("abc"), is false too.
//
// The error is Problems.
func Compile(text string) (label.Expr, error) {
	env, checked, err := check(conditions, text)
	if err != nil {
		return label.Expr{}, err
	}
	if !checked.OutputType().IsExactType(cel.BoolType) {
		return label.Expr{}, Problems{{
			Line: 1, Column: 1,
			Message: "the expression is of type " + checked.OutputType().String() + ", want a condition (bool)",
		}}
	}
	c := compiler{env: env, tree: checked.NativeRep()}
	if problems := c.checkKeys(); problems != nil {
		return label.Expr{}, problems
	}
	return c.condition(c.tree.Expr())
}

type compiler struct {
	env  *cel.Env
	tree *ast.AST
}

// problem is a mistake at a node.
func (c *compiler) problem(e ast.Expr, message string) Problems {
	at := c.tree.SourceInfo().GetStartLocation(e.ID())
	return Problems{{Line: max(at.Line(), 1), Column: max(at.Column()+1, 1), Message: message}}
}

// checkKeys refuses uses of the variable labels other than by constant keys.
func (c *compiler) checkKeys() (found Problems) {
	root := ast.NavigateAST(c.tree)
	for _, n := range ast.MatchDescendants(root, ast.KindMatcher(ast.IdentKind)) {
		if n.AsIdent() != variable {
			continue
		}
		parent, ok := n.Parent()
		if !ok {
			found = append(found, c.problem(n, keyWords)...)
			continue
		}
		if _, reads := keyOf(parent); !reads {
			found = append(found, c.problem(n, keyWords)...)
		}
	}
	return found
}

const keyWords = `labels are read by constant keys: labels.key, labels["key"], "key" in labels or has(labels.key)`

// keyOf returns the key of a label that e itself reads, or asks the presence of.
func keyOf(e ast.Expr) (key string, ok bool) {
	if key, ok = valueOf(e); ok {
		return key, true
	}
	return presenceOf(e)
}

// valueOf recognises labels.key and labels["key"].
func valueOf(e ast.Expr) (key string, ok bool) {
	switch e.Kind() {
	case ast.SelectKind:
		s := e.AsSelect()
		return s.FieldName(), !s.IsTestOnly() && isLabels(s.Operand())
	case ast.CallKind:
		call := e.AsCall()
		if call.FunctionName() == operators.Index && isLabels(call.Args()[0]) {
			return text(call.Args()[1])
		}
	}
	return "", false
}

// presenceOf recognises "key" in labels and has(labels.key).
func presenceOf(e ast.Expr) (key string, ok bool) {
	switch e.Kind() {
	case ast.SelectKind:
		s := e.AsSelect()
		return s.FieldName(), s.IsTestOnly() && isLabels(s.Operand())
	case ast.CallKind:
		call := e.AsCall()
		if call.FunctionName() == operators.In && isLabels(call.Args()[1]) {
			return text(call.Args()[0])
		}
	}
	return "", false
}

func isLabels(e ast.Expr) bool { return e.Kind() == ast.IdentKind && e.AsIdent() == variable }

// text returns a constant string.
func text(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().(types.String)
	return string(s), ok
}

// condition translates what label.Expr can say, and compiles the rest.
func (c *compiler) condition(e ast.Expr) (label.Expr, error) {
	if key, ok := presenceOf(e); ok {
		return label.Expr{Op: label.Exists, Key: key}, nil
	}
	switch e.Kind() {
	case ast.LiteralKind:
		if e.AsLiteral() == types.True {
			return label.Expr{}, nil
		}
		return label.Negate(label.Expr{}), nil
	case ast.CallKind:
		return c.call(e)
	}
	return c.program(e)
}

func (c *compiler) call(e ast.Expr) (label.Expr, error) {
	call := e.AsCall()
	args := call.Args()
	switch call.FunctionName() {
	case operators.LogicalAnd:
		return c.list(label.All, args)
	case operators.LogicalOr:
		return c.list(label.Any, args)
	case operators.LogicalNot:
		sub, err := c.condition(args[0])
		return label.Negate(sub), err
	case operators.Conditional:
		return c.choice(args)
	}
	if expr, ok := comparison(call); ok {
		return expr, nil
	}
	return c.program(e)
}

// list translates operands, those of the same operator inside too.
func (c *compiler) list(op label.Op, args []ast.Expr) (label.Expr, error) {
	out := label.Expr{Op: op}
	for _, arg := range args {
		sub, err := c.condition(arg)
		if err != nil {
			return label.Expr{}, err
		}
		if sub.Op == op {
			out.Of = append(out.Of, sub.Of...)
		} else {
			out.Of = append(out.Of, sub)
		}
	}
	return out, nil
}

// choice translates a ? b : c.
func (c *compiler) choice(args []ast.Expr) (label.Expr, error) {
	var of [3]label.Expr
	for i := range of {
		var err error
		if of[i], err = c.condition(args[i]); err != nil {
			return label.Expr{}, err
		}
	}
	return label.Expr{Op: label.Any, Of: []label.Expr{label.And(of[0], of[1]), label.And(label.Negate(of[0]), of[2])}}, nil
}

// comparison translates comparisons of one label with constants.
func comparison(call ast.CallExpr) (label.Expr, bool) {
	args := call.Args()
	switch call.FunctionName() {
	case operators.Equals, operators.NotEquals:
		key, isLabel := valueOf(args[0])
		value, isText := text(args[1])
		if !isLabel {
			key, isLabel = valueOf(args[1])
			value, isText = text(args[0])
		}
		if !isLabel || !isText {
			return label.Expr{}, false
		}
		equal := label.Equal(key, value)
		if call.FunctionName() == operators.Equals {
			return equal, true
		}
		return label.And(label.Expr{Op: label.Exists, Key: key}, label.Negate(equal)), true
	case operators.In:
		key, isLabel := valueOf(args[0])
		values, isTexts := texts(args[1])
		return label.Expr{Op: label.In, Key: key, Texts: values}, isLabel && isTexts
	case "matches":
		return match(call)
	}
	return label.Expr{}, false
}

// match translates label.matches("constant") and matches(label, "constant").
func match(call ast.CallExpr) (label.Expr, bool) {
	args := call.Args()
	if call.IsMemberFunction() {
		args = append([]ast.Expr{call.Target()}, args...)
	}
	key, isLabel := valueOf(args[0])
	pattern, isText := text(args[1])
	if !isLabel || !isText {
		return label.Expr{}, false
	}
	re, err := regexp.Compile(pattern)
	return label.Expr{Op: label.Match, Key: key, Regex: re}, err == nil
}

// texts returns a list of constant strings.
func texts(e ast.Expr) ([]string, bool) {
	if e.Kind() != ast.ListKind {
		return nil, false
	}
	var out []string
	for _, element := range e.AsList().Elements() {
		s, ok := text(element)
		if !ok {
			return nil, false
		}
		out = append(out, s)
	}
	return out, true
}

// program compiles a condition that runs as it is.
func (c *compiler) program(e ast.Expr) (label.Expr, error) {
	p := &program{}
	part := ast.NewCheckedAST(ast.NewAST(e, c.tree.SourceInfo()), c.tree.TypeMap(), c.tree.ReferenceMap())
	for _, n := range ast.MatchDescendants(ast.NavigateAST(part), ast.AllMatcher()) {
		if key, ok := keyOf(n); ok && !slices.Contains(p.keys, key) {
			p.keys = append(p.keys, key)
		}
	}
	var err error
	if p.run, err = c.env.PlanProgram(part, runOptions(part)...); err != nil {
		return label.Expr{}, c.problem(e, plain(err.Error()))
	}
	return label.Expr{Op: label.Run, Program: p}, nil
}
