// SPDX-License-Identifier: Apache-2.0

// Package sluicehttp puts flows around HTTP: Middleware around a server's handlers, RoundTripper around
// a client's requests.
package sluicehttp

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"

	sluice "github.com/sluice-project/sluice/sdk/go"
)

// Option changes how requests become flows.
type Option func(*settings)

type settings struct {
	labels  func(*http.Request) sluice.Labels
	ignored []func(*http.Request) bool
	flow    []sluice.FlowOption
	denied  func(http.ResponseWriter, *http.Request, *sluice.Flow)
}

// WithLabels sets the function that extracts labels from a request, instead of DefaultLabels. It may be
// called concurrently. Add to DefaultLabels rather than copying headers wholesale: labels reach the
// server, and secrets should not.
func WithLabels(labels func(*http.Request) sluice.Labels) Option {
	return func(s *settings) {
		if labels != nil {
			s.labels = labels
		}
	}
}

// WithIgnoredPaths lets requests for these paths pass without a flow, such as health checks. A path that
// ends in "/" stands for all below it, too.
func WithIgnoredPaths(paths ...string) Option {
	return WithIgnored(func(r *http.Request) bool {
		for _, path := range paths {
			if r.URL.Path == path || strings.HasSuffix(path, "/") && strings.HasPrefix(r.URL.Path, path) {
				return true
			}
		}
		return false
	})
}

// WithIgnored lets requests pass without a flow for which ignored is true. It may be called concurrently.
func WithIgnored(ignored func(*http.Request) bool) Option {
	return func(s *settings) {
		if ignored != nil {
			s.ignored = append(s.ignored, ignored)
		}
	}
}

// WithFlowOptions sets options for every flow, for example sluice.WithQueueTimeout.
func WithFlowOptions(opts ...sluice.FlowOption) Option {
	return func(s *settings) { s.flow = append(s.flow, opts...) }
}

// WithDenied sets the function that answers denied requests, instead of WriteDenied. RoundTripper does
// not use it.
func WithDenied(denied func(http.ResponseWriter, *http.Request, *sluice.Flow)) Option {
	return func(s *settings) {
		if denied != nil {
			s.denied = denied
		}
	}
}

func newSettings(opts []Option) *settings {
	s := &settings{labels: DefaultLabels, denied: WriteDenied}
	for _, opt := range opts {
		if opt != nil {
			opt(s)
		}
	}
	return s
}

func (s *settings) isIgnored(r *http.Request) bool {
	for _, ignored := range s.ignored {
		if ignored(r) {
			return true
		}
	}
	return false
}

// DefaultLabels are http.method, http.host, http.scheme and http.target (the path without the query).
func DefaultLabels(r *http.Request) sluice.Labels {
	scheme, host := r.URL.Scheme, r.Host
	if scheme == "" { // a request that a server received
		scheme = "http"
		if r.TLS != nil {
			scheme = "https"
		}
	}
	if host == "" { // a request that a client sends
		host = r.URL.Host
	}
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	return sluice.Labels{"http.method": method, "http.host": host, "http.scheme": scheme, "http.target": r.URL.Path}
}

// Middleware asks for a flow at the control point before it calls the next handler, and answers denied
// requests itself. The flow waits as long as the request's context allows; it ends when the handler
// returns, as failed if the status is 500 or more or the handler panics. The handler finds it with
// sluice.FlowFrom, to end it earlier or with its true cost.
func Middleware(client *sluice.Client, controlPoint string, opts ...Option) func(http.Handler) http.Handler {
	s := newSettings(opts)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if s.isIgnored(r) {
				next.ServeHTTP(w, r)
				return
			}
			flow := client.StartFlow(r.Context(), controlPoint, s.labels(r), s.flow...)
			if !flow.ShouldRun() {
				s.denied(w, r, flow)
				return
			}
			serve(next, w, r, flow)
		})
	}
}

// serve runs the handler inside the flow.
func serve(next http.Handler, w http.ResponseWriter, r *http.Request, flow *sluice.Flow) {
	rec := &recorder{ResponseWriter: w}
	status := sluice.StatusError // also when the handler panics
	defer func() { flow.End(sluice.WithStatus(status)) }()
	next.ServeHTTP(rec, r.WithContext(sluice.ContextWithFlow(r.Context(), flow)))
	if rec.status < http.StatusInternalServerError {
		status = sluice.StatusOK
	}
}

// denialBody is the JSON answer to a denied request.
type denialBody struct {
	Error             string   `json:"error"`
	Reason            string   `json:"reason"`
	Message           string   `json:"message,omitempty"`
	Policy            string   `json:"policy,omitempty"`
	Limiter           string   `json:"limiter,omitempty"`
	RetryAfterSeconds *float64 `json:"retry_after_seconds,omitempty"`
}

// WriteDenied answers a denied request: the status of the verdict, Retry-After in whole seconds rounded
// up, and a JSON object with error ("denied"), reason, message, policy, limiter and retry_after_seconds.
// The message may name the account, which comes from the labels of this request. It is left out when the
// server could not be asked, because it then names the server.
func WriteDenied(w http.ResponseWriter, r *http.Request, flow *sluice.Flow) {
	v := flow.Verdict()
	body := denialBody{Error: "denied", Reason: v.Reason, Message: v.Message, Policy: v.Policy, Limiter: v.Limiter}
	if flow.Err() != nil {
		body.Message = ""
	}
	if after, ok := flow.RetryAfter(); ok {
		seconds := after.Seconds()
		body.RetryAfterSeconds = &seconds
		w.Header().Set("Retry-After", strconv.FormatFloat(math.Ceil(seconds), 'f', 0, 64))
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Length")
	w.WriteHeader(flow.HTTPStatus())
	if r.Method != http.MethodHead {
		_ = json.NewEncoder(w).Encode(body) // the client may have gone
	}
}
