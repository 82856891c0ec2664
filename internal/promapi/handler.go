// SPDX-License-Identifier: Apache-2.0

// Package promapi serves the time series of package signal in the ways that tools for Prometheus expect: its
// HTTP API for Grafana and promtool, remote write (1.0 and 2.0), and OTLP metrics over HTTP and gRPC.
//
// It checks no credentials: whoever mounts the handlers does. ReadHandler only reads; WriteHandler and
// RegisterOTLP add series.
package promapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/sluice-project/sluice/internal/signal"
)

// Bounds. A reading request that waits longer than its time-out for its turn is told so.
const (
	mostReads  = 4        // evaluated at a time, see reads
	mostWrites = 4        // decoded at a time
	mostQueued = 100      // reads or writes waiting for their turn
	mostForm   = 1 << 20  // bytes of a form
	mostBody   = 4 << 20  // bytes of a batch of samples as sent: what the server takes of any request
	mostText   = 32 << 20 // bytes of a batch of samples without its compression
	mostPoints = 11_000   // of one series in a range query, as in Prometheus
	// mostSelectors is how often match[] may be given.
	mostSelectors = 100
	writeTime     = 30 * time.Second
)

// reads is how many reading requests are evaluated at a time: they may keep half of the processors busy. Those that
// took all of them would have flows wait for their decision, on two processors 40 ms instead of 0.5.
func reads() int { return min(max(1, runtime.GOMAXPROCS(0)/2), mostReads) }

// Config is what the handlers work on.
type Config struct {
	// Signals has the series.
	Signals *signal.Service
	// Logger gets what operators should know. nil: nothing is logged.
	Logger *slog.Logger
}

// Handler serves the API. It is safe for concurrent use.
type Handler struct {
	signals *signal.Service
	log     *slog.Logger
	begin   time.Time
	reads   *queue
	writes  *queue
	read    *http.ServeMux
	write   *http.ServeMux
}

// New makes the handlers.
func New(c Config) *Handler {
	h := &Handler{
		signals: c.Signals, log: c.Logger, begin: time.Now(),
		reads: newQueue(reads()), writes: newQueue(mostWrites), read: http.NewServeMux(), write: http.NewServeMux(),
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	for path, serve := range map[string]endpoint{
		"/api/v1/query":               h.query,
		"/api/v1/query_range":         h.queryRange,
		"/api/v1/format_query":        h.formatQuery,
		"/api/v1/labels":              h.labelNames,
		"/api/v1/label/{name}/values": h.labelValues,
		"/api/v1/series":              h.series,
		"/api/v1/metadata":            h.metadata,
		"/api/v1/targets":             h.targets,
		"/api/v1/rules":               nothing(`{"groups":[]}`),
		"/api/v1/alerts":              nothing(`{"alerts":[]}`),
		"/api/v1/query_exemplars":     nothing(`[]`),
		"/api/v1/status/buildinfo":    h.buildInfo,
		"/api/v1/status/runtimeinfo":  h.runtimeInfo,
	} {
		h.read.Handle(path, h.serve(path, serve))
	}
	for _, path := range []string{"/-/healthy", "/-/ready"} { // what promtool checks
		h.read.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "Sluice is ready.") })
	}
	h.read.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, problem{http.StatusNotFound, "not_found", fmt.Sprintf("there is no %s; this server has /api/v1/query, query_range, labels, label/NAME/values, series, metadata and targets", r.URL.Path)})
	})
	h.write.Handle("/api/v1/write", h.remoteWrite())
	h.write.HandleFunc("/v1/metrics", h.otlp)
	h.write.HandleFunc("/api/v1/otlp/v1/metrics", h.otlp)
	h.write.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, fmt.Sprintf("there is no %s; samples go to /api/v1/write (remote write) or /v1/metrics (OTLP)", r.URL.Path), http.StatusNotFound)
	})
	return h
}

// ReadHandler serves what reads: /api/v1/ except write and otlp.
func (h *Handler) ReadHandler() http.Handler { return h.read }

// WriteHandler serves what adds series: POST /api/v1/write, /v1/metrics and /api/v1/otlp/v1/metrics.
func (h *Handler) WriteHandler() http.Handler { return h.write }

// IsWrite reports whether a path belongs to WriteHandler.
func IsWrite(path string) bool {
	return slices.Contains([]string{"/api/v1/write", "/v1/metrics", "/api/v1/otlp/v1/metrics"}, path)
}

// ServeHTTP serves both, for who makes no difference.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if IsWrite(r.URL.Path) {
		h.write.ServeHTTP(w, r)
		return
	}
	h.read.ServeHTTP(w, r)
}

// endpoint answers a request whose form is parsed.
type endpoint func(ctx context.Context, r *http.Request) (reply, error)

// posts are the endpoints whose parameters may come in a body.
var posts = []string{"/api/v1/query", "/api/v1/query_range", "/api/v1/format_query", "/api/v1/labels", "/api/v1/series", "/api/v1/query_exemplars"}

// serve does what all endpoints have in common.
func (h *Handler) serve(path string, e endpoint) http.Handler {
	methods := []string{http.MethodGet, http.MethodHead}
	if slices.Contains(posts, path) {
		methods = append(methods, http.MethodPost)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(methods, r.Method) {
			w.Header().Set("Allow", strings.Join(methods, ", "))
			writeProblem(w, problem{http.StatusMethodNotAllowed, "bad_data", fmt.Sprintf("method %s, want %s", r.Method, strings.Join(methods, " or "))})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, mostForm)
		if err := r.ParseForm(); err != nil {
			writeProblem(w, badData("error parsing form values: "+err.Error()))
			return
		}
		if err := checkQueries(r); err != nil {
			writeError(w, err)
			return
		}
		timeout, err := durationParam(r, "timeout", signal.ReadTimeout)
		if err != nil {
			writeError(w, err)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), min(timeout, signal.ReadTimeout))
		defer cancel()
		if err := h.reads.enter(ctx); err != nil {
			w.Header().Set("Retry-After", "1")
			writeError(w, err)
			return
		}
		defer h.reads.leave()
		answer, err := e(ctx, r)
		if err != nil {
			writeError(w, err)
			return
		}
		defer answer.close()
		writeReply(w, answer)
	})
}

// checkQueries bounds what has to be parsed.
func checkQueries(r *http.Request) error {
	selectors := r.Form["match[]"]
	if len(selectors) > mostSelectors {
		return badData(fmt.Sprintf("%d times match[], want at most %d", len(selectors), mostSelectors))
	}
	for _, text := range append([]string{r.FormValue("query")}, selectors...) {
		if len(text) > signal.MostQuery {
			return badData(fmt.Sprintf("a query of %d bytes, want at most %d", len(text), signal.MostQuery))
		}
	}
	return nil
}

// problem is a mistake or failure, as Prometheus reports it.
type problem struct {
	status int
	kind   string // errorType
	text   string
}

func (p problem) Error() string { return p.text }

func badData(text string) problem { return problem{http.StatusBadRequest, "bad_data", text} }

func invalid(param string, err error) problem {
	return badData(fmt.Sprintf("invalid parameter %q: %v", param, err))
}

// writeError answers with an error of any kind.
func writeError(w http.ResponseWriter, err error) {
	if p, ok := errors.AsType[problem](err); ok {
		writeProblem(w, p)
		return
	}
	status, kind := http.StatusInternalServerError, "internal"
	switch signal.KindOf(err) {
	case signal.KindClosed:
		status, kind = http.StatusServiceUnavailable, "unavailable"
	case signal.KindUnreachable: // the series are elsewhere
		status, kind = http.StatusNotFound, "not_found"
	default:
	}
	writeProblem(w, problem{status, kind, err.Error()})
}

func writeProblem(w http.ResponseWriter, p problem) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(p.status)
	body, _ := json.Marshal(struct { // strings can be written
		Status    string `json:"status"`
		ErrorType string `json:"errorType"`
		Error     string `json:"error"`
	}{"error", p.kind, p.text})
	_, _ = w.Write(append(body, '\n'))
}

// nothing answers with data that is always the same.
func nothing(data string) endpoint {
	return func(context.Context, *http.Request) (reply, error) {
		return reply{data: func(b *encoder) { b.raw(data) }}, nil
	}
}

// queue lets a number of requests in at a time, and a number wait.
type queue struct{ inside, all chan struct{} }

func newQueue(most int) *queue {
	return &queue{make(chan struct{}, most), make(chan struct{}, most+mostQueued)}
}

// enter waits for a turn. Who got in calls leave.
func (q *queue) enter(ctx context.Context) error {
	select {
	case q.all <- struct{}{}:
	default:
		return problem{http.StatusServiceUnavailable, "unavailable", fmt.Sprintf("%d other requests are waiting: try again later", mostQueued)}
	}
	select {
	case q.inside <- struct{}{}:
		return nil
	case <-ctx.Done():
		<-q.all
		return problem{http.StatusServiceUnavailable, "timeout", "other requests took all the time: try again later"}
	}
}

func (q *queue) leave() { <-q.inside; <-q.all }
