// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-project/sluice/internal/fielderr"
)

// The words that settings accept.
var (
	Levels  = []string{"debug", "info", "warn", "error"}
	Formats = []string{"text", "json"}
	Roles   = []string{"admin", "operator", "client", "viewer"}
)

// minTokenLen keeps tokens from being guessed; 16 random characters are out of reach.
const minTokenLen = 16

// Validate reports every mistake at once. It reads nothing but c, and changes nothing.
func (c Config) Validate() fielderr.List {
	v := &validator{}
	v.listen(c.Listen)
	if c.DataDir == "" {
		v.add("data_dir", "nothing", "the path of a directory")
	}
	if c.PolicyDir != "" && filepath.Clean(c.PolicyDir) == filepath.Clean(c.DataDir) {
		v.add("policy_dir", strconv.Quote(c.PolicyDir), "a directory other than data_dir")
	}
	if d := c.ShutdownTimeout.Std(); d < 0 || d > time.Hour {
		v.add("shutdown_timeout", d.String(), "0s to 1h")
	}
	v.oneOf("log.level", c.Log.Level, Levels)
	v.oneOf("log.format", c.Log.Format, Formats)
	v.auth(c.Auth)
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		key, other := "tls.key_file", "tls.cert_file"
		if c.TLS.CertFile == "" {
			key, other = other, key
		}
		v.add(key, "nothing", "the path of a file, because "+other+" is set")
	}
	for i, o := range c.HTTP.AllowedOrigins {
		if !validOrigin(o) {
			v.add(fmt.Sprintf("http.allowed_origins[%d]", i), strconv.Quote(o), "scheme://host or scheme://host:port, such as https://console.example.com")
		}
	}
	for i, h := range c.HTTP.AllowedHosts {
		if h == "" || strings.ContainsAny(h, "/:*@ ") {
			v.add(fmt.Sprintf("http.allowed_hosts[%d]", i), strconv.Quote(h), "a host name without scheme and port, such as sluice.internal")
		}
	}
	v.limits(c.Limits)
	return v.problems
}

// Loopback tells whether only this machine can reach the address.
func (c Config) Loopback() bool {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

type validator struct{ problems fielderr.List }

func (v *validator) add(path, got, want string) {
	v.problems = append(v.problems, &fielderr.Error{Path: path, Got: got, Want: want})
}

func (v *validator) oneOf(path, got string, want []string) {
	if slices.Contains(want, got) {
		return
	}
	v.add(path, strconv.Quote(got), "one of "+strings.Join(want, ", "))
	v.problems[len(v.problems)-1].Hint = fielderr.DidYouMean(got, want)
}

func (v *validator) listen(address string) {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		var n int
		n, err = strconv.Atoi(port)
		if err == nil && n >= 0 && n <= 65535 {
			return
		}
	}
	v.add("listen", strconv.Quote(address), "host:port with a port from 0 to 65535, such as 127.0.0.1:8080, [::1]:8080 or :8080")
}

func (v *validator) auth(a Auth) {
	if a.Disabled && len(a.Tokens) > 0 {
		v.add("auth.disabled", "true", "false, or no auth.tokens: with auth disabled nobody is asked for a token")
	}
	names := map[string]bool{}
	for i, t := range a.Tokens {
		at := fmt.Sprintf("auth.tokens[%d]", i)
		switch {
		case t.Name == "" || len(t.Name) > 128:
			v.add(at+".name", fmt.Sprintf("%d characters", len(t.Name)), "1 to 128")
		case names[t.Name]:
			v.add(at+".name", strconv.Quote(t.Name), "a name that no other token has")
		}
		names[t.Name] = true
		v.oneOf(at+".role", t.Role, Roles)
		switch {
		case (t.Token == "") == (t.TokenFile == ""):
			v.add(at, "both or none of token and token_file", "exactly one of them")
		case t.Token != "":
			if err := CheckToken(string(t.Token)); err != nil {
				v.problems = append(v.problems, &fielderr.Error{Path: at + ".token", Message: err.Error()})
			}
		}
	}
}

// CheckToken refuses tokens that are easy to guess or cannot be sent. The error does not quote it.
func CheckToken(token string) error {
	if len(token) < minTokenLen || len(token) > 1024 {
		return fmt.Errorf("got a token of %d characters, want %d to 1024; make one with: openssl rand -hex 32", len(token), minTokenLen)
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("got a token with spaces or characters outside ASCII, want printable ASCII; make one with: openssl rand -hex 32")
	}
	return nil
}

func (v *validator) limits(l Limits) {
	for _, b := range []struct {
		key         string
		value, most int64
	}{
		{"max_accounts", l.MaxAccounts, maxAccounts},
		{"max_waiting", l.MaxWaiting, 10_000_000},
		{"max_control_points", l.MaxControlPoints, 1_000_000},
		{"max_connections", l.MaxConnections, 1_000_000},
		{"max_policies", l.MaxPolicies, 1_000_000},
		{"kept_versions", l.KeptVersions, 1_000_000},
	} {
		if b.value < 1 || b.value > b.most {
			v.add("limits."+b.key, strconv.FormatInt(b.value, 10), fmt.Sprintf("1 to %d", b.most))
		}
	}
}

func validOrigin(origin string) bool {
	u, err := url.Parse(origin)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil &&
		u.Path == "" && u.RawQuery == "" && u.Fragment == "" && !strings.Contains(u.Host, "*")
}
