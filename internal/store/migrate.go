// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Every file is one step, named NNNN_what.sql and numbered from 0001 without gaps. A step that was
// released is never edited.
//
//go:embed migrations/sqlite/*.sql
var migrations embed.FS

type migration struct {
	number int
	name   string
	sql    string
}

// readMigrations reads the steps of one dialect, in order.
func readMigrations(files fs.FS, dir string) ([]migration, error) {
	entries, err := fs.ReadDir(files, dir) // sorted
	if err != nil {
		return nil, err
	}
	var out []migration
	for i, e := range entries {
		prefix, _, _ := strings.Cut(e.Name(), "_")
		number, err := strconv.Atoi(prefix)
		if err != nil || number != i+1 {
			return nil, fmt.Errorf("migration %s: got number %q, want %04d", e.Name(), prefix, i+1)
		}
		text, err := fs.ReadFile(files, path.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		out = append(out, migration{number, e.Name(), string(text)})
	}
	return out, nil
}

// migrate takes the steps the file does not have yet, each in one transaction. user_version counts them.
func migrate(ctx context.Context, db *sql.DB) error {
	steps, err := readMigrations(migrations, "migrations/sqlite")
	if err != nil {
		return err
	}
	var have int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return err
	}
	if have < 0 || have > len(steps) {
		return fmt.Errorf("%w: it has format %d, this one knows formats up to %d", ErrNewer, have, len(steps))
	}
	for _, step := range steps[have:] {
		if err := takeStep(ctx, db, step); err != nil {
			return fmt.Errorf("migration %s: %w", step.name, err)
		}
	}
	return nil
}

func takeStep(ctx context.Context, db *sql.DB, step migration) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, step.sql)
	if err == nil {
		_, err = tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", step.number))
	}
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}
