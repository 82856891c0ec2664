// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/internal/version"
)

func newVersion(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program",
		Args:    cobra.NoArgs,
		Example: "  sluice version\n  sluice version --output json",
		RunE: func(*cobra.Command, []string) error {
			v := version.Get()
			return show(g.env.Stdout, g.output, v, func() {
				fmt.Fprintf(g.env.Stdout, "sluice %s, %s, %s\n", v, v.Go, v.Platform)
			})
		},
	}
}
