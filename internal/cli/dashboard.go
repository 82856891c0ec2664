// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	policyv1 "github.com/sluice-project/sluice/api/gen/sluice/policy/v1"
	"github.com/sluice-project/sluice/internal/policy"
	"github.com/sluice-project/sluice/internal/policy/dashboard"
)

// dashboardInfo is a dashboard that was written.
type dashboardInfo struct {
	Title  string `json:"title"`
	Policy string `json:"policy"`
	File   string `json:"file"`
}

func newDashboard(g *globals) *cobra.Command {
	var f documentFlags
	var dir, datasource string
	c := &cobra.Command{
		Use:   "dashboard (NAME | -f FILE)",
		Short: "Write Grafana dashboards for a policy",
		Long: `Write Grafana dashboards for a policy, as files of JSON to import or to provision: a
summary with what each component does to flows, the signals of the circuit, and, for
policies with infra meters for PostgreSQL, Elasticsearch or RabbitMQ, what these report.

With -f it is a file or a directory of files, and no server is needed; with a NAME it is a
policy in force. The dashboards read any Prometheus that has Sluice's metrics: the server
itself (add a Prometheus data source with the URL of the server), or your own that scrapes
it. Which one is chosen at the top of each dashboard.`,
		Example: `  sluice dashboard -f checkout.yaml
  sluice dashboard -f policies/ --output-dir /etc/grafana/dashboards
  sluice dashboard checkout --datasource sluice`,
		ValidArgsFunction: completePolicies(g),
		Args:              nameOrFile(&f),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(g.output); err != nil {
				return err
			}
			docs, err := f.documents(c, g, args)
			if err != nil {
				return err
			}
			written, err := writeDashboards(docs, dir, dashboard.Options{Datasource: datasource})
			if err != nil {
				return err
			}
			return show(g.env.Stdout, g.output, written, func() {
				for _, w := range written {
					fmt.Fprintf(g.env.Stdout, "%s: %s\n", clean(w.File), clean(w.Title))
				}
			})
		},
	}
	f.register(c)
	c.Flags().StringVar(&dir, "output-dir", "dashboards", "directory to write to; it is made when it is missing")
	c.Flags().StringVar(&datasource, "datasource", "", "name of the data source that is chosen at first; without it, Grafana's default")
	must(c.MarkFlagDirname("output-dir"))
	return c
}

// documents are the policies of the files or, when there are none, the policy in force of that name.
func (f *documentFlags) documents(c *cobra.Command, g *globals, args []string) ([]*policy.Document, error) {
	var sources []policy.Source
	if len(args) > 0 {
		r, err := g.connect()
		if err != nil {
			return nil, err
		}
		got, err := call(c.Context(), r, r.policies.GetPolicy, &policyv1.GetPolicyRequest{Name: args[0]})
		if err != nil {
			return nil, r.explain(err)
		}
		p := got.GetPolicy()
		sources = []policy.Source{{Name: p.GetName(), Blueprint: p.GetBlueprint(), Text: []byte(p.GetDocument())}}
	} else {
		files, err := f.read(g.env, nil)
		if err != nil {
			return nil, err
		}
		for _, s := range files {
			sources = append(sources, policy.Source{File: s.name, Name: f.name, Blueprint: f.blueprint, Text: s.text})
		}
	}
	var docs []*policy.Document
	for _, s := range sources {
		doc, err := parseDocument(g, s)
		if err != nil {
			return nil, err
		}
		docs = append(docs, doc)
	}
	return docs, nil
}

func writeDashboards(docs []*policy.Document, dir string, o dashboard.Options) ([]dashboardInfo, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var written []dashboardInfo
	for _, doc := range docs {
		for _, d := range dashboard.Make(doc, o) {
			text, err := d.JSON()
			if err != nil {
				return nil, err
			}
			file := filepath.Join(dir, d.Name+".json")
			if err := os.WriteFile(file, text, 0o644); err != nil {
				return nil, err
			}
			written = append(written, dashboardInfo{d.Title, doc.Name, file})
		}
	}
	return written, nil
}
