// SPDX-License-Identifier: Apache-2.0

package main

import (
	"image/color"
	"os"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/sluice-project/sluice/bench/control/sim"
)

// assets is the folder of the plots in the documentation.
const assets = "assets/adaptive"

const (
	plotWidth  = 7 * vg.Inch
	plotHeight = 2.8 * vg.Inch
)

// roomForLegend is how much higher than its lines a plot is.
const roomForLegend = 1.5

// drawn are the policies in plots, with colours that are told apart by those who do not see all of them
// (the palette of Okabe and Ito).
var drawn = []struct {
	name  string
	color color.Color
	width vg.Length
}{
	{"slots, right", color.RGBA{R: 0x99, G: 0x99, B: 0x99, A: 0xff}, 1},
	{"AIMD, Aperture", color.RGBA{R: 0xe6, G: 0x9f, A: 0xff}, 1},
	{"gradient2", color.RGBA{R: 0x56, G: 0xb4, B: 0xe9, A: 0xff}, 1},
	{"adaptive, 1 s", color.RGBA{R: 0xd5, G: 0x5e, A: 0xff}, 1.8},
}

// plotAll draws goodput over time for every scenario.
func (b *board) plotAll(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i, s := range b.scenarios {
		if err := b.plotGoodput(i, filepath.Join(dir, s.Name+".svg")); err != nil {
			return err
		}
	}
	return nil
}

func (b *board) plotGoodput(scenario int, path string) error {
	s := b.scenarios[scenario]
	p := newPlot(s.Name+": "+s.About, "seconds", "done in time, per second")
	bin := max(1, s.Length/200)
	var possible plotter.XYs
	for t := 0.0; t+bin <= s.Length; t += bin {
		possible = append(possible, plotter.XY{X: t + bin/2, Y: b.cells[scenario][0].first.Ideal(t, t+bin) / bin})
	}
	area, err := plotter.NewLine(possible)
	if err != nil {
		return err
	}
	area.FillColor, area.Width = color.RGBA{R: 0xee, G: 0xee, B: 0xee, A: 0xff}, 0
	p.Add(area)
	p.Legend.Add("possible", area)
	for _, d := range drawn {
		j := slices.IndexFunc(b.contenders, func(c sim.Contender) bool { return c.Name == d.name })
		r := b.cells[scenario][j].first
		var points plotter.XYs
		for t := 0.0; t+bin <= s.Length; t += bin {
			points = append(points, plotter.XY{X: t + bin/2, Y: r.Done(t, t+bin) / bin})
		}
		if err := addLine(p, points, d.name, d.color, d.width); err != nil {
			return err
		}
	}
	p.Y.Max *= roomForLegend
	return p.Save(plotWidth, plotHeight, path)
}

// plot draws the limits of the days.
func (d *days) plot(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	colors := map[string]color.Color{}
	for _, c := range drawn {
		colors[c.name] = c.color
	}
	for name, results := range map[string][]*sim.Result{"day": d.quiet, "full-day": d.full} {
		p := newPlot("limit on a "+name+", for a service of 4 workers", "hours", "slots")
		p.Y.Min, p.Y.Scale, p.Y.Tick.Marker = 1, plot.LogScale{}, plot.LogTicks{Prec: -1}
		for i, c := range d.contenders {
			var points plotter.XYs
			for t := 0.0; t < 86400; t += 600 {
				points = append(points, plotter.XY{X: (t + 300) / 3600, Y: mean(results[i].Limits(t, t+600))})
			}
			of := colors[c.Name]
			if of == nil {
				of = color.RGBA{G: 0x9e, B: 0x73, A: 0xff}
			}
			if err := addLine(p, points, c.Name, of, 1.4); err != nil {
				return err
			}
		}
		p.Y.Max *= 100 // room for the legend, on a logarithmic scale
		if err := p.Save(plotWidth, plotHeight, filepath.Join(dir, name+".svg")); err != nil {
			return err
		}
	}
	return nil
}

func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.White
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Title.TextStyle.Font.Size, p.Legend.TextStyle.Font.Size = 9, 8
	p.X.Label.TextStyle.Font.Size, p.Y.Label.TextStyle.Font.Size = 9, 9
	p.X.Tick.Label.Font.Size, p.Y.Tick.Label.Font.Size = 8, 8
	p.Legend.Top = true
	p.Y.Min = 0
	return p
}

func addLine(p *plot.Plot, points plotter.XYs, name string, c color.Color, width vg.Length) error {
	line, err := plotter.NewLine(points)
	if err != nil {
		return err
	}
	line.Color, line.Width = c, vg.Points(float64(width))
	p.Add(line)
	p.Legend.Add(name, line)
	return nil
}
