// SPDX-License-Identifier: Apache-2.0

package script

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// TestExamples: the examples for users hold.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../../examples/policy-tests/*_test.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Load(f, text, os.ReadFile)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range s.Run(Options{All: true}) {
			for _, failure := range r.Failures {
				t.Errorf("%s:%d:%d: %s: %s\n%s", f, failure.Line, failure.Column, r.Case, failure.String(), r.Table.Around(failure.Tick))
			}
		}
	}
}

// TestGuide: the scripts of the guide hold.
func TestGuide(t *testing.T) {
	text, err := os.ReadFile("../../../docs/guides/policy-tests.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, block := range regexp.MustCompile("(?s)<!-- file \\w+_test.yaml -->\n```yaml\n(.*?)```").FindAllSubmatch(text, -1) {
		s, err := Load("../../../guide_test.yaml", block[1], os.ReadFile)
		if err != nil {
			t.Errorf("%v\n%s", err, block[1])
			continue
		}
		for _, r := range s.Run(Options{}) {
			n++
			for _, f := range r.Failures {
				t.Errorf("%s: %s\n%s", r.Case, f.String(), r.Table.String())
			}
		}
	}
	if n < 4 {
		t.Errorf("got %d cases, want those of the guide", n)
	}
}

// limits is a policy with a signal of every kind: a query, a variable, an alert, and actuators.
const limits = `
  policy_name: limits
  circuit:
    components:
      - query: {promql: {query_string: "vector(1)", out_ports: {output: {signal_name: LOAD}}}}
      - variable: {constant_output: {value: 100}, config_key: most, out_ports: {output: {signal_name: MOST}}}
      - min: {in_ports: {inputs: [{signal_name: LOAD}, {signal_name: MOST}]}, out_ports: {output: {signal_name: LIMIT}}}
      - decider: {operator: gt, in_ports: {lhs: {signal_name: LOAD}, rhs: {signal_name: MOST}}, out_ports: {output: {signal_name: HIGH}}}
      - alerter: {in_ports: {signal: {signal_name: HIGH}}, parameters: {alert_name: too much, resolve_timeout: 3s}}
      - flow_control:
          concurrency_limiter:
            in_ports: {max_concurrency: {signal_name: LIMIT}}
            parameters: {max_inflight_duration: 10s}
            selectors: [{control_point: a}]
      - flow_control:
          sampler:
            in_ports: {accept_percentage: {signal_name: LIMIT}}
            parameters: {selectors: [{control_point: b}]}
            pass_through_label_values: [alice]
      - flow_control:
          rate_limiter:
            in_ports: {bucket_capacity: {signal_name: LIMIT}, fill_amount: {constant_signal: {value: 3}}}
            parameters: {interval: 1s}
            selectors: [{control_point: c}]
      - flow_control:
          rate_limiter:
            in_ports: {bucket_capacity: {constant_signal: {value: 3}}, fill_amount: {constant_signal: {value: 3}}}
            parameters: {interval: 1s}
            selectors: [{control_point: d}]
`

func load(t *testing.T, cases string) (*Script, error) {
	t.Helper()
	return Load("dir/x_test.yaml", []byte("document:"+limits+cases), func(string) ([]byte, error) { return nil, fs.ErrNotExist })
}

// TestPasses runs cases whose expectations hold.
func TestPasses(t *testing.T) {
	s, err := load(t, `
cases:
  - name: levels
    steps:
      - at: 0
        expect: {LOAD: invalid, LIMIT: invalid}
        alerts: []
        setpoints:
          concurrency_limiter: {pass_through: true}
          sampler: {pass_through: true}
      - at: 1
        set: {LOAD: [10, inf, invalid, -5]}
        expect: {LOAD: 10, LIMIT: 9..11, MOST: 100, HIGH: false}
        setpoints:
          concurrency_limiter: {max_concurrency: 10, pass_through: false}
          root.6: {accept_percentage: ~10, pass_through_values: [alice]}
          root.7: {bucket_capacity: "10 ~ 0", fill_amount: at least 3}
      - at: 2
        expect: {LOAD: inf, LIMIT: "100", HIGH: true}
        alerts: [too much]
      - at: 3
        expect: {LOAD: invalid, LIMIT: invalid}
        alerts: [too much]
      - at: 4..5
        expect: {LOAD: -5, LIMIT: below 0}
        alerts: [too much]
      - {at: 6, alerts: []}
  - name: ramp
    steps:
      - at: 2
        set: {LOAD: {ramp: {from: 0, to: 10, over: 4}}}
        expect: {LOAD: 0}
      - {at: 4, expect: {LOAD: 5}}
      - {at: 6..8, expect: {LOAD: 10}}
  - name: computed signals are replaced for a while
    config: {most: 7}
    steps:
      - {at: 0, set: {LOAD: 20, LIMIT: 3}, expect: {LIMIT: 3, MOST: 7, HIGH: true}}
      - {at: 1, set: {LIMIT: auto}, expect: {LIMIT: 7}}
      - {at: 2, config: {most: 50}, expect: {LIMIT: 20, HIGH: false}}
      - {at: 3, set: {LOAD: auto}, expect: {LOAD: invalid}}
  - name: more ticks than steps
    ticks: 500
    steps: [{at: 0, set: {LOAD: 1}}]
`)
	if err != nil {
		t.Fatal(err)
	}
	results := s.Run(Options{})
	for _, r := range results {
		for _, f := range r.Failures {
			t.Errorf("%s:%d:%d: %s\n%s", r.Case, f.Line, f.Column, f.String(), r.Table.String())
		}
	}
	if len(results) != 4 || results[1].Ticks != 9 || results[3].Ticks != 500 || results[0].Line != 32 {
		t.Errorf("got %d results: %d and %d ticks, line %d", len(results), results[1].Ticks, results[3].Ticks, results[0].Line)
	}
}

// TestFails: every kind of expectation can fail, at its place, and says what was.
func TestFails(t *testing.T) {
	for _, tt := range []struct{ step, want string }{
		{`{at: 1..5, set: {LOAD: [1, 2, 3]}, expect: {LOAD: at most 2}}`, "32:57: tick 3: LOAD: got 3, want at most 2"},
		{`{at: 0, expect: {LOAD: valid}}`, "32:30: tick 0: LOAD: got invalid, want valid"},
		{`{at: 0, expect: {MOST: invalid}}`, "32:30: tick 0: MOST: got 100, want invalid"},
		{`{at: 0, expect: {LOAD: 1}}`, "32:30: tick 0: LOAD: got invalid, want 1"},
		{`{at: 0, set: {LOAD: inf}, expect: {LOAD: 1..9}}`, "32:48: tick 0: LOAD: got inf, want 1..9"},
		{`{at: 0, set: {LOAD: 101}, alerts: []}`, `32:12: tick 0: alerts: got "too much", want none`},
		{`{at: 0, alerts: [too much, other]}`, `32:12: tick 0: alerts: got none, want "other", "too much"`},
		{`{at: 0, setpoints: {concurrency_limiter: {pass_through: false}}}`, "32:12: tick 0: root.5 pass_through: got true, want false"},
		{`{at: 0, setpoints: {concurrency_limiter: {max_concurrency: 5}}}`, "32:66: tick 0: root.5 max_concurrency: got everything passes, want 5"},
		{`{at: 0, set: {LIMIT: 4}, setpoints: {root.7: {bucket_capacity: above 4}}}`, "32:70: tick 0: root.7 bucket_capacity: got 4, want above 4"},
		{`{at: 0, setpoints: {sampler: {pass_through_values: [bob]}}}`, `32:12: tick 0: root.6 pass_through_values: got "alice", want "bob"`},
	} {
		s, err := load(t, "\ncases: [{name: x, steps: [\n      "+tt.step+"]}]\n")
		if err != nil {
			t.Errorf("%s: %v", tt.step, err)
			continue
		}
		r := s.Run(Options{})[0]
		if len(r.Failures) != 1 {
			t.Errorf("%s: got %v, want one failure", tt.step, r.Failures)
			continue
		}
		f := r.Failures[0]
		if got := fmt.Sprintf("%d:%d: %s", f.Line, f.Column, f.String()); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.step, got, tt.want)
		}
	}
}

// TestRefused: mistakes in scripts are found before anything runs, each at its place.
func TestRefused(t *testing.T) {
	for _, tt := range []struct{ cases, want string }{
		{`[]`, "cases: got an empty list, want at least one item"},
		{`[{name: a}]`, "cases[0].steps: missing"},
		{`[{name: a, steps: [{at: 0}]}]`, "cases[0].steps[0]: the step does nothing"},
		{`[{name: a, steps: [{at: -1, alerts: []}]}]`, "cases[0].steps[0].at: got number -1, want a tick such as 5"},
		{`[{name: a, steps: [{at: 9..5, alerts: []}]}]`, "want a range whose end is not before its beginning"},
		{`[{name: a, steps: [{at: 1e9, alerts: []}]}]`, `cases[0].steps[0].at: got text "1e9"`},
		{`[{name: a, steps: [{at: 100000, alerts: []}]}]`, "want a tick below 100000"},
		{`[{name: a, ticks: 5, steps: [{at: 5, alerts: []}]}]`, "cases[0].steps[0].at: got 5, want a tick below 5"},
		{`[{name: a, steps: [{at: 99999, set: {LOAD: [1, 2, 3]}}]}]`, "the case has 100002 ticks"},
		{`[{name: a, steps: [{at: 0, expect: {LAOD: 1}}]}]`, `has no signal of this name; did you mean "LOAD"?`},
		{`[{name: a, steps: [{at: 0, set: {LOAD: much}}]}]`, `cases[0].steps[0].set.LOAD: got text "much", want a number, invalid`},
		{`[{name: a, steps: [{at: 0, set: {LOAD: {ramp: {from: 1, to: 2}}}}]}]`, "want {ramp: {from: 0, to: 10, over: 5}}"},
		{`[{name: a, steps: [{at: 0, set: {LOAD: {ramp: {from: 1, to: 2, over: 0}}}}]}]`, "over is a number of ticks"},
		{`[{name: a, steps: [{at: 0, set: {LOAD: []}}]}]`, "want 1 to 100000 numbers"},
		{`[{name: a, steps: [{at: 0, expect: {LOAD: "1 ~ -2"}}]}]`, "cases[0].steps[0].expect.LOAD: got text"},
		{`[{name: a, steps: [{at: 0, expect: {LOAD: [1]}}]}]`, "cases[0].steps[0].expect.LOAD: got a list"},
		{`[{name: a, steps: [{at: 0, setpoints: {rate_limiter: {fill_amount: 1}}}]}]`, "the only"},
		{`[{name: a, steps: [{at: 0, setpoints: {root.8: {fill_amount: 1}}}]}]`, "asks rate_limiter root.8 for nothing"},
		{`[{name: a, steps: [{at: 0, setpoints: {smpler: {accept_percentage: 1}}}]}]`, `did you mean "sampler"?`},
		{`[{name: a, steps: [{at: 0, setpoints: {sampler: {}}}]}]`, "nothing is expected"},
		{`[{name: a, config: {most: true}, steps: [{at: 0, alerts: []}]}]`, "cases[0].config"},
		{`[{name: a, steps: [{at: 0, config: {mots: 1}}]}]`, `did you mean "most"?`},
		{`[{name: a, steps: [{at: 0, alerts: []}]}, {name: a, steps: [{at: 0, alerts: []}]}]`, "cases[1].name: got text \"a\", want a name that no other case has"},
	} {
		if tt.want == "the only" { // root.8 has constants only, so that root.7 is the only rate limiter the circuit moves
			if _, err := load(t, "\ncases: "+tt.cases); err != nil {
				t.Errorf("%s: %v", tt.cases, err)
			}
			continue
		}
		_, err := load(t, "\ncases: "+tt.cases)
		var list fielderr.List
		if !errors.As(err, &list) || !strings.Contains(err.Error(), tt.want) || list[0].Line == 0 {
			t.Errorf("%s:\n got %v\nwant %s", tt.cases, err, tt.want)
		}
	}
}

// TestPolicies: where the policy comes from, and what is wrong with it.
func TestPolicies(t *testing.T) {
	const cases = "\ncases: [{name: a, steps: [{at: 0, alerts: []}]}]\n"
	files := map[string]string{
		"dir/good.yaml":   "circuit: {components: [{variable: {constant_output: {value: 1}, out_ports: {output: {signal_name: A}}}}]}\n",
		"dir/bad.yaml":    "circuit:\n  components:\n    - variabel: {}\n",
		"dir/values.yaml": "policy:\n  policy_name: v\n  rate_limiter: {bucket_capacity: 1, fill_amount: 1, parameters: {interval: 1s}, selectors: [{control_point: a}]}\n",
	}
	read := func(path string) ([]byte, error) {
		if text, ok := files[path]; ok {
			return []byte(text), nil
		}
		return nil, fs.ErrNotExist
	}
	for _, tt := range []struct{ head, want string }{
		{"policy: good.yaml", "good"},
		{"policy: good.yaml\ninterval: 100ms", "good"},
		{"policy: values.yaml\nblueprint: rate-limiting/base", "v"},
		{"document: {circuit: {components: []}}", "inline"},
		{"document: {policy_name: own, circuit: {components: []}}", "own"},
		{"policy: values.yaml", "x_test.yaml:1:9: policy: "},
		{"policy: bad.yaml", `x_test.yaml:1:9: policy: dir/bad.yaml:3:7: circuit.components[0].variabel: unknown field; did you mean "variable"?`},
		{"policy: gone.yaml", "x_test.yaml:1:9: policy: cannot read the policy: file does not exist; the path is relative to this script"},
		{"document: {circuit: {componets: []}}", `document: circuit.componets: unknown field; did you mean "components"?`},
		{"policy: good.yaml\ninterval: 1ms", "interval: got text \"1ms\", want at least 100ms"},
		{"policy: good.yaml\ndocument: {circuit: {}}", "want only one of them"},
		{"blueprint: x", "want one of policy, document"},
	} {
		s, err := Load("dir/x_test.yaml", []byte(tt.head+cases), read)
		switch {
		case err == nil && s.Policy != tt.want:
			t.Errorf("%s: got policy %s, want %s", tt.head, s.Policy, tt.want)
		case err != nil && !strings.Contains(err.Error(), tt.want):
			t.Errorf("%s:\n got %v\nwant %s", tt.head, err, tt.want)
		}
	}
	s, err := Load("dir/x_test.yaml", []byte("policy: good.yaml\ninterval: 100ms"+cases), read)
	if err != nil || s.program.Interval.Milliseconds() != 100 {
		t.Errorf("the interval does not count: %v", err)
	}
}

func TestMatch(t *testing.T) {
	s, err := load(t, "\ncases: [{name: a, steps: [{at: 0, alerts: []}]}, {name: b, steps: [{at: 3, set: {LOAD: 1}}]}]\n")
	if err != nil {
		t.Fatal(err)
	}
	got := s.Run(Options{Match: func(name string) bool { return name == "b" }, All: true})
	if len(got) != 1 || got[0].Case != "b" || len(got[0].Table.Rows) != 4 || len(got[0].Table.Signals) != 4 {
		t.Errorf("got %+v", got)
	}
}

func TestManyFailures(t *testing.T) {
	var steps []string
	for i := range 100 {
		steps = append(steps, fmt.Sprintf("{at: %d, expect: {MOST: 1}}", i))
	}
	s, err := load(t, "\ncases: [{name: a, steps: ["+strings.Join(steps, ",\n")+"]}]\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := len(s.Run(Options{})[0].Failures); got != maxFailures {
		t.Errorf("got %d failures, want %d", got, maxFailures)
	}
}

func TestTable(t *testing.T) {
	table := Table{Signals: []string{"A", "long\x1b[2J"}, Rows: [][]float64{{1, 2}, {math.NaN(), 3}, {math.Inf(-1), 0.1 + 0.2}, {4, 5}}}
	const want = `  tick        A  long·[2J
     0        1         2
     1  invalid         3
>    2     -inf       0.3
     3        4         5
`
	if got := table.Around(2); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestExpectations: what an expectation says about a number does not depend on how it is written.
func TestExpectations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Float64Range(-1e6, 1e6).Draw(t, "v")
		w := rapid.Float64Range(-1e6, 1e6).Draw(t, "w")
		for text, want := range map[string]bool{
			fmt.Sprintf("%g", v):                        math.Abs(w-v) <= 1e-9*max(1, math.Abs(v)),
			fmt.Sprintf("above %g", v):                  w > v,
			fmt.Sprintf(">%g", v):                       w > v,
			fmt.Sprintf("at least %g", v):               w >= v,
			fmt.Sprintf(">= %g", v):                     w >= v,
			fmt.Sprintf("below %g", v):                  w < v,
			fmt.Sprintf("<%g", v):                       w < v,
			fmt.Sprintf("at most %g", v):                w <= v,
			fmt.Sprintf("<=%g", v):                      w <= v,
			fmt.Sprintf("%g..%g", min(v, w), max(v, w)): true,
			fmt.Sprintf("%g ~ %g", v, math.Abs(v-w)+1):  true,
			"valid":   true,
			"invalid": false,
			"inf":     false,
		} {
			var e expectation
			if problem := e.DecodeScalar(&strict.Node{Kind: strict.Text, Text: text}); problem != nil {
				t.Fatalf("%q: %v", text, problem)
			}
			if got := e.holds(w); got != want {
				t.Fatalf("%g is %q: got %v, want %v", w, text, got, want)
			}
			if e.holds(math.NaN()) != (text == "invalid") {
				t.Fatalf("an invalid reading is %q", text)
			}
		}
	})
}

func FuzzLoad(f *testing.F) {
	f.Add("cases: [{name: a, steps: [{at: 0..3, set: {LOAD: [1, invalid]}, expect: {LIMIT: ~1}, alerts: []}]}]")
	f.Add("cases: [{name: a, ticks: 3, config: {most: 2}, steps: [{at: 1, set: {MOST: {ramp: {from: 1, to: 2, over: 3}}}, setpoints: {sampler: {accept_percentage: above 3}}}]}]")
	f.Add("interval: 100ms\ncases: [{name: \"\\e\", steps: [{at: 1, set: {LOAD: auto}, config: {}}]}]")
	f.Fuzz(func(t *testing.T, cases string) {
		s, err := Load("x", []byte("document:"+limits+"\n"+cases), func(string) ([]byte, error) { return nil, fs.ErrNotExist })
		if err != nil {
			var list fielderr.List
			if !errors.As(err, &list) || list.Err() == nil {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		for _, c := range s.cases {
			if c.ticks > 1000 {
				return // long, not different
			}
		}
		for _, r := range s.Run(Options{All: true}) {
			if r.Ticks != len(r.Table.Rows) || len(r.Failures) > maxFailures {
				t.Fatalf("got %d rows of %d ticks and %d failures", len(r.Table.Rows), r.Ticks, len(r.Failures))
			}
			for _, f := range r.Failures {
				_ = r.Table.Around(f.Tick)
			}
		}
	})
}
