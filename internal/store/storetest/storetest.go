// SPDX-License-Identifier: Apache-2.0

// Package storetest has the suites that every store must pass: Run, RunAlerts and RunDynamicConfig.
package storetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/internal/document"
)

// Open makes an empty store for one test and closes it when the test ends.
type Open func(t *testing.T) document.Store

// Run runs the suite. The stores that open makes must not share anything.
func Run(t *testing.T, open Open) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, document.Store)
	}{
		{"empty", testEmpty},
		{"reads back what was written", testRoundTrip},
		{"states", testStates},
		{"conflicts change nothing", testConflict},
		{"states that are never stored", testBadState},
		{"keeps the newest versions", testPruning},
		{"lists in pages", testPages},
		{"active by name", testActive},
		{"reads while iterating", testNestedReads},
		{"one of many writers wins each version", testRace},
		{"large documents", testLarge},
		{"closed", testClosed},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// Version is a version with every stored field set.
func Version(name string, version int64) document.Version {
	return document.Version{
		Name: name, Version: version, Hash: fmt.Sprintf("hash-%s-%d", name, version),
		Document: fmt.Sprintf("policy: %s # %d\n", name, version), Blueprint: "rate-limiting/base",
		Author: "ada", Comment: "because", Source: document.OriginAPI, File: name + ".yaml",
		State:      document.StateActive,
		CreateTime: time.Date(2026, 3, 1, 12, 0, int(version%60), 123456000, time.UTC),
		Limiters: []document.LimiterRef{
			{Component: "root.0", Kind: "rate_limiter", Key: "user", ContentHash: "c0", UID: 1<<64 - 1},
			{Component: "root.1", Kind: "concurrency_limiter", UID: uint64(version)},
		},
	}
}

func deletion(name string, version int64) document.Version {
	v := Version(name, version)
	v.State, v.Document = document.StateDeleted, ""
	return v
}

func mustAppend(t *testing.T, s document.Store, versions ...document.Version) {
	t.Helper()
	for _, v := range versions {
		if err := s.Append(t.Context(), v, 1000); err != nil {
			t.Fatalf("append %s version %d: %v", v.Name, v.Version, err)
		}
	}
}

func active(t *testing.T, s document.Store) []document.Version {
	t.Helper()
	var out []document.Version
	for v, err := range s.Active(t.Context()) {
		if err != nil {
			t.Fatalf("active: %v", err)
		}
		out = append(out, v)
	}
	return out
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", what, diff)
	}
}

func testEmpty(t *testing.T, s document.Store) {
	if got := active(t, s); len(got) != 0 {
		t.Errorf("active: got %v, want none", got)
	}
	for _, version := range []int64{0, 1} {
		if _, err := s.Get(t.Context(), "a", version); !errors.Is(err, document.ErrNotFound) {
			t.Errorf("get version %d: got %v, want ErrNotFound", version, err)
		}
	}
	if got, err := s.List(t.Context(), "a", 0, 10); err != nil || len(got) != 0 {
		t.Errorf("list: got %v, %v, want none", got, err)
	}
}

func testRoundTrip(t *testing.T, s document.Store) {
	plain := document.Version{
		Name: "bare", Version: 1, Source: document.OriginDir, State: document.StateActive,
		CreateTime: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),
	}
	odd := Version("naïve 名/前 '; DROP TABLE x; --%_", 1)
	odd.Document, odd.Comment = "\x00\xff\xfe not UTF-8 \r\n", "line\nline"
	for _, v := range []document.Version{Version("a", 1), plain, odd} {
		mustAppend(t, s, v)
		for _, version := range []int64{0, 1} {
			got, err := s.Get(t.Context(), v.Name, version)
			if err != nil {
				t.Fatalf("get: %v", err)
			}
			equal(t, v.Name, got, v)
		}
	}
}

func testStates(t *testing.T, s document.Store) {
	mustAppend(t, s, Version("a", 1), Version("a", 2), deletion("a", 3), Version("a", 4))
	list, err := s.List(t.Context(), "a", 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	var got []document.State
	for _, v := range list {
		got = append(got, v.State)
	}
	equal(t, "states", got, []document.State{
		document.StateActive, document.StateDeleted, document.StateSuperseded, document.StateSuperseded,
	})
	mustAppend(t, s, deletion("a", 5))
	if got := active(t, s); len(got) != 0 {
		t.Errorf("after the deletion: got %v, want nothing in force", got)
	}
	head, err := s.Get(t.Context(), "a", 0)
	if err != nil || head.State != document.StateDeleted || head.Version != 5 {
		t.Errorf("newest: got %+v, %v, want the deletion", head, err)
	}
}

func testConflict(t *testing.T, s document.Store) {
	mustAppend(t, s, Version("a", 1), Version("a", 2), Version("b", 1), deletion("b", 2))
	for _, v := range []document.Version{
		Version("a", 1), Version("a", 2), Version("a", 4), Version("b", 1), Version("b", 2), Version("b", 4), Version("new", 2),
	} {
		err := s.Append(t.Context(), v, 1000)
		if !errors.Is(err, document.ErrVersionConflict) {
			t.Errorf("append %s version %d: got %v, want ErrVersionConflict", v.Name, v.Version, err)
		}
		conflict, ok := errors.AsType[*document.ConflictError](err)
		want := map[string]int64{"a": 2, "b": 2, "new": 0}[v.Name]
		if !ok || conflict.Actual != want || conflict.Expected != v.Version-1 {
			t.Errorf("append %s version %d: got %+v, want actual %d", v.Name, v.Version, conflict, want)
		}
	}
	equal(t, "active", active(t, s), []document.Version{Version("a", 2)})
}

func testBadState(t *testing.T, s document.Store) {
	mustAppend(t, s, Version("a", 1))
	for _, state := range []document.State{"", document.StateSuperseded, "other"} {
		v := Version("a", 2)
		v.State = state
		if err := s.Append(t.Context(), v, 1000); err == nil {
			t.Errorf("append in state %q: got no error", state)
		}
	}
	equal(t, "active", active(t, s), []document.Version{Version("a", 1)})
}

func testPruning(t *testing.T, s document.Store) {
	mustAppend(t, s, Version("other", 1), Version("other", 2))
	for version := range int64(7) {
		if err := s.Append(t.Context(), Version("a", version+1), 3); err != nil {
			t.Fatal(err)
		}
	}
	expectVersions(t, s, "a", 7, 6, 5)
	expectVersions(t, s, "other", 2, 1)
	if err := s.Append(t.Context(), Version("a", 8), 0); err != nil { // the new version is kept even so
		t.Fatal(err)
	}
	expectVersions(t, s, "a", 8)
}

func expectVersions(t *testing.T, s document.Store, name string, want ...int64) {
	t.Helper()
	list, err := s.List(t.Context(), name, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var got []int64
	for _, v := range list {
		got = append(got, v.Version)
	}
	equal(t, "versions of "+name, got, want)
}

func testPages(t *testing.T, s document.Store) {
	for version := range int64(5) {
		mustAppend(t, s, Version("a", version+1), Version("ab", version+1))
	}
	for _, test := range []struct {
		before int64
		limit  int
		want   []int64
	}{
		{0, 2, []int64{5, 4}},
		{4, 2, []int64{3, 2}},
		{2, 2, []int64{1}},
		{1, 2, nil},
		{100, 1, []int64{5}},
		{0, 0, nil},
		{0, -1, nil},
	} {
		list, err := s.List(t.Context(), "a", test.before, test.limit)
		if err != nil {
			t.Fatal(err)
		}
		var got []int64
		for _, v := range list {
			want := Version("a", v.Version)
			want.Document, want.State = "", v.State
			equal(t, "listed version", v, want)
			got = append(got, v.Version)
		}
		equal(t, fmt.Sprintf("list before %d limit %d", test.before, test.limit), got, test.want)
	}
}

func testActive(t *testing.T, s document.Store) {
	mustAppend(t, s, Version("b", 1), Version("c", 1), Version("a", 1), Version("Z", 1), Version("a", 2), deletion("c", 2))
	equal(t, "active", active(t, s), []document.Version{Version("Z", 1), Version("a", 2), Version("b", 1)})
	for _, err := range s.Active(t.Context()) {
		if err != nil {
			t.Error(err)
		}
		break // must not leak
	}
}

func testNestedReads(t *testing.T, s document.Store) {
	mustAppend(t, s, Version("a", 1), Version("b", 1))
	for v, err := range s.Active(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(t.Context(), v.Name, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func testRace(t *testing.T, s document.Store) {
	const writers, versions = 4, 10
	var wins [versions + 1]int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for version := int64(1); version <= versions; {
				err := s.Append(t.Context(), Version("a", version), 1000)
				switch {
				case err == nil:
					mu.Lock()
					wins[version]++
					mu.Unlock()
				case !errors.Is(err, document.ErrVersionConflict):
					t.Errorf("append: %v", err)
					return
				}
				version++
			}
		})
	}
	wg.Wait()
	for version := 1; version <= versions; version++ {
		if wins[version] != 1 {
			t.Errorf("version %d was written %d times, want once", version, wins[version])
		}
	}
	equal(t, "active", active(t, s), []document.Version{Version("a", versions)})
}

func testLarge(t *testing.T, s document.Store) {
	v := Version("a", 1)
	v.Document = strings.Repeat("x", 8<<20)
	mustAppend(t, s, v)
	got, err := s.Get(t.Context(), "a", 1)
	if err != nil || got.Document != v.Document {
		t.Errorf("got %d bytes, %v, want %d", len(got.Document), err, len(v.Document))
	}
}

func testClosed(t *testing.T, s document.Store) {
	mustAppend(t, s, Version("a", 1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(t.Context(), Version("a", 2), 1); err == nil {
		t.Error("append after close: got no error")
	}
	if _, err := s.Get(t.Context(), "a", 0); err == nil {
		t.Error("get after close: got no error")
	}
	if _, err := s.List(t.Context(), "a", 0, 1); err == nil {
		t.Error("list after close: got no error")
	}
	for _, err := range s.Active(t.Context()) {
		if err == nil {
			t.Error("active after close: got no error")
		}
	}
}
