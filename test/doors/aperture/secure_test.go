// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/test/doors/doorstest"
)

// certificate makes a certificate for 127.0.0.1 that is its own authority.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "sluice test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", secret)
}

// TestAPIKeys: the key of a client is a token of ours, for decisions and for records.
func TestAPIKeys(t *testing.T) {
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.command(t) // skips where the client is missing
			cert, key := certificate(t)
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
