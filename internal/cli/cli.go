// SPDX-License-Identifier: Apache-2.0

// Package cli is the command line: it reads flags, makes one call into the server's packages or over
// the network, and prints the answer.
package cli

//go:generate go test . -run ^TestReference$ -update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitDeny  = 3 // sluice check: the flow was denied
)

// Env is what a command gets from its surroundings.
type Env struct {
	Args     []string // without the name of the program
	Stdin    io.Reader
	Stdout   io.Writer
	Stderr   io.Writer
	Environ  []string // as os.Environ
	Terminal bool     // Stdout is a terminal
	Progress bool     // Stderr is a terminal
}

// System is the Env of this process.
func System() Env {
	return Env{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Environ: os.Environ(),
		Terminal: isatty.IsTerminal(os.Stdout.Fd()), // /dev/null is a character device too
		Progress: isatty.IsTerminal(os.Stderr.Fd()),
	}
}

// lookup reads an environment variable; "" when it is not set.
func (e Env) lookup(name string) string {
	for i := len(e.Environ) - 1; i >= 0; i-- {
		if k, v, _ := strings.Cut(e.Environ[i], "="); k == name {
			return v
		}
	}
	return ""
}

// exitCode ends the program with a code without a message: the answer was printed.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// Main runs one command and returns the exit code. Errors are one line on Stderr.
func Main(ctx context.Context, env Env) int {
	root := newRoot(env)
	root.SetArgs(env.Args)
	err := root.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintf(env.Stderr, "sluice: %s\n", strings.TrimSuffix(err.Error(), "\n"))
	return exitError
}

// newRoot makes the whole tree of commands.
func newRoot(env Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "Load management for services, APIs and language models",
		Long: `Sluice decides, for every piece of work that passes a control point, whether it may
run now, must wait, or must not run: rate limits, concurrency limits, and queues by
priority, changed at run time by policies.`,
		Example: `  sluice serve                                     # start a server
  sluice blueprint values rate-limiting/base > p.yaml  # a policy to fill in
  sluice policy apply -f p.yaml                    # put it into force
  sluice check checkout --label user_id=alice      # ask for one flow, and why
  sluice top                                       # watch
  sluice demo mistral --output report              # see what it is good for`,
		Args:          subcommandOnly,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	g := &globals{env: env}
	g.register(root)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; see %s --help", err, c.CommandPath())
	})
	root.AddCommand(
		newServe(env), newCheck(g), newTop(g), newDiscover(g), newPreview(g), newPolicy(g), newBlueprint(g), newAlerts(g), newDashboard(g),
		newDemo(g), newImport(env), newHealth(g), newVersion(g),
	)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd(env.Args...)
	return root
}
