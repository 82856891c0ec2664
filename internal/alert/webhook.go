// SPDX-License-Identifier: Apache-2.0

package alert

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// message is the body of a webhook. docs/guides/alerts.md describes it: fields are only ever added.
type message struct {
	Version string         `json:"version"`
	Text    string         `json:"text"`
	Alerts  []messageAlert `json:"alerts"`
}

type messageAlert struct {
	ID        string            `json:"id"`
	State     State             `json:"state"`
	Name      string            `json:"name"`
	Severity  string            `json:"severity"`
	Policy    string            `json:"policy"`
	Component string            `json:"component"`
	Labels    map[string]string `json:"labels"`
	Channels  []string          `json:"channels"`
	StartTime time.Time         `json:"start_time"`
	EndTime   *time.Time        `json:"end_time,omitempty"`
	URL       string            `json:"url,omitempty"`
}

func (k *courier) encodeWebhook(ctx context.Context, alerts []Alert, now time.Time) (*http.Request, error) {
	m := message{Version: "1"}
	var lines []string
	for _, a := range alerts {
		out := messageAlert{
			ID: strconv.FormatInt(a.ID, 10), State: a.State, Name: a.Name, Severity: a.Severity, Policy: a.Policy,
			Component: a.Component, Labels: a.Labels, Channels: a.Channels, StartTime: a.Start, URL: k.center.policyURL(a.Policy),
		}
		if out.Channels == nil {
			out.Channels = []string{}
		}
		if a.State == Resolved {
			out.EndTime = &a.End
		}
		m.Alerts = append(m.Alerts, out)
		lines = append(lines, "["+strings.ToUpper(string(a.State))+", "+a.Severity+"] "+summary(a))
	}
	m.Text = strings.Join(lines, "\n")
	body, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	req, err := post(ctx, k.target.URL, body)
	if err != nil {
		return nil, err
	}
	// The body has no time of sending: a repetition has the same id, by which receivers can tell.
	sum := sha256.Sum256(body)
	id, at := "alert_"+hex.EncodeToString(sum[:16]), strconv.FormatInt(now.Unix(), 10)
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", at)
	if k.target.SigningKey != "" {
		req.Header.Set("Webhook-Signature", "v1,"+sign(k.target.SigningKey, id, at, body))
	}
	return req, nil
}

// sign computes the signature of https://www.standardwebhooks.com, for which receivers find libraries.
func sign(key, id, at string, body []byte) string {
	raw, _ := rawKey(key) // Validate has looked at it
	mac := hmac.New(sha256.New, raw)
	mac.Write([]byte(id + "." + at + "."))
	mac.Write(body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// rawKey decodes keys in the form of that specification; others are taken as they are.
func rawKey(key string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(key, "whsec_")
	if !ok {
		return []byte(key), nil
	}
	return base64.StdEncoding.DecodeString(encoded)
}
