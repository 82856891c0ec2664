// SPDX-License-Identifier: Apache-2.0

package sluice_test

import (
	"context"
	"errors"
	"testing"
	"time"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	sluice "github.com/sluice-project/sluice/sdk/go"
	"github.com/sluice-project/sluice/sdk/go/internal/sluicetest"
)

func TestCachedFlows(t *testing.T) {
	bothWays(t, func(t *testing.T, opts ...sluice.Option) {
		s := &sluicetest.Server{Slots: -1}
		inBubble(t, s, func(t *testing.T, c *sluice.Client) {
			ctx := t.Context()
			start := func(tenant string) *sluice.Flow {
				return c.StartFlow(ctx, "cp", sluice.Labels{"tenant": tenant},
					sluice.WithResultKey("k"), sluice.WithGlobalKeys("g", "h"), sluice.WithCoalesce(sluice.CoalesceWait))
			}
			f := start("acme")
			if got := f.CachedResult(); !f.ShouldRun() || got.Found || got.Err != nil || !f.Leads() {
				t.Fatalf("got %+v, leads %v, want a miss and the lead", got, f.Leads())
			}
			if err := errors.Join(f.SetResult(ctx, []byte("result"), time.Minute), f.SetGlobal(ctx, "g", []byte("shared"), time.Minute)); err != nil {
				t.Fatal(err)
			}
			f.End()
			f = start("acme")
			if got := f.CachedResult(); !got.Found || string(got.Value) != "result" || f.Leads() {
				t.Errorf("got %+v, leads %v, want a hit", got, f.Leads())
			}
			if g, h := f.CachedGlobal("g"), f.CachedGlobal("h"); string(g.Value) != "shared" || h.Found || h.Err != nil {
				t.Errorf("got %+v and %+v, want one hit", g, h)
			}
			if got := start("other").CachedResult(); got.Found {
				t.Errorf("another tenant got %+v", got)
			}
			if err := errors.Join(f.DeleteResult(ctx), f.DeleteGlobal(ctx, "g")); err != nil {
				t.Error(err)
			}
			if n := s.Cached(); n != 0 {
				t.Errorf("%d values are left", n)
			}
			if err := f.SetResult(ctx, nil, -time.Second); err == nil || errors.Is(err, sluice.ErrUnavailable) {
				t.Errorf("a negative time: got %v, want an error that tells why", err)
			}
			f.End()
		}, opts...)
	})
}

func TestCacheWithoutFlows(t *testing.T) {
	s := &sluicetest.Server{Slots: -1}
	inBubble(t, s, func(t *testing.T, c *sluice.Client) {
		ctx := t.Context()
		cache := c.Cache("acme")
		if err := errors.Join(cache.SetResult(ctx, "cp", "k", []byte("v"), time.Hour), cache.SetGlobal(ctx, "k", []byte("g"), time.Hour)); err != nil {
			t.Fatal(err)
		}
		if r, g := cache.Result(ctx, "cp", "k"), cache.Global(ctx, "k"); string(r.Value) != "v" || string(g.Value) != "g" {
			t.Errorf("got %+v and %+v", r, g)
		}
		if got := c.Cache("").Result(ctx, "cp", "k"); got.Found || got.Err != nil {
			t.Errorf("another tenant got %+v", got)
		}
		if err := errors.Join(cache.DeleteResult(ctx, "cp", "k"), cache.DeleteGlobal(ctx, "k")); err != nil || s.Cached() != 0 {
			t.Errorf("got %v with %d values left", err, s.Cached())
		}
		if err := cache.DeleteResult(ctx, "", "k"); err == nil || errors.Is(err, sluice.ErrUnavailable) {
			t.Errorf("without a control point: got %v, want an error that tells why", err)
		}
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		if got := cache.Result(cancelled, "cp", "k"); !errors.Is(got.Err, context.Canceled) && !errors.Is(got.Err, sluice.ErrUnavailable) {
			t.Errorf("a cancelled call: got %+v", got)
		}
	})
}

// TestCachesFailOpen: without the server nothing is found, nothing is stored, and nothing takes long.
func TestCachesFailOpen(t *testing.T) {
	s := &sluicetest.Server{Slots: -1, Silent: true}
	inBubble(t, s, func(t *testing.T, c *sluice.Client) {
		ctx := t.Context()
		s.Vanish()
		begun := time.Now()
		f := c.StartFlow(ctx, "cp", nil, sluice.WithResultKey("k"), sluice.WithGlobalKeys("g"))
		if got := f.CachedResult(); !f.ShouldRun() || got.Found || !errors.Is(got.Err, sluice.ErrUnavailable) || f.Leads() {
			t.Errorf("got %+v, want to run without a result", got)
		}
		if got := f.CachedGlobal("g"); got.Found || !errors.Is(got.Err, sluice.ErrUnavailable) {
			t.Errorf("got %+v", got)
		}
		for _, err := range []error{
			f.SetResult(ctx, nil, time.Hour), f.SetGlobal(ctx, "g", nil, time.Hour), f.DeleteResult(ctx), f.DeleteGlobal(ctx, "g"),
			c.Cache("").SetResult(ctx, "cp", "k", nil, time.Hour), c.Cache("").Global(ctx, "g").Err,
		} {
			if !errors.Is(err, sluice.ErrUnavailable) {
				t.Errorf("got %v, want that the server is away", err)
			}
		}
		if took := time.Since(begun); took > 200*time.Millisecond {
			t.Errorf("all that took %s", took)
		}
		f.End()
	})
	var none *sluice.Client
	f := none.StartFlow(t.Context(), "cp", nil, sluice.WithResultKey("k"))
	if err := f.SetResult(t.Context(), nil, time.Hour); !errors.Is(err, sluice.ErrUnavailable) {
		t.Errorf("a nil client: got %v", err)
	}
	if got := none.Cache("").Result(t.Context(), "cp", "k"); !errors.Is(got.Err, sluice.ErrUnavailable) {
		t.Errorf("a nil client: got %+v", got)
	}
}

func TestFlowsThatCannotStore(t *testing.T) {
	deny := false
	s := &sluicetest.Server{Slots: -1, Deny: func(sluicetest.Start) *flowv1.StartResponse {
		if deny {
			return &flowv1.StartResponse{Verdict: "deny", Reason: "rate_limited"}
		}
		return nil
	}}
	inBubble(t, s, func(t *testing.T, c *sluice.Client) {
		ctx := t.Context()
		plain := c.StartFlow(ctx, "cp", nil)
		global := c.StartFlow(ctx, "cp", nil, sluice.WithGlobalKeys("g"))
		strange := c.StartFlow(ctx, "cp", nil, sluice.WithResultKey("\xff"), sluice.WithGlobalKeys("\xff"))
		deny = true
		denied := c.StartFlow(ctx, "cp", nil, sluice.WithResultKey("k"))
		for name, f := range map[string]*sluice.Flow{"plain": plain, "global": global, "strange": strange, "denied": denied} {
			if err := f.SetResult(ctx, []byte("v"), time.Hour); err == nil {
				t.Errorf("%s: stored a result", name)
			}
			if err := f.DeleteResult(ctx); err == nil {
				t.Errorf("%s: deleted a result", name)
			}
			if f.CachedResult().Found || f.Leads() {
				t.Errorf("%s: has a result, or leads", name)
			}
		}
		if strange.CachedResult().Err == nil || strange.CachedGlobal("\xff").Err == nil {
			t.Error("keys that are not UTF-8 are no errors")
		}
		if got := denied.CachedGlobal("g"); got.Found || got.Err != nil {
			t.Errorf("denied: got %+v", got)
		}
	})
}
