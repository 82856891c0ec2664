// SPDX-License-Identifier: Apache-2.0

// Package envoyconfig turns configurations of envoyproxy/ratelimit into policies that decide the same way when
// package rls is asked the same questions, and tells line by line where they do not.
//
// That service finds at most one limit for a descriptor: entry by entry it goes down the tree of the configuration,
// to the node with the same key and value, else to the first one of the file whose value ends in * and begins the same
// way, else to the one with the key alone; the node that it reaches with the last entry is the limit, if it has one.
// Counters are kept for each descriptor as it was sent, in windows that begin with the unit in UTC, and count what is
// denied. Here every limit of the file becomes a rate limiter whose label matcher says when that search ends at it.
package envoyconfig

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// File is one file of the configuration.
type File struct {
	Name string // as the user named it
	Text []byte
}

// Options say how to convert.
type Options struct {
	// Name of the policy; "": "ratelimit-" and the domain.
	Name string
	// ControlPoint has the flows of a domain.
	ControlPoint func(domain string) string
	// MergeDomains lets several files have the same domain.
	MergeDomains bool
}

// Policy is a policy document.
type Policy struct {
	Name string
	Text []byte
}

// Remark is something about one place of the configuration.
type Remark struct {
	File         string
	Line, Column int
	// Differs tells that the policy decides, counts or answers differently there; otherwise it is good to know.
	Differs bool
	Text    string
}

// String is "file:line:column: differs: text".
func (r Remark) String() string {
	kind := "note"
	if r.Differs {
		kind = "differs"
	}
	return fmt.Sprintf("%s:%d:%d: %s: %s", r.File, r.Line, r.Column, kind, r.Text)
}

// Result is what Convert made.
type Result struct {
	// Policies belong together; more than one only when one document would be too large.
	Policies []Policy
	// Limits is how many rate limiters they have.
	Limits int
	// Remarks by file and line.
	Remarks []Remark
}

// Differs tells whether any remark is of a difference.
func (r *Result) Differs() bool {
	return slices.ContainsFunc(r.Remarks, func(m Remark) bool { return m.Differs })
}

// ErrNoLimits is returned for configurations in which nothing is limited.
var ErrNoLimits = errors.New("there is no rate_limit in the configuration, so there is nothing to write")

// Convert makes policies of configuration files. Mistakes in them are a fielderr.List.
func Convert(files []File, o Options) (*Result, error) {
	c := converter{options: o, domains: map[string]*domain{}, out: &Result{}}
	var mistakes fielderr.List
	for i := range files {
		var list fielderr.List
		if err := c.read(&files[i]); errors.As(err, &list) {
			mistakes = append(mistakes, list...)
		} else if err != nil {
			return nil, err
		}
	}
	if len(mistakes) > 0 {
		return nil, mistakes
	}
	for _, d := range c.order {
		c.remarkNames(d)
		c.walk(d, &d.top, nil)
	}
	slices.SortStableFunc(c.out.Remarks, func(a, b Remark) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if len(c.rules) == 0 {
		return c.out, ErrNoLimits
	}
	c.out.Limits = len(c.rules)
	return c.out, c.write()
}

type converter struct {
	options Options
	domains map[string]*domain
	order   []*domain
	rules   []rule
	out     *Result
}

// domain is one domain, from one file or several.
type domain struct {
	name, point string
	mixed       bool  // other domains have the same control point
	first       *File // where it was named first
	line        int
	top         level
}

// level are the nodes among which one entry of a descriptor is looked up, in the order of the files.
type level struct {
	nodes []placed
	seen  map[string]*placed // by composite
}

// placed is a node and where it stands.
type placed struct {
	*node
	file     *File
	at       *strict.Node
	children level
}

// read adds a file.
func (c *converter) read(f *File) error {
	doc, err := strict.Parse(f.Name, f.Text)
	if err != nil {
		return err
	}
	var r root
	doc.Decode("", doc.Root, &r)
	if r.Domain != "" {
		d := c.domains[string(r.Domain)]
		switch {
		case d == nil:
			d = &domain{name: string(r.Domain), first: f, line: doc.Root.Get("domain").Line, point: c.options.ControlPoint(string(r.Domain))}
			for _, other := range c.order {
				if other.point == d.point {
					d.mixed, other.mixed = true, true
				}
			}
			c.domains[d.name], c.order = d, append(c.order, d)
		case !c.options.MergeDomains:
			doc.Report("domain", fielderr.Error{
				Message: fmt.Sprintf("domain %q is in %s, line %d, already", d.name, d.first.Name, d.line),
				Hint:    "use --merge-domains if both belong to it",
			})
		}
		d.top.add(doc, f, "descriptors", doc.Root.Get("descriptors"), r.Descriptors)
	}
	refused, warnings := doc.Problems()
	for _, w := range warnings {
		c.out.Remarks = append(c.out.Remarks, Remark{File: f.Name, Line: w.Line, Column: w.Column, Text: w.Path + ": " + w.Text()})
	}
	if len(refused) > 0 {
		return refused
	}
	return nil
}

// add adds the nodes of a list, and reports those that are there already.
func (l *level) add(doc *strict.Document, f *File, path fielderr.Path, list *strict.Node, nodes []node) {
	if list == nil || list.Kind != strict.List || len(list.Items) != len(nodes) {
		return
	}
	if l.seen == nil {
		l.seen = map[string]*placed{}
	}
	for i := range nodes {
		n := &nodes[i]
		p := &placed{node: n, file: f, at: list.Items[i]}
		if other := l.seen[n.composite()]; other != nil && n.Key != "" {
			doc.Report(path.Index(i), fielderr.Error{
				Message: fmt.Sprintf("the descriptor %q is in %s, line %d, already", n.composite(), other.file.Name, other.at.Line),
			})
			continue
		}
		l.seen[n.composite()] = p
		p.children.add(doc, f, path.Index(i).Field("descriptors"), list.Items[i].Get("descriptors"), n.Descriptors)
		l.nodes = append(l.nodes, *p)
	}
}

// remark adds a remark about a field of a node.
func (c *converter) remark(p *placed, field string, differs bool, format string, args ...any) {
	at := p.at
	for name := range strings.SplitSeq(field, ".") {
		if next := at.Get(name); next != nil {
			at = next
		}
	}
	line, column := at.KeyLine, at.KeyColumn
	if line == 0 {
		line, column = at.Line, at.Column
	}
	c.out.Remarks = append(c.out.Remarks, Remark{
		File: p.file.Name, Line: line, Column: column, Differs: differs, Text: fmt.Sprintf(format, args...),
	})
}

// remarkNames tells of keys that envoyproxy/ratelimit could mistake for another one, because it joins keys and values
// with an underscore.
func (c *converter) remarkNames(d *domain) {
	var visit func(l *level)
	visit = func(l *level) {
		keys := map[string]bool{} // true: told
		for i := range l.nodes {
			keys[string(l.nodes[i].Key)] = false
		}
		for i := range l.nodes {
			p := &l.nodes[i]
			key := string(p.Key)
			for at := 0; at < len(key) && !keys[key]; at++ {
				if _, there := keys[key[:at]]; there && key[at] == '_' {
					keys[key] = true
					c.remark(p, "key", true, "envoyproxy/ratelimit takes an entry with the key %q and a value that begins with %q for this key; here it is not",
						key[:at], key[at+1:])
				}
			}
			visit(&p.children)
		}
	}
	visit(&d.top)
}

// tooLarge is the mistake of a configuration whose policies would be larger than anybody wants to have.
func (c *converter) tooLarge(r *rule) error {
	return fielderr.List{{
		File: r.at.file.Name, Line: r.at.at.Line, Column: r.at.at.Column, Message: "too large",
		Got: "values that make conditions of more than 32 MiB", Want: "fewer values beside a key without one",
	}}
}

// finished refuses what would not be a valid policy. That is a mistake of this package.
func finished(p Policy) error {
	if _, err := policy.Parse(policy.Source{File: p.Name + ".yaml", Text: p.Text}); err != nil {
		return fmt.Errorf("the policy made of it is not valid: %w", err)
	}
	return nil
}
