// SPDX-License-Identifier: Apache-2.0

package envoyconfig

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-project/sluice/internal/rls/descriptor"
)

// rule is one limit of the configuration and when it applies.
type rule struct {
	domain *domain
	at     *placed
	path   []step
	// account is the label by whose values requests are counted; "": all together.
	account string
	// shadow tells that it never denies.
	shadow bool
}

// step is how one entry of a descriptor comes to a node.
type step struct {
	node  *placed
	level *level
}

// walk makes a rule of every limit at a level and below.
func (c *converter) walk(d *domain, l *level, path []step) {
	for i := range l.nodes {
		p := &l.nodes[i]
		here := append(slices.Clip(path), step{p, l})
		if strings.HasSuffix(string(p.Key), "*") && p.Value == "" {
			c.remark(p, "key", true, "envoyproxy/ratelimit takes this for a beginning of keys; that is not converted, and what is below it neither")
			continue
		}
		if p.RateLimit != nil {
			c.limit(d, p, here)
		}
		for _, f := range []struct {
			name string
			set  truth
		}{{"detailed_metric", p.DetailedMetric}, {"value_to_metric", p.ValueToMetric}} {
			if f.set {
				c.remark(p, f.name, false, "%s names statistics of envoyproxy/ratelimit; Sluice counts by limiter and account", f.name)
			}
		}
		c.walk(d, &p.children, here)
	}
}

// limit makes a rule of a node with a limit.
func (c *converter) limit(d *domain, p *placed, path []step) {
	l := p.RateLimit
	for _, r := range l.Replaces {
		if name := c.replaced(d, r.Name); name != nil {
			c.remark(p, "rate_limit.replaces", true,
				"replaces: a request with descriptors of both limits is counted by both here; there, not by %q (line %d)", string(r.Name), name.at.Line)
		}
	}
	if l.Unlimited {
		return // that nothing else applies is in the conditions of the others
	}
	r := rule{domain: d, at: p, path: path, account: descriptor.LabelDescriptor}
	for _, f := range []struct {
		name string
		set  truth
	}{{"shadow_mode", p.ShadowMode}, {"quota_mode", p.QuotaMode}} {
		if f.set {
			r.shadow = true
			c.remark(p, f.name, true, "%s: admits everything, as there, but does not count or tell what it would have denied; "+
				"take pass_through out of the rate limiter to enforce it", f.name)
		}
	}
	c.shared(&r)
	c.rules = append(c.rules, r)
}

// replaced finds a limit of a domain by name.
func (c *converter) replaced(d *domain, name text) *placed {
	var find func(l *level) *placed
	find = func(l *level) *placed {
		for i := range l.nodes {
			p := &l.nodes[i]
			if p.RateLimit != nil && p.RateLimit.Name == name {
				return p
			}
			if found := find(&p.children); found != nil {
				return found
			}
		}
		return nil
	}
	return find(&d.top)
}

// shared finds the account where values that begin the same way share a counter.
func (c *converter) shared(r *rule) {
	sharing := -1
	var apart []int // entries whose values are counted apart, from 1
	for i, s := range r.path {
		switch n := s.node; {
		case bool(n.ShareThreshold):
			sharing = i
		case n.Value == "" || n.wildcard():
			apart = append(apart, i+1)
		}
	}
	if sharing < 0 {
		return
	}
	switch len(apart) {
	case 0:
		r.account = ""
	case 1:
		r.account = descriptor.LabelValue(apart[0])
	default:
		c.remark(r.path[sharing].node, "share_threshold", true,
			"share_threshold: with more than one other entry of any value, each value that begins with %q is counted on its own here",
			strings.TrimSuffix(string(r.path[sharing].node.Value), "*"))
	}
}

// fixed is the text of the descriptor, if the rule applies to just one.
func (r *rule) fixed() (string, bool) {
	var b []byte
	for i, s := range r.path {
		if s.node.Value == "" || s.node.wildcard() {
			return "", false
		}
		b = descriptor.AppendEntry(b, i == 0, string(s.node.Key), string(s.node.Value))
	}
	return string(b), true
}

// keys is the list of keys of the descriptors that the rule applies to.
func (r *rule) keys() string {
	var b []byte
	for i, s := range r.path {
		b = descriptor.AppendKey(b, i == 0, string(s.node.Key))
	}
	return string(b)
}

// condition is a condition on the value of one entry.
type condition struct {
	label string
	// equal, if exact is set.
	exact bool
	equal string
	// begin is how it has to begin; "": any way.
	begin string
	// literal is a value that matches whatever else is said, "": none. (Written out, a value with a star is found
	// like any other.)
	literal string
	// not are values and notBegin beginnings of other nodes.
	not, notBegin []string
}

// condition says when the entry at a place comes to the node of the path.
func (r *rule) condition(place int) condition {
	s := r.path[place]
	n := s.node
	c := condition{label: descriptor.LabelValue(place + 1)}
	if n.Value != "" && !n.wildcard() {
		c.exact, c.equal = true, string(n.Value)
		return c
	}
	c.begin = strings.TrimSuffix(string(n.Value), "*")
	before := true // of the nodes that are tried earlier
	for i := range s.level.nodes {
		o := s.level.nodes[i].node
		if o == n.node {
			before = false
			continue
		}
		if o.Key != n.Key || o.Value == "" {
			continue
		}
		begin := strings.TrimSuffix(string(o.Value), "*")
		if strings.HasPrefix(string(o.Value), c.begin) && (n.Value != "" || !o.wildcard()) {
			c.not = append(c.not, string(o.Value)) // also of wildcards: written out, they are found first
		}
		if o.wildcard() && (n.Value == "" || before) && (strings.HasPrefix(begin, c.begin) || strings.HasPrefix(c.begin, begin)) {
			c.notBegin = append(c.notBegin, begin)
		}
	}
	c.simplify(string(n.Value))
	return c
}

// simplify leaves out what other parts of a condition imply. value is that of the node.
func (c *condition) simplify(value string) {
	slices.Sort(c.notBegin) // beginnings of others come before them
	begins := c.notBegin[:0]
	for _, b := range c.notBegin {
		if last := len(begins) - 1; last < 0 || !strings.HasPrefix(b, begins[last]) {
			begins = append(begins, b)
		}
	}
	c.notBegin = begins
	excluded := func(s string) bool {
		return slices.ContainsFunc(begins, func(b string) bool { return strings.HasPrefix(s, b) })
	}
	c.not = slices.DeleteFunc(c.not, excluded)
	switch {
	case value == "" || !excluded(value):
	case excluded(c.begin): // others take everything but the value itself
		c.exact, c.equal = true, value
	default:
		c.literal = value
	}
}

// beginning is a regular expression for texts that begin in one of some ways.
func beginning(with ...string) string {
	quoted := make([]string, len(with))
	for i, w := range with {
		quoted[i] = regexp.QuoteMeta(w)
	}
	if len(quoted) == 1 {
		return "^" + quoted[0]
	}
	return "^(" + strings.Join(quoted, "|") + ")"
}

// String describes the rule: shop: path=/login, remote_address=*: 10 per minute.
func (r *rule) String() string {
	parts := make([]string, len(r.path))
	for i, s := range r.path {
		value := string(s.node.Value)
		if value == "" {
			value = "(any)"
		}
		parts[i] = string(s.node.Key) + "=" + value
	}
	l := r.at.RateLimit
	return fmt.Sprintf("%s: %s: %d per %s", r.domain.name, strings.Join(parts, ", "), l.RequestsPerUnit, strings.ToLower(string(l.Unit)))
}
