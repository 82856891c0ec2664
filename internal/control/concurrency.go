// SPDX-License-Identifier: Apache-2.0

package control

import (
	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/circuit/component"
	"github.com/sluice-project/sluice/internal/policy"
)

// adaptiveConcurrency makes the parts of an adaptive concurrency scheduler.
func (x *composite) adaptiveConcurrency(p *policy.AdaptiveConcurrencyScheduler) {
	confirmation := x.in("overload_confirmation", p.InPorts.OverloadConfirmation)
	limit := x.out("max_concurrency", p.OutPorts.MaxConcurrency, "MAX_CONCURRENCY")
	overload := x.out("is_overload", p.OutPorts.IsOverload, "IS_OVERLOAD")
	accepted := x.out("accept_percentage", p.OutPorts.AcceptPercentage, "ACCEPT_PERCENTAGE")
	controller := component.NewConcurrencyController(component.ConcurrencyConfig{
		Min: p.Parameters.MinConcurrency, Max: p.Parameters.MaxConcurrency, Initial: p.Parameters.Initial(),
	})
	x.part("concurrency_controller", "from "+number(p.Parameters.Initial()), controller, []circuit.In{confirmation},
		circuit.Out{Port: "max_concurrency", Signal: limit}, circuit.Out{Port: "is_overload", Signal: overload})
	o := observerNode{feed: controller}
	x.observeAccept(&o, accepted)
	x.observe(o)
	x.alert(overload, &p.Alerter, "adaptive_concurrency_scheduler")
	acted := x.dryRun(p.DryRun, p.DryRunConfigKey, read(limit), "ACTUATED_MAX_CONCURRENCY")
	x.actuate(actuatorNode{act: actSlots, driven: true, expires: true}, nil,
		as("max_concurrency", read(acted)), as("pass_through", constant(circuit.Invalid())))
}
