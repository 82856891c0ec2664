// SPDX-License-Identifier: Apache-2.0

// Package fielderr describes mistakes in documents people write: which file, line, column and field, what
// was found, what was expected, and what was probably meant.
//
// Readers of documents collect every mistake in a List before they give up, so that one run shows all of
// them. Everything here is a plain value: no type is safe for concurrent modification, all are safe for
// concurrent reading.
package fielderr

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity tells whether a problem refuses a document.
type Severity uint8

// The severities. Zero refuses, so that a forgotten severity never lets a mistake through.
const (
	Refused Severity = iota // the document is refused
	Warning                 // the document is used; the author should know
)

// Error is one problem at one place of a document. Every field is optional; Error prints what is set.
type Error struct {
	File     string   // as the user named it; empty when the document came without a file
	Line     int      // 1-based; 0 when unknown
	Column   int      // 1-based, in characters; 0 when unknown
	Path     string   // the field, such as circuit.components[2].ema.parameters
	Got      string   // what was found, ready to print
	Want     string   // what would be right, ready to print
	Message  string   // the problem in words, when "got …, want …" does not say it
	Hint     string   // what to do, such as did you mean "interval"?
	Excerpt  string   // the line of the document with a caret below the place; see Excerpt
	Severity Severity // zero refuses the document
}

// Error prints the problem on one line: "file:line:col: path: message; got X, want Y; hint".
func (e *Error) Error() string {
	var b strings.Builder
	if at := e.position(); at != "" {
		b.WriteString(at + ": ")
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	if e.Severity == Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(e.Text())
	return b.String()
}

// Text is the problem without its place: "message; got X, want Y; hint".
func (e *Error) Text() string {
	parts := make([]string, 0, 3)
	if e.Message != "" {
		parts = append(parts, e.Message)
	}
	switch {
	case e.Got != "" && e.Want != "":
		parts = append(parts, "got "+e.Got+", want "+e.Want)
	case e.Got != "":
		parts = append(parts, "got "+e.Got)
	case e.Want != "":
		parts = append(parts, "want "+e.Want)
	}
	if e.Hint != "" {
		parts = append(parts, e.Hint)
	}
	return strings.Join(parts, "; ")
}

func (e *Error) position() string {
	switch {
	case e.Line == 0:
		return e.File
	case e.File == "":
		return fmt.Sprintf("%d:%d", e.Line, e.Column)
	}
	return fmt.Sprintf("%s:%d:%d", e.File, e.Line, e.Column)
}

// List is every problem found in one document. A nil List means none. Return it through Err: a nil List
// in an error interface is not a nil error.
type List []*Error

// Error prints one problem per line.
func (l List) Error() string {
	lines := make([]string, len(l))
	for i, e := range l {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Pretty prints every problem followed by its excerpt, for a terminal. It ends with a newline unless the
// list is empty.
func (l List) Pretty() string {
	var b strings.Builder
	for _, e := range l {
		b.WriteString(e.Error() + "\n")
		if e.Excerpt != "" {
			b.WriteString(e.Excerpt + "\n")
		}
	}
	return b.String()
}

// Unwrap lets errors.As find the single problems.
func (l List) Unwrap() []error {
	errs := make([]error, len(l))
	for i, e := range l {
		errs[i] = e
	}
	return errs
}

// Err returns the list as an error, or nil when nothing in it refuses the document.
func (l List) Err() error {
	if !slices.ContainsFunc(l, func(e *Error) bool { return e.Severity == Refused }) {
		return nil
	}
	return l
}

// Sort orders the problems by file, line and column; problems at one place keep their order.
func (l List) Sort() {
	slices.SortStableFunc(l, func(a, b *Error) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
