// SPDX-License-Identifier: Apache-2.0

package app

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-project/sluice/internal/config"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/rpc"
	"github.com/sluice-project/sluice/internal/store"
)

// Files in the data directory.
const (
	adminTokenFile = "admin-token"
	flowKeyFile    = "flow-key"
	startedFile    = "started" // there is a file for everything
)

// checkComplete refuses a data directory from which a part is missing: the server would start without
// policies, or with all limits fresh, as if nothing had ever been there. The marker tells that apart from
// a first start that was cut short. Who wants to go on without the part removes the marker.
func checkComplete(dir string) error {
	marker := filepath.Join(dir, startedFile)
	if _, err := os.Stat(marker); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, part := range []struct{ file, holds string }{
		{store.FileName, "the policies"}, {ledger.FileName, "the counts of limits"},
	} {
		if _, err := os.Stat(filepath.Join(dir, part.file)); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("data directory %s has lost %s, which holds %s: restore it from a backup, or remove %s to start without it",
				dir, part.file, part.holds, marker)
		}
	}
	return nil
}

// Access says who may call a server.
type Access struct {
	auth *rpc.Auth
	// TokenFile holds the admin token that the server has made for itself; "" when it has not.
	TokenFile string
}

// Open tells whether nobody is asked for a token.
func (a Access) Open() bool { return a.auth.Open() }

// String says it in a few words, for the log. It never has a token in it.
func (a Access) String() string {
	switch {
	case a.auth.Open():
		return "nobody is asked for a token"
	case a.TokenFile != "":
		return "the admin token is in " + a.TokenFile
	}
	return "configured tokens"
}

// decideAccess chooses: configured tokens; else none on a loopback address; else an admin token made at
// the first start.
func decideAccess(c config.Config) (Access, error) {
	switch {
	case len(c.Auth.Tokens) > 0:
		return configuredTokens(c.Auth.Tokens)
	case c.Auth.Disabled || c.Loopback():
		return Access{auth: rpc.OpenAuth()}, nil
	}
	path := filepath.Join(c.DataDir, adminTokenFile)
	token, err := keep(path, func() []byte { return []byte("slc_" + rand.Text() + rand.Text() + "\n") })
	if err != nil {
		return Access{}, err
	}
	text := strings.TrimSpace(string(token))
	if err := config.CheckToken(text); err != nil {
		return Access{}, fmt.Errorf("%s: %w; or delete the file to have a new token made", path, err)
	}
	auth, err := rpc.NewAuth([]rpc.Credential{{Name: "admin", Role: rpc.RoleAdmin, Token: text}})
	return Access{auth: auth, TokenFile: path}, err
}

func configuredTokens(tokens []config.Token) (Access, error) {
	var credentials []rpc.Credential
	var errs []error
	for i, t := range tokens {
		token := string(t.Token)
		if t.TokenFile != "" {
			text, err := os.ReadFile(t.TokenFile)
			if err == nil {
				token = strings.TrimSpace(string(text))
				err = config.CheckToken(token)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("auth.tokens[%d].token_file %s: %w", i, t.TokenFile, err))
				continue
			}
		}
		role, err := rpc.ParseRole(t.Role)
		errs = append(errs, err)
		credentials = append(credentials, rpc.Credential{Name: t.Name, Role: role, Token: token})
	}
	if err := errors.Join(errs...); err != nil {
		return Access{}, err
	}
	auth, err := rpc.NewAuth(credentials)
	return Access{auth: auth}, err
}

// tokenKey is the key that seals flow tokens. It outlives restarts, so that flows which were admitted
// before one can be ended after it.
func tokenKey(dir string) ([]byte, error) {
	path := filepath.Join(dir, flowKeyFile)
	text, err := keep(path, func() []byte {
		key := make([]byte, flow.TokenKeySize)
		_, _ = rand.Read(key) // never fails
		return []byte(base64.StdEncoding.EncodeToString(key) + "\n")
	})
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != flow.TokenKeySize {
		return nil, fmt.Errorf("%s is damaged, want %d bytes in base64: restore it, or delete it to have a new key made, after which flows that run now cannot be ended by their token", path, flow.TokenKeySize)
	}
	return key, nil
}

// keep reads a secret file, or makes it for its owner's eyes only. It is written under another name
// first, so that one that exists is whole. REQUIRES the lock of the data directory.
func keep(path string, create func() []byte) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return text, err
	}
	text = create()
	if err := writeSecret(path, text); err != nil {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	return text, nil
}

func writeSecret(path string, text []byte) error {
	fresh := path + ".new"
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return os.Rename(fresh, path)
}
