// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
)

// Refused counts samples of a batch that were not kept although the batch was.
type Refused struct {
	// Limit is samples of series beyond the most that are kept.
	Limit int
	// Reserved is samples of series that Sluice keeps itself.
	Reserved int
	// Series is one of them.
	Series string
}

// Total counts all of them.
func (r Refused) Total() int { return r.Limit + r.Reserved }

// Err says it to who sent them; nil when none was refused.
func (r Refused) Err() error {
	switch {
	case r.Limit > 0:
		return fmt.Errorf("%d samples were refused, such as of %s: they would be new series, and the server keeps no more; send fewer, or set signals.max_series higher", r.Total(), r.Series)
	case r.Reserved > 0:
		return fmt.Errorf("%d samples were refused, such as of %s: Sluice keeps series of this name or with job=%q itself; rename or drop them before they are sent", r.Total(), r.Series, Job)
	default:
		return nil
	}
}

// Appender takes a batch of samples of others. It refuses, without an error, samples of new series when
// there are too many and of series that Sluice keeps itself (see Refused). Samples from the future are
// storage.ErrOutOfBounds. Use it from one goroutine, and end it with Commit or Rollback.
type Appender struct {
	service *Service
	source  Source
	next    storage.AppenderV2 // nil when there is no database
	latest  int64              // newest time allowed, in ms
	count   int
	refused Refused
	family  string // whose metadata was noted last
}

var _ storage.AppenderV2 = (*Appender)(nil)

// Append takes a batch from outside.
func (s *Service) Append(ctx context.Context, source Source) *Appender {
	a := &Appender{service: s, source: source, latest: time.Now().Add(ahead).UnixMilli()}
	if s.store != nil {
		if db, ok := s.store.acquire(); ok {
			a.next = db.AppenderV2(ctx)
		}
	}
	return a
}

// appendable is Service.Append for the libraries that ask for one.
type appendable struct {
	service *Service
	source  Source
}

// AppenderV2 implements storage.AppendableV2.
func (a appendable) AppenderV2(ctx context.Context) storage.AppenderV2 {
	return a.service.Append(ctx, a.source)
}

// Append implements storage.AppenderV2. A refused sample gives the reference 0 and no error.
func (a *Appender) Append(ref storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, o storage.AOptions) (storage.SeriesRef, error) { //nolint:revive // the interface has that many
	if a.next == nil {
		return 0, a.service.unavailable()
	}
	name := ls.Get(labels.MetricName)
	if ls.Get("job") == Job || a.service.names.own(name) {
		a.refuse(&a.refused.Reserved, "reserved", ls)
		return 0, nil
	}
	if t > a.latest {
		a.service.metrics.refused.WithLabelValues(string(a.source), "time").Inc()
		return 0, fmt.Errorf("%w: the sample is of %s, more than %v ahead of the server's clock", storage.ErrOutOfBounds, time.UnixMilli(t).UTC().Format(time.RFC3339), ahead)
	}
	o.Exemplars = nil // not kept
	ref, err := a.next.Append(ref, ls, st, t, v, h, fh, o)
	switch {
	case err == nil:
		a.count++
		a.note(name, o)
		return ref, nil
	case errors.Is(err, errTooMany):
		a.refuse(&a.refused.Limit, "limit", ls)
		return 0, nil
	case OutOfTime(err):
		a.service.metrics.refused.WithLabelValues(string(a.source), "time").Inc()
	}
	return ref, err
}

// OutOfTime reports whether a sample was refused because it is too old, too new, or there twice: sending it
// again is no use.
func OutOfTime(err error) bool {
	return errors.Is(err, storage.ErrOutOfOrderSample) || errors.Is(err, storage.ErrOutOfBounds) ||
		errors.Is(err, storage.ErrDuplicateSampleForTimestamp) || errors.Is(err, storage.ErrTooOldSample)
}

func (a *Appender) refuse(count *int, reason string, ls labels.Labels) {
	if a.refused.Total() == 0 {
		a.refused.Series = ls.String()
	}
	*count++
	a.service.metrics.refused.WithLabelValues(string(a.source), reason).Inc()
	if reason == "limit" {
		a.service.tooMany.warn(a.service.config.Logger, "new time series are refused: there are too many",
			"most", a.service.config.MaxSeries, "source", string(a.source), "series", a.refused.Series)
	}
}

// note remembers the metadata of a sample.
func (a *Appender) note(name string, o storage.AOptions) {
	if o.Metadata.IsEmpty() {
		return
	}
	if o.MetricFamilyName != "" {
		name = o.MetricFamilyName
	}
	if name != a.family {
		a.family = strings.Clone(name)
		a.service.names.note(a.family, o.Metadata)
	}
}

// Refused says what was refused so far.
func (a *Appender) Refused() Refused { return a.refused }

// Commit implements storage.AppenderTransaction.
func (a *Appender) Commit() error {
	if a.next == nil {
		return a.service.unavailable()
	}
	defer a.end()
	if err := a.next.Commit(); err != nil {
		a.service.lost(a.source, err)
		return &Error{KindClosed, "the samples could not be kept: " + err.Error()}
	}
	a.service.metrics.samples.WithLabelValues(string(a.source)).Add(float64(a.count))
	return nil
}

// Rollback implements storage.AppenderTransaction.
func (a *Appender) Rollback() error {
	if a.next == nil {
		return nil
	}
	defer a.end()
	return a.next.Rollback()
}

func (a *Appender) end() {
	a.next = nil
	a.service.store.release()
}

// lost counts and logs a batch that could not be kept.
func (s *Service) lost(source Source, err error) {
	s.metrics.appendErrs.WithLabelValues(string(source)).Inc()
	s.losing.warn(s.config.Logger, "samples cannot be kept: signals of policies may be missing until it works", "source", string(source), "error", err)
}

// names is what is known of metrics by their name: whose they are, and what they mean.
type names struct {
	mu   sync.RWMutex
	mine map[string]bool
	meta map[string]metadata.Metadata
}

// mostMetadata bounds how many metrics of others are explained.
const mostMetadata = 20_000

// everybodys are the beginnings of names that all programs measure: having them does not make them ours.
var everybodys = []string{"go_", "process_", "promhttp_", "http_", "grpc_", "rpc_"}

func newNames() *names {
	return &names{mine: map[string]bool{}, meta: map[string]metadata.Metadata{}}
}

// own reports whether series of this name are kept by this process and nobody else.
func (n *names) own(name string) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.mine[name]
}

// claim makes names ours.
func (n *names) claim(family string, m metadata.Metadata, all ...string) {
	n.note(family, m)
	for _, e := range everybodys {
		if strings.HasPrefix(family, e) {
			return
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range all {
		n.mine[name] = true
	}
}

func (n *names) note(family string, m metadata.Metadata) {
	n.mu.RLock()
	known, ok := n.meta[family]
	n.mu.RUnlock()
	if ok && known == m {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.meta[family]; ok || len(n.meta) < mostMetadata {
		m.Help, m.Unit = strings.Clone(m.Help), strings.Clone(m.Unit)
		n.meta[family] = m
	}
}
