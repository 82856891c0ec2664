// SPDX-License-Identifier: Apache-2.0

// Package signal keeps time series, runs the queries of policies over them, and holds their latest readings.
//
// Series come from three sides: what this process measures (Collect), what is scraped (Config.ScrapeConfigFile)
// and what others send (Service.Appendable, which package promapi serves). They are kept in an embedded
// Prometheus TSDB, bounded in time, bytes and series. Or another server with the HTTP API of Prometheus keeps
// them (Config.Remote), and this package only asks it.
//
// The control plane drives it: at a tick it calls Collect, then Step, and then reads its subscriptions. What
// was counted before Collect is in the readings of the same tick. Nothing here ever stops the server: signals
// can be measured again, so a database that is broken is moved aside, and a query that fails is an invalid
// reading that says why.
//
// This package and promapi are the only ones that know the types of Prometheus.
package signal

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
)

// Job is the label job of all series that this process measures. Nobody else may send series with it.
const Job = "sluice"

// Secret is text that is not shown: it prints as ***.
type Secret string

// String implements fmt.Stringer.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return s.String() }

// Config is how to keep series and run queries. DefaultConfig has the defaults; a zero stands for them, too.
type Config struct {
	// Dir is where the series are, and nothing else; it is made if needed. Not used with Remote. The caller
	// sees to it that no other process uses it.
	Dir string
	// Retention is how long series are kept; at least an hour.
	Retention time.Duration
	// MaxBytes bounds the disk that series take; the oldest go first. At least 64 MiB.
	MaxBytes int64
	// MaxSeries bounds the series that got a sample lately. New ones beyond it are refused. The last tenth is
	// for what this process measures.
	MaxSeries int
	// Remote keeps the series instead of Dir. nil: none.
	Remote *RemoteConfig
	// Gatherer has the metrics of this process. nil: none.
	Gatherer prometheus.Gatherer
	// QueryTimeout bounds one query of a policy.
	QueryTimeout time.Duration
	// MaxConcurrent bounds how many queries of policies run at a time.
	MaxConcurrent int
	// Lookback is how old the last sample of a series may be to count as its value now. Series that end
	// properly end at once, see docs/guides/signals.md.
	Lookback time.Duration
	// EnforceLabels are added, as matchers, to every selector of every query of a policy.
	EnforceLabels map[string]string
	// ScrapeConfigFile names targets to scrape, in the format of Prometheus. Unset: none. Not with Remote.
	ScrapeConfigFile string
	// Logger gets what operators should know. nil: nothing is logged.
	Logger *slog.Logger
	// Registerer gets the metrics of this package. nil: they are not registered.
	Registerer prometheus.Registerer
}

// RemoteConfig is a server with the HTTP API of Prometheus.
type RemoteConfig struct {
	// URL is its base, such as http://prometheus:9090 or https://mimir/prometheus.
	URL string
	// BearerToken is sent along. Unset: none.
	BearerToken Secret
	// Headers are sent along, such as X-Scope-OrgID.
	Headers map[string]string
	// Transport speaks HTTP. nil: one of its own.
	Transport http.RoundTripper
}

// mostConcurrent is how many queries run at a time where processors are not scarce.
const mostConcurrent = 4

// DefaultConfig is what Config's zero values stand for.
func DefaultConfig() Config {
	return Config{
		Retention:     24 * time.Hour,
		MaxBytes:      512 << 20,
		MaxSeries:     100_000,
		QueryTimeout:  5 * time.Second,
		MaxConcurrent: max(1, min(runtime.GOMAXPROCS(0)/2, mostConcurrent)), // decisions need processors, too
		Lookback:      3 * time.Minute,                                      // three times the slowest usual interval of who sends metrics, a minute
		Logger:        slog.New(slog.DiscardHandler),
	}
}

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	d := DefaultConfig()
	orElse(&c.Retention, d.Retention)
	orElse(&c.MaxBytes, d.MaxBytes)
	orElse(&c.MaxSeries, d.MaxSeries)
	orElse(&c.QueryTimeout, d.QueryTimeout)
	if c.Remote != nil {
		d.MaxConcurrent = mostConcurrent // its processors, not ours
	}
	orElse(&c.MaxConcurrent, d.MaxConcurrent)
	orElse(&c.Lookback, d.Lookback)
	if c.Logger == nil {
		c.Logger = d.Logger
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	return c
}

func orElse[T comparable](value *T, otherwise T) {
	if *value == *new(T) {
		*value = otherwise
	}
}

// Validate says what is wrong with a configuration whose defaults are filled in; nil: nothing.
func (c Config) Validate() error {
	switch {
	case c.Remote == nil && c.Dir == "":
		return fmt.Errorf("signals: no directory and no remote server, want one of them")
	case c.Retention < time.Hour:
		return fmt.Errorf("signals: retention: got %v, want at least 1h", c.Retention)
	case c.MaxBytes < 64<<20:
		return fmt.Errorf("signals: max_bytes: got %d, want at least %d", c.MaxBytes, 64<<20)
	case c.MaxSeries < 1000:
		return fmt.Errorf("signals: max_series: got %d, want at least 1000", c.MaxSeries)
	case c.QueryTimeout < 0 || c.MaxConcurrent < 0 || c.Lookback < 0:
		return fmt.Errorf("signals: a negative time-out, concurrency or lookback")
	case c.Remote != nil && c.ScrapeConfigFile != "":
		return fmt.Errorf("signals: scrape_config_file: got %q, want nothing, because the remote server does the scraping", c.ScrapeConfigFile)
	}
	if c.Remote != nil {
		u, err := url.Parse(c.Remote.URL)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("signals: remote_url: got %q, want an http or https address, such as http://prometheus:9090", c.Remote.URL)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.EnforceLabels)) {
		if !model.LegacyValidation.IsValidLabelName(name) || name == model.MetricNameLabel {
			return fmt.Errorf("signals: enforce_labels: got %q, want the name of a label", name)
		}
	}
	return nil
}
