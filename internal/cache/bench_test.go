// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/cache"
)

func BenchmarkCache(b *testing.B) {
	ctx := context.Background()
	for _, size := range []int{256, 64 << 10} {
		keys := make([]cache.Key, 200)
		for i := range keys {
			keys[i] = cache.ResultKey("", "cp", fmt.Sprintf("key-%06d", i))
		}
		c := open(b)
		entry := cache.Entry{Value: make([]byte, size), TTL: time.Hour}
		for _, k := range keys {
			if err := c.Upsert(ctx, k, entry, c.Now()); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("upsert/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				if err := c.Upsert(ctx, keys[i%len(keys)], entry, c.Now()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("hit/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			now := c.Now()
			for i := range b.N {
				if a := c.Lookup(ctx, keys[i%len(keys)], now); a.Status != cache.Hit {
					b.Fatalf("got %+v", a)
				}
			}
		})
	}
	c := open(b)
	b.Run("upsert/new keys", func(b *testing.B) {
		b.ReportAllocs()
		entry := cache.Entry{Value: make([]byte, 256), TTL: time.Hour}
		for i := range b.N {
			if err := c.Upsert(ctx, cache.ResultKey("", "cp", fmt.Sprint(i)), entry, c.Now()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("1000 wait for one upsert", func(b *testing.B) {
		entry := cache.Entry{Value: make([]byte, 256), TTL: time.Nanosecond}
		all := make([]*caller, 1000)
		for i := range all {
			all[i] = newCaller()
		}
		for range b.N {
			for _, w := range all {
				w.Deadline = c.Now().Add(time.Minute)
				c.Join(ctx, wanted, cache.CoalesceWait, &w.Waiter, c.Now())
			}
			if err := c.Upsert(ctx, wanted, entry, c.Now()); err != nil {
				b.Fatal(err)
			}
			for _, w := range all[1:] {
				<-w.told
			}
		}
	})
}
