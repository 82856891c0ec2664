// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"fmt"
	"go/ast"
	"strings"
)

// impure maps what pure packages must not import, with everything below it, to what they do instead.
var impure = map[string]string{
	"context":     "code that waits belongs in a layer above",
	"net":         "the packages of level 4 talk to the network",
	"os":          "take the bytes as an argument",
	"syscall":     "take the bytes as an argument",
	"log":         "return what is worth saying, the caller logs it",
	"math/rand":   "take the number as an argument, so that a test can repeat it",
	"crypto/rand": "take the bytes as an argument, so that a test can repeat them",
}

// clocks are the functions of package time that read or run a clock.
var clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// findPure finds imports and clocks in the packages of the two lowest levels. That they have none is what
// lets the same code run in the server, in virtual time and in the simulator. Their tests are free.
func findPure(r *Repo) []string {
	var found []string
	for _, p := range r.Packages {
		l, ok := layerOf(p.Dir)
		if !ok || l.level > pureLevel || !strings.HasPrefix(l.dir, "internal/") || testsOnly(p.Dir) {
			continue
		}
		for _, f := range p.Files {
			if !f.Test && f.Syntax.Name.Name != "main" {
				found = append(found, r.impurities(f)...)
			}
		}
	}
	return found
}

func (r *Repo) impurities(f *File) []string {
	var found []string
	for _, spec := range f.Syntax.Imports {
		pkg := importPath(spec)
		for prefix, instead := range impure {
			if pkg == prefix || strings.HasPrefix(pkg, prefix+"/") {
				found = append(found, r.at(spec, "a pure package must not import %s: %s", pkg, instead))
			}
		}
	}
	if f.nameOf("time") == "." {
		found = append(found, fmt.Sprintf("%s: import time by its name, so that uses of a clock can be found", f.Path))
	}
	f.uses("time", clocks, func(n ast.Node, name string) {
		found = append(found, r.at(n, "a pure package must not use time.%s: take the time as an argument", name))
	})
	return found
}
