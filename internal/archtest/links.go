// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

var (
	// link matches the target of [text](target), ![text](target), either with a title, and [name]: target.
	link = regexp.MustCompile(`\]\(<?([^()\s<>]+)>?(?:\s+"[^"]*")?\)|^\s{0,3}\[[^\]]+\]:\s+<?(\S+?)>?(?:\s|$)`)
	// code matches a piece of code in a line.
	code = regexp.MustCompile("``.*?``|`[^`]*`")
	// outside matches targets that are not files of ours.
	outside = regexp.MustCompile(`^([a-zA-Z][a-zA-Z0-9+.-]*:|//|#)`)
)

// findLinks finds links in documents to files that do not exist. It checks neither places within a file
// nor other sites.
func findLinks(r *Repo) []string {
	var found []string
	for _, doc := range r.markdown {
		source, err := fs.ReadFile(r.files, doc)
		if err != nil {
			found = append(found, err.Error())
			continue
		}
		line, fence := 0, ""
		for text := range strings.Lines(string(source)) {
			line++
			if fence = nextFence(fence, text); fence != "" {
				continue
			}
			for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(text, ""), -1) {
				if target := m[1] + m[2]; !r.resolves(doc, target) {
					found = append(found, fmt.Sprintf("%s:%d: no such file: %s", doc, line, target))
				}
			}
		}
	}
	return found
}

// nextFence returns the fence of the block of code that is open after a line, "" for none.
func nextFence(open, line string) string {
	trimmed := strings.TrimSpace(line)
	marks := trimmed[:len(trimmed)-len(strings.TrimLeft(trimmed, trimmed[:min(1, len(trimmed))]))]
	isFence := len(marks) >= 3 && (marks[0] == '`' || marks[0] == '~')
	switch {
	case open == "" && isFence:
		return marks
	case isFence && strings.HasPrefix(marks, open) && marks == trimmed:
		return ""
	}
	return open
}

func (r *Repo) resolves(doc, target string) bool {
	if outside.MatchString(target) {
		return true
	}
	file, _, _ := strings.Cut(target, "#")
	dir := path.Dir(doc)
	if strings.HasPrefix(file, "/") {
		dir = "."
	}
	_, err := fs.Stat(r.files, path.Join(dir, file))
	return err == nil
}
