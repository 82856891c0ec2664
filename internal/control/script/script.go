// SPDX-License-Identifier: Apache-2.0

// Package script reads and runs tests that users write for their policies: what comes in at which tick, and
// what signals, alerts and setpoints have to be then. A policy is run by the same code as in the server,
// without one, and without waiting: ticks follow each other at once.
//
// The types with json tags are the format; docs/guides/policy-tests.md explains it.
package script

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/control"
	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/blueprint"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// maxTicks bounds a case: a day at one tick per second is more than a test needs.
const maxTicks = 100_000

// file is a script as it is written.
type file struct {
	// File with the policy, or with the values of a blueprint, relative to the script.
	Policy string `json:"policy,omitempty" union:"policy,required" check:"nonempty"`
	// The policy, or the values of a blueprint, itself.
	Document map[string]any `json:"document,omitempty" union:"policy" check:"nonempty"`
	// Blueprint, for values that do not name one.
	Blueprint string `json:"blueprint,omitempty"`
	// Evaluation interval to test with, instead of that of the policy.
	Interval *policy.Duration `json:"interval,omitempty" check:"gte=100ms,lte=1h"`
	// The tests.
	Cases []testCase `json:"cases" check:"required"`
}

// testCase is one test. Each begins with a circuit that has not ticked yet.
type testCase struct {
	// What is tested; unique in the file.
	Name string `json:"name" check:"required"`
	// Dynamic configuration from the first tick on.
	Config map[string]any `json:"config,omitempty"`
	// How many ticks to run. Absent: up to the last one that a step names.
	Ticks int32 `json:"ticks,omitempty" check:"gte=1,lte=100000"`
	// What comes in, and what has to come out.
	Steps []step `json:"steps" check:"required"`
}

// step is what happens at a tick, or during several.
type step struct {
	// The tick, from 0, or a range such as 5..9, ends included.
	At ticks `json:"at" check:"required"`
	// Signals to set before the tick, by name; they stay so until they are set again.
	Set map[string]level `json:"set,omitempty"`
	// Dynamic configuration from this tick on, instead of what was before.
	Config map[string]any `json:"config,omitempty"`
	// What signals have to be after each of the ticks, by name.
	Expect map[string]expectation `json:"expect,omitempty"`
	// Names of the alerts that fire after each of the ticks: these and no others.
	Alerts *[]string `json:"alerts,omitempty"`
	// What actuators are asked for after each of the ticks, by component id or, where it is the only one, by kind.
	Setpoints map[string]wantedSetpoint `json:"setpoints,omitempty"`
}

// wantedSetpoint is what an actuator is asked for. What is absent is not looked at.
type wantedSetpoint struct {
	// Everything passes.
	PassThrough *bool `json:"pass_through,omitempty"`
	// Tokens of a full bucket, of rate limiters and quota schedulers.
	BucketCapacity *expectation `json:"bucket_capacity,omitempty"`
	// Tokens per interval, of rate limiters and quota schedulers.
	FillAmount *expectation `json:"fill_amount,omitempty"`
	// Slots, of concurrency limiters and schedulers.
	MaxConcurrency *expectation `json:"max_concurrency,omitempty"`
	// Admitted load relative to arriving load, of load schedulers.
	LoadMultiplier *expectation `json:"load_multiplier,omitempty"`
	// Percentage of flows, of samplers and load ramps.
	AcceptPercentage *expectation `json:"accept_percentage,omitempty"`
	// Values of the session label that always pass, of samplers and load ramps.
	PassThroughValues *[]string `json:"pass_through_values,omitempty"`
}

var _ strict.Checker = (*wantedSetpoint)(nil)

// Check refuses an expectation of nothing.
func (w *wantedSetpoint) Check(at strict.Place) {
	if at.Clean() && *w == (wantedSetpoint{}) {
		at.Refuse(fielderr.Error{Message: "nothing is expected", Want: "for example {load_multiplier: 0.8}"})
	}
}

// Script is a script that has been read and checked. It may be run any number of times, also concurrently.
type Script struct {
	// File as the user named it.
	File string
	// Policy is the name of the policy under test.
	Policy string

	program *control.Program
	cases   []*plannedCase
}

// plannedCase is a case with everything looked up.
type plannedCase struct {
	name    string
	line    int
	ticks   int
	config  map[string]any
	steps   []plannedStep
	columns []circuit.Signal // that the case names, in order
}

type plannedStep struct {
	step

	line, column int // of at, for alerts
	set          []named[level]
	expect       []named[expectation]
	setpoints    []component
}

// named is a signal and what goes with it.
type named[T any] struct {
	signal circuit.Signal
	value  T
}

type component struct {
	id     string
	wanted wantedSetpoint
}

// Load reads a script. read reads the files that it names, relative to the script, whose path is name. The
// error is a fielderr.List with every mistake in the script, or in its policy.
func Load(name string, text []byte, read func(path string) ([]byte, error)) (*Script, error) {
	doc, err := strict.Parse(name, text)
	if err != nil {
		return nil, err
	}
	var f file
	doc.Decode("", doc.Root, &f)
	program := f.compile(doc, name, read)
	s := &Script{File: name, program: program}
	if program != nil {
		s.Policy = program.Policy
		p := planner{doc: doc, program: program}
		for i := range f.Cases {
			s.cases = append(s.cases, p.plan(fielderr.Path("cases").Index(i), &f.Cases[i]))
		}
	}
	refused, _ := doc.Problems()
	if err := refused.Err(); err != nil {
		return nil, err
	}
	return s, nil
}

// compile reads and compiles the policy; nil when that failed, which is reported.
func (f *file) compile(doc *strict.Document, name string, read func(string) ([]byte, error)) *control.Program {
	src := policy.Source{Blueprint: f.Blueprint}
	at := doc.At("policy")
	switch {
	case f.Policy != "":
		src.File = f.Policy
		if !filepath.IsAbs(f.Policy) {
			src.File = filepath.Join(filepath.Dir(name), f.Policy)
		}
		text, err := read(src.File)
		if err != nil {
			at.Refuse(fielderr.Error{Message: "cannot read the policy: " + err.Error(), Hint: "the path is relative to this script"})
			return nil
		}
		src.Text = text
	case len(f.Document) > 0:
		at = doc.At("document")
		text, err := doc.Root.Get("document").MarshalJSON()
		if err != nil {
			at.Refuse(fielderr.Error{Message: err.Error()})
			return nil
		}
		src.Text = text
		if _, named := f.Document["policy_name"]; !named && f.Document["metadata"] == nil && f.Document["policy"] == nil {
			src.Name = "inline"
		}
	default:
		return nil // reported as missing
	}
	parsed, err := blueprint.Parse(src)
	if err != nil {
		reportPolicy(at, src.File, err)
		return nil
	}
	if f.Interval != nil {
		parsed.Policy.Circuit.EvaluationInterval = *f.Interval
	}
	program, err := control.Compile(parsed)
	if err != nil {
		reportPolicy(at, src.File, err)
		return nil
	}
	return program
}

// reportPolicy reports the mistakes of a policy where the script names it.
func reportPolicy(at strict.Place, file string, err error) {
	var list fielderr.List
	if !errors.As(err, &list) {
		at.Refuse(fielderr.Error{Message: err.Error()})
		return
	}
	for _, e := range list {
		where := e.Path
		if file != "" {
			where = fmt.Sprintf("%s:%d:%d: %s", file, e.Line, e.Column, e.Path)
		}
		at.Refuse(fielderr.Error{Message: where + ": " + e.Text()})
	}
}

// planner looks up what a case names.
type planner struct {
	doc     *strict.Document
	program *control.Program
	names   []string // of cases
}

func (p *planner) plan(path fielderr.Path, c *testCase) *plannedCase {
	at := p.doc.At(path)
	if slices.Contains(p.names, c.Name) {
		at.Field("name").Refuse(fielderr.Error{Want: "a name that no other case has"})
	}
	p.names = append(p.names, c.Name)
	out := &plannedCase{name: c.Name, line: lineOf(p.doc, path), ticks: int(c.Ticks), config: c.Config}
	p.checkConfig(at.Field("config"), c.Config)
	last := 0
	for i := range c.Steps {
		stepPath := path.Field("steps").Index(i)
		ps := p.planStep(stepPath, &c.Steps[i], out)
		out.steps = append(out.steps, ps)
		last = max(last, ps.At.last+1, p.lastLevel(&ps))
		if c.Ticks > 0 && ps.At.last >= int(c.Ticks) {
			p.doc.At(stepPath).Field("at").Refuse(fielderr.Error{
				Got: ps.At.String(), Want: fmt.Sprintf("a tick below %d, which is ticks", c.Ticks),
			})
		}
	}
	if out.ticks == 0 {
		out.ticks = last
	}
	if last > maxTicks {
		at.Refuse(fielderr.Error{Message: fmt.Sprintf("the case has %d ticks", last), Want: fmt.Sprintf("at most %d", maxTicks)})
		out.ticks = maxTicks
	}
	return out
}

// lastLevel is how many ticks it takes until everything a step sets has got where it goes, as long as the
// step expects something.
func (p *planner) lastLevel(s *plannedStep) int {
	last := 0
	for _, v := range s.set {
		last = max(last, s.At.first+len(v.value.values))
	}
	return last
}

func (p *planner) planStep(path fielderr.Path, s *step, c *plannedCase) plannedStep {
	at := p.doc.At(path)
	out := plannedStep{step: *s, line: lineOf(p.doc, path), column: 1}
	p.checkConfig(at.Field("config"), s.Config)
	for _, name := range slices.Sorted(maps.Keys(s.Set)) {
		if signal, ok := p.lookup(at.Field("set").Field(name), name); ok {
			out.set = append(out.set, named[level]{signal, s.Set[name]})
			c.note(signal)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Expect)) {
		if signal, ok := p.lookup(at.Field("expect").Field(name), name); ok {
			out.expect = append(out.expect, named[expectation]{signal, s.Expect[name]})
			c.note(signal)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Setpoints)) {
		if id, ok := p.actuator(at.Field("setpoints").Field(name), name); ok {
			out.setpoints = append(out.setpoints, component{id, s.Setpoints[name]})
		}
	}
	if len(s.Set)+len(s.Expect)+len(s.Setpoints) == 0 && s.Alerts == nil && s.Config == nil && at.Clean() {
		at.Refuse(fielderr.Error{Message: "the step does nothing", Want: "set, config, expect, alerts or setpoints"})
	}
	return out
}

func (c *plannedCase) note(s circuit.Signal) {
	if !slices.Contains(c.columns, s) {
		c.columns = append(c.columns, s)
	}
}

// checkConfig tries dynamic configuration on a circuit.
func (p *planner) checkConfig(at strict.Place, config map[string]any) {
	if config == nil {
		return
	}
	if err := control.NewRunner(p.program).Configure(config); err != nil {
		var list fielderr.List
		if errors.As(err, &list) {
			for _, e := range list {
				at.Field(e.Path).Refuse(fielderr.Error{Message: e.Text()})
			}
			return
		}
		at.Refuse(fielderr.Error{Message: err.Error()})
	}
}

// lookup finds a signal by its name, by circuit/name, or by its name alone when only one circuit has it.
func (p *planner) lookup(at strict.Place, name string) (circuit.Signal, bool) {
	if s, ok := p.program.Lookup(name); ok {
		return s, true
	}
	var found []circuit.Signal
	var known []string
	for _, s := range p.program.Signals() {
		known = append(known, control.SignalName(s))
		if s.Name == name {
			found = append(found, s)
		}
	}
	if len(found) == 1 {
		return found[0], true
	}
	problem := fielderr.Error{Message: fmt.Sprintf("policy %q has no signal of this name", p.program.Policy), Hint: fielderr.OneOf(name, known)}
	if len(found) > 1 {
		var where []string
		for _, s := range found {
			where = append(where, control.SignalName(s))
		}
		problem = fielderr.Error{Message: "several circuits have a signal of this name", Want: "one of " + strings.Join(where, ", ")}
	}
	at.RefuseKey(problem)
	return circuit.Signal{}, false
}

// actuator finds a component that is asked for something, by its id or kind.
func (p *planner) actuator(at strict.Place, name string) (string, bool) {
	runner := control.NewRunner(p.program)
	kinds := map[string]string{}
	for _, c := range p.program.Components() {
		kinds[c.ID] = c.Kind
	}
	var found, known []string
	for _, sp := range runner.Setpoints() {
		id := sp.Component
		if id == name {
			return id, true
		}
		if kinds[id] == name {
			found = append(found, id)
		}
		known = append(known, id, kinds[id])
	}
	slices.Sort(known)
	known = slices.Compact(known)
	switch {
	case len(found) == 1:
		return found[0], true
	case len(found) > 1:
		at.RefuseKey(fielderr.Error{Message: "there are several of this kind", Want: "one of " + strings.Join(found, ", ")})
	case kinds[name] != "":
		at.RefuseKey(fielderr.Error{
			Message: fmt.Sprintf("the circuit asks %s %s for nothing", kinds[name], name), Hint: "its ports are constants, or it acts on nothing",
		})
	default:
		at.RefuseKey(fielderr.Error{Message: fmt.Sprintf("policy %q has no actuator of this id or kind", p.program.Policy), Hint: fielderr.OneOf(name, known)})
	}
	return "", false
}

// lineOf is the line on which a value of the document begins.
func lineOf(doc *strict.Document, path fielderr.Path) int {
	n := doc.Root
	for part := range strings.SplitSeq(strings.NewReplacer("[", ".", "]", "").Replace(path.String()), ".") {
		if i, err := strconv.Atoi(part); err == nil && n.Kind == strict.List && i < len(n.Items) {
			n = n.Items[i]
		} else if next := n.Get(part); next != nil {
			n = next
		}
	}
	return n.Line
}

// start is when the first tick of a case is: any time would do.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
