// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/goccy/go-yaml"

	"github.com/sluice-project/sluice/internal/fielderr"
)

var outputs = []string{"table", "json", "yaml"}

// checkOutput refuses a format before anything is done.
func checkOutput(output string) error {
	if slices.Contains(outputs, output) {
		return nil
	}
	text := fmt.Sprintf("--output: got %q, want %s", output, strings.Join(outputs, ", "))
	if hint := fielderr.DidYouMean(output, outputs); hint != "" {
		text += "; " + hint
	}
	return fmt.Errorf("%s", text)
}

// must is for mistakes in this package, which the first run of any command shows.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// show writes v as JSON or YAML with the field names of its json tags, or calls table.
func show(w io.Writer, output string, v any, table func()) error {
	switch output {
	case "table":
		table()
		return nil
	case "json":
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "yaml":
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return printJSON(w, output, text)
	}
	return checkOutput(output)
}

// printJSON writes JSON, indented or as YAML.
func printJSON(w io.Writer, output string, text []byte) (err error) {
	var out bytes.Buffer
	if output == "yaml" {
		if text, err = yaml.JSONToYAML(text); err == nil {
			_, err = w.Write(text)
		}
		return err
	}
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return err
	}
	out.WriteByte('\n')
	_, err = w.Write(out.Bytes())
	return err
}

// table aligns rows, whose cells are separated by tabs.
func table(w io.Writer, header string, rows []string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, header)
	for _, r := range rows {
		fmt.Fprintln(t, r)
	}
	_ = t.Flush() // nobody to tell when the terminal is gone
}

// clean makes text from elsewhere safe for a terminal: a label must not move the cursor.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '·'
	}, s)
}

// number prints a figure in at most about seven characters.
func number(f float64) string {
	switch abs := math.Abs(f); {
	case abs < 1e-9:
		return "0"
	case abs >= 1e15:
		return strconv.FormatFloat(f, 'g', 3, 64)
	case abs >= 1e9:
		return strconv.FormatFloat(f/1e9, 'f', 1, 64) + "G"
	case abs >= 1e6:
		return strconv.FormatFloat(f/1e6, 'f', 1, 64) + "M"
	case abs >= 1e4:
		return strconv.FormatFloat(f/1e3, 'f', 1, 64) + "k"
	case abs >= 100 || f == math.Trunc(f):
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	return strconv.FormatFloat(f, 'g', 3, 64)
}

// seconds prints a length of time with three digits.
func seconds(s float64) string {
	d := time.Duration(min(s, 1e9) * float64(time.Second))
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
