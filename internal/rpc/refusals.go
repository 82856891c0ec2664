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

// refusalLogInterval is the least time between two lines of the log about refused calls: anybody can make some.
const refusalLogInterval = time.Minute

// refusals counts calls that were refused because of their token, and logs one now and then. A proxy that lets
// requests pass when it is refused limits nothing, and nobody notices elsewhere.
type refusals struct {
	counts   *prometheus.CounterVec
	log      atomic.Pointer[slog.Logger] // nil: none
	next     atomic.Int64                // Unix nanoseconds before which nothing is logged
	unlogged atomic.Int64                // since the last line
}

func newRefusals() *refusals {
	r := &refusals{counts: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sluice_auth_refused_total",
		Help: "Calls that were refused because of their token, by reason: missing, unknown (to this server) or role (which may not make the call).",
	}, []string{"reason"})}
	for _, reason := range []string{"missing", "unknown", "role"} {
		r.counts.WithLabelValues(reason)
	}
	return r
}

// note counts a refusal: of which call, by whom, with which header, and why.
func (r *refusals) note(call, from, header string, err error) {
	reason := "unknown"
	switch {
	case status.Code(err) == codes.PermissionDenied:
		reason = "role"
	case header == "":
		reason = "missing"
	}
	r.counts.WithLabelValues(reason).Inc()
	log, now, next := r.log.Load(), time.Now().UnixNano(), r.next.Load()
	if log == nil || now < next || !r.next.CompareAndSwap(next, now+int64(refusalLogInterval)) {
		r.unlogged.Add(1)
		return
	}
	log.Warn("a call was refused because of its token", "reason", reason, "call", call, "from", from, "more_before", r.unlogged.Swap(0))
}
