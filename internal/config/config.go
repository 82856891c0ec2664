// SPDX-License-Identifier: Apache-2.0

// Package config is the configuration of the server: what can be set, what it is unless set, and where
// it may be set.
//
// Load takes, each over the one before: the defaults, the YAML file, the environment, the flags of the
// command line. Every mistake of every source is reported at once. The struct tags are read by the
// decoder (package strict) and by the generator of docs/reference/configuration.md, so the two agree.
package config

//go:generate go test . -run ^TestReference$ -update

import (
	"encoding/json"
	"time"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// Config is everything that can be set. Make one with Load or Default; the zero Config is not valid.
type Config struct {
	// Address to serve on, host:port: gRPC, HTTP with JSON, metrics and debug pages share it. Port 0
	// takes any free port. An address that other machines reach asks for a token; see auth.
	Listen string `json:"listen" default:"127.0.0.1:8080"`
	// More addresses to serve the same on: those that clients of other systems expect, such as :8089 and :4317
	// for clients of Aperture.
	AlsoListen []string `json:"also_listen"`
	// Group of this server: selectors of policies count if their agent_group is the same; that of a selector
	// without one is "default". Unset: this server is in every group.
	AgentGroup string `json:"agent_group"`
	// Directory for everything that survives a restart: policies and their versions, the counts of
	// limits, the key of flow tokens. Made if missing; one server at a time. Unset:
	// $XDG_STATE_HOME/sluice, else ~/.local/state/sluice, else /var/lib/sluice.
	DataDir string `json:"data_dir"`
	// Directory of policy files to keep in force (GitOps): a new or changed *.yaml, *.yml or *.json file
	// is applied, a removed one is deleted. Policies from it cannot be changed by the API. Unset: none.
	PolicyDir string `json:"policy_dir"`
	// How long a stopping server waits for requests under way. Flows that wait in queues are denied at
	// once.
	ShutdownTimeout Duration `json:"shutdown_timeout" default:"10s"`
	// What is logged, to standard error.
	Log Log `json:"log"`
	// Who may call.
	Auth Auth `json:"auth"`
	// Encryption. With both files set the port speaks TLS only.
	TLS TLS `json:"tls"`
	// What browsers and proxies may do.
	HTTP HTTP `json:"http"`
	// Time series that policies read, and where else they come from.
	Signals Signals `json:"signals"`
	// Circuits of policies.
	Control Control `json:"control"`
	// Where alerts go.
	Alerts Alerts `json:"alerts"`
	// Labels that policies derive from requests.
	Classifiers Classifiers `json:"classifiers"`
	// Results that flows share.
	Caches Caches `json:"caches"`
	// Services and their addresses.
	Discovery Discovery `json:"discovery"`
	// Proxies that ask about a request with a request: nginx, Caddy, Traefik, HAProxy.
	ForwardAuth ForwardAuth `json:"forward_auth"`
	// External authorization of Envoy and Istio.
	EnvoyAuthorization EnvoyAuthorization `json:"envoy_authorization"`
	// Rate limit service of Envoy.
	EnvoyRateLimit EnvoyRateLimit `json:"envoy_rate_limit"`
	// Bounds on memory.
	Limits Limits `json:"limits"`
	// Pages for people who look into a running server.
	Debug Debug `json:"debug"`
}

// Log says what is logged.
type Log struct {
	// Least level to log: debug, info, warn or error.
	Level string `json:"level" default:"info"`
	// Format of a line: text or json.
	Format string `json:"format" default:"text"`
}

// Auth says who may call.
type Auth struct {
	// Bearer tokens that are accepted. With none set, a server on a loopback address asks for no token,
	// and one on any other address makes an admin token at its first start and keeps it in the file
	// admin-token of the data directory.
	Tokens []Token `json:"tokens"`
	// Ask nobody for a token. On an address that other machines reach, everybody can then change limits.
	Disabled bool `json:"disabled" default:"false"`
}

// Token is one accepted bearer token. Exactly one of token and token_file must be set.
type Token struct {
	// Name of the holder, for logs and the history of policies.
	Name string `json:"name"`
	// What the holder may do: admin (everything), operator (policies, flows, reading), client (start and
	// end flows) or viewer (reading).
	Role string `json:"role"`
	// The token itself; at least 16 characters.
	Token Secret `json:"token"`
	// File that holds the token; white space around it is ignored. Read at start.
	TokenFile string `json:"token_file"`
}

// TLS names the files for encryption.
type TLS struct {
	// Certificate chain, PEM.
	CertFile string `json:"cert_file"`
	// Private key of the certificate, PEM.
	KeyFile string `json:"key_file"`
}

// HTTP says what browsers may do.
type HTTP struct {
	// Origins, such as https://console.example.com, whose pages may call the API from a browser. Unset:
	// only pages of this server.
	AllowedOrigins []string `json:"allowed_origins"`
	// Names that requests may be addressed to while no token is asked for, besides localhost and IP
	// addresses. It keeps web sites from reaching a server on your machine under a name of their own
	// (DNS rebinding).
	AllowedHosts []string `json:"allowed_hosts"`
}

// Signals says which time series policies can read. Without remote_url Sluice keeps them itself, in the
// directory signals of the data directory.
type Signals struct {
	// How long time series are kept.
	Retention Duration `json:"retention" default:"24h"`
	// Most disk that time series may take, in bytes; the oldest go first.
	MaxBytes int64 `json:"max_bytes" default:"536870912"`
	// Most time series that are kept up to date; about 6 KiB of memory each. New ones beyond it are refused
	// and counted.
	MaxSeries int64 `json:"max_series" default:"100000"`
	// How long a query of a policy may take.
	QueryTimeout Duration `json:"query_timeout" default:"5s"`
	// File in the format of Prometheus whose scrape_configs name targets to scrape, with static_configs or
	// file_sd_configs. Unset: none. Read at start.
	ScrapeConfigFile string `json:"scrape_config_file"`
	// Server with the HTTP API of Prometheus to ask instead, such as http://prometheus:9090. It has to
	// scrape this server.
	RemoteURL string `json:"remote_url"`
	// Bearer token for the remote server.
	RemoteToken Secret `json:"remote_token"`
	// File that holds the bearer token for the remote server. Read at start.
	RemoteTokenFile string `json:"remote_token_file"`
	// Labels, as name=value, that every query of a policy is narrowed to, whatever it says.
	EnforceLabels []string `json:"enforce_labels"`
}

// Control bounds what is kept of circuits.
type Control struct {
	// Ticks of every signal that are kept for the API: 8 bytes for each signal and tick.
	HistoryTicks int64 `json:"history_ticks" default:"600"`
}

// Alerts says where alerts go. They are listed by the API in any case.
type Alerts struct {
	// Receivers of alerts.
	Targets []AlertTarget `json:"targets"`
	// Where people reach this server, for links in alerts, such as https://sluice.example.com. Unset: the
	// address it listens on.
	ExternalURL string `json:"external_url"`
}

// AlertTarget is one receiver of alerts.
type AlertTarget struct {
	// Name of the target: what alert_channels of a policy refer to.
	Name string `json:"name"`
	// What listens there: alertmanager (API v2) or webhook (JSON by POST).
	Type string `json:"type" default:"alertmanager"`
	// Address: of an Alertmanager its base, such as http://alertmanager:9093; of a webhook all of it.
	URL Secret `json:"url"`
	// Bearer token to send.
	BearerToken Secret `json:"bearer_token"`
	// File that holds the bearer token. Read at start.
	BearerTokenFile string `json:"bearer_token_file"`
	// Key that signs webhooks; see the guide to alerts.
	SigningKey Secret `json:"signing_key"`
	// Gets only alerts that name it in alert_channels. Otherwise it gets those without channels, too.
	OnlyNamed bool `json:"only_named" default:"false"`
}

// Limits bound memory. Reaching one is logged or answered, never fatal.
type Limits struct {
	// Accounts kept and slots held, together; about 80 bytes each. Beyond it, idle accounts are
	// forgotten, then new ones of a limiter share one.
	MaxAccounts int64 `json:"max_accounts" default:"4194304"`
	// Flows waiting at one limiter; about 1.5 KiB each. Beyond it flows are denied with queue_full.
	MaxWaiting int64 `json:"max_waiting" default:"100000"`
	// Control points counted one by one. Those beyond that no policy names share one figure.
	MaxControlPoints int64 `json:"max_control_points" default:"10000"`
	// Connections at the same time. More are closed as they come.
	MaxConnections int64 `json:"max_connections" default:"20000"`
	// Policies in force at the same time.
	MaxPolicies int64 `json:"max_policies" default:"10000"`
	// Versions kept of each policy, the newest.
	KeptVersions int64 `json:"kept_versions" default:"1000"`
}

// Debug says which pages for people there are.
type Debug struct {
	// Serve /debug/: queues, accounts, policies, build, configuration without secrets, profiles. It asks
	// for the same tokens as the API: viewer, and admin for profiles and the configuration.
	Enabled bool `json:"enabled" default:"true"`
}

// Default is the configuration with nothing set.
func Default() Config { return strict.Default[Config]() }

// maxAccounts is what one ledger can hold.
const maxAccounts = 4 * ledger.DefaultMaxAccounts

// Secret is text that is never printed: fmt, JSON and logs show a placeholder.
type Secret string

const redacted = "(secret)"

// String hides the text.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString hides the text.
func (s Secret) GoString() string { return s.String() }

// MarshalJSON hides the text.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// Duration is a length of time, written with units: 300ms, 10s, 1m30s.
type Duration time.Duration

var _ strict.Scalar = (*Duration)(nil)

// Std is the duration as package time has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// MarshalJSON writes the duration with units.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// DecodeScalar reads text with units.
func (d *Duration) DecodeScalar(n *strict.Node) *fielderr.Error {
	problem := &fielderr.Error{Want: `a duration with a unit, such as "10s"`}
	if n.Kind != strict.Text {
		return problem
	}
	parsed, err := time.ParseDuration(n.Text)
	if err != nil {
		return problem
	}
	*d = Duration(parsed)
	return nil
}
