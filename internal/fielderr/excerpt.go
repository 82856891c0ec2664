// SPDX-License-Identifier: Apache-2.0

package fielderr

import (
	"fmt"
	"strings"
)

// excerptWidth is how many characters of a long line an excerpt shows.
const excerptWidth = 120

// Excerpt shows line (1-based) of a document split into lines, with a caret below column (1-based, in
// characters). Of a long line it shows the part around the column. A line outside the document gives "".
func Excerpt(lines []string, line, column int) string {
	if line < 1 || line > len(lines) {
		return ""
	}
	text := []rune(strings.TrimRight(strings.ToValidUTF8(lines[line-1], "\uFFFD"), "\r\n"))
	at := min(max(column-1, 0), len(text))
	from := 0
	if len(text) > excerptWidth {
		from = min(max(at-excerptWidth/2, 0), len(text)-excerptWidth)
		text = text[from : from+excerptWidth]
	}
	var indent strings.Builder
	for _, r := range text[:at-from] {
		if r != '\t' { // a tab below a tab keeps the caret in line
			r = ' '
		}
		indent.WriteRune(r)
	}
	return fmt.Sprintf("%5d | %s\n      | %s^", line, string(text), indent.String())
}
