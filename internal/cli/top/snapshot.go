// SPDX-License-Identifier: Apache-2.0

package top

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"

	"github.com/sluice-project/sluice/internal/cli/screen"
)

// printSnapshot waits for two overviews and prints them as text.
func printSnapshot(ctx context.Context, cfg Config) error {
	watching, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var prev, next *observev1.Overview
	err := watch(watching, cfg, func(o *observev1.Overview) {
		prev, next = next, o
		if prev != nil {
			stop(errEnough)
		}
	})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case prev == nil && next == nil:
		return fmt.Errorf("watch %s: %w", cfg.Server, err)
	case prev == nil:
		return fmt.Errorf("watch %s: rates need two answers, only one came: %w", cfg.Server, err)
	}
	if _, err := fmt.Fprint(cfg.Out, snapshot(cfg.Server, compare(prev, next))); err != nil {
		return fmt.Errorf("print the snapshot: %w", err)
	}
	return nil
}

// errEnough ends the stream after the second overview.
var errEnough = errors.New("two overviews are enough")

// snapshot is a frame as plain text: every column of every table, nothing shortened, no bars.
func snapshot(server string, f frame) string {
	var b strings.Builder
	over := "rates unknown"
	if f.over > 0 {
		over = "rates over " + f.over.Round(time.Millisecond).String()
	}
	fmt.Fprintf(&b, "%s at %s, %s\n", server, stamp(f.at, time.UTC, time.RFC3339), over)
	fmt.Fprintln(&b, totals(f))
	for _, t := range tables(f) {
		for i := range t.columns {
			if t.columns[i].kind == barColumn {
				t.columns[i].kind = numberColumn
			}
		}
		cols := t.layout(math.MaxInt32)
		fmt.Fprintf(&b, "\n%s\n", strings.ToUpper(t.title))
		if len(t.rows) == 0 {
			fmt.Fprintln(&b, t.empty)
			continue
		}
		fmt.Fprintln(&b, t.headings(cols, 0, noPaint))
		for _, r := range t.rows {
			fmt.Fprintln(&b, line(cols, r, noPaint))
		}
	}
	return b.String()
}

// totals sums up a frame in one line.
func totals(f frame) string {
	return fmt.Sprintf("%s admitted/s, %s denied/s, %s waiting",
		formatRate(f.admitRate), formatRate(f.denyRate), screen.Number(float64(f.waiting)))
}

// stamp prints when an overview was made.
func stamp(at time.Time, zone *time.Location, layout string) string {
	if at.IsZero() {
		return "an unknown time"
	}
	return at.In(zone).Format(layout)
}
