// SPDX-License-Identifier: Apache-2.0

// Package together asks one server at all of its doors at once: they charge the same accounts and hold the same slots,
// and policies select flows of each of them in the same way.
package together

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluice-project/sluice/test/doors/doorstest"
)

func TestMain(m *testing.M) { os.Exit(doorstest.Main(m)) }

const policies = `policy_name: together
circuit:
  components:
    - flow_control:
        rate_limiter:
          in_ports: {bucket_capacity: {constant_signal: {value: 150}}, fill_amount: {constant_signal: {value: 0}}}
          parameters: {interval: 3600s, limit_by_label_key: user}
          selectors: [{control_point: rate}]
    - flow_control:
        concurrency_limiter:
          in_ports: {max_concurrency: {constant_signal: {value: 50}}}
          parameters: {max_inflight_duration: 3600s}
          selectors: [{control_point: slots}]
`

// configure writes a configuration and returns the arguments that name it.
func configure(t *testing.T, text string) []string {
	t.Helper()
	path := t.TempDir() + "/sluice.yaml"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--config", path}
}

// pointsOfDomains lets Envoy's rate limit filter name control points, so that it can ask about those of others.
const pointsOfDomains = "envoy_rate_limit: {control_point: \"{domain}\"}\n"

func serve(t *testing.T) *client {
	t.Helper()
	return newClient(t, doorstest.Sluice(t, doorstest.Options{Policies: []string{policies}, Args: configure(t, pointsOfDomains)}))
}

// askAll asks n times at each door, all at once, and tells by door which were admitted.
func askAll(t *testing.T, doors []door, n int, q question) map[string][]answer {
	t.Helper()
	var mu sync.Mutex
	admitted := make(map[string][]answer)
	var all sync.WaitGroup
	for _, d := range doors {
		const workers = 4
		var next atomic.Int64
		for range workers {
			all.Go(func() {
				for next.Add(1) <= int64(n) {
					a, err := d.ask(t.Context(), q)
					if err != nil {
						t.Errorf("%s: %v", d.name, err)
						return
					}
					if a.admitted {
						mu.Lock()
						admitted[d.name] = append(admitted[d.name], a)
						mu.Unlock()
					}
				}
			})
		}
	}
	all.Wait()
	return admitted
}

func count(admitted map[string][]answer) (n int) {
	for _, list := range admitted {
		n += len(list)
	}
	return n
}

// TestOneAccount: whichever doors requests come by, a user has one account.
func TestOneAccount(t *testing.T) {
	t.Parallel()
	c := serve(t)
	doors := c.doors()
	const each, capacity = 40, 150
	ann := askAll(t, doors, each, question{point: "rate", labels: map[string]string{"user": "ann"}})
	if got := count(ann); got != capacity {
		t.Errorf("%d of Ann's flows were admitted, want exactly %d", got, capacity)
	}
	for _, d := range doors {
		if len(ann[d.name]) == 0 {
			t.Errorf("%s: none was admitted, so it was not in parallel with the others", d.name)
		}
		bob, err := d.ask(t.Context(), question{point: "rate", labels: map[string]string{"user": "bob"}})
		if err != nil || !bob.admitted {
			t.Errorf("%s: got %v, %v, want that Bob's account is not Ann's", d.name, bob.admitted, err)
		}
	}
	n := float64(len(doors))
	for metric, labels := range map[string]string{"sluice_flows_total": "control_point=rate", "sluice_limiter_decisions_total": "kind=rate_limiter"} {
		wantMetric(t, c, capacity+n, metric, labels, "verdict=admitted")
		wantMetric(t, c, each*n-capacity, metric, labels, "verdict=denied")
	}
	wantMetric(t, c, each+1, "sluice_rls_requests_total")
	wantMetric(t, c, each+1, "sluice_extauthz_checks_total")
	wantMetric(t, c, each+1, "sluice_forwardauth_requests_total")
	wantMetric(t, c, float64(len(ann["forward-auth"]))+1, "sluice_forwardauth_requests_total", "answer=admit")
}

// TestOneSetOfSlots: slots that flows of all doors hold come back by what each door knows of ends, once.
func TestOneSetOfSlots(t *testing.T) {
	t.Parallel()
	c := serve(t)
	var doors []door
	for _, d := range c.doors() {
		if d.ends {
			doors = append(doors, d)
		}
	}
	const slots, rounds = 50, 3
	ended := make(map[string]int)
	for range rounds {
		held := askAll(t, doors, 20, question{point: "slots"})
		if got := count(held); got != slots {
			t.Fatalf("%d flows were admitted at once, want exactly %d", got, slots)
		}
		wantMetric(t, c, slots, "sluice_limiter_in_flight_tokens", "kind=concurrency_limiter")
		endAll(t, held)
		wantMetric(t, c, 0, "sluice_limiter_in_flight_tokens", "kind=concurrency_limiter")
		for name, list := range held {
			ended[name] += len(list)
		}
	}
	for name, n := range ended {
		t.Logf("%s: %d ended", name, n)
	}
	sum := func(names ...string) (n float64) {
		for _, name := range names {
			n += float64(ended[name])
		}
		return n
	}
	wantMetric(t, c, slots*rounds, "sluice_flows_total", "control_point=slots", "verdict=admitted")
	wantMetric(t, c, sum("external authorization"), "sluice_extauthz_ends_total", "result=ended")
	wantMetric(t, c, sum("forward-auth"), "sluice_forwardauth_ends_total", "result=ended")
	wantMetric(t, c, sum("Aperture's Check, FlowEnd"), "sluice_aperture_flow_end_refs_total", "result=returned")
	wantMetric(t, c, sum("Aperture's Check, record by gRPC", "Aperture's CheckHTTP as JSON, record by HTTP"),
		"sluice_aperture_records_total", "result=ended")
	// FlowEnd frees slots; how the work went is told by a record, which these clients have not sent.
	wantMetric(t, c, slots*rounds-sum("Aperture's Check, FlowEnd"), "sluice_flow_duration_seconds", "control_point=slots")
}

// endAll ends flows of all doors at once.
func endAll(t *testing.T, held map[string][]answer) {
	t.Helper()
	var all sync.WaitGroup
	for name, list := range held {
		all.Go(func() {
			for _, a := range list {
				if err := a.end(context.WithoutCancel(t.Context())); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	all.Wait()
}
