// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// dependencies is the document with a line of reason for every direct dependency.
const dependencies = "docs/dependencies.md"

// Module is what the rules need to know of a go.mod.
type Module struct {
	Dir    string // relative to the repository, "." for its root
	Path   string
	Direct []string // paths of the modules it requires without "// indirect"
}

// readModule reads the module line and the direct requirements of a go.mod, which the go command keeps
// in its canonical form: one module a line, a block for each verb.
func readModule(files fs.FS, p string) (Module, error) {
	source, err := fs.ReadFile(files, p)
	if err != nil {
		return Module{}, err
	}
	m := Module{Dir: path.Dir(p)}
	eachDirective(string(source), func(_ int, verb string, args []string, comment string) {
		switch {
		case verb == "module" && len(args) == 1:
			m.Path = args[0]
		case verb == "require" && len(args) == 2 && comment != "indirect":
			m.Direct = append(m.Direct, args[0])
		}
	})
	if m.Path == "" {
		return m, fmt.Errorf("%s: no module line", p)
	}
	return m, nil
}

// eachDirective calls do for every directive of a go.mod or go.work, one by one also when they stand in
// a block.
func eachDirective(source string, do func(line int, verb string, args []string, comment string)) {
	block, line := "", 0
	for text := range strings.Lines(source) {
		line++
		code, comment, _ := strings.Cut(text, "//")
		words := strings.Fields(code)
		switch {
		case len(words) == 0:
		case words[0] == ")":
			block = ""
		case len(words) == 2 && words[1] == "(":
			block = words[0]
		case block != "":
			do(line, block, words, strings.TrimSpace(comment))
		default:
			do(line, words[0], words[1:], strings.TrimSpace(comment))
		}
	}
}

// findReplace finds replace directives: they hold only in our own workspace, so that whoever installs the
// server or imports the SDK builds something else than we tested.
func findReplace(r *Repo) []string {
	var found []string
	paths := r.workspace
	for _, m := range r.Modules {
		paths = append(paths, path.Join(m.Dir, "go.mod"))
	}
	for _, p := range paths {
		source, err := fs.ReadFile(r.files, p)
		if err != nil {
			found = append(found, err.Error())
			continue
		}
		eachDirective(string(source), func(line int, verb string, _ []string, _ string) {
			if verb == "replace" {
				found = append(found, fmt.Sprintf("%s:%d: no replace: require a version that can be downloaded", p, line))
			}
		})
	}
	return found
}

// dependencyRow matches a line of the table: | `module` | reason |.
var dependencyRow = regexp.MustCompile("(?m)^\\| `([^`]+)` +\\| *(.*?) *\\|$")

// findDependencies finds direct dependencies without a reason, and reasons for none.
func findDependencies(r *Repo) []string {
	source, err := fs.ReadFile(r.files, dependencies)
	if err != nil {
		return []string{err.Error()}
	}
	reasons := map[string]string{}
	for _, row := range dependencyRow.FindAllStringSubmatch(string(source), -1) {
		reasons[row[1]] = row[2]
	}
	var found []string
	required := map[string]bool{}
	for _, m := range r.Modules {
		for _, d := range m.Direct {
			required[d] = true
			if reasons[d] == "" {
				found = append(found, fmt.Sprintf("%s: %s has no reason: add \"| `%s` | why we need it |\" to %s",
					path.Join(m.Dir, "go.mod"), d, d, dependencies))
			}
		}
	}
	for _, row := range dependencyRow.FindAllStringSubmatch(string(source), -1) {
		if !required[row[1]] {
			found = append(found, fmt.Sprintf("%s: no module requires %s directly: remove its line", dependencies, row[1]))
		}
	}
	return found
}
