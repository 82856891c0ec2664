// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/internal/version"
)

func newVersion(env Env) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Args:    cobra.NoArgs,
		Example: "  sluice version\n  sluice version --output json",
		RunE: func(*cobra.Command, []string) error {
			v := version.Get()
			return print(env.Stdout, output, v, func() {
				fmt.Fprintf(env.Stdout, "sluice %s %s %s\n", v, v.Go, v.Platform)
			})
		},
	}
	addOutput(c, &output, env)
	return c
}

// explain is the message of an error; it never is more than what to know and what to do.
func explain(err error) string {
	return strings.TrimPrefix(err.Error(), "sluice: ")
}
