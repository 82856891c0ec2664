// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/cache"
	"github.com/sluice-project/sluice/internal/label"
)

// BenchmarkCache measures Start and End in process with a look-up of a result; "none" is the same flow without.
// 10,000 results of 256 bytes are there.
func BenchmarkCache(b *testing.B) {
	e, c := cachingEngine(b, nil, rateSpec(1, "cp", "", label.Expr{}, wide))
	keys := make([]string, 10_000)
	value := make([]byte, 256)
	for i := range keys {
		keys[i] = fmt.Sprintf("key-%06d", i)
		if err := c.Upsert(context.Background(), cache.ResultKey("", "cp", keys[i]), cache.Entry{Value: value, TTL: time.Hour}, c.Now()); err != nil {
			b.Fatal(err)
		}
	}
	run := func(name string, want CacheStatus, query func(i int) *CacheQuery) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			r := Request{ControlPoint: "cp"}
			for i := range b.N {
				r.Cache = query(i)
				f := e.Start(context.Background(), &r)
				if got := f.Cached(); want != CacheNone && got.Result.Status != want {
					b.Fatalf("got %+v", got)
				}
				f.End(Outcome{})
			}
		})
	}
	var q CacheQuery
	ask := func(how Coalesce, prefix string) func(i int) *CacheQuery {
		return func(i int) *CacheQuery {
			q = CacheQuery{ResultKey: keys[i%len(keys)], Coalesce: how}
			if prefix != "" {
				q.ResultKey = prefix
			}
			return &q
		}
	}
	run("none", CacheNone, func(int) *CacheQuery { return nil })
	run("hit", CacheHit, ask(CoalesceNone, ""))
	run("hit, coalescing", CacheHit, ask(CoalesceWait, ""))
	run("miss", CacheMiss, ask(CoalesceNone, "absent"))
	run("miss, leads", CacheMiss, ask(CoalesceWait, "absent"))
	globals := keys[:4]
	for _, k := range globals {
		if err := c.Upsert(context.Background(), cache.GlobalKey("", k), cache.Entry{Value: value, TTL: time.Hour}, c.Now()); err != nil {
			b.Fatal(err)
		}
	}
	run("hit, with 4 global keys", CacheHit, func(i int) *CacheQuery {
		q = CacheQuery{ResultKey: keys[i%len(keys)], GlobalKeys: globals}
		return &q
	})
}

// BenchmarkCacheParallel is the hit on all cores.
func BenchmarkCacheParallel(b *testing.B) {
	e, c := cachingEngine(b, nil, rateSpec(1, "cp", "", label.Expr{}, wide))
	store(b, c, resultKey, "v", time.Hour)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r := Request{ControlPoint: "cp", Cache: &CacheQuery{ResultKey: "k"}}
		for pb.Next() {
			f := e.Start(context.Background(), &r)
			f.End(Outcome{})
		}
	})
}
