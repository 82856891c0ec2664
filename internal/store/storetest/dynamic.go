// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"math"
	"strings"
	"testing"
)

// DynamicConfigStore keeps the dynamic configuration of policies.
type DynamicConfigStore interface {
	LoadDynamicConfig(ctx context.Context, policy string) (map[string]any, error)
	SaveDynamicConfig(ctx context.Context, policy string, config map[string]any) error
	DeleteDynamicConfig(ctx context.Context, policy string) error
}

// RunDynamicConfig runs the suite every store of dynamic configuration must pass. open makes an empty
// store for one test and closes it when the test ends.
func RunDynamicConfig(t *testing.T, open func(t *testing.T) DynamicConfigStore) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, DynamicConfigStore)
	}{
		{"reads back what was written", testDynamicRoundTrip},
		{"refuses", testDynamicRefuses},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

func expectDynamic(t *testing.T, s DynamicConfigStore, policy string, want map[string]any) {
	t.Helper()
	got, err := s.LoadDynamicConfig(t.Context(), policy)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	equal(t, "configuration of "+policy, got, want)
}

func saveDynamic(t *testing.T, s DynamicConfigStore, policy string, config map[string]any) {
	t.Helper()
	if err := s.SaveDynamicConfig(t.Context(), policy, config); err != nil {
		t.Fatalf("save: %v", err)
	}
}

func testDynamicRoundTrip(t *testing.T, s DynamicConfigStore) {
	expectDynamic(t, s, "a", nil)
	first := map[string]any{"dry_run": true, "odd ü ' key": 1.5, "ids": []any{"x", "y"}}
	saveDynamic(t, s, "a", first)
	saveDynamic(t, s, "b", nil)
	expectDynamic(t, s, "a", first)
	expectDynamic(t, s, "b", map[string]any{})
	second := map[string]any{"dry_run": false}
	saveDynamic(t, s, "a", second)
	expectDynamic(t, s, "a", second)
	for range 2 {
		if err := s.DeleteDynamicConfig(t.Context(), "a"); err != nil {
			t.Fatalf("delete: %v", err)
		}
		expectDynamic(t, s, "a", nil)
	}
	expectDynamic(t, s, "b", map[string]any{})
}

func testDynamicRefuses(t *testing.T, s DynamicConfigStore) {
	good := map[string]any{"x": 1.0}
	saveDynamic(t, s, "a", good)
	for _, bad := range []map[string]any{
		{"x": math.NaN()}, {"x": func() {}}, {"x": strings.Repeat("y", 1<<20)},
	} {
		if err := s.SaveDynamicConfig(t.Context(), "a", bad); err == nil {
			t.Errorf("%.40v: got no error", bad)
		}
	}
	expectDynamic(t, s, "a", good)
}
