// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Errors of Open and of every use of the store, to branch on with errors.Is.
var (
	// ErrInUse: another process works on the data directory.
	ErrInUse = errors.New("the data directory is in use")
	// ErrCorrupt: the file, or an entry of it, is damaged.
	ErrCorrupt = errors.New("the store is damaged")
	// ErrForeign: the file is not a store of Sluice.
	ErrForeign = errors.New("not a store of Sluice")
	// ErrNewer: a newer release has written the file.
	ErrNewer = errors.New("the store was written by a newer release")
	// ErrFull: the disk, or the share of it that may be used, is full.
	ErrFull = errors.New("no space left for the store")
)

// applicationID marks the file as ours; it is "Slce" in ASCII.
const applicationID = 0x536c6365

// checkHeader reads the header without SQLite, which would change a foreign file by opening it.
func checkHeader(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	header := make([]byte, 100) // https://www.sqlite.org/fileformat.html#the_database_header
	switch n, err := io.ReadFull(f, header); {
	case n == 0 && errors.Is(err, io.EOF):
		return fmt.Errorf("%w: the file is empty", ErrCorrupt)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: the file has only %d bytes", ErrCorrupt, n)
	case err != nil:
		return err
	}
	if !bytes.HasPrefix(header, []byte("SQLite format 3\x00")) {
		return fmt.Errorf("%w, or damaged: it does not start as an SQLite database does", ErrForeign)
	}
	if id := binary.BigEndian.Uint32(header[68:]); id != applicationID {
		return fmt.Errorf("%w: it is an SQLite database with application id %#x, want %#x", ErrForeign, id, applicationID)
	}
	return nil
}

// checkIntegrity reads the whole file. integrity_check and not quick_check, because only the former
// notices that an index lacks an entry, and such a policy would silently not run.
func checkIntegrity(ctx context.Context, db *sql.DB) error {
	rows, err := db.QueryContext(ctx, "PRAGMA integrity_check(5)")
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	var damage []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return err
		}
		if line != "ok" {
			damage = append(damage, line)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if len(damage) > 0 {
		return fmt.Errorf("%w: %s", ErrCorrupt, strings.Join(damage, "; "))
	}
	return nil
}

// probeWrite finds out at start, not at the first change, that nothing can be written.
func (s *SQLite) probeWrite(ctx context.Context) error {
	_, err := s.db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	if err != nil {
		return fmt.Errorf("try to write: %w", err)
	}
	if outOfSpace(filepath.Dir(s.path)) { // the above may have fitted into space the store already has
		return ErrFull
	}
	return nil
}

// explain makes of an error of SQLite one that says which file, what happened and what to do.
func (s *SQLite) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	kind := s.classify(err)
	if kind != nil && !errors.Is(err, kind) {
		err = fmt.Errorf("%w: %w", kind, err)
	}
	advice := ""
	switch {
	case errors.Is(err, ErrCorrupt):
		advice = fmt.Sprintf(": restore %[1]s from a backup; or, to go on without any of its policies, move %[1]s and %[1]s-wal away and apply the policies again",
			s.path)
	case errors.Is(err, ErrForeign):
		advice = ": choose another data directory, restore the file from a backup, or move it away"
	case errors.Is(err, ErrNewer):
		advice = ": run that release, or restore a backup from before the upgrade"
	case errors.Is(err, ErrFull):
		advice = fmt.Sprintf(": free some space in %s and try again", filepath.Dir(s.path))
	}
	return fmt.Errorf("%s the store %s: %w%s", doing, s.path, err, advice)
}

// classify finds the sentinel that fits an error; nil: none does.
func (s *SQLite) classify(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return ErrFull
	}
	failure, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return nil
	}
	switch failure.Code() & 0xff {
	case sqlite3.SQLITE_CORRUPT:
		return ErrCorrupt
	case sqlite3.SQLITE_NOTADB: // the header was right, so it is ours
		return ErrCorrupt
	case sqlite3.SQLITE_FULL:
		return ErrFull
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN:
		// SQLite reports a full disk as an I/O error when it is not the main file that cannot grow.
		if outOfSpace(filepath.Dir(s.path)) {
			return ErrFull
		}
	}
	return nil
}

// outOfSpace tries to write what a small change needs.
func outOfSpace(dir string) bool {
	f, err := os.CreateTemp(dir, "space-*.tmp")
	if err != nil {
		return errors.Is(err, syscall.ENOSPC)
	}
	_, err = f.Write(make([]byte, 64<<10))
	err = errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
	return errors.Is(err, syscall.ENOSPC)
}

// syncDir makes a rename in dir durable, where the system can.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, fs.ErrPermission) { // Windows, some file systems
		err = nil
	}
	return errors.Join(err, d.Close())
}
