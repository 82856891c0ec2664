// SPDX-License-Identifier: Apache-2.0

// Package app builds the server from its configuration and runs it. It is the one package that knows
// all the others: Start reads from top to bottom in the order in which things depend on each other, and
// the compiler checks the wiring.
package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-project/sluice/internal/alert"
	"github.com/sluice-project/sluice/internal/cache"
	"github.com/sluice-project/sluice/internal/config"
	"github.com/sluice-project/sluice/internal/control"
	"github.com/sluice-project/sluice/internal/discovery"
	"github.com/sluice-project/sluice/internal/discovery/kubernetes"
	"github.com/sluice-project/sluice/internal/document"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/promapi"
	"github.com/sluice-project/sluice/internal/rpc"
	"github.com/sluice-project/sluice/internal/signal"
	"github.com/sluice-project/sluice/internal/store"
	"github.com/sluice-project/sluice/internal/version"
)

// Options are what a server gets from its surroundings.
type Options struct {
	// LogTo gets the log; nil: standard error.
	LogTo io.Writer
	// Warnings about the configuration are logged first.
	Warnings []string
}

// App is a running server. Its methods may be called concurrently.
type App struct {
	config    config.Config
	log       *slog.Logger
	listeners []net.Listener
	access    Access
	done      chan struct{}
	err       error // of the group; read it after done is closed
	cancel    context.CancelFunc
}

// Run starts a server and waits until it has stopped: when ctx ends, or when it fails.
func Run(ctx context.Context, c config.Config, o Options) error {
	a, err := Start(ctx, c, o)
	if err != nil {
		return err
	}
	return a.Wait()
}

// Start starts a server. It accepts requests when Start returns, and stops when ctx ends. An error says
// why it cannot run; everything that was opened has been closed again.
func Start(ctx context.Context, c config.Config, o Options) (*App, error) {
	if err := c.Validate().Err(); err != nil {
		return nil, err
	}
	p := &parts{config: c, log: newLogger(c.Log, o.LogTo), begin: time.Now()}
	for _, w := range o.Warnings {
		p.log.Warn("the configuration has something odd", "problem", w)
	}
	if err := p.build(ctx); err != nil {
		return nil, errors.Join(err, p.close())
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &App{config: c, log: p.log, listeners: p.listeners, access: p.access, done: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(a.done)
		defer cancel()
		a.err = p.run(ctx)
	}()
	p.log.Info("serving", "address", a.Addr(), "also", a.AlsoAddrs(), "version", version.Get().String(), "data_dir", c.DataDir,
		"auth", a.access.String(), "policies", p.policies(), "started_in", time.Since(p.begin).Round(time.Millisecond))
	return a, nil
}

// Addr is the address the server listens on, with the port it was given.
func (a *App) Addr() string { return a.listeners[0].Addr().String() }

// AlsoAddrs are the further addresses, in the order of the configuration.
func (a *App) AlsoAddrs() []string {
	var out []string
	for _, l := range a.listeners[1:] {
		out = append(out, l.Addr().String())
	}
	return out
}

// URL is where to reach the server from this machine.
func (a *App) URL() string {
	scheme := "http"
	if a.config.TLS.CertFile != "" {
		scheme = "https"
	}
	host, port, err := net.SplitHostPort(a.Addr())
	if err != nil {
		return scheme + "://" + a.Addr()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "localhost"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// Access says who may call.
func (a *App) Access() Access { return a.access }

// Wait waits until the server has stopped and returns why; nil when it was told to.
func (a *App) Wait() error {
	<-a.done
	return a.err
}

// Close stops the server and waits until it has. It may be called more than once.
func (a *App) Close() error {
	a.cancel()
	return a.Wait()
}

// parts are what a server is made of.
type parts struct {
	config    config.Config
	log       *slog.Logger
	begin     time.Time
	access    Access
	registry  *prometheus.Registry
	listeners []net.Listener
	store     *store.SQLite
	ledger    *ledger.Memory
	cache     *cache.Cache
	engine    *flow.Engine
	directory *discovery.Directory
	cluster   *kubernetes.Source // nil: none is watched
	signals   *signal.Service
	alerts    *alert.Center
	runtime   *control.Runtime
	catalog   *document.Catalog
	watch     *document.Watch // nil without a policy directory
	server    *rpc.Server
	drain     func() // ends what waits
}

// build makes everything, in the order of dependence. On an error, close closes what there is.
func (p *parts) build(ctx context.Context) (err error) {
	c := p.config
	// The ports first: they are what most often goes wrong, and clients that connect meanwhile wait instead
	// of failing.
	for _, address := range c.Addresses() {
		l, err := listen(ctx, address)
		if err != nil {
			return err
		}
		p.listeners = append(p.listeners, l)
	}
	if err = checkComplete(c.DataDir); err != nil {
		return err
	}
	// Opening the store makes the data directory and locks it.
	if p.store, err = store.Open(ctx, c.DataDir, store.Options{Logger: p.log}); err != nil {
		return err
	}
	key, err := tokenKey(c.DataDir)
	if err != nil {
		return err
	}
	if p.access, err = decideAccess(c); err != nil {
		return err
	}
	p.ledger, err = ledger.NewMemory(ledger.Config{
		Dir: c.DataDir, MaxAccounts: int(c.Limits.MaxAccounts), Logger: p.log,
	})
	if err != nil {
		return err
	}
	if err = os.WriteFile(filepath.Join(c.DataDir, startedFile), nil, 0o600); err != nil {
		return fmt.Errorf("write to the data directory: %w", err)
	}
	caches := c.Caches.Cache()
	caches.Now = p.ledger.Now
	if p.cache, err = cache.New(caches); err != nil {
		return err
	}
	p.engine, err = flow.New(flow.Config{
		Authority: p.ledger, Cache: p.cache, TokenKey: key, MaxWaiting: int(c.Limits.MaxWaiting),
		MaxControlPoints: int(c.Limits.MaxControlPoints), AgentGroup: c.AgentGroup, Logger: p.log,
	})
	if err != nil {
		return err
	}
	if p.registry, err = newRegistry(p.engine, p.ledger); err != nil {
		return err
	}
	if err = p.registry.Register(p.cache.Collector()); err != nil {
		return err
	}
	if err = p.openDiscovery(c); err != nil {
		return err
	}
	if err = p.buildControl(ctx); err != nil {
		return err
	}
	p.catalog, err = document.NewCatalog(document.Config{
		Store: p.store, Compiler: Compiler{Classifiers: bounds(c.Classifiers), AgentGroup: c.AgentGroup}, Publisher: &publisher{engine: p.engine, runtime: p.runtime, log: p.log},
		Logger: p.log, Registerer: p.registry, NoDirectory: c.PolicyDir == "",
		MaxPolicies: int(c.Limits.MaxPolicies), KeptVersions: int(c.Limits.KeptVersions),
	})
	if err != nil {
		return err
	}
	if err = p.catalog.Load(ctx); err != nil {
		return err
	}
	if err = p.watchDir(ctx); err != nil {
		return err
	}
	p.server, err = p.newServer()
	return err
}

// buildControl makes the control plane and what it is connected with.
func (p *parts) buildControl(ctx context.Context) (err error) {
	c := p.config
	if p.signals, err = openSignals(ctx, c, p.registry, p.log); err != nil {
		return err
	}
	targets, err := alertTargets(c.Alerts)
	if err != nil {
		return err
	}
	p.alerts, err = alert.New(alert.Config{Targets: targets, Store: p.store, PolicyURL: p.policyURL, Logger: p.log})
	if err != nil {
		return err
	}
	if err := p.alerts.Load(ctx); err != nil { // limits matter more
		p.log.Error("the history of alerts cannot be read; going on without it", "error", err)
	}
	p.runtime = control.New(control.Config{
		DataPlane: p.engine, Signals: control.FromService(p.signals), Alerts: p.alerts, Store: p.store,
		HistoryTicks: int(c.Control.HistoryTicks), Logger: p.log,
	})
	return errors.Join(p.registry.Register(p.alerts.Collector()), p.registry.Register(p.runtime.Collector()))
}

// listen opens the port.
func listen(ctx context.Context, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w: stop what uses the port, or choose another one with --listen or --also-listen", address, err)
	}
	return l, nil
}

// watchDir brings the policy directory into force before the first request is served.
func (p *parts) watchDir(ctx context.Context) (err error) {
	if p.config.PolicyDir == "" {
		return nil
	}
	if info, err := os.Stat(p.config.PolicyDir); err != nil {
		return fmt.Errorf("policy_dir: %w: make the directory, or leave policy_dir out", err)
	} else if !info.IsDir() {
		return fmt.Errorf("policy_dir: %s is a file, want a directory", p.config.PolicyDir)
	}
	p.watch, err = document.NewWatch(document.WatchConfig{Dir: p.config.PolicyDir, Catalog: p.catalog, Logger: p.log})
	if err != nil {
		return err
	}
	return p.watch.Scan(ctx) // files with mistakes are logged, and their last good version stays
}

func (p *parts) newServer() (*rpc.Server, error) {
	c := p.config
	var encryption *tls.Config
	if c.TLS.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.TLS.CertFile, c.TLS.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		encryption = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	info := rpc.ServerInfo{Version: version.Get().String(), DataDir: c.DataDir, Start: p.begin, Policies: p.policies}
	prom := promapi.New(promapi.Config{Signals: p.signals, Logger: p.log})
	doors, err := p.doors()
	if err != nil {
		return nil, err
	}
	seen := rpc.NewDiscoveryService(p.engine, p.directory)
	if err := errors.Join(p.registry.Register(seen.Collector()), p.registry.Register(p.access.auth.Collector())); err != nil {
		return nil, err
	}
	config := rpc.ServerConfig{
		Flow: rpc.NewFlowService(p.engine, p.services()), Cache: rpc.NewCacheService(p.cache),
		Discovery: seen, Observe: rpc.NewObserveService(p.engine, info),
		Policy: rpc.NewPolicyService(p.catalog, p.runtime), Control: rpc.NewControlService(p.runtime, p.alerts),
		Auth: p.access.auth, Metrics: metricsHandler(p.registry, p.log),
		Prometheus: prom, Doors: append(doors, rpc.Door{RegisterGRPC: prom.RegisterOTLP}),
		TLS: encryption, AllowedOrigins: c.HTTP.AllowedOrigins, MaxConnections: int(c.Limits.MaxConnections),
		Drain: p.drain, ShutdownTimeout: c.ShutdownTimeout.Std(), Logger: p.log, Version: info.Version,
	}
	if p.access.auth.Open() && c.Loopback() {
		config.AllowedHosts = append([]string{}, c.HTTP.AllowedHosts...)
	}
	if c.Debug.Enabled {
		config.Debug = p.debugHandler()
	}
	return rpc.NewServer(config)
}

// policies counts the policies in force.
func (p *parts) policies() int {
	n, page := 0, document.PageRequest{Size: document.MaxPageSize}
	for {
		got, err := p.catalog.List(context.Background(), page)
		if err != nil {
			return n
		}
		n += len(got.Versions)
		if page.Token = got.Next; got.Next == "" {
			return n
		}
	}
}

// run runs everything in one group: when one part fails, all stop. What requests use is closed after
// the server has stopped.
func (p *parts) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		// Limits that circuits move let everything pass until the first tick; clients wait for it in the meantime.
		select {
		case <-p.runtime.Begun():
		case <-ctx.Done():
		}
		return p.server.Run(ctx, p.listeners...)
	})
	group.Go(func() error { return p.engine.Run(ctx) })
	group.Go(func() error { return p.ledger.Run(ctx) })
	group.Go(func() error { return p.directory.Run(ctx) })
	if p.cluster != nil {
		group.Go(func() error { return p.cluster.Run(ctx, p.directory.Feed("kubernetes")) })
	}
	group.Go(func() error { return p.alerts.Run(ctx) })
	group.Go(func() error { return p.runtime.Run(ctx) })
	if p.watch != nil {
		group.Go(func() error { return p.watch.Run(ctx) })
	}
	err := group.Wait()
	p.log.Info("stopped serving")
	return errors.Join(err, p.close())
}

// close closes what was opened, the last first.
func (p *parts) close() error {
	var errs []error
	if p.engine != nil {
		p.engine.Close()
	}
	if p.runtime != nil {
		p.runtime.Close()
	}
	if p.signals != nil {
		p.signals.Close()
	}
	if p.cache != nil {
		errs = append(errs, p.cache.Close())
	}
	if p.ledger != nil {
		errs = append(errs, p.ledger.Close())
	}
	if p.store != nil {
		errs = append(errs, p.store.Close())
	}
	for _, l := range p.listeners {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
