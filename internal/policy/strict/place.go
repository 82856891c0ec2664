// SPDX-License-Identifier: Apache-2.0

package strict

import (
	"slices"
	"strings"

	"github.com/sluice-project/sluice/internal/fielderr"
)

// Place is where in a document a struct was decoded from; Check methods report problems to it.
type Place struct {
	doc  *Document
	path fielderr.Path
}

// At returns a place in d. Code that checks a whole document after it was decoded uses it.
func (d *Document) At(path fielderr.Path) Place { return Place{d, path} }

// Field is the place of a member.
func (p Place) Field(name string) Place { return Place{p.doc, p.path.Field(name)} }

// Index is the place of a list item.
func (p Place) Index(i int) Place { return Place{p.doc, p.path.Index(i)} }

// Present tells whether the document holds a value for a member; its default does not count, except when a
// default of the whole struct supplies it.
func (p Place) Present(name string) bool { return p.doc.nodes[p.path].Get(name) != nil }

// Clean tells whether nothing was refused here or below so far.
func (p Place) Clean() bool {
	return !slices.ContainsFunc(p.doc.found, func(e *fielderr.Error) bool {
		return e.Severity == fielderr.Refused && strings.HasPrefix(e.Path, p.path.String())
	})
}

// Refuse reports a problem here. Got is taken from the document when it, Message and Want leave it open.
func (p Place) Refuse(e fielderr.Error) {
	if n, ok := p.doc.nodes[p.path]; ok && e.Got == "" && e.Message == "" {
		e.Got = n.Describe()
	}
	p.doc.Report(p.path, e)
}

// RefuseAbsence reports that a member is missing here.
func (p Place) RefuseAbsence(name string, e fielderr.Error) { p.doc.ReportAbsence(p.path, name, e) }

// RefuseKey is Refuse with the position of the key that names this place, not of its value.
func (p Place) RefuseKey(e fielderr.Error) {
	if n, ok := p.doc.nodes[p.path]; ok {
		e.Line, e.Column = n.KeyLine, n.KeyColumn
	}
	p.doc.Report(p.path, e)
}

// Warn reports something the author should know that does not refuse the document.
func (p Place) Warn(e fielderr.Error) {
	e.Severity = fielderr.Warning
	p.doc.Report(p.path, e)
}
