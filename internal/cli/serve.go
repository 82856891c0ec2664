// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sluice-project/sluice/internal/app"
	"github.com/sluice-project/sluice/internal/config"
	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/version"
)

// serveFlags are the settings that have a flag.
var serveFlags = []struct{ flag, key, usage string }{
	{"listen", "listen", "address to serve gRPC, HTTP, metrics and debug pages on"},
	{"also-listen", "also_listen", "more addresses to serve the same on, separated by commas"},
	{"agent-group", "agent_group", "group of this server, for policies' selectors (default: in every group)"},
	{"data-dir", "data_dir", "directory for what survives a restart (default ~/.local/state/sluice)"},
	{"policy-dir", "policy_dir", "directory of policy files to keep in force"},
	{"log-level", "log.level", "least level to log: debug, info, warn or error"},
	{"log-format", "log.format", "format of the log: text or json"},
	{"tls-cert", "tls.cert_file", "certificate chain, PEM; with --tls-key the port speaks TLS"},
	{"tls-key", "tls.key_file", "private key of the certificate, PEM"},
	{"shutdown-timeout", "shutdown_timeout", "how long a stopping server waits for requests under way"},
}

func newServe(env Env) *cobra.Command {
	var file string
	var noAuth, printConfig bool
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Run the server: it decides flows, keeps policies, and serves gRPC, JSON over HTTP,
metrics and debug pages on one port.

Settings come from the defaults, the file of --config, SLUICE_… variables of the
environment, and flags, the later over the earlier. Every key of the file has a
variable: log.level is SLUICE_LOG_LEVEL.

On a loopback address nobody is asked for a token. On any other address the server
makes an admin token at its first start, keeps it in the file admin-token of the data
directory, and asks for it; or configure auth.tokens.`,
		Example: `  sluice serve
  sluice serve --listen :8080 --data-dir /var/lib/sluice --policy-dir /etc/sluice/policies
  sluice serve --config sluice.yaml
  SLUICE_LOG_FORMAT=json sluice serve`,
		Args: cobra.NoArgs,
	}
	for _, f := range serveFlags {
		c.Flags().String(f.flag, defaultOf(f.key), f.usage)
	}
	c.Flags().StringVar(&file, "config", "", "configuration file, YAML (or SLUICE_CONFIG)")
	c.Flags().BoolVar(&noAuth, "no-auth", false, "ask nobody for a token, also on an address that others reach")
	c.Flags().BoolVar(&printConfig, "check-config", false, "check the configuration, print problems and exit")
	c.RunE = func(c *cobra.Command, _ []string) error {
		loaded, err := config.Load(config.Sources{
			File: cmp.Or(file, env.lookup("SLUICE_CONFIG")), Environ: env.Environ, Flags: flagsOf(c.Flags(), noAuth),
		})
		if err != nil {
			return configError(err)
		}
		if err := app.CheckFiles(loaded.Config); err != nil {
			return err
		}
		if printConfig {
			fmt.Fprintln(env.Stdout, "the configuration is good")
			return nil
		}
		a, err := app.Start(c.Context(), loaded.Config, app.Options{LogTo: env.Stderr, Warnings: warningsOf(loaded.Warnings)})
		if err != nil {
			return err
		}
		banner(env.Stdout, a)
		return a.Wait()
	}
	return c
}

func defaultOf(key string) string {
	for _, k := range config.Keys() {
		if k.Name == key {
			return k.Default
		}
	}
	return ""
}

// flagsOf picks the flags that were given.
func flagsOf(set *pflag.FlagSet, noAuth bool) map[string]config.Flag {
	given := map[string]config.Flag{}
	for _, f := range serveFlags {
		if flag := set.Lookup(f.flag); flag.Changed {
			given[f.key] = config.Flag{Name: "--" + f.flag, Value: flag.Value.String()}
		}
	}
	if noAuth {
		given["auth.disabled"] = config.Flag{Name: "--no-auth", Value: "true"}
	}
	return given
}

// configError lists the mistakes one by one.
func configError(err error) error {
	var mistakes fielderr.List
	if !errors.As(err, &mistakes) {
		return err
	}
	return fmt.Errorf("the configuration has %s:\n%s", plural(len(mistakes), "mistake"), mistakes.Pretty())
}

func warningsOf(l fielderr.List) []string {
	out := make([]string, len(l))
	for i, w := range l {
		out[i] = w.Error()
	}
	return out
}

// banner says where to go and what to type next.
func banner(w io.Writer, a *app.App) {
	fmt.Fprintf(w, "\nSluice %s is ready: open %s\n", version.Get(), a.URL())
	if path := a.Access().TokenFile; path != "" {
		fmt.Fprintf(w, "It asks for a token, which is in a file:  export SLUICE_TOKEN=$(cat %s)\n", path)
	}
	server := ""
	if a.URL() != "http://"+defaultServer {
		server = "export SLUICE_SERVER=" + a.URL() + "\n  "
	}
	fmt.Fprintf(w, `In another terminal:
  %ssluice check my-feature --label user_id=alice    ask for one flow
  sluice blueprint list                            policies to start from
  sluice top                                       watch

`, server)
}

// defaultServer is where commands look for the server.
const defaultServer = "127.0.0.1:8080"
