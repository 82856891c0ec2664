// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	_ "github.com/prometheus/prometheus/discovery/file" // makes file_sd_configs known
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"
)

// settle is how long changes of targets are gathered before they count.
const settle = time.Second

// scrapeConfig is a checked file of targets.
type scrapeConfig struct {
	all  *config.Config
	jobs []*config.ScrapeConfig
}

// scraper scrapes targets.
type scraper struct {
	manager *scrape.Manager
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// CheckScrapeConfig tells what is wrong with a file of targets; see Config.ScrapeConfigFile.
func CheckScrapeConfig(path string) error {
	_, err := loadScrapeConfig(path)
	return err
}

// loadScrapeConfig reads a file in the format of Prometheus. Of its sections only global, scrape_configs and
// scrape_config_files make sense here.
func loadScrapeConfig(path string) (*scrapeConfig, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("signals.scrape_config_file: %w", err)
	}
	if err := foreign(text, "global", "scrape_configs", "scrape_config_files"); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c, err := config.Load(string(text), slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c.SetDirectory(filepath.Dir(path))
	if err := includes(c.ScrapeConfigFiles); err != nil {
		return nil, err
	}
	jobs, err := c.GetScrapeConfigs()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, j := range jobs {
		if j.JobName == Job {
			return nil, fmt.Errorf("%s: job_name: got %q, which is the job of what Sluice measures itself; want another name", path, j.JobName)
		}
	}
	return &scrapeConfig{c, jobs}, nil
}

// includes checks the files that a file of targets includes.
func includes(patterns []string) error {
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return fmt.Errorf("scrape_config_files: %q: %w", pattern, err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return fmt.Errorf("scrape_config_files: %w", err)
			}
			if err := foreign(text, "scrape_configs"); err != nil {
				return fmt.Errorf("%s: %w", f, err)
			}
		}
	}
	return nil
}

// foreign finds parts of a configuration of Prometheus that are not for us. It leaves other mistakes to the
// parser of Prometheus.
func foreign(text []byte, sections ...string) error {
	var file struct {
		ScrapeConfigs []map[string]any `yaml:"scrape_configs"`
	}
	var top map[string]any
	if yaml.Unmarshal(text, &top) != nil || yaml.Unmarshal(text, &file) != nil {
		return nil //nolint:nilerr // the parser of Prometheus finds it, too, and says where
	}
	for _, key := range slices.Sorted(maps.Keys(top)) {
		if !slices.Contains(sections, key) {
			return fmt.Errorf("%s: Sluice scrapes and does nothing else with this file: want only %s", key, strings.Join(sections, ", "))
		}
	}
	for i, c := range file.ScrapeConfigs {
		for _, key := range slices.Sorted(maps.Keys(c)) {
			if strings.HasSuffix(key, "_sd_configs") && key != "file_sd_configs" {
				return fmt.Errorf("scrape_configs[%d].%s: targets are found by static_configs and file_sd_configs only; write them to a file, or let a Prometheus scrape them and send them by remote_write", i, key)
			}
		}
	}
	return nil
}

// startScraper scrapes targets until stop.
func startScraper(ctx context.Context, c *scrapeConfig, s *Service) (*scraper, error) {
	log := quiet(s.config.Logger)
	private := prometheus.NewRegistry() // some eighty metrics about scraping, which nobody asked for
	found, err := discovery.CreateAndRegisterSDMetrics(private)
	if err != nil {
		return nil, fmt.Errorf("signals: %w", err)
	}
	m, err := scrape.NewManager(&scrape.Options{
		DiscoveryReloadInterval: model.Duration(settle), DiscoveryReloadOnStartup: true, AppendMetadata: true,
	}, log, nil, nil, appendable{s, SourceScrape}, private)
	if err != nil {
		return nil, fmt.Errorf("signals: %w", err)
	}
	if err := m.ApplyConfig(c.all); err != nil {
		return nil, fmt.Errorf("signals: %w", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	finder := discovery.NewManager(ctx, log, private, found, discovery.Updatert(settle))
	x := &scraper{manager: m, cancel: cancel}
	x.running.Go(func() { finder.Run() })           //nolint:errcheck // it says that ctx has ended
	x.running.Go(func() { m.Run(finder.SyncCh()) }) //nolint:errcheck // always nil
	where := map[string]discovery.Configs{}
	for _, j := range c.jobs {
		where[j.JobName] = j.ServiceDiscoveryConfigs
	}
	if err := finder.ApplyConfig(where); err != nil {
		x.stop()
		return nil, fmt.Errorf("signals: %w", err)
	}
	return x, nil
}

// stop stops scraping, and waits for it.
func (x *scraper) stop() {
	x.cancel()
	x.manager.Stop()
	x.running.Wait()
}

// targets lists the targets.
func (x *scraper) targets() []Target {
	var list []Target
	b := labels.NewBuilder(labels.EmptyLabels())
	for pool, targets := range x.manager.TargetsActive() {
		c, err := x.manager.ScrapePoolConfig(pool)
		if err != nil {
			continue // it went away between the two calls
		}
		for _, t := range targets {
			one := Target{
				Pool: pool, URL: t.URL().Redacted(), Labels: t.Labels(b).Map(), Discovered: t.DiscoveredLabels(b).Map(),
				Health: string(t.Health()), LastScrape: t.LastScrape(), LastDuration: t.LastScrapeDuration(),
				Interval: time.Duration(c.ScrapeInterval), Timeout: time.Duration(c.ScrapeTimeout),
			}
			if err := t.LastError(); err != nil {
				one.LastErr = err.Error()
			}
			list = append(list, one)
		}
	}
	return list
}
