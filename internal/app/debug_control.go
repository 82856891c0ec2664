// SPDX-License-Identifier: Apache-2.0

package app

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-project/sluice/internal/alert"
	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/control"
)

// dumpCircuits lists circuits; with ?policy=NAME the components of one, with what they read and produce now.
func (p *parts) dumpCircuits(r *http.Request, most int) (header []string, rows [][]string, err error) {
	if policy := r.URL.Query().Get("policy"); policy != "" {
		return p.dumpCircuit(policy, most)
	}
	header = []string{"policy", "interval", "ticks", "skipped", "last_tick", "took", "slowest", "components", "not_running", "state"}
	for _, name := range p.runtime.Policies() {
		st, err := p.runtime.Status(name)
		if err != nil || len(rows) >= most {
			continue // gone since
		}
		wrong := 0
		for i := range st.Components {
			if st.Components[i].Status != control.Running {
				wrong++
			}
		}
		state := control.Running
		if st.Stopped != "" {
			state = st.Stopped
		}
		rows = append(rows, []string{
			name, st.Interval.String(), strconv.FormatUint(st.Ticks, 10), strconv.FormatUint(st.Skipped, 10), stamp(st.LastTick),
			st.LastDuration.String(), st.SlowestDuration.String(), strconv.Itoa(len(st.Components)), strconv.Itoa(wrong), state,
		})
	}
	return header, rows, nil
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func (p *parts) dumpCircuit(policy string, most int) (header []string, rows [][]string, err error) {
	st, err := p.runtime.Status(policy)
	if err != nil {
		return nil, nil, err
	}
	signals, frames, err := p.runtime.History(policy, 1)
	if err != nil {
		return nil, nil, err
	}
	values := map[circuit.Signal]float64{}
	for i, s := range signals {
		if len(frames) > 0 {
			values[s] = frames[0].Values[i]
		}
	}
	header = []string{"component", "kind", "description", "reads", "produces", "status"}
	for i := range st.Components {
		if len(rows) >= most {
			break
		}
		c := &st.Components[i]
		rows = append(rows, []string{c.ID, c.Kind, c.Description, wires(c.In, values), wires(c.Out, values), c.Status})
	}
	return header, rows, nil
}

// wires prints ports and what is on them.
func wires(ports []control.PortView, values map[circuit.Signal]float64) string {
	var out []string
	for _, port := range ports {
		switch {
		case port.Signal != "":
			s := circuit.Signal{Circuit: port.Circuit, Name: port.Signal}
			text := fmt.Sprintf("%s ← %s", port.Name, control.SignalName(s))
			if v, ok := values[s]; ok {
				text += " = " + reading(v)
			}
			out = append(out, text)
		case port.Constant != nil:
			out = append(out, fmt.Sprintf("%s = %s", port.Name, reading(*port.Constant)))
		}
	}
	return strings.Join(out, ", ")
}

func reading(v float64) string {
	if !circuit.Valid(v) {
		return "invalid"
	}
	return number(v)
}

func (p *parts) dumpAlerts(_ *http.Request, most int) (header []string, rows [][]string, err error) {
	header = []string{"id", "state", "severity", "name", "policy", "component", "start", "end", "delivery_error"}
	page := alert.Page{}
	for len(rows) < most {
		if page, err = p.alerts.List(alert.Filter{Size: alert.MaxPageSize, Token: page.Next}); err != nil {
			return nil, nil, err
		}
		for i := range page.Alerts {
			a := &page.Alerts[i]
			rows = append(rows, []string{
				strconv.FormatInt(a.ID, 10), string(a.State), a.Severity, a.Name, a.Policy, a.Component, stamp(a.Start), stamp(a.End), a.DeliveryError,
			})
		}
		if page.Next == "" {
			break
		}
	}
	return header, rows[:min(len(rows), most)], nil
}

func (p *parts) dumpTargets(*http.Request, int) (header []string, rows [][]string, err error) {
	header = []string{"job", "url", "health", "last_scrape", "error"}
	for _, t := range p.signals.Targets() {
		rows = append(rows, []string{t.Pool, t.URL, t.Health, stamp(t.LastScrape), t.LastErr})
	}
	return header, rows, nil
}
