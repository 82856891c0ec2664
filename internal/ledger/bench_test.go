// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/limit"
)

func benchKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("user-%07d", i)
	}
	return keys
}

// zipf returns indexes below n, some much more often than others, as users are.
func zipf(n, count int) []int {
	z := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 1, uint64(n-1))
	out := make([]int, count)
	for i := range out {
		out[i] = int(z.Uint64())
	}
	return out
}

var perSecond = limit.BucketRule{Capacity: 1e9, FillAmount: 1e9, Interval: time.Second, Continuous: true}

func BenchmarkBucketTake(b *testing.B) {
	for _, dir := range []string{"", b.TempDir()} {
		b.Run(fmt.Sprintf("durable=%t", dir != ""), func(b *testing.B) {
			m, err := NewMemory(Config{Dir: dir})
			if err != nil {
				b.Fatal(err)
			}
			defer m.Close()
			keys, order := benchKeys(100_000), zipf(100_000, 1<<16)
			set := m.Buckets(1, perSecond)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				now := m.Now()
				for i := 0; pb.Next(); i++ {
					now++
					set.Take(context.Background(), keys[order[i&(1<<16-1)]], 1, now)
				}
			})
		})
	}
}

func BenchmarkSlotsTakeRelease(b *testing.B) {
	m, _ := NewMemory(Config{})
	keys, order := benchKeys(100_000), zipf(100_000, 1<<16)
	set := m.Slots(1, SlotRule{Max: 1e6, MaxInFlight: time.Minute})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		now := m.Now()
		for i := 0; pb.Next(); i++ {
			key := keys[order[i&(1<<16-1)]]
			c, _ := set.Take(context.Background(), key, 1, now)
			set.Release(key, c.Slot)
		}
	})
}

// BenchmarkAccountMemory reports the bytes of a live account, everything included.
func BenchmarkAccountMemory(b *testing.B) {
	const n = 1_000_000
	for b.Loop() {
		before := heap()
		m, _ := NewMemory(Config{})
		set := m.Buckets(1, perSecond)
		for i := range n {
			set.Take(context.Background(), fmt.Sprintf("user-%07d", i), 1, m.Now())
		}
		b.ReportMetric(float64(heap()-before)/n, "B/account")
		runtime.KeepAlive(m)
	}
}

func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
