// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Repo is the parsed repository. It does not change after Load.
type Repo struct {
	// Modules are the Go modules, by folder.
	Modules []Module
	// Packages are the folders with Go files, by folder.
	Packages []*Package

	files     fs.FS
	fset      *token.FileSet
	markdown  []string // paths of the documents: those of the root, of docs, and every README.md
	workspace []string // paths of the go.work files
}

// Package is a folder with Go files, those of its external tests included.
type Package struct {
	Dir   string // relative to the repository, "." for its root
	Files []*File
}

// File is one Go file.
type File struct {
	Path      string // relative to the repository
	Source    []byte
	Syntax    *ast.File
	Test      bool // its name ends in _test.go
	Generated bool // it says "Code generated ... DO NOT EDIT."
}

// Load parses every Go file, go.mod, go.work and document below the root of files. It skips what is not
// ours or not compiled: hidden folders, testdata, node_modules, and the bin, dist and data of the root.
func Load(files fs.FS) (*Repo, error) {
	r := &Repo{files: files, fset: token.NewFileSet()}
	err := fs.WalkDir(files, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && skipped(p):
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		return r.add(p)
	})
	if err != nil {
		return nil, fmt.Errorf("read the repository: %w", err)
	}
	slices.SortFunc(r.Packages, func(a, b *Package) int { return strings.Compare(a.Dir, b.Dir) })
	return r, nil
}

func skipped(dir string) bool {
	name := path.Base(dir)
	return name == "testdata" || name == "node_modules" || name != "." && name[0] == '.' ||
		slices.Contains([]string{"bin", "dist", "data"}, dir)
}

func (r *Repo) add(p string) error {
	switch name := path.Base(p); {
	case name == "go.mod":
		m, err := readModule(r.files, p)
		r.Modules = append(r.Modules, m)
		return err
	case name == "go.work":
		r.workspace = append(r.workspace, p)
	case name == "README.md", path.Ext(name) == ".md" && (!strings.Contains(p, "/") || strings.HasPrefix(p, "docs/")):
		r.markdown = append(r.markdown, p)
	case path.Ext(name) == ".go":
		return r.addGo(p)
	}
	return nil
}

func (r *Repo) addGo(p string) error {
	source, err := fs.ReadFile(r.files, p)
	if err != nil {
		return err
	}
	syntax, err := parser.ParseFile(r.fset, p, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	dir := path.Dir(p)
	i := slices.IndexFunc(r.Packages, func(q *Package) bool { return q.Dir == dir })
	if i < 0 {
		i = len(r.Packages)
		r.Packages = append(r.Packages, &Package{Dir: dir})
	}
	r.Packages[i].Files = append(r.Packages[i].Files, &File{
		Path: p, Source: source, Syntax: syntax,
		Test: strings.HasSuffix(p, "_test.go"), Generated: ast.IsGenerated(syntax),
	})
	return nil
}

// dirOf returns the folder of the package with an import path, false when it is not one of ours.
func (r *Repo) dirOf(importPath string) (string, bool) {
	best, dir := "", ""
	for _, m := range r.Modules {
		rest, ok := strings.CutPrefix(importPath, m.Path)
		if ok && (rest == "" || rest[0] == '/') && len(m.Path) > len(best) {
			best, dir = m.Path, path.Join(m.Dir, rest)
		}
	}
	return dir, best != ""
}

// at puts the place of a node before a finding.
func (r *Repo) at(n ast.Node, format string, args ...any) string {
	p := r.fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d: ", p.Filename, p.Line) + fmt.Sprintf(format, args...)
}

// importPath returns what an import imports.
func importPath(spec *ast.ImportSpec) string {
	p, _ := strconv.Unquote(spec.Path.Value) // the parser has checked it
	return p
}

// nameOf returns the name a file uses for an imported package, "" when it does not import it.
func (f *File) nameOf(pkg string) string {
	for _, spec := range f.Syntax.Imports {
		if importPath(spec) != pkg {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path.Base(pkg)
	}
	return ""
}

// uses calls found for every mention of one of the names of an imported package, called or not. It goes
// by the name the file imports the package under and does not see a variable that hides that name.
func (f *File) uses(pkg string, names []string, found func(n ast.Node, name string)) {
	local := f.nameOf(pkg)
	if local == "" {
		return
	}
	ast.Inspect(f.Syntax, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && slices.Contains(names, sel.Sel.Name) {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == local {
				found(n, sel.Sel.Name)
			}
		}
		return true
	})
}
