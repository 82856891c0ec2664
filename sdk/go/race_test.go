// SPDX-License-Identifier: Apache-2.0

package sluice_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	sluice "github.com/sluice-project/sluice/sdk/go"
	"github.com/sluice-project/sluice/sdk/go/internal/sluicetest"
)

// TestNoSlotLeaks: whatever races with an admission (cancellation, deadline, queue time-out, End), the
// flows that the server admitted are those that callers ran, or were ended behind their back. All times
// are whole milliseconds, so that in virtual time many things happen in the same instant.
func TestNoSlotLeaks(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			s := &sluicetest.Server{Slots: 3}
			inBubble(t, s, func(t *testing.T, c *sluice.Client) {
				var ran, asked atomic.Int64
				var callers sync.WaitGroup
				for i := range uint64(32) {
					callers.Go(func() {
						random := rand.New(rand.NewPCG(seed, i))
						for range 40 {
							asked.Add(1)
							if runOne(random, c) {
								ran.Add(1)
							}
						}
					})
				}
				callers.Wait()
				synctest.Wait()
				if n := s.Open(); n != 0 {
					t.Errorf("%d slots leaked: %v", n, s.Tokens())
				}
				if n := len(s.Ends()); n != s.Admitted() {
					t.Errorf("admitted %d flows, %d ended", s.Admitted(), n)
				}
				if n := ran.Load(); n == 0 || n == asked.Load() || int64(s.Admitted()) < n {
					t.Errorf("ran %d of %d flows, the server admitted %d", n, asked.Load(), s.Admitted())
				}
				if st := c.Stats(); st.Waiting != 0 || st.QueuedEnds != 0 {
					t.Errorf("stats %+v", st)
				}
			})
		})
	}
}

// runOne starts one flow with a random way to give up, and says whether it ran.
func runOne(random *rand.Rand, c *sluice.Client) bool {
	pause := func(limit int) time.Duration { return time.Duration(random.IntN(limit)) * time.Millisecond }
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var opts []sluice.FlowOption
	switch random.IntN(5) {
	case 0:
		time.AfterFunc(pause(10), cancel)
	case 1:
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, pause(30))
		defer stop()
	case 2:
		opts = append(opts, sluice.WithQueueTimeout(pause(10)))
	case 3:
		cancel()
	}
	f := c.StartFlow(ctx, "race", sluice.Labels{"user": fmt.Sprint(random.IntN(5))}, opts...)
	if !f.ShouldRun() {
		return false
	}
	time.Sleep(pause(5))
	f.End()
	return true
}

// TestCallersInParallel runs without a bubble, where goroutines really run at the same time: for the
// race detector.
func TestCallersInParallel(t *testing.T) {
	s := &sluicetest.Server{Slots: 8}
	s.Listen()
	c := newClient(t, s, sluice.WithUnavailableTimeout(10*time.Second))
	var callers sync.WaitGroup
	for i := range 32 {
		callers.Go(func() {
			for n := range 50 {
				ctx, cancel := context.WithCancel(context.Background())
				if (i+n)%3 == 0 {
					go cancel()
				}
				var opts []sluice.FlowOption
				if n%10 == 0 && (i+n)%3 != 0 { // a unary call that is cancelled may lose its slot
					opts = append(opts, sluice.WithExplain())
				}
				f := c.StartFlow(ctx, "parallel", sluice.Labels{"n": fmt.Sprint(n)}, opts...)
				if f.Err() != nil {
					t.Error(f.Err())
				}
				c.Stats()
				f.End()
				cancel()
			}
		})
	}
	callers.Wait()
	c.Close()
	if n := s.Open(); n != 0 {
		t.Errorf("%d slots leaked: %v", n, s.Tokens())
	}
	s.Vanish()
}
