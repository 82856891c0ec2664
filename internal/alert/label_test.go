// SPDX-License-Identifier: Apache-2.0

package alert

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestLabels(t *testing.T) {
	base := map[string]string{"alertname": "Too busy", "severity": "info", "policy_name": "p", "component_id": "root.3", "type": "alerter"}
	for _, test := range []struct {
		name   string
		labels map[string]string
		want   map[string]string // besides base
	}{
		{"none", nil, nil},
		{"plain", map[string]string{"team": "search"}, map[string]string{"team": "search"}},
		{"composites say what they are", map[string]string{"type": "aimd_load_scheduler"}, map[string]string{"type": "aimd_load_scheduler"}},
		{"ours cannot be replaced", map[string]string{"alertname": "x", "severity": "crit", "policy_name": "x", "component_id": "x"}, nil},
		{"names that Alertmanager refuses", map[string]string{"a.b": "1", "9lives": "2", "ü": "3"}, map[string]string{"a_b": "1", "_9lives": "2", "_": "3"}},
		{"names that become one", map[string]string{"a.b": "1", "a_b": "2", "a-b": "3"}, map[string]string{"a_b": "3"}},
		{"empty", map[string]string{"": "x", "gone": ""}, nil},
		{"not UTF-8", map[string]string{"x": "a\xff\xfeb"}, map[string]string{"x": "a\uFFFDb"}},
		{"long", map[string]string{"x": "a" + strings.Repeat("ü", 2000)}, map[string]string{"x": "a" + strings.Repeat("ü", 1023)}},
	} {
		want := maps.Clone(base)
		maps.Copy(want, test.want)
		got := labelsOf(Event{Name: "Too busy", Severity: "loud", Policy: "p", Component: "root.3", Labels: test.labels})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
	many := map[string]string{}
	for i := range 1000 {
		many[fmt.Sprint("l", i)] = "x"
	}
	if got := len(labelsOf(Event{Name: "n", Labels: many})); got > maxLabels+5 {
		t.Errorf("got %d labels", got)
	}
}

var promName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// FuzzLabels expects labels that every Alertmanager takes, and identities that only equal labels share.
func FuzzLabels(f *testing.F) {
	f.Add("Too busy", "warn", "p", "team", "search", "a.b", "\xff")
	f.Add("", "", "", "", "", "type", "x")
	f.Fuzz(func(t *testing.T, name, severity, policy, n1, v1, n2, v2 string) {
		ev := Event{Name: name, Severity: severity, Policy: policy, Labels: map[string]string{n1: v1, n2: v2}}
		labels := labelsOf(ev)
		for k, v := range labels {
			if !promName.MatchString(k) || len(k) > maxName {
				t.Errorf("got a label called %q", k)
			}
			if v == "" || !utf8.ValidString(v) || len(v) > maxValue {
				t.Errorf("label %s: got %q", k, v)
			}
		}
		if diff := cmp.Diff(labels, labelsOf(ev)); diff != "" {
			t.Errorf("not the same twice:\n%s", diff)
		}
		for k := range labels {
			fewer := maps.Clone(labels)
			delete(fewer, k)
			if identity(fewer) == identity(labels) {
				t.Errorf("%q and %q have the same identity", fewer, labels)
			}
		}
		c, err := New(Config{Targets: []Target{pager}})
		if err != nil {
			t.Fatal(err)
		}
		c.Raise(ev)
		c.Raise(ev)
		if got := all(t, c); len(got) != 1 {
			t.Fatalf("got %d alerts of one event", len(got))
		}
		req, err := c.couriers[0].encodeWebhook(t.Context(), all(t, c), time.Unix(0, 0))
		if err != nil {
			t.Fatal(err)
		}
		var m message
		if err := json.NewDecoder(req.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(labels, m.Alerts[0].Labels); diff != "" {
			t.Errorf("the webhook changes labels:\n%s", diff)
		}
	})
}

func TestTargets(t *testing.T) {
	for _, test := range []struct {
		target Target
		want   string // empty: good
	}{
		{Target{Name: "a", URL: "http://am:9093"}, ""},
		{Target{Name: "a", Type: Webhook, URL: "https://user:pw@x/y?z", SigningKey: "k"}, ""},
		{Target{Name: "a", Type: Webhook, URL: "https://x", SigningKey: "whsec_c2VjcmV0"}, ""},
		{Target{URL: "http://am:9093"}, "has no name"},
		{Target{Name: "a\xff", URL: "http://am:9093"}, "UTF-8"},
		{Target{Name: strings.Repeat("a", 200), URL: "http://am:9093"}, "200 bytes"},
		{Target{Name: "a", Type: "pigeon", URL: "http://am:9093"}, `got type "pigeon", want alertmanager or webhook`},
		{Target{Name: "a", URL: "am:9093"}, "not an http"},
		{Target{Name: "a", URL: "/secret-path"}, "not an http"},
		{Target{Name: "a", URL: "http://am", SigningKey: "hush-hush"}, "only webhooks"},
		{Target{Name: "a", Type: Webhook, URL: "http://x", SigningKey: "whsec_hush-hush"}, "not base64"},
	} {
		err := test.target.Validate()
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%v: got %v", test.target, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%v: got %v, want it to say %q", test.target, err, test.want)
		}
		if err != nil && (strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "secret-path")) {
			t.Errorf("shows a secret: %v", err)
		}
	}
	same := Target{Name: "a", URL: "http://am"}
	if _, err := New(Config{Targets: []Target{same, same}}); err == nil || !strings.Contains(err.Error(), `two targets are called "a"`) {
		t.Errorf("got %v", err)
	}
}
