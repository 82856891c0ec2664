// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"fmt"
	"testing"

	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/ledger/ledgertest"
)

func TestMemory(t *testing.T) {
	for _, durable := range []bool{false, true} {
		t.Run(fmt.Sprintf("durable=%t", durable), func(t *testing.T) {
			ledgertest.Run(t, ledgertest.Config{Open: func(t *testing.T) ledger.Authority {
				cfg := ledger.Config{}
				if durable {
					cfg.Dir = t.TempDir()
				}
				m, err := ledger.NewMemory(cfg)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := m.Close(); err != nil {
						t.Error(err)
					}
				})
				return m
			}})
		})
	}
}
