// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/sluice-project/sluice/internal/document"
	"github.com/sluice-project/sluice/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string) *SQLite {
	t.Helper()
	s, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func appendVersions(t *testing.T, s document.Store, versions ...document.Version) {
	t.Helper()
	for _, v := range versions {
		if err := s.Append(t.Context(), v, 1000); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSuite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) document.Store { return open(t, t.TempDir()) })
}

func TestAlerts(t *testing.T) {
	storetest.RunAlerts(t, func(t *testing.T) storetest.AlertStore { return open(t, t.TempDir()) })
}

func TestDynamicConfig(t *testing.T) {
	storetest.RunDynamicConfig(t, func(t *testing.T) storetest.DynamicConfigStore { return open(t, t.TempDir()) })
}

func TestReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data ?#%41 ü", "deep")
	first := open(t, dir)
	appendVersions(t, first, storetest.Version("a", 1), storetest.Version("a", 2))
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := open(t, dir)
	appendVersions(t, second, storetest.Version("a", 3))
	if _, err := second.Get(t.Context(), "a", 1); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode != 0o600 {
			t.Errorf("%s: got mode %o, want 600", e.Name(), mode)
		}
		if !strings.HasPrefix(e.Name(), FileName) && e.Name() != "lock" {
			t.Errorf("got a file %s in the data directory", e.Name())
		}
	}
}

func TestLeftoversOfAnUnfinishedCreation(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{FileName + ".new", FileName + ".new-journal"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	appendVersions(t, open(t, dir), storetest.Version("a", 1))
}

func TestOneServerPerDirectory(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	_, err := Open(t.Context(), dir, Options{})
	expectError(t, err, ErrInUse, dir, "stop it")
	if runtime.GOOS == "linux" {
		expectError(t, err, ErrInUse, "process "+pid())
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
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

func TestDurabilitySettings(t *testing.T) {
	s := open(t, t.TempDir())
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "wal_autocheckpoint": "1", "foreign_keys": "1", "busy_timeout": "10000",
	} {
		var got string
		if err := s.db.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", pragma, got, err, want)
		}
	}
}
