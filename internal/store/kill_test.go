// SPDX-License-Identifier: Apache-2.0

//go:build unix

package store

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/document"
)

// childEnv says, in a process that a test started from its own binary, in which directory to work.
const childEnv = "SLUICE_STORE_TEST_DIR"

// child is this binary again, running one test only.
func child(t *testing.T, test, dir string) *exec.Cmd {
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+test+"$", "-test.v")
	c.Env = append(os.Environ(), childEnv+"="+dir)
	return c
}

// plain compiles "name anything" to a policy with one limiter for each line.
type plain struct{ published []*document.Compiled }

func (*plain) Compile(s document.Source) (*document.Compiled, error) {
	name, _, ok := strings.Cut(string(s.Text), " ")
	if !ok {
		return nil, errors.New("want a name and a space")
	}
	out := &document.Compiled{Name: name, Hash: fmt.Sprintf("%x", sha256.Sum256(s.Text))}
	for i := range strings.Count(string(s.Text), "\n") {
		out.Limiters = append(out.Limiters, document.LimiterRef{Component: fmt.Sprintf("root.%d", i), Kind: "rate_limiter"})
	}
	return out, nil
}

func (*plain) Check([]*document.Compiled) error { return nil }

func (p *plain) Publish(set []*document.Compiled) error {
	p.published = slices.Clone(set)
	return nil
}

// text is the document of one version: some pages long, so that a write has several parts.
func text(name string, version int64) string {
	return fmt.Sprintf("%s %d\n", name, version) + strings.Repeat(fmt.Sprintf("line of version %d\n", version), 1000)
}

func catalog(t *testing.T, s document.Store, p *plain) *document.Catalog {
	t.Helper()
	c, err := document.NewCatalog(document.Config{Store: s, Compiler: p, Publisher: p})
	if err == nil {
		err = c.Load(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestChildApplies is the process that gets killed. It prints every change that was acknowledged.
func TestChildApplies(t *testing.T) {
	dir := os.Getenv(childEnv)
	if dir == "" {
		t.Skip("only in a process started by TestKillDuringApply")
	}
	s := open(t, dir)
	c := catalog(t, s, &plain{})
	for i := 0; ; i++ {
		name := fmt.Sprintf("policy-%d", i%3)
		head, err := s.Get(t.Context(), name, 0)
		if err != nil && !errors.Is(err, document.ErrNotFound) {
			t.Fatal(err)
		}
		next := head.Version + 1
		if next%5 == 0 {
			_, err = c.Delete(t.Context(), document.DeleteRequest{Name: name, Origin: document.OriginAPI})
		} else {
			_, err = c.Apply(t.Context(), document.ApplyRequest{
				Source: document.Source{Text: []byte(text(name, next))}, Origin: document.OriginAPI,
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("ack %s %d\n", name, next)
	}
}

// TestKillDuringApply kills the process at random moments, creation of the store included. Every
// acknowledged version must be there afterwards, and the one under way whole or not at all.
func TestKillDuringApply(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	random := rand.New(rand.NewPCG(3, 4))
	dir := filepath.Join(t.TempDir(), "data")
	acknowledged := map[string]int64{}
	for round := range rounds {
		if round%5 == 4 { // a new store again, so that its creation is hit too
			dir, acknowledged = filepath.Join(t.TempDir(), "data"), map[string]int64{}
		}
		// From before the store is opened to some dozen changes later. A real process needs real time.
		after := time.Duration(random.IntN(int(120 * time.Millisecond)))
		runAndKill(t, dir, after, acknowledged)
		checkAfterKill(t, dir, acknowledged)
		t.Logf("killed after %v; versions now %v", after, acknowledged)
	}
}

func runAndKill(t *testing.T, dir string, after time.Duration, acknowledged map[string]int64) {
	t.Helper()
	c := child(t, "TestChildApplies", dir)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(after, func() { _ = c.Process.Signal(syscall.SIGKILL) })
	defer kill.Stop()
	lines := bufio.NewReader(out)
	var seen strings.Builder
	for {
		line, err := lines.ReadString('\n') // a line cut short was not acknowledged
		if err != nil {
			break
		}
		seen.WriteString(line)
		var name string
		var version int64
		if n, _ := fmt.Sscanf(line, "ack %s %d\n", &name, &version); n == 2 {
			acknowledged[name] = version
		}
	}
	_, _ = io.Copy(io.Discard, lines)
	err = c.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); !ok || c.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the process ended by itself: %v\n%s", err, seen.String())
	}
}

func checkAfterKill(t *testing.T, dir string, acknowledged map[string]int64) {
	t.Helper()
	s, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	p := &plain{}
	catalog(t, s, p)
	running := map[string]int64{}
	for _, c := range p.published {
		running[c.Name] = c.Version
	}
	for _, name := range slices.Sorted(maps.Keys(acknowledged)) {
		checkHistory(t, s, name, acknowledged[name], running[name])
	}
	// What was under way when the process died is acknowledged by being there.
	for i := range 3 {
		name := fmt.Sprintf("policy-%d", i)
		if head, err := s.Get(t.Context(), name, 0); err == nil {
			acknowledged[name] = head.Version
		}
	}
}

func checkHistory(t *testing.T, s *SQLite, name string, acknowledged, running int64) {
	t.Helper()
	head, err := s.Get(t.Context(), name, 0)
	if err != nil {
		t.Fatal(err)
	}
	if head.Version < acknowledged || head.Version > acknowledged+1 {
		t.Errorf("%s: newest is version %d, want the acknowledged %d or the one after", name, head.Version, acknowledged)
	}
	for version := int64(1); version <= head.Version; version++ {
		v, err := s.Get(t.Context(), name, version)
		if err != nil {
			t.Errorf("%s version %d: %v", name, version, err)
			continue
		}
		want := document.Version{State: document.StateSuperseded, Document: text(name, version)}
		switch {
		case version%5 == 0:
			want = document.Version{State: document.StateDeleted}
		case version == head.Version:
			want.State = document.StateActive
		}
		if v.State != want.State || v.Document != want.Document {
			t.Errorf("%s version %d: got %s with %d bytes, want %s with %d", name, version, v.State, len(v.Document), want.State, len(want.Document))
		}
	}
	if want := cmp.Or(map[bool]int64{true: head.Version}[head.State == document.StateActive], 0); running != want {
		t.Errorf("%s: version %d runs, want %d", name, running, want)
	}
}

// TestFileSizeLimit meets a limit that SQLite does not report as a full disk.
func TestFileSizeLimit(t *testing.T) {
	if out, err := child(t, "TestChildFileSizeLimit", t.TempDir()).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestChildFileSizeLimit(t *testing.T) {
	dir := os.Getenv(childEnv)
	if dir == "" {
		t.Skip("only in a process started by TestFileSizeLimit, because the limit holds for all of it")
	}
	s := open(t, dir)
	c := catalog(t, s, &plain{})
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	small := limit
	small.Cur = 300_000
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &small); err != nil {
		t.Skip("cannot set the limit: ", err)
	}
	version := applyUntilError(t, c)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	checkHistory(t, s, "a", version, version)
	out, err := c.Apply(t.Context(), request("a", version+1))
	if err != nil || out.Version.Version != version+1 {
		t.Errorf("with the limit gone: got version %d, %v, want %d", out.Version.Version, err, version+1)
	}
}

func request(name string, version int64) document.ApplyRequest {
	return document.ApplyRequest{Source: document.Source{Text: []byte(text(name, version))}, Origin: document.OriginAPI}
}

// applyUntilError applies versions of policy "a", leaving out every fifth, and returns the last that
// was acknowledged.
func applyUntilError(t *testing.T, c *document.Catalog) int64 {
	t.Helper()
	for version := int64(1); version < 1000; version++ {
		var err error
		if version%5 == 0 {
			_, err = c.Delete(t.Context(), document.DeleteRequest{Name: "a", Origin: document.OriginAPI})
		} else {
			_, err = c.Apply(t.Context(), request("a", version))
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, document.ErrStore) {
			t.Errorf("got error %v, want ErrStore", err)
		}
		t.Log("as shown to people:", err)
		return version - 1
	}
	t.Fatal("the disk never got full")
	return 0
}
