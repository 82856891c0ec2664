// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/internal/cli/watch"
)

func newWatch(g *globals) *cobra.Command {
	var signals []string
	var all bool
	var ticks int
	c := &cobra.Command{
		Use:   "watch NAME",
		Short: "Watch the signals of a policy live",
		Long: `Watch the circuit of a policy tick by tick: every signal with its value, its least and
greatest value and its last ticks, the alerts that fire, and the components that have a
problem. A signal without a number is invalid; in the line of the last ticks that is a dot.

Keys: up and down scroll, p pauses, q quits. When the output is no terminal, or with -o
json, every tick is one line of JSON, beginning with the last one that was; there an invalid
signal is null. Signals inside of composites and nested circuits are named circuit/NAME,
for example root.2/LOAD_MULTIPLIER_GROWTH.`,
		Example: `  sluice policy watch checkout
  sluice policy watch checkout --signals SIGNAL,SETPOINT,DESIRED_LOAD_MULTIPLIER
  sluice policy watch checkout -o json --ticks 60 | jq .signals.SIGNAL`,
		Args:              exactArgs(1, "the name of a policy"),
		ValidArgsFunction: completePolicies(g),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(g.output); err != nil {
				return err
			}
			if g.output == "yaml" {
				return fmt.Errorf("--output: got yaml, want table or json")
			}
			if ticks < 0 {
				return fmt.Errorf("--ticks: got %d, want at least 1, or 0 to go on", ticks)
			}
			r, err := g.connect()
			if err != nil {
				return err
			}
			return r.explain(watch.Run(c.Context(), watch.Config{
				Source: watch.Client(r.control, args[0], all || len(signals) > 0), Policy: args[0], Server: r.base, Signals: signals, Ticks: ticks,
				Interactive: g.env.Terminal && g.output == "table", Out: g.env.Stdout, In: g.env.Stdin,
			}))
		},
	}
	c.Flags().StringSliceVar(&signals, "signals", nil, "names of the signals to show, separated by commas; without it, all")
	c.Flags().BoolVar(&all, "all", false, "also show the signals inside of composites and nested circuits")
	c.Flags().IntVar(&ticks, "ticks", 0, "stop after this many ticks; 0 goes on until interrupted")
	return c
}
