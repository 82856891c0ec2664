// SPDX-License-Identifier: Apache-2.0

package promapi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/sluice-project/sluice/internal/signal"
	"github.com/sluice-project/sluice/internal/version"
)

// compatible is the release of Prometheus whose engine and API this is: what clients go by.
const compatible = "3.15.0"

// query answers /api/v1/query.
func (h *Handler) query(ctx context.Context, r *http.Request) (reply, error) {
	v, limit, opts, err := h.prepare(r)
	if err != nil {
		return reply{}, err
	}
	at, err := timeParam(r, "time", time.Now())
	if err != nil {
		return reply{}, err
	}
	q, err := v.Engine.NewInstantQuery(ctx, v.Queryable, opts, r.FormValue("query"), at)
	if err != nil {
		return reply{}, invalid("query", err)
	}
	return execute(ctx, q, r.FormValue("query"), limit)
}

// queryRange answers /api/v1/query_range.
func (h *Handler) queryRange(ctx context.Context, r *http.Request) (reply, error) {
	v, limit, opts, err := h.prepare(r)
	if err != nil {
		return reply{}, err
	}
	for _, name := range []string{"start", "end", "step"} {
		if r.FormValue(name) == "" {
			return reply{}, invalid(name, errors.New(`cannot parse "" to a valid value: it is required`))
		}
	}
	start, err1 := timeParam(r, "start", time.Time{})
	end, err2 := timeParam(r, "end", time.Time{})
	step, err3 := durationParam(r, "step", 0)
	if err := errors.Join(err1, err2, err3); err != nil {
		return reply{}, firstOf(err1, err2, err3)
	}
	switch {
	case end.Before(start):
		return reply{}, invalid("end", errors.New("end timestamp must not be before start time"))
	case step < time.Millisecond:
		return reply{}, invalid("step", errors.New("zero or negative query resolution step widths are not accepted. Try a positive integer"))
	case end.Sub(start)/step > mostPoints:
		return reply{}, badData("exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)")
	}
	q, err := v.Engine.NewRangeQuery(ctx, v.Queryable, opts, r.FormValue("query"), start, end, step)
	if err != nil {
		return reply{}, invalid("query", err)
	}
	if err := signal.CheckRange(q); err != nil {
		q.Close()
		return reply{}, invalid("query", err)
	}
	return execute(ctx, q, r.FormValue("query"), limit)
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// prepare reads what instant and range queries have in common.
func (h *Handler) prepare(r *http.Request) (signal.View, int, promql.QueryOpts, error) {
	v, err := h.signals.View()
	if err != nil {
		return v, 0, nil, err
	}
	limit, err := limitParam(r, "limit")
	if err != nil {
		return v, 0, nil, err
	}
	lookback, err := durationParam(r, "lookback_delta", v.Lookback)
	return v, limit, promql.NewPrometheusQueryOpts(false, lookback), err
}

// execute evaluates a query.
func execute(ctx context.Context, q promql.Query, text string, limit int) (reply, error) {
	result := q.Exec(ctx)
	if result.Err != nil {
		q.Close()
		return reply{}, queryProblem(result.Err)
	}
	warnings, infos := result.Warnings.AsStrings(text, 10, 10)
	value := result.Value
	if limit > 0 {
		var cut bool
		if value, cut = truncate(value, limit); cut {
			warnings = append(warnings, "results truncated due to limit")
		}
	}
	return reply{data: func(e *encoder) { e.value(value) }, warnings: warnings, infos: infos, release: q.Close}, nil
}

func truncate(v parser.Value, limit int) (parser.Value, bool) {
	switch v := v.(type) {
	case promql.Vector:
		return v[:min(limit, len(v))], len(v) > limit
	case promql.Matrix:
		return v[:min(limit, len(v))], len(v) > limit
	default:
		return v, false
	}
}

// queryProblem sorts the errors of the engine as Prometheus does.
func queryProblem(err error) problem {
	var (
		canceled promql.ErrQueryCanceled
		timeout  promql.ErrQueryTimeout
		store    promql.ErrStorage
	)
	switch {
	case errors.As(err, &timeout), errors.Is(err, context.DeadlineExceeded):
		return problem{http.StatusServiceUnavailable, "timeout", err.Error()}
	case errors.As(err, &canceled), errors.Is(err, context.Canceled):
		return problem{499, "canceled", err.Error()}
	case errors.As(err, &store):
		if signal.KindOf(store.Err) == signal.KindClosed {
			return problem{http.StatusServiceUnavailable, "unavailable", store.Err.Error()}
		}
		return problem{http.StatusInternalServerError, "internal", err.Error()}
	default:
		return problem{http.StatusUnprocessableEntity, "execution", err.Error()}
	}
}

// formatQuery answers /api/v1/format_query.
func (h *Handler) formatQuery(_ context.Context, r *http.Request) (reply, error) {
	v, err := h.signals.View()
	if err != nil {
		return reply{}, err
	}
	expr, err := v.Parser.ParseExpr(r.FormValue("query"))
	if err != nil {
		return reply{}, invalid("query", err)
	}
	return reply{data: func(e *encoder) { e.json(expr.Pretty(0)) }}, nil
}

// selection is what labels, values and series have in common.
type selection struct {
	querier storage.Querier
	sets    [][]*labels.Matcher
	limit   int
	hints   *storage.LabelHints
	start   int64
	end     int64
}

// selection reads it. Who gets one closes the querier.
func (h *Handler) selection(r *http.Request) (s selection, err error) {
	v, err := h.signals.View()
	if err != nil {
		return s, err
	}
	if s.sets, err = matchersParam(r, v.Parser); err != nil {
		return s, err
	}
	start, err1 := timeParam(r, "start", minTime)
	end, err2 := timeParam(r, "end", maxTime)
	limit, err3 := limitParam(r, "limit")
	if err := firstOf(err1, err2, err3); err != nil {
		return s, err
	}
	if end.Before(start) {
		return s, invalid("end", errors.New("end timestamp must not be before start time"))
	}
	s.limit, s.start, s.end = limit, start.UnixMilli(), end.UnixMilli()
	if limit > 0 {
		s.hints = &storage.LabelHints{Limit: limit + 1} // one more tells whether there are more
	}
	if s.querier, err = v.Queryable.Querier(s.start, s.end); err != nil {
		return s, queryProblem(err)
	}
	return s, nil
}

func (s selection) close() { _ = s.querier.Close() } // it was only read

// union asks once for each set of matchers, and sorts what comes back.
func (s selection) union(ask func(...*labels.Matcher) ([]string, error)) (reply, error) {
	sets := s.sets
	if len(sets) == 0 {
		sets = [][]*labels.Matcher{nil}
	}
	seen := map[string]bool{}
	for _, m := range sets {
		found, err := ask(m...)
		if err != nil {
			return reply{}, queryProblem(err)
		}
		for _, name := range found {
			seen[strings.Clone(name)] = true // it belongs to the querier
		}
	}
	all := slices.Sorted(maps.Keys(seen))
	var warnings []string
	if s.limit > 0 && len(all) > s.limit {
		all, warnings = all[:s.limit], []string{"results truncated due to limit"}
	}
	return reply{data: func(e *encoder) { list(e, all, func(n string) { e.json(n) }) }, warnings: warnings}, nil
}

// labelNames answers /api/v1/labels.
func (h *Handler) labelNames(ctx context.Context, r *http.Request) (reply, error) {
	s, err := h.selection(r)
	if err != nil {
		return reply{}, err
	}
	defer s.close()
	return s.union(func(m ...*labels.Matcher) ([]string, error) {
		names, _, err := s.querier.LabelNames(ctx, s.hints, m...)
		return names, err
	})
}

// labelValues answers /api/v1/label/NAME/values.
func (h *Handler) labelValues(ctx context.Context, r *http.Request) (reply, error) {
	name := r.PathValue("name")
	if strings.HasPrefix(name, "U__") {
		name = model.UnescapeName(name, model.ValueEncodingEscaping)
	}
	if !model.UTF8Validation.IsValidLabelName(name) {
		return reply{}, badData(fmt.Sprintf("invalid label name: %q", name))
	}
	s, err := h.selection(r)
	if err != nil {
		return reply{}, err
	}
	defer s.close()
	return s.union(func(m ...*labels.Matcher) ([]string, error) {
		values, _, err := s.querier.LabelValues(ctx, name, s.hints, m...)
		return values, err
	})
}

// series answers /api/v1/series.
func (h *Handler) series(ctx context.Context, r *http.Request) (reply, error) {
	s, err := h.selection(r)
	if err != nil {
		return reply{}, err
	}
	defer s.close()
	if len(s.sets) == 0 {
		return reply{}, badData("no match[] parameter provided")
	}
	hints := &storage.SelectHints{Start: s.start, End: s.end, Func: "series"} // no samples are needed
	if s.limit > 0 {
		hints.Limit = s.limit + 1
	}
	sets := make([]storage.SeriesSet, len(s.sets))
	for i, m := range s.sets {
		sets[i] = s.querier.Select(ctx, true, hints, m...)
	}
	merged := storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge)
	var found []labels.Labels
	var warnings []string
	for merged.Next() {
		if err := ctx.Err(); err != nil {
			return reply{}, queryProblem(err)
		}
		if s.limit > 0 && len(found) == s.limit {
			warnings = []string{"results truncated due to limit"}
			break
		}
		found = append(found, merged.At().Labels().Copy())
	}
	if err := merged.Err(); err != nil {
		return reply{}, queryProblem(err)
	}
	return reply{data: func(e *encoder) { list(e, found, e.labels) }, warnings: warnings}, nil
}

// explained is what a metric means.
type explained struct {
	Type string `json:"type"`
	Help string `json:"help"`
	Unit string `json:"unit"`
}

// metadata answers /api/v1/metadata.
func (h *Handler) metadata(_ context.Context, r *http.Request) (reply, error) {
	limit, err := limitParam(r, "limit")
	if err != nil {
		return reply{}, err
	}
	only := r.FormValue("metric")
	known := h.signals.Metadata()
	out := map[string][]explained{}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if only != "" && name != only || limit > 0 && len(out) == limit {
			continue
		}
		m := known[name]
		kind := string(m.Type)
		if kind == "" {
			kind = string(model.MetricTypeUnknown)
		}
		out[name] = []explained{{kind, m.Help, m.Unit}}
	}
	return reply{data: func(e *encoder) { e.json(out) }}, nil
}

// target is a target, as Prometheus lists it.
type target struct {
	Discovered   map[string]string `json:"discoveredLabels"`
	Labels       map[string]string `json:"labels"`
	Pool         string            `json:"scrapePool"`
	URL          string            `json:"scrapeUrl"`
	GlobalURL    string            `json:"globalUrl"`
	LastError    string            `json:"lastError"`
	LastScrape   time.Time         `json:"lastScrape"`
	LastDuration float64           `json:"lastScrapeDuration"`
	Health       string            `json:"health"`
	Interval     string            `json:"scrapeInterval"`
	Timeout      string            `json:"scrapeTimeout"`
}

// targets answers /api/v1/targets.
func (h *Handler) targets(_ context.Context, r *http.Request) (reply, error) {
	active := []target{}
	pool := r.FormValue("scrapePool")
	for _, t := range h.signals.Targets() {
		if pool != "" && pool != t.Pool || r.FormValue("state") == "dropped" {
			continue
		}
		active = append(active, target{
			t.Discovered, t.Labels, t.Pool, t.URL, t.URL, t.LastErr, t.LastScrape, t.LastDuration.Seconds(), t.Health,
			model.Duration(t.Interval).String(), model.Duration(t.Timeout).String(),
		})
	}
	data := map[string]any{"activeTargets": active, "droppedTargets": []target{}, "droppedTargetCounts": map[string]int{}}
	return reply{data: func(e *encoder) { e.json(data) }}, nil
}

// buildInfo answers /api/v1/status/buildinfo. The version is that of Prometheus, which Grafana goes by.
func (h *Handler) buildInfo(context.Context, *http.Request) (reply, error) {
	v := version.Get()
	data := map[string]string{
		"version": compatible, "revision": v.String(), "branch": "sluice", "buildUser": "", "buildDate": v.Time, "goVersion": v.Go,
	}
	return reply{data: func(e *encoder) { e.json(data) }}, nil
}

// runtimeInfo answers /api/v1/status/runtimeinfo.
func (h *Handler) runtimeInfo(context.Context, *http.Request) (reply, error) {
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	s := h.signals.Status()
	data := map[string]any{
		"startTime": h.begin.UTC(), "serverTime": time.Now().UTC(), "hostname": host, "CWD": "",
		"reloadConfigSuccess": true, "lastConfigTime": h.begin.UTC(), "corruptionCount": 0,
		"goroutineCount": runtime.NumGoroutine(), "GOMAXPROCS": runtime.GOMAXPROCS(0), "GOMEMLIMIT": 0, "GOGC": "", "GODEBUG": "",
		"storageRetention": "", "series": s.Series, "maxSeries": s.MaxSeries, "bytes": s.Bytes,
	}
	return reply{data: func(e *encoder) { e.json(data) }}, nil
}
