// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/internal/control/script"
	"github.com/sluice-project/sluice/internal/document"
	"github.com/sluice-project/sluice/internal/fielderr"
)

// testOutputs are the formats of policy test.
var testOutputs = []string{"text", "json", "junit"}

type testFlags struct {
	run     string
	verbose bool
	output  string
}

func newPolicyTest(g *globals) *cobra.Command {
	var f testFlags
	c := &cobra.Command{
		Use:   "test FILE...",
		Short: "Run your tests of policies, without a server",
		Long: `Run tests of policies: scripts that say what comes in at which tick, such as a latency, and
what signals, alerts and setpoints have to be then. The circuit is run by the same code as
in the server, as fast as it can be computed: an hour of ticks takes milliseconds.

A FILE is a script, or a directory, of which the files that end in _test.yaml or .test.yaml
are run. The guide on policy tests explains the format. The exit code is 0 when all tests
passed, else 1.`,
		Example: `  sluice policy test examples/policy-tests
  sluice policy test checkout_test.yaml --run overload -v
  sluice policy test policies/ --output junit > report.xml`,
		Args: atLeast(1, "a script or a directory with scripts"),
		RunE: func(_ *cobra.Command, args []string) error {
			if !slices.Contains(testOutputs, f.output) {
				text := fmt.Sprintf("--output: got %q, want %s", f.output, strings.Join(testOutputs, ", "))
				if hint := fielderr.DidYouMean(f.output, testOutputs); hint != "" {
					text += "; " + hint
				}
				return errors.New(text)
			}
			return f.test(g, args)
		},
	}
	c.Flags().StringVar(&f.run, "run", "", "run only the cases whose names this regular expression matches")
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "print the signals of every tick")
	// This command's --output hides the formats of the others.
	c.Flags().StringVarP(&f.output, "output", "o", testOutputs[0], "text, json or junit")
	must(c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(testOutputs, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

// testReport is a script and how it went.
type testReport struct {
	File     string       `json:"file"`
	Policy   string       `json:"policy,omitempty"`
	Passed   bool         `json:"passed"`
	Mistakes []diagnostic `json:"mistakes,omitempty"` // the script or its policy could not be read
	Cases    []caseReport `json:"cases"`
}

type caseReport struct {
	Name           string          `json:"name"`
	Line           int             `json:"line"`
	Passed         bool            `json:"passed"`
	Ticks          int             `json:"ticks"`
	ElapsedSeconds float64         `json:"elapsed_seconds"`
	Failures       []failureReport `json:"failures,omitempty"`
	Table          string          `json:"table,omitempty"` // with --verbose
}

type failureReport struct {
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Tick    int    `json:"tick"`
	Subject string `json:"subject"`
	Got     string `json:"got"`
	Want    string `json:"want"`
	Table   string `json:"table"` // readings around the tick
}

func (f testFlags) test(g *globals, args []string) error {
	var match func(string) bool
	if f.run != "" {
		pattern, err := regexp.Compile(f.run)
		if err != nil {
			return fmt.Errorf("--run: got %q, want a regular expression: %w", f.run, err)
		}
		match = pattern.MatchString
	}
	files, err := scriptFiles(args)
	if err != nil {
		return err
	}
	reports, ran, passed := []testReport{}, 0, true
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		r := f.testFile(file, text, match)
		ran += len(r.Cases)
		passed = passed && r.Passed
		reports = append(reports, r)
	}
	if ran == 0 && passed {
		return fmt.Errorf("--run: no case of %s has a name that %q matches", strings.Join(args, " "), f.run)
	}
	if err := f.write(g.env.Stdout, reports); err != nil {
		return err
	}
	if !passed {
		return exitCode(exitError)
	}
	return nil
}

// scriptFiles are the scripts of directories, and the files named.
func scriptFiles(args []string) ([]string, error) {
	var files []string
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, arg)
			continue
		}
		entries, err := os.ReadDir(arg)
		if err != nil {
			return nil, err
		}
		found := len(files)
		for _, e := range entries {
			if !e.IsDir() && document.IsTest(e.Name()) {
				files = append(files, filepath.Join(arg, e.Name()))
			}
		}
		if len(files) == found {
			return nil, fmt.Errorf("%s: no file in this directory ends in _test.yaml or .test.yaml", arg)
		}
	}
	return files, nil
}

func (f testFlags) testFile(file string, text []byte, match func(string) bool) testReport {
	report := testReport{File: file, Passed: true, Cases: []caseReport{}}
	s, err := script.Load(file, text, os.ReadFile)
	if err != nil {
		report.Passed = false
		var mistakes fielderr.List
		if !errors.As(err, &mistakes) {
			mistakes = fielderr.List{{File: file, Message: err.Error()}}
		}
		for _, m := range mistakes {
			report.Mistakes = append(report.Mistakes, diagnostic{m.File, m.Line, m.Column, m.Path, m.Text(), m.Excerpt, "error"})
		}
		return report
	}
	report.Policy = s.Policy
	for _, r := range s.Run(script.Options{Match: match, All: f.verbose}) {
		c := caseReport{Name: r.Case, Line: r.Line, Passed: r.Passed(), Ticks: r.Ticks, ElapsedSeconds: r.Elapsed.Seconds()}
		for _, failure := range r.Failures {
			c.Failures = append(c.Failures, failureReport{
				failure.Line, failure.Column, failure.Tick, failure.Subject, failure.Got, failure.Want, r.Table.Around(failure.Tick),
			})
		}
		if f.verbose {
			c.Table = r.Table.String()
		}
		report.Passed = report.Passed && c.Passed
		report.Cases = append(report.Cases, c)
	}
	return report
}

func (f testFlags) write(w io.Writer, reports []testReport) error {
	switch f.output {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(reports)
	case "junit":
		return writeJUnit(w, reports)
	}
	for _, r := range reports {
		r.write(w)
	}
	return nil
}

// write prints what failed, then one line on the whole file, like go test.
func (r testReport) write(w io.Writer) {
	for _, m := range r.Mistakes {
		m.write(w)
	}
	ticks, failed := 0, 0
	for _, c := range r.Cases {
		ticks += c.Ticks
		if c.Passed && c.Table == "" {
			continue
		}
		verdict := "PASS"
		if !c.Passed {
			failed++
			verdict = "FAIL"
		}
		fmt.Fprintf(w, "--- %s: %s (%s:%d)\n", verdict, clean(c.Name), clean(r.File), c.Line)
		for _, f := range c.Failures {
			fmt.Fprintf(w, "    %s:%d:%d: tick %d: %s: got %s, want %s\n", clean(r.File), f.Line, f.Column, f.Tick, clean(f.Subject), clean(f.Got), clean(f.Want))
			fmt.Fprint(w, indented(f.Table, "      "))
		}
		fmt.Fprint(w, indented(c.Table, "    "))
	}
	switch {
	case len(r.Mistakes) > 0:
		fmt.Fprintf(w, "FAIL %s: %s\n", clean(r.File), plural(len(r.Mistakes), "mistake"))
	case failed > 0:
		fmt.Fprintf(w, "FAIL %s: %d of %s failed\n", clean(r.File), failed, plural(len(r.Cases), "case"))
	default:
		fmt.Fprintf(w, "ok   %s: policy %s, %s, %s\n", clean(r.File), clean(r.Policy), plural(len(r.Cases), "case"), plural(ticks, "tick"))
	}
}

func indented(text, by string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString(by + line)
	}
	return out.String()
}

// The types of a report that build servers read.

type junitSuites struct {
	XMLName xml.Name     `xml:"testsuites"`
	Suites  []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitFailure `xml:"failure,omitempty"`
	Error   *junitFailure `xml:"error,omitempty"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

func writeJUnit(w io.Writer, reports []testReport) error {
	var out junitSuites
	for _, r := range reports {
		suite := junitSuite{Name: r.File, Tests: len(r.Cases)}
		total := 0.0
		for _, c := range r.Cases {
			total += c.ElapsedSeconds
			one := junitCase{Class: r.Policy, Name: c.Name, Time: fmt.Sprintf("%.6f", c.ElapsedSeconds)}
			if !c.Passed {
				suite.Failures++
				var text strings.Builder
				for _, f := range c.Failures {
					fmt.Fprintf(&text, "%s:%d:%d: tick %d: %s: got %s, want %s\n%s", r.File, f.Line, f.Column, f.Tick, f.Subject, f.Got, f.Want, f.Table)
				}
				first := c.Failures[0]
				one.Failure = &junitFailure{fmt.Sprintf("tick %d: %s: got %s, want %s", first.Tick, first.Subject, first.Got, first.Want), text.String()}
			}
			suite.Cases = append(suite.Cases, one)
		}
		if len(r.Mistakes) > 0 {
			var text strings.Builder
			for _, m := range r.Mistakes {
				m.write(&text)
			}
			suite.Tests, suite.Errors = 1, 1
			suite.Cases = []junitCase{{Class: r.File, Name: "read", Time: "0", Error: &junitFailure{r.Mistakes[0].Message, text.String()}}}
		}
		suite.Time = fmt.Sprintf("%.6f", total)
		out.Suites = append(out.Suites, suite)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(out); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
