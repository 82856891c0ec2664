// SPDX-License-Identifier: Apache-2.0

package forwardauth

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-project/sluice/internal/label"
)

// settings are what the URL of a question says:
//
//	/forward-auth/CONTROL_POINT   or control_point=
//	from=forwarded                where the request is described: X-Forwarded-… (the default), or
//	from=original                 X-Original-… and X-Real-IP
//	hops=1                        further proxies in front of the one that asks, 0 to 16, for the client's address
//	timeout=250ms                 how long it may wait in queues, 0 to 1m
//	labels=user,tier              labels to take from the headers Sluice-Label-user and Sluice-Label-tier
//	label.tier=free               a label with this value
//	service=shop                  a service of the flow; may be given several times
//	deny_status=403               the status of all denials, with the real one in Sluice-Status
//	size=100000                   the length of the body, when only its beginning comes with the question
//	expect_end=true               the answer has a token, with which POST /forward-auth/end tells how it went
type settings struct {
	point      string
	byOriginal bool
	hops       int
	timeout    time.Duration
	named      []string // labels that headers may give
	labels     map[string]string
	services   []string
	denyStatus int // 0: the real one
	size       int // 0: what comes with the question is all
	expectEnd  bool
}

// Bounds.
const (
	longestTimeout = time.Minute
	mostHops       = 16
	mostNamed      = 64
	mostServices   = 64
	mostSize       = 1 << 50
)

// settingsOf reads a URL. The error tells people who configure a proxy what is wrong.
func (d *Door) settingsOf(u *url.URL) (settings, error) {
	s := settings{timeout: d.config.QueueTimeout}
	s.point = strings.TrimPrefix(strings.TrimPrefix(u.Path, Path), "/")
	if u.RawQuery != "" {
		query, err := url.ParseQuery(u.RawQuery)
		if err != nil {
			return s, fmt.Errorf("forward-auth: the query of the URL is broken: %w", err)
		}
		for name, values := range query {
			if err := s.set(name, values); err != nil {
				return s, fmt.Errorf("forward-auth: %s: %w", label.Printable(name), err)
			}
		}
	}
	if s.point == "" {
		return s, fmt.Errorf("forward-auth: the URL names no control point; expected %s/NAME, for example %s/shop", Path, Path)
	}
	return s, nil
}

func (s *settings) set(name string, values []string) (err error) {
	if name == "service" {
		if len(values) > mostServices {
			return fmt.Errorf("got %d services, want at most %d", len(values), mostServices)
		}
		s.services = values
		return nil
	}
	if len(values) > 1 {
		return fmt.Errorf("is there %d times, want once", len(values))
	}
	value := values[0]
	if key, ok := strings.CutPrefix(name, "label."); ok && key != "" {
		if s.labels == nil {
			s.labels = make(map[string]string)
		}
		s.labels[key] = value
		return nil
	}
	switch name {
	case "control_point":
		if s.point == "" {
			s.point = value
		}
	case "from":
		s.byOriginal, err = oneOf(value, "forwarded", "original")
	case "hops":
		s.hops, err = number(value, 0, mostHops)
	case "timeout":
		s.timeout, err = timeout(value)
	case "labels":
		s.named, err = names(value)
	case "deny_status":
		s.denyStatus, err = number(value, 400, 599)
	case "size":
		s.size, err = number(value, 0, mostSize)
	case "expect_end":
		s.expectEnd, err = oneOf(value, "false", "true")
	default:
		return fmt.Errorf("is not a setting; expected one of control_point, deny_status, expect_end, from, hops, " +
			"label.NAME, labels, service, size, timeout")
	}
	return err
}

// oneOf tells whether the value is the second one.
func oneOf(value, first, second string) (isSecond bool, err error) {
	if value != first && value != second {
		return false, fmt.Errorf("got %q, want %s or %s", label.Printable(value), first, second)
	}
	return value == second, nil
}

func number(value string, least, most int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("got %q, want a number from %d to %d", label.Printable(value), least, most)
	}
	return n, nil
}

func timeout(value string) (time.Duration, error) {
	t, err := time.ParseDuration(value)
	if err != nil || t < 0 || t > longestTimeout {
		return 0, fmt.Errorf("got %q, want a duration from 0s to %s, for example 250ms", label.Printable(value), longestTimeout)
	}
	return t, nil
}

func names(value string) ([]string, error) {
	list := strings.Split(value, ",")
	if len(list) > mostNamed {
		return nil, fmt.Errorf("got %d labels, want at most %d", len(list), mostNamed)
	}
	for _, name := range list {
		if name == "" || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c) }) {
			return nil, fmt.Errorf("got %q, want names that a header can have, separated by commas", label.Printable(name))
		}
	}
	return list, nil
}

// labelsOf are the labels that the URL gives, and those that it lets headers give. An empty header is none: some proxies
// cannot leave one out.
func (s *settings) labelsOf(h http.Header) map[string]string {
	labels := s.labels
	for _, name := range s.named {
		value := h.Get(labelPrefix + name)
		if value == "" {
			continue
		}
		if labels == nil {
			labels = make(map[string]string, len(s.named))
		}
		labels[name] = value
	}
	return labels
}
