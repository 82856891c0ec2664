// SPDX-License-Identifier: Apache-2.0

// Package alert keeps the alerts that policies raise, and tells people about them.
//
// A policy raises an event on every tick on which something is wrong. The Center makes alerts of them: one
// fires with the first event and is resolved when no event has come for its resolve timeout. Alerts are
// kept for the API and, through Store, across restarts. Every change is delivered to the targets: an
// Alertmanager (API v2) or a webhook. Targets wait for nobody: each has a queue and a courier of its own.
//
// What a target learns is the latest state of each alert, at least once. One that was away is not told
// about changes in between.
package alert

import (
	"context"
	"time"
)

// Severities of an event, from harmless to bad.
const (
	Info = "info"
	Warn = "warn"
	Crit = "crit"
)

// DefaultResolveTimeout is used for events without one.
const DefaultResolveTimeout = 5 * time.Second

// Event says that something is wrong now. Events that agree in Name, Severity, Policy, Component and Labels
// are one alert.
type Event struct {
	// Name is what the alert says. Required.
	Name string
	// Severity is Info, Warn or Crit; anything else counts as Info.
	Severity string
	// Policy and Component that raise it; the component is the id in the document, such as root.3.
	Policy, Component string
	// Channels name targets it is sent to; see Target.OnlyNamed. Raise copies them.
	Channels []string
	// Labels it carries in addition to alertname, severity, policy_name and component_id, which they cannot
	// replace, and type, which they can: it is "alerter" otherwise. Raise copies them.
	Labels map[string]string
	// ResolveTimeout is how long the alert lasts after the last event; at most 0 means
	// DefaultResolveTimeout. It should be more than the time between two events, or the alert flaps.
	ResolveTimeout time.Duration
	// At is when it was seen: the time of the tick. Zero means now.
	At time.Time
}

// State is whether an alert is still on.
type State string

// States of an alert.
const (
	Firing   State = "firing"
	Resolved State = "resolved"
)

// Alert is an alert from its first event until long after it is over.
type Alert struct {
	// ID identifies the alert in this server; later alerts have higher ones. At least 1.
	ID int64
	// Name, Severity, Policy and Component as in the event.
	Name, Severity, Policy, Component string
	// State is Firing or Resolved.
	State State
	// Labels are all that it is sent with.
	Labels map[string]string
	// Channels as in the event.
	Channels []string
	// Start is the time of the first event, Last of the latest, and End when it was resolved; zero while it
	// fires.
	Start, Last, End time.Time
	// ResolveTimeout as in the event.
	ResolveTimeout time.Duration
	// DeliveryError says which targets could not be told of its state, and why; empty: none.
	DeliveryError string
	// Pending names the targets that are still to be told of its state. It is for Store.
	Pending []string
}

// Store keeps alerts across restarts. Methods are called by one goroutine at a time.
type Store interface {
	// SaveAlerts adds alerts, or replaces those with the same ID. Then, while there are more than keep, it
	// forgets resolved ones, those first that ended first. All or nothing.
	SaveAlerts(ctx context.Context, alerts []Alert, keep int) error
	// LoadAlerts returns all alerts by ascending ID. Times may be rounded to microseconds.
	LoadAlerts(ctx context.Context) ([]Alert, error)
}
