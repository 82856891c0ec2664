// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
)

var outputs = []string{"table", "json", "yaml"}

// addOutput adds --output, whose default is SLUICE_OUTPUT.
func addOutput(c *cobra.Command, output *string, env Env) {
	c.Flags().StringVarP(output, "output", "o", cmp.Or(env.lookup("SLUICE_OUTPUT"), "table"), "table, json or yaml (or SLUICE_OUTPUT)")
	must(c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp)))
}

// must is for mistakes in this package, which the first run of any command shows.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// print writes v as JSON or YAML with the field names of its json tags, or calls table.
func print(w io.Writer, output string, v any, table func()) error {
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
		text, err = yaml.JSONToYAML(text)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	return fmt.Errorf("--output: got %q, want %s", output, strings.Join(outputs, ", "))
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
