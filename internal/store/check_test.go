// SPDX-License-Identifier: Apache-2.0

package store

import (
	"database/sql"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/internal/alert"
	"github.com/sluice-project/sluice/internal/document"
	"github.com/sluice-project/sluice/internal/store/storetest"
)

func pid() string { return strconv.Itoa(os.Getpid()) }

// stored makes a closed store with some policies and returns its path.
func stored(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s := open(t, dir)
	for i := range 20 {
		v := storetest.Version(fmt.Sprintf("p%02d", i), 1)
		v.Document = strings.Repeat(fmt.Sprintf("policy %d\n", i), 600)
		appendVersions(t, s, v)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, FileName)
}

func execute(t *testing.T, path, statements string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(statements); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestRefusesAtStart(t *testing.T) {
	for _, test := range []struct {
		name  string
		harm  func(t *testing.T, path string)
		want  error
		words []string
	}{
		{"empty file", func(t *testing.T, path string) { truncate(t, path, 0) }, ErrCorrupt, []string{"backup"}},
		{"short file", func(t *testing.T, path string) { truncate(t, path, 50) }, ErrCorrupt, []string{"50 bytes"}},
		{"half the file", func(t *testing.T, path string) { truncate(t, path, size(t, path)/2) }, ErrCorrupt, []string{"backup"}},
		{"one page less", func(t *testing.T, path string) { truncate(t, path, size(t, path)-4096) }, ErrCorrupt, nil},
		{"only the header left", func(t *testing.T, path string) { overwrite(t, path, 100, 1<<20) }, ErrCorrupt, nil},
		{"zeroed file", func(t *testing.T, path string) { overwrite(t, path, 0, int(size(t, path))) }, ErrForeign, []string{"damaged"}},
		{"file gone, changes left", func(t *testing.T, path string) {
			if err := os.Rename(path, path+"-wal"); err != nil {
				t.Fatal(err)
			}
		}, ErrCorrupt, []string{"missing"}},
		{"text", func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(strings.Repeat("not a database\n", 100)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, ErrForeign, []string{"does not start"}},
		{"database of something else", func(t *testing.T, path string) {
			truncate(t, path, 0)
			execute(t, path, "CREATE TABLE theirs (x); PRAGMA user_version = 7")
		}, ErrForeign, []string{"application id 0x0"}},
		{"newer release", func(t *testing.T, path string) { execute(t, path, "PRAGMA user_version = 999") }, ErrNewer, []string{"999", "run that release"}},
		{"index without an entry", func(t *testing.T, path string) {
			execute(t, path, `DROP INDEX policy_versions_active;
				CREATE UNIQUE INDEX policy_versions_active ON policy_versions (name) WHERE state = 'deleted';
				PRAGMA writable_schema = ON;
				UPDATE sqlite_schema SET sql = replace(sql, 'deleted', 'active') WHERE name = 'policy_versions_active';`)
		}, ErrCorrupt, nil},
		{"directory", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, ErrForeign, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := stored(t)
			test.harm(t, path)
			before := content(path)
			s, err := Open(t.Context(), filepath.Dir(path), Options{})
			if err == nil {
				_ = s.Close()
			}
			expectError(t, err, test.want, append(test.words, path)...)
			if content(path) != before {
				t.Error("the file was changed")
			}
			// The refusal must not have made a store that the next start takes.
			if s, err = Open(t.Context(), filepath.Dir(path), Options{}); err == nil {
				_ = s.Close()
				t.Error("the second start did not refuse")
			}
		})
	}
}

// TestDamageIsNoticed flips bits all over the file. Each either has no effect on what is stored or is
// noticed; what is read is never wrong.
func TestDamageIsNoticed(t *testing.T) {
	path := stored(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	noticed := 0
	for range 150 {
		bad := append([]byte(nil), good...)
		at := random.IntN(len(bad))
		bad[at] ^= 1 << random.IntN(8)
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, FileName), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := readAll(t, dir); err != nil {
			noticed++
			if !strings.Contains(err.Error(), dir) {
				t.Errorf("byte %d: got error %q, want it to name the file", at, err)
			}
		}
	}
	if noticed < 90 { // free space in pages (empty tables are nothing else) and unused header fields may change unnoticed
		t.Errorf("noticed %d of 150, want most", noticed)
	}
}

// readAll opens a store and reads everything; what it can read must be what stored wrote.
func readAll(t *testing.T, dir string) error {
	s, err := Open(t.Context(), dir, Options{})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	count := 0
	for v, err := range s.Active(t.Context()) {
		if err != nil {
			return err
		}
		want := storetest.Version(fmt.Sprintf("p%02d", count), 1)
		want.Document = strings.Repeat(fmt.Sprintf("policy %d\n", count), 600)
		if diff := cmp.Diff(want, v); diff != "" {
			t.Errorf("silently wrong (-want +got):\n%s", diff)
		}
		count++
	}
	if count != 20 {
		t.Errorf("silently lost policies: got %d, want 20", count)
	}
	return nil
}

func TestDamagedVersionIsNotReturned(t *testing.T) {
	path := stored(t)
	execute(t, path, "UPDATE policy_versions SET document = x'00' WHERE name = 'p03'")
	s := open(t, filepath.Dir(path))
	_, err := s.Get(t.Context(), "p03", 0)
	expectError(t, err, ErrCorrupt, "p03", path, "backup")
	read := 0
	for _, err = range s.Active(t.Context()) {
		read++
	}
	expectError(t, err, ErrCorrupt, "p03")
	if read != 4 {
		t.Errorf("read %d entries, want to end at the damaged one", read)
	}
}

func TestUnusableDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path, Options{}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a file for a directory: got error %v, want one that names it", err)
	}
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := filepath.Dir(stored(t))
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Chmod(dir, 0o700) }()
	if s, err := Open(t.Context(), dir, Options{}); err == nil {
		_ = s.Close()
		t.Error("a directory that cannot be written: got no error")
	}
}

func TestFullStore(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), dir, Options{maxPages: 40})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	expectFullIsHarmless(t, s, dir)
}

// expectFullIsHarmless appends until the store is full, then expects everything before to be there and
// a small change to be possible again or refused clearly.
func expectFullIsHarmless(t *testing.T, s document.Store, dir string) {
	t.Helper()
	var last int64
	var err error
	for err == nil {
		v := storetest.Version("a", last+1)
		v.Document = strings.Repeat("x", 10_000)
		if err = s.Append(t.Context(), v, 1000); err == nil {
			last++
		}
		if last > 10_000 {
			t.Fatal("the disk never got full")
		}
	}
	if last == 0 {
		t.Fatalf("not even one version fit: %v", err)
	}
	expectError(t, err, ErrFull, dir, "free some space", fmt.Sprintf("version %d", last+1))
	head, err := s.Get(t.Context(), "a", 0)
	if err != nil || head.Version != last || head.State != document.StateActive {
		t.Fatalf("after the failure: got version %d %s, %v, want %d active", head.Version, head.State, err, last)
	}
	// A change that removes history frees pages, but SQLite needs some first; either answer is good as
	// long as it is clear.
	small := storetest.Version("a", last+1)
	if err := s.Append(t.Context(), small, 1); err != nil {
		expectError(t, err, ErrFull)
	}
}

func TestMigrationFiles(t *testing.T) {
	if _, err := readMigrations(migrations, "migrations/sqlite"); err != nil {
		t.Error(err)
	}
	for _, names := range [][]string{{"0002_a.sql"}, {"0001_a.sql", "0003_b.sql"}, {"0001_a.sql", "0001_b.sql"}, {"x.sql"}} {
		files := fstest.MapFS{}
		for _, name := range names {
			files["m/"+name] = &fstest.MapFile{}
		}
		if _, err := readMigrations(files, "m"); err == nil {
			t.Errorf("%v: got no error", names)
		}
	}
}

// TestUpgrade opens the store of the first release.
func TestUpgrade(t *testing.T) {
	path := stored(t)
	execute(t, path, "DROP TABLE alerts; DROP TABLE dynamic_configs; PRAGMA user_version = 1")
	s := open(t, filepath.Dir(path))
	if v, err := s.Get(t.Context(), "p07", 0); err != nil || v.State != document.StateActive {
		t.Errorf("got %+v, %v, want the policy of before", v, err)
	}
	if err := s.SaveAlerts(t.Context(), []alert.Alert{storetest.Alert(1)}, 10); err != nil {
		t.Error(err)
	}
	if err := s.SaveDynamicConfig(t.Context(), "p07", map[string]any{"x": 1}); err != nil {
		t.Error(err)
	}
}

func TestDamagedAlert(t *testing.T) {
	path := stored(t)
	s := open(t, filepath.Dir(path))
	if err := s.SaveAlerts(t.Context(), []alert.Alert{storetest.Alert(1)}, 10); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Exec("UPDATE alerts SET labels = 'x'"); err != nil {
		t.Fatal(err)
	}
	_, err := s.LoadAlerts(t.Context())
	expectError(t, err, ErrCorrupt, "alert 1", path)
}

func TestMigrationIsAllOrNothing(t *testing.T) {
	path := stored(t)
	db, err := connect(path, "WAL", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var before int
	if err := db.QueryRow("PRAGMA user_version").Scan(&before); err != nil || before == 0 {
		t.Fatalf("user_version: got %d, %v", before, err)
	}
	err = takeStep(t.Context(), db, migration{before + 1, "9999_bad.sql", "CREATE TABLE half (x); INSERT INTO nowhere VALUES (1);"})
	if err == nil {
		t.Fatal("got no error")
	}
	var version, tables int
	if err := db.QueryRow("PRAGMA user_version").Scan(&version); err != nil || version != before {
		t.Errorf("user_version: got %d, %v, want %d", version, err, before)
	}
	if err := db.QueryRow("SELECT count(*) FROM sqlite_schema WHERE name = 'half'").Scan(&tables); err != nil || tables != 0 {
		t.Errorf("half a migration stayed: %d, %v", tables, err)
	}
}

func truncate(t *testing.T, path string, to int64) {
	t.Helper()
	if err := os.Truncate(path, to); err != nil {
		t.Fatal(err)
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// overwrite puts zeros over at most n bytes from offset at.
func overwrite(t *testing.T, path string, at, n int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	clear(b[at:min(at+n, len(b))])
	if at <= 68 && at+n > 72 {
		binary.BigEndian.PutUint32(b[68:], 0)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func content(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
