// SPDX-License-Identifier: Apache-2.0

package demo

import (
	_ "embed"
	"fmt"
	"html"
	"html/template"
	"io"
	"strings"
)

//go:embed overload.html.tmpl
var overloadReportText string

var overloadReportTemplate = template.Must(template.New("overload").Parse(overloadReportText + styleText))

// overloadPage is what the template of the report shows.
type overloadPage struct {
	Title, When string
	*OverloadResults
	Partial bool
	Story   []string
	Legend  []legend
	Figures []figure
	Heads   []string
	Rows    []row
	Files   []document
}

// overloadRows is the table of results: one column for each run.
func overloadRows(res *OverloadResults) []row {
	var out []row
	each := func(label string, cell func(r *OverloadRun) string) {
		line := row{label: label}
		for i := range res.Runs {
			line.cells = append(line.cells, cell(&res.Runs[i]))
		}
		out = append(out, line)
	}
	for _, part := range []struct {
		name string
		of   func(r *OverloadRun) *OverloadPeriod
	}{
		{"before", func(r *OverloadRun) *OverloadPeriod { return &r.Before }},
		{"surge", func(r *OverloadRun) *OverloadPeriod { return &r.During }},
		{"after", func(r *OverloadRun) *OverloadPeriod { return &r.After }},
	} {
		cell := func(label string, text func(p *OverloadPeriod) string) {
			each(part.name+", "+label, func(r *OverloadRun) string { return text(part.of(r)) })
		}
		cell("goodput / asked per second", func(p *OverloadPeriod) string {
			return fmt.Sprintf("%.0f / %.0f", p.Goodput, p.Goodput*float64(p.Asked)/float64(max(p.Good, 1)))
		})
		cell("good for subscribers / guests", func(p *OverloadPeriod) string {
			return fmt.Sprintf("%.0f %% / %.0f %%", 100*p.Subscribers, 100*p.Guests)
		})
		cell("good answers, p50 / p99", func(p *OverloadPeriod) string {
			if p.Good == 0 {
				return "none"
			}
			return fmt.Sprintf("%.0f / %.0f ms", 1e3*p.P50, 1e3*p.P99)
		})
		cell("p99 in the service", func(p *OverloadPeriod) string { return fmt.Sprintf("%.0f ms", 1e3*p.ServiceP99) })
		cell("too late / no answer", func(p *OverloadPeriod) string { return fmt.Sprintf("%d / %d", p.Late, p.Lost) })
		cell("denied of requests sent", func(p *OverloadPeriod) string { return fmt.Sprintf("%d of %d", p.Denied, p.Attempts) })
	}
	each("reaction to the surge", func(r *OverloadRun) string { return within(r.ReactionSeconds, "never") })
	each("recovery after it", func(r *OverloadRun) string { return within(r.RecoverySeconds, "not within "+seconds(res.AfterSeconds)) })
	each("longest queue in the service", func(r *OverloadRun) string { return fmt.Sprint(r.PeakQueue) })
	return out
}

// within says in which second something came true.
func within(s *float64, never string) string {
	if s == nil {
		return never
	}
	return fmt.Sprintf("in second %.0f", *s+1)
}

// overloadTable prints the results for a terminal.
func overloadTable(res *OverloadResults) string {
	head := row{label: fmt.Sprintf("capacity %g answers per second", res.Capacity)}
	for _, r := range res.Runs {
		head.cells = append(head.cells, r.Title)
	}
	return aligned(append([]row{head}, overloadRows(res)...))
}

// overloadFigures are the charts over time, one line for each run.
func overloadFigures(res *OverloadResults, s overloadScenario) []figure {
	line := func(title, axis string, top float64, of func(OverloadSecond) float64) panel {
		return panel{title, overloadChart(res, title, axis, top, of)}
	}
	most := 1.25 * s.capacity()
	late := 2 * s.Useful.Seconds()
	return []figure{
		{Title: "Goodput and latency", Caption: fmt.Sprintf("By the second in which users asked. The shaded part is the surge. Latency is the p99 in the service of the requests that were let in, cut off at %g s.", late), Panels: []panel{
			line("Good answers per second", "good answers per second", most, func(b OverloadSecond) float64 { return float64(b.Good) }),
			line("p99 in the service", "seconds", late, func(b OverloadSecond) float64 { return min(b.ServiceP99, late) }),
		}},
		{Title: "Who gets them", Caption: "Good answers per second for each kind of user.", Panels: []panel{
			line("Subscribers", "good answers per second", most, func(b OverloadSecond) float64 { return float64(b.GoodSubscribers) }),
			line("Guests", "good answers per second", most, func(b OverloadSecond) float64 { return float64(b.GoodGuests) }),
		}},
	}
}

func overloadChart(res *OverloadResults, title, axis string, top float64, of func(OverloadSecond) float64) template.HTML {
	length := res.BeforeSeconds + res.DuringSeconds + res.AfterSeconds
	for _, r := range res.Runs {
		for _, b := range r.Seconds {
			top = max(top, of(b))
		}
	}
	c := newCanvas(title+" over time, one line for each run", length, top)
	from, to := c.x(res.BeforeSeconds), c.x(res.BeforeSeconds+res.DuringSeconds)
	c.printf(`<rect class="surge" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, from, marginTop, to-from, plotHeight)
	c.axes("seconds", axis)
	for i, r := range res.Runs {
		var d strings.Builder
		for at, b := range r.Seconds {
			d.WriteString(map[bool]string{true: "M", false: "L"}[at == 0])
			fmt.Fprintf(&d, "%.1f %.1f", c.x(float64(at)+0.5), c.y(of(b)))
		}
		c.printf(`<path class="run run%d" d="%s"><title>%s</title></path>`, i, d.String(), html.EscapeString(r.Title))
	}
	return c.done()
}

// overloadText says in sentences what was run.
func overloadText(s overloadScenario) []string {
	return []string{
		fmt.Sprintf("The service has %d workers. A request keeps one of them for %v to %v, so that it answers %g requests a second at most. Up to %d requests wait for a worker in the order they came. It works on them even when their client has gone.",
			s.Workers, s.Work/2, s.Work*3/2, s.capacity(), s.Queue),
		fmt.Sprintf("Users ask at random moments, independently of each other and of the answers: %g times the capacity for %v, %g times for %v, %g times again for %v. %.0f %% are guests, the others subscribers.",
			s.Base, s.Before, s.Surge, s.During, s.Base, s.After, 100*s.Guests),
		fmt.Sprintf("A client waits %v for an answer. After a failure, a denial included, it tries once more, %v to %v later. An answer is good when it comes within %v of the moment the user asked, second attempt included.",
			s.Patience, s.RetryAfter, 3*s.RetryAfter, s.Useful),
		fmt.Sprintf("In front of the service is the net/http middleware of the Go SDK. A flow may wait %v in Sluice. Subscribers have priority 200, guests 50.", s.QueueTimeout),
		"Every run has the same users, who ask at the same moments for the same work, and a service of its own. The service is simulated; Sluice, the SDK, the connections and the measurements are real.",
	}
}

// writeOverloadReport writes index.html, results.json and the policies.
func writeOverloadReport(dir string, r *overloadRunner, res *OverloadResults) error {
	page := &overloadPage{
		Title: overloadTitle, When: res.StartTime.Format("2 January 2006, 15:04:05 MST"), OverloadResults: res,
		Partial: !res.Complete, Story: overloadText(r.scenario), Rows: overloadRows(res), Files: r.documents(),
		Figures: overloadFigures(res, r.scenario),
	}
	for i, run := range res.Runs {
		page.Heads = append(page.Heads, run.Title)
		page.Legend = append(page.Legend, legend{fmt.Sprintf("run%d", i), run.Title})
	}
	return writeReportFiles(dir, res, page.Files, func(w io.Writer) error { return overloadReportTemplate.Execute(w, page) })
}
