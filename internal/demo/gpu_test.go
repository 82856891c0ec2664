// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const second = time.Second

// arrival is one prompt in a table: when it comes, how much work it is and when it must be done.
type arrival struct {
	at, work, done float64
}

func TestProcessorSharing(t *testing.T) {
	tests := []struct {
		name     string
		cfg      gpuConfig
		arrivals []arrival
	}{
		{"alone", gpuConfig{Slots: 2, MaxJobs: 9, Speed: 1}, []arrival{{0, 3, 3}}},
		{"no work", gpuConfig{Slots: 2, MaxJobs: 9, Speed: 1}, []arrival{{1, 0, 1}}},
		{"as many as slots", gpuConfig{Slots: 2, Penalty: 1, MaxJobs: 9, Speed: 1}, []arrival{{0, 3, 3}, {1, 3, 4}}},
		{"scaled", gpuConfig{Slots: 1, MaxJobs: 9, Speed: 10}, []arrival{{0, 3, 0.3}}},
		// Two share one slot from 1 on: the first has 1 left at half speed (until 3), the second then
		// has 1 left alone.
		{"shared", gpuConfig{Slots: 1, MaxJobs: 9, Speed: 1}, []arrival{{0, 2, 3}, {1, 2, 4}}},
		// Four on two slots, penalty 0.5 per slots: the device does 2/(1+0.5) = 4/3, each 1/3.
		{"penalty", gpuConfig{Slots: 2, Penalty: 0.5, MaxJobs: 9, Speed: 1}, []arrival{{0, 1, 3}, {0, 1, 3}, {0, 1, 3}, {0, 1, 3}}},
		// Of three on one slot with penalty 1 each does 1/9 (3 at once: 1/3 of 1/3) until the first is
		// done at 9; two do 1/4 each (1/2 of 1/2) until 13; the last has 1 left.
		{"speeds up as others leave", gpuConfig{Slots: 1, Penalty: 1, MaxJobs: 9, Speed: 1}, []arrival{{0, 1, 9}, {0, 2, 13}, {0, 3, 14}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := mustGPU(t, tt.cfg)
				t0 := time.Now()
				got := make([]float64, len(tt.arrivals))
				var all sync.WaitGroup
				for i, a := range tt.arrivals {
					all.Go(func() {
						time.Sleep(time.Duration(a.at * float64(second)))
						j, err := g.begin(a.work)
						if err != nil {
							t.Error(err)
							return
						}
						defer j.leave()
						if err := j.wait(t.Context(), a.work); err != nil {
							t.Error(err)
						}
						got[i] = time.Since(t0).Seconds()
					})
				}
				all.Wait()
				for i, a := range tt.arrivals {
					if math.Abs(got[i]-a.done) > 1e-6 {
						t.Errorf("prompt %d of work %g: done at %.7f, want %g", i, a.work, got[i], a.done)
					}
				}
				if n := g.running(); n != 0 {
					t.Errorf("%d prompts still run, want 0", n)
				}
			})
		})
	}
}

func mustGPU(t *testing.T, cfg gpuConfig) *gpu {
	t.Helper()
	g, err := newGPU(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.close)
	return g
}

func TestMilestones(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := mustGPU(t, gpuConfig{Slots: 1, MaxJobs: 9, Speed: 1})
		t0 := time.Now()
		j, err := g.begin(4)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []float64{1, 2, 1, 4, 9} { // also backwards, and beyond the end
			if err := j.wait(t.Context(), step); err != nil {
				t.Fatal(err)
			}
			if got, want := time.Since(t0).Seconds(), min(step, 4); got < want-1e-6 || step > 1 && got > want+1e-6 {
				t.Errorf("milestone %g reached at %g, want %g", step, got, want)
			}
		}
	})
}

// A prompt that nobody waits for still leaves at the moment its work is done: who writes answers slowly
// does not hold the device.
func TestLeavesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := mustGPU(t, gpuConfig{Slots: 1, MaxJobs: 9, Speed: 1})
		if _, err := g.begin(1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * second)
		steps, peak := g.trace()
		if len(steps) != 2 || steps[1].n != 0 || steps[1].at.Sub(steps[0].at) != second || peak != 1 {
			t.Errorf("trace %v, peak %d, want one prompt for exactly 1 s", steps, peak)
		}
	})
}

func TestLeaveFreesTheDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := mustGPU(t, gpuConfig{Slots: 1, MaxJobs: 2, Speed: 1})
		t0 := time.Now()
		stays, _ := g.begin(3)
		gone, _ := g.begin(100)
		if _, err := g.begin(1); !errors.Is(err, errBusy) {
			t.Errorf("third prompt: got %v, want errBusy", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*second)
		defer cancel()
		if err := gone.wait(ctx, 50); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait: got %v, want the deadline", err)
		}
		gone.leave()
		gone.leave() // harmless
		if n := g.running(); n != 1 {
			t.Errorf("%d prompts run, want 1", n)
		}
		// 2 s at half speed, 2 s alone.
		if err := stays.wait(t.Context(), 3); err != nil || time.Since(t0) != 4*second {
			t.Errorf("the other prompt was done after %v (%v), want 4s", time.Since(t0), err)
		}
		if len(g.marks) != 0 {
			t.Errorf("%d marks left behind", len(g.marks))
		}
	})
}

func TestCloseWakesAndRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := mustGPU(t, gpuConfig{Slots: 1, MaxJobs: 2, Speed: 1})
		j, _ := g.begin(100)
		woken := make(chan error, 1)
		go func() { woken <- j.wait(t.Context(), 50) }()
		synctest.Wait()
		g.close()
		<-woken
		j.leave()
		if _, err := g.begin(1); !errors.Is(err, errBusy) {
			t.Errorf("begin after close: got %v, want errBusy", err)
		}
	})
}

func TestGPUConfigIsChecked(t *testing.T) {
	for _, cfg := range []gpuConfig{
		{},
		{Slots: 1, MaxJobs: 1},
		{Slots: 0, MaxJobs: 1, Speed: 1},
		{Slots: 1, MaxJobs: 0, Speed: 1},
		{Slots: 1, MaxJobs: 1, Speed: math.NaN()},
		{Slots: 1, MaxJobs: 1, Speed: 1, Penalty: -1},
	} {
		if _, err := newGPU(cfg); err == nil {
			t.Errorf("newGPU(%+v): got no error", cfg)
		}
	}
}
