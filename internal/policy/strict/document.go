// SPDX-License-Identifier: Apache-2.0

// Package strict reads YAML documents into tagged Go structs and forgives nothing: unknown keys, wrong
// types, values out of range and missing fields are all reported at once, each with its line, column and
// path (package fielderr).
//
// The structs are the language. Their tags say what a document may hold, and are read by the decoder here
// as well as by the generators of JSON Schemas and of the reference, so the three cannot disagree:
//
//	json:"name"          the key; options of encoding/json are ignored
//	default:"yaml"       the value when the key is absent or null. For a struct it is a mapping that
//	                     supplies members the document leaves out. An explicit zero or false is kept.
//	check:"rule,rule"    required (present, and not empty for text, lists and mappings), nonempty, name,
//	                     regexp, oneof=a b c, gt=x, gte=x, lt=x, lte=x
//	union:"group"        at most one field of the group may be present; union:"group,required" exactly one
//	deprecated:"text"    presence gives a warning that says text
//
// Rules that tags cannot express are methods: see Checker. JSON is read as the YAML it is.
package strict

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/sluice-project/sluice/internal/fielderr"
)

// The bounds of a document. They keep the cost of reading hostile text to a second or so (the YAML parser
// is quadratic in places) and are far from what people write: 200 components make about 60 KiB and 10,000
// tokens.
const (
	MaxBytes  = 1 << 20 // size of the text
	maxTokens = 30_000  // keys, values and punctuation
	maxDepth  = 100     // nesting of lists and mappings
	maxNodes  = 100_000 // values after aliases are expanded
	maxErrors = 100     // problems reported of one document
)

// Document is a parsed YAML document and the problems found in it so far. It is not safe for concurrent
// use.
type Document struct {
	File string // as the user named it; may be empty
	Root *Node  // never nil after Parse succeeded

	lines []string
	nodes map[fielderr.Path]*Node // every node that was decoded, for the positions of later problems
	found fielderr.List
	full  bool // maxErrors was reached
}

// Parse reads one YAML or JSON document. The error is a fielderr.List with one problem: text that cannot
// be read as YAML leaves nothing else to check. text is not kept.
func Parse(file string, text []byte) (*Document, error) {
	d := &Document{File: file, nodes: map[fielderr.Path]*Node{}}
	if problem := d.parse(text); problem != nil {
		problem.File = file
		problem.Excerpt = fielderr.Excerpt(d.lines, problem.Line, problem.Column)
		return nil, fielderr.List{problem}
	}
	return d, nil
}

func (d *Document) parse(text []byte) *fielderr.Error {
	if len(text) > MaxBytes {
		return &fielderr.Error{
			Message: "document too large", Got: fmt.Sprintf("%d bytes", len(text)),
			Want: fmt.Sprintf("at most %d", MaxBytes), Hint: "split it into several documents",
		}
	}
	s := strings.TrimPrefix(strings.ReplaceAll(string(text), "\r\n", "\n"), "\uFEFF")
	d.lines = strings.Split(s, "\n")
	if problem := checkText(d.lines); problem != nil {
		return problem
	}
	root, problem := parseTree(s)
	d.Root = root
	return problem
}

// checkText refuses bytes that YAML does not allow, before the parser sees them.
func checkText(lines []string) *fielderr.Error {
	for i, line := range lines {
		if !utf8.ValidString(line) {
			return &fielderr.Error{Line: i + 1, Column: 1, Message: "not valid UTF-8 text", Hint: "save the file as UTF-8"}
		}
		for j, r := range []rune(line) {
			if r < ' ' && r != '\t' || r == 0x7F {
				return &fielderr.Error{
					Line: i + 1, Column: j + 1, Got: fmt.Sprintf("control character U+%04X", r),
					Want: "printable text",
				}
			}
		}
	}
	return nil
}

// Report adds a problem at the field path. File, Line, Column and Excerpt are filled in when they are not
// set: with the position of the field or, when the document does not hold it, of what it would be in.
func (d *Document) Report(path fielderr.Path, e fielderr.Error) {
	node := d.find(path)
	d.reportAt(path, node.Line, node.Column, e)
}

// ReportAbsence is Report for a field that is not there: it points at the key of what it would be in.
func (d *Document) ReportAbsence(parent fielderr.Path, field string, e fielderr.Error) {
	node := d.find(parent)
	d.reportAt(parent.Field(field), node.KeyLine, node.KeyColumn, e)
}

func (d *Document) reportAt(path fielderr.Path, line, column int, e fielderr.Error) {
	if d.full && e.Severity == fielderr.Refused {
		return
	}
	e.File, e.Path, e.Got = d.File, clip(path.String()), clip(e.Got)
	e.Message, e.Hint = clip(e.Message), clip(e.Hint)
	if e.Line == 0 {
		e.Line, e.Column = line, column
	}
	e.Excerpt = fielderr.Excerpt(d.lines, e.Line, e.Column)
	d.found = append(d.found, &e)
	if len(d.found) == maxErrors {
		d.full = true
		d.found = append(d.found, &fielderr.Error{
			File: d.File, Line: len(d.lines), Column: 1,
			Message: fmt.Sprintf("more than %d problems; the rest is not shown", maxErrors),
		})
	}
}

// maxWords bounds each part of a problem: keys and values in it are as long as their author likes.
const maxWords = 600

func clip(s string) string {
	if len(s) <= maxWords {
		return s
	}
	return strings.ToValidUTF8(s[:maxWords], "") + "…"
}

// find returns the node at path, or the nearest one around it.
func (d *Document) find(path fielderr.Path) *Node {
	for path != "" {
		if n, ok := d.nodes[path]; ok {
			return n
		}
		path = path[:max(strings.LastIndexAny(string(path), ".["), 0)]
	}
	return d.Root
}

// Problems returns what was reported so far, in the order of the document: what refuses the document, and
// warnings apart.
func (d *Document) Problems() (refused, warnings fielderr.List) {
	for _, e := range d.found {
		if e.Severity == fielderr.Warning {
			warnings = append(warnings, e)
		} else {
			refused = append(refused, e)
		}
	}
	refused.Sort()
	warnings.Sort()
	return refused, warnings
}
