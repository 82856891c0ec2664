// SPDX-License-Identifier: Apache-2.0

// Package demo runs the headline scenarios of Sluice against a real server and reports what it measured.
//
// A demo starts a service worth protecting (a simulated model server or a simulated provider), lets a
// crowd of users call it through the Go SDK, first without and then with a policy, and writes down every
// request. The service and the users are the same in both phases; the policy is the only difference.
// docs/demos.md says what is simulated and by which formulas.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Config says which demo to run, and against which server.
type Config struct {
	// Name is one of Names. Required.
	Name string
	// Server is the address of a Sluice server: host:port, http://host:port or https://host:port.
	// Required.
	Server string
	// Token is a bearer token for the server; empty for a server that asks for none.
	Token string
	// OutputDir is where the report goes; it is made if it does not exist, and files of an earlier run
	// are replaced. Empty: no report.
	OutputDir string
	// Scale is how many seconds of the story pass in one second of the clock. 0: the demo's own, with
	// which both phases take about a minute. At most MaxScale.
	Scale float64
	// Seed chooses the order of the prompts and the length of the answers. 0 means 1, so that runs are
	// repeatable unless asked otherwise.
	Seed uint64
	// Out gets progress and results; nil discards them.
	Out io.Writer
	// Interactive redraws one progress line; otherwise progress is plain lines.
	Interactive bool
}

// MaxScale bounds Config.Scale: beyond it a prompt is over before a packet has crossed the machine.
const MaxScale = 10_000

// plan builds one demo.
type plan struct {
	name, summary string
	scale         float64 // of the clock, when Config.Scale is 0
	build         func(cfg Config) (*experiment, error)
	run           func(ctx context.Context, cfg Config) error // instead of build, for demos of another kind
}

// plans is the table of demos.
var plans = []plan{
	{name: "mistral", summary: "10 users share a language model that serves 2 prompts at a time; paying users go first", scale: 100, build: newMistral},
	{name: "quota", summary: "20 workers share a provider's quota of requests and tokens per minute without a refusal", scale: 10, build: newQuota},
	{name: "overload", summary: "three times the load a service can carry: no limit, a wrong one, two that adapt", scale: 1, run: runOverload},
}

// Names lists the demos.
func Names() []string {
	names := make([]string, len(plans))
	for i, p := range plans {
		names[i] = p.name
	}
	return names
}

// Describe says in one line what a demo shows; empty for a name that is not one of Names.
func Describe(name string) string {
	if p, ok := planOf(name); ok {
		return p.summary
	}
	return ""
}

func planOf(name string) (plan, bool) {
	i := slices.IndexFunc(plans, func(p plan) bool { return p.name == name })
	if i < 0 {
		return plan{}, false
	}
	return plans[i], true
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	if _, ok := planOf(c.Name); !ok {
		errs = append(errs, fmt.Errorf("demo.name: got %q, want one of %s", c.Name, strings.Join(Names(), ", ")))
	}
	if c.Server == "" {
		errs = append(errs, errors.New("demo.server: got nothing, want the address of a server, for example 127.0.0.1:8080"))
	}
	if math.IsNaN(c.Scale) || c.Scale < 0 || c.Scale > MaxScale {
		errs = append(errs, fmt.Errorf("demo.scale: got %v, want 0 (the demo's own) to %d story seconds per second", c.Scale, MaxScale))
	}
	return errors.Join(errs...)
}

// withDefaults fills in what the zero values stand for.
func (c Config) withDefaults() Config {
	if p, ok := planOf(c.Name); ok && c.Scale == 0 {
		c.Scale = p.scale
	}
	if c.Seed == 0 {
		c.Seed = 1
	}
	if c.Out == nil {
		c.Out = io.Discard
	}
	return c
}

// Run runs a demo from start to end and writes its report. It changes the server only by the demo's own
// policies, which it takes out of force again before it returns, also when ctx ends early. Then the report
// covers what was measured until then and says so, and the error wraps that of ctx. Requests that
// were lost or refused are results, not errors.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	p, _ := planOf(cfg.Name)
	if p.run != nil {
		return p.run(ctx, cfg)
	}
	exp, err := p.build(cfg)
	if err != nil {
		return err
	}
	policies, err := newServerPolicies(cfg.Server, cfg.Token)
	if err != nil {
		return err
	}
	gate, err := newSDKGate(cfg.Server, cfg.Token)
	if err != nil {
		return err
	}
	defer gate.close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("demo: opening a port on 127.0.0.1 for the simulated service: %w", err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: len(exp.users)}
	defer transport.CloseIdleConnections()
	r := &runner{
		cfg: cfg, exp: exp, policies: policies, gate: gate,
		client: &http.Client{Transport: transport},
	}
	return r.run(ctx, listener)
}

// clock converts between the clock and the time of the story.
type clock float64

// real returns how long so many seconds of the story take by the clock.
func (c clock) real(storySeconds float64) time.Duration {
	return time.Duration(storySeconds / float64(c) * float64(time.Second))
}

// story returns how many seconds of the story a duration of the clock stands for.
func (c clock) story(d time.Duration) float64 { return d.Seconds() * float64(c) }
