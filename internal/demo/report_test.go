// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// sampleResults makes results with everything a report can show, hostile names included.
func sampleResults() (*experiment, *Results) {
	e := &experiment{
		name: "quota", title: `A <b>bold</b> "title" & more`, story: []string{"once <i>upon</i> a time"},
		tiers: []string{"paid<", `free"`}, limit: 2,
		policies: []document{{name: "p", file: "policy.yaml", text: "a: <b>\nurl: http://example.com\n"}},
	}
	res := &Results{
		Demo: "quota", Command: "sluice demo quota --output '<dir>'", Seed: 7, Scale: 10,
		StartTime: time.Unix(0, 0).UTC(), Complete: true, Notes: []string{"<script>alert(1)</script>"},
	}
	for _, name := range []string{"without", "with"} {
		samples := []Sample{
			{User: `u"1<`, Tier: "paid<", Outcome: outcomeOK, StartSeconds: 0, WaitSeconds: 1, LatencySeconds: 3},
			{User: `u"1<`, Tier: "paid<", Outcome: outcomeOK, StartSeconds: 3, WaitSeconds: 0, LatencySeconds: 2},
			{User: "u2", Tier: `free"`, Outcome: outcomeOK, StartSeconds: 1, WaitSeconds: 8, LatencySeconds: 10},
			{User: "u2", Tier: `free"`, Outcome: outcomeDenied, Reason: "<late>", StartSeconds: 11},
		}
		res.Phases = append(res.Phases, Phase{
			Name: name, Planned: 4, Completed: 3, Denied: 1, DurationSeconds: 11, PeakInFlight: 3, Refusals: map[string]int{"requests": 1},
			Samples: samples, Tiers: tiersOf(samples, e.tiers),
			InFlight: []Count{{-1, 0}, {0, 1}, {2, 3}, {11, 0}}, Answers: []Bin{{0, 3, 1}, {5, 0, 0}},
		})
	}
	return e, res
}

func renderReport(t *testing.T, e *experiment, res *Results) string {
	t.Helper()
	dir := t.TempDir()
	if err := writeReport(dir, e, res); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "index.html"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// checkPage verifies that a page stands alone: nothing in it makes a browser fetch anything, and its
// elements nest.
func checkPage(t *testing.T, page string) {
	t.Helper()
	outsidePre := regexp.MustCompile(`(?s)<pre>.*?</pre>`).ReplaceAllString(page, "")
	for _, bad := range []string{"http://", "https://", "<script", "<link", "<img", "<iframe", "@import", "url(", " src=", " href=", "NaN", "Inf", "%!", "ZgotmplZ"} {
		if strings.Contains(outsidePre, bad) {
			t.Errorf("the page contains %q", bad)
		}
	}
	if !strings.HasPrefix(page, "<!doctype html>") {
		t.Errorf("the page begins with %.40q", page)
	}
	d := xml.NewDecoder(strings.NewReader(strings.TrimPrefix(page, "<!doctype html>")))
	d.Strict, d.AutoClose, d.Entity = false, []string{"meta"}, xml.HTMLEntity
	svgs := 0
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the page does not parse: %v", err)
		}
		if el, ok := tok.(xml.StartElement); ok && el.Name.Local == "svg" {
			svgs++
		}
	}
	if svgs == 0 {
		t.Error("the page has no charts")
	}
}

func TestReportStandsAlone(t *testing.T) {
	e, res := sampleResults()
	page := renderReport(t, e, res)
	checkPage(t, page)
	for _, want := range []string{
		"prefers-color-scheme: dark", "A &lt;b&gt;bold", "limit of the policy: 2", "refused with 429", "&lt;late&gt;",
		"sluice demo quota --output &#39;&lt;dir&gt;&#39;", "Seed 7", "a: &lt;b&gt;", "once &lt;i&gt;upon",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if n := strings.Count(page, "<circle"); n != 6 {
		t.Errorf("%d dots, want one per completed request: 6", n)
	}
	if n := strings.Count(page, `class="lost" d=`); n != 2 {
		t.Errorf("%d crosses, want one per lost request: 2", n)
	}
}

// Whatever was measured, the page must be well formed: no phase, one phase, a phase without requests.
func TestReportOfPartialRuns(t *testing.T) {
	tests := map[string]func(res *Results){
		"one phase": func(res *Results) { res.Phases = res.Phases[:1] },
		"nothing completed": func(res *Results) {
			res.Phases = []Phase{{Name: "without", Planned: 4, Interrupted: 4, Tiers: tiersOf(nil, []string{"paid<", `free"`})}}
		},
		"no wait at all": func(res *Results) {
			for i := range res.Phases {
				for j := range res.Phases[i].Samples {
					res.Phases[i].Samples[j] = Sample{Tier: "paid<", Outcome: outcomeOK}
				}
				res.Phases[i].DurationSeconds = 0
			}
		},
	}
	for name, cut := range tests {
		t.Run(name, func(t *testing.T) {
			e, res := sampleResults()
			cut(res)
			res.Complete = false
			page := renderReport(t, e, res)
			checkPage(t, page)
			if !strings.Contains(page, "This run was stopped early") {
				t.Error("the page does not say that the run was stopped early")
			}
			if table(res) == "" {
				t.Error("the table is empty")
			}
		})
	}
	e, res := sampleResults()
	res.Phases = nil
	if page := renderReport(t, e, res); !strings.Contains(page, "The numbers") {
		t.Error("no page without phases")
	}
}

func TestReportSaysWhereItCannotBeWritten(t *testing.T) {
	e, res := sampleResults()
	err := writeReport(filepath.Join(t.TempDir(), "missing"), e, res)
	for _, want := range []string{"writing the report", "index.html", "results.json", "policy.yaml"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that names %s", err, want)
		}
	}
}

func TestTable(t *testing.T) {
	_, res := sampleResults()
	got := table(res)
	want := strings.TrimLeft(`
seconds of the story, p50 / p95 / max             without policy                with policy
paid<, wait                             0.00 s / 1.00 s / 1.00 s   0.00 s / 1.00 s / 1.00 s
paid<, of it in Sluice's queue          0.00 s / 0.00 s / 0.00 s   0.00 s / 0.00 s / 0.00 s
paid<, latency                          2.00 s / 3.00 s / 3.00 s   2.00 s / 3.00 s / 3.00 s
paid<, completed / lost                                    2 / 0                      2 / 0
free", wait                             8.00 s / 8.00 s / 8.00 s   8.00 s / 8.00 s / 8.00 s
free", of it in Sluice's queue          0.00 s / 0.00 s / 0.00 s   0.00 s / 0.00 s / 0.00 s
free", latency                          10.0 s / 10.0 s / 10.0 s   10.0 s / 10.0 s / 10.0 s
free", completed / lost                                    1 / 1                      1 / 1
all, completed of planned                                 3 of 4                     3 of 4
all, lost (denied + failed)                            1 (1 + 0)                  1 (1 + 0)
answers 429 (requests + tokens)                        1 (1 + 0)                  1 (1 + 0)
peak in flight                                                 3                          3
all done after                                            11.0 s                     11.0 s
`, "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSummarize(t *testing.T) {
	tests := []struct {
		values []float64
		want   Summary
	}{
		{nil, Summary{}},
		{[]float64{3}, Summary{3, 3, 3, 3}},
		{[]float64{4, 1, 3, 2}, Summary{2.5, 2, 4, 4}},
		{[]float64{20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, Summary{10.5, 10, 19, 20}},
	}
	for _, tt := range tests {
		if got := summarize(slices.Clone(tt.values)); got != tt.want {
			t.Errorf("summarize(%v): got %+v, want %+v", tt.values, got, tt.want)
		}
	}
}

func TestBins(t *testing.T) {
	t0 := time.Unix(100, 0)
	at := func(seconds ...float64) (ts []time.Time) {
		for _, s := range seconds {
			ts = append(ts, t0.Add(time.Duration(s*float64(second))))
		}
		return ts
	}
	got := binsOf(10, t0, at(0, 0.49, 0.5, -1), []refusal{{t0.Add(1700 * time.Millisecond), "tokens"}})
	want := []Bin{{0, 3, 0}, {5, 1, 0}, {10, 0, 0}, {15, 0, 1}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTicks(t *testing.T) {
	tests := []struct {
		top  float64
		want []float64
	}{
		{0, []float64{0}},
		{math.NaN(), []float64{0}},
		{math.Inf(1), []float64{0}},
		{5, []float64{0, 1, 2, 3, 4, 5}},
		{310, []float64{0, 100, 200, 300}},
		{11, []float64{0, 5, 10}},
		{3650, []float64{0, 1000, 2000, 3000}},
		{0.9, []float64{0, 0.2, 0.4, 0.6, 0.8}},
	}
	for _, tt := range tests {
		got := ticks(tt.top)
		if !slices.EqualFunc(got, tt.want, func(a, b float64) bool { return math.Abs(a-b) < 1e-9 }) {
			t.Errorf("ticks(%g): got %v, want %v", tt.top, got, tt.want)
		}
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{
		"out": "out", "/tmp/a-b_c.d": "/tmp/a-b_c.d", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$HOME": "'$HOME'", "a;b": "'a;b'",
	} {
		if got := shellQuote(in); got != want {
			t.Errorf("shellQuote(%q): got %s, want %s", in, got, want)
		}
	}
}

func TestProgressBar(t *testing.T) {
	var out bytes.Buffer
	m := mustModel(t, testModelConfig())
	r := &runner{cfg: Config{Out: &out, Interactive: true, Scale: 1}, exp: &experiment{model: m}}
	c := &collector{r: r, phase: "with", begin: time.Now(), planned: 4, samples: make([]Sample, 2)}
	c.show()
	if got := out.String(); !strings.HasPrefix(got, "\r\x1b[K") || strings.Count(got, "█") != barWidth/2 || strings.Count(got, "░") != barWidth/2 || strings.Contains(got, "\n") {
		t.Errorf("got %q, want a line redrawn with half a bar", got)
	}
}
