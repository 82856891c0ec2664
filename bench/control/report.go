// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-project/sluice/bench/control/sim"
)

const (
	begin = "<!-- begin of what make sim writes -->"
	end   = "<!-- end of what make sim writes -->"
)

// replaceSection puts text between the two marks of a page.
func replaceSection(path, text string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(page), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s: the lines %q and %q are missing: put them around the place of the tables", path, begin, end)
	}
	return os.WriteFile(path, []byte(before+begin+"\n\n"+strings.TrimSpace(text)+"\n\n"+end+after), 0o644)
}

// report is the tables of the board.
func (b *board) report() string {
	var w strings.Builder
	w.WriteString("### Scenarios\n\n| scenario | what happens |\n|---|---|\n")
	for _, s := range b.scenarios {
		fmt.Fprintf(&w, "| %s | %s |\n", s.Name, s.About)
	}
	fmt.Fprintf(&w, "\n### Goodput\n\nFlows done in time, in percent of what the service could have done or what was asked, whichever is less; mean of %d runs.\n\n", seeds)
	b.table(&w, func(_ *sim.Scenario, c *cell) string { return percent(c.goodput) }, func(*sim.Scenario) bool { return true })
	w.WriteString("\n### Soon after the change\n\nGoodput from 2 s to 4 s after the step, in percent as above.\n\n")
	b.table(&w, func(_ *sim.Scenario, c *cell) string { return percent(c.after) }, func(s *sim.Scenario) bool { return s.Change > 0 })
	w.WriteString("\n### Time in the service\n\n99th percentile of flows done in time, in milliseconds, waiting for the limit not counted.\n\n")
	b.table(&w, func(_ *sim.Scenario, c *cell) string { return milliseconds(c.service) }, func(*sim.Scenario) bool { return true })
	w.WriteString("\n### Shares\n\nPart of the guests in what was done in time, in percent. Priorities are 50 and 200, and both want more than there is for them.\n\n")
	b.table(&w, func(_ *sim.Scenario, c *cell) string { return percent(c.shares[0]) }, func(s *sim.Scenario) bool { return len(s.Clients) > 1 })
	return w.String()
}

func (b *board) table(w *strings.Builder, value func(*sim.Scenario, *cell) string, wanted func(*sim.Scenario) bool) {
	w.WriteString("| scenario |")
	for _, c := range b.contenders {
		fmt.Fprintf(w, " %s |", c.Name)
	}
	w.WriteString("\n|---|" + strings.Repeat("--:|", len(b.contenders)) + "\n")
	for i, s := range b.scenarios {
		if !wanted(s) {
			continue
		}
		fmt.Fprintf(w, "| %s |", s.Name)
		for j := range b.contenders {
			fmt.Fprintf(w, " %s |", value(s, &b.cells[i][j]))
		}
		w.WriteString("\n")
	}
}

func percent(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	return fmt.Sprintf("%.0f", 100*v)
}

func milliseconds(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	return fmt.Sprintf("%.0f", 1000*v)
}

// days are the results of scenarios that last a day.
type days struct {
	contenders []sim.Contender
	quiet      []*sim.Result // a day at a low rate that ends in a rush
	full       []*sim.Result // a day of overload
	rush       float64       // when the rush begins, in seconds
}

func runDays(seed uint64) (*days, error) {
	d := &days{rush: sim.Day().Change}
	for _, c := range sim.Contenders() {
		if c.Name == "gradient2" || c.Name == "Vegas" || c.Name == "adaptive, 1 s" {
			d.contenders = append(d.contenders, c)
		}
	}
	d.quiet, d.full = make([]*sim.Result, len(d.contenders)), make([]*sim.Result, len(d.contenders))
	var g errgroup.Group
	g.SetLimit(2)
	for i, c := range d.contenders {
		g.Go(func() error {
			s := sim.Day()
			d.quiet[i] = sim.Run(s, c.New(s), seed)
			return nil
		})
		g.Go(func() error {
			s := sim.FullDay()
			d.full[i] = sim.Run(s, c.New(s), seed)
			return nil
		})
	}
	return d, g.Wait()
}

// report is the table of the days.
func (d *days) report() string {
	const hour = 3600.0
	var w strings.Builder
	w.WriteString("\n### A day\n\nA service of 4 workers. The limit, on average over an hour, on a day of 2 to 20 flows per second, and on a day of twice the load; " +
		"what became of the rush that ends the quiet day.\n\n| | " +
		"quiet: 2nd hour | 12th | 23rd | goodput 2–12 s into the rush, % | p99 in the rush, ms | full: 2nd hour | 12th | 24th | goodput of the day, % | p99 of the day, ms |\n|---|" +
		strings.Repeat("--:|", 10) + "\n")
	for i, c := range d.contenders {
		q, f := d.quiet[i], d.full[i]
		rush, _ := q.Latency(0.99, d.rush, d.rush+600)
		all, _ := f.Latency(0.99, hour, 24*hour)
		fmt.Fprintf(&w, "| %s | %.1f | %.1f | %.1f | %s | %s | %.1f | %.1f | %.1f | %s | %s |\n", c.Name,
			mean(q.Limits(hour, 2*hour)), mean(q.Limits(11*hour, 12*hour)), mean(q.Limits(22*hour, 23*hour)),
			percent(q.Goodput(d.rush+2, d.rush+12)), milliseconds(rush),
			mean(f.Limits(hour, 2*hour)), mean(f.Limits(11*hour, 12*hour)), mean(f.Limits(23*hour, 24*hour)),
			percent(f.Goodput(hour, 24*hour)), milliseconds(all))
	}
	return w.String() + "\n" + fmt.Sprintf("Written on %s.\n", time.Now().UTC().Format(time.DateOnly))
}

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}
