// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/test/doors/doorstest"
)

// TestAPIKeys: the key of a client is a token of ours, for decisions and for records.
func TestAPIKeys(t *testing.T) {
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.command(t) // skips where the client is missing
			cert, key := doorstest.Certificate(t)
			tokens := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(tokens, []byte("0123456789abcdef0123456789abcdef\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			config := filepath.Join(t.TempDir(), "sluice.yaml")
			text := "auth:\n  tokens:\n    - {name: app, role: client, token_file: " + tokens + "}\n"
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			s := doorstest.Sluice(t, doorstest.Options{
				Policies: []string{policies}, Args: []string{"--config", config, "--tls-cert", cert, "--tls-key", key},
			})
			good := startDriver(t, c, s.Addr, cert, "0123456789abcdef0123456789abcdef")
			wantRun(t, "slot", good.start("1", "slots"), true)
			wantRun(t, "no slot", good.start("2", "slots"), false)
			good.end("1", "record_only", true)
			good.flush()
			doorstest.Eventually(t, func() error {
				out := good.start("3", "slots")
				if out["run"] != true {
					return errors.New("the record has not given the slot back")
				}
				return nil
			})
			bad := startDriver(t, c, s.Addr, cert, "wrong")
			out := bad.start("1", "slots")
			if text, _ := out["error"].(string); !strings.Contains(strings.ToUpper(text), "UNAUTHENTICATED") {
				t.Errorf("wrong key: got %v, want UNAUTHENTICATED", out)
			}
		})
	}
}
