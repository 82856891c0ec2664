// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/sluice-project/sluice/internal/document"
)

// The columns of a row, in the order of targets; headline leaves the document out.
const (
	columns  = "name, version, hash, document, blueprint, author, comment, source, file, state, create_time_us, limiters, checksum"
	headline = "name, version, hash, x'', blueprint, author, comment, source, file, state, create_time_us, limiters, x''"
)

// row is one row of policy_versions.
type row struct {
	v            document.Version // without Limiters and CreateTime
	document     []byte
	createTimeUS int64
	limiters     []byte
	checksum     []byte
}

// limiter is the JSON of a document.LimiterRef. The UID is text, because JSON numbers of other readers
// end at 53 bits.
type limiter struct {
	Component   string `json:"component"`
	Kind        string `json:"kind"`
	Key         string `json:"key,omitempty"`
	ContentHash string `json:"content_hash,omitempty"`
	UID         uint64 `json:"uid,string"`
}

func toRow(v document.Version) (row, error) {
	limiters := make([]limiter, len(v.Limiters))
	for i, l := range v.Limiters {
		limiters[i] = limiter(l)
	}
	encoded, err := json.Marshal(limiters)
	if err != nil {
		return row{}, fmt.Errorf("encode the limiters: %w", err)
	}
	r := row{v: v, document: []byte(v.Document), createTimeUS: v.CreateTime.UnixMicro(), limiters: encoded}
	if r.document == nil {
		r.document = []byte{}
	}
	r.checksum = r.sum()
	return r, nil
}

// verified is an error unless a row that was read whole is what was written.
func (r row) verified() error {
	if !bytes.Equal(r.checksum, r.sum()) {
		return fmt.Errorf("%w: policy %q version %d is not what was written", ErrCorrupt, r.v.Name, r.v.Version)
	}
	return nil
}

func (r row) version() (document.Version, error) {
	var limiters []limiter
	if err := json.Unmarshal(r.limiters, &limiters); err != nil {
		return document.Version{}, fmt.Errorf("%w: limiters of policy %q version %d: %w", ErrCorrupt, r.v.Name, r.v.Version, err)
	}
	v := r.v
	v.Document, v.CreateTime = string(r.document), time.UnixMicro(r.createTimeUS).UTC()
	for _, l := range limiters {
		v.Limiters = append(v.Limiters, document.LimiterRef(l))
	}
	return v, nil
}

// sum covers everything but the state, which changes. SQLite checks its structure, not the content.
func (r row) sum() []byte {
	h := sha256.New()
	for _, field := range [][]byte{
		[]byte(r.v.Name), binary.BigEndian.AppendUint64(nil, uint64(r.v.Version)), []byte(r.v.Hash), r.document,
		[]byte(r.v.Blueprint), []byte(r.v.Author), []byte(r.v.Comment), []byte(r.v.Source), []byte(r.v.File),
		binary.BigEndian.AppendUint64(nil, uint64(r.createTimeUS)), r.limiters,
	} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(field)))) // so that fields cannot run into each other
		h.Write(field)
	}
	return h.Sum(nil)
}

func (r *row) targets() []any {
	return []any{
		&r.v.Name, &r.v.Version, &r.v.Hash, &r.document, &r.v.Blueprint, &r.v.Author, &r.v.Comment,
		&r.v.Source, &r.v.File, &r.v.State, &r.createTimeUS, &r.limiters, &r.checksum,
	}
}

// Append implements document.Store.
func (s *SQLite) Append(ctx context.Context, v document.Version, keep int) error {
	doing := fmt.Sprintf("write policy %q version %d to", v.Name, v.Version)
	if v.State != document.StateActive && v.State != document.StateDeleted {
		return fmt.Errorf("%s the store: got state %q, want %q or %q", doing, v.State, document.StateActive, document.StateDeleted)
	}
	r, err := toRow(v)
	if err != nil {
		return s.explain(doing, err)
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return s.explain(doing, err)
	}
	if err := appendRow(ctx, tx, r, max(keep, 1)); err != nil {
		err = errors.Join(err, tx.Rollback())
		if errors.Is(err, document.ErrVersionConflict) {
			return err
		}
		return s.explain(doing, err)
	}
	return s.explain(doing, tx.Commit())
}

func appendRow(ctx context.Context, tx *sql.Tx, r row, keep int) error {
	var newest int64
	err := tx.QueryRowContext(ctx, "SELECT coalesce(max(version), 0) FROM policy_versions WHERE name = ?", r.v.Name).Scan(&newest)
	if err != nil {
		return err
	}
	if newest != r.v.Version-1 {
		return &document.ConflictError{Name: r.v.Name, Expected: r.v.Version - 1, Actual: newest}
	}
	_, err = tx.ExecContext(ctx, "UPDATE policy_versions SET state = 'superseded' WHERE name = ? AND state = 'active'", r.v.Name)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO policy_versions ("+columns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		r.v.Name, r.v.Version, r.v.Hash, r.document, r.v.Blueprint, r.v.Author, r.v.Comment,
		string(r.v.Source), r.v.File, string(r.v.State), r.createTimeUS, string(r.limiters), r.checksum)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM policy_versions WHERE name = ? AND version <= ?", r.v.Name, r.v.Version-int64(keep))
	return err
}

// Active implements document.Store. A damaged version ends it.
func (s *SQLite) Active(ctx context.Context) iter.Seq2[document.Version, error] {
	return func(yield func(document.Version, error) bool) {
		rows, err := s.db.QueryContext(ctx, "SELECT "+columns+" FROM policy_versions WHERE state = 'active' ORDER BY name")
		if err != nil {
			yield(document.Version{}, s.explain("read policies from", err))
			return
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			v, err := scanVersion(rows)
			if err != nil {
				yield(document.Version{}, s.explain("read policies from", err))
				return
			}
			if !yield(v, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(document.Version{}, s.explain("read policies from", err))
		}
	}
}

// Get implements document.Store.
func (s *SQLite) Get(ctx context.Context, name string, version int64) (document.Version, error) {
	query, args := "SELECT "+columns+" FROM policy_versions WHERE name = ? ORDER BY version DESC LIMIT 1", []any{name}
	if version != 0 {
		query, args = "SELECT "+columns+" FROM policy_versions WHERE name = ? AND version = ?", []any{name, version}
	}
	v, err := scanVersion(s.db.QueryRowContext(ctx, query, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return document.Version{}, fmt.Errorf("policy %q version %d: %w", name, version, document.ErrNotFound)
	}
	return v, s.explain("read a policy from", err)
}

// List implements document.Store. It does not verify checksums: they cover the documents, and reading a
// long history for its headlines would take a GiB.
func (s *SQLite) List(ctx context.Context, name string, before int64, limit int) ([]document.Version, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT "+headline+
		" FROM policy_versions WHERE name = ? AND (? = 0 OR version < ?) ORDER BY version DESC LIMIT ?", name, before, before, max(limit, 0))
	if err != nil {
		return nil, s.explain("read the history of a policy from", err)
	}
	defer func() { _ = rows.Close() }()
	var out []document.Version
	for rows.Next() {
		var r row
		if err := rows.Scan(r.targets()...); err != nil {
			return nil, s.explain("read the history of a policy from", err)
		}
		v, err := r.version()
		if err != nil {
			return nil, s.explain("read the history of a policy from", err)
		}
		out = append(out, v)
	}
	return out, s.explain("read the history of a policy from", rows.Err())
}

func scanVersion(from interface{ Scan(...any) error }) (document.Version, error) {
	var r row
	if err := from.Scan(r.targets()...); err != nil {
		return document.Version{}, err
	}
	if err := r.verified(); err != nil {
		return document.Version{}, err
	}
	return r.version()
}
