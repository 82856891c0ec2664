// SPDX-License-Identifier: Apache-2.0

// Package dashboard makes Grafana dashboards for policies: a summary with a row for every component that
// has something to show, the signals of the circuit, and the metrics of its infra meters.
//
// Everything is a function of the policy. The queries use the metrics that the server has under the names
// of the policy language (docs/reference/metrics.md), so they work with any Prometheus that has these, the
// server's own included.
package dashboard

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-project/sluice/internal/policy"
)

// Options are the choices of the reader.
type Options struct {
	// Datasource is the name of the data source in Grafana that is chosen at first. Empty: Grafana's default
	// Prometheus.
	Datasource string
}

// Dashboard is one dashboard.
type Dashboard struct {
	// Name is a name for its file, without an extension: made of lower-case letters, digits, '-' and '.'.
	Name string
	// Title as Grafana shows it.
	Title string

	model model
}

// JSON is the dashboard as Grafana imports it. The same policy gives the same text.
func (d *Dashboard) JSON() ([]byte, error) {
	text, err := json.MarshalIndent(d.model, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write dashboard %s: %w", d.Name, err)
	}
	return append(text, '\n'), nil
}

// Queries are all PromQL queries of the dashboard, with the variables of Grafana in them.
func (d *Dashboard) Queries() []string {
	var out []string
	for _, p := range d.model.Panels {
		for _, t := range p.Targets {
			out = append(out, t.Expr)
		}
	}
	for _, v := range d.model.Templating.List {
		if series, ok := strings.CutPrefix(v.Definition, "label_values("); ok {
			out = append(out, series[:strings.LastIndexByte(series, ',')]) // without the name of the label
		}
	}
	return out
}

// Make returns the dashboards of a policy: its summary, its signals and, when it has infra meters that
// there is a dashboard for, those of their receivers.
func Make(doc *policy.Document, o Options) []*Dashboard {
	out := []*Dashboard{summary(doc, o), signals(doc, o)}
	return append(out, receivers(doc, o)...)
}

// newDashboard begins a dashboard of a policy. kind is unique among those of the policy.
func newDashboard(doc *policy.Document, o Options, kind, title string) *Dashboard {
	sum := sha256.Sum256([]byte(kind + "\x00" + doc.Name))
	d := &Dashboard{Name: doc.Name + "-" + kind, Title: title + " – " + doc.Name}
	d.model = model{
		UID: "sluice-" + hex.EncodeToString(sum[:12]), Title: d.Title, Tags: []string{"sluice", "policy"},
		SchemaVersion: schemaVersion, Editable: true, Refresh: "5s", Timezone: "browser",
		Time: timeRange{From: "now-15m", To: "now"}, GraphTooltip: 1, // all panels show the same instant
		Requires: []requirement{
			{"grafana", "grafana", "Grafana", "10.0.0"}, {"datasource", "prometheus", "Prometheus", "1.0.0"},
		},
	}
	chosen := option{Selected: true, Text: o.Datasource, Value: o.Datasource}
	if o.Datasource == "" {
		chosen = option{Selected: true, Text: "default", Value: "default"}
	}
	d.model.Templating.List = []variable{{
		Type: "datasource", Name: "datasource", Label: "Data source", Query: "prometheus", Current: &chosen,
	}}
	return d
}

// schemaVersion is that of Grafana 10.3 to 11; newer versions read it.
const schemaVersion = 39

// The types below are the parts of Grafana's dashboard model that we use. The order of fields is that of
// the file.

type model struct {
	Requires      []requirement `json:"__requires"`
	UID           string        `json:"uid"`
	Title         string        `json:"title"`
	Description   string        `json:"description,omitempty"`
	Tags          []string      `json:"tags"`
	Timezone      string        `json:"timezone"`
	Editable      bool          `json:"editable"`
	GraphTooltip  int           `json:"graphTooltip"`
	Refresh       string        `json:"refresh"`
	SchemaVersion int           `json:"schemaVersion"`
	Time          timeRange     `json:"time"`
	Templating    templating    `json:"templating"`
	Annotations   annotations   `json:"annotations"`
	Panels        []panel       `json:"panels"`

	// Where the next panel goes.
	x, y, rowHeight int
}

type requirement struct {
	Type    string `json:"type"`
	ID      string `json:"id"`
	Name    string `json:"name"`
	Version string `json:"version"`
}

type timeRange struct {
	From string `json:"from"`
	To   string `json:"to"`
}

type templating struct {
	List []variable `json:"list"`
}

type annotations struct {
	List []struct{} `json:"list"`
}

type variable struct {
	Type       string      `json:"type"`
	Name       string      `json:"name"`
	Label      string      `json:"label,omitempty"`
	Datasource *datasource `json:"datasource,omitempty"`
	Definition string      `json:"definition,omitempty"`
	Query      any         `json:"query"`
	Regex      string      `json:"regex,omitempty"`
	Refresh    int         `json:"refresh,omitempty"`
	Multi      bool        `json:"multi,omitempty"`
	IncludeAll bool        `json:"includeAll,omitempty"`
	Sort       int         `json:"sort,omitempty"`
	Current    *option     `json:"current,omitempty"`
}

type option struct {
	Selected bool   `json:"selected"`
	Text     string `json:"text"`
	Value    string `json:"value"`
}

type datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

type panel struct {
	ID          int         `json:"id"`
	Type        string      `json:"type"`
	Title       string      `json:"title"`
	Description string      `json:"description,omitempty"`
	GridPos     gridPos     `json:"gridPos"`
	Collapsed   *bool       `json:"collapsed,omitempty"` // of a row
	Datasource  *datasource `json:"datasource,omitempty"`
	Targets     []target    `json:"targets,omitempty"`
	FieldConfig *fieldConf  `json:"fieldConfig,omitempty"`
	Options     any         `json:"options,omitempty"`
	Panels      []panel     `json:"panels,omitempty"`
}

type gridPos struct {
	H int `json:"h"`
	W int `json:"w"`
	X int `json:"x"`
	Y int `json:"y"`
}

type target struct {
	RefID        string      `json:"refId"`
	Datasource   *datasource `json:"datasource"`
	Expr         string      `json:"expr"`
	LegendFormat string      `json:"legendFormat,omitempty"`
	Instant      bool        `json:"instant,omitempty"`
	Range        bool        `json:"range,omitempty"`
}

type fieldConf struct {
	Defaults  fieldDefaults `json:"defaults"`
	Overrides []struct{}    `json:"overrides"`
}

type fieldDefaults struct {
	Unit    string         `json:"unit,omitempty"`
	Min     *float64       `json:"min,omitempty"`
	Max     *float64       `json:"max,omitempty"`
	Decimal *int           `json:"decimals,omitempty"`
	Custom  map[string]any `json:"custom,omitempty"`
}

// series is one query of a panel and the name of its lines, which may hold {{label}}.
type series struct{ legend, expr string }

// chart is what a panel shows.
type chart struct {
	title, help string
	unit        string // of Grafana, such as ms or reqps; empty: a plain number
	stat        bool   // one big number instead of lines
	stack       bool
	step        bool // the lines do not slope between ticks
	min, max    *float64
	series      []series
}

var source = &datasource{Type: "prometheus", UID: "${datasource}"}

// row begins a group of panels.
func (d *Dashboard) row(title string) {
	m := &d.model
	m.y += m.rowHeight
	m.x, m.rowHeight = 0, 0
	open := false
	m.Panels = append(m.Panels, panel{
		ID: len(m.Panels) + 1, Type: "row", Title: literal(title), Collapsed: &open, GridPos: gridPos{H: 1, W: gridWidth, X: 0, Y: m.y},
	})
	m.y++
}

// gridWidth is the number of columns of Grafana's grid.
const gridWidth = 24

// add places a chart beside the one before when it fits.
func (d *Dashboard) add(w, h int, c chart) {
	m := &d.model
	if m.x+w > gridWidth {
		m.x, m.y, m.rowHeight = 0, m.y+m.rowHeight, 0
	}
	p := panel{
		ID: len(m.Panels) + 1, Type: "timeseries", Title: literal(c.title), Description: c.help, Datasource: source,
		GridPos:     gridPos{H: h, W: w, X: m.x, Y: m.y},
		FieldConfig: &fieldConf{Defaults: fieldDefaults{Unit: c.unit, Min: c.min, Max: c.max}, Overrides: []struct{}{}},
	}
	for i, s := range c.series {
		t := target{RefID: string(rune('A' + i%26)), Datasource: source, Expr: s.expr, LegendFormat: s.legend, Range: !c.stat, Instant: c.stat}
		p.Targets = append(p.Targets, t)
	}
	if c.stat {
		p.Type = "stat"
		p.Options = map[string]any{
			"colorMode": "value", "graphMode": "none", "textMode": "auto",
			"reduceOptions": map[string]any{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
		}
	} else {
		custom := map[string]any{"lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": false}
		if c.stack {
			custom["stacking"] = map[string]any{"mode": "normal", "group": "A"}
		}
		if c.step {
			custom["lineInterpolation"] = "stepAfter"
		}
		p.FieldConfig.Defaults.Custom = custom
		p.Options = map[string]any{
			"legend":  map[string]any{"displayMode": "list", "placement": "bottom", "showLegend": true},
			"tooltip": map[string]any{"mode": "multi", "sort": "desc"},
		}
	}
	m.Panels = append(m.Panels, p)
	m.x += w
	m.rowHeight = max(m.rowHeight, h)
}

// label is a matcher of a label with exactly this value. Values come from policies: nothing in them may
// end the string, or be a variable of Grafana, which replaces $name, ${name} and [[name]] in queries.
func label(name, value string) string {
	quoted := strconv.Quote(value)
	return name + "=" + strings.NewReplacer("$", `\x24`, "[", `\x5b`).Replace(quoted)
}

// literal is text for a title, in which Grafana replaces variables too.
func literal(s string) string {
	return strings.NewReplacer("$", "＄", "[[", "[ [").Replace(s)
}

// selector joins matchers.
func selector(matchers ...string) string {
	return "{" + strings.Join(slices.DeleteFunc(matchers, func(m string) bool { return m == "" }), ",") + "}"
}

// window is the range of rates: Grafana's choice, at least four times the time between samples.
const window = "[$__rate_interval]"

// rate is the sum of the rates of a counter by some labels; by may be empty.
func rate(by, metric string, matchers ...string) string {
	return aggregated(by, "rate", metric, window, matchers)
}

// total is how much a counter grew over the whole time shown.
func total(metric string, matchers ...string) string {
	return aggregated("", "increase", metric, "[$__range]", matchers)
}

func aggregated(by, function, metric, over string, matchers []string) string {
	if by != "" {
		by = " by (" + by + ") "
	}
	return fmt.Sprintf("sum%s(%s(%s%s%s))", by, function, metric, selector(slices.Clone(matchers)...), over)
}

// mean is the average of a summary or histogram over the window.
func mean(by, metric string, matchers ...string) string {
	return rate(by, metric+"_sum", matchers...) + " / " + rate(by, metric+"_count", matchers...)
}

// controlPoints are those that any component of the policy names, sorted.
func controlPoints(doc *policy.Document) []string {
	var out []string
	for _, c := range doc.Components {
		out = append(out, c.ControlPoints...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func ptr(f float64) *float64 { return &f }

// compareIDs orders component ids as numbers: root.2 before root.10.
func compareIDs(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(as), len(bs)) {
		x, errX := strconv.Atoi(as[i])
		y, errY := strconv.Atoi(bs[i])
		if c := cmp.Compare(x, y); errX == nil && errY == nil && c != 0 {
			return c
		}
	}
	return cmp.Compare(len(as), len(bs))
}
