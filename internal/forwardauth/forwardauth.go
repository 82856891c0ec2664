// SPDX-License-Identifier: Apache-2.0

// Package forwardauth answers proxies that ask about a request with a request: auth_request of nginx, forward_auth
// of Caddy, ForwardAuth of Traefik.
//
// A proxy asks at /forward-auth/CONTROL_POINT. Its question has the headers of the request that it holds; where
// that came from and went to is in further headers, which the proxy adds (see original). The answer is 2xx, and
// the request goes on, or it is the denial that the client shall get.
//
// Nothing that a client can send changes how it is judged, but baggage. What is to be decided and how is in the URL,
// which only the configuration of the proxy writes (see settings); headers that begin with Sluice- count only if the URL
// names them. The header baggage makes labels, as it does at every door: proxies at the edge take it from requests of
// strangers.
package forwardauth

import (
	"encoding/base64"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/flow"
)

// Path is where proxies ask. What follows it after a slash is the control point.
const Path = "/forward-auth"

// endPath is where they tell how it went. A control point of this name is asked for with control_point=end.
const endPath = Path + "/end"

// DefaultQueueTimeout is below the time-outs that proxies are configured with.
const DefaultQueueTimeout = 500 * time.Millisecond

// Config says how a Door decides.
type Config struct {
	// Engine decides. Required.
	Engine *flow.Engine
	// Services finds the services that have an IP address; nil: none is known. It is called concurrently.
	Services func(address string) []string
	// QueueTimeout is how long a request may wait in queues when its URL does not say; 0: it does not wait.
	QueueTimeout time.Duration
}

// Door answers proxies. It checks no credentials: whoever mounts it does, since it believes what it is told. It may be
// used concurrently.
type Door struct {
	config Config
	counts counts
}

// New makes a door.
func New(config Config) *Door {
	return &Door{config: config, counts: newCounts()}
}

// Paths are the patterns at which a Door is to be mounted.
func (d *Door) Paths() map[string]http.Handler {
	return map[string]http.Handler{Path: d, Path + "/": d}
}

// Collector returns the metrics of the door.
func (d *Door) Collector() prometheus.Collector { return d.counts }

// ServeHTTP implements http.Handler.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == endPath && r.URL.RawQuery == "" {
		d.end(w, r)
		return
	}
	s, err := d.settingsOf(r.URL)
	if err != nil {
		d.counts.invalid.Inc()
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	d.decide(w, r, &s)
}

func (d *Door) decide(w http.ResponseWriter, r *http.Request, s *settings) {
	in := s.original(r)
	request := flow.Request{
		ControlPoint: s.point, Labels: s.labelsOf(r.Header), Services: s.services, QueueTimeout: s.timeout,
		NoEnd:   !s.expectEnd,
		Explain: true, // headers tell about every limit that was asked
		HTTP:    in,
	}
	d.findServices(r, &request)
	f := d.config.Engine.Start(r.Context(), &request)
	if r.Context().Err() != nil { // nobody is there to be told, so the request will not go on
		d.counts.gone.Inc()
		if f.Admitted() {
			f.Abort()
		} else {
			f.Free()
		}
		return
	}
	defer f.Free()
	f.Verdict.RateLimitHeaders(func(name, value string) { set(w.Header(), name, value) })
	if f.Admitted() {
		d.counts.admit.Inc()
		admit(w, f, in)
		return
	}
	d.counts.deny.Inc()
	deny(w, r, &f.Verdict, s.denyStatus)
}

// findServices fills in what discovery knows: the flow belongs to the services of the proxy that asks, unless its URL
// says otherwise.
func (d *Door) findServices(r *http.Request, request *flow.Request) {
	if d.config.Services == nil {
		request.HTTP.DestinationServices = request.Services
		return
	}
	if len(request.Services) == 0 {
		if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
			request.Services = d.config.Services(host)
		}
	}
	request.HTTP.Discover(d.config.Services)
	request.HTTP.DestinationServices = request.Services
}

func admit(w http.ResponseWriter, f *flow.Flow, in *classify.Request) {
	h := w.Header()
	h[headerVerdict] = admitted
	if baggage := in.Baggage(f.Derived()); baggage != "" {
		set(h, "Baggage", baggage)
	}
	if !f.NoEnd() {
		h.Set(headerToken, base64.RawURLEncoding.EncodeToString(f.Seal(nil)))
	}
	w.WriteHeader(http.StatusNoContent)
}

// end tells how a request went that was asked about with expect_end.
func (d *Door) end(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "forward-auth: the end of a request is told with POST; to ask about the control point \"end\", "+
			"use "+Path+"?control_point=end", http.StatusMethodNotAllowed)
		return
	}
	result, err := d.endToken(r.Header)
	if err != "" {
		d.counts.ends.WithLabelValues("invalid").Inc()
		http.Error(w, "forward-auth: "+err, http.StatusBadRequest)
		return
	}
	d.counts.ends.WithLabelValues(result).Inc()
	w.Header().Set("Sluice-Result", result)
	w.WriteHeader(http.StatusNoContent)
}

// endToken ends the flow that the headers name. The problem is "" when that was possible.
func (d *Door) endToken(h http.Header) (result, problem string) {
	token, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(h.Get(headerToken), "="))
	if err != nil || len(token) == 0 {
		return "", headerToken + " has no token; pass on what the answer to the question had"
	}
	outcome := flow.Outcome{}
	if text := h.Get(headerStatus); text != "" {
		code, err := strconv.Atoi(text)
		if err != nil || code < 100 || code > 599 {
			return "", headerStatus + " is not an HTTP status; expected 100 to 599, or no such header"
		}
		outcome.HTTPStatus, outcome.Failed = code, code >= 500
	}
	ended, err := d.config.Engine.EndToken(token, &outcome)
	if err != nil {
		return "", err.Error() + "; pass the header " + headerToken + " of the answer on unchanged"
	}
	return ended.String(), ""
}
