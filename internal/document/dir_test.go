// SPDX-License-Identifier: Apache-2.0

//go:build unix

package document

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// folder is a policy directory under test.
type folder struct {
	*Watch
	bench *bench
	dir   string
}

func newFolder(t *testing.T, adjust ...func(*Config)) *folder {
	t.Helper()
	f := &folder{bench: newBench(t, adjust...), dir: t.TempDir()}
	f.restart(t)
	return f
}

func (f *folder) restart(t *testing.T) {
	t.Helper()
	var err error
	if f.Watch, err = NewWatch(WatchConfig{Dir: f.dir, Catalog: f.bench.Catalog}); err != nil {
		t.Fatal(err)
	}
}

func (f *folder) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (f *folder) remove(t *testing.T, name string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(f.dir, name)); err != nil {
		t.Fatal(err)
	}
}

// expect scans and compares what runs, and the problems with words they must contain, in order.
func (f *folder) expect(t *testing.T, running string, problems ...string) {
	t.Helper()
	if err := f.Scan(t.Context()); err != nil && problems == nil {
		t.Error(err)
	}
	f.bench.expectRunning(t, running)
	got := f.Problems()
	if len(got) != len(problems) {
		t.Errorf("got problems %v, want %d", got, len(problems))
		return
	}
	for i, p := range got {
		if !strings.Contains(p.String(), problems[i]) {
			t.Errorf("got problem %q, want it to say %q", p, problems[i])
		}
	}
}

func TestScan(t *testing.T) {
	f := newFolder(t)
	f.expect(t, "")
	f.write(t, "a.yaml", "name a")
	f.write(t, "b.yml", "name b")
	f.write(t, "bare.json", "limiter rate user x") // takes the name of its file
	f.write(t, ".hidden.yaml", "name hidden")
	f.write(t, "README.md", "name readme")
	f.write(t, "bare_test.yaml", "name test")
	f.write(t, "bare.test.yml", "name test")
	f.write(t, "c.yaml~", "name backup")
	if err := os.Mkdir(filepath.Join(f.dir, "sub.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	f.expect(t, "a@1 b@1 bare@1")
	published := f.bench.publisher.published
	f.expect(t, "a@1 b@1 bare@1")
	if f.bench.publisher.published != published {
		t.Error("a scan without changes published")
	}
	f.write(t, "a.yaml", "name a\nlimiter rate user x")
	f.remove(t, "b.yml")
	f.expect(t, "a@2 bare@1")
	v, err := f.bench.Get(t.Context(), "a", 2)
	if err != nil || v.Source != OriginDir || v.File != filepath.Join(f.dir, "a.yaml") || v.Author != "policy directory" {
		t.Errorf("got %+v, %v", v, err)
	}
	f.write(t, "bare.json", "name renamed")
	f.expect(t, "a@2 renamed@1")
	f.remove(t, "a.yaml")
	f.remove(t, "bare.json")
	f.expect(t, "")
	f.write(t, "a.yaml", "name a\nlimiter rate user x")
	f.expect(t, "a@4")
}

func TestBadFilesChangeNothing(t *testing.T) {
	f := newFolder(t, func(c *Config) { c.MaxDocumentBytes = 1000 })
	f.write(t, "a.yaml", "name a")
	f.write(t, "b.yaml", "name b")
	f.expect(t, "a@1 b@1")
	a := filepath.Join(f.dir, "a.yaml")
	for _, test := range []struct {
		name    string
		harm    func(t *testing.T)
		problem []string
	}{
		{"mistakes", func(t *testing.T) { f.write(t, "a.yaml", "name a\nx\ny") }, []string{a + ":2:1: x: unknown", a + ":3:1: y: unknown"}},
		{"empty", func(t *testing.T) { f.write(t, "a.yaml", "") }, []string{"empty"}},
		{"blank", func(t *testing.T) { f.write(t, "a.yaml", "\n \n") }, []string{"empty"}},
		{"too large", func(t *testing.T) { f.write(t, "a.yaml", "name a"+strings.Repeat("\n", 2000)) }, []string{"at most 1000"}},
		{"bad name", func(t *testing.T) { f.write(t, "a.yaml", "name \x01") }, []string{"printable"}},
		{"link to nowhere", func(t *testing.T) { f.link(t, "nowhere", "a.yaml") }, []string{"no such file"}},
		{"link to a directory", func(t *testing.T) { f.link(t, f.dir, "a.yaml") }, []string{"want a regular file"}},
		{"pipe", func(t *testing.T) {
			if err := syscall.Mkfifo(a, 0o600); err != nil {
				t.Skip(err)
			}
		}, []string{"want a regular file"}},
		{"policy of another file", func(t *testing.T) { f.write(t, "c.yaml", "name b") }, []string{"b.yaml already"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.name != "policy of another file" {
				f.remove(t, "a.yaml")
			}
			test.harm(t)
			for range 2 { // retried, and still so
				f.expect(t, "a@1 b@1", test.problem...)
			}
			f.remove(t, "a.yaml")
			f.remove(t, "c.yaml")
			f.write(t, "a.yaml", "name a")
			f.expect(t, "a@1 b@1")
		})
	}
}

func (f *folder) link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, filepath.Join(f.dir, name)); err != nil {
		t.Fatal(err)
	}
}

func TestTwoFilesOnePolicy(t *testing.T) {
	f := newFolder(t)
	f.write(t, "b.yaml", "name p\nlimiter rate user b")
	f.expect(t, "p@1")
	f.write(t, "a.yaml", "name p\nlimiter rate user a") // first by name, though it came later
	f.expect(t, "p@2", "a.yaml and b.yaml")
	f.write(t, "a.yaml", "mistake") // does not count
	f.expect(t, "p@3", "mistake")
	f.remove(t, "a.yaml")
	f.expect(t, "p@3")
	if err := os.Rename(filepath.Join(f.dir, "b.yaml"), filepath.Join(f.dir, "z.yaml")); err != nil {
		t.Fatal(err)
	}
	f.expect(t, "p@4") // to record the file, for messages
	if v, err := f.bench.Get(t.Context(), "p", 0); err != nil || filepath.Base(v.File) != "z.yaml" {
		t.Errorf("got file %q, %v, want z.yaml", v.File, err)
	}
}

func TestDirectoryGone(t *testing.T) {
	f := newFolder(t)
	f.write(t, "a.yaml", "name a")
	f.expect(t, "a@1")
	hidden := f.dir + "-away"
	if err := os.Rename(f.dir, hidden); err != nil {
		t.Fatal(err)
	}
	f.expect(t, "a@1", "cannot be read")
	if err := os.WriteFile(f.dir, nil, 0o600); err != nil { // a file in its place
		t.Fatal(err)
	}
	f.expect(t, "a@1", "cannot be read")
	if err := errors.Join(os.Remove(f.dir), os.Rename(hidden, f.dir)); err != nil {
		t.Fatal(err)
	}
	f.expect(t, "a@1")
}

func TestStoreFailsForAFile(t *testing.T) {
	f := newFolder(t)
	f.bench.store.fail = errors.New("disk full")
	f.write(t, "a.yaml", "name a")
	f.expect(t, "", "disk full")
	f.expect(t, "a@1") // retried
	f.bench.store.fail = errors.New("disk full")
	f.write(t, "a.yaml", "name a\nlimiter rate user x")
	f.expect(t, "a@1", "disk full")
	f.expect(t, "a@2")
	f.bench.store.fail = errors.New("disk full")
	f.remove(t, "a.yaml")
	f.expect(t, "a@2", "disk full")
	f.expect(t, "")
}

func TestCancelledScan(t *testing.T) {
	f := newFolder(t)
	f.write(t, "a.yaml", "name a")
	f.expect(t, "a@1")
	f.remove(t, "a.yaml")
	f.write(t, "b.yaml", "name b")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	expectError(t, f.Scan(ctx), context.Canceled)
	f.bench.expectRunning(t, "a@1")
	if got := f.Problems(); len(got) != 0 {
		t.Errorf("got problems %v, want none", got)
	}
	f.expect(t, "b@1")
}

func TestApiPoliciesAreLeftAlone(t *testing.T) {
	f := newFolder(t)
	f.bench.mustApply(t, "name mine")
	f.write(t, "a.yaml", "name a")
	f.expect(t, "a@1 mine@1")
	f.write(t, "b.yaml", "name mine") // now the directory's
	f.expect(t, "a@1 mine@2")
	f.remove(t, "b.yaml")
	f.expect(t, "a@1")
}

// TestRemovedWhileStopped removes files between two runs; TestScan does so during one.
func TestRemovedWhileStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFolder(t)
		f.write(t, "a.yaml", "name a")
		f.write(t, "b.yaml", "name b")
		f.expect(t, "a@1 b@1")

		f.bench.restart(t)
		f.restart(t)
		f.remove(t, "a.yaml")
		f.expect(t, "b@1")

		f.bench.restart(t)
		f.restart(t)
		f.remove(t, "b.yaml") // now it is empty: perhaps not mounted yet
		f.expect(t, "b@1", "empty since the start; 1 policies")
		<-time.After(29 * time.Second)
		f.expect(t, "b@1", "empty since the start; 1 policies")
		<-time.After(2 * time.Second)
		f.expect(t, "")
	})
}

// TestLoop checks when scans happen, in virtual time.
func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFolder(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		start := time.Now()
		events, scans := make(chan struct{}), make(chan time.Duration, 100)
		go func() { _ = f.loop(ctx, events, func() { scans <- time.Since(start) }) }()
		for _, at := range []time.Duration{1000, 1100, 1250, 5000} { // the first three are one burst
			<-time.After(at*time.Millisecond - time.Since(start))
			events <- struct{}{}
		}
		<-time.After(61*time.Second - time.Since(start))
		cancel()
		synctest.Wait()
		close(scans)
		var got []string
		for at := range scans {
			got = append(got, at.String())
		}
		if want := "0s 1.45s 5.2s 30s 1m0s"; strings.Join(got, " ") != want {
			t.Errorf("scans at %v, want %s", got, want)
		}
	})
}

// TestLoopWithEndlessEvents never lets the directory be quiet: the periodic scan happens all the same.
func TestLoopWithEndlessEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFolder(t)
		ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
		defer cancel()
		events, scans := make(chan struct{}), 0
		go func() {
			for tick := time.NewTicker(50 * time.Millisecond); ; {
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
				select {
				case events <- struct{}{}:
				case <-ctx.Done():
					return
				}
			}
		}()
		_ = f.loop(ctx, events, func() { scans++ })
		if scans != 2 {
			t.Errorf("got %d scans in 45 s, want 2", scans)
		}
	})
}

// TestRunSeesChanges runs on the real file system with real notifications, including the way Kubernetes
// swaps a mounted ConfigMap. The periodic scan is an hour away, so only notifications can help.
func TestRunSeesChanges(t *testing.T) {
	f := newFolder(t)
	f.bench.publisher.changed = make(chan struct{}, 1)
	var err error
	f.Watch, err = NewWatch(WatchConfig{Dir: f.dir, Catalog: f.bench.Catalog, Debounce: 20 * time.Millisecond, Rescan: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	configMap(t, f.dir, 1)
	f.link(t, filepath.Join("..data", "a.yaml"), "a.yaml")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	f.waitFor(t, "a@1")
	configMap(t, f.dir, 2)
	f.waitFor(t, "a@2")
	f.write(t, "b.yaml", "name b")
	f.waitFor(t, "a@2 b@1")
	if err := os.WriteFile(filepath.Join(f.dir, ".tmp"), []byte("name b\nwarn new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(f.dir, ".tmp"), filepath.Join(f.dir, "b.yaml")); err != nil {
		t.Fatal(err)
	}
	f.waitFor(t, "a@2 b@2")
	f.remove(t, "a.yaml")
	f.waitFor(t, "b@2")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// configMap writes one revision and swaps the link ..data to it, as the kubelet does.
func configMap(t *testing.T, dir string, revision int) {
	t.Helper()
	folder := fmt.Sprintf("..2026_%d", revision)
	if err := errors.Join(
		os.Mkdir(filepath.Join(dir, folder), 0o700),
		os.WriteFile(filepath.Join(dir, folder, "a.yaml"), fmt.Appendf(nil, "name a\nlimiter rate user %d", revision), 0o600),
		os.Symlink(folder, filepath.Join(dir, "..data_tmp")),
		os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")),
	); err != nil {
		t.Fatal(err)
	}
}

func (f *folder) waitFor(t *testing.T, running string) {
	t.Helper()
	late := time.After(10 * time.Second)
	for f.bench.publisher.running() != running {
		select {
		case <-f.bench.publisher.changed:
		case <-late:
			t.Fatalf("in force: got %q, want %q; problems: %v", f.bench.publisher.running(), running, f.Problems())
		}
	}
}

func TestWatchConfig(t *testing.T) {
	b := newBench(t)
	for _, config := range []WatchConfig{
		{Catalog: b.Catalog},
		{Dir: "x"},
		{Dir: "x", Catalog: b.Catalog, Rescan: -1},
	} {
		if _, err := NewWatch(config); err == nil {
			t.Errorf("%+v: got no error", config)
		}
	}
}

func TestDirectoryMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	f := newFolder(t, func(c *Config) { c.Registerer = registry })
	f.write(t, "a.yaml", "x\ny")
	f.expect(t, "", "x", "y")
	got := gather(t, registry)
	if got["sluice_policy_dir_problems"] != 2 || got["sluice_policy_apply_errors_total dir"] != 1 {
		t.Errorf("got %v", got)
	}
}
