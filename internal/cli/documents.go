// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	policyv1 "github.com/sluice-project/sluice/api/gen/sluice/policy/v1"
	"github.com/sluice-project/sluice/internal/app"
	"github.com/sluice-project/sluice/internal/document"
)

// source is one document to read.
type source struct {
	name string // as the user named it
	text []byte
}

// maxDocument is more than the server takes, so that it is the one to refuse.
const maxDocument = 2 << 20

// readSources reads files, the policy files of directories, and - for standard input.
func readSources(env Env, paths []string) ([]source, error) {
	var out []source
	for _, path := range paths {
		if path == "-" {
			text, err := io.ReadAll(io.LimitReader(env.Stdin, maxDocument))
			if err != nil {
				return nil, fmt.Errorf("read standard input: %w", err)
			}
			out = append(out, source{"", text})
			continue
		}
		files, err := policyFiles(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			out = append(out, source{file, text})
		}
	}
	return out, nil
}

// policyFiles is the file itself, or those of a directory that a policy directory would take, without tests
// of policies.
func policyFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		ext := strings.ToLower(filepath.Ext(e.Name()))
		if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") && !document.IsTest(e.Name()) && slices.Contains([]string{".yaml", ".yml", ".json"}, ext) {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: no *.yaml, *.yml or *.json file in this directory", path)
	}
	return files, nil
}

// diagnostic is one mistake in a document.
type diagnostic struct {
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
	Path     string `json:"path,omitempty"`
	Message  string `json:"message"`
	Excerpt  string `json:"excerpt,omitempty"`
	Severity string `json:"severity"` // error or warning
}

func fromDiagnostics(list []*policyv1.Diagnostic) []diagnostic {
	out := make([]diagnostic, len(list))
	for i, d := range list {
		out[i] = diagnostic{
			d.GetFile(), int(d.GetLine()), int(d.GetColumn()), d.GetPath(), d.GetMessage(), d.GetExcerpt(), d.GetSeverity(),
		}
	}
	return out
}

func fromProblems(list []document.Problem) []diagnostic {
	out := make([]diagnostic, len(list))
	for i, p := range list {
		out[i] = diagnostic{p.File, p.Line, p.Column, p.Path, p.Message, p.Excerpt, "error"}
		if p.Warning {
			out[i].Severity = "warning"
		}
	}
	return out
}

// write prints a mistake as compilers do, so that editors can jump to it.
func (d diagnostic) write(w io.Writer) {
	place := d.File
	if place == "" {
		place = "standard input"
	}
	if d.Line > 0 {
		place += fmt.Sprintf(":%d:%d", d.Line, max(d.Column, 1))
	}
	if d.Path != "" {
		place += ": " + d.Path
	}
	if d.Severity == "warning" {
		place += ": warning"
	}
	fmt.Fprintf(w, "%s: %s\n", clean(place), clean(d.Message))
	if d.Excerpt != "" {
		for line := range strings.SplitSeq(strings.TrimSuffix(d.Excerpt, "\n"), "\n") {
			fmt.Fprintln(w, clean(strings.ReplaceAll(line, "\t", " ")))
		}
	}
}

// documentFlags are the flags of commands that read documents.
type documentFlags struct {
	files     []string
	name      string
	blueprint string
}

func (f *documentFlags) register(c *cobra.Command) {
	c.Flags().StringArrayVarP(&f.files, "filename", "f", nil, "file or directory to read, - for standard input; may be repeated")
	c.Flags().StringVar(&f.name, "name", "", "name for a policy that does not carry one")
	c.Flags().StringVar(&f.blueprint, "blueprint", "", "blueprint for a values file that does not name one")
	must(c.MarkFlagFilename("filename", "yaml", "yml", "json"))
	must(c.RegisterFlagCompletionFunc("blueprint", completeBlueprints))
}

func (f *documentFlags) read(env Env, args []string) ([]source, error) {
	if len(f.files)+len(args) == 0 {
		return nil, errors.New("got no document, want -f FILE, -f DIRECTORY or -f - for standard input")
	}
	sources, err := readSources(env, append(slices.Clone(f.files), args...))
	if err == nil && len(sources) > 1 && f.name != "" {
		return nil, fmt.Errorf("--name: got a name for %d documents, want one document", len(sources))
	}
	return sources, err
}

func newValidate(g *globals) *cobra.Command {
	var f documentFlags
	c := &cobra.Command{
		Use:   "validate -f FILE",
		Short: "Check documents without a server",
		Long: `Check policy documents and print every mistake with its file, line, column and field.
It needs no server; "sluice policy apply --dry-run" asks the server too, which knows
the other policies. The exit code is 0 when all documents are good, else 1.`,
		Example: "  sluice policy validate -f limits.yaml\n  sluice policy validate -f policies/\n  cat limits.yaml | sluice policy validate -f -",
		RunE: func(_ *cobra.Command, args []string) error {
			if err := checkOutput(g.output); err != nil {
				return err
			}
			sources, err := f.read(g.env, args)
			if err != nil {
				return err
			}
			return validate(g, f, sources)
		},
	}
	f.register(c)
	return c
}

func validate(g *globals, f documentFlags, sources []source) error {
	result := struct {
		Valid       bool         `json:"valid"`
		Diagnostics []diagnostic `json:"diagnostics"`
	}{true, []diagnostic{}}
	var good []string
	for _, s := range sources {
		compiled, err := app.Compiler{}.Compile(document.Source{Name: f.name, File: s.name, Blueprint: f.blueprint, Text: s.text})
		if err == nil {
			good = append(good, fmt.Sprintf("%s: policy %s is good", or(s.name), compiled.Name))
			result.Diagnostics = append(result.Diagnostics, fromProblems(compiled.Warnings)...)
			continue
		}
		result.Valid = false
		var invalid *document.InvalidError
		if errors.As(err, &invalid) {
			result.Diagnostics = append(result.Diagnostics, fromProblems(invalid.Problems)...)
		} else {
			result.Diagnostics = append(result.Diagnostics, diagnostic{File: s.name, Message: err.Error(), Severity: "error"})
		}
	}
	err := show(g.env.Stdout, g.output, result, func() {
		for _, d := range result.Diagnostics {
			d.write(g.env.Stderr)
		}
		for _, line := range good {
			fmt.Fprintln(g.env.Stdout, clean(line))
		}
	})
	if err == nil && !result.Valid {
		return exitCode(exitError)
	}
	return err
}

func newApply(g *globals) *cobra.Command {
	var f documentFlags
	var by authorship
	var dryRun bool
	var expected int64
	c := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Put policies into force",
		Long: `Create or replace policies. A document with mistakes changes nothing: the version in
force stays. Of several documents all are checked before the first one is applied.`,
		Example: `  sluice policy apply -f limits.yaml
  sluice policy apply -f policies/ --dry-run
  sluice policy apply -f a.yaml -f b.yaml -m "for the launch"
  sluice blueprint values rate-limiting/base | edit | sluice policy apply -f -`,
		RunE: func(c *cobra.Command, args []string) error {
			sources, err := f.read(g.env, args)
			if err != nil {
				return err
			}
			if expected != 0 && len(sources) > 1 {
				return fmt.Errorf("--expected-version: got %d documents, want one", len(sources))
			}
			return runPolicies(c, g, func(ctx context.Context, r *remote) error {
				var requests []*policyv1.ApplyPolicyRequest
				for _, s := range sources {
					requests = append(requests, &policyv1.ApplyPolicyRequest{
						Document: strings.ToValidUTF8(string(s.text), "\uFFFD"), Name: f.name, File: s.name,
						Blueprint: f.blueprint, Comment: by.comment, Author: by.author, ExpectedVersion: expected,
					})
				}
				return applyAll(ctx, g, r, requests, dryRun)
			})
		},
	}
	f.register(c)
	by.register(c, g)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "let the server check everything, and change nothing")
	c.Flags().Int64Var(&expected, "expected-version", 0, "refuse unless this is the newest version; 0 does not care")
	return c
}

// applyAll checks all documents, then applies them.
func applyAll(ctx context.Context, g *globals, r *remote, requests []*policyv1.ApplyPolicyRequest, dryRun bool) error {
	if dryRun || len(requests) > 1 {
		checked, err := applyEach(ctx, g, r, requests, true)
		if err != nil || dryRun {
			return errors.Join(err, writeApplied(g, checked, true))
		}
	}
	applied, err := applyEach(ctx, g, r, requests, false)
	return errors.Join(writeApplied(g, applied, false), err)
}

// applyEach applies one after the other. A check goes on after a mistake, to show all; a change stops.
func applyEach(ctx context.Context, g *globals, r *remote, requests []*policyv1.ApplyPolicyRequest, dryRun bool) ([]policyInfo, error) {
	out := []policyInfo{}
	failed := 0
	for _, in := range requests {
		in.DryRun = dryRun
		got, err := call(ctx, r, r.policies.ApplyPolicy, in)
		if err == nil {
			p := fromPolicy(got.GetPolicy())
			p.Change, p.Warnings = got.GetChange(), fromDiagnostics(got.GetWarnings())
			out = append(out, p)
			continue
		}
		mistakes := mistakesOf(err)
		if mistakes == nil {
			return out, err
		}
		for _, d := range mistakes {
			d.write(g.env.Stderr)
		}
		if failed++; !dryRun {
			break
		}
	}
	if failed > 0 {
		return out, exitCode(exitError)
	}
	return out, nil
}

func writeApplied(g *globals, applied []policyInfo, dryRun bool) error {
	if len(applied) == 0 {
		return nil
	}
	return show(g.env.Stdout, g.output, applied, func() {
		for _, p := range applied {
			for _, w := range p.Warnings {
				w.write(g.env.Stderr)
			}
			text := fmt.Sprintf("policy %s %s, version %d", clean(p.Name), p.Change, p.Version)
			if dryRun {
				text = fmt.Sprintf("policy %s would be %s", clean(p.Name), p.Change)
			}
			fmt.Fprintln(g.env.Stdout, text)
		}
	})
}
