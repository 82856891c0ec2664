// SPDX-License-Identifier: Apache-2.0

// Package store keeps what must survive a restart in SQLite, behind the interfaces the domain packages
// declare.
//
// The file is sluice.db in the data directory. Open would rather refuse to start than run with less
// than what was stored: a file that is damaged, foreign, from a newer release or on a full disk is an
// error that says what to do. Only a data directory without any trace of a store gets a new one.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-project/sluice/internal/document"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// FileName is the name of the store in the data directory.
const FileName = "sluice.db"

// Options are for Open. The zero value is good.
type Options struct {
	Logger *slog.Logger // nil: no log

	maxPages int // for tests of a full disk; 0: no limit
}

// SQLite is the store in one file. All methods may be called concurrently.
type SQLite struct {
	db   *sql.DB
	path string
	lock *dirLock
}

var _ document.Store = (*SQLite)(nil)

// Open opens the store in a data directory and makes both if there is none yet. It keeps the directory
// locked until Close, so that no second server works on it. It reads the whole file to check it, which
// takes about a second for each GiB. Errors: ErrInUse, ErrCorrupt, ErrForeign, ErrNewer, ErrFull, and
// those of the file system.
func Open(ctx context.Context, dir string, opts Options) (*SQLite, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &SQLite{path: filepath.Join(dir, FileName), lock: lock}
	if err := s.open(ctx, opts); err != nil {
		return nil, errors.Join(s.explain("open", err), s.Close())
	}
	return s, nil
}

func (s *SQLite) open(ctx context.Context, opts Options) error {
	info, err := os.Stat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := s.create(ctx); err != nil {
			return err
		}
		opts.Logger.Info("made a new store", "path", s.path)
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w: it is a %v, not a file", ErrForeign, info.Mode().Type())
	default:
		if err := checkHeader(s.path); err != nil {
			return err
		}
	}
	if s.db, err = connect(s.path, "WAL", opts.maxPages); err != nil {
		return err
	}
	if err := checkIntegrity(ctx, s.db); err != nil {
		return err
	}
	if err := migrate(ctx, s.db); err != nil {
		return err
	}
	return s.probeWrite(ctx)
}

// create makes the store under another name first, so that a file with the right name is always whole:
// one that is not was damaged later.
func (s *SQLite) create(ctx context.Context) (err error) {
	if _, err := os.Stat(s.path + "-wal"); err == nil {
		return fmt.Errorf("%w: %s is missing, but %s-wal, which holds its latest changes, is there", ErrCorrupt, s.path, s.path)
	}
	fresh := s.path + ".new"
	for _, leftover := range []string{fresh, fresh + "-journal"} {
		if err := os.Remove(leftover); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// Made here for its mode: SQLite would use 0644. Its other files copy the mode.
	f, err := os.OpenFile(fresh, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	db, err := connect(fresh, "DELETE", 0)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	if err == nil {
		err = migrate(ctx, db)
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Rename(fresh, s.path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(s.path))
}

// connect opens a file that exists. Documents are rare and must not be lost, hence synchronous=FULL
// and a checkpoint after every commit: the main file is always whole, and an operator who copies it
// alone copies everything.
func connect(path, journal string, maxPages int) (*sql.DB, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	query := url.Values{
		"mode":      {"rw"}, // never make a file
		"_txlock":   {"immediate"},
		"_error_rc": {"true"},
		"_pragma": {
			"busy_timeout(10000)", "journal_mode(" + journal + ")", "synchronous(FULL)",
			"wal_autocheckpoint(1)", "foreign_keys(ON)", "trusted_schema(OFF)", "cell_size_check(ON)",
		},
	}
	if maxPages > 0 {
		query.Add("_pragma", fmt.Sprintf("max_page_count(%d)", maxPages))
	}
	slashed := filepath.ToSlash(absolute)
	if !strings.HasPrefix(slashed, "/") {
		slashed = "/" + slashed // C:/… on Windows
	}
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: slashed, RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(4) // each has a page cache of up to 2 MB; more than one, so that reads nest
	db.SetMaxIdleConns(2)
	return db, nil
}

// Close waits for calls under way and unlocks the data directory.
func (s *SQLite) Close() error {
	var err error
	if s.db != nil {
		if err = s.db.Close(); err != nil {
			err = fmt.Errorf("close the store %s: %w", s.path, err)
		}
	}
	return errors.Join(err, s.lock.unlock())
}
