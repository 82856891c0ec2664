// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "github.com/sluice-project/sluice/api/gen/sluice/discovery/v1"
)

// pointInfo is a control point as commands print it. Its fields are fixed: scripts rely on them.
type pointInfo struct {
	Name            string      `json:"name"`
	Type            string      `json:"type"` // http or feature
	FlowsPerSecond  float64     `json:"flows_per_second"`
	DeniedPerSecond float64     `json:"denied_per_second"`
	Flows           uint64      `json:"flows"` // since the server started
	LastSeen        string      `json:"last_seen,omitempty"`
	Services        []string    `json:"services"`
	Policies        []string    `json:"policies"`
	Labels          []labelSeen `json:"labels"`
}

type labelSeen struct {
	Key      string   `json:"key"`
	Values   []string `json:"values"`   // some, the latest first
	Distinct int32    `json:"distinct"` // values; at_least: there were more
	AtLeast  bool     `json:"at_least"`
	Share    float64  `json:"share"` // of the flows that carried it
}

// serviceInfo is a service as commands print it.
type serviceInfo struct {
	Name     string       `json:"name"`
	Entities []entityInfo `json:"entities"`
}

type entityInfo struct {
	Address   string `json:"address"`
	Name      string `json:"name,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Node      string `json:"node,omitempty"`
	Source    string `json:"source"`
}

type sourceInfo struct {
	Name       string `json:"name"`
	Entities   int32  `json:"entities"`
	LastUpdate string `json:"last_update,omitempty"`
	Error      string `json:"error,omitempty"`
}

type servicesInfo struct {
	Services []serviceInfo `json:"services"`
	Sources  []sourceInfo  `json:"sources"`
}

type discoverFlags struct {
	services bool
	prefix   string
	contains string
	address  string
	limit    int
}

func newDiscover(g *globals) *cobra.Command {
	var f discoverFlags
	c := &cobra.Command{
		Use:   "discover [CONTROL_POINT]",
		Short: "Show the control points that flows pass, and the services behind addresses",
		Long: `Show the control points that flows have passed since the server started, busiest first,
with their rates over the last seconds and the labels that flows carry: what there is to
write policies for. With the name of a control point, show its labels one by one, with
some of their values and in how many flows they are.

With --services, show the services that the server knows by discovery (static, DNS or
Kubernetes), with the addresses behind them, and how the sources do.`,
		Example: `  sluice discover
  sluice discover checkout
  sluice discover --services --contains shop
  sluice discover --services --address 10.2.0.7
  sluice discover -o json | jq '.[] | select(.policies == []) | .name'`,
		Args:              mostArgs(1, "the name of a control point, or nothing"),
		ValidArgsFunction: completePoints(g),
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.check(args); err != nil {
				return err
			}
			return runPolicies(c, g, func(ctx context.Context, r *remote) error {
				switch {
				case f.services:
					return discoverServices(ctx, g, r, f)
				case len(args) == 1:
					return discoverPoint(ctx, g, r, args[0])
				}
				return discoverPoints(ctx, g, r, f)
			})
		},
	}
	c.Flags().BoolVar(&f.services, "services", false, "show services instead of control points")
	c.Flags().StringVar(&f.prefix, "prefix", "", "only control points whose name begins with this")
	c.Flags().StringVar(&f.contains, "contains", "", "with --services: only services whose name contains this")
	c.Flags().StringVar(&f.address, "address", "", "with --services: only services that have this IP address")
	c.Flags().IntVar(&f.limit, "limit", 100, "at most this many control points or services")
	return c
}

// mostArgs takes up to n arguments.
func mostArgs(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > n {
			return fmt.Errorf("%s: got %s, want %s; see %s --help", c.CommandPath(), plural(len(args), "argument"), what, c.CommandPath())
		}
		return nil
	}
}

func (f discoverFlags) check(args []string) error {
	switch {
	case f.limit < 1:
		return fmt.Errorf("--limit: got %d, want at least 1", f.limit)
	case f.services && len(args) > 0:
		return fmt.Errorf("got %q and --services, want one of them; to search for a service use --contains", args[0])
	case f.services && f.prefix != "":
		return errors.New("--prefix: it is for control points; to search for services use --contains")
	case !f.services && f.contains+f.address != "":
		return errors.New("--contains and --address: they are for services, want --services with them")
	case len(args) > 0 && f.prefix != "":
		return fmt.Errorf("got %q and --prefix, want one of them", args[0])
	}
	if f.address != "" {
		if _, err := netip.ParseAddr(f.address); err != nil {
			return fmt.Errorf("--address: got %q, want an IP address such as 10.2.0.7", f.address)
		}
	}
	return nil
}

func timeText(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Format(time.RFC3339Nano)
}

// some is an empty list rather than null.
func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func fromPoint(p *discoveryv1.ControlPoint) pointInfo {
	out := pointInfo{
		Name: p.GetName(), Type: p.GetType(), FlowsPerSecond: p.GetFlowsPerSecond(), DeniedPerSecond: p.GetDeniedPerSecond(),
		Flows: p.GetFlows(), LastSeen: timeText(p.GetLastSeen()), Services: some(p.GetServices()), Policies: some(p.GetPolicies()),
		Labels: []labelSeen{},
	}
	for _, l := range p.GetLabels() {
		out.Labels = append(out.Labels, labelSeen{l.GetKey(), some(l.GetValues()), l.GetDistinct(), l.GetAtLeast(), l.GetShare()})
	}
	return out
}

func (r *remote) points(ctx context.Context, prefix string, limit int) ([]pointInfo, error) {
	out := []pointInfo{}
	in := &discoveryv1.ListControlPointsRequest{Prefix: prefix}
	for {
		in.PageSize = int32(min(1000, limit-len(out)))
		page, err := call(ctx, r, r.discovery.ListControlPoints, in)
		if err != nil {
			return nil, err
		}
		for _, p := range page.GetControlPoints() {
			out = append(out, fromPoint(p))
		}
		if in.PageToken = page.GetNextPageToken(); in.PageToken == "" || len(out) >= limit {
			return out, nil
		}
	}
}

func discoverPoints(ctx context.Context, g *globals, r *remote, f discoverFlags) error {
	list, err := r.points(ctx, f.prefix, f.limit)
	if err != nil {
		return err
	}
	return show(g.env.Stdout, g.output, list, func() {
		if len(list) == 0 {
			fmt.Fprintln(g.env.Stdout, "no flows have passed since the server started")
			return
		}
		var rows []string
		for _, p := range list {
			rows = append(rows, strings.Join([]string{
				cmp.Or(clean(p.Name), `""`), p.Type, number(p.FlowsPerSecond), number(p.DeniedPerSecond), fewOf(p.Services, 2), fewOf(p.Policies, 2), p.keys(),
			}, "\t"))
		}
		table(g.env.Stdout, "CONTROL POINT\tTYPE\tFLOWS/S\tDENIED/S\tSERVICES\tPOLICIES\tLABELS", rows)
	})
}

// fewOf lists the first few texts and how many more there are.
func fewOf(list []string, few int) string {
	if len(list) == 0 {
		return "-"
	}
	shown := slices.Clone(list[:min(few, len(list))])
	for i, s := range shown {
		shown[i] = cmp.Or(clean(s), `""`)
	}
	text := strings.Join(shown, ", ")
	if more := len(list) - few; more > 0 {
		text += fmt.Sprintf(" +%d", more)
	}
	return text
}

// fewKeys is how many labels fit into a line.
const fewKeys = 5

// keys lists the labels that say most about this control point: every HTTP request has those beginning with http and
// aperture.
func (p *pointInfo) keys() string {
	keys := make([]string, 0, len(p.Labels))
	for _, usual := range []bool{false, true} {
		for _, l := range p.Labels {
			if (strings.HasPrefix(l.Key, "http.") || strings.HasPrefix(l.Key, "aperture.")) == usual {
				keys = append(keys, l.Key)
			}
		}
	}
	return fewOf(keys, fewKeys)
}

func discoverPoint(ctx context.Context, g *globals, r *remote, name string) error {
	list, err := r.points(ctx, name, 10_000)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(list, func(p pointInfo) bool { return p.Name == name })
	if at < 0 {
		return fmt.Errorf("no flows have passed a control point named %q since the server started; sluice discover lists those they did pass", name)
	}
	p := list[at]
	return show(g.env.Stdout, g.output, p, func() { writePoint(g, &p) })
}

func writePoint(g *globals, p *pointInfo) {
	out := g.env.Stdout
	fmt.Fprintf(out, "%s: %s, %s flows/s, %s denied/s, %d flows since start\n", clean(p.Name), p.Type, number(p.FlowsPerSecond), number(p.DeniedPerSecond), p.Flows)
	fmt.Fprintf(out, "services: %s\n", fewOf(p.Services, 20))
	fmt.Fprintf(out, "policies: %s\n", fewOf(p.Policies, 20))
	if len(p.Labels) == 0 {
		fmt.Fprintln(out, "its flows have no labels")
		return
	}
	fmt.Fprintln(out)
	var rows []string
	for _, l := range p.Labels {
		values := "-"
		if len(l.Values) > 0 {
			values = fmt.Sprint(l.Distinct)
			if l.AtLeast {
				values += "+"
			}
		}
		rows = append(rows, fmt.Sprintf("%s\t%.0f%%\t%s\t%s", clean(l.Key), 100*l.Share, values, fewOf(l.Values, 6)))
	}
	table(out, "LABEL\tIN FLOWS\tVALUES\tFOR EXAMPLE", rows)
}

func (r *remote) services(ctx context.Context, f discoverFlags) (*servicesInfo, error) {
	out := &servicesInfo{Services: []serviceInfo{}, Sources: []sourceInfo{}}
	in := &discoveryv1.ListServicesRequest{NameContains: f.contains, Address: f.address}
	for {
		in.PageSize = int32(min(1000, f.limit-len(out.Services)))
		page, err := call(ctx, r, r.discovery.ListServices, in)
		if err != nil {
			return nil, err
		}
		for _, s := range page.GetServices() {
			one := serviceInfo{Name: s.GetName(), Entities: []entityInfo{}}
			for _, e := range s.GetEntities() {
				one.Entities = append(one.Entities, entityInfo{e.GetAddress(), e.GetName(), e.GetNamespace(), e.GetNode(), e.GetSource()})
			}
			out.Services = append(out.Services, one)
		}
		in.PageToken = page.GetNextPageToken()
		if in.PageToken != "" && len(out.Services) < f.limit {
			continue
		}
		for _, s := range page.GetSources() {
			out.Sources = append(out.Sources, sourceInfo{s.GetName(), s.GetEntities(), timeText(s.GetLastUpdate()), s.GetError()})
		}
		return out, nil
	}
}

func discoverServices(ctx context.Context, g *globals, r *remote, f discoverFlags) error {
	got, err := r.services(ctx, f)
	if err != nil {
		return err
	}
	return show(g.env.Stdout, g.output, got, func() { writeServices(g, got) })
}

func writeServices(g *globals, got *servicesInfo) {
	if len(got.Sources) == 0 {
		fmt.Fprintln(g.env.Stdout, "no services: the configuration of the server has no source in its section discovery")
		return
	}
	var rows []string
	for _, s := range got.Services {
		var addresses, sources []string
		for _, e := range s.Entities {
			addresses = append(addresses, e.Address)
			if !slices.Contains(sources, e.Source) {
				sources = append(sources, e.Source)
			}
		}
		rows = append(rows, strings.Join([]string{
			clean(s.Name), fmt.Sprint(len(s.Entities)), cmp.Or(strings.Join(sources, ", "), "-"), fewOf(addresses, 3),
		}, "\t"))
	}
	if len(rows) == 0 {
		fmt.Fprintln(g.env.Stdout, "no services")
	} else {
		table(g.env.Stdout, "SERVICE\tENTITIES\tSOURCE\tADDRESSES", rows)
	}
	fmt.Fprintln(g.env.Stdout)
	rows = nil
	for _, s := range got.Sources {
		rows = append(rows, strings.Join([]string{clean(s.Name), fmt.Sprint(s.Entities), when(s.LastUpdate), or(s.Error)}, "\t"))
	}
	table(g.env.Stdout, "SOURCE\tENTITIES\tUP TO DATE\tPROBLEM", rows)
}

// completePoints completes the names of control points.
func completePoints(g *globals) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		r, err := g.connect()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(c.Context(), 2*time.Second)
		defer cancel()
		list, err := r.points(ctx, typed, 100)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []cobra.Completion
		for _, p := range list {
			names = append(names, p.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
