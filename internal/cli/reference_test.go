// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write docs/reference/cli.md")

const reference = "../../docs/reference/cli.md"

// TestReference keeps docs/reference/cli.md equal to the help of the commands.
func TestReference(t *testing.T) {
	want := renderReference()
	if *update {
		if err := os.WriteFile(reference, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(reference)
	if err != nil || string(got) != want {
		t.Errorf("%s is not what the commands say (%v): run go test ./internal/cli -run TestReference -update", reference, err)
	}
}

const intro = `# Command line

<!-- Generated from internal/cli by go test ./internal/cli -run TestReference -update. Do not edit. -->

Exit codes: 0 success, 1 error (one line on standard error says what and what to do), 3 ` + "`sluice check`" + ` was
answered with a denial, 2 ` + "`sluice import`" + ` wrote a policy that differs from what was imported. Results go to
standard output, mistakes and logs to standard error.

Flags of every command:

`

func renderReference() string {
	root := newRoot(Env{})
	var out strings.Builder
	out.WriteString(intro + flagTable(root.PersistentFlags()))
	walk(root, func(c *cobra.Command) {
		if c == root {
			return
		}
		fmt.Fprintf(&out, "\n## %s\n\n%s.\n", c.CommandPath(), c.Short)
		if c.Long != "" {
			fmt.Fprintf(&out, "\n%s\n", markdown(c.Long))
		}
		if c.Runnable() && !c.HasSubCommands() {
			fmt.Fprintf(&out, "\n```text\n%s\n```\n", c.UseLine())
		}
		if table := flagTable(c.NonInheritedFlags()); table != "" {
			out.WriteString("\n" + table)
		}
		if c.Example != "" {
			fmt.Fprintf(&out, "\nExamples:\n\n```text\n%s\n```\n", outdent(c.Example))
		}
	})
	return out.String()
}

// walk visits the commands that are ours: cobra makes the help and the completions.
func walk(c *cobra.Command, visit func(*cobra.Command)) {
	if c.Name() == "help" {
		return
	}
	visit(c)
	if c.Name() == "completion" {
		return
	}
	for _, sub := range c.Commands() {
		walk(sub, visit)
	}
}

func flagTable(set *pflag.FlagSet) string {
	var out strings.Builder
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		usage := f.Usage
		if d := f.DefValue; d != "" && d != "false" && d != "0" && d != "[]" && d != "0s" {
			usage += " (default `" + d + "`)"
		}
		fmt.Fprintf(&out, "| %s | %s |\n", name, strings.ReplaceAll(usage, "|", `\|`))
	})
	if out.Len() == 0 {
		return ""
	}
	return "| flag | meaning |\n| --- | --- |\n" + out.String()
}

// markdown keeps lists of words, which are indented, as they are.
func markdown(text string) string {
	var out []string
	code := false
	for line := range strings.SplitSeq(text, "\n") {
		if indented := strings.HasPrefix(line, "  "); indented != code {
			code = indented
			out = append(out, "```text")
			if !code {
				out[len(out)-1] = "```"
			}
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func outdent(text string) string {
	return strings.TrimPrefix(strings.ReplaceAll(text, "\n  ", "\n"), "  ")
}

// TestHelp holds the help to a standard.
func TestHelp(t *testing.T) {
	walk(newRoot(Env{}), func(c *cobra.Command) {
		path := c.CommandPath()
		if c.Name() == "completion" {
			return
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: the short help is %q, want a phrase without a full stop", path, c.Short)
		}
		if c.Example == "" && c.Name() != "list" {
			t.Errorf("%s has no example", path)
		}
		for text := range strings.Lines(c.Long + "\n" + c.Example) {
			if n := len([]rune(strings.TrimRight(text, "\n"))); n > 100 {
				t.Errorf("%s: a line of the help has %d characters, want at most 100: %s", path, n, text)
			}
		}
		c.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: the usage is %q, want a phrase without a full stop", path, f.Name, f.Usage)
			}
		})
	})
}
