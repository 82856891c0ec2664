// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	policyv1 "github.com/sluice-project/sluice/api/gen/sluice/policy/v1"
	"github.com/sluice-project/sluice/internal/fielderr"
)

func newPolicy(g *globals) *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "Apply, check, test, read, watch and roll back policies",
		Long: `A policy says what is limited, and how. It is written as a YAML file: the values of a
blueprint (see sluice blueprint), or a whole policy.`,
		Example: `  sluice policy validate -f limits.yaml     # needs no server
  sluice policy apply -f limits.yaml -m "double the limit of paying users"
  sluice policy history checkout
  sluice policy rollback checkout
  sluice policy test checkout_test.yaml     # your own tests of a policy
  sluice policy watch checkout              # its signals, live`,
		Args: subcommandOnly,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newApply(g), newValidate(g), newList(g), newGet(g), newHistory(g), newRollback(g), newDelete(g),
		newGraph(g), newPolicyTest(g), newWatch(g), newConfig(g))
	return c
}

// subcommandOnly refuses words that are no subcommand of a group.
func subcommandOnly(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, sub := range c.Commands() {
		names = append(names, sub.Name())
	}
	text := fmt.Sprintf("%s has no command %q", c.CommandPath(), args[0])
	if hint := fielderr.DidYouMean(args[0], names); hint != "" {
		return fmt.Errorf("%s; %s", text, hint)
	}
	return fmt.Errorf("%s; there are: %s", text, strings.Join(names, ", "))
}

// policyInfo is a policy as commands print it.
type policyInfo struct {
	Name       string          `json:"name"`
	Version    int64           `json:"version"`
	Change     string          `json:"change,omitempty"` // what apply did
	State      string          `json:"state,omitempty"`
	Hash       string          `json:"hash"`
	Blueprint  string          `json:"blueprint,omitempty"`
	Source     string          `json:"source,omitempty"`
	Author     string          `json:"author,omitempty"`
	Comment    string          `json:"comment,omitempty"`
	CreateTime string          `json:"create_time,omitempty"`
	Components []componentInfo `json:"components,omitempty"`
	Warnings   []diagnostic    `json:"warnings,omitempty"`
	Document   string          `json:"document,omitempty"`
}

type componentInfo struct {
	ID            string   `json:"id"`
	Kind          string   `json:"kind"`
	Status        string   `json:"status"`
	ControlPoints []string `json:"control_points,omitempty"`
}

func fromPolicy(p *policyv1.Policy) policyInfo {
	out := policyInfo{
		Name: p.GetName(), Version: p.GetVersion(), State: p.GetState(), Hash: p.GetHash(), Blueprint: p.GetBlueprint(),
		Source: p.GetSource(), Author: p.GetAuthor(), Comment: p.GetComment(), Document: p.GetDocument(),
	}
	if t := p.GetCreateTime(); t != nil {
		out.CreateTime = t.AsTime().Format(time.RFC3339Nano)
	}
	for _, c := range p.GetComponents() {
		out.Components = append(out.Components, componentInfo{c.GetId(), c.GetKind(), c.GetStatus(), c.GetControlPoints()})
	}
	return out
}

// when prints a time as people on this machine read it.
func when(t string) string {
	parsed, err := time.Parse(time.RFC3339Nano, t)
	if err != nil {
		return "-"
	}
	return parsed.Local().Format("2006-01-02 15:04:05")
}

// or is s, or a dash that keeps a column from being empty.
func or(s string) string {
	if s = clean(s); s == "" {
		return "-"
	}
	return s
}

// runPolicies connects and prints what do returns.
func runPolicies(c *cobra.Command, g *globals, do func(ctx context.Context, r *remote) error) error {
	if err := checkOutput(g.output); err != nil {
		return err
	}
	r, err := g.connect()
	if err != nil {
		return err
	}
	return r.explain(do(c.Context(), r))
}

func newList(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the policies in force",
		Args:    cobra.NoArgs,
		Example: "  sluice policy list\n  sluice policy list -o json | jq -r '.[].name'",
		RunE: func(c *cobra.Command, _ []string) error {
			return runPolicies(c, g, func(ctx context.Context, r *remote) error {
				list, err := r.list(ctx)
				if err != nil {
					return err
				}
				return show(g.env.Stdout, g.output, list, func() { writeList(g, list) })
			})
		},
	}
}

func (r *remote) list(ctx context.Context) ([]policyInfo, error) {
	out := []policyInfo{}
	in := &policyv1.ListPoliciesRequest{PageSize: 1000}
	for {
		page, err := call(ctx, r, r.policies.ListPolicies, in)
		if err != nil {
			return nil, err
		}
		for _, p := range page.GetPolicies() {
			out = append(out, fromPolicy(p))
		}
		if in.PageToken = page.GetNextPageToken(); in.PageToken == "" {
			return out, nil
		}
	}
}

func writeList(g *globals, list []policyInfo) {
	if len(list) == 0 {
		fmt.Fprintln(g.env.Stdout, "no policy is in force: write one with \"sluice blueprint values NAME\" and apply it with \"sluice policy apply -f FILE\"")
		return
	}
	var rows []string
	for _, p := range list {
		works, troubled := 0, 0
		for _, c := range p.Components {
			switch {
			case c.Status != "running":
				troubled++
			case len(c.ControlPoints) > 0:
				works++
			}
		}
		inForce := plural(works, "limiter")
		if troubled > 0 {
			inForce += ", " + plural(troubled, "problem")
		}
		rows = append(rows, strings.Join([]string{
			clean(p.Name), strconv.FormatInt(p.Version, 10), or(p.Blueprint), inForce, or(p.Source), or(p.Author), when(p.CreateTime),
		}, "\t"))
	}
	table(g.env.Stdout, "NAME\tVERSION\tBLUEPRINT\tIN FORCE\tSOURCE\tAUTHOR\tCHANGED", rows)
}

func newGet(g *globals) *cobra.Command {
	var version int64
	c := &cobra.Command{
		Use:   "get NAME",
		Short: "Show one policy",
		Long: `Show one policy: who made it and when, what its components do, and its document.
With -o yaml only the document is printed, as it was applied; with -o json everything.`,
		Example:           "  sluice policy get checkout\n  sluice policy get checkout --version 3 -o yaml > checkout.yaml",
		Args:              exactArgs(1, "the name of a policy"),
		ValidArgsFunction: completePolicies(g),
		RunE: func(c *cobra.Command, args []string) error {
			return runPolicies(c, g, func(ctx context.Context, r *remote) error {
				got, err := call(ctx, r, r.policies.GetPolicy, &policyv1.GetPolicyRequest{Name: args[0], Version: version})
				if err != nil {
					return err
				}
				p := fromPolicy(got.GetPolicy())
				if g.output == "yaml" {
					fmt.Fprint(g.env.Stdout, p.Document)
					return nil
				}
				return show(g.env.Stdout, g.output, p, func() { writePolicy(g, p) })
			})
		},
	}
	c.Flags().Int64Var(&version, "version", 0, "an older version; 0 is the one in force")
	return c
}

func writePolicy(g *globals, p policyInfo) {
	w := g.env.Stdout
	fmt.Fprintf(w, "%s version %d, %s, %s", clean(p.Name), p.Version, p.State, when(p.CreateTime))
	if p.Author != "" {
		fmt.Fprintf(w, " by %s", clean(p.Author))
	}
	if p.Comment != "" {
		fmt.Fprintf(w, ": %s", clean(p.Comment))
	}
	fmt.Fprintf(w, "\nhash %s, from %s\n\n", p.Hash, p.Source)
	if len(p.Components) > 0 {
		var rows []string
		for _, c := range p.Components {
			rows = append(rows, strings.Join([]string{c.ID, c.Kind, clean(c.Status), or(strings.Join(c.ControlPoints, ", "))}, "\t"))
		}
		table(w, "COMPONENT\tKIND\tSTATUS\tCONTROL POINTS", rows)
		fmt.Fprintln(w)
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(p.Document, "\n"), "\n") {
		fmt.Fprintln(w, clean(strings.ReplaceAll(line, "\t", "    ")))
	}
}

func newHistory(g *globals) *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use:               "history NAME",
		Short:             "List the versions of a policy, newest first",
		Long:              "List what was in force when and who changed it, newest first. Deleted policies have a history too.",
		Example:           "  sluice policy history checkout",
		Args:              exactArgs(1, "the name of a policy"),
		ValidArgsFunction: completePolicies(g),
		RunE: func(c *cobra.Command, args []string) error {
			if limit < 1 {
				return fmt.Errorf("--limit: got %d, want at least 1", limit)
			}
			return runPolicies(c, g, func(ctx context.Context, r *remote) error {
				list, err := r.history(ctx, args[0], limit)
				if err != nil {
					return err
				}
				return show(g.env.Stdout, g.output, list, func() { writeHistory(g, list) })
			})
		},
	}
	c.Flags().IntVar(&limit, "limit", 50, "at most this many versions")
	return c
}

func (r *remote) history(ctx context.Context, name string, limit int) ([]policyInfo, error) {
	out := []policyInfo{}
	in := &policyv1.ListPolicyVersionsRequest{Name: name}
	for {
		in.PageSize = int32(min(1000, limit-len(out)))
		page, err := call(ctx, r, r.policies.ListPolicyVersions, in)
		if err != nil {
			return nil, err
		}
		for _, p := range page.GetVersions() {
			out = append(out, fromPolicy(p))
		}
		if in.PageToken = page.GetNextPageToken(); in.PageToken == "" || len(out) >= limit {
			return out, nil
		}
	}
}

func writeHistory(g *globals, list []policyInfo) {
	var rows []string
	for _, p := range list {
		rows = append(rows, strings.Join([]string{
			strconv.FormatInt(p.Version, 10), p.State, when(p.CreateTime), or(p.Author), or(p.Source), p.Hash[:min(12, len(p.Hash))], or(p.Comment),
		}, "\t"))
	}
	table(g.env.Stdout, "VERSION\tSTATE\tCHANGED\tAUTHOR\tSOURCE\tHASH\tCOMMENT", rows)
}

func newRollback(g *globals) *cobra.Command {
	var version int64
	var by authorship
	c := &cobra.Command{
		Use:   "rollback NAME",
		Short: "Put an older version into force again",
		Long: `Put an older version of a policy into force again, as a new version. A deleted policy
comes back. Without --to-version it is the version before the newest.`,
		Example:           "  sluice policy rollback checkout\n  sluice policy rollback checkout --to-version 3",
		Args:              exactArgs(1, "the name of a policy"),
		ValidArgsFunction: completePolicies(g),
		RunE: func(c *cobra.Command, args []string) error {
			return runPolicies(c, g, func(ctx context.Context, r *remote) error {
				got, err := call(ctx, r, r.policies.RollbackPolicy, &policyv1.RollbackPolicyRequest{
					Name: args[0], Version: version, Comment: by.comment, Author: by.author,
				})
				if err != nil {
					return err
				}
				p := fromPolicy(got.GetPolicy())
				return show(g.env.Stdout, g.output, p, func() {
					fmt.Fprintf(g.env.Stdout, "policy %s is rolled back: version %d is in force\n", clean(p.Name), p.Version)
				})
			})
		},
	}
	c.Flags().Int64Var(&version, "to-version", 0, "the version to put into force; 0 is the one before the newest")
	by.register(c, g)
	return c
}

func newDelete(g *globals) *cobra.Command {
	var by authorship
	c := &cobra.Command{
		Use:     "delete NAME...",
		Aliases: []string{"rm"},
		Short:   "Take policies out of force",
		Long: `Take policies out of force. Their versions are kept: rollback brings a policy back,
with the counts its limits had, if that is within the hour.`,
		Example:           "  sluice policy delete checkout -m \"not needed any more\"",
		ValidArgsFunction: completePolicies(g),
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("%s: got no argument, want the name of a policy", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return runPolicies(c, g, func(ctx context.Context, r *remote) error {
				var deleted []policyInfo
				var errs []error
				for _, name := range args {
					got, err := call(ctx, r, r.policies.DeletePolicy, &policyv1.DeletePolicyRequest{
						Name: name, Comment: by.comment, Author: by.author,
					})
					if err != nil {
						errs = append(errs, r.explain(err))
						continue
					}
					deleted = append(deleted, fromPolicy(got.GetPolicy()))
				}
				return errors.Join(show(g.env.Stdout, g.output, deleted, func() {
					for _, p := range deleted {
						fmt.Fprintf(g.env.Stdout, "policy %s is deleted (version %d records it)\n", clean(p.Name), p.Version)
					}
				}), errors.Join(errs...))
			})
		},
	}
	by.register(c, g)
	return c
}

// authorship is who makes a change and why.
type authorship struct{ author, comment string }

func (a *authorship) register(c *cobra.Command, g *globals) {
	user := g.env.lookup("USER")
	c.Flags().StringVarP(&a.comment, "comment", "m", "", "why, for the history")
	c.Flags().StringVar(&a.author, "author", user, "who, for the history; a server that asks for tokens takes the holder of the token (default $USER)")
	c.Flags().Lookup("author").DefValue = ""
}

// completePolicies offers the names of policies, if the server can be asked.
func completePolicies(g *globals) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		r, err := g.connect()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(c.Context(), 2*time.Second)
		defer cancel()
		list, err := r.list(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, p := range list {
			if !slices.Contains(args, p.Name) {
				names = append(names, p.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// mistakesOf are the mistakes in a document that an error of the server carries.
func mistakesOf(err error) []diagnostic {
	var call *connect.Error
	if !errors.As(err, &call) {
		return nil
	}
	for _, d := range call.Details() {
		value, derr := d.Value()
		if list, ok := value.(*policyv1.Diagnostics); ok && derr == nil {
			return fromDiagnostics(list.GetDiagnostics())
		}
	}
	return nil
}
