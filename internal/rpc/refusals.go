// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// refusalLogInterval is the least time between two lines of the log about calls refused for one reason: anybody can
// make some.
const refusalLogInterval = time.Minute

// refusals counts calls that were refused because of their token, and logs one now and then. A proxy that lets
// requests pass when it is refused limits nothing, and nobody notices elsewhere.
type refusals struct {
	counts                 *prometheus.CounterVec
	log                    atomic.Pointer[slog.Logger] // nil: none
	missing, unknown, role refusal
}

// refusal is one reason.
type refusal struct {
	count    prometheus.Counter
	next     atomic.Int64 // Unix nanoseconds before which nothing is logged
	unlogged atomic.Int64 // since the last line
}

func newRefusals() *refusals {
	r := &refusals{counts: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sluice_auth_refused_total",
		Help: "Calls that were refused because of their token, by reason: missing, unknown (to this server) or role (which may not make the call).",
	}, []string{"reason"})}
	r.missing.count, r.unknown.count = r.counts.WithLabelValues("missing"), r.counts.WithLabelValues("unknown")
	r.role.count = r.counts.WithLabelValues("role")
	return r
}

// note counts a refusal: of which call, by whom, with which header, and why.
func (r *refusals) note(call, from, header string, err error) {
	reason, of := "unknown", &r.unknown
	switch {
	case status.Code(err) == codes.PermissionDenied:
		reason, of = "role", &r.role
	case header == "":
		reason, of = "missing", &r.missing
	}
	of.count.Inc()
	log, now, next := r.log.Load(), time.Now().UnixNano(), of.next.Load()
	if log == nil || now < next || !of.next.CompareAndSwap(next, now+int64(refusalLogInterval)) {
		of.unlogged.Add(1)
		return
	}
	log.Warn("a call was refused because of its token", "reason", reason, "call", call, "from", from, "more_before", of.unlogged.Swap(0))
}
