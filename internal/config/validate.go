// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
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
	v.listen("listen", c.Listen)
	for i, address := range c.AlsoListen {
		v.listen(fmt.Sprintf("also_listen[%d]", i), address)
	}
	if len(c.AgentGroup) > 128 {
		v.add("agent_group", fmt.Sprintf("%d characters", len(c.AgentGroup)), "at most 128")
	}
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
	v.signals(c.Signals)
	v.between("control.history_ticks", c.Control.HistoryTicks, 1, 100_000)
	v.alerts(c.Alerts)
	v.doors(c)
	v.limits(c.Limits)
	return v.problems
}

// Addresses are those to serve on, Listen first.
func (c Config) Addresses() []string { return append([]string{c.Listen}, c.AlsoListen...) }

// Loopback tells whether only this machine can reach the addresses.
func (c Config) Loopback() bool {
	return !slices.ContainsFunc(c.Addresses(), func(address string) bool { return !isLoopback(address) })
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
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

func (v *validator) listen(path, address string) {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		var n int
		n, err = strconv.Atoi(port)
		if err == nil && n >= 0 && n <= 65535 {
			return
		}
	}
	v.add(path, strconv.Quote(address), "host:port with a port from 0 to 65535, such as 127.0.0.1:8080, [::1]:8080 or :8080")
}

func (v *validator) auth(a Auth) {
	if a.Disabled && len(a.Tokens) > 0 {
		v.add("auth.disabled", "true", "false, or no auth.tokens: with auth disabled nobody is asked for a token")
	}
	names := map[string]bool{}
	for i, t := range a.Tokens {
		at := fmt.Sprintf("auth.tokens[%d]", i)
		v.name(at, t.Name, "token", names)
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
		v.between("limits."+b.key, b.value, 1, b.most)
	}
}

func (v *validator) between(path string, value, least, most int64) {
	if value < least || value > most {
		v.add(path, strconv.FormatInt(value, 10), fmt.Sprintf("%d to %d", least, most))
	}
}

func (v *validator) signals(s Signals) {
	if d := s.Retention.Std(); d < time.Hour || d > 10*365*24*time.Hour {
		v.add("signals.retention", d.String(), "1h to 87600h")
	}
	v.between("signals.max_bytes", s.MaxBytes, 64<<20, 1<<50)
	v.between("signals.max_series", s.MaxSeries, 1000, 100_000_000)
	if d := s.QueryTimeout.Std(); d < 10*time.Millisecond || d > 5*time.Minute {
		v.add("signals.query_timeout", d.String(), "10ms to 5m")
	}
	if s.RemoteURL != "" {
		v.url("signals.remote_url", s.RemoteURL, "http://prometheus:9090")
		if s.ScrapeConfigFile != "" {
			v.add("signals.scrape_config_file", strconv.Quote(s.ScrapeConfigFile), "nothing, because the server at signals.remote_url does the scraping")
		}
	}
	if s.RemoteToken != "" && s.RemoteTokenFile != "" {
		v.add("signals", "both remote_token and remote_token_file", "one of them")
	}
	for i, text := range s.EnforceLabels {
		if name, _, ok := strings.Cut(text, "="); !ok || !labelName.MatchString(name) {
			v.add(fmt.Sprintf("signals.enforce_labels[%d]", i), strconv.Quote(text), "name=value, such as cluster=eu-1")
		}
	}
}

var labelName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (v *validator) url(path, text, example string) {
	if !isWeb(text) {
		v.add(path, strconv.Quote(text), "an http or https address, such as "+example)
	}
}

func isWeb(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// name checks the name of an item of a list and adds it to those that are taken.
func (v *validator) name(at, name, what string, taken map[string]bool) {
	switch {
	case name == "" || len(name) > 128:
		v.add(at+".name", fmt.Sprintf("%d characters", len(name)), "1 to 128")
	case taken[name]:
		v.add(at+".name", strconv.Quote(name), "a name that no other "+what+" has")
	}
	taken[name] = true
}

// AlertTypes are the kinds of receivers.
var AlertTypes = []string{"alertmanager", "webhook"}

func (v *validator) alerts(a Alerts) {
	if a.ExternalURL != "" {
		v.url("alerts.external_url", a.ExternalURL, "https://sluice.example.com")
	}
	names := map[string]bool{}
	for i, t := range a.Targets {
		at := fmt.Sprintf("alerts.targets[%d]", i)
		v.name(at, t.Name, "target", names)
		v.oneOf(at+".type", t.Type, AlertTypes)
		if !isWeb(string(t.URL)) { // which may hold a secret: it is not repeated
			v.add(at+".url", "something else", "an http or https address, such as http://alertmanager:9093")
		}
		if t.BearerToken != "" && t.BearerTokenFile != "" {
			v.add(at, "both bearer_token and bearer_token_file", "one of them")
		}
		if t.SigningKey != "" && t.Type != "webhook" {
			v.add(at+".signing_key", "a key", "nothing, because only webhooks are signed")
		}
	}
}

func validOrigin(origin string) bool {
	u, err := url.Parse(origin)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil &&
		u.Path == "" && u.RawQuery == "" && u.Fragment == "" && !strings.Contains(u.Host, "*")
}
