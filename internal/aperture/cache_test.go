// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	checkv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/check/v1"
	"github.com/sluice-project/sluice/internal/flow"
)

func TestCachesThroughFlows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, flow.Set{})
		s := checkService{d: d}
		query := &checkv1.CacheLookupRequest{ControlPoint: "ignored", ResultCacheKey: "r", GlobalCacheKeys: []string{"g", "h"}}
		in := &checkv1.CheckRequest{ControlPoint: "cp", CacheLookupRequest: query}
		got := check(t, d, in).CacheLookupResponse
		miss := checkv1.KeyLookupResponse{LookupStatus: checkv1.CacheLookupStatus_MISS}
		if got.ResultCacheResponse.String() != miss.String() || len(got.GlobalCacheResponses) != 2 || got.GlobalCacheResponses["g"].String() != miss.String() {
			t.Errorf("empty: got %v, want misses", got)
		}
		up, err := s.CacheUpsert(t.Context(), &checkv1.CacheUpsertRequest{
			ControlPoint: "cp", ResultCacheEntry: &checkv1.CacheEntry{Key: "r", Value: []byte("one"), Ttl: durationpb.New(time.Minute)},
			GlobalCacheEntries: map[string]*checkv1.CacheEntry{
				"g": {Value: []byte("two")}, "n": {Value: []byte("x"), Ttl: durationpb.New(-time.Second)}, "h": {Ttl: &durationpb.Duration{Seconds: 1 << 62}},
			},
		})
		if err != nil || up.ResultCacheResponse.Error != "" || up.GlobalCacheResponses["g"].Error != "" || up.GlobalCacheResponses["h"].Error != "" ||
			up.GlobalCacheResponses["n"].OperationStatus != checkv1.CacheOperationStatus_ERROR {
			t.Errorf("got %v, %v, want that only the negative ttl is refused", up, err)
		}
		got = check(t, d, in).CacheLookupResponse
		if r := got.ResultCacheResponse; r.LookupStatus != checkv1.CacheLookupStatus_HIT || string(r.Value) != "one" {
			t.Errorf("got %v, want a hit", r)
		}
		if g := got.GlobalCacheResponses["g"]; g.LookupStatus != checkv1.CacheLookupStatus_HIT || string(g.Value) != "two" {
			t.Errorf("got %v, want a hit", g)
		}
		other := check(t, d, &checkv1.CheckRequest{ControlPoint: "elsewhere", CacheLookupRequest: query}).CacheLookupResponse
		if other.ResultCacheResponse.LookupStatus != checkv1.CacheLookupStatus_MISS || other.GlobalCacheResponses["g"].LookupStatus != checkv1.CacheLookupStatus_HIT {
			t.Errorf("another control point: got %v, want only the global value", other)
		}
		time.Sleep(time.Minute)
		if r := check(t, d, in).CacheLookupResponse.ResultCacheResponse; r.LookupStatus != checkv1.CacheLookupStatus_MISS {
			t.Errorf("after its ttl: got %v, want a miss", r)
		}
		time.Sleep(2 * time.Hour)
		if g := check(t, d, in).CacheLookupResponse.GlobalCacheResponses["g"]; g.LookupStatus != checkv1.CacheLookupStatus_HIT {
			t.Errorf("without ttl: got %v, want that it is kept for long", g)
		}
	})
}

func TestCacheCalls(t *testing.T) {
	d := newDoor(t, flow.Set{})
	s := checkService{d: d}
	long := strings.Repeat("k", 1<<20)
	up, err := s.CacheUpsert(t.Context(), &checkv1.CacheUpsertRequest{
		ControlPoint: "cp", ResultCacheEntry: &checkv1.CacheEntry{Key: "r", Value: []byte("one")},
		GlobalCacheEntries: map[string]*checkv1.CacheEntry{"": {}, long: {}, "big": {Value: bytes.Repeat([]byte("x"), 2<<20)}, "g": nil},
	})
	if err != nil || up.ResultCacheResponse.OperationStatus != checkv1.CacheOperationStatus_SUCCESS {
		t.Fatalf("got %v, %v", up, err)
	}
	for _, key := range []string{"", long, "big"} {
		if r := up.GlobalCacheResponses[key]; r.OperationStatus != checkv1.CacheOperationStatus_ERROR || r.Error == "" {
			t.Errorf("%.10s: got %v, want an error", key, r)
		}
	}
	if got := up.GlobalCacheResponses[""].Error; got != "cache key cannot be empty" {
		t.Errorf("empty key: got %q", got)
	}
	look, err := s.CacheLookup(t.Context(), &checkv1.CacheLookupRequest{ControlPoint: "cp", ResultCacheKey: "r", GlobalCacheKeys: []string{"g", "none"}})
	if err != nil || string(look.ResultCacheResponse.Value) != "one" || look.GlobalCacheResponses["g"].LookupStatus != checkv1.CacheLookupStatus_HIT ||
		look.GlobalCacheResponses["none"].LookupStatus != checkv1.CacheLookupStatus_MISS {
		t.Errorf("got %v, %v", look, err)
	}
	nowhere, err := s.CacheLookup(t.Context(), &checkv1.CacheLookupRequest{ResultCacheKey: "r"})
	if err != nil || nowhere.ResultCacheResponse.Error != "cache control_point cannot be empty" {
		t.Errorf("got %v, %v", nowhere, err)
	}
	gone, err := s.CacheDelete(t.Context(), &checkv1.CacheDeleteRequest{ControlPoint: "cp", ResultCacheKey: "r", GlobalCacheKeys: []string{"g", "never", ""}})
	if err != nil || gone.ResultCacheResponse.Error != "" || gone.GlobalCacheResponses["never"].Error != "" ||
		gone.GlobalCacheResponses[""].OperationStatus != checkv1.CacheOperationStatus_ERROR {
		t.Errorf("got %v, %v", gone, err)
	}
	look, err = s.CacheLookup(t.Context(), &checkv1.CacheLookupRequest{ControlPoint: "cp", ResultCacheKey: "r"})
	if err != nil || look.ResultCacheResponse.LookupStatus != checkv1.CacheLookupStatus_MISS || look.GlobalCacheResponses != nil {
		t.Errorf("deleted: got %v, %v", look, err)
	}
	var flood []string
	for i := range mostCacheKeys + 1 {
		flood = append(flood, fmt.Sprint(i))
	}
	if _, err := s.CacheLookup(t.Context(), &checkv1.CacheLookupRequest{GlobalCacheKeys: flood}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("flood of keys: got %v, want InvalidArgument", err)
	}
}

func TestNoCache(t *testing.T) {
	d := newDoor(t, flow.Set{})
	d.cache = nil
	s := checkService{d: d}
	look, err := s.CacheLookup(t.Context(), &checkv1.CacheLookupRequest{ControlPoint: "cp", ResultCacheKey: "r", GlobalCacheKeys: []string{"g"}})
	if err != nil || look.ResultCacheResponse.Error != "cache is not ready" || look.GlobalCacheResponses["g"].Error != "cache is not ready" {
		t.Errorf("got %v, %v", look, err)
	}
	up, err := s.CacheUpsert(t.Context(), &checkv1.CacheUpsertRequest{ResultCacheEntry: &checkv1.CacheEntry{Key: "r"}})
	if err != nil || up.ResultCacheResponse.Error != "cache is not ready" {
		t.Errorf("got %v, %v", up, err)
	}
	if r := check(t, d, &checkv1.CheckRequest{ControlPoint: "cp", CacheLookupRequest: &checkv1.CacheLookupRequest{}}); r.CacheLookupResponse != nil {
		t.Errorf("nothing asked: got %v, want nothing", r.CacheLookupResponse)
	}
}
