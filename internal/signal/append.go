// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
)

// Bounds on the labels of series of others.
const (
	mostLabels = 64
	mostName   = 512  // bytes
	mostValue  = 4096 // bytes
)

// Refused counts samples of a batch that were not kept although the batch was.
type Refused struct {
	// Limit is samples of series beyond the most that are kept.
	Limit int
	// Reserved is samples of series that Sluice keeps itself.
	Reserved int
	// Invalid is samples that no series can have: without a name, with too many or too long labels, histograms
	// that do not add up.
	Invalid int
	// Time is samples that are too old, too new, or there with another value.
	Time int
	// First is the reason for the first of them, for people.
	First string
}

// Total counts all of them.
func (r Refused) Total() int { return r.Limit + r.Reserved + r.Invalid + r.Time }

// Err says it to who sent them; nil when none was refused. Sending them again is no use.
func (r Refused) Err() error {
	if r.Total() == 0 {
		return nil
	}
	return fmt.Errorf("%d samples were refused and the others kept; the first: %s", r.Total(), r.First)
}

// Appender takes a batch of samples of others. It is not safe for concurrent use, and ends with Commit or
// Rollback.
//
// Samples that cannot be kept are refused: counted (see Refused), and no error, so that one does not lose all
// others. Only what is wrong with the time of a scraped sample is an error: package scrape counts it.
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
	name := ls.Get(model.MetricNameLabel)
	if ls.Get("job") == Job || a.service.names.own(name) {
		a.refuse(&a.refused.Reserved, "reserved", fmt.Sprintf("%s: Sluice keeps series of this name, or with job=%q, itself; rename or drop it before it is sent", shorten(ls), Job))
		return 0, nil
	}
	if problem := badLabels(ls); problem != "" && ref == 0 {
		a.refuse(&a.refused.Invalid, "invalid", problem)
		return 0, nil
	}
	var err error
	o.Exemplars = nil // not kept
	if t > a.latest {
		err = fmt.Errorf("%w: more than %v ahead of the server's clock", storage.ErrOutOfBounds, ahead)
	} else {
		err = reduce(h, fh)
		if err == nil {
			ref, err = a.next.Append(ref, ls, st, t, v, h, fh, o)
		}
	}
	switch {
	case err == nil:
		a.count++
		a.note(name, o)
		return ref, nil
	case errors.Is(err, errTooMany):
		a.refuse(&a.refused.Limit, "limit", shorten(ls)+": it would be a new series, and there are as many as the server keeps; send fewer, or set signals.max_series higher")
		a.service.tooMany.warn(a.service.config.Logger, "new time series are refused: there are too many",
			"most", a.service.config.MaxSeries, "source", string(a.source), "series", shorten(ls))
	case OutOfTime(err):
		a.refuse(&a.refused.Time, "time", fmt.Sprintf("%s at %s: %v", shorten(ls), time.UnixMilli(t).UTC().Format(time.RFC3339), err))
		if a.source == SourceScrape {
			return 0, err
		}
	case isA[histogram.Error](err):
		a.refuse(&a.refused.Invalid, "invalid", fmt.Sprintf("%s: %v", shorten(ls), err))
	default:
		return 0, err
	}
	return 0, nil
}

// reduce makes a histogram as coarse as the database can keep it.
func reduce(h *histogram.Histogram, fh *histogram.FloatHistogram) error {
	if h != nil && histogram.IsExponentialSchemaReserved(h.Schema) && h.Schema > histogram.ExponentialSchemaMax {
		return h.ReduceResolution(histogram.ExponentialSchemaMax)
	}
	if fh != nil && histogram.IsExponentialSchemaReserved(fh.Schema) && fh.Schema > histogram.ExponentialSchemaMax {
		return fh.ReduceResolution(histogram.ExponentialSchemaMax)
	}
	return nil
}

// badLabels is what is wrong with the labels of a series; "": nothing.
func badLabels(ls labels.Labels) string {
	longest := 0
	ls.Range(func(l labels.Label) {
		if len(l.Name) > mostName || len(l.Value) > mostValue {
			longest = max(longest, len(l.Name), len(l.Value))
		}
	})
	switch name, twice := ls.HasDuplicateLabelNames(); {
	case longest > 0:
		return fmt.Sprintf("%s: a label with %d bytes, want at most %d in a name and %d in a value", shorten(ls), longest, mostName, mostValue)
	case !ls.Has(model.MetricNameLabel):
		return shorten(ls) + ": a series without a name"
	case ls.Len() > mostLabels:
		return fmt.Sprintf("%s: %d labels, want at most %d", shorten(ls), ls.Len(), mostLabels)
	case twice:
		return fmt.Sprintf("%s: the label %q is there twice", shorten(ls), name)
	case !ls.IsValid(model.UTF8Validation):
		return shorten(ls) + ": a name that is empty or text that is no UTF-8"
	}
	return ""
}

// shorten prints labels for people.
func shorten(ls labels.Labels) string {
	const most = 500
	text := ls.String()
	if len(text) > most {
		text = text[:most] + "..."
	}
	return strings.ToValidUTF8(text, "?")
}

// OutOfTime reports whether a sample was refused because it is too old, too new, or there with another value:
// sending it again is no use.
func OutOfTime(err error) bool {
	return errors.Is(err, storage.ErrOutOfOrderSample) || errors.Is(err, storage.ErrOutOfBounds) ||
		errors.Is(err, storage.ErrDuplicateSampleForTimestamp) || errors.Is(err, storage.ErrTooOldSample)
}

func (a *Appender) refuse(count *int, reason, text string) {
	if a.refused.First == "" {
		a.refused.First = text
	}
	*count++
	a.service.metrics.refused.WithLabelValues(string(a.source), reason).Inc()
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

// Count is how many samples were taken so far.
func (a *Appender) Count() int { return a.count }

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
