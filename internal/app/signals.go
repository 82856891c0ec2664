// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-project/sluice/internal/config"
	"github.com/sluice-project/sluice/internal/signal"
)

// signalsDir is where time series are, in the data directory.
const signalsDir = "signals"

// CheckFiles checks what a configuration names and a checked config.Config does not cover: the file of targets, and names
// of Kubernetes.
// It reads no secrets, so that a configuration can be checked where these are not.
func CheckFiles(c config.Config) error {
	if err := clusterOf(c).Validate().Err(); c.Discovery.Kubernetes.Enabled && err != nil {
		return fmt.Errorf("discovery: %w", err)
	}
	if c.Signals.ScrapeConfigFile == "" {
		return nil
	}
	return signal.CheckScrapeConfig(c.Signals.ScrapeConfigFile)
}

// openSignals opens the time series that policies read.
func openSignals(ctx context.Context, c config.Config, registry *prometheus.Registry, log *slog.Logger) (*signal.Service, error) {
	s := signal.Config{
		Dir: filepath.Join(c.DataDir, signalsDir), Retention: c.Signals.Retention.Std(), MaxBytes: c.Signals.MaxBytes,
		MaxSeries: int(c.Signals.MaxSeries), QueryTimeout: c.Signals.QueryTimeout.Std(),
		ScrapeConfigFile: c.Signals.ScrapeConfigFile, Gatherer: registry, Registerer: registry, Logger: log,
	}
	if c.Signals.RemoteURL != "" {
		token, err := secretFrom(c.Signals.RemoteToken, c.Signals.RemoteTokenFile)
		if err != nil {
			return nil, fmt.Errorf("signals.remote_token_file: %w", err)
		}
		s.Remote = &signal.RemoteConfig{URL: c.Signals.RemoteURL, BearerToken: signal.Secret(token)}
	}
	for _, text := range c.Signals.EnforceLabels {
		name, value, _ := strings.Cut(text, "=")
		if s.EnforceLabels == nil {
			s.EnforceLabels = map[string]string{}
		}
		s.EnforceLabels[name] = value
	}
	return signal.Open(ctx, s)
}
