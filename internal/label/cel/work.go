// SPDX-License-Identifier: Apache-2.0

package cel

import (
	"regexp"
	"regexp/syntax"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
)

// The library counts what a function costs when it is done, and nothing interrupts a function. Those whose work or
// result can be far more than what goes in are therefore weighed before they run.
const (
	// maxMatchWork bounds a match of a regular expression: the length of the text by the size of the program, which
	// is the time that it takes at worst; 10 to 50 ms.
	maxMatchWork = 2_000_000
	// maxPattern is the longest regular expression that is not constant.
	maxPattern = 1000
)

// tooMuch ends an evaluation, as the library does when something costs too much.
func tooMuch(what string) {
	panic(interpreter.EvalCancelledError{Cause: interpreter.CostLimitExceeded, Message: "operation cancelled: " + what})
}

// weighed are the options that weigh functions before they run.
func weighed() []cel.ProgramOption {
	constant := func(overload string) *interpreter.RegexOptimization {
		return &interpreter.RegexOptimization{Function: "matches", OverloadID: overload, RegexIndex: 1, Factory: constantMatch}
	}
	return []cel.ProgramOption{
		cel.OptimizeRegex(constant("matches"), constant("matches_string")),
		cel.CustomDecoratorV2(func(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
			call, ok := i.(interpreter.InterpretableCall)
			if !ok {
				return i, nil
			}
			f := bodies[call.Function()]
			if f == nil {
				return i, nil
			}
			return interpreter.NewCall(call.ID(), call.Function(), call.OverloadID(), call.Args(), f), nil
		}),
	}
}

// bodies replace those of the library.
var bodies = map[string]func(...ref.Val) ref.Val{"matches": weighedMatch, "replace": weighedReplace, "join": weighedJoin}

func constantMatch(call interpreter.InterpretableCall, pattern string) (interpreter.InterpretableCall, error) {
	compiled, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	size := programSize(pattern)
	return interpreter.NewCall(call.ID(), call.Function(), call.OverloadID(), call.Args(), func(args ...ref.Val) ref.Val {
		text, ok := textArgs(args, 1)
		if !ok {
			return types.NoSuchOverloadErr()
		}
		weighMatch(text[0], size)
		return types.Bool(compiled.MatchString(text[0]))
	}), nil
}

func weighedMatch(args ...ref.Val) ref.Val {
	text, ok := textArgs(args, 2)
	if !ok {
		return types.NoSuchOverloadErr()
	}
	if len(text[1]) > maxPattern {
		tooMuch("a regular expression is too long")
	}
	weighMatch(text[0], programSize(text[1]))
	compiled, err := regexp.Compile(text[1])
	if err != nil {
		return types.WrapErr(err)
	}
	return types.Bool(compiled.MatchString(text[0]))
}

func weighMatch(text string, size int) {
	if len(text)*size > maxMatchWork {
		tooMuch("the text is too long for the regular expression")
	}
}

// programSize is the number of instructions of a regular expression; 0 for one that does not compile.
func programSize(pattern string) int {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 0
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return 0
	}
	return len(program.Inst)
}

// weighedReplace is text.replace(old, new) and text.replace(old, new, times).
func weighedReplace(args ...ref.Val) ref.Val {
	text, ok := textArgs(args, 3)
	if !ok {
		return types.NoSuchOverloadErr()
	}
	times := -1
	if len(args) > 3 {
		n, ok := args[3].(types.Int)
		if !ok {
			return types.NoSuchOverloadErr()
		}
		times = int(n)
	}
	found := strings.Count(text[0], text[1])
	if times >= 0 {
		found = min(found, times)
	}
	if grows := len(text[2]) - len(text[1]); grows > 0 && found > maxMemory/grows {
		tooMuch("a text would become too long")
	}
	return types.String(strings.Replace(text[0], text[1], text[2], times))
}

// weighedJoin is list.join() and list.join(separator).
func weighedJoin(args ...ref.Val) ref.Val {
	if len(args) == 0 {
		return types.NoSuchOverloadErr()
	}
	list, ok := args[0].(traits.Lister)
	separator := ""
	if ok && len(args) > 1 {
		var text types.String
		text, ok = args[1].(types.String)
		separator = string(text)
	}
	if !ok {
		return types.NoSuchOverloadErr()
	}
	var out strings.Builder
	size := list.Size().(types.Int)
	for i := types.Int(0); i < size; i++ {
		if i > 0 {
			out.WriteString(separator)
		}
		element := list.Get(i)
		text, ok := element.(types.String)
		if !ok {
			return types.NewErr("join: invalid input: %v", element)
		}
		out.WriteString(string(text))
		if out.Len() > maxMemory {
			tooMuch("a text would become too long")
		}
	}
	return types.String(out.String())
}

// textArgs are the first n arguments.
func textArgs(args []ref.Val, n int) (out [3]string, ok bool) {
	if len(args) < n {
		return out, false
	}
	for i := range n {
		text, ok := args[i].(types.String)
		if !ok {
			return out, false
		}
		out[i] = string(text)
	}
	return out, true
}

// checkFormats refuses formats that are not constant, or have a large precision: each number would take a megabyte.
func checkFormats(tree *ast.AST) Problems {
	var found Problems
	for _, n := range ast.MatchDescendants(ast.NavigateAST(tree), ast.FunctionMatcher("format")) {
		message := ""
		if format, ok := text(n.AsCall().Target()); !ok {
			message = "the format is not a constant text"
		} else if hugePrecision.MatchString(format) {
			message = "the format has a precision of more than 99 digits"
		}
		if message != "" {
			at := tree.SourceInfo().GetStartLocation(n.ID())
			found = append(found, Problem{Line: max(at.Line(), 1), Column: max(at.Column()+1, 1), Message: message})
		}
	}
	return found
}

var hugePrecision = regexp.MustCompile(`%\.[0-9]{3,}`)
