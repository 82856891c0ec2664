// SPDX-License-Identifier: Apache-2.0

package dashboard

import "github.com/sluice-project/sluice/internal/policy"

// signals shows any signal of the circuit, chosen by variables.
func signals(doc *policy.Document, o Options) *Dashboard {
	d := newDashboard(doc, o, "signals", "Signals Dashboard")
	d.model.Description = "The signals of the policy's circuit. A signal without a number is invalid: the second panel tells how often."
	of := label("policy_name", doc.Name)
	d.model.Templating.List = append(d.model.Templating.List,
		labelValues("sub_circuit_id", "Circuit", of),
		labelValues("signal_name", "Signal", of+`,sub_circuit_id=~"$sub_circuit_id"`))
	chosen := []string{of, `sub_circuit_id=~"$sub_circuit_id"`, `signal_name=~"$signal_name"`}
	const by, legend = "sub_circuit_id, signal_name", "{{sub_circuit_id}} {{signal_name}}"
	d.add(24, 12, chart{
		title: "Signal Average", help: "Mean of the valid and finite readings.", step: true,
		series: []series{{legend, mean(by, "signal_reading", chosen...)}},
	})
	d.add(24, 10, chart{
		title: "Signal Validity (Frequency)", help: "Readings per second: valid, invalid and infinite.", min: ptr(0), stack: true,
		series: []series{
			{legend + " valid", rate(by, "signal_reading_count", chosen...)},
			{legend + " invalid", rate(by, "invalid_signal_readings_total", chosen...)},
			{legend + " infinite", rate(by, "infinite_signal_readings_total", chosen...)},
		},
	})
	d.row("Circuit")
	d.add(12, 8, chart{
		title: "Ticks", help: "Ticks per second, and ticks left out because those before took too long.", min: ptr(0),
		series: []series{{"ticks", rate("", "sluice_circuit_ticks_total", of)}, {"skipped", rate("", "sluice_circuit_skipped_ticks_total", of)}},
	})
	d.add(12, 8, chart{
		title: "Tick duration", unit: "s", min: ptr(0),
		series: []series{
			{"mean", mean("", "sluice_circuit_tick_duration_seconds", of)},
			{"slowest", "max(sluice_circuit_slowest_tick_seconds" + selector(of) + ")"},
		},
	})
	return d
}

// labelValues is a variable with the values of a label of signals. Signals that were never valid have only
// the other series.
func labelValues(name, text, matchers string) variable {
	query := `label_values({__name__=~"signal_reading_count|invalid_signal_readings_total|infinite_signal_readings_total",` + matchers + `}, ` + name + `)`
	return variable{
		Type: "query", Name: name, Label: text, Datasource: source, Definition: query, Refresh: refreshOnTime,
		Query: map[string]any{"query": query, "refId": "StandardVariableQuery"},
		Multi: true, IncludeAll: true, Sort: 1, Current: &option{Selected: true, Text: "All", Value: "$__all"},
	}
}

// refreshOnTime reads the values of a variable anew when the time range changes.
const refreshOnTime = 2
