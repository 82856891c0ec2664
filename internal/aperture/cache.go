// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	checkv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/check/v1"
	"github.com/sluice-project/sluice/internal/cache"
	"github.com/sluice-project/sluice/internal/flow"
)

// mostCacheKeys bounds the global keys of one call that writes or deletes.
const mostCacheKeys = 1000

// tenant of what comes without a flow. Aperture knows no tenants, so its clients have the one without a name.
const tenant = ""

// cacheQuery is what a Check looks up; nil: nothing. SDKs send an empty request when they want nothing.
func cacheQuery(in *checkv1.CacheLookupRequest) *flow.CacheQuery {
	if in.GetResultCacheKey() == "" && len(in.GetGlobalCacheKeys()) == 0 {
		return nil
	}
	return &flow.CacheQuery{ResultKey: in.ResultCacheKey, GlobalKeys: in.GlobalCacheKeys}
}

// cacheAnswer is what a Check has looked up.
func cacheAnswer(r *flow.CacheResult) *checkv1.CacheLookupResponse {
	out := &checkv1.CacheLookupResponse{}
	if r.Result.Status != flow.CacheNone {
		out.ResultCacheResponse = cacheValue(r.Result)
	}
	for key, v := range r.Global {
		if out.GlobalCacheResponses == nil {
			out.GlobalCacheResponses = make(map[string]*checkv1.KeyLookupResponse, len(r.Global))
		}
		out.GlobalCacheResponses[key] = cacheValue(v)
	}
	return out
}

func cacheValue(v flow.CacheValue) *checkv1.KeyLookupResponse {
	switch v.Status {
	case flow.CacheHit, flow.CacheStale:
		return found(v.Value)
	case flow.CacheError:
		return notFound(v.Error)
	}
	return notFound("")
}

func found(value []byte) *checkv1.KeyLookupResponse {
	return &checkv1.KeyLookupResponse{Value: value, LookupStatus: checkv1.CacheLookupStatus_HIT}
}

// notFound is a miss; the problem is why the cache could not tell, "": it could.
func notFound(problem string) *checkv1.KeyLookupResponse {
	out := &checkv1.KeyLookupResponse{LookupStatus: checkv1.CacheLookupStatus_MISS}
	out.OperationStatus, out.Error = operation(problem)
	return out
}

func operation(problem string) (checkv1.CacheOperationStatus, string) {
	if problem != "" {
		return checkv1.CacheOperationStatus_ERROR, text(problem)
	}
	return checkv1.CacheOperationStatus_SUCCESS, ""
}

// problemOf is the text of an error.
func problemOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func answered(a cache.Answer) *checkv1.KeyLookupResponse {
	if a.Status == cache.Hit {
		return found(a.Value)
	}
	return notFound(problemOf(a.Err))
}

// CacheLookup implements FlowControlServiceServer.
func (s checkService) CacheLookup(ctx context.Context, in *checkv1.CacheLookupRequest) (*checkv1.CacheLookupResponse, error) {
	if err := checkKeys(len(in.GlobalCacheKeys)); err != nil {
		return nil, err
	}
	out, c := &checkv1.CacheLookupResponse{}, s.d.cache
	if len(in.GlobalCacheKeys) > 0 {
		out.GlobalCacheResponses = make(map[string]*checkv1.KeyLookupResponse, len(in.GlobalCacheKeys))
	}
	if c == nil {
		if in.ResultCacheKey != "" {
			out.ResultCacheResponse = notFound(cache.ErrNotReady.Error())
		}
		for _, name := range in.GlobalCacheKeys {
			out.GlobalCacheResponses[name] = notFound(cache.ErrNotReady.Error())
		}
		return out, nil
	}
	used, now := 0, c.Now()
	if in.ResultCacheKey != "" {
		a := c.Lookup(ctx, cache.ResultKey(tenant, in.ControlPoint, in.ResultCacheKey), now)
		used = len(a.Value)
		out.ResultCacheResponse = answered(a)
	}
	c.LookupGlobal(ctx, tenant, in.GlobalCacheKeys, used, now, func(name string, a cache.Answer) {
		out.GlobalCacheResponses[name] = answered(a)
	})
	return out, nil
}

// CacheUpsert implements FlowControlServiceServer.
func (s checkService) CacheUpsert(ctx context.Context, in *checkv1.CacheUpsertRequest) (*checkv1.CacheUpsertResponse, error) {
	if err := checkKeys(len(in.GlobalCacheEntries)); err != nil {
		return nil, err
	}
	out := &checkv1.CacheUpsertResponse{}
	if e := in.ResultCacheEntry; e != nil {
		out.ResultCacheResponse = s.d.upsert(ctx, cache.ResultKey(tenant, in.ControlPoint, e.Key), e)
	}
	for name, e := range in.GlobalCacheEntries {
		if out.GlobalCacheResponses == nil {
			out.GlobalCacheResponses = make(map[string]*checkv1.KeyUpsertResponse, len(in.GlobalCacheEntries))
		}
		out.GlobalCacheResponses[name] = s.d.upsert(ctx, cache.GlobalKey(tenant, name), e)
	}
	return out, nil
}

func (d *Door) upsert(ctx context.Context, k cache.Key, e *checkv1.CacheEntry) *checkv1.KeyUpsertResponse {
	err := cache.ErrNotReady
	if d.cache != nil {
		ttl := e.GetTtl().AsDuration() // 0 without one
		err = d.cache.Upsert(ctx, k, cache.Entry{Value: e.GetValue(), TTL: ttl, NoTTL: ttl == 0}, d.cache.Now())
	}
	out := &checkv1.KeyUpsertResponse{}
	out.OperationStatus, out.Error = operation(problemOf(err))
	return out
}

// CacheDelete implements FlowControlServiceServer.
func (s checkService) CacheDelete(ctx context.Context, in *checkv1.CacheDeleteRequest) (*checkv1.CacheDeleteResponse, error) {
	if err := checkKeys(len(in.GlobalCacheKeys)); err != nil {
		return nil, err
	}
	out := &checkv1.CacheDeleteResponse{}
	if in.ResultCacheKey != "" {
		out.ResultCacheResponse = s.d.remove(ctx, cache.ResultKey(tenant, in.ControlPoint, in.ResultCacheKey))
	}
	for _, name := range in.GlobalCacheKeys {
		if out.GlobalCacheResponses == nil {
			out.GlobalCacheResponses = make(map[string]*checkv1.KeyDeleteResponse, len(in.GlobalCacheKeys))
		}
		out.GlobalCacheResponses[name] = s.d.remove(ctx, cache.GlobalKey(tenant, name))
	}
	return out, nil
}

func (d *Door) remove(ctx context.Context, k cache.Key) *checkv1.KeyDeleteResponse {
	err := cache.ErrNotReady
	if d.cache != nil {
		err = d.cache.Delete(ctx, k)
	}
	out := &checkv1.KeyDeleteResponse{}
	out.OperationStatus, out.Error = operation(problemOf(err))
	return out
}

func checkKeys(n int) error {
	if n > mostCacheKeys {
		return status.Errorf(codes.InvalidArgument, "%d global cache keys, want at most %d in one call", n, mostCacheKeys)
	}
	return nil
}
