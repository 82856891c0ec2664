// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-project/sluice/internal/alert"
)

var _ alert.Store = (*SQLite)(nil)

const alertColumns = "id, name, severity, policy, component, state, labels, channels, start_time_us, last_time_us, end_time_us, resolve_timeout_us, delivery_error, pending"

// SaveAlerts implements alert.Store.
func (s *SQLite) SaveAlerts(ctx context.Context, alerts []alert.Alert, keep int) error {
	const doing = "write alerts to"
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return s.explain(doing, err)
	}
	if err := saveAlerts(ctx, tx, alerts, keep); err != nil {
		return s.explain(doing, errors.Join(err, tx.Rollback()))
	}
	return s.explain(doing, tx.Commit())
}

func saveAlerts(ctx context.Context, tx *sql.Tx, alerts []alert.Alert, keep int) error {
	insert, err := tx.PrepareContext(ctx, "INSERT OR REPLACE INTO alerts ("+alertColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
	if err != nil {
		return err
	}
	defer func() { _ = insert.Close() }()
	for _, a := range alerts {
		labels, err := json.Marshal(a.Labels)
		if err != nil {
			return err
		}
		channels, err := json.Marshal(a.Channels)
		if err != nil {
			return err
		}
		pending, err := json.Marshal(a.Pending)
		if err != nil {
			return err
		}
		end := sql.NullInt64{Int64: a.End.UnixMicro(), Valid: !a.End.IsZero()}
		if _, err := insert.ExecContext(ctx, a.ID, a.Name, a.Severity, a.Policy, a.Component, string(a.State), string(labels), string(channels),
			a.Start.UnixMicro(), a.Last.UnixMicro(), end, a.ResolveTimeout.Microseconds(), a.DeliveryError, string(pending)); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM alerts WHERE id IN (
		SELECT id FROM alerts WHERE state = 'resolved' ORDER BY end_time_us, id
		LIMIT max(0, (SELECT count(*) FROM alerts) - ?))`, max(keep, 0))
	return err
}

// LoadAlerts implements alert.Store.
func (s *SQLite) LoadAlerts(ctx context.Context) ([]alert.Alert, error) {
	const doing = "read alerts from"
	rows, err := s.db.QueryContext(ctx, "SELECT "+alertColumns+" FROM alerts ORDER BY id")
	if err != nil {
		return nil, s.explain(doing, err)
	}
	defer func() { _ = rows.Close() }()
	var out []alert.Alert
	for rows.Next() {
		a, err := scanAlert(rows)
		if err != nil {
			return nil, s.explain(doing, err)
		}
		out = append(out, a)
	}
	return out, s.explain(doing, rows.Err())
}

func scanAlert(rows *sql.Rows) (alert.Alert, error) {
	var a alert.Alert
	var labels, channels, pending []byte
	var start, last, timeout int64
	var end sql.NullInt64
	if err := rows.Scan(&a.ID, &a.Name, &a.Severity, &a.Policy, &a.Component, &a.State, &labels, &channels,
		&start, &last, &end, &timeout, &a.DeliveryError, &pending); err != nil {
		return a, err
	}
	for _, field := range []struct {
		text []byte
		into any
	}{{labels, &a.Labels}, {channels, &a.Channels}, {pending, &a.Pending}} {
		if err := json.Unmarshal(field.text, field.into); err != nil {
			return a, fmt.Errorf("%w: alert %d: %w", ErrCorrupt, a.ID, err)
		}
	}
	a.Start, a.Last = time.UnixMicro(start).UTC(), time.UnixMicro(last).UTC()
	if end.Valid {
		a.End = time.UnixMicro(end.Int64).UTC()
	}
	a.ResolveTimeout = time.Duration(timeout) * time.Microsecond
	return a, nil
}
