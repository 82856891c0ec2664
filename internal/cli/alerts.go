// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "github.com/sluice-project/sluice/api/gen/sluice/control/v1"
)

// alertInfo is an alert as commands print it.
type alertInfo struct {
	ID            string            `json:"id"`
	Name          string            `json:"name"`
	Severity      string            `json:"severity"`
	State         string            `json:"state"`
	Policy        string            `json:"policy"`
	Component     string            `json:"component"`
	Labels        map[string]string `json:"labels,omitempty"`
	Channels      []string          `json:"channels,omitempty"`
	StartTime     string            `json:"start_time,omitempty"`
	EndTime       string            `json:"end_time,omitempty"`
	LastTime      string            `json:"last_time,omitempty"`
	DeliveryError string            `json:"delivery_error,omitempty"`
}

func fromAlert(a *controlv1.Alert) alertInfo {
	at := func(t *timestamppb.Timestamp) string {
		if t == nil {
			return ""
		}
		return t.AsTime().Format(time.RFC3339Nano)
	}
	return alertInfo{
		ID: a.GetId(), Name: a.GetName(), Severity: a.GetSeverity(), State: a.GetState(), Policy: a.GetPolicy(), Component: a.GetComponent(),
		Labels: a.GetLabels(), Channels: a.GetChannels(), StartTime: at(a.GetStartTime()), EndTime: at(a.GetEndTime()), LastTime: at(a.GetLastTime()),
		DeliveryError: a.GetDeliveryError(),
	}
}

var alertStates = []string{"firing", "resolved"}

func newAlerts(g *globals) *cobra.Command {
	var policy, state string
	var limit int
	c := &cobra.Command{
		Use:   "alerts",
		Short: "List the alerts that policies raise",
		Long: `List the alerts that policies raise: those that fire and those that did, newest first. An
alert fires from the first tick on which its component raises it, and is resolved when it
was not raised for its resolve_timeout. "sluice serve" sends them to the targets of its
configuration; a delivery that fails is shown here.`,
		Example: `  sluice alerts
  sluice alerts --policy checkout --state firing
  sluice alerts -o json | jq '.[] | select(.severity == "crit")'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if state != "" && !slices.Contains(alertStates, state) {
				return fmt.Errorf("--state: got %q, want %s", state, strings.Join(alertStates, " or "))
			}
			if limit < 1 {
				return fmt.Errorf("--limit: got %d, want at least 1", limit)
			}
			return runPolicies(c, g, func(ctx context.Context, r *remote) error {
				list, err := r.alerts(ctx, policy, state, limit)
				if err != nil {
					return err
				}
				return show(g.env.Stdout, g.output, list, func() { writeAlerts(g, list) })
			})
		},
	}
	c.Flags().StringVar(&policy, "policy", "", "only those of this policy")
	c.Flags().StringVar(&state, "state", "", "only those that are firing or resolved")
	c.Flags().IntVar(&limit, "limit", 50, "at most this many alerts")
	must(c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(alertStates, cobra.ShellCompDirectiveNoFileComp)))
	must(c.RegisterFlagCompletionFunc("policy", completePolicies(g)))
	return c
}

func (r *remote) alerts(ctx context.Context, policy, state string, limit int) ([]alertInfo, error) {
	out := []alertInfo{}
	in := &controlv1.ListAlertsRequest{Policy: policy, State: state}
	for {
		in.PageSize = int32(min(1000, limit-len(out)))
		page, err := call(ctx, r, r.control.ListAlerts, in)
		if err != nil {
			return nil, err
		}
		for _, a := range page.GetAlerts() {
			out = append(out, fromAlert(a))
		}
		if in.PageToken = page.GetNextPageToken(); in.PageToken == "" || len(out) >= limit {
			return out, nil
		}
	}
}

func writeAlerts(g *globals, list []alertInfo) {
	if len(list) == 0 {
		fmt.Fprintln(g.env.Stdout, "no alerts")
		return
	}
	var rows []string
	for _, a := range list {
		channels := "-"
		switch {
		case a.DeliveryError != "":
			channels = "not delivered: " + clean(a.DeliveryError)
		case len(a.Channels) > 0:
			channels = clean(strings.Join(a.Channels, ", "))
		}
		until := "-"
		if a.EndTime != "" {
			until = when(a.EndTime)
		}
		rows = append(rows, strings.Join([]string{
			or(a.State), or(a.Severity), or(a.Policy), or(a.Component), or(a.Name), when(a.StartTime), until, channels,
		}, "\t"))
	}
	table(g.env.Stdout, "STATE\tSEVERITY\tPOLICY\tCOMPONENT\tALERT\tSINCE\tUNTIL\tCHANNELS", rows)
}
