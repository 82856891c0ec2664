// SPDX-License-Identifier: Apache-2.0

package app

import (
	"cmp"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/sluice-project/sluice/internal/alert"
	"github.com/sluice-project/sluice/internal/config"
)

// secretFrom is a secret of the configuration, or what the file holds that is named instead.
func secretFrom(secret config.Secret, file string) (string, error) {
	if file == "" {
		return string(secret), nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read a secret: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// alertTargets reads the secrets of the targets.
func alertTargets(c config.Alerts) ([]alert.Target, error) {
	out := make([]alert.Target, len(c.Targets))
	for i, t := range c.Targets {
		bearer, err := secretFrom(t.BearerToken, t.BearerTokenFile)
		if err != nil {
			return nil, fmt.Errorf("alerts.targets[%d].bearer_token_file: %w", i, err)
		}
		out[i] = alert.Target{
			Name: t.Name, Type: t.Type, URL: string(t.URL), BearerToken: bearer,
			SigningKey: string(t.SigningKey), OnlyNamed: t.OnlyNamed,
		}
	}
	return out, nil
}

// policyURL says where people look at a policy.
func (p *parts) policyURL(policy string) string {
	base := cmp.Or(p.config.Alerts.ExternalURL, "http://"+p.listeners[0].Addr().String())
	return strings.TrimSuffix(base, "/") + "/debug/circuits?policy=" + url.QueryEscape(policy)
}
