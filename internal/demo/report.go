// SPDX-License-Identifier: Apache-2.0

package demo

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"os"
	"path/filepath"
)

//go:embed report.html.tmpl
var reportText string

//go:embed style.html.tmpl
var styleText string

var reportTemplate = template.Must(template.New("report").Parse(reportText + styleText))

// page is what the template of the report shows.
type page struct {
	Title, When string
	*Results
	Partial bool
	Story   []string
	Tiers   []string
	Tiles   []tile
	Figures []figure
	Heads   []string
	Rows    []row
	Files   []document
}

// Label and Cells let the template read a row.
func (r row) Label() string   { return r.label }
func (r row) Cells() []string { return r.cells }

// File and Text let the template read a document.
func (d document) File() string { return d.file }
func (d document) Text() string { return d.text }

// tile is one headline number, before and after.
type tile struct{ Name, Before, After string }

// figure is a row of charts.
type figure struct {
	Title, Caption string
	// Legend lists classes and names of colours.
	Legend []legend
	Panels []panel
}

type legend struct{ Class, Name string }

type panel struct {
	Title string
	Chart template.HTML
}

// writeReport writes index.html, results.json and the policies.
func writeReport(dir string, e *experiment, res *Results) error {
	return writeReportFiles(dir, res, e.policies, func(w io.Writer) error { return reportTemplate.Execute(w, newPage(e, res)) })
}

// writeReportFiles writes results.json, the policies and the page of a report. A file that fails keeps the
// others from nothing.
func writeReportFiles(dir string, results any, policies []document, page func(io.Writer) error) error {
	var errs []error
	write := func(name string, fill func(io.Writer) error) {
		if err := writeFile(filepath.Join(dir, name), fill); err != nil {
			errs = append(errs, fmt.Errorf("demo: writing the report: %w", err))
		}
	}
	write("results.json", func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", " ")
		return enc.Encode(results)
	})
	for _, doc := range policies {
		write(doc.file, func(w io.Writer) error {
			_, err := io.WriteString(w, doc.text)
			return err
		})
	}
	write("index.html", page)
	return errors.Join(errs...)
}

func writeFile(path string, fill func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(fill(f), f.Close())
}

func newPage(e *experiment, res *Results) *page {
	p := &page{
		Title: e.title, When: res.StartTime.Format("2 January 2006, 15:04:05 MST"), Results: res,
		Partial: !res.Complete, Story: e.story, Tiers: e.tiers, Rows: rows(res), Files: e.policies,
		Tiles: tiles(res),
	}
	for i := range res.Phases {
		p.Heads = append(p.Heads, phaseNames[res.Phases[i].Name])
	}
	p.Figures = figures(e, res)
	return p
}

// tiles picks the numbers that tell whether the policy did its work.
func tiles(res *Results) []tile {
	if tierCount(res) == 0 {
		return nil
	}
	var out []tile
	add := func(name string, of func(p *Phase) string) {
		t := tile{Name: name, Before: of(&res.Phases[0]), After: "not measured"}
		if len(res.Phases) > 1 {
			t.After = of(&res.Phases[1])
		}
		out = append(out, t)
	}
	for i, t := range res.Phases[0].Tiers {
		add(t.Name+": wait, median", func(p *Phase) string { return seconds(p.Tiers[i].WaitSeconds.P50) })
		add(t.Name+": wait, 95th percentile", func(p *Phase) string { return seconds(p.Tiers[i].WaitSeconds.P95) })
	}
	if hasQuota(res) {
		add("429 answers", func(p *Phase) string { return fmt.Sprint(p.Refused()) })
	} else {
		add("peak in flight", func(p *Phase) string { return fmt.Sprint(p.PeakInFlight) })
	}
	add("requests lost", func(p *Phase) string { return fmt.Sprint(p.Lost()) })
	add("all done after", func(p *Phase) string { return seconds(p.DurationSeconds) })
	return out
}

// figures draws everything on scales common to both phases, so that panels side by side compare.
func figures(e *experiment, res *Results) []figure {
	if tierCount(res) == 0 {
		return nil
	}
	x, wait, latency, flight, answers := extents(res)
	flight = max(flight, float64(e.limit)) + 1
	both := func(draw func(p *Phase) template.HTML) []panel {
		var out []panel
		for i := range res.Phases {
			p := &res.Phases[i]
			out = append(out, panel{phaseNames[p.Name], draw(p)})
		}
		return out
	}
	var tiers []legend
	for _, t := range e.tiers {
		tiers = append(tiers, legend{tierClass(e.tiers, t), t})
	}
	var latencies []panel
	for i, t := range e.tiers {
		latencies = append(latencies, panel{t, latencyChart(res, i, latency)})
	}
	out := []figure{{
		"Wait of every request", "One dot per request. Crosses at the top edge are requests that were lost.",
		append(tiers, legend{"lost", "lost"}),
		both(func(p *Phase) template.HTML { return waitChart(p, e.tiers, x, wait) }),
	}, {
		"Latency, without and with policy", "From asking for permission to the last word of the answer; completed requests.",
		tiers, latencies,
	}}
	if hasQuota(res) {
		out = append(out, figure{
			"Answers of the provider", "Counted by the provider.",
			[]legend{{"accepted", "accepted"}, {"refused", "refused (429)"}},
			both(func(p *Phase) template.HTML { return answersChart(p, x, answers) }),
		})
	}
	return append(out, figure{
		"Requests in flight", "Counted by the service, at every arrival and departure.", nil,
		both(func(p *Phase) template.HTML { return flightChart(p, e.limit, x, flight) }),
	})
}

// extents returns the largest value on each axis over all phases, with a little room.
func extents(res *Results) (x, wait, latency, flight, answers float64) {
	for _, p := range res.Phases {
		x = max(x, p.DurationSeconds)
		flight = max(flight, float64(p.PeakInFlight))
		for _, s := range p.Samples {
			wait, latency = max(wait, s.WaitSeconds), max(latency, s.LatencySeconds)
		}
		for _, b := range p.Answers {
			answers = max(answers, float64(b.Accepted+b.Refused))
		}
	}
	const room = 1.04
	return x * room, wait * room, latency * room, flight, answers * room
}
