// SPDX-License-Identifier: Apache-2.0

package script

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/control"
	"github.com/sluice-project/sluice/internal/setpoint"
)

// Result is how one case went.
type Result struct {
	// Case is its name, and Line where it begins in the script.
	Case string
	Line int
	// Ticks that were run.
	Ticks int
	// Elapsed is how long that took.
	Elapsed time.Duration
	// Failures, at most maxFailures; none: the case passed.
	Failures []Failure
	// Table has the readings of all ticks: those that the case names or, when asked for, all of the outermost
	// circuit.
	Table Table
}

// Passed reports whether everything was as expected.
func (r *Result) Passed() bool { return len(r.Failures) == 0 }

// Failure is one expectation that did not hold. An expectation over several ticks fails once, at the first
// of them.
type Failure struct {
	// Line and Column of the expectation in the script.
	Line, Column int
	// Tick at which it did not hold.
	Tick int
	// Subject is what was looked at, such as a signal.
	Subject string
	// Got is what it was, and Want what was expected.
	Got, Want string
}

// String is the failure on one line.
func (f *Failure) String() string {
	return fmt.Sprintf("tick %d: %s: got %s, want %s", f.Tick, f.Subject, f.Got, f.Want)
}

// maxFailures bounds what is reported of one case: the first ones say what went wrong.
const maxFailures = 20

// Options say how to run.
type Options struct {
	// Match picks cases by name; nil: all.
	Match func(name string) bool
	// All records all signals of the outermost circuit.
	All bool
}

// Run runs the cases, in their order.
func (s *Script) Run(o Options) []Result {
	var out []Result
	for _, c := range s.cases {
		if o.Match == nil || o.Match(c.name) {
			out = append(out, s.run(c, o))
		}
	}
	return out
}

// execution is a case while it runs.
type execution struct {
	*plannedCase

	runner  *control.Runner
	now     time.Time
	tick    int
	levels  map[circuit.Signal]setLevel
	firing  map[string]time.Time // alert → until when, unless it is raised again
	failed  map[string]bool      // expectations, by subject and place
	result  Result
	indices []int // of the columns of the table
}

// setLevel is a level and when it was set.
type setLevel struct {
	level

	since int
}

func (s *Script) run(c *plannedCase, o Options) Result {
	began := time.Now()
	e := &execution{
		plannedCase: c, runner: control.NewRunner(s.program), levels: map[circuit.Signal]setLevel{},
		firing: map[string]time.Time{}, failed: map[string]bool{},
		result: Result{Case: c.name, Line: c.line},
	}
	e.columnsOf(s.program, o.All)
	e.configure(c.config, c.line, 1)
	for e.tick = range c.ticks {
		e.now = start.Add(time.Duration(e.tick) * s.program.Interval)
		e.prepare()
		e.runner.Tick(e.now)
		e.record()
		e.check()
	}
	e.result.Ticks, e.result.Elapsed = c.ticks, time.Since(began)
	return e.result
}

func (e *execution) columnsOf(p *control.Program, all bool) {
	columns := slices.Clone(e.columns)
	if all {
		for _, s := range p.Signals() {
			if s.Circuit == circuit.Root && !slices.Contains(columns, s) {
				columns = append(columns, s)
			}
		}
	}
	for _, s := range columns {
		e.result.Table.Signals = append(e.result.Table.Signals, control.SignalName(s))
		e.indices = append(e.indices, slices.Index(p.Signals(), s))
	}
}

// configure replaces the dynamic configuration, which was checked when the script was read.
func (e *execution) configure(config map[string]any, line, column int) {
	if config == nil {
		return
	}
	if err := e.runner.Configure(config); err != nil {
		e.fail(Failure{Line: line, Column: column, Subject: "config", Got: err.Error(), Want: "what the policy reads"})
	}
}

// prepare sets what the steps of this tick set, and moves what is a list or a ramp.
func (e *execution) prepare() {
	for i := range e.steps {
		s := &e.steps[i]
		if s.At.first != e.tick {
			continue
		}
		e.configure(s.step.Config, s.line, s.column)
		for _, v := range s.set {
			if v.value.auto {
				delete(e.levels, v.signal)
				// A signal that was looked up exists.
				_ = e.runner.Unset(control.SignalName(v.signal))
				continue
			}
			e.levels[v.signal] = setLevel{v.value, e.tick}
		}
	}
	for signal, l := range e.levels {
		e.runner.Force(signal, l.at(e.tick-l.since))
	}
}

func (e *execution) record() {
	values := e.runner.Values()
	row := make([]float64, len(e.indices))
	for i, index := range e.indices {
		row[i] = values[index]
	}
	e.result.Table.Rows = append(e.result.Table.Rows, row)
	for _, a := range e.runner.Alerts() {
		e.firing[a.Name] = e.now.Add(a.ResolveTimeout)
	}
	for name, until := range e.firing {
		if e.now.After(until) {
			delete(e.firing, name)
		}
	}
}

func (e *execution) check() {
	for i := range e.steps {
		s := &e.steps[i]
		if e.tick < s.At.first || e.tick > s.At.last {
			continue
		}
		for _, want := range s.expect {
			name := control.SignalName(want.signal)
			if v, _ := e.runner.Value(name); !want.value.holds(v) {
				e.fail(want.value.failure(name, v))
			}
		}
		if s.Alerts != nil {
			e.checkAlerts(s)
		}
		for _, c := range s.setpoints {
			e.checkSetpoint(s, c)
		}
	}
}

func (e *expectation) failure(subject string, got float64) Failure {
	return Failure{Line: e.line, Column: e.column, Subject: subject, Got: number(got), Want: e.text}
}

func (e *execution) checkAlerts(s *plannedStep) {
	var got []string
	for name := range e.firing {
		got = append(got, name)
	}
	want := slices.Clone(*s.Alerts)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, slices.Compact(want)) {
		e.fail(Failure{Line: s.At.line, Column: s.At.column, Subject: "alerts", Got: list(got), Want: list(want)})
	}
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = fmt.Sprintf("%q", n)
	}
	return strings.Join(quoted, ", ")
}

func (e *execution) checkSetpoint(s *plannedStep, c component) {
	got, ok := e.runner.Setpoint(c.id)
	if !ok {
		e.fail(Failure{Line: s.At.line, Column: s.At.column, Subject: "setpoint of " + c.id, Got: "none", Want: "one"})
		return
	}
	if w := c.wanted.PassThrough; w != nil && *w != got.PassThrough {
		e.fail(Failure{
			Line: s.At.line, Column: s.At.column, Subject: c.id + " pass_through",
			Got: fmt.Sprint(got.PassThrough), Want: fmt.Sprint(*w),
		})
	}
	if w := c.wanted.PassThroughValues; w != nil && !slices.Equal(*w, got.PassThroughValues) {
		e.fail(Failure{
			Line: s.At.line, Column: s.At.column, Subject: c.id + " pass_through_values", Got: list(got.PassThroughValues), Want: list(*w),
		})
	}
	for _, n := range c.wanted.numbers(&got) {
		if n.want == nil {
			continue
		}
		if f := n.want.failure(c.id+" "+n.name, n.got); got.PassThrough {
			f.Got = "everything passes"
			e.fail(f)
		} else if !n.want.holds(n.got) {
			e.fail(f)
		}
	}
}

// setpointNumber is one number of a setpoint.
type setpointNumber struct {
	name string
	want *expectation
	got  float64
}

func (w *wantedSetpoint) numbers(got *setpoint.Setpoint) []setpointNumber {
	return []setpointNumber{
		{"bucket_capacity", w.BucketCapacity, got.BucketCapacity},
		{"fill_amount", w.FillAmount, got.FillAmount},
		{"max_concurrency", w.MaxConcurrency, got.MaxConcurrency},
		{"load_multiplier", w.LoadMultiplier, got.LoadMultiplier},
		{"accept_percentage", w.AcceptPercentage, got.AcceptPercentage},
	}
}

// fail notes a failure, unless the same expectation failed before or there are too many.
func (e *execution) fail(f Failure) {
	id := fmt.Sprintf("%d:%d:%s", f.Line, f.Column, f.Subject)
	if e.failed[id] || len(e.result.Failures) >= maxFailures {
		return
	}
	e.failed[id] = true
	f.Tick = e.tick
	e.result.Failures = append(e.result.Failures, f)
}
