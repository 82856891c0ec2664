// SPDX-License-Identifier: Apache-2.0

package alert

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// postable is postableAlert of the API of Alertmanager,
// https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml.
type postable struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL,omitempty"`
}

// alertmanagerPath is where an Alertmanager takes alerts.
const alertmanagerPath = "/api/v2/alerts"

func (k *courier) encodeAlertmanager(ctx context.Context, alerts []Alert, now time.Time) (*http.Request, error) {
	out := make([]postable, len(alerts))
	for i, a := range alerts {
		out[i] = postable{
			Labels: a.Labels, Annotations: annotations(a), StartsAt: a.Start, EndsAt: a.End, GeneratorURL: k.center.policyURL(a.Policy),
		}
		if a.State == Firing { // over by itself when this server does not send it again
			out[i].EndsAt = now.Add(4 * ResendInterval).Round(0).UTC()
		}
	}
	body, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	base, err := url.Parse(k.target.URL)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(strings.TrimRight(base.Path, "/"), alertmanagerPath) {
		base = base.JoinPath(alertmanagerPath)
	}
	return post(ctx, base.String(), body)
}

func annotations(a Alert) map[string]string {
	out := map[string]string{"summary": summary(a)}
	if len(a.Channels) > 0 {
		out["alert_channels"] = cut(strings.Join(a.Channels, ","), maxValue)
	}
	return out
}

// summary is one line for people.
func summary(a Alert) string {
	text := a.Name
	if a.Policy != "" {
		text += ": policy " + a.Policy
	}
	if a.Component != "" {
		text += ", component " + a.Component
	}
	return text
}

func (c *Center) policyURL(policy string) string {
	if c.config.PolicyURL == nil || policy == "" {
		return ""
	}
	return c.config.PolicyURL(policy)
}
