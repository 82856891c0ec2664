// SPDX-License-Identifier: Apache-2.0

package envoyconfig

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"github.com/sluice-project/sluice/internal/policy/strict"
	"github.com/sluice-project/sluice/internal/rls/descriptor"
)

// Bounds of one policy, far enough below those of documents.
const (
	mostBytes  = strict.MaxBytes / 2
	mostTokens = 15_000 // counted generously, see tokens
	mostOutput = 32 << 20
)

// write makes the policies of the rules.
func (c *converter) write() error {
	var parts [][]byte
	var part bytes.Buffer
	weight, total := 0, 0
	for i := range c.rules {
		text := c.rules[i].component()
		if total += len(text); total > mostOutput {
			return c.tooLarge(&c.rules[i])
		}
		if n := tokens(text); part.Len() > 0 && (part.Len()+len(text) > mostBytes || weight+n > mostTokens) {
			parts = append(parts, bytes.Clone(part.Bytes()))
			part.Reset()
			weight = 0
		}
		part.Write(text)
		weight += tokens(text)
	}
	parts = append(parts, part.Bytes())
	for i, components := range parts {
		name := c.name()
		if len(parts) > 1 {
			name = fmt.Sprintf("%s-%d", name, i+1)
		}
		p := Policy{name, fmt.Appendf(c.heading(), "policy_name: %s\ncircuit:\n  components:\n%s", quote(name), components)}
		if err := finished(p); err != nil {
			return err
		}
		c.out.Policies = append(c.out.Policies, p)
	}
	return nil
}

// tokens is about how many tokens of YAML a text has, and not less.
func tokens(text []byte) int {
	n := 0
	for _, sign := range []string{": ", ":\n", ", ", "[", "]", "{", "}", "- "} {
		n += bytes.Count(text, []byte(sign))
	}
	return 2 * n
}

func (c *converter) heading() []byte {
	var b []byte
	for _, d := range c.order {
		b = fmt.Appendf(b, "# From %s, of envoyproxy/ratelimit: the domain %s is the control point %s.\n",
			comment(d.first.Name), comment(d.name), comment(d.point))
	}
	return b
}

var notInName = regexp.MustCompile(`[^-a-z0-9.]+`)

// name is the name of the policy, or what its parts have in common.
func (c *converter) name() string {
	if c.options.Name != "" {
		return c.options.Name
	}
	const most = 60 // leaves room for the number of a part
	name := "ratelimit"
	if len(c.order) == 1 {
		name += "-" + notInName.ReplaceAllString(strings.ToLower(c.order[0].name), "-")
	}
	return strings.Trim(name[:min(len(name), most)], "-.")
}

// component writes a rate limiter as an item of a list.
func (r *rule) component() []byte {
	l := r.at.RateLimit
	var b []byte
	line := func(indent int, format string, args ...any) {
		b = append(b, strings.Repeat(" ", indent)...)
		b = append(fmt.Appendf(b, format, args...), '\n')
	}
	line(4, "# %s:%d: %s", comment(r.at.file.Name), r.at.at.Line, comment(r.String()))
	line(4, "- flow_control:")
	line(8, "rate_limiter:")
	line(10, "in_ports:")
	line(12, "bucket_capacity: {constant_signal: {value: %d}}", l.RequestsPerUnit)
	line(12, "fill_amount: {constant_signal: {value: %d}}", l.RequestsPerUnit)
	if r.shadow {
		line(12, "pass_through: {constant_signal: {value: 1}}")
	}
	line(10, "parameters:")
	line(12, "interval: %ds", seconds[strings.ToLower(string(l.Unit))])
	line(12, "fixed_window: true")
	line(12, "count_denied: true")
	if r.account != "" {
		line(12, "limit_by_label_key: %s", r.account)
	}
	line(10, "request_parameters:")
	line(12, "tokens_label_key: %s", descriptor.LabelHits)
	line(10, "selectors:")
	line(12, "- control_point: %s", quote(r.domain.point))
	line(14, "label_matcher:")
	r.matcher(line)
	return b
}

// matcher writes the conditions under which the rule applies.
func (r *rule) matcher(line func(indent int, format string, args ...any)) {
	in := func(label, operator string, values ...string) {
		quoted := make([]string, len(values))
		for i, v := range values {
			quoted[i] = quote(v)
		}
		line(18, "- {key: %s, operator: %s, values: [%s]}", label, operator, strings.Join(quoted, ", "))
	}
	exact, others, whole := r.conditions()
	if len(exact) > 0 { // limiters are found by these
		line(16, "match_labels:")
	}
	for _, c := range exact {
		line(18, "%s: %s", c.label, quote(c.equal))
	}
	if !whole || r.domain.mixed {
		line(16, "match_list:")
	}
	if !whole {
		in(descriptor.LabelKeys, "In", r.keys())
	}
	if r.domain.mixed {
		in(descriptor.LabelDomain, "In", r.domain.name)
	}
	var of []string
	for i := range others {
		c := &others[i]
		if c.literal == "" && len(c.not) > 0 {
			in(c.label, "NotIn", c.not...)
			c.not = nil
		}
		if text := c.expression(); text != "" {
			of = append(of, text)
		}
	}
	switch len(of) {
	case 0:
	case 1:
		line(16, "expression: %s", of[0])
	default:
		line(16, "expression: {all: {of: [%s]}}", strings.Join(of, ", "))
	}
}

// conditions are those of all entries, the exact ones apart; or one of the whole descriptor.
func (r *rule) conditions() (exact, others []condition, whole bool) {
	if text, ok := r.fixed(); ok {
		return []condition{{label: descriptor.LabelDescriptor, exact: true, equal: text}}, nil, true
	}
	for i := range r.path {
		if c := r.condition(i); c.exact {
			exact = append(exact, c)
		} else {
			others = append(others, c)
		}
	}
	return exact, others, false
}

// expression writes a condition that is not exact, in one line; "" when every value will do.
func (c *condition) expression() string {
	var all []string
	matches := func(regex string) string {
		return fmt.Sprintf("{label_matches: {label: %s, regex: %s}}", c.label, quote(regex))
	}
	if c.begin != "" {
		all = append(all, matches(beginning(c.begin)))
	}
	if len(c.notBegin) > 0 {
		all = append(all, fmt.Sprintf("{not: %s}", matches(beginning(c.notBegin...))))
	}
	for _, value := range c.not {
		all = append(all, fmt.Sprintf("{not: {label_equals: {label: %s, value: %s}}}", c.label, quote(value)))
	}
	text := ""
	switch len(all) {
	case 0:
	case 1:
		text = all[0]
	default:
		text = fmt.Sprintf("{all: {of: [%s]}}", strings.Join(all, ", "))
	}
	if c.literal != "" {
		text = fmt.Sprintf("{any: {of: [{label_equals: {label: %s, value: %s}}, %s]}}", c.label, quote(c.literal), text)
	}
	return text
}

// quote writes text as JSON does, which YAML reads.
func quote(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return `""` // text always can be written
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// comment makes text fit into one line of a comment.
func comment(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '·'
		}
		return r
	}, s)
}
