// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// On a file system that is full, in earnest. Mounting one needs root; TestFileCannotGrow does not.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	mount := func(flags uintptr, size string) error {
		return syscall.Mount("tmpfs", dir, "tmpfs", flags, "size="+size)
	}
	if err := mount(0, "2500k"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	m := newMemory(t, Config{Dir: dir})
	if err := useAll(m, 2*chunkRecords+5000); err != nil {
		t.Fatal(err)
	}
	if err := m.arena.sync(m.Now()); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("the disk is full, but nobody says so: %v", err)
	}
	checkRecords(t, m)
	const remount = 32 // MS_REMOUNT
	if err := mount(remount, "8m"); err != nil {
		t.Fatal(err)
	}
	if err := m.arena.sync(m.Now()); err != nil {
		t.Errorf("there is space again, but: %v", err)
	}
	before := m.SharedTakes()
	take(t, m.Buckets(1, crashRule), "there is room again", 1, m.Now())
	if m.SharedTakes() != before {
		t.Error("the file does not grow again when it could")
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	if err := syscall.Mount("tmpfs", other, "tmpfs", 0, "size=500k"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(other, syscall.MNT_DETACH)
	if _, err := NewMemory(Config{Dir: other}); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("started on a full disk: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(other, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
