// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// MaxDynamicConfig is the most bytes that the dynamic configuration of a policy may take as JSON.
const MaxDynamicConfig = 256 << 10

// LoadDynamicConfig returns what SaveDynamicConfig has stored last for a policy; nil when there is nothing.
// Numbers are float64, lists []any.
func (s *SQLite) LoadDynamicConfig(ctx context.Context, policy string) (map[string]any, error) {
	doing := fmt.Sprintf("read the dynamic configuration of policy %q from", policy)
	var text []byte
	err := s.db.QueryRowContext(ctx, "SELECT config FROM dynamic_configs WHERE policy = ?", policy).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, s.explain(doing, err)
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		return nil, s.explain(doing, fmt.Errorf("%w: %w", ErrCorrupt, err))
	}
	return config, nil
}

// SaveDynamicConfig replaces the dynamic configuration of a policy, which need not exist. It fails for
// values that JSON cannot express and beyond MaxDynamicConfig.
func (s *SQLite) SaveDynamicConfig(ctx context.Context, policy string, config map[string]any) error {
	doing := fmt.Sprintf("write the dynamic configuration of policy %q to", policy)
	if config == nil {
		config = map[string]any{}
	}
	text, err := json.Marshal(config)
	if err != nil {
		return s.explain(doing, err)
	}
	if len(text) > MaxDynamicConfig {
		return s.explain(doing, fmt.Errorf("got %d bytes of JSON, want at most %d", len(text), MaxDynamicConfig))
	}
	_, err = s.db.ExecContext(ctx, "INSERT OR REPLACE INTO dynamic_configs (policy, config, update_time_us) VALUES (?, ?, ?)",
		policy, string(text), time.Now().UnixMicro())
	return s.explain(doing, err)
}

// DeleteDynamicConfig forgets the dynamic configuration of a policy; there need not be one.
func (s *SQLite) DeleteDynamicConfig(ctx context.Context, policy string) error {
	_, err := s.db.ExecContext(ctx, "DELETE FROM dynamic_configs WHERE policy = ?", policy)
	return s.explain(fmt.Sprintf("delete the dynamic configuration of policy %q from", policy), err)
}
