// SPDX-License-Identifier: Apache-2.0

package document

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

func TestApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		r := apply("name a\nlimiter rate user x\nwarn odd")
		r.Source.File, r.Source.Blueprint = "a.yaml", "rate-limiting/base"
		got, err := b.Apply(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		want := Version{
			Name: "a", Version: 1, Hash: got.Version.Hash, Blueprint: "rate-limiting/base",
			Author: "ada", Comment: "why not", Source: OriginAPI, File: "a.yaml", State: StateActive,
			CreateTime: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
			Limiters:   []LimiterRef{{Component: "root.0", Kind: "rate", Key: "user", ContentHash: "x", UID: got.Version.Limiters[0].UID}},
			Components: []Component{{ID: "root.0", Kind: "rate", Status: "running"}},
		}
		if diff := cmp.Diff(want, got.Version); diff != "" {
			t.Errorf("version (-want +got):\n%s", diff)
		}
		if got.Change != Created || len(got.Warnings) != 1 {
			t.Errorf("got %s with warnings %v, want created with one", got.Change, got.Warnings)
		}
		if b.publisher.limiters("a")[0].UID != got.Version.Limiters[0].UID {
			t.Error("the publisher did not get the identities")
		}
		want.Document = string(r.Source.Text)
		for _, version := range []int64{0, 1} {
			read, err := b.Get(t.Context(), "a", version)
			if diff := cmp.Diff(want, read); err != nil || diff != "" {
				t.Errorf("get: %v (-want +got):\n%s", err, diff)
			}
		}
	})
}

func TestLifeOfAPolicy(t *testing.T) {
	b := newBench(t)
	for _, step := range []struct {
		text   string
		change Change
		inv    string
	}{
		{"name a\nlimiter rate user x", Created, "a@1"},
		{"name b", Created, "a@1 b@1"},
		{"name a\nlimiter rate user x", Unchanged, "a@1 b@1"},
		{"name a\nlimiter rate user y", Updated, "a@2 b@1"},
	} {
		if got := b.mustApply(t, step.text); got.Change != step.change {
			t.Errorf("%q: got %s, want %s", step.text, got.Change, step.change)
		}
		b.expectRunning(t, step.inv)
	}
	deleted, err := b.Delete(t.Context(), DeleteRequest{Name: "a", Author: "bob", Comment: "gone", Origin: OriginAPI})
	if err != nil || deleted.State != StateDeleted || deleted.Version != 3 || deleted.Author != "bob" || deleted.Document != "" {
		t.Errorf("delete: got %+v, %v", deleted, err)
	}
	b.expectRunning(t, "b@1")
	if got := b.mustApply(t, "name a\nlimiter rate user y"); got.Change != Created || got.Version.Version != 4 {
		t.Errorf("after the deletion: got %s version %d, want created version 4", got.Change, got.Version.Version)
	}
	uid := b.publisher.limiters("a")[0].UID
	first, err := b.Get(t.Context(), "a", 1)
	if err != nil || first.Limiters[0].UID != uid {
		t.Errorf("the accounts of version 1 did not survive edit, deletion and return: %v, %v", first.Limiters, err)
	}
	b.restart(t)
	b.expectRunning(t, "a@4 b@1")
	if got := b.publisher.limiters("a")[0].UID; got != uid {
		t.Errorf("after a restart: got UID %d, want %d", got, uid)
	}
}

// TestRefusedChangesNothing breaks every step of a change.
func TestRefusedChangesNothing(t *testing.T) {
	boom := errors.New("boom")
	good := apply("name a\nlimiter rate user y")
	with := func(f func(*ApplyRequest)) ApplyRequest { r := good; f(&r); return r }
	for _, test := range []struct {
		name    string
		harm    func(*bench)
		request ApplyRequest
		want    error
		words   []string
	}{
		{
			"mistakes", nil, with(func(r *ApplyRequest) { r.Source = Source{File: "f.yaml", Text: []byte("name a\nx 1\ny 2")} }), ErrInvalid,
			[]string{"f.yaml:2:1: x: unknown", "f.yaml:3:1: y: unknown"},
		},
		{"other error of the compiler", nil, apply("crash"), ErrInvalid, []string{"not a list"}},
		{"empty", nil, apply(" \n\t"), ErrInvalid, []string{"empty"}},
		{"too large", nil, apply("name a\n" + strings.Repeat("\n", 1000)), ErrInvalid, []string{"1007 bytes", "at most 1000"}},
		{"no name", nil, apply("limiter rate user x"), ErrInvalid, []string{"name: got \"\""}},
		{"bad name", nil, apply("name a\x00b"), ErrInvalid, []string{"printable"}},
		{"bad author", nil, with(func(r *ApplyRequest) { r.Author = "\xff" }), ErrInvalid, []string{"author"}},
		{"long comment", nil, with(func(r *ApplyRequest) { r.Comment = strings.Repeat("x", 5000) }), ErrInvalid, []string{"5000"}},
		{"no origin", nil, with(func(r *ApplyRequest) { r.Origin = "" }), ErrInvalid, []string{"source"}},
		{"conflict", nil, with(func(r *ApplyRequest) { r.ExpectedVersion = 7 }), ErrVersionConflict, []string{"at version 1", "version 7"}},
		{"conflict of a new one", nil, with(func(r *ApplyRequest) { r.Source.Text, r.ExpectedVersion = []byte("name n"), 1 }), ErrVersionConflict, []string{"does not exist"}},
		{"negative version", nil, with(func(r *ApplyRequest) { r.ExpectedVersion = -1 }), ErrInvalid, nil},
		{"too many", nil, apply("name c"), ErrTooMany, []string{"max_policies"}},
		{"publisher refuses", func(b *bench) { b.publisher.failCheck = boom }, good, ErrRefused, []string{"boom"}},
		{"store fails", func(b *bench) { b.store.fail = boom }, good, ErrStore, []string{"boom", "keeps running"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t, func(c *Config) { c.MaxDocumentBytes, c.MaxPolicies = 1000, 2 })
			b.mustApply(t, "name a\nlimiter rate user x")
			b.mustApply(t, "name b")
			published := b.publisher.published
			if test.harm != nil {
				test.harm(b)
			}
			_, err := b.Apply(t.Context(), test.request)
			expectError(t, err, test.want, test.words...)
			b.expectRunning(t, "a@1 b@1")
			if b.publisher.published != published {
				t.Error("something was published")
			}
			if head, err := b.store.Get(t.Context(), "a", 0); err != nil || head.Version != 1 {
				t.Errorf("stored: got version %d, %v, want 1", head.Version, err)
			}
			b.publisher.failCheck = nil
			b.mustApply(t, "name a\nlimiter rate user z")
			b.expectRunning(t, "a@2 b@1")
		})
	}
}

func TestCancelled(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Apply(ctx, apply("name a"))
	expectError(t, err, context.Canceled)
	b.expectRunning(t, "")
}

func TestDryRun(t *testing.T) {
	b := newBench(t)
	b.mustApply(t, "name a")
	for _, text := range []string{"name a", "name a\nlimiter rate user x", "name b"} {
		r := apply(text)
		r.DryRun = true
		got, err := b.Apply(t.Context(), r)
		if err != nil || got.Version.Name == "" {
			t.Errorf("%q: got %+v, %v", text, got, err)
		}
	}
	b.expectRunning(t, "a@1")
	if len(b.store.versions) != 1 || len(b.store.versions["a"]) != 1 {
		t.Errorf("a dry run stored something: %v", b.store.versions)
	}
}

// TestUnknownOutcome has the store fail after the commit: what is stored must come into force.
func TestUnknownOutcome(t *testing.T) {
	for _, next := range []string{"name a\nlimiter rate user y", "name a", "name b", "crash"} {
		b := newBench(t)
		b.mustApply(t, "name a")
		b.store.fail, b.store.failLate = errors.New("lost the connection"), true
		_, err := b.Apply(t.Context(), apply("name a\nlimiter rate user y"))
		expectError(t, err, ErrStore)
		b.expectRunning(t, "a@1")
		_, err = b.Apply(t.Context(), apply(next))
		if (err != nil) != (next == "crash") {
			t.Errorf("%q: %v", next, err)
		}
		want := map[string]string{"name a": "a@3", "name b": "a@2 b@1", "crash": "a@1"}[next]
		if want == "" {
			want = "a@2"
		}
		b.expectRunning(t, want)
		b.restart(t)
	}
}

func TestAnotherWriter(t *testing.T) {
	b := newBench(t)
	b.mustApply(t, "name a")
	other := &bench{store: b.store}
	other.restart(t)
	other.mustApply(t, "name a\nlimiter rate user theirs")
	_, err := b.Apply(t.Context(), apply("name a\nlimiter rate user ours"))
	expectError(t, err, ErrVersionConflict, "is at version 2")
	if got := b.mustApply(t, "name a\nlimiter rate user ours"); got.Version.Version != 3 {
		t.Errorf("got version %d, want 3", got.Version.Version)
	}
}

func TestPublishFails(t *testing.T) {
	b := newBench(t)
	b.mustApply(t, "name a")
	b.publisher.failNext = errors.New("boom")
	_, err := b.Apply(t.Context(), apply("name a\nlimiter rate user y"))
	expectError(t, err, ErrNotPublished, "version 2", "stored", "boom")
	b.expectRunning(t, "a@1")
	if got := b.mustApply(t, "name a\nlimiter rate user y"); got.Change != Unchanged {
		t.Errorf("got %s, want unchanged", got.Change)
	}
	b.expectRunning(t, "a@2")
}

func TestManagedByDirectory(t *testing.T) {
	b := newBench(t)
	fromDir := apply("name a")
	fromDir.Origin, fromDir.Source.File = OriginDir, "/etc/sluice/a.yaml"
	if _, err := b.Apply(t.Context(), fromDir); err != nil {
		t.Fatal(err)
	}
	_, err := b.Apply(t.Context(), apply("name a\nlimiter rate user x"))
	expectError(t, err, ErrManagedByDir, "/etc/sluice/a.yaml")
	_, err = b.Delete(t.Context(), DeleteRequest{Name: "a", Origin: OriginAPI})
	expectError(t, err, ErrManagedByDir, "/etc/sluice/a.yaml")
	_, err = b.Rollback(t.Context(), RollbackRequest{Name: "a", Version: 1})
	expectError(t, err, ErrManagedByDir, "/etc/sluice/a.yaml")
	b.expectRunning(t, "a@1")
	if _, err := b.Delete(t.Context(), DeleteRequest{Name: "a", Origin: OriginDir}); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Rollback(t.Context(), RollbackRequest{Name: "a"}); err != nil || got.Version.Source != OriginAPI {
		t.Errorf("a deleted policy is nobody's: got %+v, %v", got.Version, err)
	}
	// The directory takes a policy of the API over, which is a version even when nothing else changes.
	if got, err := b.Apply(t.Context(), fromDir); err != nil || got.Version.Source != OriginDir || got.Change != Updated {
		t.Errorf("take over: got %+v, %v", got, err)
	}
}

func TestRollback(t *testing.T) {
	for _, test := range []struct {
		name    string
		history []string // documents; "" deletes
		version int64
		want    string // document afterwards
		change  Change
		err     error
	}{
		{"to the one before", []string{"1", "2", "3"}, 0, "2", Updated, nil},
		{"to a chosen one", []string{"1", "2", "3"}, 1, "1", Updated, nil},
		{"to the current", []string{"1", "2"}, 2, "2", Unchanged, nil},
		{"of a deleted policy", []string{"1", "2", ""}, 0, "2", Created, nil},
		{"of a deleted policy to a chosen one", []string{"1", "2", ""}, 1, "1", Created, nil},
		{"over a deletion", []string{"1", "", "3"}, 0, "1", Updated, nil},
		{"to a deletion", []string{"1", "", "3"}, 2, "", "", ErrInvalid},
		{"nothing before", []string{"1"}, 0, "", "", ErrNotFound},
		{"no such version", []string{"1", "2"}, 9, "", "", ErrNotFound},
		{"negative", []string{"1", "2"}, -1, "", "", ErrInvalid},
		{"no such policy", nil, 0, "", "", ErrNotFound},
		{"no such policy, a version", nil, 1, "", "", ErrNotFound},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			text := func(s string) string { return "name a\nlimiter rate user " + s }
			for _, s := range test.history {
				if s != "" {
					b.mustApply(t, text(s))
				} else if _, err := b.Delete(t.Context(), DeleteRequest{Name: "a", Origin: OriginAPI}); err != nil {
					t.Fatal(err)
				}
			}
			got, err := b.Rollback(t.Context(), RollbackRequest{Name: "a", Version: test.version, Author: "eve"})
			if test.err != nil {
				expectError(t, err, test.err)
				return
			}
			if err != nil || got.Change != test.change {
				t.Fatalf("got %s, %v, want %s", got.Change, err, test.change)
			}
			now, err := b.Get(t.Context(), "a", 0)
			if err != nil || now.Document != text(test.want) {
				t.Errorf("got %q, %v, want %q", now.Document, err, text(test.want))
			}
			if test.change != Unchanged && (now.Version != int64(len(test.history))+1 || now.Author != "eve" || !strings.Contains(now.Comment, "roll back")) {
				t.Errorf("got version %d by %s: %s", now.Version, now.Author, now.Comment)
			}
		})
	}
}

func TestDeleteWhatIsNotThere(t *testing.T) {
	b := newBench(t)
	b.mustApply(t, "name a")
	_, err := b.Delete(t.Context(), DeleteRequest{Name: "b", Origin: OriginAPI})
	expectError(t, err, ErrNotFound, `"b"`)
	_, err = b.Delete(t.Context(), DeleteRequest{Name: "a", ExpectedVersion: 2, Origin: OriginAPI})
	expectError(t, err, ErrVersionConflict)
	for range 2 {
		_, err = b.Delete(t.Context(), DeleteRequest{Name: "a", ExpectedVersion: 1, Origin: OriginAPI})
	}
	expectError(t, err, ErrNotFound)
	_, err = b.Get(t.Context(), "a", 0)
	expectError(t, err, ErrNotFound)
	_, err = b.Get(t.Context(), "a", -1)
	expectError(t, err, ErrInvalid)
	_, err = b.Get(t.Context(), "a\x00", 0)
	expectError(t, err, ErrInvalid)
}

func TestPages(t *testing.T) {
	b := newBench(t, func(c *Config) { c.KeptVersions = 7 })
	var names []string
	for i := range 23 {
		names = append(names, fmt.Sprintf("p%02d", i))
		b.mustApply(t, "name "+names[i])
	}
	for i := range 12 {
		b.mustApply(t, fmt.Sprintf("name p00\nlimiter rate user %d", i))
	}
	walk := func(size int, next func(PageRequest) (Page, error)) (out []string) {
		for token, pages := "", 0; pages < 50; pages++ {
			page, err := next(PageRequest{Size: size, Token: token})
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range page.Versions {
				out = append(out, fmt.Sprintf("%s@%d%s", v.Name, v.Version, v.Document))
			}
			if token = page.Next; token == "" {
				return out
			}
		}
		t.Fatal("the pages never ended")
		return nil
	}
	for _, size := range []int{0, 1, 7, 23, 24, 5000} {
		got := walk(size, func(r PageRequest) (Page, error) { return b.List(t.Context(), r) })
		if len(got) != 23 || got[0] != "p00@13" || got[22] != "p22@1" || !slices.IsSorted(got) {
			t.Errorf("list by %d: got %v", size, got)
		}
		got = walk(size, func(r PageRequest) (Page, error) { return b.History(t.Context(), "p00", r) })
		want := []string{"p00@13", "p00@12", "p00@11", "p00@10", "p00@9", "p00@8", "p00@7"}
		if !slices.Equal(got, want) {
			t.Errorf("history by %d: got %v, want %v", size, got, want)
		}
	}
	// A name that was deleted between two pages must not hide others.
	page, err := b.List(t.Context(), PageRequest{Size: 3})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Delete(t.Context(), DeleteRequest{Name: "p02", Origin: OriginAPI}); err != nil {
		t.Fatal(err)
	}
	if page, err = b.List(t.Context(), PageRequest{Size: 1, Token: page.Next}); err != nil || page.Versions[0].Name != "p03" {
		t.Errorf("got %v, %v, want p03", page.Versions, err)
	}
	_, err = b.List(t.Context(), PageRequest{Size: -1})
	expectError(t, err, ErrInvalid, "page_size")
	_, err = b.List(t.Context(), PageRequest{Token: "%"})
	expectError(t, err, ErrInvalid, "page_token")
	_, err = b.History(t.Context(), "p00", PageRequest{Token: nameToken("p00")})
	expectError(t, err, ErrInvalid, "page_token")
	_, err = b.History(t.Context(), "never", PageRequest{})
	expectError(t, err, ErrNotFound)
}

func FuzzPageToken(f *testing.F) {
	f.Add("")
	f.Add(nameToken("a"))
	f.Add(versionToken(12))
	f.Add(versionToken(-1))
	f.Fuzz(func(t *testing.T, token string) {
		if name, err := parseNameToken(token); err == nil && nameToken(name) != token {
			t.Errorf("token %q reads as %q, whose token is another", token, name)
		}
		if v, err := parseVersionToken(token); err == nil && (v < 0 || v == 0 && token != "") {
			t.Errorf("token %q reads as version %d", token, v)
		}
	})
}

func TestLoadRefuses(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"a", "b", "c"} {
		b.mustApply(t, "name "+name)
	}
	damage := func(name, text string) { b.store.versions[name][0].Document = text }
	damage("a", "name a\nunknown")
	damage("b", "name other")
	err := b.tryRestart(t)
	if err == nil {
		t.Fatal("got no error")
	}
	for _, word := range []string{`"a" version 1`, "unknown statement", `names it "other"`, "Start the release"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("got error %q, want it to say %q", err, word)
		}
	}
	b.expectRunning(t, "")
	if _, err := b.Apply(t.Context(), apply("name d")); err == nil {
		t.Error("a catalog that could not load takes changes")
	}
}

func TestNewReleaseWithOtherDefaults(t *testing.T) {
	b := newBench(t)
	b.mustApply(t, "name a\nlimiter rate user x")
	uid := b.publisher.limiters("a")[0].UID
	next := func(c *Config) { c.Compiler = lines{salt: "another default"} }
	b.restart(t, next)
	if got := b.publisher.limiters("a")[0].UID; got != uid {
		t.Errorf("got UID %d, want %d", got, uid)
	}
	if got := b.mustApply(t, "name a\nlimiter rate user x"); got.Change != Unchanged {
		t.Errorf("the same document again: got %s, want unchanged", got.Change)
	}
}

// TestRestoredIdentityIsTaken restores a deleted policy whose UID another one holds by now.
func TestRestoredIdentityIsTaken(t *testing.T) {
	b := newBench(t)
	b.mustApply(t, "name a\nlimiter rate user x")
	if _, err := b.Delete(t.Context(), DeleteRequest{Name: "a", Origin: OriginAPI}); err != nil {
		t.Fatal(err)
	}
	b.mustApply(t, "name b\nlimiter rate user x")
	b.store.versions["a"][1].Limiters[0].UID = b.publisher.limiters("b")[0].UID
	if _, err := b.Rollback(t.Context(), RollbackRequest{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	if b.publisher.limiters("a")[0].UID == b.publisher.limiters("b")[0].UID {
		t.Error("two policies share an account")
	}
}

func TestConcurrentChanges(t *testing.T) {
	b := newBench(t)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 20 {
				name := fmt.Sprintf("p%d", (worker+i)%3)
				if _, err := b.Apply(t.Context(), apply(fmt.Sprintf("name %s\nlimiter rate user %d-%d", name, worker, i))); err != nil {
					t.Error(err)
				}
				if _, err := b.Get(t.Context(), name, 0); err != nil {
					t.Error(err)
				}
				if _, err := b.List(t.Context(), PageRequest{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for _, list := range b.store.versions {
		total += len(list)
	}
	if total != 160 {
		t.Errorf("got %d versions, want 160", total)
	}
}

func TestConfig(t *testing.T) {
	_, err := NewCatalog(Config{MaxPolicies: -1, KeptVersions: -2})
	for _, word := range []string{"Store", "Compiler", "Publisher", "max_policies: got -1", "kept_versions: got -2"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("got error %v, want it to say %q", err, word)
		}
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	connect := func(c *Config) { c.Registerer, c.Logger = registry, slog.New(slog.DiscardHandler) }
	b := newBench(t, connect)
	b.mustApply(t, "name a")
	b.mustApply(t, "name b")
	b.mustApply(t, "name b\nlimiter rate user x")
	if _, err := b.Delete(t.Context(), DeleteRequest{Name: "a", Origin: OriginAPI}); err != nil {
		t.Fatal(err)
	}
	_, _ = b.Apply(t.Context(), apply("crash"))
	want := map[string]float64{
		"sluice_policies": 1, "sluice_policy_dir_problems": 0,
		"sluice_policy_changes_total created": 2, "sluice_policy_changes_total updated": 1, "sluice_policy_changes_total deleted": 1,
		"sluice_policy_apply_errors_total api": 1, "sluice_policy_apply_errors_total dir": 0,
	}
	if diff := cmp.Diff(want, gather(t, registry)); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	if _, err := NewCatalog(Config{Store: b.store, Compiler: lines{}, Publisher: b.publisher, Registerer: registry}); err == nil {
		t.Error("registered twice: got no error")
	}
}

// gather reads metrics as "name label-value".
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			key := f.GetName()
			for _, l := range m.Label {
				key += " " + l.GetValue()
			}
			out[key] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}
