// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	cachev1 "github.com/sluice-project/sluice/api/gen/sluice/cache/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/cache/v1/cachev1connect"
	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"github.com/sluice-project/sluice/internal/cache"
	"github.com/sluice-project/sluice/internal/flow"
)

var coalesces = map[flowv1.Coalesce]flow.Coalesce{
	flowv1.Coalesce_COALESCE_WAIT: flow.CoalesceWait, flowv1.Coalesce_COALESCE_STALE: flow.CoalesceStale,
}

func fromAPICacheLookup(in *flowv1.CacheLookup) *flow.CacheQuery {
	return &flow.CacheQuery{ResultKey: in.ResultKey, GlobalKeys: in.GlobalKeys, Coalesce: coalesces[in.Coalesce]}
}

func toAPICacheResult(r *flow.CacheResult) *flowv1.CacheResult {
	out := &flowv1.CacheResult{Leader: r.Leader, Tenant: strings.ToValidUTF8(r.Tenant, "�")}
	if r.Result.Status != flow.CacheNone {
		out.Result = toAPICacheValue(r.Result)
	}
	for key, v := range r.Global {
		if out.Global == nil {
			out.Global = make(map[string]*flowv1.CacheValue, len(r.Global))
		}
		out.Global[strings.ToValidUTF8(key, "�")] = toAPICacheValue(v)
	}
	return out
}

func toAPICacheValue(v flow.CacheValue) *flowv1.CacheValue {
	return &flowv1.CacheValue{Status: v.Status.String(), Value: v.Value, Error: v.Error}
}

// CacheService answers sluice.cache.v1.CacheService over gRPC. It translates; the cache keeps.
type CacheService struct {
	cachev1.UnimplementedCacheServiceServer
	cache *cache.Cache
}

// NewCacheService serves a cache.
func NewCacheService(c *cache.Cache) *CacheService { return &CacheService{cache: c} }

func checkGlobalKeys(n int) error {
	if n <= cache.MaxGlobalKeys {
		return nil
	}
	return status.Errorf(codes.InvalidArgument, "got %d global keys; expected at most %d: make more calls", n, cache.MaxGlobalKeys)
}

// Lookup implements CacheServiceServer.
func (s *CacheService) Lookup(ctx context.Context, in *cachev1.LookupRequest) (*cachev1.LookupResponse, error) {
	if err := checkGlobalKeys(len(in.GlobalKeys)); err != nil {
		return nil, err
	}
	now := s.cache.Now()
	out := &cachev1.LookupResponse{}
	if in.ResultKey != "" {
		a := s.cache.Lookup(ctx, cache.ResultKey(in.Tenant, in.ControlPoint, in.ResultKey), now)
		out.Result = toAPICacheValue(flow.NewCacheValue(a))
	}
	if len(in.GlobalKeys) > 0 {
		out.Global = make(map[string]*flowv1.CacheValue, len(in.GlobalKeys))
		s.cache.LookupGlobal(ctx, in.Tenant, in.GlobalKeys, len(out.Result.GetValue()), now, func(name string, a cache.Answer) {
			out.Global[name] = toAPICacheValue(flow.NewCacheValue(a))
		})
	}
	return out, nil
}

// Upsert implements CacheServiceServer.
func (s *CacheService) Upsert(ctx context.Context, in *cachev1.UpsertRequest) (*cachev1.UpsertResponse, error) {
	if err := checkGlobalKeys(len(in.Global)); err != nil {
		return nil, err
	}
	out := &cachev1.UpsertResponse{}
	if in.ResultKey != "" || in.Result != nil {
		key := cache.ResultKey(in.Tenant, in.ControlPoint, in.ResultKey)
		if err := s.upsert(ctx, key, in.Result); err != nil {
			out.ResultError = err.Error()
		}
	}
	for name, entry := range in.Global {
		if err := s.upsert(ctx, cache.GlobalKey(in.Tenant, name), entry); err != nil {
			if out.GlobalErrors == nil {
				out.GlobalErrors = make(map[string]string)
			}
			out.GlobalErrors[name] = err.Error()
		}
	}
	return out, nil
}

var errNoEntry = errors.New("there is no value to store for this key; expected an entry")

func (s *CacheService) upsert(ctx context.Context, k cache.Key, in *cachev1.Entry) error {
	if in == nil {
		return errNoEntry
	}
	e := cache.Entry{Value: in.Value, NoTTL: in.Ttl == nil}
	if in.Ttl != nil {
		e.TTL = in.Ttl.AsDuration()
	}
	return s.cache.Upsert(ctx, k, e, s.cache.Now())
}

// Delete implements CacheServiceServer.
func (s *CacheService) Delete(ctx context.Context, in *cachev1.DeleteRequest) (*cachev1.DeleteResponse, error) {
	if err := checkGlobalKeys(len(in.GlobalKeys)); err != nil {
		return nil, err
	}
	var err error
	if in.ResultKey != "" {
		err = s.cache.Delete(ctx, cache.ResultKey(in.Tenant, in.ControlPoint, in.ResultKey))
	}
	for _, name := range in.GlobalKeys {
		err = errors.Join(err, s.cache.Delete(ctx, cache.GlobalKey(in.Tenant, name)))
	}
	switch {
	case err == nil:
		return &cachev1.DeleteResponse{}, nil
	case cache.IsInvalid(err):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return nil, status.Error(codes.Unavailable, err.Error())
}

// CacheConnect serves a CacheService to browsers and curl.
type CacheConnect struct{ Service *CacheService }

var _ cachev1connect.CacheServiceHandler = CacheConnect{}

// Lookup implements CacheServiceHandler.
func (c CacheConnect) Lookup(ctx context.Context, in *connect.Request[cachev1.LookupRequest]) (*connect.Response[cachev1.LookupResponse], error) {
	return toConnect(c.Service.Lookup(ctx, in.Msg))
}

// Upsert implements CacheServiceHandler.
func (c CacheConnect) Upsert(ctx context.Context, in *connect.Request[cachev1.UpsertRequest]) (*connect.Response[cachev1.UpsertResponse], error) {
	return toConnect(c.Service.Upsert(ctx, in.Msg))
}

// Delete implements CacheServiceHandler.
func (c CacheConnect) Delete(ctx context.Context, in *connect.Request[cachev1.DeleteRequest]) (*connect.Response[cachev1.DeleteResponse], error) {
	return toConnect(c.Service.Delete(ctx, in.Msg))
}
