// SPDX-License-Identifier: Apache-2.0

package app

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sluice-project/sluice/internal/config"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/version"
)

// newLogger writes to w, or to standard error when w is nil.
func newLogger(c config.Log, w io.Writer) *slog.Logger {
	if w == nil {
		w = os.Stderr
	}
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // validated before
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// newRegistry has the metrics that are not a package's own.
func newRegistry(engine *flow.Engine, memory *ledger.Memory) (*prometheus.Registry, error) {
	r := prometheus.NewRegistry()
	v := version.Get()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_build_info", Help: "Always 1; the labels tell the build.",
		ConstLabels: prometheus.Labels{"version": v.Version, "commit": v.Commit, "go": v.Go},
	})
	build.Set(1)
	shared := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "sluice_ledger_shared_takes_total",
		Help: "Takes charged to an account that several keys share, because as many accounts exist as may (limits.max_accounts).",
	}, func() float64 { return float64(memory.SharedTakes()) })
	var errs []error
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		build, shared, engine.Collector(), engine.CompatCollector(),
	} {
		errs = append(errs, r.Register(c))
	}
	return r, errors.Join(errs...)
}

func metricsHandler(r *prometheus.Registry, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
	})
}
