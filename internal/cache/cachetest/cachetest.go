// SPDX-License-Identifier: Apache-2.0

// Package cachetest is the suite that every cache.Store must pass.
package cachetest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/cache"
	"github.com/sluice-project/sluice/internal/limit"
)

// Config says what is tested.
type Config struct {
	// Open returns an empty store with room for 8 MiB at least, and closes it when the test ends.
	Open func(t *testing.T) cache.Store
}

// Run runs the suite.
func Run(t *testing.T, cfg Config) {
	tests := []struct {
		name string
		run  func(*suite)
	}{
		{"Keeps and forgets", (*suite).keepsAndForgets},
		{"Forgets what is not kept any longer", (*suite).expires},
		{"Never mixes keys", (*suite).isolates},
		{"Takes any bytes", (*suite).takesAnyBytes},
		{"Shows the last write", (*suite).showsLastWrite},
		{"Tells how much it keeps", (*suite).tellsUsage},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.run(&suite{T: t, store: cfg.Open(t), now: limit.At(time.Now())})
		})
	}
}

type suite struct {
	*testing.T
	store cache.Store
	now   limit.Instant
}

func (s *suite) set(k cache.Key, value string, fresh, keep time.Duration) {
	s.Helper()
	in := cache.Stored{Value: []byte(value), Fresh: s.now.Add(fresh), Keep: s.now.Add(keep)}
	if err := s.store.Set(context.Background(), k, in, s.now); err != nil {
		s.Fatalf("Set(%+v): %v", k, err)
	}
}

func (s *suite) get(k cache.Key, now limit.Instant) (cache.Stored, bool) {
	s.Helper()
	out, ok, err := s.store.Get(context.Background(), k, now)
	if err != nil {
		s.Fatalf("Get(%+v): %v", k, err)
	}
	return out, ok
}

func (s *suite) want(k cache.Key, value string) {
	s.Helper()
	out, ok := s.get(k, s.now)
	if !ok || string(out.Value) != value {
		s.Errorf("%+v: got %q, %v, want %q", k, out.Value, ok, value)
	}
}

func (s *suite) wantNone(k cache.Key) {
	s.Helper()
	if out, ok := s.get(k, s.now); ok {
		s.Errorf("%+v: got %q, want nothing", k, out.Value)
	}
}

func (s *suite) remove(k cache.Key) {
	s.Helper()
	if err := s.store.Delete(context.Background(), k); err != nil {
		s.Fatalf("Delete(%+v): %v", k, err)
	}
}

func (s *suite) keepsAndForgets() {
	k := cache.ResultKey("t", "cp", "k")
	s.wantNone(k)
	s.set(k, "one", time.Minute, time.Minute)
	s.want(k, "one")
	s.set(k, "two", time.Minute, time.Hour)
	s.want(k, "two")
	s.remove(k)
	s.wantNone(k)
	s.remove(k)
	s.set(k, "three", time.Minute, time.Minute)
	s.want(k, "three")
}

func (s *suite) expires() {
	k := cache.GlobalKey("", "k")
	s.set(k, "v", time.Minute, 2*time.Minute)
	for _, tt := range []struct {
		after time.Duration
		kept  bool
	}{{0, true}, {time.Minute, true}, {2*time.Minute - 1, true}, {2 * time.Minute, false}, {time.Hour, false}} {
		out, ok := s.get(k, s.now.Add(tt.after))
		if ok != tt.kept {
			s.Fatalf("after %s: got %v, want %v", tt.after, ok, tt.kept)
		}
		if ok && (out.Fresh != s.now.Add(time.Minute) || out.Keep != s.now.Add(2*time.Minute)) {
			s.Errorf("after %s: got times %d and %d", tt.after, out.Fresh, out.Keep)
		}
	}
}

// isolates writes keys whose parts are made of a few characters that any separator might be, so that they
// collide wherever parts are glued together.
func (s *suite) isolates() {
	rng := rand.New(rand.NewPCG(1, 2))
	alphabet := []string{"", "a", "b", ":", "/", "@", "\x00", "\x01", "\x02", "key", "%", "\\", " "}
	part := func() string {
		var b strings.Builder
		for range rng.IntN(4) {
			b.WriteString(alphabet[rng.IntN(len(alphabet))])
		}
		return b.String()
	}
	want := make(map[cache.Key]string)
	for i := range 4000 {
		k := cache.ResultKey(part(), part(), part())
		if i%3 == 0 {
			k = cache.GlobalKey(part(), part())
		}
		want[k] = fmt.Sprint(i)
		s.set(k, want[k], time.Hour, time.Hour)
	}
	for k, v := range want {
		s.want(k, v)
	}
	for k := range want {
		s.remove(k)
		s.wantNone(k)
		delete(want, k)
		if len(want)%500 == 0 {
			for other, v := range want {
				s.want(other, v)
			}
		}
	}
}

func (s *suite) takesAnyBytes() {
	values := []string{"", "\x00", "\xff\xfe not UTF-8", strings.Repeat("x", 1<<20)}
	names := []string{"k", "\x00", "\xff\xfe", strings.Repeat("n", cache.MaxKeyBytes), "ключ", "a b\r\nSet-Cookie: c"}
	for i, name := range names {
		k := cache.ResultKey(name, "cp", name)
		s.set(k, values[i%len(values)], time.Hour, time.Hour)
		s.want(k, values[i%len(values)])
	}
}

// showsLastWrite has one writer for each key and readers that must never see an older value after a newer one.
func (s *suite) showsLastWrite() {
	const writers, rounds = 4, 300
	var wg sync.WaitGroup
	for n := range writers {
		k := cache.ResultKey("t", "cp", fmt.Sprint(n))
		wg.Go(func() {
			for i := range rounds {
				value := fmt.Sprintf("%d %08d", n, i)
				s.set(k, value, time.Hour, time.Hour)
				s.want(k, value)
				if i%10 == 9 {
					s.remove(k)
					s.wantNone(k)
				}
			}
		})
		wg.Go(func() {
			last := []byte(fmt.Sprintf("%d ", n))
			for range rounds {
				out, ok := s.get(k, s.now)
				if ok && bytes.Compare(out.Value, last) < 0 {
					s.Errorf("got %q after %q", out.Value, last)
				}
				if ok {
					last = out.Value
				}
			}
		})
	}
	wg.Wait()
}

func (s *suite) tellsUsage() {
	before := s.store.Usage()
	for i := range 100 {
		s.set(cache.ResultKey("t", "cp", fmt.Sprint(i)), strings.Repeat("v", 1000), time.Hour, time.Hour)
	}
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		u := s.store.Usage()
		if u.Entries-before.Entries == 100 && u.Bytes-before.Bytes >= 100*1000 {
			return
		}
		select {
		case <-deadline:
			s.Fatalf("within 10 s: got %+v after %+v, want 100 entries and 100,000 bytes more", u, before)
		case <-tick.C:
		}
	}
}
