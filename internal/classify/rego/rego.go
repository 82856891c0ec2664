// SPDX-License-Identifier: Apache-2.0

// Package rego compiles classifiers written in Rego (https://www.openpolicyagent.org/docs/policy-language), on the
// library of the Open Policy Agent.
//
// A module is compiled once and evaluated as data.<its package>; those of its variables that the classifier lists
// become labels. It sees the request as input, in the layout of Aperture (see input.go).
//
// # Bounds
//
// One evaluation is interrupted when its time is over, 10 ms by default, at its next step. At most Config.Concurrency
// evaluations run at once; the others wait, and waiting counts as time. A body is parsed up to 1 MiB and
// 50,000 values. So what bounds memory is what a module can allocate in that time, times Concurrency: some tens of
// megabytes for a loop that does nothing else. The calls of built-in functions are steps: concat, replace,
// numbers.range and net.cidr_expand are interrupted as well, others run to their end; those that parse text refuse what
// would take long or overflow the stack (guard.go). So a body of n bytes may take some hundred times n for a moment.
// Built-in functions that reach out of the process are not there, see Forbidden; print and trace print nothing.
package rego

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/fielderr"
)

// MaxModuleBytes is the longest module that is compiled.
const MaxModuleBytes = 64 << 10

// Forbidden are the built-in functions that modules cannot call: they would reach out of the process. Schemas may
// refer to files and servers.
var Forbidden = []string{"http.send", "json.match_schema", "json.verify_schema", "net.lookup_ip_addr", "opa.runtime"}

// Unbounded are the built-in functions that modules cannot call because nothing bounds their time and memory: paths of
// a graph grow with the factorial of its nodes, and templates have loops that cannot be interrupted.
var Unbounded = []string{"graph.reachable_paths", "strings.render_template"}

// Config of a Language.
type Config struct {
	// Concurrency is how many evaluations run at once; 0: GOMAXPROCS.
	Concurrency int
}

// Language compiles and runs modules. It may be used by many goroutines.
type Language struct {
	capabilities *ast.Capabilities
	running      chan struct{} // holds a token for every evaluation that runs
}

// New makes a Language.
func New(c Config) *Language {
	if c.Concurrency < 1 {
		c.Concurrency = runtime.GOMAXPROCS(0)
	}
	guard()
	return &Language{capabilities: capabilities(), running: make(chan struct{}, c.Concurrency)}
}

// capabilities are those of the library without what is forbidden.
func capabilities() *ast.Capabilities {
	c := *ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(slices.Clone(c.Builtins), func(b *ast.Builtin) bool {
		return slices.Contains(Forbidden, b.Name) || slices.Contains(Unbounded, b.Name)
	})
	c.AllowNet = []string{} // no host for schemas
	return &c
}

// Compile compiles the module of a classifier. It is a classify.Spec's CompileRego. The error is a fielderr.List
// with places in the module.
func (l *Language) Compile(r classify.Rego) (classify.Ruleset, error) {
	module, compiler, problems := l.compile(r.Module)
	if problems != nil {
		return nil, problems
	}
	query, err := rego.New(
		rego.Query(module.Package.Path.String()), rego.Compiler(compiler), rego.Capabilities(l.capabilities),
		rego.GenerateJSON(func(t *ast.Term, _ *rego.EvalContext) (any, error) { return t, nil }),
	).PrepareForEval(context.Background())
	if err != nil {
		return nil, fromErrors(err)
	}
	return &ruleset{language: l, query: query, labels: keys(r.Labels), needs: needsOf(module), bounds: r.Bounds.WithDefaults()}, nil
}

// keys makes the terms that labels are looked up by.
func keys(labels []classify.RegoLabel) []labelKey {
	out := make([]labelKey, len(labels))
	for i, l := range labels {
		out[i] = labelKey{RegoLabel: l, term: ast.StringTerm(l.Key)}
	}
	return out
}

// Check says what is wrong with a module, with places in it. Labels that it never makes are warnings.
func (l *Language) Check(text string, labels []string) fielderr.List {
	module, _, problems := l.compile(text)
	if problems != nil {
		return problems
	}
	var warnings fielderr.List
	var defined []string
	for _, rule := range module.Rules {
		defined = append(defined, string(rule.Head.Ref()[0].Value.(ast.Var)))
	}
	for _, label := range labels {
		if !slices.Contains(defined, label) {
			warnings = append(warnings, &fielderr.Error{
				Severity: fielderr.Warning, Line: module.Package.Location.Row, Column: module.Package.Location.Col,
				Message: fmt.Sprintf("the module has no rule %q: this label is never made", label),
				Hint:    fielderr.DidYouMean(label, defined),
			})
		}
	}
	return warnings
}

// compile reads a module in the first version of Rego, else in the older one.
func (l *Language) compile(text string) (*ast.Module, *ast.Compiler, fielderr.List) {
	if len(text) > MaxModuleBytes {
		return nil, nil, fielderr.List{{Line: 1, Column: 1, Message: "the module is too large", Want: fmt.Sprintf("at most %d bytes", MaxModuleBytes)}}
	}
	if !hasPackage.MatchString(text) {
		return nil, nil, fielderr.List{{Line: 1, Column: 1, Message: "failed to get package name from rego module", Want: "package <name> in the first line"}}
	}
	module, compiler, newer := l.compileAs(text, ast.RegoV1)
	if newer == nil {
		return module, compiler, nil
	}
	module, compiler, older := l.compileAs(text, ast.RegoV0)
	switch {
	case older == nil:
		return module, compiler, nil
	case isNewer.MatchString(text):
		return nil, nil, fromErrors(newer)
	}
	return nil, nil, fromErrors(older)
}

var (
	hasPackage = regexp.MustCompile(`(?m)^\s*package\s+(\S+)`)
	// isNewer finds what only the first version of Rego has, to choose the errors that help.
	isNewer = regexp.MustCompile(`(?m)^\s*import\s+(rego\.v1|future)|\bif\b|\bcontains\s+[^(]`)
)

const fileName = "module"

// maxDepth is how deep the tree of a module may be; each level of brackets makes two at least. The library takes
// minutes to compile deep ones.
const maxDepth = 200

// tooDeep finds a place that is nested too deep.
func tooDeep(module *ast.Module) (at *ast.Location) {
	depth, last := 0, module.Package.Location
	ast.NewBeforeAfterVisitor(func(x any) bool {
		if node, ok := x.(interface{ Loc() *ast.Location }); ok && node.Loc() != nil {
			last = node.Loc()
		}
		if depth++; depth > maxDepth && at == nil {
			at = last
		}
		return at != nil
	}, func(any) { depth-- }).Walk(module)
	return at
}

func (l *Language) compileAs(text string, version ast.RegoVersion) (*ast.Module, *ast.Compiler, error) {
	module, err := ast.ParseModuleWithOpts(fileName, text, ast.ParserOptions{RegoVersion: version, Capabilities: l.capabilities})
	if err != nil {
		return nil, nil, err
	}
	if module == nil {
		return nil, nil, errors.New("the module is empty")
	}
	if at := tooDeep(module); at != nil {
		return nil, nil, ast.Errors{ast.NewError(ast.ParseErr, at, "nested too deep, want at most %d levels", maxDepth/2)}
	}
	compiler := ast.NewCompiler().WithCapabilities(l.capabilities).WithDefaultRegoVersion(version)
	if compiler.Compile(map[string]*ast.Module{fileName: module}); compiler.Failed() {
		return nil, nil, compiler.Errors
	}
	return module, compiler, nil
}

// fromErrors keeps the places of errors.
func fromErrors(err error) fielderr.List {
	var found ast.Errors
	if !errors.As(err, &found) || len(found) == 0 {
		return fielderr.List{{Line: 1, Column: 1, Message: err.Error()}}
	}
	var list fielderr.List
	for _, e := range found {
		one := &fielderr.Error{Line: 1, Column: 1, Message: strings.TrimPrefix(e.Message, "unsafe: ")}
		if e.Location != nil && e.Location.Row > 0 {
			one.Line, one.Column = e.Location.Row, max(e.Location.Col, 1)
		}
		if name, ok := strings.CutPrefix(e.Message, "undefined function "); ok && slices.Contains(Forbidden, name) {
			one.Hint = "classifiers cannot reach out of the process"
		} else if ok && slices.Contains(Unbounded, name) {
			one.Hint = "nothing bounds its time and memory"
		}
		list = append(list, one)
	}
	return list
}
