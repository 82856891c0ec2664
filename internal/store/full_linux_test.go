// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sluice-project/sluice/internal/document"
)

// TestFullDisk runs TestChildFullDisk with mounts of its own, for which it needs no privileges on most
// systems.
func TestFullDisk(t *testing.T) {
	c := child(t, "TestChildFullDisk", t.TempDir())
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}
	out, err := c.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || strings.Contains(string(out), "cannot mount"):
		t.Skipf("this system allows no mounts to ordinary processes: %v", err)
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	}
}

func TestChildFullDisk(t *testing.T) {
	dir := os.Getenv(childEnv)
	if dir == "" {
		t.Skip("only in a process started by TestFullDisk")
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=700"); err != nil {
		t.Skip("cannot mount: ", err)
	}
	reserve := filepath.Join(dir, "reserve") // what people free when the disk is full
	if err := os.WriteFile(reserve, make([]byte, 256<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	s := open(t, data)
	version := applyUntilError(t, catalog(t, s, &plain{}))
	checkHistory(t, s, "a", version, version)
	if err := s.Close(); err != nil {
		t.Logf("close on a full disk: %v", err)
	}
	fillDisk(t, dir)

	t.Run("start with a store", func(t *testing.T) {
		_, err := Open(t.Context(), data, Options{})
		expectError(t, err, ErrFull, data, "free some space")
	})
	t.Run("start without a store", func(t *testing.T) {
		fresh := filepath.Join(dir, "fresh")
		_, err := Open(t.Context(), fresh, Options{})
		expectError(t, err, ErrFull, "free some space")
		if _, err := os.Stat(filepath.Join(fresh, FileName)); err == nil {
			t.Error("half a store was left")
		}
	})
	if err := os.Remove(reserve); err != nil {
		t.Fatal(err)
	}
	t.Run("space again", func(t *testing.T) {
		s, p := open(t, data), &plain{}
		c := catalog(t, s, p)
		var running int64
		if len(p.published) == 1 {
			running = p.published[0].Version
		}
		checkHistory(t, s, "a", version, running)
		if _, err := c.Apply(t.Context(), document.ApplyRequest{
			Source: document.Source{Text: []byte("b small")}, Origin: document.OriginAPI,
		}); err != nil {
			t.Error(err)
		}
	})
}

// fillDisk takes all that is left.
func fillDisk(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
