// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// firstZero is how long before the first collection the counters found there are said to have been zero.
const firstZero = time.Second

// collector measures this process and keeps what it finds. It remembers the series of every metric from one
// collection to the next, so that collecting costs little more than the measuring.
type collector struct {
	service  *Service
	families map[string]*family
	builder  labels.ScratchBuilder

	mu     sync.Mutex // one collection at a time; guards the rest and the above
	last   int64      // time of the last collection in ms; 0: none
	round  uint64
	first  bool // before the first collection of a database
	app    storage.AppenderV2
	batch  int
	failed error // the last problem with a sample
}

// family is the metrics of a name, in the order in which they were seen last.
type family struct {
	name    string
	kind    dto.MetricType
	metrics []*metric
	seen    uint64
}

// metric is the series of a metric.
type metric struct {
	pairs  []*dto.LabelPair // its own copy
	series []*series
	bounds []float64 // of the buckets or quantiles that the series are for
	native *series   // of its native histogram; nil: it has none yet
	seen   uint64
}

// series is one series.
type series struct {
	labels labels.Labels
	ref    storage.SeriesRef
	// counts is whether it starts from zero: a counter, or a part of a histogram.
	counts bool
	// begun is whether it has got a sample, or was refused: it is not new any more.
	begun bool
}

func newCollector(s *Service) *collector {
	return &collector{service: s, families: map[string]*family{}, builder: labels.NewScratchBuilder(16), first: true}
}

// Collect measures this process and keeps what it finds under the time now, which has to grow from call to
// call. A series that has vanished ends at once; a counter that is new was zero at the collection before.
// An error says what was not kept; it has been counted and logged, too. With a remote server it does nothing.
func (s *Service) Collect(ctx context.Context, now time.Time) error {
	if s.store == nil || s.config.Gatherer == nil {
		return nil
	}
	begin := time.Now()
	err := s.collector.collect(ctx, now.UnixMilli())
	s.metrics.collect.Observe(time.Since(begin).Seconds())
	return err
}

func (c *collector) collect(ctx context.Context, now int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now <= c.last && c.last-now < outOfOrder.Milliseconds() {
		return nil // again, or a clock that was set back a little: what is newer stays
	}
	s := c.service
	if now < c.last {
		// The database takes nothing that old, and what it has of that time is about another one.
		s.stepped.warn(s.config.Logger, "the clock was set back: time series start anew",
			"from", time.UnixMilli(c.last).UTC(), "to", time.UnixMilli(now).UTC())
		c.families, c.last, c.first = map[string]*family{}, 0, true
		s.store.renew()
		return errNoStore
	}
	found, problem := s.config.Gatherer.Gather()
	db, ok := s.store.acquire()
	if !ok {
		s.lost(SourceSelf, errNoStore)
		return errNoStore
	}
	defer s.store.release()
	c.app, c.batch, c.failed = db.AppenderV2(ctx), 0, nil
	defer func() { c.app = nil }()
	c.round++
	c.keep(found, now)
	if problem == nil {
		c.forget(now)
	}
	if c.first && problem == nil {
		c.endOld(ctx, db, now)
		c.first = false
	}
	if err := c.app.Commit(); err != nil {
		s.lost(SourceSelf, err)
		return fmt.Errorf("keep samples: %w", err)
	}
	c.last = now
	s.metrics.samples.WithLabelValues(string(SourceSelf)).Add(float64(c.batch))
	if c.failed != nil {
		s.losing.warn(s.config.Logger, "some samples of this process are not kept", "error", c.failed)
	}
	return errors.Join(problem, c.failed)
}

// keep appends the samples of all metrics.
func (c *collector) keep(found []*dto.MetricFamily, now int64) {
	for _, f := range found {
		fam := c.families[f.GetName()]
		if fam == nil || fam.kind != f.GetType() {
			if fam != nil {
				c.end(fam.metrics, now)
			}
			fam = &family{name: f.GetName(), kind: f.GetType()}
			c.families[fam.name] = fam
			c.claim(f)
		}
		fam.seen = c.round
		fam.match(f.GetMetric(), c.round)
		for i, m := range f.GetMetric() {
			c.sample(fam, fam.metrics[i], m, now)
		}
	}
}

// claim notes a family and makes its names ours.
func (c *collector) claim(f *dto.MetricFamily) {
	n := f.GetName()
	m := metadata.Metadata{Help: f.GetHelp(), Unit: f.GetUnit(), Type: metricTypes[f.GetType()]}
	c.service.names.claim(n, m, n, n+"_bucket", n+"_sum", n+"_count")
}

var metricTypes = map[dto.MetricType]model.MetricType{
	dto.MetricType_COUNTER:         model.MetricTypeCounter,
	dto.MetricType_GAUGE:           model.MetricTypeGauge,
	dto.MetricType_SUMMARY:         model.MetricTypeSummary,
	dto.MetricType_UNTYPED:         model.MetricTypeUnknown,
	dto.MetricType_HISTOGRAM:       model.MetricTypeHistogram,
	dto.MetricType_GAUGE_HISTOGRAM: model.MetricTypeGaugeHistogram,
}

// match brings the metrics of a family into the order of those found, making new ones. Those that were not
// found are at the end.
func (f *family) match(found []*dto.Metric, round uint64) {
	var index map[string]*metric
	metrics := f.metrics
	for i, m := range found {
		if i < len(f.metrics) && index == nil && samePairs(f.metrics[i].pairs, m.GetLabel()) {
			f.metrics[i].seen = round
			continue
		}
		if index == nil { // from here on the order is another one
			metrics = slices.Clone(f.metrics[:i])
			index = make(map[string]*metric, len(f.metrics)-i)
			for _, old := range f.metrics[i:] {
				index[pairsKey(old.pairs)] = old
			}
		}
		key := pairsKey(m.GetLabel())
		known := index[key]
		if known == nil {
			known = &metric{pairs: copyPairs(m.GetLabel())}
		}
		delete(index, key)
		known.seen = round
		metrics = append(metrics, known)
	}
	for _, old := range index {
		metrics = append(metrics, old)
	}
	f.metrics = metrics
}

func samePairs(a, b []*dto.LabelPair) bool {
	return slices.EqualFunc(a, b, func(x, y *dto.LabelPair) bool {
		return x.GetValue() == y.GetValue() && x.GetName() == y.GetName()
	})
}

func pairsKey(pairs []*dto.LabelPair) string {
	var key []byte
	for _, p := range pairs {
		key = append(append(key, p.GetName()...), 0xff)
		key = append(append(key, p.GetValue()...), 0xff)
	}
	return string(key)
}

// copyPairs copies pairs: the next measuring may use their memory again.
func copyPairs(pairs []*dto.LabelPair) []*dto.LabelPair {
	own := make([]*dto.LabelPair, len(pairs))
	for i, p := range pairs {
		name, value := p.GetName(), p.GetValue()
		own[i] = &dto.LabelPair{Name: &name, Value: &value}
	}
	return own
}

// sample appends the samples of a metric.
func (c *collector) sample(f *family, m *metric, found *dto.Metric, now int64) {
	switch f.kind {
	case dto.MetricType_COUNTER:
		c.single(f, m, true)
		c.put(m.series[0], now, found.GetCounter().GetValue())
	case dto.MetricType_GAUGE:
		c.single(f, m, false)
		c.put(m.series[0], now, found.GetGauge().GetValue())
	case dto.MetricType_UNTYPED:
		c.single(f, m, false)
		c.put(m.series[0], now, found.GetUntyped().GetValue())
	case dto.MetricType_SUMMARY:
		c.summary(f, m, found.GetSummary(), now)
	case dto.MetricType_HISTOGRAM, dto.MetricType_GAUGE_HISTOGRAM:
		c.histogram(f, m, found.GetHistogram(), now)
	}
}

// single makes the series of a metric that has only one.
func (c *collector) single(f *family, m *metric, counts bool) {
	if len(m.series) == 0 {
		c.add(f.name, m, "", 0, counts)
	}
}

// reshape makes the series of a metric for other bounds. Series that it had before go on.
func (c *collector) reshape(m *metric, bounds []float64, now int64, add func()) {
	old := m.series
	m.series, m.bounds = nil, bounds
	add()
	for i, s := range m.series {
		if k := slices.IndexFunc(old, func(o *series) bool { return labels.Equal(o.labels, s.labels) }); k >= 0 {
			m.series[i] = old[k]
			old = slices.Delete(old, k, k+1)
		}
	}
	for _, s := range old {
		c.finish(s, now)
	}
}

// add makes a series of a metric. label is le or quantile, or "".
func (c *collector) add(name string, m *metric, label string, bound float64, counts bool) {
	m.series = append(m.series, c.newSeries(name, m, label, bound, counts))
}

func (c *collector) newSeries(name string, m *metric, label string, bound float64, counts bool) *series {
	b := &c.builder
	b.Reset()
	b.Add(model.MetricNameLabel, name)
	b.Add("job", Job)
	for _, p := range m.pairs {
		if n := p.GetName(); n != "job" && n != label && p.GetValue() != "" {
			b.Add(n, p.GetValue())
		}
	}
	if label != "" {
		b.Add(label, formatBound(bound))
	}
	b.Sort()
	return &series{labels: b.Labels(), counts: counts}
}

func (c *collector) summary(f *family, m *metric, found *dto.Summary, now int64) {
	quantiles := found.GetQuantile()
	if len(m.series) == 0 || !slices.EqualFunc(m.bounds, quantiles, func(b float64, q *dto.Quantile) bool { return b == q.GetQuantile() }) {
		bounds := make([]float64, len(quantiles))
		for i, q := range quantiles {
			bounds[i] = q.GetQuantile()
		}
		c.reshape(m, bounds, now, func() {
			c.add(f.name+"_sum", m, "", 0, true)
			c.add(f.name+"_count", m, "", 0, true)
			for _, b := range bounds {
				c.add(f.name, m, "quantile", b, false)
			}
		})
	}
	c.put(m.series[0], now, found.GetSampleSum())
	c.put(m.series[1], now, float64(found.GetSampleCount()))
	for i, q := range quantiles {
		c.put(m.series[2+i], now, q.GetValue())
	}
}

func (c *collector) histogram(f *family, m *metric, found *dto.Histogram, now int64) {
	counts := f.kind == dto.MetricType_HISTOGRAM
	buckets := found.GetBucket()
	if isNative(found) {
		if m.native == nil {
			m.native = c.newSeries(f.name, m, "", 0, counts)
		}
		c.putNative(m.native, now, found, !counts)
		if len(buckets) == 0 {
			return
		}
	}
	if n := len(buckets); n > 0 && math.IsInf(buckets[n-1].GetUpperBound(), 1) {
		buckets = buckets[:n-1] // it is the count
	}
	if len(m.series) == 0 || !slices.EqualFunc(m.bounds, buckets, func(x float64, b *dto.Bucket) bool { return x == b.GetUpperBound() }) {
		bounds := make([]float64, len(buckets))
		for i, b := range buckets {
			bounds[i] = b.GetUpperBound()
		}
		c.reshape(m, bounds, now, func() {
			c.add(f.name+"_sum", m, "", 0, counts)
			c.add(f.name+"_count", m, "", 0, counts)
			c.add(f.name+"_bucket", m, "le", math.Inf(1), counts)
			for _, b := range bounds {
				c.add(f.name+"_bucket", m, "le", b, counts)
			}
		})
	}
	count := either(found.GetSampleCountFloat(), found.GetSampleCount())
	c.put(m.series[0], now, found.GetSampleSum())
	c.put(m.series[1], now, count)
	c.put(m.series[2], now, count)
	for i, b := range buckets {
		c.put(m.series[3+i], now, either(b.GetCumulativeCountFloat(), b.GetCumulativeCount()))
	}
}

// either is a count that is a fraction or, when that is not set, a whole number.
func either(fraction float64, whole uint64) float64 {
	if fraction > 0 {
		return fraction
	}
	return float64(whole)
}

// put appends a sample; for a new counter, a zero before it.
func (c *collector) put(s *series, now int64, v float64) {
	if !s.begun {
		if s.counts && v != 0 {
			c.append(s, c.before(now), 0, nil, nil)
		}
		s.begun = true
	}
	c.append(s, now, v, nil, nil)
}

// before is when a series that is new now was not there yet.
func (c *collector) before(now int64) int64 {
	if c.last == 0 {
		return now - firstZero.Milliseconds()
	}
	return c.last
}

// append appends a sample and keeps the reference of its series. Refused series are tried again each time:
// there may be room.
func (c *collector) append(s *series, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram) {
	zero := t != 0 && !s.begun
	ref, err := c.app.Append(s.ref, s.labels, 0, t, v, h, fh, storage.AOptions{RejectOutOfOrder: zero})
	switch {
	case err == nil:
		s.ref = ref
		c.batch++
	case zero && OutOfTime(err):
		// The series was there in an earlier life of the process, after the time of the zero: it is no
		// worse for not having one.
	case errors.Is(err, errTooMany):
		c.service.metrics.refused.WithLabelValues(string(SourceSelf), "limit").Inc()
		c.service.tooMany.warn(c.service.config.Logger, "new time series of this process are refused: there are too many",
			"most", c.service.config.MaxSeries, "series", s.labels.String())
	default:
		c.failed = fmt.Errorf("%s: %w", s.labels, err)
	}
}

// finish marks the end of a series.
func (c *collector) finish(s *series, now int64) {
	if s.ref == 0 {
		return
	}
	if _, err := c.app.Append(s.ref, s.labels, 0, now, math.Float64frombits(value.StaleNaN), nil, nil, storage.AOptions{}); err != nil {
		c.failed = fmt.Errorf("end %s: %w", s.labels, err)
	}
}

// end marks the end of metrics.
func (c *collector) end(metrics []*metric, now int64) {
	for _, m := range metrics {
		for _, s := range m.series {
			c.finish(s, now)
		}
		if m.native != nil {
			c.finish(m.native, now)
		}
	}
}

// forget ends the metrics that were not found.
func (c *collector) forget(now int64) {
	for name, f := range c.families {
		gone := len(f.metrics)
		for gone > 0 && f.metrics[gone-1].seen != c.round { // match puts them at the end
			gone--
		}
		if f.seen != c.round {
			gone = 0
			delete(c.families, name)
		}
		c.end(f.metrics[gone:], now)
		clear(f.metrics[gone:])
		f.metrics = f.metrics[:gone]
	}
}

// endOld ends series of an earlier life of this process that it has no more: after a crash nobody else does.
func (c *collector) endOld(ctx context.Context, db storage.Queryable, now int64) {
	q, err := db.Querier(now-c.service.config.Lookback.Milliseconds(), now-1)
	if err != nil {
		c.failed = fmt.Errorf("end old series: %w", err)
		return
	}
	defer func() { _ = q.Close() }()
	alive := map[uint64]bool{}
	for _, f := range c.families {
		for _, m := range f.metrics {
			for _, s := range m.series {
				alive[s.labels.Hash()] = true
			}
			if m.native != nil {
				alive[m.native.labels.Hash()] = true
			}
		}
	}
	set := q.Select(ctx, false, nil, labels.MustNewMatcher(labels.MatchEqual, "job", Job))
	var it chunkenc.Iterator
	for set.Next() {
		one := set.At()
		if alive[one.Labels().Hash()] {
			continue
		}
		it = one.Iterator(it)
		if ended(it) {
			continue
		}
		if _, err := c.app.Append(0, one.Labels().Copy(), 0, now, math.Float64frombits(value.StaleNaN), nil, nil, storage.AOptions{}); err != nil {
			c.failed = fmt.Errorf("end old series: %w", err)
		}
	}
	if err := set.Err(); err != nil {
		c.failed = fmt.Errorf("end old series: %w", err)
	}
}

// ended reports whether the last sample of a series is its end.
func ended(it chunkenc.Iterator) bool {
	end := false
	for t := it.Next(); t != chunkenc.ValNone; t = it.Next() {
		switch t {
		case chunkenc.ValFloat:
			_, v := it.At()
			end = value.IsStaleNaN(v)
		case chunkenc.ValHistogram, chunkenc.ValFloatHistogram:
			_, h := it.AtFloatHistogram(nil)
			end = value.IsStaleNaN(h.Sum)
		default:
		}
	}
	return end
}
