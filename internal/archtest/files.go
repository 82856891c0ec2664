// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"strings"
)

const licence = "// SPDX-License-Identifier: Apache-2.0\n\n"

// findPackageComment finds packages that do not say what they are for. A package that is generated as a
// whole says it in its source.
func findPackageComment(r *Repo) []string {
	var found []string
	for _, p := range r.Packages {
		written, good := "", false
		for _, f := range p.Files {
			if f.Generated {
				continue
			}
			written = f.Syntax.Name.Name
			doc := f.Syntax.Doc.Text()
			good = good || doc != "" && (written == "main" || strings.HasPrefix(doc, "Package "+written+" "))
		}
		if written != "" && !good {
			found = append(found, fmt.Sprintf("%s: no package comment: start one of its files with "+
				"\"// Package %s \" and one sentence that says what it is for", p.Dir, written))
		}
	}
	return found
}

// findLicence finds files written by hand that do not start with the licence and a blank line. Without
// the blank line it would be part of the package comment.
func findLicence(r *Repo) []string {
	return r.eachFile(func(p *Package, f *File) []string {
		if f.Generated || bytes.HasPrefix(f.Source, []byte(licence)) {
			return nil
		}
		return []string{fmt.Sprintf("%s:1: must start with %q and a blank line", f.Path, strings.TrimSpace(licence))}
	})
}

// findInit finds init functions, which run before anybody can pass them a setting and in an order nobody
// reads. Programs and tests may have them.
func findInit(r *Repo) []string {
	return r.eachFile(func(_ *Package, f *File) (found []string) {
		if f.Generated || f.Test || f.Syntax.Name.Name == "main" {
			return nil
		}
		for _, d := range f.Syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				found = append(found, r.at(fn, "no init functions: let a constructor do it, or a plain table"))
			}
		}
		return found
	})
}

// findSleep finds tests that wait for real time. A file that imports testing/synctest may sleep: in a
// bubble that is how virtual time passes. Tests of real binaries, and measurements, may too.
func findSleep(r *Repo) []string {
	return r.eachFile(func(p *Package, f *File) (found []string) {
		l, _ := layerOf(p.Dir)
		if !f.Test || l.dir == "test" || l.dir == "bench" || f.nameOf("testing/synctest") != "" {
			return nil
		}
		f.uses("time", []string{"Sleep"}, func(n ast.Node, _ string) {
			found = append(found, r.at(n, "no time.Sleep in tests: test what waits in a bubble of testing/synctest"))
		})
		return found
	})
}

func (r *Repo) eachFile(check func(*Package, *File) []string) []string {
	var found []string
	for _, p := range r.Packages {
		for _, f := range p.Files {
			found = append(found, check(p, f)...)
		}
	}
	return found
}
