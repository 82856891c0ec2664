// SPDX-License-Identifier: Apache-2.0

package strict

import (
	"strings"

	"github.com/sluice-project/sluice/internal/fielderr"
)

// ReportInside reports a problem, of the severity that it has, for a mistake inside the text that stands here, such as a program: line and column count
// from the beginning of that text, 1-based, in characters. Where the document folds the text over lines, the problem
// has the position of the text.
func (p Place) ReportInside(line, column int, e fielderr.Error) {
	if n, ok := p.doc.nodes[p.path]; ok && n.Kind == Text {
		e.Line, e.Column = p.doc.inside(n, line, column)
	}
	p.doc.Report(p.path, e)
}

// inside finds the position in the document of a position in the text of n; 0, 0 when it cannot tell.
func (d *Document) inside(n *Node, line, column int) (int, int) {
	if n.Line < 1 || n.Line > len(d.lines) || line < 1 || column < 1 {
		return 0, 0
	}
	start := []rune(d.lines[n.Line-1])
	if n.Column < 1 || n.Column > len(start) {
		return 0, 0
	}
	source := start[n.Column-1:]
	switch source[0] {
	case '|':
		return d.insideBlock(n.Line, line, column)
	case '>':
		return 0, 0
	case '\'', '"':
		if line == 1 {
			if offset, ok := quotedOffset(source, column-1); ok {
				return n.Line, n.Column + offset
			}
		}
		return 0, 0
	}
	if line > 1 || column > len(source)+1 {
		return 0, 0
	}
	return n.Line, n.Column + column - 1
}

// insideBlock finds a position in the block of lines that follows the line of its '|', header.
func (d *Document) insideBlock(header, line, column int) (int, int) {
	indent := -1
	for _, text := range d.lines[header:] {
		if trimmed := strings.TrimLeft(text, " "); trimmed != "" {
			indent = len(text) - len(trimmed)
			break
		}
	}
	if indent < 0 || header+line > len(d.lines) {
		return 0, 0
	}
	return header + line, indent + column
}

// quotedOffset finds the character with this index in quoted text on one line: its offset from the opening quote.
func quotedOffset(source []rune, index int) (offset int, ok bool) {
	quote, at := source[0], 1
	for ; at < len(source); index-- {
		switch {
		case source[at] == quote && (quote == '"' || at+1 >= len(source) || source[at+1] != quote):
			return at, index == 0 // just behind the text
		case index == 0:
			return at, true
		case source[at] == quote:
			at += 2
		case quote == '"' && source[at] == '\\' && at+1 < len(source):
			at += escapeLength(source[at+1])
		default:
			at++
		}
	}
	return 0, false
}

// escapeLength is the length of an escape of YAML, with its backslash.
func escapeLength(kind rune) int {
	switch kind {
	case 'x':
		return 4
	case 'u':
		return 6
	case 'U':
		return 10
	}
	return 2
}
