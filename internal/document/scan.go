// SPDX-License-Identifier: Apache-2.0

package document

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// file is what is known of one file of the directory.
type file struct {
	sum    [sha256.Size]byte // of its content, when it was applied
	policy string            // that it defines
}

// scan is one look at the directory.
type scan struct {
	w        *Watch
	managed  map[string]Version // policies that came from the directory, by name
	files    map[string]file    // good files, by name in the directory
	broken   map[string]bool    // files that are there but could not be used
	owners   map[string]string  // the file of every policy defined
	problems []Problem
}

// Scan makes the catalog equal to the directory once. It returns an error if the directory itself
// cannot be read, in which case nothing changes, or if ctx ends; everything else is in Problems.
func (w *Watch) Scan(ctx context.Context) error {
	w.scanning.Lock()
	defer w.scanning.Unlock()
	if w.started.IsZero() {
		w.started = time.Now()
	}
	names, err := policyFiles(w.config.Dir)
	if err != nil {
		w.report([]Problem{{File: w.config.Dir, Message: fmt.Sprintf(
			"the policy directory cannot be read, so its policies stay as they are: %v", err)}})
		return fmt.Errorf("read the policy directory %s: %w", w.config.Dir, err)
	}
	s := &scan{
		w: w, managed: w.config.Catalog.fromDir(), files: map[string]file{},
		broken: map[string]bool{}, owners: map[string]string{},
	}
	for _, name := range names {
		if err := s.apply(ctx, name); err != nil {
			s.broken[name] = true
			s.addProblems(name, err)
		}
		if ctx.Err() != nil { // what was not looked at must not count as gone
			return ctx.Err()
		}
	}
	w.sawFile = w.sawFile || len(names) > 0
	s.deleteGone(ctx)
	w.files = s.files
	w.report(s.problems)
	return ctx.Err()
}

// policyFiles lists the names of policy files in a directory, sorted. A link that leads nowhere is
// listed: its file may be about to come.
func policyFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err // even with some entries: a part of the list would read as deletions
	}
	var names []string
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if !strings.HasPrefix(e.Name(), ".") && !e.IsDir() && !IsTest(e.Name()) && slices.Contains([]string{".yaml", ".yml", ".json"}, ext) {
			names = append(names, e.Name())
		}
	}
	return names, nil // ReadDir sorts
}

// IsTest reports whether a file is a test of a policy by its name: checkout_test.yaml and checkout.test.yml
// may lie beside checkout.yaml and are no policies.
func IsTest(name string) bool {
	base := strings.TrimSuffix(strings.TrimSuffix(name, ".yaml"), ".yml")
	return base != name && (strings.HasSuffix(base, "_test") || strings.HasSuffix(base, ".test"))
}

// apply puts the policy of one file into force.
func (s *scan) apply(ctx context.Context, name string) error {
	path := filepath.Join(s.w.config.Dir, name)
	text, err := readFile(path, s.w.config.Catalog.config.MaxDocumentBytes+1)
	if err != nil {
		return err
	}
	now := file{sum: sha256.Sum256(text)}
	before := s.w.files[name]
	if running, ok := s.managed[before.policy]; ok && before.sum == now.sum && running.File == path {
		return s.own(before, name)
	}
	request := ApplyRequest{
		Source: Source{File: path, Text: text}, // the compiler falls back to the file for a name
		Author: "policy directory", Comment: "file " + name, Origin: OriginDir,
	}
	catalog := s.w.config.Catalog
	compiled, err := catalog.compile(request.Source)
	if err != nil {
		catalog.countError(request)
		return err
	}
	now.policy = compiled.Name
	if err := s.own(now, name); err != nil {
		catalog.countError(request)
		return err
	}
	if _, err := catalog.apply(ctx, request, compiled); err != nil {
		delete(s.files, name)
		return err
	}
	return nil
}

// own notes that a good file defines a policy, unless another does.
func (s *scan) own(f file, name string) error {
	if first, taken := s.owners[f.policy]; taken {
		return fmt.Errorf("policy %q is defined by %s already: rename the policy or remove one of %s and %s; %s is used until then",
			f.policy, first, first, name, first)
	}
	s.owners[f.policy], s.files[name] = name, f
	return nil
}

// deleteGone deletes the policies whose file is gone, or defines another policy now.
func (s *scan) deleteGone(ctx context.Context) {
	w, waiting := s.w, 0
	for name, v := range s.managed {
		if _, defined := s.owners[name]; defined || s.broken[filepath.Base(v.File)] {
			continue
		}
		if !w.sawFile && time.Since(w.started) < w.config.EmptyGrace {
			waiting++
			continue
		}
		_, err := w.config.Catalog.Delete(ctx, DeleteRequest{
			Name: name, Author: "policy directory", Origin: OriginDir,
			Comment:         "file " + filepath.Base(v.File) + " is gone or defines another policy",
			ExpectedVersion: v.Version,
		})
		if err != nil && !errors.Is(err, ErrNotFound) {
			s.addProblems(filepath.Base(v.File), fmt.Errorf("delete policy %q: %w", name, err))
		}
	}
	if waiting > 0 {
		s.problems = append(s.problems, Problem{File: w.config.Dir, Warning: true, Message: fmt.Sprintf(
			"the policy directory is empty since the start; %d policies from an earlier run are deleted if it stays so for %v: mount it or put a policy into it to keep them",
			waiting, w.config.EmptyGrace)})
	}
}

func (s *scan) addProblems(name string, err error) {
	s.problems = append(s.problems, asInvalid(filepath.Join(s.w.config.Dir, name), err).Problems...)
}

// report publishes the problems and logs those that are new.
func (w *Watch) report(problems []Problem) {
	w.mu.Lock()
	before := w.problems
	w.problems = problems
	w.mu.Unlock()
	w.config.Catalog.metrics.dirProblems.Set(float64(len(problems)))
	for _, p := range problems {
		if !slices.Contains(before, p) {
			w.log.Error("policy file refused; what ran before keeps running", "file", p.File, "line", p.Line,
				"column", p.Column, "path", p.Path, "problem", p.Message)
		}
	}
	if len(problems) == 0 && len(before) > 0 {
		w.log.Info("the policy directory has no problems any more", "dir", w.config.Dir)
	}
}

// fromDir lists the policies in force that came from the policy directory.
func (c *Catalog) fromDir() map[string]Version {
	out := map[string]Version{}
	for name, p := range c.current().byName {
		if p.head.Source == OriginDir {
			out[name] = p.head
		}
	}
	return out
}

// readFile reads at most limit bytes of a regular file, following links.
func readFile(path string, limit int) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for its writer
		return nil, fmt.Errorf("got a %v, want a regular file", info.Mode().Type())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, int64(limit)))
}
