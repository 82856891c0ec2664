// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-project/sluice/internal/cache"
	"github.com/sluice-project/sluice/internal/limit"
)

// open makes a cache that is closed when the test ends.
func open(t testing.TB, change ...func(*cache.Config)) *cache.Cache {
	t.Helper()
	cfg := cache.DefaultConfig()
	for _, f := range change {
		f(&cfg)
	}
	c, err := cache.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func upsert(t testing.TB, c *cache.Cache, k cache.Key, value string, ttl time.Duration) {
	t.Helper()
	if err := c.Upsert(context.Background(), k, cache.Entry{Value: []byte(value), TTL: ttl}, c.Now()); err != nil {
		t.Fatalf("Upsert(%+v): %v", k, err)
	}
}

func wantLookup(t testing.TB, c *cache.Cache, k cache.Key, status cache.Status, value string) {
	t.Helper()
	a := c.Lookup(context.Background(), k, c.Now())
	if a.Status != status || string(a.Value) != value || (a.Err != nil) != (status == cache.Failed) {
		t.Errorf("%+v: got %+v, want status %d, value %q", k, a, status, value)
	}
}

func TestValuesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		k := cache.ResultKey("", "cp", "k")
		wantLookup(t, c, k, cache.Miss, "")
		upsert(t, c, k, "v", time.Minute)
		time.Sleep(time.Minute - time.Nanosecond)
		wantLookup(t, c, k, cache.Hit, "v")
		time.Sleep(time.Nanosecond)
		wantLookup(t, c, k, cache.Miss, "")
		upsert(t, c, k, "again", time.Minute)
		if err := c.Delete(context.Background(), k); err != nil {
			t.Error(err)
		}
		wantLookup(t, c, k, cache.Miss, "")
	})
}

func TestTTLs(t *testing.T) {
	tests := []struct {
		name  string
		entry cache.Entry
		fresh time.Duration
		err   string
	}{
		{"as told", cache.Entry{TTL: time.Hour}, time.Hour, ""},
		{"none", cache.Entry{NoTTL: true}, cache.MaxTTL, ""},
		{"the longest", cache.Entry{TTL: cache.MaxTTL}, cache.MaxTTL, ""},
		{"too long", cache.Entry{TTL: 1 << 62}, cache.MaxTTL, ""},
		{"zero", cache.Entry{}, 0, "cache ttl is 0s; expected more than 0s"},
		{"negative", cache.Entry{TTL: -time.Second}, 0, "cache ttl is -1s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := open(t)
			k := cache.GlobalKey("", "k")
			now := c.Now()
			err := c.Upsert(t.Context(), k, tt.entry, now)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !cache.IsInvalid(err) {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				wantLookup(t, c, k, cache.Miss, "")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for at, want := range map[limit.Instant]cache.Status{now.Add(tt.fresh - 1): cache.Hit, now.Add(tt.fresh): cache.Miss} {
				if a := c.Lookup(t.Context(), k, at); a.Status != want {
					t.Errorf("after %s: got %+v, want status %d", at.Sub(now), a, want)
				}
			}
		})
	}
}

// TestBadKeys: each is an error of its own, for every operation, and nothing is kept.
func TestBadKeys(t *testing.T) {
	c := open(t)
	long := strings.Repeat("x", 1<<20)
	for _, tt := range []struct {
		key  cache.Key
		want string
	}{
		{cache.ResultKey("", "cp", ""), "cache key cannot be empty"},
		{cache.GlobalKey("", ""), "cache key cannot be empty"},
		{cache.ResultKey("", "", "k"), "cache control_point cannot be empty"},
		{cache.ResultKey("", "cp", long), "cache key has 1048576 bytes; expected at most 1024"},
		{cache.GlobalKey("", long), "cache key has 1048576 bytes"},
		{cache.ResultKey("", long, "k"), "cache control_point has 1048576 bytes"},
		{cache.ResultKey(long, "cp", "k"), "cache tenant has 1048576 bytes"},
	} {
		entry := cache.Entry{Value: []byte("v"), TTL: time.Hour}
		var w cache.Waiter
		if out := c.Join(t.Context(), tt.key, cache.CoalesceWait, &w, c.Now()); out != cache.Answered {
			t.Errorf("Join: got %d, want an answer at once", out)
		}
		for _, err := range []error{
			c.Lookup(t.Context(), tt.key, c.Now()).Err, c.Upsert(t.Context(), tt.key, entry, c.Now()),
			c.Delete(t.Context(), tt.key), w.Answer.Err,
		} {
			if err == nil || !strings.Contains(err.Error(), tt.want) || !cache.IsInvalid(err) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		}
	}
	err := c.Upsert(t.Context(), cache.GlobalKey("", "k"), cache.Entry{Value: make([]byte, 1<<20+1), TTL: 1}, c.Now())
	if err == nil || err.Error() != "cache value has 1048577 bytes; expected at most 1048576" {
		t.Errorf("got %v, want an error about the length of the value", err)
	}
}

func TestUpsertCopies(t *testing.T) {
	c := open(t)
	value := []byte("value")
	k := cache.GlobalKey("", "k")
	if err := c.Upsert(t.Context(), k, cache.Entry{Value: value, NoTTL: true}, c.Now()); err != nil {
		t.Fatal(err)
	}
	value[0] = 'X'
	wantLookup(t, c, k, cache.Hit, "value")
}

// TestKeysAreInjective: no two different keys have the same bytes, nor is one the beginning of another.
func TestKeysAreInjective(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	alphabet := []string{"", "a", "\x00", "\x01", "\x02", "\x03", ":", strings.Repeat("b", 127), strings.Repeat("b", 128)}
	part := func() string { return alphabet[rng.IntN(len(alphabet))] + alphabet[rng.IntN(len(alphabet))] }
	seen := make(map[string]cache.Key)
	for range 20_000 {
		k := cache.ResultKey(part(), part(), part())
		if rng.IntN(2) == 0 {
			k = cache.GlobalKey(part(), part())
		}
		b := string(k.Append(nil))
		if other, ok := seen[b]; ok && other != k {
			t.Fatalf("%+v and %+v have the same bytes", k, other)
		}
		seen[b] = k
	}
	for b := range seen {
		for n := 1; n < len(b); n++ {
			if k, ok := seen[b[:n]]; ok {
				t.Fatalf("%+v begins with %+v", seen[b], k)
			}
		}
	}
}

// FuzzKeys: what two keys have in common as bytes, they have in common as keys.
func FuzzKeys(f *testing.F) {
	f.Add("t", "cp", "k", "tc", "p", "k", false)
	f.Add("", "", "k", "", "", "k", true)
	f.Fuzz(func(t *testing.T, t1, p1, n1, t2, p2, n2 string, global bool) {
		a, b := cache.ResultKey(t1, p1, n1), cache.ResultKey(t2, p2, n2)
		if global {
			b = cache.GlobalKey(t2, n2)
		}
		x, y := a.Append(nil), b.Append(nil)
		if (a == b) != bytes.Equal(x, y) {
			t.Errorf("%+v is %x and %+v is %x", a, x, b, y)
		}
		if a != b && (bytes.HasPrefix(x, y) || bytes.HasPrefix(y, x)) {
			t.Errorf("one of %x and %x begins with the other", x, y)
		}
	})
}

func TestGlobalLookupsAreBounded(t *testing.T) {
	c := open(t)
	big := strings.Repeat("v", 1<<20)
	var names []string
	for i := range cache.MaxGlobalKeys + 2 {
		name := string(rune('A' + i))
		names = append(names, name)
		if i < 5 {
			upsert(t, c, cache.GlobalKey("t", name), big, time.Hour)
		}
	}
	var hits, misses, failed int
	c.LookupGlobal(t.Context(), "t", names, 1, c.Now(), func(_ string, a cache.Answer) {
		switch a.Status {
		case cache.Hit:
			hits++
		case cache.Miss:
			misses++
		default:
			failed++
		}
	})
	// Three values of a mebibyte would be one byte too many beside what the answer holds already.
	if hits != 2 || failed != 3+2 || misses != cache.MaxGlobalKeys-5 {
		t.Errorf("got %d hits, %d misses, %d errors; want 2, %d, 5", hits, misses, failed, cache.MaxGlobalKeys-5)
	}
}

// brokenStore fails.
type brokenStore struct{ cache.Store }

var errBroken = errors.New("the store is broken")

func (brokenStore) Get(context.Context, cache.Key, limit.Instant) (cache.Stored, bool, error) {
	return cache.Stored{}, false, errBroken
}

func (brokenStore) Set(context.Context, cache.Key, cache.Stored, limit.Instant) error {
	return errBroken
}

func (brokenStore) Delete(context.Context, cache.Key) error { return errBroken }

func TestBrokenStore(t *testing.T) {
	c := open(t, func(cfg *cache.Config) { cfg.Store = brokenStore{openMemory(t, 1<<20)} })
	k := cache.ResultKey("", "cp", "k")
	var w cache.Waiter
	if out := c.Join(t.Context(), k, cache.CoalesceWait, &w, c.Now()); out != cache.Answered || w.Answer.Lead != 0 {
		t.Errorf("got %d with %+v, want an answer without a lead", out, w.Answer)
	}
	for _, err := range []error{
		c.Lookup(t.Context(), k, c.Now()).Err, w.Answer.Err, c.Delete(t.Context(), k),
		c.Upsert(t.Context(), k, cache.Entry{TTL: 1}, c.Now()),
	} {
		if !errors.Is(err, errBroken) || cache.IsInvalid(err) {
			t.Errorf("got %v, want the error of the store", err)
		}
	}
}

func TestConfigIsValidated(t *testing.T) {
	bad := cache.Config{MaxBytes: 1, MaxValueBytes: 4 << 20, StaleFor: -1}
	err := bad.Validate()
	for _, want := range []string{"max_bytes", "max_value_bytes: got 4194304, want 1 to 3145728", "coalesce_timeout", "stale_for"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want a word about %s", err, want)
		}
	}
	if _, err := cache.New(bad); err == nil {
		t.Error("New took it")
	}
	good := cache.DefaultConfig()
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}
