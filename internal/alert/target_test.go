// SPDX-License-Identifier: Apache-2.0

package alert

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// alertmanager answers as one does, and passes on what it was sent.
func alertmanager(t *testing.T) (address string, sent <-chan []postable) {
	t.Helper()
	text, err := os.ReadFile("testdata/postable-alerts.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("postable", parsed); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("postable")
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan []postable, 10)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /am/api/v2/alerts", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if got := r.Header.Get("Content-Type"); got != "application/json" {
			t.Errorf("got content type %q", got)
		}
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
		if err == nil {
			err = schema.Validate(document)
		}
		if err != nil {
			t.Errorf("%v\n%s", err, body)
			http.Error(w, err.Error(), http.StatusBadRequest)
			out <- make([]postable, 1)
			return
		}
		var got []postable
		if err := json.Unmarshal(body, &got); err != nil {
			t.Error(err)
		}
		out <- got
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL + "/am", out
}

func TestAlertmanagerAPI(t *testing.T) {
	address, sent := alertmanager(t)
	c, stop := start(t, Config{
		Targets: []Target{{Name: "am", URL: address}}, PolicyURL: func(p string) string { return "http://sluice.example/debug/" + p },
	})
	defer stop()
	ev := busy("p")
	ev.Channels = []string{"am", "other"}
	ev.Labels = map[string]string{"a.b": "x", "empty": "", "ü": "\xff"}
	ev.ResolveTimeout = 50 * time.Millisecond
	c.Raise(ev)
	firing, resolved := <-sent, <-sent
	if !firing[0].EndsAt.After(time.Now()) || resolved[0].EndsAt.After(time.Now()) {
		t.Errorf("got ends at %v and %v, want one to come and one that was", firing[0].EndsAt, resolved[0].EndsAt)
	}
	if a := firing[0].Annotations; a["alert_channels"] != "am,other" || a["summary"] != "Too busy: policy p, component root.3" {
		t.Errorf("got annotations %q", a)
	}
	if firing[0].GeneratorURL != "http://sluice.example/debug/p" {
		t.Errorf("got generator URL %q", firing[0].GeneratorURL)
	}
	c.Raise(Event{At: time.Now()}) // the least there is
	<-sent
}

func TestWholeAddressOfAlertmanager(t *testing.T) {
	for given, want := range map[string]string{
		"http://am:9093":                "http://am:9093/api/v2/alerts",
		"http://am:9093/":               "http://am:9093/api/v2/alerts",
		"http://u:p@am/base?x=1":        "http://u:p@am/base/api/v2/alerts?x=1",
		"http://am:9093/api/v2/alerts":  "http://am:9093/api/v2/alerts",
		"http://am:9093/api/v2/alerts/": "http://am:9093/api/v2/alerts/",
	} {
		c, err := New(Config{Targets: []Target{{Name: "am", URL: given}}})
		if err != nil {
			t.Fatal(err)
		}
		req, err := c.couriers[0].encode(t.Context(), []Alert{{State: Firing}}, time.Now())
		if err != nil || req.URL.String() != want {
			t.Errorf("%s: got %s, %v, want %s", given, req.URL, err, want)
		}
	}
}

// TestSignature verifies a webhook as its receiver does.
func TestSignature(t *testing.T) {
	for key, raw := range map[string]string{"plain key": "plain key", "whsec_c2VjcmV0": "secret"} {
		type got struct {
			header http.Header
			body   string
		}
		sent := make(chan got, 10)
		server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			sent <- got{r.Header, string(body)}
		}))
		c, stop := start(t, Config{Targets: []Target{{Name: "hook", Type: Webhook, URL: server.URL, SigningKey: key}}})
		c.Raise(busy("p"))
		g := <-sent
		stop()
		server.Close()
		mac := hmac.New(sha256.New, []byte(raw))
		mac.Write([]byte(g.header.Get("Webhook-Id") + "." + g.header.Get("Webhook-Timestamp") + "." + g.body))
		if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); g.header.Get("Webhook-Signature") != want {
			t.Errorf("key %q: got signature %q, want %q", key, g.header.Get("Webhook-Signature"), want)
		}
	}
}

func TestWebhookIDIsStable(t *testing.T) {
	c, err := New(Config{Targets: []Target{pager}})
	if err != nil {
		t.Fatal(err)
	}
	a := Alert{ID: 1, State: Firing, Name: "n", Start: bubbleBegin}
	id := func(a Alert, at time.Time) string {
		req, err := c.couriers[0].encode(t.Context(), []Alert{a}, at)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := req.Header["Webhook-Signature"]; ok {
			t.Error("signed without a key")
		}
		return req.Header.Get("Webhook-Id")
	}
	first := id(a, time.Unix(1, 0))
	if again := id(a, time.Unix(2, 0)); again != first {
		t.Errorf("the same again: got %s and %s", first, again)
	}
	a.State = Resolved
	if other := id(a, time.Unix(1, 0)); other == first {
		t.Error("another state has the same id")
	}
}

// TestRedirectKeepsSecrets follows no redirect, not even to the same host.
func TestRedirectKeepsSecrets(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("got a request with %q", r.Header)
	}))
	defer elsewhere.Close()
	asked := make(chan struct{}, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	c, stop := start(t, Config{Targets: []Target{{Name: "am", URL: server.URL, BearerToken: "sesame"}}})
	c.Raise(busy("p"))
	<-asked
	stop()
}

// TestEndlessAnswer meets a target that never stops answering.
func TestEndlessAnswer(t *testing.T) {
	asked := make(chan struct{}, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, strings.Repeat("x", 1<<16))
		}
	}))
	defer server.Close()
	c, stop := start(t, Config{Targets: []Target{{Name: "hook", Type: Webhook, URL: server.URL}}})
	defer stop()
	ev := busy("p")
	ev.ResolveTimeout = 50 * time.Millisecond
	c.Raise(ev)
	<-asked
	<-asked // it was told of the end, so the first answer did not hold it up
}

func TestMetrics(t *testing.T) {
	c, err := New(Config{Targets: []Target{pager}})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c.Collector()); err != nil {
		t.Fatal(err)
	}
	c.Raise(busy("p"))
	want := `
# HELP sluice_alert_notifications_waiting Alerts that wait to be delivered to a target.
# TYPE sluice_alert_notifications_waiting gauge
sluice_alert_notifications_waiting{target="pager"} 1
# HELP sluice_alerts_fired_total Alerts that have begun to fire since start, by severity: info, warn or crit.
# TYPE sluice_alerts_fired_total counter
sluice_alerts_fired_total{severity="crit"} 0
sluice_alerts_fired_total{severity="info"} 0
sluice_alerts_fired_total{severity="warn"} 1
# HELP sluice_alerts_firing Alerts that fire.
# TYPE sluice_alerts_firing gauge
sluice_alerts_firing 1
`
	err = testutil.GatherAndCompare(registry, strings.NewReader(want),
		"sluice_alerts_firing", "sluice_alerts_fired_total", "sluice_alert_notifications_waiting")
	if err != nil {
		t.Error(err)
	}
	if _, err := registry.Gather(); err != nil {
		t.Error(err)
	}
}

// realAlertmanager starts the one that scripts/setup.sh has fetched, or uses that at
// $SLUICE_TEST_ALERTMANAGER, such as http://127.0.0.1:9093.
func realAlertmanager(t *testing.T) (base string) {
	t.Helper()
	if base = os.Getenv("SLUICE_TEST_ALERTMANAGER"); base != "" {
		return base
	}
	program, err := filepath.Abs("../../bin/alertmanager")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		if os.Getenv("SLUICE_REQUIRE_SERVERS") == "1" {
			t.Fatal("no bin/alertmanager: run scripts/setup.sh")
		}
		t.Skip("no bin/alertmanager: scripts/setup.sh fetches it where the packages of Debian are to be had")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "alertmanager.yml")
	if err := os.WriteFile(config, []byte("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.CommandContext(t.Context(), program, "--config.file="+config, "--storage.path="+dir,
		"--web.listen-address="+address, "--cluster.listen-address=")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Wait() }) // killed by the context of the test
	base = "http://" + address
	eventually(t, func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			err = conn.Close()
		}
		return err == nil
	})
	return base
}

func TestRealAlertmanager(t *testing.T) {
	base := realAlertmanager(t)
	c, stop := start(t, Config{Targets: []Target{{Name: "am", URL: base}}, PolicyURL: func(p string) string { return "http://sluice.example/" + p }})
	defer stop()
	ev := busy("p")
	ev.Labels = map[string]string{"a.b": "x", "ü": "\xff", "empty": "", "run": time.Now().Format(time.RFC3339Nano)}
	ev.ResolveTimeout = time.Hour
	c.Raise(ev)
	alerts := func() string {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, base+"/api/v2/alerts", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	eventually(t, func() bool { return strings.Contains(alerts(), ev.Labels["run"]) })
	t.Log(alerts())
	ev.ResolveTimeout = 10 * time.Millisecond
	c.Raise(ev)
	eventually(t, func() bool { return !strings.Contains(alerts(), ev.Labels["run"]) })
	if got := all(t, c)[0]; got.DeliveryError != "" {
		t.Errorf("got %+v", got)
	}
}

func eventually(t *testing.T, is func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 500 {
		if is() {
			return
		}
		<-tick.C
	}
	t.Fatal("not within 10 s")
}
