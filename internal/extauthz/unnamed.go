// SPDX-License-Identifier: Apache-2.0

package extauthz

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// unnamedLogInterval is the least time between two lines of the log about calls without a control point.
const unnamedLogInterval = time.Minute

// unnamed logs now and then that Envoy names no control point. When Envoy lets requests pass about which it gets an
// error, nothing is limited, and nobody notices elsewhere. It may be used concurrently; the zero value is ready.
type unnamed struct {
	next     atomic.Int64 // Unix nanoseconds before which nothing is logged
	unlogged atomic.Int64 // calls since the last line
}

// note is called for every such call.
func (u *unnamed) note(ctx context.Context, log *slog.Logger) {
	now, next := time.Now().UnixNano(), u.next.Load()
	if now < next || !u.next.CompareAndSwap(next, now+int64(unnamedLogInterval)) {
		u.unlogged.Add(1)
		return
	}
	log.WarnContext(ctx, "Envoy names no control point, so its question gets an error and nothing is limited: add "+
		"control-point to the initial_metadata of its grpc_service or to the context_extensions of the route, or set "+
		"envoy_authorization.control_point of Sluice", "from", peerIP(ctx), "more_before", u.unlogged.Swap(0))
}
