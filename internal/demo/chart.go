// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strings"
)

// Charts are inline SVG. Colours come from the CSS of the page by class, so that one drawing reads well in
// light and dark; details appear as native tooltips, so that no script is needed.

// The drawing area, in SVG units.
const (
	chartWidth, chartHeight   = 520.0, 250.0
	marginLeft, marginRight   = 52.0, 14.0
	marginTop, marginBottom   = 12.0, 38.0
	plotWidth                 = chartWidth - marginLeft - marginRight
	plotHeight                = chartHeight - marginTop - marginBottom
	ticksWanted               = 5
	histogramBins             = 36
	maxUsersWithLines         = 10
	minAxis                   = 1e-9
	dotRadius, crossHalfWidth = 2.6, 3.5
)

// canvas is a chart being drawn, with axes from 0 to xMax and yMax.
type canvas struct {
	b          strings.Builder
	xMax, yMax float64
}

// newCanvas opens a chart; label describes it to people who cannot see it.
func newCanvas(label string, xMax, yMax float64) *canvas {
	c := &canvas{xMax: max(xMax, minAxis), yMax: max(yMax, minAxis)}
	c.printf(`<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, chartWidth, chartHeight, html.EscapeString(label))
	return c
}

func (c *canvas) printf(format string, args ...any) { fmt.Fprintf(&c.b, format, args...) }

func (c *canvas) x(v float64) float64 { return marginLeft + v/c.xMax*plotWidth }
func (c *canvas) y(v float64) float64 { return marginTop + plotHeight - v/c.yMax*plotHeight }

// done closes the chart.
func (c *canvas) done() template.HTML {
	c.b.WriteString("</svg>")
	return template.HTML(c.b.String()) // every text in it went through html.EscapeString
}

// axes draws grid lines with numbers and names the axes.
func (c *canvas) axes(xName, yName string) {
	for _, v := range ticks(c.yMax) {
		c.printf(`<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, marginLeft, chartWidth-marginRight, c.y(v), c.y(v))
		c.printf(`<text class="tick" x="%.1f" y="%.1f" text-anchor="end">%s</text>`, marginLeft-6, c.y(v)+4, number(v))
	}
	c.xAxis(xName)
	c.printf(`<text class="name" transform="translate(13 %.1f) rotate(-90)" text-anchor="middle">%s</text>`,
		marginTop+plotHeight/2, html.EscapeString(yName))
}

func (c *canvas) xAxis(name string) {
	bottom := marginTop + plotHeight
	for _, v := range ticks(c.xMax) {
		c.printf(`<text class="tick" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, c.x(v), bottom+15, number(v))
	}
	c.printf(`<line class="axis" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, marginLeft, chartWidth-marginRight, bottom, bottom)
	c.printf(`<text class="name" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, marginLeft+plotWidth/2, chartHeight-4, html.EscapeString(name))
}

// number writes an axis number without needless digits.
func number(v float64) string { return fmt.Sprintf("%.6g", v) }

// ticks returns round numbers from 0 up to and including the last that is not above top.
func ticks(top float64) []float64 {
	if !(top > 0) || math.IsInf(top, 0) {
		return []float64{0}
	}
	raw := top / ticksWanted
	unit := math.Pow(10, math.Floor(math.Log10(raw)))
	step := 10 * unit
	for _, m := range []float64{1, 2, 5} {
		if m*unit >= raw*0.999 {
			step = m * unit
			break
		}
	}
	var out []float64
	for i := 0; float64(i)*step <= top*1.0001; i++ {
		out = append(out, float64(i)*step)
	}
	return out
}

// waitChart shows every request of a phase by when it was made and how long it waited.
func waitChart(p *Phase, tiers []string, xMax, yMax float64) template.HTML {
	c := newCanvas("Wait of each request over time, "+phaseNames[p.Name], xMax, yMax)
	c.axes("asked at (s)", "wait (s)")
	if users := samplesByUser(p); len(users) <= maxUsersWithLines {
		for _, samples := range users {
			c.userLine(samples, tiers)
		}
	}
	for _, s := range p.Samples {
		x, class := c.x(s.StartSeconds), tierClass(tiers, s.Tier)
		if s.Outcome != outcomeOK {
			c.printf(`<path class="lost" d="M%.1f %.1fl%g %gm0 -%gl-%g %g"><title>%s: %s</title></path>`, x-crossHalfWidth, marginTop,
				2*crossHalfWidth, 2*crossHalfWidth, 2*crossHalfWidth, 2*crossHalfWidth, 2*crossHalfWidth, html.EscapeString(s.User), html.EscapeString(s.Reason))
			continue
		}
		c.printf(`<circle class="%s" cx="%.1f" cy="%.1f" r="%g"><title>%s asked at %s, waited %s, done after %s</title></circle>`,
			class, x, c.y(s.WaitSeconds), dotRadius, html.EscapeString(s.User), seconds(s.StartSeconds), seconds(s.WaitSeconds), seconds(s.LatencySeconds))
	}
	return c.done()
}

// samplesByUser groups completed samples by user, users in order of appearance.
func samplesByUser(p *Phase) [][]Sample {
	index := map[string]int{}
	var out [][]Sample
	for _, s := range p.Samples {
		if s.Outcome != outcomeOK {
			continue
		}
		i, ok := index[s.User]
		if !ok {
			i = len(out)
			index[s.User] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], s)
	}
	return out
}

func (c *canvas) userLine(samples []Sample, tiers []string) {
	var d strings.Builder
	for i, s := range samples {
		d.WriteString(map[bool]string{true: "M", false: "L"}[i == 0])
		fmt.Fprintf(&d, "%.1f %.1f", c.x(s.StartSeconds), c.y(s.WaitSeconds))
	}
	c.printf(`<path class="user %s" d="%s"/>`, tierClass(tiers, samples[0].Tier), d.String())
}

// tierClass is the CSS class that gives a tier its colour.
func tierClass(tiers []string, name string) string {
	for i, t := range tiers {
		if t == name {
			return fmt.Sprintf("tier%d", i%2)
		}
	}
	return "tier0"
}

// latencyChart shows the latencies of one tier as one histogram per phase, on a common scale.
func latencyChart(res *Results, tier int, xMax float64) template.HTML {
	name := res.Phases[0].Tiers[tier].Name
	c := newCanvas("Distribution of latency of "+name+" users", xMax, 1)
	c.xAxis("latency (s)")
	rowHeight := plotHeight / float64(len(res.Phases))
	top := 0
	counts := make([][]int, len(res.Phases))
	for i := range res.Phases {
		counts[i] = histogram(&res.Phases[i], name, xMax)
		for _, n := range counts[i] {
			top = max(top, n)
		}
	}
	for i := range res.Phases {
		p := &res.Phases[i]
		base := marginTop + rowHeight*float64(i+1)
		c.printf(`<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, marginLeft, chartWidth-marginRight, base, base)
		c.printf(`<text class="tick" x="%.1f" y="%.1f" text-anchor="end">%s</text>`, marginLeft-6, base-rowHeight/2+4, p.Name)
		width := plotWidth / histogramBins
		for b, n := range counts[i] {
			if n == 0 {
				continue
			}
			h := float64(n) / float64(top) * (rowHeight - 20)
			c.printf(`<rect class="tier%d %s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%d requests took %s to %s</title></rect>`,
				tier%2, p.Name, marginLeft+float64(b)*width+0.5, base-h, width-1, h, n,
				seconds(float64(b)*xMax/histogramBins), seconds(float64(b+1)*xMax/histogramBins))
		}
		c.median(p.Tiers[tier].LatencySeconds.P50, base, rowHeight)
	}
	return c.done()
}

// median marks the middle of one histogram. The label keeps inside the plot.
func (c *canvas) median(v, base, rowHeight float64) {
	anchor, dx := "start", 4.0
	if v > c.xMax*0.7 {
		anchor, dx = "end", -4.0
	}
	c.printf(`<line class="median" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, c.x(v), c.x(v), base, base-rowHeight+6)
	c.printf(`<text class="tick strong" x="%.1f" y="%.1f" text-anchor="%s">median %s</text>`, c.x(v)+dx, base-rowHeight+15, anchor, seconds(v))
}

func histogram(p *Phase, tier string, xMax float64) []int {
	counts := make([]int, histogramBins)
	for _, s := range p.Samples {
		if s.Tier == tier && s.Outcome == outcomeOK {
			i := int(s.LatencySeconds / max(xMax, minAxis) * histogramBins)
			counts[min(max(i, 0), histogramBins-1)]++
		}
	}
	return counts
}

// flightChart shows how many requests the service worked on over time, and the policy's limit.
func flightChart(p *Phase, limit int, xMax, yMax float64) template.HTML {
	c := newCanvas("Requests in flight over time, "+phaseNames[p.Name], xMax, yMax)
	c.axes("since the start of the phase (s)", "in flight")
	if len(p.InFlight) > 0 {
		var d strings.Builder
		fmt.Fprintf(&d, "M%.1f %.1f", c.x(0), c.y(0))
		for _, n := range p.InFlight {
			fmt.Fprintf(&d, "H%.1fV%.1f", c.x(max(n.AtSeconds, 0)), c.y(float64(n.N)))
		}
		fmt.Fprintf(&d, "H%.1fV%.1fZ", c.x(min(p.DurationSeconds, xMax)), c.y(0))
		c.printf(`<path class="flight" d="%s"/>`, d.String())
	}
	if limit > 0 {
		y := c.y(float64(limit))
		c.printf(`<line class="limit" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, marginLeft, chartWidth-marginRight, y, y)
		c.printf(`<text class="limitname" x="%.1f" y="%.1f" text-anchor="end">limit of the policy: %d</text>`, chartWidth-marginRight-2, y-5, limit)
	}
	return c.done()
}

// answersChart shows accepted and refused requests over time, stacked.
func answersChart(p *Phase, xMax, yMax float64) template.HTML {
	c := newCanvas("Answers of the provider over time, "+phaseNames[p.Name], xMax, yMax)
	c.axes("since the start of the phase (s)", fmt.Sprintf("answers per %g s", BinSeconds))
	width := BinSeconds / c.xMax * plotWidth
	for _, b := range p.Answers {
		x := c.x(b.AtSeconds)
		bar := func(class string, from, n int, what string) {
			if n == 0 {
				return
			}
			c.printf(`<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%d %s from %s on</title></rect>`, class, x+0.5,
				c.y(float64(from+n)), max(width-1, 0.5), c.y(float64(from))-c.y(float64(from+n)), n, what, seconds(b.AtSeconds))
		}
		bar("accepted", 0, b.Accepted, "accepted")
		bar("refused", b.Accepted, b.Refused, "refused with 429")
	}
	return c.done()
}
