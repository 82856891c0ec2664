// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"
	"github.com/sluice-project/sluice/internal/cli/top"
)

func newTop(g *globals) *cobra.Command {
	var once bool
	interval := top.DefaultInterval
	c := &cobra.Command{
		Use:   "top",
		Short: "Watch flows, queues and limits live",
		Long: `Watch the server: flows admitted and denied per second at each control point, queues and
waits of each workload, what is in flight, and the accounts closest to their limit.

Keys: tab changes the pane, up and down scroll, s sorts, p pauses, ? helps, q quits. When
the output is no terminal, or with --once, one snapshot is printed; with -o json or yaml
it has the counters since the start of the server.`,
		Example: "  sluice top\n  sluice top --once\n  sluice top --once -o json | jq .accounts",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkOutput(g.output); err != nil {
				return err
			}
			if interval < top.MinInterval {
				return fmt.Errorf("--interval: got %s, want at least %s", interval, top.MinInterval)
			}
			r, err := g.connect()
			if err != nil {
				return err
			}
			if g.output != "table" {
				return r.explain(printOverview(c.Context(), g, r))
			}
			return r.explain(top.Run(c.Context(), top.Config{
				Watch: top.WatchClient(r.observe), Server: r.base, Interval: interval, Once: once,
				Interactive: g.env.Terminal, Out: g.env.Stdout, In: g.env.Stdin,
			}))
		},
	}
	c.Flags().BoolVar(&once, "once", false, "print one snapshot and exit")
	c.Flags().DurationVar(&interval, "interval", time.Second, "time between two readings")
	return c
}

// printOverview prints one reading, counters and all.
func printOverview(ctx context.Context, g *globals, r *remote) error {
	got, err := call(ctx, r, r.observe.GetOverview, &observev1.GetOverviewRequest{TopAccounts: 100})
	if err != nil {
		return err
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(got.GetOverview())
	if err != nil {
		return err
	}
	return printJSON(g.env.Stdout, g.output, text)
}
