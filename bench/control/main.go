// SPDX-License-Identifier: Apache-2.0

// Command control compares ways of finding the limit of a service, in simulation: it runs every policy of
// package sim on every scenario, prints the tables and writes them, with plots, into the documentation.
//
//	make sim                                  # everything, one to two minutes
//	go run ./bench/control -only speed -docs ""
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-project/sluice/bench/control/sim"
)

func main() {
	docs := flag.String("docs", "docs", "folder of the documentation, where adaptive-concurrency.md gets the tables and assets/adaptive the plots; empty: print only")
	only := flag.String("only", "", "run only scenarios whose name contains this; writes nothing")
	seed := flag.Uint64("seed", 2026, "seed of the first of the runs that tables are averages of")
	flag.Parse()
	if err := run(*docs, *only, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "control:", err)
		os.Exit(1)
	}
}

// seeds is the number of runs of each scenario and policy: with seeds that nothing was tuned on.
const seeds = 3

func run(docs, only string, seed uint64) error {
	scenarios := sim.Scenarios()
	if only != "" {
		docs = ""
		scenarios = matching(scenarios, only)
		if len(scenarios) == 0 {
			return fmt.Errorf("no scenario has %q in its name", only)
		}
	}
	b := &board{scenarios: scenarios, contenders: sim.Contenders(), seed: seed}
	if err := b.runAll(); err != nil {
		return err
	}
	report := b.report()
	if only == "" {
		days, err := runDays(seed)
		if err != nil {
			return err
		}
		report += days.report()
		if docs != "" {
			if err := days.plot(filepath.Join(docs, assets)); err != nil {
				return err
			}
		}
	}
	fmt.Print(report)
	if docs == "" {
		return nil
	}
	if err := b.plotAll(filepath.Join(docs, assets)); err != nil {
		return err
	}
	return replaceSection(filepath.Join(docs, "adaptive-concurrency.md"), report)
}

func matching(all []*sim.Scenario, only string) []*sim.Scenario {
	var out []*sim.Scenario
	for _, s := range all {
		if strings.Contains(s.Name, only) {
			out = append(out, s)
		}
	}
	return out
}

// board has the results of all runs.
type board struct {
	scenarios  []*sim.Scenario
	contenders []sim.Contender
	seed       uint64
	cells      [][]cell // by scenario and contender
}

// cell sums up the runs of a scenario with a policy.
type cell struct {
	goodput float64 // relative to what was possible, while it is measured
	after   float64 // the same from 2 to 4 seconds after the change
	service float64 // 99th percentile of the time in the service, in seconds
	shares  []float64
	first   *sim.Result // for the plots
}

func (b *board) runAll() error {
	b.cells = make([][]cell, len(b.scenarios))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, s := range b.scenarios {
		b.cells[i] = make([]cell, len(b.contenders))
		for j, c := range b.contenders {
			g.Go(func() error {
				b.cells[i][j] = b.runCell(s, c)
				return nil
			})
		}
	}
	return g.Wait()
}

func (b *board) runCell(s *sim.Scenario, c sim.Contender) cell {
	out := cell{shares: make([]float64, len(s.Clients))}
	for k := range uint64(seeds) {
		// Ticks come at other times relative to the changes in each run.
		shifted := *s
		shifted.Phase = (float64(k) + 0.5) / seeds
		r := sim.Run(&shifted, c.New(&shifted), b.seed+k)
		if k == 0 {
			out.first = r
		}
		p99, _ := r.Latency(0.99, s.Warm, s.Length)
		out.goodput += r.Goodput(s.Warm, s.Length) / seeds
		out.service += p99 / seeds
		if s.Change > 0 {
			out.after += r.Goodput(s.Change+2, s.Change+4) / seeds
		}
		for i := range out.shares {
			out.shares[i] += r.Share(i) / seeds
		}
	}
	return out
}
