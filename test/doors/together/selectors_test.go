// SPDX-License-Identifier: Apache-2.0

package together

import (
	"slices"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/test/doors/doorstest"
)

// selection is a policy that closes control points to the flows that it selects. A closed one has the name of what it
// selects by.
const selection = `policy_name: selection
circuit:
  components:
    - flow_control:
        sampler:
          in_ports: {accept_percentage: {constant_signal: {value: 0}}}
          parameters:
            selectors:
              - {control_point: service, service: shop.local}
              - {control_point: no-service, service: other.local}
              - {control_point: group, agent_group: default}
              - {control_point: core-group, agent_group: core}
              - {control_point: equal, label_matcher: {match_labels: {tier: gold}}}
              - {control_point: list, label_matcher: {match_list: [{key: tier, operator: In, values: [gold, silver]}]}}
              - {control_point: regex, label_matcher: {expression: {label_matches: {label: tier, regex: ^go}}}}
              - {control_point: cel, label_matcher: {expression: {cel: 'labels.tier in ["gold"] && labels.user.size() == 3'}}}
              - {control_point: no-cel, label_matcher: {expression: {cel: 'labels.tier == "silver" || has(labels.nobody)'}}}
              - control_point: all
                service: shop.local
                label_matcher: {match_labels: {tier: gold}, expression: {cel: 'labels.user.startsWith("a")'}}
              - control_point: core-all
                service: shop.local
                agent_group: core
                label_matcher: {match_labels: {tier: gold}, expression: {cel: 'labels.user.startsWith("a")'}}
              - {control_point: source, label_matcher: {match_labels: {aperture.source_fqdns: web.local}}}
              - {control_point: web, label_matcher: {expression: {cel: 'labels["http.target"] == "/v1/graphql" && labels["http.method"] == "POST"'}}}
`

// services know the tests, which ask from 127.0.0.1 and for it, and a client.
const services = `discovery:
  static:
    - {service: shop.local, addresses: [127.0.0.1]}
    - {service: web.local, addresses: [10.1.0.0/24]}
`

// TestSelectors: services, groups of servers and matchers of labels select the same flows at every door.
func TestSelectors(t *testing.T) {
	t.Parallel()
	closed := map[string]string{ // by group of the server; a selector without one is for the group default
		"default": "service group equal list regex cel all",
		"core":    "core-group core-all",
		"":        "service group equal list regex cel all core-group core-all",
	}
	points := []string{
		"service", "no-service", "group", "core-group", "equal", "list", "regex", "cel", "no-cel", "all", "core-all", "source", "web",
	}
	for group, list := range closed {
		want, args := strings.Fields(list), configure(t, services+pointsOfDomains)
		if group != "core" {
			want = append(want, "http: source", "http: web")
		}
		if group != "" {
			args = append(args, "--agent-group", group)
		}
		c := newClient(t, doorstest.Sluice(t, doorstest.Options{Policies: []string{selection}, Args: args}))
		q := question{labels: map[string]string{"user": "ann", "tier": "gold"}, source: "10.1.0.7", destination: "127.0.0.1"}
		for _, d := range c.doors() {
			for _, q.point = range points {
				open := !slices.Contains(want, q.point) && !(d.http && slices.Contains(want, "http: "+q.point))
				if a, err := d.ask(t.Context(), q); err != nil || a.admitted != open {
					t.Errorf("%s, group %q, %s: admitted is %v, %v, want %v", d.name, group, q.point, a.admitted, err, open)
				}
			}
		}
	}
}

// classified is a policy whose classifier makes a label, for baggage.
const classified = `policy_name: classified
resources:
  flow_control:
    classifiers:
      - selectors: [{control_point: baggage}]
        rules: {plan: {extractor: {from: request.http.headers.x-plan}}}
circuit: {}
`

// TestBaggage: at every door that sees HTTP, labels come by baggage and those of classifiers go on as baggage.
func TestBaggage(t *testing.T) {
	t.Parallel()
	c := newClient(t, doorstest.Sluice(t, doorstest.Options{Policies: []string{classified}}))
	for _, d := range c.doors() {
		if !d.http {
			continue
		}
		q := question{point: "baggage", labels: map[string]string{"user": "ann"}, header: map[string]string{"x-plan": "gold, silver"}}
		if a, err := d.ask(t.Context(), q); err != nil || a.baggage != "user=ann,plan=gold--silver" {
			t.Errorf("%s: the request goes on with the baggage %q, %v", d.name, a.baggage, err)
		}
	}
}

// TestGraphQL: the classifier of a policy as people have them labels queries and mutations at every door that sees
// HTTP, for the service that it selects and for no other one.
func TestGraphQL(t *testing.T) {
	t.Parallel()
	const config = `discovery:
  static:
    - {service: hasura.cloud.svc.cluster.local, addresses: [127.0.0.1]}
    - {service: agent-service.cloud.svc.cluster.local, addresses: [10.0.0.2]}
`
	c := newClient(t, doorstest.Sluice(t, doorstest.Options{
		Policies: []string{"internal/policy/blueprint/testdata/scenarios/hasura-auto-scale.values.yaml"}, Args: configure(t, config),
	}))
	const source = "source=agent-service.cloud.svc.cluster.local"
	for _, d := range c.doors() {
		for body, operation := range map[string]string{
			`{"query": "mutation Add { insert_users_one(object: {name: \"a\"}) { id } }"}`: "operation=mutation",
			`{"query": "query { users(limit: 10) { id name } }"}`:                          "operation=query",
			`{"query": "{ users { id } }"}`:                                                "operation=query",
		} {
			q := question{point: "ingress", body: body, source: "10.0.0.2", destination: "127.0.0.1"}
			if !d.http {
				continue
			}
			a, err := d.ask(t.Context(), q)
			if err != nil || !a.admitted || !strings.Contains(a.baggage, operation) || !strings.Contains(a.baggage, source) {
				t.Errorf("%s: %s: admitted is %v with the baggage %q, %v, want %s", d.name, body, a.admitted, a.baggage, err, operation)
			}
		}
	}
}
