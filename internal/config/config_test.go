// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/rpc"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sluice.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, s Sources) Config {
	t.Helper()
	got, err := Load(s)
	if err != nil {
		t.Fatal(err)
	}
	return got.Config
}

func TestDefaults(t *testing.T) {
	c := load(t, Sources{Environ: []string{"HOME=/home/ann"}})
	want := Config{
		Listen: "127.0.0.1:8080", DataDir: filepath.FromSlash("/home/ann/.local/state/sluice"),
		ShutdownTimeout: Duration(10 * time.Second),
		Log:             Log{Level: "info", Format: "text"},
		Limits: Limits{
			MaxAccounts: 4 << 20, MaxWaiting: 100_000, MaxControlPoints: 10_000,
			MaxConnections: 20_000, MaxPolicies: 10_000, KeptVersions: 1000,
		},
		Signals: Signals{
			Retention: Duration(24 * time.Hour), MaxBytes: 512 << 20, MaxSeries: 100_000, QueryTimeout: Duration(5 * time.Second),
		},
		Control:     Control{HistoryTicks: 600},
		Classifiers: Classifiers{Timeout: Duration(10 * time.Millisecond), MaxBodyBytes: 1 << 20},
		Caches: Caches{
			MaxBytes: 64 << 20, MaxValueBytes: 1 << 20, CoalesceTimeout: Duration(30 * time.Second), StaleFor: Duration(5 * time.Minute),
		},
		Discovery: Discovery{
			MaxEntities: 100_000,
			DNS:         DNS{Interval: Duration(30 * time.Second), Timeout: Duration(5 * time.Second), Keep: Duration(10 * time.Minute)},
			Kubernetes:  Kubernetes{ClusterDomain: "cluster.local"},
		},
		ForwardAuth:        ForwardAuth{QueueTimeout: Duration(500 * time.Millisecond)},
		EnvoyAuthorization: EnvoyAuthorization{ApertureMetadata: true},
		EnvoyRateLimit:     EnvoyRateLimit{ControlPoint: "ratelimit/{domain}", Headers: "ratelimit"},
		Debug:              Debug{Enabled: true},
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

func TestDataDir(t *testing.T) {
	for _, tt := range []struct {
		environ []string
		want    string
	}{
		{[]string{"XDG_STATE_HOME=/state", "HOME=/root"}, "/state/sluice"},
		{[]string{"XDG_STATE_HOME=relative", "HOME=/root"}, "/root/.local/state/sluice"},
		{[]string{"HOME=/"}, "/var/lib/sluice"}, // a container without a home
		{nil, "/var/lib/sluice"},
		{[]string{"HOME=/root", "SLUICE_DATA_DIR=/data"}, "/data"},
	} {
		if got := load(t, Sources{Environ: tt.environ}).DataDir; got != filepath.FromSlash(tt.want) {
			t.Errorf("%q: got %s, want %s", tt.environ, got, tt.want)
		}
	}
}

func TestOrderOfSources(t *testing.T) {
	file := write(t, "listen: :1\nlog:\n  level: debug\n  format: json\ndata_dir: /file\n")
	c := load(t, Sources{
		File:    file,
		Environ: []string{"SLUICE_LISTEN=:2", "SLUICE_LOG_LEVEL=warn", "SLUICE_DATA_DIR="},
		Flags:   map[string]Flag{"listen": {"--listen", ":3"}},
	})
	if c.Listen != ":3" || c.Log.Level != "warn" || c.Log.Format != "json" || c.DataDir != "/file" {
		t.Errorf("got %+v, want the flag over the environment over the file", c)
	}
}

// listSamples are values for lists of mappings.
var listSamples = map[string]string{
	"auth.tokens":    `[{"name": "ci", "role": "viewer", "token_file": "/t"}]`,
	"alerts.targets": `[{"name": "pager", "type": "webhook", "url": "http://pager.example"}]`,

	"discovery.static":       `[{"service": "shop", "addresses": ["10.0.0.1"]}]`,
	"discovery.dns.services": `[{"service": "shop", "host": "shop.example"}]`,
}

// samples are values for every other type of setting.
var samples = map[string]string{
	"text": "sample", "duration": "7s", "whole number": "7", "true or false": "true",
	"list of text": "a,b", "mapping of text": "{a: b}",
}

// orElse is a, or b when there is no a.
func orElse(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func TestEveryKeyCanBeSetInTheEnvironment(t *testing.T) {
	for _, k := range Keys() {
		l := &loader{origin: map[string]string{}}
		sample := orElse(samples[k.Type], listSamples[k.Name])
		l.environment([]string{k.Env + "=" + sample})
		if len(l.problems)+len(l.warnings) > 0 {
			t.Errorf("%s: %v %v", k.Env, l.problems, l.warnings)
		}
		if v := k.value(&l.config); v.IsZero() {
			t.Errorf("%s=%s left %s unset", k.Env, sample, k.Name)
		}
	}
}

func TestListsInTheEnvironment(t *testing.T) {
	c := load(t, Sources{Environ: []string{
		"SLUICE_HTTP_ALLOWED_ORIGINS=https://a.example, https://b.example:8443",
		`SLUICE_HTTP_ALLOWED_HOSTS=["a: b", c]`,
		"SLUICE_AUTH_TOKENS=[{name: ci, role: operator,\n token: 0123456789abcdef}]",
	}, Flags: map[string]Flag{"http.allowed_hosts": {"--x", "a.example"}}})
	if diff := cmp.Diff([]string{"https://a.example", "https://b.example:8443"}, c.HTTP.AllowedOrigins); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Token{{Name: "ci", Role: "operator", Token: "0123456789abcdef"}}, c.Auth.Tokens); diff != "" {
		t.Error(diff)
	}
}

func TestStrayVariables(t *testing.T) {
	got, err := Load(Sources{Environ: []string{
		"SLUICE_LOG_LEVL=debug", "SLUICE_SERVER=x", "SLUICE_TOKEN=y", "OTHER=z",
		"SLUICE_PORT=tcp://10.0.0.1:80", "SLUICE_SERVICE_HOST=10.0.0.1", "SLUICE_PORT_80_TCP_ADDR=10.0.0.1",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0].Error(), "SLUICE_LOG_LEVEL") {
		t.Errorf("got warnings %v, want one that suggests SLUICE_LOG_LEVEL", got.Warnings)
	}
}

// TestMistakes has one bad configuration for every rule.
func TestMistakes(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		environ    []string
		want       []string // what the messages say, in order
	}{
		{"unknown key", "lissten: x\n", nil, []string{`:1:1: lissten: unknown field; did you mean "listen"?`}},
		{"signals", "signals:\n  retention: 1m\n  max_series: 5\n  remote_url: prometheus:9090\n  scrape_config_file: /x\n  enforce_labels: [a]\n", nil, []string{
			"signals.retention", "signals.max_series", "signals.remote_url", "signals.scrape_config_file", "signals.enforce_labels[0]",
		}},
		{"alerts", "alerts:\n  external_url: x\n  targets:\n  - {name: a, type: pager, url: ftp://x}\n  - {name: a, url: http://b, signing_key: k}\n", nil, []string{
			"alerts.external_url", "alerts.targets[0].type", "alerts.targets[0].url", "alerts.targets[1].name", "alerts.targets[1].signing_key",
		}},
		{"wrong type", "limits:\n  max_waiting: many\n", nil, []string{`:2:16: limits.max_waiting: got text "many", want a whole number`}},
		{"two mistakes", "log:\n  level: loud\n  format: xml\n", nil, []string{
			`:2:10: log.level: got "loud", want one of debug, info, warn, error`,
			`:3:11: log.format: got "xml", want one of text, json`,
		}},
		{"not YAML", "listen: [\n", nil, []string{":"}},
		{"listen", "listen: 127.0.0.1\n", nil, []string{`listen: got "127.0.0.1", want host:port`}},
		{"port", "listen: 127.0.0.1:99999\n", nil, []string{`listen: got "127.0.0.1:99999"`}},
		{"policy_dir", "data_dir: /x\npolicy_dir: /x/\n", nil, []string{`policy_dir: got "/x/", want a directory other than data_dir`}},
		{"duration without unit", "shutdown_timeout: 5\n", nil, []string{`:1:19: shutdown_timeout: got number 5, want a duration with a unit`}},
		{"duration", "shutdown_timeout: 25h\n", nil, []string{`shutdown_timeout: got 25h0m0s, want 0s to 1h`}},
		{"bound", "limits: {max_policies: 0}\n", nil, []string{`limits.max_policies: got 0, want 1 to 1000000`}},
		{"half of TLS", "tls: {cert_file: /c}\n", nil, []string{`tls.key_file: got nothing, want the path of a file, because tls.cert_file is set`}},
		{"doors", "classifiers: {timeout: 2s, max_body_bytes: 3}\ncaches: {max_value_bytes: 0, stale_for: -1s}\nforward_auth: {queue_timeout: 2m}\nalso_listen: [nowhere]\n", nil, []string{"also_listen[0]", "classifiers.timeout", "classifiers.max_body_bytes", "forward_auth.queue_timeout", "caches.max_value_bytes", "caches.stale_for"}},
		{"services", "discovery:\n  static: [{service: any, addresses: [x]}]\n  dns: {services: [{service: shop}]}\n", nil, []string{"discovery.static[0].service", "discovery.static[0].addresses[0]", "discovery.dns.services[0].host"}},
		{"rate limit service", "envoy_rate_limit: {headers: some}\n", nil, []string{"envoy_rate_limit.headers"}},
		{"origin", "http: {allowed_origins: ['https://x/y', '*']}\n", nil, []string{"http.allowed_origins[0]", "http.allowed_origins[1]"}},
		{"host", "http: {allowed_hosts: ['http://x']}\n", nil, []string{"http.allowed_hosts[0]"}},
		{"no name", "auth: {tokens: [{role: admin, token: 0123456789abcdef}]}\n", nil, []string{"auth.tokens[0].name: got 0 characters, want 1 to 128"}},
		{
			"names", "auth: {tokens: [{name: a, role: admin, token_file: /a}, {name: a, role: admin, token_file: /b}]}\n", nil,
			[]string{`auth.tokens[1].name: got "a", want a name that no other token has`},
		},
		{"role", "auth: {tokens: [{name: a, role: amdin, token_file: /a}]}\n", nil, []string{`did you mean "admin"?`}},
		{"no token", "auth: {tokens: [{name: a, role: admin}]}\n", nil, []string{"want exactly one of them"}},
		{"short token", "auth: {tokens: [{name: a, role: admin, token: secret}]}\n", nil, []string{"got a token of 6 characters"}},
		{"spaces", "auth: {tokens: [{name: a, role: admin, token: '0123456789 abcdef'}]}\n", nil, []string{"want printable ASCII"}},
		{"auth off with tokens", "auth: {disabled: true, tokens: [{name: a, role: admin, token_file: /a}]}\n", nil, []string{"auth.disabled: got true"}},
		{"environment", "", []string{"SLUICE_LOG_LEVEL=loud", "SLUICE_LIMITS_MAX_WAITING=many", "SLUICE_DEBUG_ENABLED=yes"}, []string{
			`SLUICE_LIMITS_MAX_WAITING: limits.max_waiting: got text "many"`, `SLUICE_DEBUG_ENABLED: debug.enabled:`, `SLUICE_LOG_LEVEL: log.level: got "loud"`,
		}},
		{"list in the environment", "", []string{"SLUICE_AUTH_TOKENS=[{name: ci, rolle: admin, token: 0123456789abcdef}]"}, []string{"SLUICE_AUTH_TOKENS: auth.tokens[0].rolle"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := Sources{Environ: tt.environ}
			if tt.file != "" {
				s.File = write(t, tt.file)
			}
			_, err := Load(s)
			var list fielderr.List
			if !errors.As(err, &list) {
				t.Fatalf("got %v, want a list of mistakes", err)
			}
			if len(list) < len(tt.want) {
				t.Fatalf("got %d mistakes, want at least %d:\n%v", len(list), len(tt.want), err)
			}
			for i, want := range tt.want {
				if got := list[i].Error(); !strings.Contains(got, want) {
					t.Errorf("got %q, want it to say %q", got, want)
				}
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	_, err := Load(Sources{File: filepath.Join(t.TempDir(), "nope.yaml")})
	if err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("got %v, want an error that says that the file does not exist", err)
	}
}

func TestEmptyFile(t *testing.T) {
	for _, text := range []string{"", "# nothing\n"} {
		if c := load(t, Sources{File: write(t, text)}); c.Listen != "127.0.0.1:8080" {
			t.Errorf("%q: got listen %q, want the default", text, c.Listen)
		}
	}
}

// TestSecretsAreNotPrinted puts a token everywhere a message could repeat it.
func TestSecretsAreNotPrinted(t *testing.T) {
	const secret = "hunter2-hunter2-hunter2"
	for _, file := range []string{
		"auth: {tokens: [{name: a, role: admin, tokken: " + secret + "}]}",
		"auth: {tokens: " + secret + "}",
		"auth:\n  tokens:\n  - " + secret,
		"auth: {tokens: [{name: a, role: admin, token: [" + secret + "]}]}",
		"auth: {tokens: [{name: a, role: admin, token: '" + secret + "é'}]}",
		"auth: " + secret,
		"alerts: {targets: [{name: a, url: 'http://a', typ: webhook, signing_key: " + secret + "}]}",
		"alerts: {targets: [{name: a, url: [" + secret + "]}]}",
		"signals: {remote_token: " + secret + ", retentoin: 1h}",
	} {
		_, err := Load(Sources{File: write(t, file)})
		var list fielderr.List
		if !errors.As(err, &list) {
			t.Fatalf("%s: got %v, want mistakes", file, err)
		}
		if text := list.Pretty(); strings.Contains(text, "hunter2") {
			t.Errorf("the message repeats the secret:\n%s", text)
		}
	}
	c := Config{Auth: Auth{Tokens: []Token{{Name: "a", Token: secret}}}}
	for _, text := range []string{fmt.Sprint(c), fmt.Sprintf("%+v %#v", c, c), fmt.Sprintf("%v %q", c.Auth.Tokens, c.Auth.Tokens[0].Token)} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("printed the secret: %s", text)
		}
	}
	if text, err := c.Auth.Tokens[0].Token.MarshalJSON(); err != nil || strings.Contains(string(text), "hunter2") {
		t.Errorf("JSON has the secret: %s %v", text, err)
	}
}

func TestLoopback(t *testing.T) {
	for listen, want := range map[string]bool{
		"127.0.0.1:8080": true, "127.1.2.3:0": true, "[::1]:8080": true, "localhost:8080": true, "[::ffff:127.0.0.1]:80": true,
		":8080": false, "0.0.0.0:8080": false, "[::]:8080": false, "10.0.0.1:8080": false, "example.com:8080": false, "bad": false,
	} {
		if got := (Config{Listen: listen}).Loopback(); got != want {
			t.Errorf("%s: got %v, want %v", listen, got, want)
		}
	}
}

func TestLoopbackMeansAllAddresses(t *testing.T) {
	if (Config{Listen: "127.0.0.1:8080", AlsoListen: []string{"localhost:8089", ":4317"}}).Loopback() {
		t.Error("one address that others reach is enough to need tokens")
	}
	if !(Config{Listen: "127.0.0.1:8080", AlsoListen: []string{"localhost:8089"}}).Loopback() {
		t.Error("all addresses are on loopback")
	}
}

func TestValidateChangesNothing(t *testing.T) {
	c := Default()
	c.DataDir = "/x"
	before := c
	if problems := c.Validate(); len(problems) > 0 {
		t.Error(problems)
	}
	if !reflect.DeepEqual(before, c) {
		t.Error("Validate changed the configuration")
	}
}

func TestRolesAreThoseOfTheServer(t *testing.T) {
	for _, name := range Roles {
		if _, err := rpc.ParseRole(name); err != nil {
			t.Error(err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("listen: :1\nauth: {tokens: [{name: a}]}", "warn", "[a")
	f.Fuzz(func(t *testing.T, file, level, hosts string) {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Load(Sources{File: path, Environ: []string{"SLUICE_LOG_LEVEL=" + level, "SLUICE_HTTP_ALLOWED_HOSTS=" + hosts}})
		if err == nil && len(got.Config.Validate()) > 0 {
			t.Errorf("Load accepted what Validate refuses: %v", got.Config.Validate())
		}
	})
}
