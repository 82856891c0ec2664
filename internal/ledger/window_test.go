// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-project/sluice/internal/limit"
)

// A first take that is refused counts where refused ones do, though it makes an account for nothing else.
func TestFixedWindowCountsTheFirstTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := NewMemory(Config{MaxAccounts: 100})
		if err != nil {
			t.Fatal(err)
		}
		rule := limit.BucketRule{Capacity: 5, Interval: time.Hour, FixedWindow: true, CountRefused: true}
		b := m.Buckets(1, rule)
		take := func(n float64) bool {
			c, err := b.Take(context.Background(), "k", n, m.Now())
			if err != nil {
				t.Fatal(err)
			}
			return c.OK
		}
		if take(6) || take(1) {
			t.Error("admitted after six of five were asked for in this window")
		}
		time.Sleep(time.Hour)
		if !take(5) || take(1) {
			t.Error("the next window does not admit five and no more")
		}
	})
}
