// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// Bounds on the shape of a query, for what the engine's own bounds on time and samples do not cover.
const (
	// Reading, checking and printing a query takes time that grows with the square or the cube of its depth, and
	// cannot be stopped: a formatted query of 8,000 parentheses takes many minutes.
	mostNested    = 100   // parentheses within each other
	mostOperators = 1_000 // each may be a level of its own
	// The engine takes 16 bytes for each step of a subquery before it evaluates the first: [1y:1ms] is 500 GB.
	mostSteps = 1_000_000 // of all subqueries of a query
	// label_replace and label_join make labels longer, and one within the other makes them longer than memory.
	mostGrowth      = 100   // times the length of a label
	mostReplacement = 1_024 // bytes of text in the call
)

// bounded refuses queries that would take too much, before they take it.
type bounded struct{ parser.Parser }

// ParseExpr implements parser.Parser.
func (b bounded) ParseExpr(text string) (parser.Expr, error) {
	if err := checkDepth(text); err != nil {
		return nil, err
	}
	e, err := b.Parser.ParseExpr(text)
	if err == nil {
		err = checkSize(e, 0)
	}
	return e, err
}

// CheckRange says whether a query over a range of time takes too much; nil: it does not. Queries for one moment
// are looked at when they are parsed.
func CheckRange(q promql.Query) error {
	if s, ok := q.Statement().(*parser.EvalStmt); ok {
		return checkSize(s.Expr, s.End.Sub(s.Start))
	}
	return nil
}

// checkDepth says whether a query is too deep to be parsed. What is no query at all is for the parser to say.
func checkDepth(text string) error {
	var (
		item              parser.Item
		nested, operators int
		inBraces          bool
		lexer             = parser.Lex(text)
	)
	for {
		lexer.NextItem(&item)
		switch typ := item.Typ; {
		case typ == parser.EOF || typ == parser.ERROR:
			return nil
		case typ == parser.LEFT_BRACE || typ == parser.RIGHT_BRACE:
			inBraces = typ == parser.LEFT_BRACE
		case typ == parser.LEFT_PAREN:
			nested++
		case typ == parser.RIGHT_PAREN:
			nested--
		case typ == parser.LEFT_BRACKET || typ.IsOperator() && !inBraces:
			operators++
		}
		if nested > mostNested {
			return fmt.Errorf("more than %d parentheses within each other, at byte %d", mostNested, item.Pos)
		}
		if operators > mostOperators {
			return fmt.Errorf("more than %d operators, at byte %d: use several queries", mostOperators, item.Pos)
		}
	}
}

// checkSize says whether evaluating a query for a span of time takes more memory than its samples do.
func checkSize(e parser.Expr, span time.Duration) (err error) {
	steps := 0.0
	parser.Inspect(e, func(n parser.Node, above []parser.Node) error {
		switch n := n.(type) {
		case *parser.SubqueryExpr:
			steps += stepsOf(n, above, span)
			if steps > mostSteps {
				err = fmt.Errorf("the subqueries have more than %d steps: give them a longer step, as in [1d:1m]", mostSteps)
			}
		case *parser.Call:
			growth, text := growthOf(n)
			for _, a := range above {
				if c, ok := a.(*parser.Call); ok {
					more, _ := growthOf(c)
					growth *= more
				}
			}
			if growth > mostGrowth || text > mostReplacement {
				err = fmt.Errorf("%s makes labels %.0f times as long and has %d bytes of text, want at most %d times and %d bytes",
					n.Func.Name, growth, text, mostGrowth, mostReplacement)
			}
		}
		return err
	})
	return err
}

// stepsOf is how often the inner part of a subquery is evaluated: it covers its own range before each moment that
// is asked for, and those are the span of the query and the ranges of the subqueries around it.
func stepsOf(q *parser.SubqueryExpr, above []parser.Node, span time.Duration) float64 {
	covers, step := float64(span)+float64(q.Range), q.Step
	if step <= 0 {
		step = defaultStep
	}
	for _, a := range above {
		if outer, ok := a.(*parser.SubqueryExpr); ok {
			covers += float64(outer.Range)
		}
	}
	return covers / float64(step)
}

// growthOf is how many times as long the labels may be that a call makes, and how much text it adds.
func growthOf(c *parser.Call) (times float64, text int) {
	if c.Func.Name != "label_replace" && c.Func.Name != "label_join" {
		return 1, 0
	}
	references := 0
	for _, a := range c.Args {
		if s, ok := a.(*parser.StringLiteral); ok {
			text += len(s.Val)
			references += strings.Count(s.Val, "$")
		}
	}
	if c.Func.Name == "label_join" {
		references = len(c.Args) - 3 // without the vector, the new label and the separator
	}
	return float64(max(1, references)), text
}
