// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	discoveryv1 "github.com/sluice-project/sluice/api/gen/sluice/discovery/v1"
)

type previewFlags struct {
	samples int
	service string
	filter  string
	timeout time.Duration
	changed bool
	denied  bool
}

func newPreview(g *globals) *cobra.Command {
	var f previewFlags
	c := &cobra.Command{
		Use:   "preview CONTROL_POINT",
		Short: "Show live flows: why they are denied, and their labels before and after classification",
		Long: `Show the next flows that come to a control point, as they are decided: the verdict and why,
their labels, what classifiers made of them, and what went wrong in classifiers. A flow that
waits is shown when it has waited. --denied shows only those that are denied.

Labels that classifiers made are marked with +, those they changed with ~. The values of
headers and query parameters that are secrets by their names are hidden; the bodies of
requests are in the JSON, unless your role is viewer. It ends after so many flows, or when
you interrupt it. When flows come faster than they can be shown, some are left out.`,
		Example: `  sluice preview checkout
  sluice preview checkout --denied
  sluice preview ingress --samples 3 --service checkout.shop.svc.cluster.local
  sluice preview ingress --filter 'labels["user_type"] == "gold"'
  sluice preview ingress --samples 1 -o json | jq .http`,
		Args:              exactArgs(1, "the name of a control point"),
		ValidArgsFunction: completePoints(g),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case f.samples < 1 || f.samples > 1000:
				return fmt.Errorf("--samples: got %d, want 1 to 1000", f.samples)
			case f.timeout < 0:
				return fmt.Errorf("--timeout: got %s, want more than 0s, or 0s to wait on", f.timeout)
			}
			return runPolicies(c, g, func(ctx context.Context, r *remote) error { return runPreview(ctx, g, r, args[0], f) })
		},
	}
	c.Flags().IntVarP(&f.samples, "samples", "n", 10, "end after this many flows, at most 1000")
	c.Flags().StringVar(&f.service, "service", "", "only flows of this service")
	c.Flags().StringVar(&f.filter, "filter", "", "only flows whose labels, after classification, satisfy this CEL expression")
	c.Flags().BoolVar(&f.denied, "denied", false, "only flows that are denied")
	c.Flags().DurationVar(&f.timeout, "timeout", 0, "end after this time, whatever was seen; 0 waits on")
	c.Flags().BoolVar(&f.changed, "changed", false, "in the table, show only labels that classifiers made or changed")
	return c
}

func runPreview(ctx context.Context, g *globals, r *remote, point string, f previewFlags) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if f.timeout > 0 { // not a deadline, which the server would answer with an error
		defer time.AfterFunc(f.timeout, cancel).Stop()
	}
	p := &progress{out: g.env.Stderr, live: g.env.Progress, point: point, want: f.samples}
	defer p.clear()
	p.show()
	stream, err := r.discovery.PreviewFlows(ctx, connect.NewRequest(&discoveryv1.PreviewFlowsRequest{
		ControlPoint: point, Samples: int32(f.samples), Service: f.service, Filter: f.filter, DeniedOnly: f.denied,
	}))
	if err == nil {
		for p.seen < f.samples && stream.Receive() {
			p.clear()
			p.seen++
			if err = printSample(g, stream.Msg(), p.seen, f); err != nil {
				break
			}
			p.show()
		}
		if err == nil && p.seen < f.samples {
			err = stream.Err()
		}
		if closed := stream.Close(); err == nil && p.seen < f.samples {
			err = closed
		}
	}
	p.clear()
	switch {
	case p.seen == f.samples && err == nil:
		return nil
	case ctx.Err() != nil: // somebody has seen enough, or the time is over
		fmt.Fprintf(g.env.Stderr, "ended after %d of %d flows\n", p.seen, f.samples)
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("the server ended the preview after %d of %d flows: is it stopping?", p.seen, f.samples)
}

// progress says on a line of its own how many flows have been seen.
type progress struct {
	out        io.Writer
	live       bool // out is a terminal
	point      string
	seen, want int
	shown      bool
}

func (p *progress) show() {
	if p.live && p.seen < p.want {
		fmt.Fprintf(p.out, "%d of %d flows at %s; Ctrl-C ends", p.seen, p.want, clean(p.point))
		p.shown = true
	}
}

func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K") // begin and clear the line
		p.shown = false
	}
}

// printSample prints one flow: as text, as a line of JSON, or as a document of YAML.
func printSample(g *globals, s *discoveryv1.PreviewFlowsResponse, n int, f previewFlags) error {
	if g.output == "table" {
		writeSample(g.env.Stdout, s, n, f.changed)
		return nil
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(s)
	if err != nil {
		return err
	}
	if g.output == "yaml" {
		fmt.Fprintln(g.env.Stdout, "---")
		return printJSON(g.env.Stdout, g.output, text)
	}
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil {
		return err
	}
	line.WriteByte('\n')
	_, err = g.env.Stdout.Write(line.Bytes())
	return err
}

// longestShown bounds the values of labels in a table, in characters.
const longestShown = 120

func writeSample(w io.Writer, s *discoveryv1.PreviewFlowsResponse, n int, changedOnly bool) {
	fmt.Fprintf(w, "%d  %s", n, s.GetTime().AsTime().Local().Format("15:04:05.000"))
	if len(s.GetServices()) > 0 {
		fmt.Fprintf(w, "  %s", clean(strings.Join(s.GetServices(), ", ")))
	}
	fmt.Fprintln(w)
	if s.GetVerdict() != "" { // servers before there were verdicts
		fmt.Fprintf(w, "   %s: %s\n", clean(strings.ToUpper(s.GetVerdict())), clean(s.GetMessage()))
	}
	rows := labelRows(s.GetLabelsBefore(), s.GetLabelsAfter(), changedOnly)
	width := 0
	for _, r := range rows {
		width = max(width, len([]rune(r.key)))
	}
	for _, r := range rows {
		fmt.Fprintf(w, " %s %-*s  %s\n", r.mark, width, r.key, r.value)
	}
	if len(rows) == 0 && changedOnly {
		fmt.Fprintln(w, "   classifiers made no labels")
	} else if len(rows) == 0 {
		fmt.Fprintln(w, "   no labels")
	}
	for _, p := range s.GetProblems() {
		fmt.Fprintf(w, " ! classifier %d of policy %s: %s: %s\n", p.GetIndex(), clean(p.GetPolicy()), clean(p.GetCode()), clean(p.GetMessage()))
	}
}

// labelRow is a line of a sample.
type labelRow struct{ mark, key, value string }

// labelRows compares labels: what was made comes last, where it is looked for.
func labelRows(before, after map[string]string, changedOnly bool) []labelRow {
	var same, made []labelRow
	for _, key := range slices.Sorted(maps.Keys(after)) {
		now := shortText(after[key])
		was, ok := before[key]
		switch {
		case !ok:
			made = append(made, labelRow{"+", clean(key), now})
		case was != after[key]:
			made = append(made, labelRow{"~", clean(key), shortText(was) + " → " + now})
		case !changedOnly:
			same = append(same, labelRow{" ", clean(key), now})
		}
	}
	return append(same, made...)
}

func shortText(s string) string {
	s = clean(s)
	if r := []rune(s); len(r) > longestShown {
		s = string(r[:longestShown-1]) + "…"
	}
	if s == "" {
		return `""`
	}
	return s
}
