// SPDX-License-Identifier: Apache-2.0

package sim_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/sluice-project/sluice/bench/control/sim"
)

func TestExplore(t *testing.T) {
	name := os.Getenv("SCEN")
	if name == "" && os.Getenv("ALL") == "" {
		t.Skip()
	}
	for _, s := range append(sim.Scenarios(), sim.Day(), sim.FullDay()) {
		if name == "" && s.Length > 2000 || name != "" && name != s.Name {
			continue
		}
		for _, iv := range []time.Duration{time.Second, 100 * time.Millisecond} {
			start := time.Now()
			r := sim.Run(s, sim.NewAdaptive(iv), 1)
			from := s.Warm
			p50, _ := r.Latency(.5, from, s.Length)
			p99, t99 := r.Latency(.99, from, s.Length)
			line := fmt.Sprintf("%-18s %5s good %.3f p50 %.3f p99 %.3f total99 %.3f osc %.2f", s.Name, iv, r.Goodput(from, s.Length), p50, p99, t99, r.Oscillation(s.Length*.6, s.Length))
			if s.Change > 0 {
				line += fmt.Sprintf(" rec %.1f g2 %.2f", r.Recovery(s.Change, s.Length), r.Goodput(s.Change+2, min(s.Length, s.Change+5)))
			}
			fmt.Println(line, time.Since(start).Round(time.Millisecond))
			if name != "" && iv == time.Second && s.Length < 1000 {
				l := r.Limits(0, s.Length)
				for i := range l {
					fmt.Printf("%.0f ", l[i])
				}
				fmt.Println()
			}
		}
	}
}

func TestStepsExplore(t *testing.T) {
	if os.Getenv("STEPS") == "" {
		t.Skip()
	}
	for _, s := range sim.Scenarios() {
		if s.Change == 0 || s.Change != 40 || s.Length != 90 {
			continue
		}
		for _, iv := range []time.Duration{time.Second, 100 * time.Millisecond} {
			worst, sum, n, lat := 9., 0., 0., 0.
			fmt.Printf("%-16s %5s: ", s.Name, iv)
			for seed := uint64(1); seed <= 12; seed++ {
				c := *s
				c.Phase = float64(seed%10)/10 + 0.05
				r := sim.Run(&c, sim.NewAdaptive(iv), seed)
				g := r.Goodput(s.Change+2, s.Change+4)
				l, _ := r.Latency(.5, s.Change+3, s.Change+6)
				lat += l
				worst, sum, n = min(worst, g), sum+g, n+1
				fmt.Printf("%.2f ", g)
			}
			fmt.Printf(" mean %.3f worst %.3f p50 %.3f\n", sum/n, worst, lat/n)
		}
	}
}
