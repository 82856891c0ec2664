// SPDX-License-Identifier: Apache-2.0

package app

import (
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-project/sluice/internal/document"
	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/version"
)

// dump is one debug page: a table for people, and JSON with ?format=json.
type dump struct {
	name, title string
	rows        func(r *http.Request, most int) (header []string, rows [][]string, err error)
}

// Rows of a page unless ?limit=n asks for more.
const (
	defaultRows = 200
	maxRows     = 100_000
)

// debugHandler serves /debug/. What is private is guarded by role before it comes here.
func (p *parts) debugHandler() http.Handler {
	dumps := []dump{
		{"queues", "Flows that wait", p.dumpQueues},
		{"limiters", "Limiters in force", p.dumpLimiters},
		{"workloads", "Workloads of schedulers", p.dumpWorkloads},
		{"accounts", "Accounts closest to their limit", p.dumpAccounts},
		{"policies", "Policies in force", p.dumpPolicies},
		{"circuits", "Circuits of policies", p.dumpCircuits},
		{"alerts", "Alerts, newest first", p.dumpAlerts},
		{"targets", "Targets that are scraped", p.dumpTargets},
		{"policy-dir", "Problems of the policy directory", p.dumpPolicyDir},
	}
	mux := http.NewServeMux()
	for _, d := range dumps {
		mux.HandleFunc("GET /debug/"+d.name, d.serve)
	}
	mux.HandleFunc("GET /debug/build", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]any{"build": version.Get(), "start": p.begin, "uptime_seconds": time.Since(p.begin).Seconds()})
	})
	mux.HandleFunc("GET /debug/config", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, p.config) })
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/{$}", func(w http.ResponseWriter, _ *http.Request) {
		page(w, indexTemplate, struct {
			Version string
			Uptime  time.Duration
			Dumps   []dump
		}{version.Get().String(), time.Since(p.begin).Round(time.Second), dumps})
	})
	return mux
}

// Name and Title are for the template.
func (d dump) Name() string { return d.name }

// Title is the heading.
func (d dump) Title() string { return d.title }

func (d dump) serve(w http.ResponseWriter, r *http.Request) {
	most := defaultRows
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxRows {
			http.Error(w, fmt.Sprintf("limit: got %q, want 1 to %d", text, maxRows), http.StatusBadRequest)
			return
		}
		most = n
	}
	header, rows, err := d.rows(r, most)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if r.URL.Query().Get("format") == "json" {
		list := make([]map[string]string, len(rows))
		for i, row := range rows {
			list[i] = map[string]string{}
			for j, cell := range row {
				list[i][header[j]] = cell
			}
		}
		writeJSON(w, list)
		return
	}
	page(w, tableTemplate, struct {
		Title  string
		Header []string
		Rows   [][]string
		Limit  int
	}{d.title, header, rows, most})
}

func (p *parts) dumpQueues(_ *http.Request, most int) (header []string, rows [][]string, err error) {
	header = []string{"policy", "limiter", "account", "workload", "fairness", "priority", "tokens", "waited", "deadline_in"}
	for _, q := range p.engine.Queued(most) {
		left := "never"
		if q.Left != limit.Never {
			left = q.Left.String()
		}
		rows = append(rows, []string{
			q.Spec.Policy, q.Spec.Component, q.Key, q.Workload, q.Fairness, number(q.Priority), number(q.Tokens), q.Waited.String(), left,
		})
	}
	return header, rows, nil
}

func (p *parts) dumpLimiters(*http.Request, int) (header []string, rows [][]string, err error) {
	header = []string{"policy", "limiter", "kind", "control_points", "admitted", "denied", "waiting", "in_flight", "capacity", "fill_per_second", "accounts", "errors"}
	for _, l := range p.engine.Overview(0).Limiters {
		rows = append(rows, []string{
			l.Spec.Policy, l.Spec.Component, l.Spec.Kind.String(), strings.Join(l.Spec.ControlPoints(), " "),
			count(l.Admitted), count(l.Denied), strconv.Itoa(l.Waiting), number(l.InFlight), number(l.Spec.Capacity()),
			number(l.Spec.FillPerSecond()), strconv.FormatInt(l.Accounts, 10), count(l.Failed),
		})
	}
	return header, rows, nil
}

func (p *parts) dumpWorkloads(*http.Request, int) (header []string, rows [][]string, err error) {
	header = []string{"policy", "limiter", "workload", "priority", "waiting", "waiting_tokens", "admitted", "denied", "mean_wait", "max_wait"}
	for _, l := range p.engine.Overview(0).Limiters {
		for _, w := range l.Workloads {
			mean := time.Duration(0)
			if w.Admitted > 0 {
				mean = w.WaitTotal / time.Duration(w.Admitted)
			}
			rows = append(rows, []string{
				l.Spec.Policy, l.Spec.Component, w.Name, number(w.Priority), strconv.FormatInt(w.Waiting, 10),
				number(w.WaitingTokens), count(w.Admitted), count(w.Denied), mean.Round(time.Microsecond).String(), w.WaitMax.String(),
			})
		}
	}
	return header, rows, nil
}

func (p *parts) dumpAccounts(_ *http.Request, most int) (header []string, rows [][]string, err error) {
	header = []string{"policy", "limiter", "kind", "account", "used", "limit", "waiting"}
	for _, a := range p.engine.Overview(most).Accounts {
		rows = append(rows, []string{
			a.Spec.Policy, a.Spec.Component, a.Spec.Kind.String(), a.Account, number(a.Used), number(a.Limit), strconv.Itoa(a.Waiting),
		})
	}
	return header, rows, nil
}

func (p *parts) dumpPolicies(r *http.Request, most int) (header []string, rows [][]string, err error) {
	header = []string{"policy", "version", "hash", "blueprint", "source", "author", "created", "components"}
	got, err := p.catalog.List(r.Context(), document.PageRequest{Size: min(most, document.MaxPageSize)})
	if err != nil {
		return nil, nil, err
	}
	for _, v := range got.Versions {
		var components []string
		for _, c := range v.Components {
			components = append(components, c.ID+" "+c.Kind+": "+c.Status)
		}
		rows = append(rows, []string{
			v.Name, strconv.FormatInt(v.Version, 10), v.Hash, v.Blueprint, string(v.Source), v.Author,
			v.CreateTime.Format(time.RFC3339), strings.Join(components, "; "),
		})
	}
	return header, rows, nil
}

func (p *parts) dumpPolicyDir(*http.Request, int) (header []string, rows [][]string, err error) {
	header = []string{"file", "line", "column", "path", "message"}
	if p.watch == nil {
		return header, nil, nil
	}
	for _, problem := range p.watch.Problems() {
		rows = append(rows, []string{
			problem.File, strconv.Itoa(problem.Line), strconv.Itoa(problem.Column), problem.Path, problem.Message,
		})
	}
	return header, rows, nil
}

func count(n uint64) string { return strconv.FormatUint(n, 10) }

func number(f float64) string { return strconv.FormatFloat(f, 'g', 6, 64) }

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the client has gone
}

func page(w http.ResponseWriter, t *template.Template, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	_ = t.Execute(w, data) // the client has gone
}

const style = `<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem; color: #1c2530; background: #fff }
table { border-collapse: collapse } th, td { text-align: left; padding: .15rem .8rem .15rem 0; border-bottom: 1px solid #d5dce3; vertical-align: top }
td { font-family: ui-monospace, monospace; font-size: 12px } a { color: #0b62a4 }
@media (prefers-color-scheme: dark) { body { color: #dde5ec; background: #12181f } a { color: #6db3ea } th, td { border-color: #333f4a } }
</style>`

var indexTemplate = template.Must(template.New("index").Parse(style + `<title>Sluice: debug</title>
<h1>Sluice</h1><p>{{.Version}}, up {{.Uptime}}</p>
<ul>{{range .Dumps}}<li><a href="/debug/{{.Name}}">{{.Title}}</a> (<a href="/debug/{{.Name}}?format=json">JSON</a>){{end}}
<li><a href="/debug/build">Build</a><li><a href="/debug/config">Configuration, without secrets</a>
<li><a href="/debug/pprof/">Profiles</a> (<a href="/debug/pprof/goroutine?debug=1">goroutines</a>, <a href="/debug/pprof/heap?debug=1">heap</a>)
<li><a href="/metrics">Metrics</a></ul>`))

var tableTemplate = template.Must(template.New("table").Parse(style + `<title>Sluice: {{.Title}}</title>
<p><a href="/debug/">debug</a></p><h1>{{.Title}}</h1>
{{if .Rows}}<table><tr>{{range .Header}}<th>{{.}}{{end}}{{range .Rows}}<tr>{{range $i, $cell := .}}<td>
{{- if and $cell (eq (index $.Header $i) "policy")}}<a href="/debug/circuits?policy={{$cell}}">{{$cell}}</a>{{else}}{{$cell}}{{end}}{{end}}{{end}}</table>
<p>At most {{.Limit}} rows; ask for more with ?limit=n.</p>{{else}}<p>None.</p>{{end}}`))
