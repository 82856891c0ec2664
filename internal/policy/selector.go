// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// Selector says which flows a component applies to. A component takes a list of them and applies once to
// a flow that any of them selects.
type Selector struct {
	// Control point that the flow names, such as a feature of your code or "ingress".
	ControlPoint string `json:"control_point" check:"required"`
	// Group of servers the selector is for. A server that is in no group (agent_group of its configuration) takes part in
	// every one.
	AgentGroup string `json:"agent_group" default:"default"`
	// Service the flow is for, compared as it is; "any" selects every flow, also those without a service.
	Service string `json:"service" default:"any"`
	// Conditions on the labels of the flow. Absent selects every flow.
	LabelMatcher *LabelMatcher `json:"label_matcher,omitempty"`
}

// LabelMatcher is a list of conditions on the labels of a flow, all of which have to hold. Without any it
// matches every flow.
type LabelMatcher struct {
	// Labels and the values they must have.
	MatchLabels map[string]string `json:"match_labels,omitempty"`
	// Old name of match_list, used only when match_list is empty.
	MatchExpressions []MatchRequirement `json:"match_expressions,omitempty" deprecated:"use match_list"`
	// A boolean expression that must be true.
	Expression *Expression `json:"expression,omitempty"`
	// Requirements on single labels.
	MatchList []MatchRequirement `json:"match_list,omitempty"`
}

// Requirements are the requirements that apply: match_list, or the old match_expressions.
func (m LabelMatcher) Requirements() []MatchRequirement {
	if len(m.MatchList) > 0 {
		return m.MatchList
	}
	return m.MatchExpressions
}

// MatchRequirement is a condition on one label.
type MatchRequirement struct {
	// Label to look at.
	Key string `json:"key" check:"required"`
	// In: the label is present with one of the values. NotIn: it is not, so an absent label matches. Exists
	// and DoesNotExist look at presence alone.
	Operator string `json:"operator" check:"required,oneof=In NotIn Exists DoesNotExist"`
	// Values for In and NotIn.
	Values []string `json:"values,omitempty"`
}

var _ strict.Checker = (*MatchRequirement)(nil)

// Check refuses values where the operator takes none, and none where it needs some.
func (m *MatchRequirement) Check(at strict.Place) {
	switch m.Operator {
	case "In", "NotIn":
		if len(m.Values) == 0 && !at.Present("values") {
			at.RefuseAbsence("values", fielderr.Error{Message: "missing", Want: "the values for operator " + m.Operator})
		} else if len(m.Values) == 0 {
			at.Field("values").Refuse(fielderr.Error{Got: "an empty list", Want: "the values for operator " + m.Operator})
		}
	case "Exists", "DoesNotExist":
		if len(m.Values) > 0 {
			at.Field("values").Refuse(fielderr.Error{Want: "no values for operator " + m.Operator})
		}
	}
}

// Expression is a boolean expression over labels. A label that is absent neither exists, nor equals, nor
// matches anything.
type Expression struct {
	// True when the expression is false.
	Not *Expression `json:"not,omitempty" union:"variant,required"`
	// True when every expression of the list is; true when the list is empty.
	All *ExpressionList `json:"all,omitempty" union:"variant"`
	// True when some expression of the list is; false when the list is empty.
	Any *ExpressionList `json:"any,omitempty" union:"variant"`
	// True when the flow has this label.
	LabelExists string `json:"label_exists,omitempty" union:"variant" check:"nonempty"`
	// True when the label has the value.
	LabelEquals *EqualsExpression `json:"label_equals,omitempty" union:"variant"`
	// True when the regular expression finds a match in the label.
	LabelMatches *MatchesExpression `json:"label_matches,omitempty" union:"variant"`
	// A condition in the Common Expression Language, such as labels.tier == "gold" && int(labels.size) > 10. What
	// reads an absent label is false.
	CEL string `json:"cel,omitempty" union:"variant" check:"nonempty"`
}

// ExpressionList is the operands of all and any.
type ExpressionList struct {
	// The expressions.
	Of []Expression `json:"of,omitempty"`
}

// EqualsExpression compares a label with a value.
type EqualsExpression struct {
	// Label to look at.
	Label string `json:"label" check:"required"`
	// Value it must have.
	Value string `json:"value"`
}

// MatchesExpression looks for a regular expression in a label.
type MatchesExpression struct {
	// Label to look at.
	Label string `json:"label" check:"required"`
	// RE2 expression. It may match anywhere; write ^ and $ to match the whole value. Of a very long value only the
	// beginning is looked at, as if it ended there: 4096 bytes at least, and the more the simpler the expression is.
	Regex string `json:"regex" check:"required,regexp"`
}
