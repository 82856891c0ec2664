// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
)

// Bounds on the work of one query. A sample takes about 16 bytes while it runs.
const (
	policySamples = 2_000_000
	readSamples   = 5_000_000
	// ReadTimeout bounds queries of people and dashboards.
	ReadTimeout = 30 * time.Second
	// defaultStep is the step of a subquery that names none.
	defaultStep = time.Second
)

// language is what queries may use: what Prometheus has switched on by default.
var language parser.Parser = bounded{parser.NewParser(parser.Options{})}

// Service keeps series and evaluates queries. Its methods may be called concurrently.
type Service struct {
	config    Config
	metrics   *metrics
	names     *names
	store     *store         // nil with a remote server
	remote    *remote        // nil without
	engine    *promql.Engine // for policies; nil with a remote server
	reader    *promql.Engine // for people; nil with a remote server
	collector *collector
	board     *board
	scraper   *scraper // nil when nothing is scraped

	tooMany, losing, stepped reminder
}

// Open opens the series of a directory, or connects to the remote server, and starts scraping. An error is
// about the configuration, the file of targets included: neither a broken database nor a server that is down
// is one.
func Open(ctx context.Context, c Config) (*Service, error) {
	c = c.withDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	var targets *scrapeConfig
	if c.ScrapeConfigFile != "" {
		var err error
		if targets, err = loadScrapeConfig(c.ScrapeConfigFile); err != nil {
			return nil, err
		}
	}
	s := &Service{config: c, metrics: newMetrics(), names: newNames()}
	if err := s.metrics.register(c.Registerer, s); err != nil {
		return nil, fmt.Errorf("signals: %w", err)
	}
	s.collector = newCollector(s)
	var evaluate evaluator
	if c.Remote != nil {
		s.remote = newRemote(*c.Remote)
		evaluate = s.remote.evaluate
	} else {
		s.store = openStore(ctx, c, s.metrics)
		s.engine = newEngine(c, policySamples, c.QueryTimeout)
		s.reader = newEngine(c, readSamples, ReadTimeout)
		evaluate = s.evaluate
	}
	s.board = newBoard(ctx, c, s.metrics, evaluate)
	if targets != nil {
		var err error
		if s.scraper, err = startScraper(ctx, targets, s); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

func newEngine(c Config, samples int, timeout time.Duration) *promql.Engine {
	return promql.NewEngine(promql.EngineOpts{
		Logger:                   quiet(c.Logger),
		MaxSamples:               samples,
		Timeout:                  timeout,
		LookbackDelta:            c.Lookback,
		NoStepSubqueryIntervalFn: func(int64) int64 { return defaultStep.Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		Parser:                   language,
	})
}

// Close stops scraping and queries, and closes the database. Readings stay as they are.
func (s *Service) Close() {
	if s.scraper != nil {
		s.scraper.stop()
	}
	s.board.close()
	if s.store != nil {
		s.store.close()
	}
}

// Status is how the service is.
type Status struct {
	// Remote is the URL of the server that keeps the series; "" when they are kept here.
	Remote string
	// Series is how many series got a sample lately, and MaxSeries how many may.
	Series, MaxSeries int
	// Bytes is the disk that they take.
	Bytes int64
	// Oldest is the time of the oldest sample; zero: none.
	Oldest time.Time
	// Queries is how many queries of policies are evaluated.
	Queries int
	// Err is why no series are kept or the remote server does not answer; nil when all is well.
	Err error
}

// Status says how the service is.
func (s *Service) Status() Status {
	st := Status{Queries: s.board.len(), MaxSeries: s.config.MaxSeries}
	if s.remote != nil {
		st.Remote, st.MaxSeries, st.Err = s.remote.url, 0, s.remote.failure()
		return st
	}
	db, ok := s.store.acquire()
	if !ok {
		st.Err = errNoStore
		return st
	}
	st.Series = int(s.store.series.Load())
	if t, err := db.StartTime(); err == nil && st.Series > 0 {
		st.Oldest = time.UnixMilli(t).UTC()
	}
	s.store.release()
	st.Bytes = s.store.bytes()
	return st
}

// unavailable is why there is no database.
func (s *Service) unavailable() error {
	if s.remote != nil {
		return &Error{KindUnreachable, "this server keeps no time series: " + s.remote.url + " does, send them there"}
	}
	return errNoStore
}

// View is the database as package promapi reads it.
type View struct {
	Engine    promql.QueryEngine
	Queryable storage.Queryable
	Parser    parser.Parser
	Lookback  time.Duration
}

// View gives access to the series. An error says that they are kept elsewhere.
func (s *Service) View() (View, error) {
	if s.store == nil {
		return View{}, &Error{KindUnreachable, "the time series are kept by " + s.remote.url + ": ask there"}
	}
	return View{Engine: s.reader, Queryable: s.store, Parser: language, Lookback: s.config.Lookback}, nil
}

// Metadata explains metrics, by the name of their family.
func (s *Service) Metadata() map[string]metadata.Metadata {
	s.names.mu.RLock()
	defer s.names.mu.RUnlock()
	return maps.Clone(s.names.meta)
}

// Note remembers what a metric of others means.
func (s *Service) Note(family string, m metadata.Metadata) {
	if family != "" && !m.IsEmpty() {
		s.names.note(family, m)
	}
}

// Target is something that is scraped.
type Target struct {
	// Pool is the job_name of the configuration.
	Pool string
	// URL is where it is scraped, and Labels what its series carry.
	URL    string
	Labels map[string]string
	// Discovered are its labels before relabelling.
	Discovered map[string]string
	// Health is up, down or unknown (not scraped yet).
	Health string
	// LastErr is why it is down; "" when it is not.
	LastErr string
	// LastScrape is when it was scraped last, and LastDuration how long that took.
	LastScrape   time.Time
	LastDuration time.Duration
	// Interval and Timeout are those of its scrapes.
	Interval, Timeout time.Duration
}

// Targets lists what is scraped, by pool and URL.
func (s *Service) Targets() []Target {
	if s.scraper == nil {
		return nil
	}
	targets := s.scraper.targets()
	slices.SortFunc(targets, func(a, b Target) int {
		return cmp.Or(strings.Compare(a.Pool, b.Pool), strings.Compare(a.URL, b.URL))
	})
	return targets
}

// evaluate evaluates an instant query of a policy.
func (s *Service) evaluate(ctx context.Context, expr string, at time.Time) (answer, error) {
	q, err := s.engine.NewInstantQuery(ctx, s.store, nil, expr, at)
	if err != nil {
		return answer{}, &Error{KindInvalid, err.Error()}
	}
	defer q.Close()
	r := q.Exec(ctx)
	if r.Err != nil {
		return answer{}, failure(r.Err)
	}
	switch v := r.Value.(type) {
	case promql.Scalar:
		return answer{scalar: true, elements: []element{{value: v.V}}}, nil
	case promql.Vector:
		a := answer{elements: make([]element, len(v))}
		for i, e := range v {
			a.elements[i] = element{labels: e.Metric.Get, value: e.F, histogram: e.H != nil}
		}
		return a, nil
	default:
		return answer{}, wrongType(string(v.Type()))
	}
}

// failure sorts the errors of the engine.
func failure(err error) *Error {
	switch {
	case isA[promql.ErrQueryTimeout](err), errors.Is(err, context.DeadlineExceeded):
		return &Error{KindTimeout, "the query took too long: " + err.Error()}
	case isA[promql.ErrTooManySamples](err):
		return &Error{KindTooLarge, fmt.Sprintf("the query reads more than %d samples: select fewer series or a shorter time", policySamples)}
	case isA[promql.ErrQueryCanceled](err), errors.Is(err, context.Canceled):
		return &Error{KindClosed, "the server is stopping"}
	case isA[promql.ErrStorage](err):
		return &Error{KindClosed, err.Error()}
	default:
		return &Error{KindInvalid, err.Error()}
	}
}

func isA[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}
