// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// MostQuery is the longest query, in bytes. The time to read a deeply nested one grows with the square of its
// length, and cannot be cut short.
const MostQuery = 16 << 10

// CheckQuery says what is wrong with a query, with line and column; nil: nothing. It does not tell whether
// there are such series.
func CheckQuery(expr string) error {
	_, err := parse(expr)
	if err != nil { // a nil *Error is no nil error
		return err
	}
	return nil
}

// parse reads a query whose result can be a reading.
func parse(expr string) (parser.Expr, *Error) {
	if strings.TrimSpace(expr) == "" {
		return nil, &Error{KindInvalid, "the query is empty, want PromQL, such as sum(rate(errors_total[30s]))"}
	}
	if len(expr) > MostQuery {
		return nil, &Error{KindInvalid, fmt.Sprintf("the query has %d bytes, want at most %d", len(expr), MostQuery)}
	}
	e, err := language.ParseExpr(expr)
	if err != nil {
		return nil, &Error{KindInvalid, parseProblem(expr, err)}
	}
	if t := e.Type(); t != parser.ValueTypeScalar && t != parser.ValueTypeVector {
		return nil, wrongType(string(t))
	}
	return e, nil
}

// parseProblem says where and what.
func parseProblem(expr string, err error) string {
	var all parser.ParseErrors
	if !errors.As(err, &all) || len(all) == 0 {
		return err.Error()
	}
	at := min(max(int(all[0].PositionRange.Start), 0), len(expr))
	before := expr[:at]
	line, column := 1+strings.Count(before, "\n"), at-strings.LastIndexByte(before, '\n')
	return fmt.Sprintf("line %d, column %d: %v", line, column, all[0].Err)
}

// wrongType is the problem of a query that gives no number.
func wrongType(t string) *Error {
	hint := ""
	if t == string(parser.ValueTypeMatrix) {
		hint = ": put it into a function such as rate(...)"
	}
	return &Error{KindInvalid, fmt.Sprintf("the result is a %s, want a scalar or an instant vector%s", parser.DocumentedType(parser.ValueType(t)), hint)}
}

// enforce narrows every selector of a query to series with these labels.
func enforce(expr parser.Expr, with map[string]string) (string, error) {
	if len(with) == 0 {
		return expr.String(), nil
	}
	var matchers []*labels.Matcher
	for _, name := range slices.Sorted(maps.Keys(with)) {
		m, err := labels.NewMatcher(labels.MatchEqual, name, with[name])
		if err != nil {
			return "", err
		}
		matchers = append(matchers, m)
	}
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			v.LabelMatchers = append(v.LabelMatchers, matchers...)
		}
		return nil
	})
	return expr.String(), nil
}
