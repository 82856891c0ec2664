// SPDX-License-Identifier: Apache-2.0

package rls

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/rls/descriptor"
)

// Config says how descriptors become flows. Engine is required.
type Config struct {
	Engine *flow.Engine
	// Services finds the services at an IP address; nil: flows have none.
	Services func(address string) []string
	// ControlPoint of the flows; DomainMark in it stands for the domain of the request. "":
	// DefaultControlPoint.
	ControlPoint string
	// ControlPoints are those of single domains, which win over ControlPoint.
	ControlPoints map[string]string
	// Labels are the labels that the values of entries get, by the key of the entry. A key that is not there is
	// its own label; one with the label "" makes none.
	Labels map[string]string
	// Headers that Envoy is asked to add to responses. "": HeadersDraft.
	Headers Headers
	// Logger is told of requests that are refused, at debug level; nil: no log.
	Logger *slog.Logger
}

// DomainMark stands for the domain of a request in Config.ControlPoint.
const DomainMark = "{domain}"

// DefaultControlPoint is the control point of flows unless told. Domains cannot be mistaken for control points of
// others then.
const DefaultControlPoint = "ratelimit/" + DomainMark

// Headers says which response headers tell clients about their limits.
type Headers string

// The choices.
const (
	HeadersDraft  Headers = "ratelimit"   // RateLimit-Policy, RateLimit and Retry-After
	HeadersLegacy Headers = "x-ratelimit" // X-RateLimit-Limit, -Remaining and -Reset
	HeadersBoth   Headers = "both"
	HeadersNone   Headers = "none"
)

var allHeaders = []Headers{HeadersDraft, HeadersLegacy, HeadersBoth, HeadersNone}

// Validate finds what is wrong, all of it. It does not look at Engine.
func (c *Config) Validate() error {
	var problems []error
	if c.Headers != "" && !slices.Contains(allHeaders, c.Headers) {
		problems = append(problems, fmt.Errorf("headers: got %q, want one of ratelimit, x-ratelimit, both, none", string(c.Headers)))
	}
	if n := len(c.ControlPoint) - len(DomainMark); n > flow.MaxControlPointLen {
		problems = append(problems, fmt.Errorf("control_point: got %d bytes, want at most %d", len(c.ControlPoint), flow.MaxControlPointLen))
	}
	for _, domain := range slices.Sorted(maps.Keys(c.ControlPoints)) {
		switch point := c.ControlPoints[domain]; {
		case domain == "":
			problems = append(problems, errors.New(`control_points: got an empty domain, want the domain that Envoy's filter names`))
		case point == "":
			problems = append(problems, fmt.Errorf("control_points.%s: got no control point, want one", domain))
		case len(point) > flow.MaxControlPointLen:
			problems = append(problems, fmt.Errorf("control_points.%s: got %d bytes, want at most %d", domain, len(point), flow.MaxControlPointLen))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.Labels)) {
		if strings.HasPrefix(c.Labels[key], descriptor.ReservedPrefix) {
			problems = append(problems, fmt.Errorf("labels.%s: got %q, want a label that does not begin with %q: those are made by Sluice",
				key, c.Labels[key], descriptor.ReservedPrefix))
		}
	}
	return errors.Join(problems...)
}

func (c *Config) setDefaults() {
	if c.ControlPoint == "" {
		c.ControlPoint = DefaultControlPoint
	}
	if c.Headers == "" {
		c.Headers = HeadersDraft
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// controlPoint is where the flows of a domain pass.
func (c *Config) controlPoint(domain string) string {
	if point, ok := c.ControlPoints[domain]; ok {
		return point
	}
	return strings.ReplaceAll(c.ControlPoint, DomainMark, domain)
}

// label is the label for the value of an entry; "" for none.
func (c *Config) label(key string) string {
	if to, ok := c.Labels[key]; ok {
		return to
	}
	return key
}
