// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	controlv1 "github.com/sluice-project/sluice/api/gen/sluice/control/v1"
	"github.com/sluice-project/sluice/internal/control"
	"github.com/sluice-project/sluice/internal/control/graph"
	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/blueprint"
)

// graphFormats are the formats of policy graph and the extensions of files in them.
var graphFormats = map[string][]string{"mermaid": {".mmd", ".mermaid", ".md"}, "dot": {".dot", ".gv"}, "svg": {".svg"}}

var graphFormatNames = []string{"mermaid", "dot", "svg"}

type graphFlags struct {
	documents documentFlags
	format    string
	depth     int
	output    string
}

func newGraph(g *globals) *cobra.Command {
	var f graphFlags
	c := &cobra.Command{
		Use:   "graph (NAME | -f FILE)",
		Short: "Draw the circuit of a policy",
		Long: `Draw the circuit of a policy: its components, and the signals from one to the next. With
-f it is a file, and no server is needed; with a NAME it is a policy in force, with what is
wrong at each component, such as a query without a result.

Dashed lines are loops: what is read there is the signal as of the tick before. Composites
such as aimd_load_scheduler, and nested circuits, are one node; --depth 2 opens them, and
--depth 0 opens everything. Constants stand at the ports that read them.

The format is that of the file to write, or mermaid, which GitHub, GitLab and many editors
show inside of Markdown. The svg needs no other program and suits light and dark pages.`,
		Example: `  sluice policy graph -f checkout.yaml
  sluice policy graph checkout -o checkout.svg
  sluice policy graph checkout --depth 2 --format dot | dot -Tpng > checkout.png`,
		ValidArgsFunction: completePolicies(g),
		Args:              nameOrFile(&f.documents),
		RunE: func(c *cobra.Command, args []string) error {
			format, err := f.formatOf()
			if err != nil {
				return err
			}
			if f.depth < 0 {
				return fmt.Errorf("--depth: got %d, want 1 or more, or 0 for everything", f.depth)
			}
			circuit, err := f.circuit(c, g, args)
			if err != nil {
				return err
			}
			text, err := draw(circuit, format, f.depth)
			if err != nil {
				return err
			}
			return writeOut(g, f.output, text)
		},
	}
	f.documents.register(c)
	c.Flags().StringVar(&f.format, "format", "", "mermaid, dot or svg; without it, what the name of the output file says, or mermaid")
	c.Flags().IntVar(&f.depth, "depth", 1, "how many levels of components to show; 0 shows all")
	// This command's --output is a file; it hides the format of the others.
	c.Flags().StringVarP(&f.output, "output", "o", "", "file to write instead of standard output")
	must(c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(graphFormatNames, cobra.ShellCompDirectiveNoFileComp)))
	must(c.MarkFlagFilename("output", "svg", "mmd", "dot"))
	return c
}

// nameOrFile accepts the name of one policy, or files named by flags.
func nameOrFile(f *documentFlags) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args)+len(f.files) == 0:
			return fmt.Errorf("%s: got nothing to read, want the name of a policy in force, or -f FILE", c.CommandPath())
		case len(args) > 0 && len(f.files) > 0:
			return fmt.Errorf("%s: got the name %q and a file, want one of them", c.CommandPath(), args[0])
		case len(args) > 1:
			return fmt.Errorf("%s: got %d names, want one policy", c.CommandPath(), len(args))
		}
		return nil
	}
}

func (f *graphFlags) formatOf() (string, error) {
	if f.format != "" {
		if slices.Contains(graphFormatNames, f.format) {
			return f.format, nil
		}
		text := fmt.Sprintf("--format: got %q, want %s", f.format, strings.Join(graphFormatNames, ", "))
		if hint := fielderr.DidYouMean(f.format, graphFormatNames); hint != "" {
			text += "; " + hint
		}
		return "", errors.New(text)
	}
	extension := strings.ToLower(filepath.Ext(f.output))
	for format, extensions := range graphFormats {
		if slices.Contains(extensions, extension) {
			return format, nil
		}
	}
	if f.output != "" && extension != "" && extension != ".txt" {
		return "", fmt.Errorf("--output: got %q, whose name does not tell the format; say it with --format %s", f.output, strings.Join(graphFormatNames, "|"))
	}
	return graphFormatNames[0], nil
}

func (f *graphFlags) circuit(c *cobra.Command, g *globals, args []string) (graph.Circuit, error) {
	if len(args) == 0 {
		doc, err := f.documents.one(g)
		if err != nil {
			return graph.Circuit{}, err
		}
		program, err := control.Compile(doc)
		if err != nil {
			return graph.Circuit{}, err
		}
		return fromProgram(program), nil
	}
	r, err := g.connect()
	if err != nil {
		return graph.Circuit{}, err
	}
	got, err := call(c.Context(), r, r.control.GetCircuit, &controlv1.GetCircuitRequest{Policy: args[0]})
	if err != nil {
		return graph.Circuit{}, r.explain(err)
	}
	return fromAPICircuit(got.GetCircuit()), nil
}

// one reads the only document and prints what is wrong with it.
func (f *documentFlags) one(g *globals) (*policy.Document, error) {
	sources, err := f.read(g.env, nil)
	if err != nil {
		return nil, err
	}
	if len(sources) != 1 {
		return nil, fmt.Errorf("got %d documents, want one", len(sources))
	}
	return parseDocument(g, policy.Source{File: sources[0].name, Name: f.name, Blueprint: f.blueprint, Text: sources[0].text})
}

// parseDocument reads a policy or the values of a blueprint. Mistakes and warnings are printed.
func parseDocument(g *globals, src policy.Source) (*policy.Document, error) {
	doc, err := blueprint.Parse(src)
	var mistakes fielderr.List
	if errors.As(err, &mistakes) {
		writeMistakes(g, mistakes, "error")
		return nil, exitCode(exitError)
	}
	if err != nil {
		return nil, err
	}
	writeMistakes(g, doc.Warnings, "warning")
	return doc, nil
}

func writeMistakes(g *globals, list fielderr.List, severity string) {
	for _, m := range list {
		diagnostic{m.File, m.Line, m.Column, m.Path, m.Text(), m.Excerpt, severity}.write(g.env.Stderr)
	}
}

func fromProgram(p *control.Program) graph.Circuit {
	out := graph.Circuit{Title: p.Policy}
	waiting := map[string]string{}
	for _, n := range p.Waiting {
		waiting[n.Component] = n.Text
	}
	ports := func(list []control.PortView) []graph.Port {
		ports := make([]graph.Port, len(list))
		for i, p := range list {
			ports[i] = graph.Port{Name: p.Name, Signal: p.Signal, Circuit: p.Circuit, Constant: p.Constant, Looped: p.Looped}
		}
		return ports
	}
	for _, c := range p.Components() {
		out.Components = append(out.Components, graph.Component{
			ID: c.ID, Kind: c.Kind, Parent: c.Parent, Description: c.Description, Status: waiting[c.ID], In: ports(c.In), Out: ports(c.Out),
		})
	}
	return out
}

func fromAPICircuit(c *controlv1.Circuit) graph.Circuit {
	out := graph.Circuit{Title: c.GetPolicy()}
	ports := func(list []*controlv1.Port) []graph.Port {
		ports := make([]graph.Port, len(list))
		for i, p := range list {
			ports[i] = graph.Port{Name: p.GetName(), Signal: p.GetSignal(), Circuit: p.GetCircuit(), Constant: p.Constant, Looped: p.GetLooped()}
		}
		return ports
	}
	for _, c := range c.GetComponents() {
		out.Components = append(out.Components, graph.Component{
			ID: c.GetId(), Kind: c.GetKind(), Parent: c.GetParent(), Description: c.GetDescription(), Status: c.GetStatus(),
			In: ports(c.GetInputs()), Out: ports(c.GetOutputs()),
		})
	}
	return out
}

func draw(c graph.Circuit, format string, depth int) ([]byte, error) {
	switch format {
	case "dot":
		return graph.DOT(c, depth), nil
	case "svg":
		return graph.SVG(c, depth)
	}
	return graph.Mermaid(c, depth), nil
}

// writeOut writes to a file, or to standard output when it has no name.
func writeOut(g *globals, file string, text []byte) error {
	if file == "" || file == "-" {
		_, err := g.env.Stdout.Write(text)
		return err
	}
	return os.WriteFile(file, text, 0o644)
}
