// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newHealth(g *globals) *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{
		Use:   "health",
		Short: "Tell whether the server takes requests",
		Long: `Ask the server whether it takes requests. The exit code is 0 when it does, else 1.
It needs no token, so it suits health checks of containers.`,
		Example: `  sluice health
  sluice health --wait 10s        # until it is ready
  HEALTHCHECK CMD ["sluice", "health"]`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := g.connect()
			if err != nil {
				return err
			}
			state := struct {
				Ready bool `json:"ready"`
			}{true}
			if err := r.ready(c.Context(), wait); err != nil {
				return err
			}
			return show(g.env.Stdout, g.output, state, func() { fmt.Fprintln(g.env.Stdout, "ready") })
		},
	}
	c.Flags().DurationVar(&wait, "wait", 0, "how long to wait for the server to become ready")
	return c
}

// ready asks until the server is ready or the time is over.
func (r *remote) ready(ctx context.Context, wait time.Duration) error {
	end := time.Now().Add(wait)
	for {
		err := r.askReady(ctx)
		if err == nil || ctx.Err() != nil || !time.Now().Before(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (r *remote) askReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return fmt.Errorf("cannot reach the server at %s: %w", r.base, innermost(err))
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", r.base, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", r.base, clean(strings.TrimSpace(string(text))))
	}
	return nil
}
