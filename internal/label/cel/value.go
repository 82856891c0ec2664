// SPDX-License-Identifier: Apache-2.0

package cel

import (
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
)

// Value is an expression that an extractor takes the value of a label from. Its variables are those of Variables;
// whoever evaluates it resolves them by these names, and reports one that the request does not have as not found.
type Value struct {
	// Program evaluates the expression. Its cost and memory are bounded. It may be used by many goroutines.
	Program cel.Program
	// Loops tells that it goes through lists or maps, so that its time should be bounded as well.
	Loops bool
}

var dyn = cel.DynType

// variables of extractors, by name.
var variables = map[string]*types.Type{
	"request.id": cel.StringType, "request.method": cel.StringType, "request.path": cel.StringType,
	"request.host": cel.StringType, "request.scheme": cel.StringType, "request.protocol": cel.StringType,
	"request.body": cel.StringType, "request.size": cel.IntType, "request.json": dyn,
	"request.headers": cel.MapType(cel.StringType, cel.StringType),
	"source.address":  cel.StringType, "source.port": cel.IntType, "source.services": cel.ListType(cel.StringType),
	"destination.address": cel.StringType, "destination.port": cel.IntType, "destination.services": cel.ListType(cel.StringType),
	"labels": cel.MapType(cel.StringType, cel.StringType),
}

// Variables are the names that extractors can read, sorted.
func Variables() []string {
	names := make([]string, 0, len(variables))
	for name := range variables {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

var values = environment(func() []cel.EnvOption {
	options := bounded(cel.OptionalTypes(), cel.CrossTypeNumericComparisons(true))
	for _, name := range Variables() {
		options = append(options, cel.Variable(name, variables[name]))
	}
	return options
})

// CompileValue compiles the expression of an extractor, such as
//
//	request.headers["x-user"].lowerAscii()
//	request.json.?user.?name.orValue("nobody")
//
// The error is Problems.
func CompileValue(text string) (*Value, error) {
	env, checked, err := check(values, text)
	if err != nil {
		return nil, err
	}
	switch t := checked.OutputType(); t.Kind() {
	case types.TypeKind, types.ErrorKind, types.UnknownKind:
		return nil, Problems{{Line: 1, Column: 1, Message: "the expression is of type " + t.String() + ", which has no text"}}
	}
	tree := checked.NativeRep()
	v := &Value{Loops: len(ast.MatchDescendants(ast.NavigateAST(tree), ast.KindMatcher(ast.ComprehensionKind))) > 0}
	if v.Program, err = env.PlanProgram(tree, runOptions(tree)...); err != nil {
		return nil, Problems{{Line: 1, Column: 1, Message: plain(err.Error())}}
	}
	return v, nil
}
