// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
)

// checkResult is what check prints. Its fields are fixed: scripts rely on them.
type checkResult struct {
	ControlPoint      string          `json:"control_point"`
	Verdict           string          `json:"verdict"` // admit or deny
	Reason            string          `json:"reason"`
	Message           string          `json:"message"`
	Policy            string          `json:"policy"`  // that denied
	Limiter           string          `json:"limiter"` // of that policy
	LimiterKind       string          `json:"limiter_kind"`
	Account           string          `json:"account"`
	RetryAfterSeconds *float64        `json:"retry_after_seconds"` // null: not known, or no use
	WaitedSeconds     float64         `json:"waited_seconds"`
	HTTPStatus        int32           `json:"http_status"`
	Decisions         []checkDecision `json:"decisions,omitempty"` // with --explain
	// Of HTTP requests: the labels that classifiers made, and headers for the request and the response.
	DerivedLabels   map[string]string `json:"derived_labels,omitempty"`
	RequestHeaders  map[string]string `json:"request_headers,omitempty"`
	ResponseHeaders map[string]string `json:"response_headers,omitempty"`
}

type checkDecision struct {
	Policy        string  `json:"policy"`
	Limiter       string  `json:"limiter"`
	Kind          string  `json:"kind"`
	Account       string  `json:"account"`
	Admitted      bool    `json:"admitted"`
	Tokens        float64 `json:"tokens"`
	Remaining     float64 `json:"remaining"`
	Limit         float64 `json:"limit"`
	Workload      string  `json:"workload,omitempty"`
	Priority      float64 `json:"priority,omitempty"`
	WaitedSeconds float64 `json:"waited_seconds"`
	Note          string  `json:"note,omitempty"`
}

type checkFlags struct {
	labels   []string
	services []string
	timeout  time.Duration
	hold     time.Duration
	explain  bool
	http     httpFlags
}

func newCheck(g *globals) *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use:   "check CONTROL_POINT",
		Short: "Ask for one flow, and print the verdict and why",
		Long: `Start one flow at a control point, print the verdict and why, and end the flow.

The flow is a real one: it takes tokens, waits in queues and shows up in the metrics.
With --http it is that of an HTTP request, with its labels and those that classifiers
make, which are printed, too.
The exit code is 0 when it was admitted, 3 when it was denied, and 1 when there is no
verdict because of an error.`,
		Example: `  sluice check checkout --label user_id=alice --label tier=paid
  sluice check llm-prompt --label tokens=1200 --timeout 30s --explain
  sluice check export --hold 10s        # keep its slot for a while
  sluice check checkout --output json | jq .retry_after_seconds
  sluice check api --http 'POST /graphql' -H 'content-type: application/json' --body @query.json`,
		Args: exactArgs(1, "the name of a control point"),
		RunE: func(c *cobra.Command, args []string) error { return runCheck(c.Context(), g, args[0], f) },
	}
	c.Flags().StringArrayVarP(&f.labels, "label", "l", nil, "label of the flow as key=value; may be repeated")
	c.Flags().StringArrayVar(&f.services, "service", nil, "service the caller belongs to; may be repeated")
	c.Flags().DurationVar(&f.timeout, "timeout", 5*time.Second, "longest time to wait in queues; 0 does not wait")
	c.Flags().DurationVar(&f.hold, "hold", 0, "how long to keep an admitted flow before ending it")
	c.Flags().BoolVar(&f.explain, "explain", false, "also print what every limiter decided")
	f.http.add(c.Flags())
	return c
}

// exactArgs names what is missing.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("%s: got %s, want %s; see %s --help", c.CommandPath(), plural(len(args), "argument"), what, c.CommandPath())
		}
		return nil
	}
}

func parseLabels(list []string) (map[string]string, error) {
	labels := make(map[string]string, len(list))
	for _, l := range list {
		key, value, ok := strings.Cut(l, "=")
		switch {
		case !ok || key == "":
			return nil, fmt.Errorf("--label: got %q, want key=value", l)
		case !utf8.ValidString(l):
			return nil, fmt.Errorf("--label: got %q, want text in UTF-8", l)
		}
		labels[key] = value
	}
	return labels, nil
}

// answerGrace is how long the answer may take beyond the time in queues.
const answerGrace = 10 * time.Second

func runCheck(ctx context.Context, g *globals, point string, f checkFlags) error {
	labels, err := parseLabels(f.labels)
	if err != nil {
		return err
	}
	if f.timeout < 0 || f.hold < 0 {
		return fmt.Errorf("--timeout and --hold: got %s and %s, want 0s or more", f.timeout, f.hold)
	}
	if err := checkOutput(g.output); err != nil {
		return err
	}
	request, err := f.http.request(g.env)
	if err != nil {
		return err
	}
	r, err := g.connect()
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, f.timeout+answerGrace)
	defer cancel()
	result, token, err := r.check(waiting, &flowv1.StartRequest{
		ControlPoint: point, Labels: labels, Services: f.services, Explain: f.explain,
		QueueTimeout: durationpb.New(f.timeout),
	}, request)
	if err != nil {
		return r.explain(err)
	}
	if err := show(g.env.Stdout, g.output, result, func() { result.write(g.env.Stdout) }); err != nil {
		return err
	}
	if result.Verdict != "admit" {
		return exitCode(exitDeny)
	}
	return r.finish(ctx, token, f.hold)
}

// check asks about a flow, or about an HTTP request if there is one.
func (r *remote) check(ctx context.Context, in *flowv1.StartRequest, request *flowv1.HTTPAttributes) (out checkResult, token []byte, err error) {
	if request == nil {
		got, err := r.flows.Start(ctx, connect.NewRequest(in))
		if err != nil {
			return checkResult{}, nil, err
		}
		return fromVerdict(in.ControlPoint, got.Msg), got.Msg.Token, nil
	}
	got, err := r.flows.CheckHTTP(ctx, connect.NewRequest(&flowv1.CheckHTTPRequest{
		ControlPoint: in.ControlPoint, Request: request, Labels: in.Labels, Services: in.Services,
		QueueTimeout: in.QueueTimeout, Explain: in.Explain,
	}))
	if err != nil {
		return checkResult{}, nil, err
	}
	out = fromVerdict(in.ControlPoint, got.Msg.Verdict)
	out.DerivedLabels, out.RequestHeaders, out.ResponseHeaders = got.Msg.DerivedLabels, got.Msg.RequestHeaders, got.Msg.ResponseHeaders
	return out, got.Msg.Verdict.Token, nil
}

// finish ends an admitted flow, also when the user does not want to hold it any longer.
func (r *remote) finish(ctx context.Context, token []byte, hold time.Duration) error {
	if hold > 0 {
		timer := time.NewTimer(hold)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	_, err := call(context.WithoutCancel(ctx), r, r.flows.End, &flowv1.EndRequest{Token: token, Status: flowv1.FlowStatus_FLOW_STATUS_OK})
	if err != nil {
		return fmt.Errorf("the flow was admitted, but could not be ended: %w", r.explain(err))
	}
	return nil
}

func fromVerdict(point string, v *flowv1.StartResponse) checkResult {
	out := checkResult{
		ControlPoint: point, Verdict: v.Verdict, Reason: v.Reason, Message: v.Message, Policy: v.Policy,
		Limiter: v.Limiter, LimiterKind: v.LimiterKind, Account: v.Account, RetryAfterSeconds: v.RetryAfterSeconds,
		WaitedSeconds: v.WaitedSeconds, HTTPStatus: v.HttpStatus,
	}
	for _, d := range v.Decisions {
		out.Decisions = append(out.Decisions, checkDecision{
			Policy: d.Policy, Limiter: d.Limiter, Kind: d.Kind, Account: d.Account, Admitted: d.Admitted,
			Tokens: d.Tokens, Remaining: d.Remaining, Limit: d.Limit, Workload: d.Workload, Priority: d.Priority,
			WaitedSeconds: d.WaitedSeconds, Note: d.Note,
		})
	}
	return out
}

// write prints the result for people.
func (r checkResult) write(w io.Writer) {
	fmt.Fprintf(w, "%s: %s\n", strings.ToUpper(r.Verdict), clean(r.Message))
	if r.Policy != "" {
		fmt.Fprintf(w, "  policy %s, %s %s, account %s\n", clean(r.Policy), r.LimiterKind, r.Limiter, clean(r.Account))
	}
	if r.RetryAfterSeconds != nil {
		fmt.Fprintf(w, "  retry after %s\n", seconds(*r.RetryAfterSeconds))
	}
	if r.WaitedSeconds > 0 {
		fmt.Fprintf(w, "  waited %s\n", seconds(r.WaitedSeconds))
	}
	writePairs(w, "label", "=", r.DerivedLabels)
	writePairs(w, "request header", ": ", r.RequestHeaders)
	writePairs(w, "response header", ": ", r.ResponseHeaders)
	if len(r.Decisions) == 0 {
		return
	}
	var rows []string
	for _, d := range r.Decisions {
		verdict := "admit"
		if !d.Admitted {
			verdict = "deny"
		}
		rows = append(rows, strings.Join([]string{
			verdict, clean(d.Policy), d.Limiter, d.Kind, clean(d.Account), number(d.Tokens), number(d.Remaining),
			number(d.Limit), clean(d.Workload), d.Note,
		}, "\t"))
	}
	fmt.Fprintln(w)
	table(w, "VERDICT\tPOLICY\tLIMITER\tKIND\tACCOUNT\tTOKENS\tLEFT\tLIMIT\tWORKLOAD\tNOTE", rows)
}
