// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/cache"
	"github.com/sluice-project/sluice/internal/cache/cachetest"
	"github.com/sluice-project/sluice/internal/limit"
)

func openMemory(t testing.TB, bytes int64) *cache.Memory {
	t.Helper()
	m, err := cache.NewMemory(bytes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func TestMemory(t *testing.T) {
	cachetest.Run(t, cachetest.Config{Open: func(t *testing.T) cache.Store { return openMemory(t, 16<<20) }})
}

// heap returns what is in use after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// TestMemoryIsBounded fills a memory many times over with values of every size, and looks at what the process
// really uses.
func TestMemoryIsBounded(t *testing.T) {
	const bound = 8 << 20
	for _, size := range []int{0, 100, 4096, 1 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			before := heap()
			m := openMemory(t, bound)
			now := limit.At(time.Now())
			count := 4 * bound / (size + 200)
			var wg sync.WaitGroup
			for n := range 4 {
				wg.Go(func() {
					for i := range count / 4 {
						k := cache.ResultKey("tenant", "control-point", fmt.Sprintf("key-%d-%09d", n, i))
						s := cache.Stored{Value: make([]byte, size), Fresh: now.Add(time.Hour), Keep: now.Add(time.Hour)}
						if err := m.Set(context.Background(), k, s, now); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			used := heap() - before
			u := m.Usage()
			t.Logf("%d entries of %d bytes: counted %d, used %d, that is %d per entry more than texts and value",
				u.Entries, size, u.Bytes, used, used/max(1, u.Entries)-int64(size)-39)
			if used > bound*5/4 {
				t.Errorf("uses %d bytes of memory, want about %d at most", used, bound)
			}
			if u.Evicted == 0 || u.Bytes > bound*5/4 {
				t.Errorf("got %+v, want evictions and no more than %d bytes", u, bound)
			}
			runtime.KeepAlive(m)
		})
	}
}

// TestMemoryKeepsHotValues: values in use survive a scan over many that are used once.
func TestMemoryKeepsHotValues(t *testing.T) {
	m := openMemory(t, 4<<20)
	now := limit.At(time.Now())
	stored := func() cache.Stored {
		return cache.Stored{Value: make([]byte, 1000), Fresh: now.Add(time.Hour), Keep: now.Add(time.Hour)}
	}
	hot := func(i int) cache.Key { return cache.ResultKey("", "cp", fmt.Sprintf("hot-%d", i)) }
	ctx := context.Background()
	for i := range 100 {
		if err := m.Set(ctx, hot(i), stored(), now); err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	for i := range 50_000 { // a scan twelve times as large as the memory, while the hot ones are in use
		if _, ok, _ := m.Get(ctx, hot(i%100), now); ok {
			kept++
		}
		if err := m.Set(ctx, cache.ResultKey("", "cp", fmt.Sprintf("scan-%d", i)), stored(), now); err != nil {
			t.Fatal(err)
		}
	}
	if kept < 49_000 {
		t.Errorf("hot values were there %d times out of 50000 during a scan, want nearly always", kept)
	}
}
