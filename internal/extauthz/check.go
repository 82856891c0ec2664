// SPDX-License-Identifier: Apache-2.0

package extauthz

import (
	"context"
	"encoding/base64"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-project/sluice/internal/flow"
)

// checks is the authorization service.
type checks struct{ door *Door }

var _ authv3.AuthorizationServer = checks{}

// Check implements AuthorizationServer: it decides one request, waiting in queues until Envoy's deadline.
func (c checks) Check(ctx context.Context, in *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	d, started := c.door, time.Now()
	r := d.request(ctx, in.GetAttributes())
	if r.ControlPoint == "" {
		d.counts.check(checkNoControlPoint)
		d.unnamed.note(ctx, d.log)
		return nil, status.Error(codes.InvalidArgument, "missing control-point: name it in the initial_metadata of Envoy's "+
			"grpc_service, or in the context_extensions of the route, with the key control-point")
	}
	f := d.config.Engine.Start(ctx, r)
	if err := d.nobodyAsks(ctx, f); err != nil {
		return nil, err
	}
	defer f.Free()
	if f.Verdict.Reason == flow.ShuttingDown {
		// Another server may decide it; if there is none, failure_mode_allow says what happens.
		d.counts.check(checkUnavailable)
		return nil, status.Error(codes.Unavailable, f.Verdict.Message())
	}
	return d.response(f, r, d.metadata(f, r, started)), nil
}

// nobodyAsks frees a flow whose caller has gone, and gives back what it was charged.
func (d *Door) nobodyAsks(ctx context.Context, f *flow.Flow) error {
	err := ctx.Err()
	if err == nil || !f.Admitted() && f.Verdict.Reason != flow.Cancelled {
		return nil
	}
	d.counts.check(checkCancelled)
	if f.Admitted() {
		f.Abort()
	} else {
		f.Free()
	}
	return status.FromContextError(err).Err()
}

// Keys of the dynamic metadata of a request, in the namespace of Envoy's filter.
const (
	metadataNamespace   = "envoy.filters.http.ext_authz"
	tokenKey            = "sluice.flow_token"
	checkResponseKey    = "aperture.check_response"
	authzDurationKey    = "ext_authz_duration" // Envoy's own: milliseconds
	tokenSeparator      = ","
	maxTokens           = 8 // of one request, which several filters may ask about
	maxTokenText        = 96 << 10
	maxMetadataTextSize = maxTokens * maxTokenText
)

var tokenText = base64.RawURLEncoding
