// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
	"github.com/sluice-project/sluice/internal/rls/envoyconfig"
)

// exitDiffers: sluice import wrote the policy, which differs from what was imported.
const exitDiffers = 2

func newImport(env Env) *cobra.Command {
	c := &cobra.Command{
		Use:     "import",
		Short:   "Turn the configuration of another product into policies",
		Long:    "Turn the configuration of another product into policies. No command here needs a server.",
		Example: "  sluice import envoy-ratelimit limits.yaml --output policies/limits.yaml",
		Args:    subcommandOnly,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newImportEnvoy(env))
	return c
}

// importEnvoy is one call of sluice import envoy-ratelimit.
type importEnvoy struct {
	env     Env
	output  string
	point   string
	options envoyconfig.Options
}

func newImportEnvoy(env Env) *cobra.Command {
	r := importEnvoy{env: env}
	c := &cobra.Command{
		Use:   "envoy-ratelimit FILE...",
		Short: "Turn the configuration of envoyproxy/ratelimit into a policy",
		Long: `Turn the configuration of envoyproxy/ratelimit into a policy that decides the same way when
Envoy asks Sluice instead. Standard error tells line by line where it does not, and what is
good to know. What is too large for one policy becomes several: FILE, FILE-2 and so on.

Exit codes: 0 the policy was written and decides the same way, 1 nothing was written, 2 the
policy was written and differs where the lines with "differs" say.`,
		Example: `  sluice import envoy-ratelimit limits.yaml                     # look at it
  sluice import envoy-ratelimit config/*.yaml -o policies/limits.yaml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("no file given; name the files of the configuration, or - for standard input")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return r.run(args) },
	}
	f := c.Flags()
	f.StringVarP(&r.output, "output", "o", "-", "file to write the policy to; - is standard output")
	f.StringVar(&r.options.Name, "name", "", `name of the policy (default "ratelimit-" and the domain)`)
	f.StringVar(&r.point, "control-point", "ratelimit/{domain}", "control point of the flows, as in envoy_rate_limit.control_point of the server")
	f.BoolVar(&r.options.MergeDomains, "merge-domains", false, "several files may have the same domain (MERGE_DOMAIN_CONFIG of envoyproxy/ratelimit)")
	return c
}

func (r *importEnvoy) run(args []string) error {
	if r.options.Name != "" {
		if problem := strict.CheckName(r.options.Name); problem != nil {
			return fmt.Errorf("--name: %s", problem.Text())
		}
	}
	if r.output == "json" || r.output == "yaml" || r.output == "table" {
		return fmt.Errorf("--output: names a file here, and policies are always YAML; to have a file with that name write ./%s", r.output)
	}
	if r.point == "" {
		return errors.New("--control-point: got none, want the name of a control point, with {domain} where the domain belongs")
	}
	r.options.ControlPoint = func(domain string) string { return strings.ReplaceAll(r.point, "{domain}", domain) }
	files, err := r.read(args)
	if err != nil {
		return err
	}
	result, err := envoyconfig.Convert(files, r.options)
	var mistakes fielderr.List
	if errors.As(err, &mistakes) {
		for _, m := range mistakes {
			diagnostic{m.File, m.Line, m.Column, m.Path, m.Text(), m.Excerpt, "error"}.write(r.env.Stderr)
		}
		return exitCode(exitError)
	}
	if err != nil {
		return err
	}
	if err := r.write(result.Policies); err != nil {
		return err
	}
	for _, m := range result.Remarks {
		fmt.Fprintln(r.env.Stderr, clean(m.String()))
	}
	if result.Differs() {
		return exitCode(exitDiffers)
	}
	return nil
}

// read reads the files of a configuration, at most one byte more than a document may have.
func (r *importEnvoy) read(args []string) ([]envoyconfig.File, error) {
	files := make([]envoyconfig.File, len(args))
	for i, name := range args {
		in, closing := r.env.Stdin, func() {}
		if name != "-" {
			f, err := os.Open(name) //nolint:gosec // the user names it
			if err != nil {
				return nil, err
			}
			in, closing = f, func() { _ = f.Close() }
		}
		text, err := io.ReadAll(io.LimitReader(in, strict.MaxBytes+1))
		closing()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		files[i] = envoyconfig.File{Name: name, Text: text}
	}
	return files, nil
}

func (r *importEnvoy) write(policies []envoyconfig.Policy) error {
	if r.output != "-" {
		for i, p := range policies {
			if err := os.WriteFile(numbered(r.output, i+1), p.Text, 0o644); err != nil { //nolint:gosec // a policy is no secret
				return err
			}
		}
		return nil
	}
	if len(policies) > 1 {
		return fmt.Errorf("the configuration is too large for one policy, and a file has one; name a file with --output, and %d will be written", len(policies))
	}
	_, err := r.env.Stdout.Write(policies[0].Text)
	return err
}

// numbered is the name of a file for the n-th part: limits.yaml, limits-2.yaml.
func numbered(name string, n int) string {
	if n == 1 {
		return name
	}
	ext := filepath.Ext(name)
	return fmt.Sprintf("%s-%d%s", strings.TrimSuffix(name, ext), n, ext)
}
