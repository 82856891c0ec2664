// SPDX-License-Identifier: Apache-2.0

package document

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// memStore is a Store in memory whose next Append can be made to fail.
type memStore struct {
	mu       sync.Mutex
	versions map[string][]Version // oldest first
	fail     error                // of the next Append
	failLate bool                 // the failing Append happens all the same
}

func newMemStore() *memStore { return &memStore{versions: map[string][]Version{}} }

func (s *memStore) Append(_ context.Context, v Version, keep int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fail, late := s.fail, s.failLate
	s.fail, s.failLate = nil, false
	if fail != nil && !late {
		return fail
	}
	list := s.versions[v.Name]
	var newest int64
	if len(list) > 0 {
		newest = list[len(list)-1].Version
	}
	if newest != v.Version-1 {
		return &ConflictError{Name: v.Name, Expected: v.Version - 1, Actual: newest}
	}
	list = slices.Clone(list)
	for i := range list {
		if list[i].State == StateActive {
			list[i].State = StateSuperseded
		}
	}
	v.Components, v.Limiters = nil, slices.Clone(v.Limiters)
	list = append(list, v)
	s.versions[v.Name] = list[max(0, len(list)-keep):]
	return fail
}

func (s *memStore) Active(context.Context) iter.Seq2[Version, error] {
	return func(yield func(Version, error) bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, name := range slices.Sorted(maps.Keys(s.versions)) {
			list := s.versions[name]
			if v := list[len(list)-1]; v.State == StateActive && !yield(v, nil) {
				return
			}
		}
	}
}

func (s *memStore) Get(_ context.Context, name string, version int64) (Version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.versions[name]
	if version == 0 && len(list) > 0 {
		return list[len(list)-1], nil
	}
	for _, v := range list {
		if v.Version == version {
			return v, nil
		}
	}
	return Version{}, ErrNotFound
}

func (s *memStore) List(_ context.Context, name string, before int64, limit int) ([]Version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Version
	for _, v := range slices.Backward(s.versions[name]) {
		if (before == 0 || v.Version < before) && len(out) < limit {
			v.Document = ""
			out = append(out, v)
		}
	}
	return out, nil
}

func (s *memStore) Close() error { return nil }

// lines compiles a toy language, one statement on each line: "name N", "limiter KIND KEY CONTENT",
// "fail MESSAGE", "warn MESSAGE". A document without a name takes that of its source.
type lines struct{ salt string }

func (c lines) Compile(s Source) (*Compiled, error) {
	name := s.Name
	if name == "" && s.File != "" {
		name = strings.TrimSuffix(filepath.Base(s.File), filepath.Ext(s.File))
	}
	out := &Compiled{Name: name, Hash: fmt.Sprintf("%x", sha256.Sum256([]byte(c.salt+string(s.Text)))), Blueprint: s.Blueprint}
	var problems []Problem
	for i, line := range strings.Split(string(s.Text), "\n") {
		words := strings.SplitN(strings.TrimSpace(line), " ", 4)
		switch {
		case words[0] == "name":
			out.Name = words[1]
		case words[0] == "limiter" && len(words) == 4:
			id := fmt.Sprintf("root.%d", len(out.Limiters))
			out.Components = append(out.Components, Component{ID: id, Kind: words[1], Status: "running"})
			out.Limiters = append(out.Limiters, LimiterRef{Component: id, Kind: words[1], Key: words[2], ContentHash: words[3]})
		case words[0] == "warn":
			out.Warnings = append(out.Warnings, Problem{Line: i + 1, Message: line, Warning: true})
		case words[0] == "crash":
			return nil, errors.New("not a list of problems")
		case line != "":
			problems = append(problems, Problem{Line: i + 1, Column: 1, Path: words[0], Message: "unknown statement"})
		}
	}
	if problems != nil {
		return nil, fmt.Errorf("compile: %w", Invalid(problems...))
	}
	return out, nil
}

// recorder is a Publisher that remembers what is in force.
type recorder struct {
	mu                  sync.Mutex
	set                 []*Compiled
	published           int
	failCheck, failNext error         // failNext: of the next Publish
	changed             chan struct{} // nil: nobody waits
}

func (r *recorder) Check([]*Compiled) error { return r.failCheck }

func (r *recorder) Publish(set []*Compiled) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.failNext; err != nil {
		r.failNext = nil
		return err
	}
	r.set, r.published = slices.Clone(set), r.published+1
	if r.changed != nil {
		select {
		case r.changed <- struct{}{}:
		default:
		}
	}
	return nil
}

// running is what is in force, as "name@version".
func (r *recorder) running() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, c := range r.set {
		out = append(out, fmt.Sprintf("%s@%d", c.Name, c.Version))
	}
	return strings.Join(out, " ")
}

func (r *recorder) limiters(name string) []LimiterRef {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.set {
		if c.Name == name {
			return c.Limiters
		}
	}
	return nil
}

// bench is a catalog with everything around it.
type bench struct {
	*Catalog
	store     *memStore
	publisher *recorder
}

func newBench(t *testing.T, adjust ...func(*Config)) *bench {
	t.Helper()
	b := &bench{store: newMemStore(), publisher: &recorder{}}
	b.restart(t, adjust...)
	return b
}

// restart makes a new catalog on the same store.
func (b *bench) restart(t *testing.T, adjust ...func(*Config)) {
	t.Helper()
	if err := b.tryRestart(t, adjust...); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) tryRestart(t *testing.T, adjust ...func(*Config)) error {
	t.Helper()
	b.publisher = &recorder{}
	config := Config{Store: b.store, Compiler: lines{}, Publisher: b.publisher}
	for _, f := range adjust {
		f(&config)
	}
	var err error
	if b.Catalog, err = NewCatalog(config); err != nil {
		t.Fatal(err)
	}
	return b.Load(t.Context())
}

func apply(text string) ApplyRequest {
	return ApplyRequest{Source: Source{Text: []byte(text)}, Author: "ada", Comment: "why not", Origin: OriginAPI}
}

func (b *bench) mustApply(t *testing.T, text string) ApplyResult {
	t.Helper()
	out, err := b.Apply(t.Context(), apply(text))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (b *bench) expectRunning(t *testing.T, want string) {
	t.Helper()
	if got := b.publisher.running(); got != want {
		t.Errorf("in force: got %q, want %q", got, want)
	}
}

func expectError(t *testing.T, err, want error, words ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("got error %q, want it to say %q", err, word)
		}
	}
}
