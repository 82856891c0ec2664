// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	policyv1 "github.com/sluice-project/sluice/api/gen/sluice/policy/v1"
	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/blueprint"
	"github.com/sluice-project/sluice/internal/rpc"
)

func newBlueprint(g *globals) *cobra.Command {
	c := &cobra.Command{
		Use:   "blueprint",
		Short: "Policies for common jobs, to fill in",
		Long: `A blueprint is a policy for a common job; a values file fills in its numbers. The
blueprints are part of this program: no command here needs a server.`,
		Example: `  sluice blueprint list
  sluice blueprint values rate-limiting/base > limits.yaml   # then edit it
  sluice policy apply -f limits.yaml`,
		Args: subcommandOnly,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newBlueprintList(g), newBlueprintShow(g),
		newBlueprintText(g, "values", "Print a values file to start from",
			"Print a values file with every default and a comment on every key. Fill in what says\n__REQUIRED_FIELD__ and delete what you do not change. With --example, print a short file\nthat works as it is.",
			(*blueprint.Blueprint).Values),
		newBlueprintText(g, "schema", "Print the JSON Schema of values files",
			"Print the JSON Schema of the values files of a blueprint, for editors.",
			(*blueprint.Blueprint).Schema),
		newRender(g))
	return c
}

func completeBlueprints(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return blueprint.Names(), cobra.ShellCompDirectiveNoFileComp
}

// findBlueprint also takes the part of a name before the slash.
func findBlueprint(name string) (*blueprint.Blueprint, error) {
	if b, ok := blueprint.Find(name); ok {
		return b, nil
	}
	if b, ok := blueprint.Find(name + "/base"); ok {
		return b, nil
	}
	return nil, errors.New(rpc.UnknownBlueprint(name))
}

func newBlueprintList(g *globals) *cobra.Command {
	type entry struct {
		Name    string `json:"name"`
		Title   string `json:"title"`
		Summary string `json:"summary"`
	}
	return &cobra.Command{
		Use:   "list",
		Short: "List the blueprints",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			var list []entry
			var rows []string
			for _, b := range blueprint.All() {
				first, _, _ := strings.Cut(b.Description, "\n\n")
				first, _, _ = strings.Cut(strings.Join(strings.Fields(first), " "), ". ")
				e := entry{b.Name, b.Title, strings.TrimSuffix(first, ".")}
				list = append(list, e)
				rows = append(rows, e.Name+"\t"+e.Summary)
			}
			return show(g.env.Stdout, g.output, list, func() { table(g.env.Stdout, "NAME\tWHAT IT DOES", rows) })
		},
	}
}

type parameter struct {
	Path        string `json:"path"`
	Type        string `json:"type"`
	Required    bool   `json:"required"`
	Default     string `json:"default,omitempty"` // JSON
	Description string `json:"description"`
}

func newBlueprintShow(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "Explain a blueprint and its parameters",
		Example:           "  sluice blueprint show rate-limiting/base",
		Args:              exactArgs(1, "the name of a blueprint"),
		ValidArgsFunction: completeBlueprints,
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := findBlueprint(args[0])
			if err != nil {
				return err
			}
			described, err := rpc.ToAPIBlueprint(b)
			if err != nil {
				return err
			}
			out := struct {
				Name        string      `json:"name"`
				Title       string      `json:"title"`
				Description string      `json:"description"`
				Parameters  []parameter `json:"parameters"`
				Example     string      `json:"example"`
			}{b.Name, b.Title, b.Description, fromParameters(described.GetParameters()), b.Example}
			return show(g.env.Stdout, g.output, out, func() {
				w := g.env.Stdout
				fmt.Fprintf(w, "%s: %s\n\n%s\n\nParameters (* must be given):\n", b.Title, b.Name, b.Description)
				for _, p := range out.Parameters {
					mark, extra := " ", p.Type
					if p.Required {
						mark = "*"
					}
					if p.Default != "" {
						extra += ", default " + p.Default
					}
					fmt.Fprintf(w, "%s %s (%s)\n    %s\n", mark, strings.TrimPrefix(p.Path, "policy."), extra, p.Description)
				}
				fmt.Fprintf(w, "\nExample:\n\n%s", b.Example)
			})
		},
	}
}

func fromParameters(list []*policyv1.BlueprintParameter) []parameter {
	out := make([]parameter, len(list))
	for i, p := range list {
		out[i] = parameter{p.GetPath(), p.GetType(), p.GetRequired(), p.GetDefaultValue(), p.GetDescription()}
	}
	return out
}

func newBlueprintText(g *globals, name, short, long string, read func(*blueprint.Blueprint) ([]byte, error)) *cobra.Command {
	var example bool
	c := &cobra.Command{
		Use:               name + " NAME",
		Short:             short,
		Long:              long,
		Example:           "  sluice blueprint " + name + " rate-limiting/base",
		Args:              exactArgs(1, "the name of a blueprint"),
		ValidArgsFunction: completeBlueprints,
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := findBlueprint(args[0])
			if err != nil {
				return err
			}
			if example {
				_, err = fmt.Fprint(g.env.Stdout, b.Example)
				return err
			}
			text, err := read(b)
			if err != nil {
				return err
			}
			_, err = g.env.Stdout.Write(text)
			return err
		},
	}
	if name == "values" {
		c.Flags().BoolVar(&example, "example", false, "print a short file that works as it is")
	}
	return c
}

func newRender(g *globals) *cobra.Command {
	var f documentFlags
	c := &cobra.Command{
		Use:     "render -f VALUES",
		Short:   "Turn a values file into the policy it stands for",
		Long:    "Turn a values file into the policy it stands for, with every default written out, as YAML\n(or JSON with -o json).",
		Example: "  sluice blueprint render -f limits.yaml\n  sluice blueprint render -f limits.yaml | sluice policy apply -f -",
		RunE: func(_ *cobra.Command, args []string) error {
			sources, err := f.read(g.env, args)
			if err != nil {
				return err
			}
			for i, s := range sources {
				if i > 0 {
					fmt.Fprintln(g.env.Stdout, "---")
				}
				if err := render(g, f, s); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f.register(c)
	return c
}

func render(g *globals, f documentFlags, s source) error {
	doc, err := blueprint.Parse(policy.Source{File: s.name, Name: f.name, Blueprint: f.blueprint, Text: s.text})
	var mistakes fielderr.List
	if errors.As(err, &mistakes) {
		for _, m := range mistakes {
			diagnostic{m.File, m.Line, m.Column, m.Path, m.Text(), m.Excerpt, "error"}.write(g.env.Stderr)
		}
		return exitCode(exitError)
	}
	if err != nil {
		return err
	}
	if g.output == "json" {
		_, err = g.env.Stdout.Write(append(slices.Clone(doc.Canonical), '\n'))
		return err
	}
	text, err := blueprint.PolicyYAML(doc)
	if err != nil {
		return err
	}
	_, err = g.env.Stdout.Write(text)
	return err
}
