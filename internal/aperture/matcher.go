// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"

	languagev1 "github.com/sluice-project/sluice/api/gen/aperture/policy/language/v1"
	"github.com/sluice-project/sluice/internal/label"
)

// mostNested bounds how deep an expression of a matcher may be.
const mostNested = 50

// matcher translates a label matcher: all its parts must match; nil matches everything.
func matcher(m *languagev1.LabelMatcher) (label.Expr, error) {
	var all []label.Expr
	for _, key := range slices.Sorted(maps.Keys(m.GetMatchLabels())) {
		all = append(all, label.Equal(key, m.MatchLabels[key]))
	}
	requirements := m.GetMatchList()
	if len(requirements) == 0 {
		requirements = m.GetMatchExpressions()
	}
	for _, r := range requirements {
		e, err := label.Require(r.GetKey(), r.GetOperator(), r.GetValues())
		if err != nil {
			return label.Expr{}, err
		}
		all = append(all, e)
	}
	if m.GetExpression() != nil {
		e, err := expression(m.Expression, 0)
		if err != nil {
			return label.Expr{}, err
		}
		all = append(all, e)
	}
	return label.And(all...), nil
}

func expression(e *languagev1.Expression, depth int) (label.Expr, error) {
	if depth > mostNested {
		return label.Expr{}, fmt.Errorf("the expression is nested more than %d levels deep", mostNested)
	}
	switch v := e.GetVariant().(type) {
	case *languagev1.Expression_Not:
		sub, err := expression(v.Not, depth+1)
		return label.Negate(sub), err
	case *languagev1.Expression_All:
		return operands(label.All, v.All, depth)
	case *languagev1.Expression_Any:
		return operands(label.Any, v.Any, depth)
	case *languagev1.Expression_LabelExists:
		return label.Expr{Op: label.Exists, Key: v.LabelExists}, nil
	case *languagev1.Expression_LabelEquals:
		return label.Equal(v.LabelEquals.GetLabel(), v.LabelEquals.GetValue()), nil
	case *languagev1.Expression_LabelMatches:
		re, err := regexp.Compile(v.LabelMatches.GetRegex())
		if err != nil {
			return label.Expr{}, fmt.Errorf("label_matches: %w", err)
		}
		return label.Expr{Op: label.Match, Key: v.LabelMatches.GetLabel(), Regex: re}, nil
	}
	return label.Expr{}, errors.New("empty expression, want one of not, all, any, label_exists, label_equals, label_matches")
}

func operands(op label.Op, list *languagev1.Expression_List, depth int) (label.Expr, error) {
	out := label.Expr{Op: op}
	for _, e := range list.GetOf() {
		sub, err := expression(e, depth+1)
		if err != nil {
			return label.Expr{}, err
		}
		out.Of = append(out.Of, sub)
	}
	return out, nil
}
