// SPDX-License-Identifier: Apache-2.0

// Package doorstest runs the product and the servers of others beside it, as people run them: real processes
// on free ports of 127.0.0.1, which end with the test. What a process printed is shown when its test fails.
package doorstest

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Patience bounds everything that is waited for.
const Patience = 15 * time.Second

// Root is the folder of the repository, as an absolute path.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.work")); err == nil {
			return d
		}
		if d == filepath.Dir(d) {
			t.Fatalf("%s is not below the folder of the repository, which has a go.work", dir)
		}
	}
}

// Require returns the absolute path of something below the repository that scripts/fetch puts there, such as
// "bin/envoy". Where it is missing the test is skipped, or fails if SLUICE_REQUIRE_SERVERS is 1.
func Require(t testing.TB, path string) string {
	t.Helper()
	full := filepath.Join(Root(t), path)
	if _, err := os.Stat(full); err == nil {
		return full
	}
	missing(t, path+" is not there: run scripts/setup.sh, which fetches it")
	return ""
}

// RequireFile is Require for something that a package of the system brings, by its absolute path.
func RequireFile(t testing.TB, path string) string {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		missing(t, path+" is not there: run scripts/setup.sh, which installs it")
	}
	return path
}

func missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("SLUICE_REQUIRE_SERVERS") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// FreePort is a port of 127.0.0.1 that nobody uses; nothing else on a test machine is likely to take it meanwhile.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// FreeAddr is 127.0.0.1 with a free port.
func FreeAddr(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(FreePort(t)))
}

// Eventually calls f until it returns nil. When that takes longer than Patience the test ends with the last error.
func Eventually(t testing.TB, f func() error) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var err error
	for end := time.Now().Add(Patience); time.Now().Before(end); <-tick.C {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("after %s still: %v", Patience, err)
}

// AwaitPort waits until somebody listens on address.
func AwaitPort(t testing.TB, address string) {
	t.Helper()
	Eventually(t, func() error {
		d := net.Dialer{Timeout: time.Second}
		conn, err := d.DialContext(t.Context(), "tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
}

// Read is the text of a file of the repository.
func Read(t testing.TB, path string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(Root(t), path))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// Example copies a file of the repository to a folder of the test and returns the path of the copy. The pairs of
// replace are old and new texts, such as the address that the file names and the one to use in this test; an old text
// that is not in the file fails the test, so that files and tests cannot drift apart.
func Example(t testing.TB, path string, replace ...string) string {
	t.Helper()
	text := Read(t, path)
	for i := 0; i+1 < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("%s: has no %q, which the test wants to replace", path, replace[i])
		}
	}
	copied := filepath.Join(t.TempDir(), filepath.Base(path))
	if err := os.WriteFile(copied, []byte(strings.NewReplacer(replace...).Replace(text)), 0o644); err != nil { //nolint:gosec // servers may run as another user
		t.Fatal(err)
	}
	return copied
}
