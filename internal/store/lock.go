// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// dirLock keeps other processes away from a data directory.
type dirLock struct{ file *os.File }

// lockDir locks a data directory through the file "lock" in it, which also holds our process id for
// people and for the error message. The file stays behind: removing it would let two processes lock
// two files of the same name.
func lockDir(dir string) (*dirLock, error) {
	path := filepath.Join(dir, "lock")
	f, err := openLocked(path)
	if errors.Is(err, ErrInUse) {
		by := "another process"
		if text, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(text)) != "" {
			by = "process " + strings.TrimSpace(string(text))
		}
		return nil, fmt.Errorf("%w: %s has locked %s: stop it, or choose another data directory", ErrInUse, by, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	// The id is a courtesy; a disk too full for it is noticed when the store is opened.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &dirLock{f}, nil
}

// unlock may be called more than once.
func (l *dirLock) unlock() error {
	if err := l.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("unlock the data directory: %w", err)
	}
	return nil
}
