// SPDX-License-Identifier: Apache-2.0

package sluicetest

import (
	"context"
	"fmt"

	cachev1 "github.com/sluice-project/sluice/api/gen/sluice/cache/v1"
	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The caches keep everything for ever. The label tenant separates tenants. No flow waits for another one: those
// that miss a key which another flow computes do not lead.

func resultName(tenant, point, key string) string { return fmt.Sprintf("%q %q %q", tenant, point, key) }

func globalName(tenant, key string) string { return fmt.Sprintf("%q %q", tenant, key) }

// Cached lists the keys that the caches hold.
func (s *Server) Cached() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.values) }

// cached answers the look-up of a flow.
func (s *Server) cached(r *flowv1.StartRequest) *flowv1.CacheResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &flowv1.CacheResult{Tenant: r.Labels["tenant"], Global: make(map[string]*flowv1.CacheValue)}
	if r.Cache.ResultKey != "" {
		name := resultName(out.Tenant, r.ControlPoint, r.Cache.ResultKey)
		out.Result = s.lookupLocked(name)
		if out.Result.Status == "miss" && r.Cache.Coalesce != 0 && !s.computing[name] {
			if s.computing == nil {
				s.computing = make(map[string]bool)
			}
			s.computing[name], out.Leader = true, true
		}
	}
	for _, key := range r.Cache.GlobalKeys {
		out.Global[key] = s.lookupLocked(globalName(out.Tenant, key))
	}
	return out
}

func (s *Server) lookupLocked(name string) *flowv1.CacheValue {
	if value, ok := s.values[name]; ok {
		return &flowv1.CacheValue{Status: "hit", Value: value}
	}
	return &flowv1.CacheValue{Status: "miss"}
}

// caches is the gRPC side of the caches of a Server.
type caches struct {
	cachev1.UnimplementedCacheServiceServer
	s *Server
}

// Lookup implements CacheService.
func (v caches) Lookup(ctx context.Context, r *cachev1.LookupRequest) (*cachev1.LookupResponse, error) {
	if err := v.s.called(ctx); err != nil {
		return nil, err
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	out := &cachev1.LookupResponse{Global: make(map[string]*flowv1.CacheValue)}
	if r.ResultKey != "" {
		out.Result = v.s.lookupLocked(resultName(r.Tenant, r.ControlPoint, r.ResultKey))
	}
	for _, key := range r.GlobalKeys {
		out.Global[key] = v.s.lookupLocked(globalName(r.Tenant, key))
	}
	return out, nil
}

// Upsert implements CacheService.
func (v caches) Upsert(ctx context.Context, r *cachev1.UpsertRequest) (*cachev1.UpsertResponse, error) {
	if err := v.s.called(ctx); err != nil {
		return nil, err
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	if v.s.values == nil {
		v.s.values = make(map[string][]byte)
	}
	out := &cachev1.UpsertResponse{GlobalErrors: make(map[string]string)}
	set := func(name string, e *cachev1.Entry) string {
		if e.Ttl.AsDuration() <= 0 {
			return "cache ttl is not more than 0s"
		}
		v.s.values[name] = e.Value
		delete(v.s.computing, name)
		return ""
	}
	if r.Result != nil {
		out.ResultError = set(resultName(r.Tenant, r.ControlPoint, r.ResultKey), r.Result)
	}
	for key, e := range r.Global {
		if text := set(globalName(r.Tenant, key), e); text != "" {
			out.GlobalErrors[key] = text
		}
	}
	return out, nil
}

// Delete implements CacheService.
func (v caches) Delete(ctx context.Context, r *cachev1.DeleteRequest) (*cachev1.DeleteResponse, error) {
	if err := v.s.called(ctx); err != nil {
		return nil, err
	}
	if r.ResultKey != "" && r.ControlPoint == "" {
		return nil, status.Error(codes.InvalidArgument, "cache control_point cannot be empty")
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	delete(v.s.values, resultName(r.Tenant, r.ControlPoint, r.ResultKey))
	for _, key := range r.GlobalKeys {
		delete(v.s.values, globalName(r.Tenant, key))
	}
	return &cachev1.DeleteResponse{}, nil
}
