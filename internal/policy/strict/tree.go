// SPDX-License-Identifier: Apache-2.0

package strict

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/sluice-project/sluice/internal/fielderr"
)

// parseTree reads text into nodes. It returns the first problem only: after one, positions are guesses.
func parseTree(text string) (root *Node, problem *fielderr.Error) {
	defer func() {
		// The text is a stranger's and the parser is not ours: a bug of it must cost this document only.
		if r := recover(); r != nil {
			root, problem = nil, &fielderr.Error{
				Line: 1, Column: 1,
				Message: fmt.Sprintf("the YAML parser failed: %v", r), Hint: "simplify the document",
			}
		}
	}()
	tokens := lexer.Tokenize(text)
	if problem := checkTokens(tokens); problem != nil {
		return nil, problem
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // the builder reports duplicates
	if err != nil {
		return nil, syntaxProblem(err)
	}
	body, problem := onlyBody(file)
	if problem != nil {
		return nil, problem
	}
	b := builder{anchors: map[string]*Node{}}
	return b.build(body, position{Line: 1, Column: 1}, 0)
}

// checkTokens bounds what the parser, which recurses and is quadratic in places, is given.
func checkTokens(tokens token.Tokens) *fielderr.Error {
	if len(tokens) > maxTokens {
		return &fielderr.Error{
			Message: "document too large", Got: fmt.Sprintf("%d tokens", len(tokens)),
			Want: fmt.Sprintf("at most %d", maxTokens), Hint: "split it into several documents",
		}
	}
	flow, line, inLine := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, inLine = t.Position.Line, 0
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType:
			inLine++
		}
		if flow > maxDepth || inLine > maxDepth {
			return tooDeep(position{t.Position.Line, t.Position.Column})
		}
	}
	return nil
}

func tooDeep(at position) *fielderr.Error {
	return &fielderr.Error{
		Line: at.Line, Column: at.Column, Message: "nested too deeply",
		Want: fmt.Sprintf("at most %d levels", maxDepth),
	}
}

func syntaxProblem(err error) *fielderr.Error {
	problem := &fielderr.Error{Line: 1, Column: 1, Message: "invalid YAML"}
	var syntax *yaml.SyntaxError
	if !errors.As(err, &syntax) {
		problem.Message += ": " + err.Error()
		return problem
	}
	problem.Message += ": " + syntax.Message
	if t := syntax.Token; t != nil && t.Position != nil {
		problem.Line, problem.Column = t.Position.Line, t.Position.Column
	}
	if strings.Contains(syntax.Message, "'\t'") {
		problem.Message = "invalid YAML: a tab at the beginning of a line"
		problem.Hint = "indent with spaces"
	}
	return problem
}

// onlyBody returns the content of a file that holds exactly one document.
func onlyBody(file *ast.File) (ast.Node, *fielderr.Error) {
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.DirectiveType {
			continue
		}
		if body != nil {
			at := doc.Body.GetToken().Position
			return nil, &fielderr.Error{
				Line: at.Line, Column: at.Column, Message: "a second document in one file",
				Hint: "put each document into its own file",
			}
		}
		body = doc.Body
	}
	if body == nil || body.Type() == ast.NullType {
		return nil, &fielderr.Error{Line: 1, Column: 1, Message: "the document is empty"}
	}
	return body, nil
}

type position struct{ Line, Column int }

// at is where a person sees n begin; the parser's token for a block mapping is its first ':'.
func at(n ast.Node) position {
	switch m := n.(type) {
	case *ast.MappingNode:
		if !m.IsFlowStyle && len(m.Values) > 0 {
			return at(m.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return at(m.Key)
	}
	p := n.GetToken().Position
	return position{max(p.Line, 1), max(p.Column, 1)}
}

// builder turns the parser's tree into nodes: aliases resolved, merge keys merged, duplicates refused.
type builder struct {
	anchors map[string]*Node
	size    int
}

// build returns the node of n, whose key stands at key. The nodes of an alias are shared, but count again.
func (b *builder) build(n ast.Node, key position, depth int) (*Node, *fielderr.Error) {
	if depth > maxDepth {
		return nil, tooDeep(key)
	}
	p := at(n)
	node := &Node{Line: p.Line, Column: p.Column, KeyLine: key.Line, KeyColumn: key.Column, size: 1}
	switch n := n.(type) {
	case *ast.NullNode:
		node.Kind = Null
		return node, b.count(1, p)
	case *ast.BoolNode:
		node.Kind, node.Text = Bool, strings.ToLower(n.Token.Value)
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		node.Kind, node.Text = Number, n.GetToken().Value
	case *ast.StringNode:
		node.Kind, node.Text = Text, n.Value
	case *ast.LiteralNode:
		node.Kind, node.Text = Text, n.Value.Value
	case *ast.AnchorNode:
		return b.anchor(n, key, depth)
	case *ast.AliasNode:
		return b.alias(n)
	case *ast.SequenceNode:
		return b.list(node, n, depth)
	case *ast.MappingNode:
		return b.mapping(node, n.Values, depth)
	case *ast.MappingValueNode:
		return b.mapping(node, []*ast.MappingValueNode{n}, depth)
	case *ast.TagNode:
		return nil, &fielderr.Error{
			Line: p.Line, Column: p.Column, Got: "the YAML tag " + n.Start.Value,
			Want: "a plain value", Hint: "leave the tag out; quote a value to make it text",
		}
	default:
		return nil, &fielderr.Error{Line: p.Line, Column: p.Column, Message: "a kind of YAML that documents here do not use"}
	}
	return node, b.count(1, p)
}

func (b *builder) count(nodes int, at position) *fielderr.Error {
	if b.size += nodes; b.size > maxNodes {
		return &fielderr.Error{
			Line: at.Line, Column: at.Column, Message: "document too large",
			Want: fmt.Sprintf("at most %d values, aliases expanded", maxNodes),
		}
	}
	return nil
}

func (b *builder) anchor(n *ast.AnchorNode, key position, depth int) (*Node, *fielderr.Error) {
	name := n.Name.GetToken().Value
	b.anchors[name] = nil // an alias inside its own anchor has no end
	node, problem := b.build(n.Value, key, depth+1)
	b.anchors[name] = node
	return node, problem
}

func (b *builder) alias(n *ast.AliasNode) (*Node, *fielderr.Error) {
	name, p := n.Value.GetToken().Value, at(n)
	node, known := b.anchors[name]
	switch {
	case !known:
		return nil, &fielderr.Error{Line: p.Line, Column: p.Column, Got: "*" + name, Want: "an alias of an anchor defined above"}
	case node == nil:
		return nil, &fielderr.Error{
			Line: p.Line, Column: p.Column, Got: "*" + name + " inside its own anchor",
			Want: "an alias of an anchor that ends before it",
		}
	}
	return node, b.count(node.size, p)
}

func (b *builder) list(node *Node, n *ast.SequenceNode, depth int) (*Node, *fielderr.Error) {
	node.Kind = List
	for _, value := range n.Values {
		item, problem := b.build(value, at(value), depth+1)
		if problem != nil {
			return nil, problem
		}
		node.Items = append(node.Items, item)
		node.size += item.size
	}
	return node, b.count(1, position{node.Line, node.Column})
}

func (b *builder) mapping(node *Node, values []*ast.MappingValueNode, depth int) (*Node, *fielderr.Error) {
	node.Kind = Map
	var merged []*Node
	lines := map[string]int{} // where each key was first seen
	for _, v := range values {
		if v.Key.Type() == ast.MergeKeyType {
			source, problem := b.build(v.Value, at(v.Key), depth+1)
			if problem == nil {
				merged, problem = appendMerged(merged, source)
			}
			if problem != nil {
				return nil, problem
			}
			node.size += source.size
			continue
		}
		key, p, problem := keyText(v.Key)
		if problem != nil {
			return nil, problem
		}
		value, problem := b.build(v.Value, p, depth+1)
		if problem != nil {
			return nil, problem
		}
		if first, ok := lines[key]; ok {
			node.duplicates = append(node.duplicates, duplicateKey{key, first, p})
			continue
		}
		lines[key] = p.Line
		node.Members = append(node.Members, Member{Key: key, Line: p.Line, Column: p.Column, Value: value})
		node.size += value.size
	}
	mergeInto(node, lines, merged)
	return node, b.count(1, position{node.Line, node.Column})
}

func keyText(n ast.Node) (string, position, *fielderr.Error) {
	if k, ok := n.(*ast.MappingKeyNode); ok {
		n = k.Value
	}
	switch n.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, at(n), nil
	}
	p := at(n)
	return "", p, &fielderr.Error{Line: p.Line, Column: p.Column, Message: "a key that is not plain text"}
}

// appendMerged collects what "<<" names: a mapping or a list of mappings.
func appendMerged(merged []*Node, source *Node) ([]*Node, *fielderr.Error) {
	sources := []*Node{source}
	if source.Kind == List {
		sources = source.Items
	}
	for _, s := range sources {
		if s.Kind != Map {
			return nil, &fielderr.Error{Line: source.Line, Column: source.Column, Got: s.Describe(), Want: `a mapping after "<<"`}
		}
	}
	return append(merged, sources...), nil
}

// mergeInto adds the members of sources whose keys are not in seen; the first source wins.
func mergeInto(node *Node, seen map[string]int, sources []*Node) {
	for _, s := range sources {
		for _, m := range s.Members {
			if _, ok := seen[m.Key]; !ok {
				seen[m.Key] = m.Line
				node.Members = append(node.Members, m)
			}
		}
	}
}
