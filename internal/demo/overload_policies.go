// SPDX-License-Identifier: Apache-2.0

package demo

import "fmt"

const overloadTitle = "Overload: a service gets three times the load it can carry"

// overloadWorkloads gives subscribers four times the weight of guests.
const overloadWorkloads = `workloads:
          - name: subscriber
            label_matcher:
              match_labels:
                user_type: subscriber
            parameters:
              priority: 200
          - name: guest
            label_matcher:
              match_labels:
                user_type: guest
            parameters:
              priority: 50
`

// overloadVariants are the runs, the one without a policy first.
func overloadVariants(s overloadScenario) []overloadVariant {
	limit := s.StaticLimit * s.capacity()
	return []overloadVariant{
		{name: "none", title: "no policy"},
		{name: "static", title: "static limit", policy: &document{
			name: "demo-overload-static", file: "static.yaml",
			text: fmt.Sprintf(`# A limit that somebody measured when the service was faster: %[1]g requests a second.
blueprint: rate-limiting/base
policy:
  policy_name: demo-overload-static
  rate_limiter:
    bucket_capacity: %[1]g
    fill_amount: %[1]g
    parameters:
      interval: 1s
    selectors:
      - control_point: %[2]s
`, limit, overloadControlPoint),
		}},
		{name: "average-latency", title: "load-scheduling/average-latency", policy: &document{
			name: "demo-overload-latency", file: "average-latency.yaml",
			text: fmt.Sprintf(`# While requests take longer than usual, fewer are let in, guests turned away before subscribers.
blueprint: load-scheduling/average-latency
policy:
  policy_name: demo-overload-latency
  latency_baseliner:
    flux_meter:
      selectors:
        - control_point: %[1]s
    latency_tolerance_multiplier: 1.5
    short_term_query_interval: 3s
    # Usually every 30 s; the whole story takes little longer.
    long_term_query_periodic_interval: 1s
  load_scheduling_core:
    aimd_load_scheduler:
      # Requests take milliseconds, so the way back up may be quicker than the usual 0.025 in ten seconds.
      load_multiplier_linear_increment: 0.5
      gradient:
        min_gradient: 0.5
      load_scheduler:
        selectors:
          - control_point: %[1]s
        scheduler:
          %[2]s`, overloadControlPoint, overloadWorkloads),
		}},
		{name: "adaptive", title: "load-scheduling/adaptive", policy: &document{
			name: "demo-overload-adaptive", file: "adaptive.yaml",
			text: fmt.Sprintf(`# As many requests are let in as the service can work on, whatever that number is.
blueprint: load-scheduling/adaptive
policy:
  policy_name: demo-overload-adaptive
  load_scheduling_core:
    adaptive_concurrency_scheduler:
      selectors:
        - control_point: %[1]s
      scheduler:
        %[2]s`, overloadControlPoint, overloadWorkloads),
		}},
	}
}
