// SPDX-License-Identifier: Apache-2.0

package rls

import (
	"fmt"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/rls/descriptor"
)

// Bounds of a request. Envoy's routes make a handful of descriptors with a handful of entries; what is far beyond
// that would keep the server busy for somebody who pays nothing for it.
//
// The length of values is bounded by that of a message only: they come from clients of Envoy, and a refusal is an
// error, after which Envoy lets requests pass unless told otherwise. A long value must not be the way around a limit.
const maxDescriptors = 256

// Why requests are refused, for metrics.
const (
	reasonDomain       = "domain"
	reasonDescriptors  = "descriptors"
	reasonEntries      = "entries"
	reasonHits         = "hits"
	reasonNegativeHits = "negative_hits"
)

// refusal is what is wrong with a request.
type refusal struct{ reason, text string }

// check refuses requests before anything is decided or charged.
func check(in *rlsv3.RateLimitRequest) *refusal {
	switch n := len(in.GetDescriptors()); {
	case in.GetDomain() == "":
		return &refusal{reasonDomain, "domain: got none, want the domain of the limits; set domain in Envoy's rate limit filter"}
	case n == 0:
		return &refusal{reasonDescriptors, "descriptors: got none, want at least one; without any there is nothing to decide"}
	case n > maxDescriptors:
		return &refusal{reasonDescriptors, fmt.Sprintf("descriptors: got %d, want at most %d", n, maxDescriptors)}
	}
	for i, d := range in.GetDescriptors() {
		if r := checkDescriptor(d); r != nil {
			r.text = fmt.Sprintf("descriptors[%d]: %s", i, r.text)
			return r
		}
	}
	return nil
}

func checkDescriptor(d *commonv3.RateLimitDescriptor) *refusal {
	if n := len(d.GetEntries()); n > descriptor.MaxEntries {
		return &refusal{reasonEntries, fmt.Sprintf("entries: got %d, want at most %d", n, descriptor.MaxEntries)}
	}
	switch hits := d.GetHitsAddend().GetValue(); {
	case d.GetIsNegativeHits():
		return &refusal{reasonNegativeHits, "is_negative_hits: got true, but hits cannot be given back here; " +
			"count what a request costs when it is known, with apply_on_stream_done in Envoy's rate limit"}
	case hits > limit.MaxTokens:
		return &refusal{reasonHits, fmt.Sprintf("hits_addend: got %d, want at most %d", hits, int64(limit.MaxTokens))}
	}
	return nil
}
