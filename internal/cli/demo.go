// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/internal/app"
	"github.com/sluice-project/sluice/internal/config"
	"github.com/sluice-project/sluice/internal/demo"
	"github.com/sluice-project/sluice/internal/fielderr"
)

func newDemo(g *globals) *cobra.Command {
	var cfg demo.Config
	var list strings.Builder
	for _, name := range demo.Names() {
		fmt.Fprintf(&list, "  %-10s %s\n", name, demo.Describe(name))
	}
	c := &cobra.Command{
		Use:   "demo NAME",
		Short: "Run a scenario, without and with a policy, and write a report",
		Long: `Run a scenario: a crowd of simulated users and a service worth protecting, first without
and then with a policy. It prints what each group of users got, and writes a report as
one HTML file.

` + list.String() + `
A server is started just for the demo, on a free port of this machine, unless --server
names one.`,
		Example:   "  sluice demo mistral --output report\n  sluice demo quota --output report --server 127.0.0.1:8080",
		ValidArgs: demo.Names(),
		Args:      demoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			cfg.Name, cfg.Out, cfg.Interactive = args[0], g.env.Stdout, g.env.Terminal
			if c.Flags().Changed("server") {
				cfg.Server, cfg.Token = g.server, cmp.Or(g.token, g.env.lookup("SLUICE_TOKEN"))
				return demo.Run(c.Context(), cfg)
			}
			return embeddedDemo(c.Context(), g, cfg)
		},
	}
	// This command's --output is a directory; it hides the format of the others.
	c.Flags().StringVarP(&cfg.OutputDir, "output", "o", "", "directory for the report; none is written without it")
	c.Flags().Float64Var(&cfg.Scale, "scale", 0, "seconds of the story in one second of the clock (default the demo's own, about a minute in all)")
	c.Flags().Uint64Var(&cfg.Seed, "seed", 1, "chooses the order of prompts and the length of answers")
	c.Flags().Lookup("scale").DefValue = ""
	must(c.MarkFlagDirname("output"))
	return c
}

func demoArgs(_ *cobra.Command, args []string) error {
	names := strings.Join(demo.Names(), ", ")
	switch {
	case len(args) != 1:
		return fmt.Errorf("sluice demo: got %s, want the name of one demo: %s", plural(len(args), "argument"), names)
	case demo.Describe(args[0]) == "":
		if hint := fielderr.DidYouMean(args[0], demo.Names()); hint != "" {
			return fmt.Errorf("no demo is called %q; %s", args[0], hint)
		}
		return fmt.Errorf("no demo is called %q; there are: %s", args[0], names)
	}
	return nil
}

// embeddedDemo runs against a server of its own. It outlives ctx, because an interrupted demo still
// takes its policies out and writes what it has.
func embeddedDemo(ctx context.Context, g *globals, cfg demo.Config) (err error) {
	dir, err := os.MkdirTemp("", "sluice-demo-")
	if err != nil {
		return fmt.Errorf("make a data directory for the demo's server: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c := config.Default()
	c.Listen, c.DataDir, c.Log.Level = "127.0.0.1:0", dir, "warn"
	a, err := app.Start(context.WithoutCancel(ctx), c, app.Options{LogTo: g.env.Stderr})
	if err != nil {
		return fmt.Errorf("start a server for the demo: %w", err)
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	cfg.Server = a.Addr()
	return demo.Run(ctx, cfg)
}
