// SPDX-License-Identifier: Apache-2.0

package alert

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// What listens at the address of a target.
const (
	// Alertmanager is the Alertmanager of Prometheus, API v2.
	Alertmanager = "alertmanager"
	// Webhook takes alerts as JSON by POST; see docs/guides/alerts.md.
	Webhook = "webhook"
)

// Target is a receiver of alerts.
type Target struct {
	// Name of the target, which channels of an event refer to. Required, unique.
	Name string
	// Type is Alertmanager or Webhook. Empty: Alertmanager.
	Type string
	// URL to post to, http or https. Of an Alertmanager the part before /api/v2/alerts. It may contain
	// secrets and is never logged.
	URL string
	// BearerToken is sent in the Authorization header; empty: none.
	BearerToken string
	// SigningKey signs webhooks; empty: no signature.
	SigningKey string
	// OnlyNamed keeps alerts away that do not name the target in their channels. Otherwise it also gets
	// alerts whose channels name no target at all.
	OnlyNamed bool
}

// Validate says what is wrong with a target. It repeats no secrets.
func (t Target) Validate() error {
	if t.Name == "" {
		return fmt.Errorf("target %s has no name; give it one that alert_channels can refer to", t)
	}
	if len(t.Name) > maxName || !utf8.ValidString(t.Name) {
		return fmt.Errorf("target %.128q: got a name of %d bytes, want valid UTF-8 of at most %d", t.Name, len(t.Name), maxName)
	}
	switch t.Type {
	case "", Alertmanager, Webhook:
	default:
		return fmt.Errorf("target %q: got type %q, want %s or %s", t.Name, t.Type, Alertmanager, Webhook)
	}
	u, err := url.Parse(t.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("target %q: its url is not an http or https address, such as http://alertmanager:9093", t.Name)
	}
	if t.SigningKey != "" && t.kind() != Webhook {
		return fmt.Errorf("target %q: it has a signing key, but only webhooks are signed", t.Name)
	}
	if _, err := rawKey(t.SigningKey); err != nil {
		return fmt.Errorf("target %q: its signing key starts with whsec_, but what follows is not base64", t.Name)
	}
	return nil
}

// String names the target without its secrets.
func (t Target) String() string {
	return fmt.Sprintf("%q (%s at %s)", t.Name, t.kind(), t.host())
}

// LogValue implements slog.LogValuer, so that secrets cannot be logged by mistake.
func (t Target) LogValue() slog.Value { return slog.StringValue(t.String()) }

// secrets are texts that must not be shown, the longest first, so that none is hidden only in part. Of the
// address the path counts, too: that of a chat system's webhook is a password.
func (t Target) secrets() []string {
	all := []string{t.BearerToken, t.SigningKey, t.URL}
	if u, err := url.Parse(t.URL); err == nil {
		password, _ := u.User.Password()
		all = append(all, u.RequestURI(), u.Path, u.RawQuery, password)
	}
	all = slices.DeleteFunc(all, func(s string) bool { return len(strings.Trim(s, "/")) < 6 })
	slices.SortFunc(all, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return all
}

func (t Target) kind() string {
	if t.Type == "" {
		return Alertmanager
	}
	return t.Type
}

// host is the only part of the address that is never secret.
func (t Target) host() string {
	if u, err := url.Parse(t.URL); err == nil && u.Host != "" {
		return u.Host
	}
	return "an unknown host"
}
