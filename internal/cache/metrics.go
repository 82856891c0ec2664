// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are read when they are scraped. Cardinality is bounded: maxPoints control points have series of their
// own, the others share one, and so do those whose names have characters that do not print.
var (
	typeLabels = []string{"type", "control_point"}
	descHits   = prometheus.NewDesc("cache_lookup_hits_total",
		"Look-ups that found a value, by cache: result or global. Global keys belong to no control point: theirs is empty.", typeLabels, nil)
	descMisses = prometheus.NewDesc("cache_lookup_misses_total",
		"Look-ups that found none, errors included.", typeLabels, nil)
	descResults = prometheus.NewDesc("cache_operation_results_total",
		"Look-ups, upserts and deletes of single keys, by whether they could be done; a miss could.",
		append(typeLabels[:2:2], "operation_type", "status"), nil)
	descStale = prometheus.NewDesc("sluice_cache_stale_total",
		"Flows that got a value which had expired, while another flow computed it anew.", typeLabels[1:], nil)
	descLeaders = prometheus.NewDesc("sluice_cache_leaders_total",
		"Flows that were chosen to compute a missing value which others may wait for.", typeLabels[1:], nil)
	descCoalesced = prometheus.NewDesc("sluice_cache_coalesced_total",
		"Flows that waited for a value which another flow computed, and got it.", typeLabels[1:], nil)
	descGaveUp = prometheus.NewDesc("sluice_cache_wait_timeouts_total",
		"Flows that waited for a value as long as they might, and went on without.", nil, nil)
	descPassed = prometheus.NewDesc("sluice_cache_leads_passed_total",
		"Leads that were passed on to a flow that waited, because the one before ended or took too long.", nil, nil)
	descRanOut = prometheus.NewDesc("sluice_cache_lead_timeouts_total",
		"Leads that took longer than caches.coalesce_timeout while others waited.", nil, nil)
	descComputing = prometheus.NewDesc("sluice_cache_computing", "Keys whose value a flow computes now, for others to share.", nil, nil)
	descWaiting   = prometheus.NewDesc("sluice_cache_waiting", "Flows that wait now for a value which another flow computes.", nil, nil)
	descEntries   = prometheus.NewDesc("sluice_cache_entries", "Values kept, those that have expired of late included.", nil, nil)
	descBytes     = prometheus.NewDesc("sluice_cache_bytes", "Memory of the values kept, with keys and bookkeeping.", nil, nil)
	descEvicted   = prometheus.NewDesc("sluice_cache_evictions_total", "Values that were dropped before they expired, to make room.", nil, nil)
)

type operation uint8

const (
	opLookup operation = iota
	opUpsert
	opDelete
	nOperations
)

var operationNames = [nOperations]string{"lookup", "upsert", "delete"}

// maxPoints is how many control points are counted one by one.
const maxPoints = 10_000

// otherPoint is the name that the rest is counted under.
const otherPoint = "(other)"

// counters are the figures of a Cache.
type counters struct {
	points                 sync.Map // control point -> *pointCounts; "" are the global keys
	nPoints                atomic.Int64
	gaveUp, passed, ranOut atomic.Uint64
}

// pointCounts are the figures of one control point.
type pointCounts struct {
	kind                      Kind
	hits, misses              atomic.Uint64
	stale, leaders, coalesced atomic.Uint64
	done, failed              [nOperations]atomic.Uint64
}

func (c *counters) of(k *Key) *pointCounts {
	name := k.ControlPoint
	if k.Kind == Global {
		name = ""
	}
	if p, ok := c.points.Load(name); ok {
		return p.(*pointCounts)
	}
	if k.Kind != Global && (name == "" || len(name) > MaxControlPointBytes || !prints(name) || c.nPoints.Load() >= maxPoints) {
		name = otherPoint
	}
	p, known := c.points.LoadOrStore(strings.Clone(name), &pointCounts{kind: k.Kind})
	if !known {
		c.nPoints.Add(1)
	}
	return p.(*pointCounts)
}

// prints tells whether s is UTF-8 without control characters.
func prints(s string) bool {
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return false
		}
	}
	return true
}

func (c *counters) looked(k *Key, status Status) { c.of(k).looked(status) }

func (p *pointCounts) looked(status Status) {
	if status == Hit || status == Stale {
		p.hits.Add(1)
	} else {
		p.misses.Add(1)
	}
	if status == Failed {
		p.failed[opLookup].Add(1)
	} else {
		p.done[opLookup].Add(1)
	}
}

// joined counts the answer of a Join.
func (c *counters) joined(k *Key, a *Answer, waited bool) {
	p := c.of(k)
	p.looked(a.Status)
	if a.Status == Stale {
		p.stale.Add(1)
	}
	if a.Lead != 0 {
		p.leaders.Add(1)
	}
	if waited && a.Status == Hit {
		p.coalesced.Add(1)
	}
}

func (c *counters) did(op operation, k *Key, err error) {
	p := c.of(k)
	if err != nil {
		p.failed[op].Add(1)
	} else {
		p.done[op].Add(1)
	}
}

type collector struct{ c *Cache }

// Collector returns the metrics of the cache.
func (c *Cache) Collector() prometheus.Collector { return collector{c} }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descHits, descMisses, descResults, descStale, descLeaders, descCoalesced, descGaveUp, descPassed, descRanOut,
		descComputing, descWaiting, descEntries, descBytes, descEvicted,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m collector) Collect(ch chan<- prometheus.Metric) {
	c := m.c
	c.counts.points.Range(func(name, p any) bool {
		p.(*pointCounts).collect(ch, name.(string))
		return true
	})
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64) {
		ch <- prometheus.MustNewConstMetric(d, kind, v)
	}
	c.sweep()
	send(descGaveUp, prometheus.CounterValue, float64(c.counts.gaveUp.Load()))
	send(descPassed, prometheus.CounterValue, float64(c.counts.passed.Load()))
	send(descRanOut, prometheus.CounterValue, float64(c.counts.ranOut.Load()))
	send(descComputing, prometheus.GaugeValue, float64(c.nFlown.Load()))
	send(descWaiting, prometheus.GaugeValue, float64(c.nWaits.Load()))
	u := c.store.Usage()
	send(descEntries, prometheus.GaugeValue, float64(u.Entries))
	send(descBytes, prometheus.GaugeValue, float64(u.Bytes))
	send(descEvicted, prometheus.CounterValue, float64(u.Evicted))
}

func (p *pointCounts) collect(ch chan<- prometheus.Metric, name string) {
	send := func(d *prometheus.Desc, n *atomic.Uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n.Load()), labels...)
	}
	kind := p.kind.String()
	send(descHits, &p.hits, kind, name)
	send(descMisses, &p.misses, kind, name)
	for op := range nOperations {
		send(descResults, &p.done[op], kind, name, operationNames[op], "success")
		send(descResults, &p.failed[op], kind, name, operationNames[op], "error")
	}
	if p.kind == Global {
		return
	}
	send(descStale, &p.stale, name)
	send(descLeaders, &p.leaders, name)
	send(descCoalesced, &p.coalesced, name)
}
