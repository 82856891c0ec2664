// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"github.com/sluice-project/sluice/internal/flow"
)

var coalesces = map[flowv1.Coalesce]flow.Coalesce{
	flowv1.Coalesce_COALESCE_WAIT: flow.CoalesceWait, flowv1.Coalesce_COALESCE_STALE: flow.CoalesceStale,
}

func fromAPICacheLookup(in *flowv1.CacheLookup) *flow.CacheQuery {
	return &flow.CacheQuery{ResultKey: in.ResultKey, GlobalKeys: in.GlobalKeys, Coalesce: coalesces[in.Coalesce]}
}

func toAPICacheResult(r *flow.CacheResult) *flowv1.CacheResult {
	out := &flowv1.CacheResult{Leader: r.Leader}
	if r.Result.Status != flow.CacheNone {
		out.Result = toAPICacheValue(r.Result)
	}
	for key, v := range r.Global {
		if out.Global == nil {
			out.Global = make(map[string]*flowv1.CacheValue, len(r.Global))
		}
		out.Global[key] = toAPICacheValue(v)
	}
	return out
}

func toAPICacheValue(v flow.CacheValue) *flowv1.CacheValue {
	return &flowv1.CacheValue{Status: v.Status.String(), Value: v.Value, Error: v.Error}
}
